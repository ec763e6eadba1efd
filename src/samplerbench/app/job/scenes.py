"""The scene of a job's pictures: the objects that they draw, described for identities."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from samplerbench.app.job.training import Training
from samplerbench.bench.scene import Scene
from samplerbench.bench.sweep import Sweep
from samplerbench.identity import describe


def scene(sweep: Sweep, training: Training | None) -> Scene:
    """The scene of the job's pictures, before the training."""
    trained = training is not None and training.weights is None
    untrained = training.objective.model if training is not None and trained else None
    return Scene(
        dataset=sweep.dataset,
        schedule=sweep.schedule,
        grid=sweep.path_grid,
        denoisers=sweep.denoisers,
        starts=sweep.starts,
        samplers=sweep.samplers,
        steps=sweep.all_steps,
        untrained=untrained,
        train=training.data.x0 if training else torch.empty(0, sweep.dataset.dim),
        seed=sweep.seed,
        dtype=sweep.dtype,
        device=sweep.device,
        training=training_name(sweep) if training else "",
        own_grids=sweep.own_grids,
    )


def training_name(sweep: Sweep) -> str:
    """A description of the training."""
    labels = sweep.labels
    return f"{labels.network} trained with {labels.objective} on {labels.dataset}"


def scene_description(sweep: Sweep) -> dict[str, Any]:
    """Everything that determines a `scene` of the trained model, for an identity."""
    described = partial(describe, code=True)
    return {
        "dataset": described(sweep.dataset),
        "schedule": described(sweep.schedule),
        "grid": described(sweep.path_grid),
        # the order matters: panels and legends have it too
        "denoisers": [(name, asdict(origin)) for name, origin in sweep.books.origins.items()],
        "starts": [(name, described(start)) for name, start in sweep.starts.items()],
        "samplers": [(name, described(sampler)) for name, sampler in sweep.samplers],
        "steps": sweep.all_steps,
        "own_grids": [(described(own.sampler), own.identities) for own in sweep.own_grids],
        "training": training_name(sweep),
        "seed": sweep.seed,
        "dtype": str(sweep.dtype),
        "device": sweep.device.type,
        "threads": torch.get_num_threads(),
    }
