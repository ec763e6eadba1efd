"""Objects for the library: from the names of members, with the config's defaults around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from omegaconf import DictConfig

from samplerbench.app.build import (
    PARTS,
    build_training,
    chosen_device,
    chosen_dtype,
    decisive,
    processor_count,
)
from samplerbench.app.compose import composed
from samplerbench.app.construct import construct, construct_grid, trusting
from samplerbench.app.groups import members, nodes
from samplerbench.app.numbers import count, numbers
from samplerbench.app.refusals import check
from samplerbench.app.runs import open_run
from samplerbench.datasets.base import Dataset, finite
from samplerbench.evaluation import scene
from samplerbench.evaluation.store import Store
from samplerbench.evaluation.sweep import Labels, Sweep
from samplerbench.schedules import NoiseSchedule
from samplerbench.weights import LOSSES, WEIGHTS


def untrained(
    dataset: tuple[str, Dataset],
    schedule: tuple[str, NoiseSchedule] | None,
    words: Sequence[str],
) -> Sweep:
    """The main job's sweep on a law, with its exact denoiser where it has one.

    Args:
        dataset: its label and the law.
        schedule: its label and the path; None for the config's.
        words: that the config is composed with.
    """
    config, chosen = composed(words)
    return _sweep(config, chosen, dataset, schedule)


def trained(
    dataset: tuple[str, Dataset],
    schedule: tuple[str, NoiseSchedule] | None,
    words: Sequence[str],
    settings: Mapping[str, object],
) -> tuple[Sweep, pd.DataFrame]:
    """The same with a learned denoiser, trained here, and the losses on the way.

    Args:
        dataset: its label and the law.
        schedule: its label and the path; None for the config's.
        words: that the config is composed with.
        settings: keys of the config that are changed after that.

    Raises:
        InvalidSetting: it cannot be trained so.
        RunFailed: the loss or the weights are no longer finite.
    """
    from samplerbench.training import train  # Lightning takes seconds to import

    config, chosen = composed(words, settings)
    sweep = _sweep(config, chosen, dataset, schedule)
    training = build_training(
        config, sweep.dataset, sweep.schedule, sweep.data_seed, sweep.train_seed
    )
    # what is sampled and measured is not known yet; a later sweep checks that
    check(replace(sweep, samplers=[], metrics={}), training.objective)
    with TemporaryDirectory(prefix="samplerbench-") as folder:
        model = train(
            training.objective,
            training.data,
            directory=Path(folder),
            device=sweep.device,
            progress=False,
        )
        weights = (Path(folder) / WEIGHTS).read_bytes()
        losses = pd.read_csv(Path(folder) / LOSSES)
    used = decisive(config)
    named = {
        key: str(chosen.get(key) or "") if key in used or key not in PARTS else ""
        for key in ("network", "objective", "target")
    }
    sweep = replace(
        sweep,
        denoisers={"learned": model.to(sweep.device), **sweep.denoisers},
        training_id=blake2b(weights, digest_size=8).hexdigest(),
        labels=replace(sweep.labels, **named),
    )
    return sweep, losses


def stored(
    directory: Path, trust: str | Sequence[str], device: str
) -> tuple[Sweep, pd.DataFrame, pd.DataFrame]:
    """The sweep of a stored run, its losses, and its values so far."""
    with trusting(trust):
        run = open_run(directory)
        job = run.job(device=device)
    path = directory / LOSSES
    losses = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=list(scene.LOSSES))
    return job.sweep, losses, Store.readable(directory)[0]


def _sweep(
    config: DictConfig,
    chosen: Mapping[str, Any],
    dataset: tuple[str, Dataset],
    schedule: tuple[str, NoiseSchedule] | None,
) -> Sweep:
    name, law = dataset
    if schedule is None:
        schedule = str(chosen["schedule"]), construct(config.schedule, "schedule")
    device = chosen_device(config.device)
    # of a law that is known by its points the ideal denoiser only repeats those
    oracle = law.oracle(schedule[1]) if law.known_law else None
    data_seed = count(config, "data_seed")
    points = law.draws(count(config, "n_reference"), "evaluation", data_seed)
    return Sweep(
        dataset=law,
        schedule=schedule[1],
        grid=construct(config.grid, "grid"),
        denoisers={} if oracle is None else {"oracle": oracle.to(device)},
        starts=members(config, "start"),
        samplers=[
            (str(name), sampler)
            for name, node in nodes(config, "sampler").items()
            for sampler in construct_grid(node, f"sampler.{name}")
        ],
        steps=numbers(config, "steps"),
        metrics=members(config, "metric"),
        reference=finite(points, "dataset"),
        n_samples=count(config, "n_samples"),
        repetitions=count(config, "repetitions"),
        floor_repetitions=count(config, "floor_repetitions"),
        block=count(config, "block"),
        dtype=chosen_dtype(config.dtype),
        device=device,
        workers=processor_count(),
        labels=Labels(
            experiment="main", dataset=name, schedule=schedule[0], grid=str(chosen["grid"])
        ),
        seed=count(config, "seed"),
        data_seed=data_seed,
        train_seed=count(config, "train_seed"),
        metric_seed=count(config, "metric_seed"),
    )
