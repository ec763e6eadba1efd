"""Export a designed grid: the words of a job, a yaml file, and the lists of diffusers.

    ratios       κ = σ/α without the data: grid=custom grid.ratios=[…]
    sigmas       for EulerDiscreteScheduler.set_timesteps(sigmas=[…]), whose σ is κ; its list ends
                 with the 0 of the data
    flow_sigmas  t = κ/(1 + κ) for FlowMatchEulerDiscreteScheduler.set_timesteps(sigmas=[…]) with
                 shift=1; it adds the 0 itself
    timesteps    integers of the training levels that are nearest in ln κ, for schedulers with the
                 table of the path: set_timesteps(timesteps=[…]). null on a path without such a
                 table (α² + σ² ≠ 1), and if two levels would have the same integer

Integers cannot represent every level: `rounding` is the largest change of ln κ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from samplerbench.bench.cell import sampler_name
from samplerbench.bench.design import ratios
from samplerbench.bench.designing import Designed
from samplerbench.bench.own_grids import OwnGrid
from samplerbench.core.grids import TruncatedLevels
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.identity import settings_text


def exported(design: Designed, schedule: NoiseSchedule) -> dict[str, Any]:
    """The record of a design."""
    return {
        "sampler": sampler_name(design.sampler, design.settings),
        "steps": design.steps,
        "nfe": design.nfe,
        "grid": design.grid,
        **_lists(design.ratios, design.levels.plain, schedule),
        "criterion": design.criterion,
        "value": design.designed_value if design.better else design.standard_value,
        "designed_value": design.designed_value,
        "standard": design.standard,
        "standard_value": design.standard_value,
        "gain": [design.gain, design.lower, design.upper],
        "evaluations": design.evaluations,
        "design_id": design.design_id,
    }


def exported_own(grids: Sequence[OwnGrid], schedule: NoiseSchedule) -> list[dict[str, Any]]:
    """The records of the grids of single samplers of a sweep on a path."""
    records = []
    for own in grids:
        levels = own.levels(schedule)
        name = type(own.sampler).__name__
        record = {"sampler": sampler_name(name, settings_text(own.sampler)), "steps": own.steps}
        plain = isinstance(levels, TruncatedLevels)
        records.append({**record, "grid": own.name, **_lists(ratios(levels), plain, schedule)})
    return records


def _lists(noise: Sequence[float], plain: bool, schedule: NoiseSchedule) -> dict[str, Any]:
    """The words of a job and the lists of diffusers for κ without the data."""
    timesteps, rounding = nearest_timesteps(noise, schedule)
    listed = ",".join(f"{ratio:.17g}" for ratio in noise)
    return {
        "words": ["grid=custom", f"grid.ratios=[{listed}]", f"steps=[{len(noise) - plain}]"],
        "ratios": list(noise),
        "diffusers": {
            "sigmas": [*noise, *([] if plain else [0.0])],
            "flow_sigmas": [ratio / (1 + ratio) for ratio in noise],
            "timesteps": timesteps,
            "rounding": rounding,
        },
    }


def as_member(design: Designed) -> str:
    """The yaml of a grid with these levels, for the user's own folder conf/grid/."""
    lines = [
        f"# {design.grid} for {design.name}, {design.denoiser} denoiser, {design.start} start: "
        f"{design.criterion}",
        "_target_: samplerbench.core.grids.custom",
        "_partial_: true",
        "ratios:",
        *(f"- {ratio!r}" for ratio in design.ratios),
    ]
    return "\n".join(lines) + "\n"


def nearest_timesteps(
    noise: Sequence[float], schedule: NoiseSchedule
) -> tuple[list[int] | None, float | None]:
    """The training levels of a path that are nearest in ln κ, and the largest change of ln κ.

    Integers from 0 to T − 1 for the times 1/T to 1; None for both if no scheduler with a table has
    these levels.
    """
    count = schedule.train_steps
    times = torch.arange(1, count + 1, dtype=torch.float64) / count
    alpha, sigma = schedule(times)
    known = (sigma / alpha).log()
    logs = torch.tensor([math.log(ratio) for ratio in noise], dtype=torch.float64)
    distances = (known[None] - logs[:, None]).abs().nan_to_num(nan=math.inf)
    nearest: list[int] = distances.argmin(1).tolist()
    preserving = bool(((alpha.square() + sigma.square() - 1).abs() < 1e-9).all())
    if not preserving or len({*nearest}) < len(nearest):
        return None, None
    return nearest, float(distances[range(len(nearest)), nearest].max())
