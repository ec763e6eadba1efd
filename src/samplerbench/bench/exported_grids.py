"""A designed grid for other programs: the words of a job, and the lists of diffusers.

    ratios       κ = σ/α without the data: grid=custom grid.ratios=[…]
    sigmas       for EulerDiscreteScheduler.set_timesteps(sigmas=[…]), whose σ is κ; its list ends
                 with the 0 of the data
    flow_sigmas  t = κ/(1 + κ) for FlowMatchEulerDiscreteScheduler.set_timesteps(sigmas=[…]) with
                 shift=1; it adds the 0 itself
    timesteps    integers of the training levels that are nearest in ln κ, for a path with the
                 training levels of DDPM: scheduler.set_timesteps(timesteps=[…])

Integers cannot give any level: `rounding` is the largest change of ln κ by it.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from samplerbench.bench.cell import sampler_name
from samplerbench.bench.designing import Designed
from samplerbench.core.schedules import NoiseSchedule


def exported(design: Designed, schedule: NoiseSchedule) -> dict[str, Any]:
    """The record of a design.

    Args:
        design: the design.
        schedule: its path.
    """
    timesteps, rounding = nearest_timesteps(design.ratios, schedule)
    listed = ",".join(f"{ratio:.17g}" for ratio in design.ratios)
    words = ["grid=custom", f"grid.ratios=[{listed}]", f"steps=[{design.steps}]"]
    return {
        "sampler": sampler_name(design.sampler, design.settings),
        "steps": design.steps,
        "nfe": design.nfe,
        "grid": design.grid,
        "words": words,
        "ratios": list(design.ratios),
        "diffusers": {
            "sigmas": [*design.ratios, 0.0] if not design.levels.plain else list(design.ratios),
            "flow_sigmas": [ratio / (1 + ratio) for ratio in design.ratios],
            "timesteps": timesteps,
            "rounding": rounding,
        },
        "criterion": design.criterion,
        "value": design.designed_value,
        "standard": design.standard,
        "standard_value": design.standard_value,
        "gain": [design.gain, design.lower, design.upper],
        "evaluations": design.evaluations,
        "design_id": design.design_id,
    }


def nearest_timesteps(
    ratios: tuple[float, ...], schedule: NoiseSchedule
) -> tuple[list[int], float]:
    """The training levels of a path that are nearest in ln κ, and the largest change of ln κ.

    Integers from 0 to T − 1 for the times 1/T to 1. Two levels may have the same integer; then the
    sampler cannot run on them.
    """
    count = schedule.train_steps
    times = torch.arange(1, count + 1, dtype=torch.float64) / count
    known = schedule.noise_to_signal(times).log()
    logs = torch.tensor([math.log(ratio) for ratio in ratios], dtype=torch.float64)
    distances = (known[None] - logs[:, None]).abs().nan_to_num(nan=math.inf)
    nearest = distances.argmin(1)
    return nearest.tolist(), float(distances.gather(1, nearest[:, None]).max())
