"""Objects for the library, from the names of members and the defaults of the config."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from omegaconf import DictConfig

from samplerbench.app.config.compose import compose_config
from samplerbench.app.config.construct import trusting
from samplerbench.app.folder.runs import open_run
from samplerbench.app.job.basis import Basis, make_basis
from samplerbench.app.job.build import assemble
from samplerbench.app.job.denoisers import make_origin, scores_of
from samplerbench.app.job.rebuild import rebuild
from samplerbench.app.job.refusals import check
from samplerbench.bench import scene
from samplerbench.bench.budget.mismatch import mismatch
from samplerbench.bench.cell import Origin
from samplerbench.bench.designing import designed
from samplerbench.bench.fitting import fitted
from samplerbench.bench.sweep import Sweep
from samplerbench.core.models import Score
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.datasets.base import Dataset
from samplerbench.errors import require, warn
from samplerbench.identity import identity_of_model
from samplerbench.training.weights import LOSSES

#: Keys of a job's config that the library does not use.
UNUSED = frozenset(
    {
        *("dataset", "law", "denoiser", "model", "clip_x0", "budget", "chains", "picture"),
        *("logger", "cache", "cache_dir", "wanted", "sweeper_metric", "trusted", "debug"),
        *("experiment", "guide", "guidance", "altered", "worse", "corruption", "floor_free"),
    }
)


def exact_sweep(
    dataset: tuple[str, Dataset], schedule: tuple[str, NoiseSchedule] | None, words: Sequence[str]
) -> Sweep:
    """The main job's sweep on a law, with the exact denoiser if there is one."""
    if not dataset[1].can_be_drawn:
        words = [*words, "metric=moments", "start=prior"]
    base = _basis(*compose_config(words), dataset, schedule)
    return assemble(base, _exact(base))[0]


def trained_sweep(
    dataset: tuple[str, Dataset],
    schedule: tuple[str, NoiseSchedule] | None,
    words: Sequence[str],
    settings: Mapping[str, object],
    progress: Callable[[int], AbstractContextManager[Callable[[int], None]]],
) -> tuple[Sweep, pd.DataFrame]:
    """Train a denoiser; return the main job's sweep with it, and the losses.

    `progress` opens a progress bar for a number of steps; its function gets the steps done so far.

    Raises:
        InvalidSetting: a setting of the training is not allowed.
        RunFailed: the loss or the weights are not finite.
    """
    from samplerbench.training.loop import train  # Lightning takes seconds to import

    for key, value in settings.items():
        unused = UNUSED | ({"schedule"} if schedule is not None else set())
        allowed = "left out: a training does not use it"
        require(key.partition(".")[0] not in unused, key, value, allowed)
    base = _basis(*compose_config(words, settings), dataset, schedule, settings)
    sweep, trainings = assemble(base, ["learned", *_exact(base)])
    training = trainings["learned"]
    # samplers and metrics are not known yet; a later sweep checks them
    check(replace(sweep, samplers=[], metrics={}))
    warn_of_mismatch(sweep)
    steps = training.objective.recipe.steps
    with TemporaryDirectory(prefix="samplerbench-") as folder, progress(steps) as advance:
        model = train(
            training.objective,
            training.data,
            directory=Path(folder),
            log=lambda losses: advance(losses[-1][0]),
            device=sweep.device,
            progress=False,
            training_id=training.id,
        )
        losses = pd.read_csv(Path(folder) / LOSSES)
    denoisers = {**sweep.denoisers, "learned": model.to(sweep.device)}
    sweep = _identified(replace(sweep, denoisers=denoisers))
    return designed(fitted(sweep)[0])[0], losses


def warn_of_mismatch(sweep: Sweep) -> None:
    """Warn of data whose centre or scale does not fit the path, with the lines of a job."""
    for line in mismatch(sweep).lines:
        warn(line)


def stored_sweep(
    directory: Path, trust: str | Sequence[str], device: str
) -> tuple[Sweep, pd.DataFrame, pd.DataFrame]:
    """The sweep of a stored run, its losses, and its values so far."""
    with trusting(trust):
        run = open_run(directory)
        job = rebuild(run, device=device)
    path = directory / LOSSES
    losses = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=list(scene.LOSSES))
    return _identified(job.sweep), losses, run.table()


def altered_denoiser(sweep: Sweep, kind: str) -> tuple[Score, Origin]:
    """`corrupted` or `autoguided`, of the exact denoiser, with the settings of the config."""
    config, chosen = compose_config([])
    names = {**chosen, "dataset": sweep.labels.dataset}
    base = replace(make_basis(config, names, sweep.dataset, sweep.schedule), device=sweep.device)
    ((_, score),) = scores_of(base, kind, {}).items()
    return score, make_origin(base, kind, score, {})


def _identified(sweep: Sweep) -> Sweep:
    """The sweep with its networks identified by their current weights; a user may change these."""
    origins = dict(sweep.origins)
    for name, model in sweep.denoisers.items():
        if name in origins and next(model.parameters(), None) is not None:
            origins[name] = replace(origins[name], content=identity_of_model(model))
    return replace(sweep, origins=origins)


def _basis(
    config: DictConfig,
    chosen: Mapping[str, Any],
    dataset: tuple[str, Dataset],
    schedule: tuple[str, NoiseSchedule] | None,
    given: Collection[str] = (),
) -> Basis:
    names = {"dataset": dataset[0]} | ({} if schedule is None else {"schedule": schedule[0]})
    path = None if schedule is None else schedule[1]
    return make_basis(config, {**chosen, **names}, dataset[1], path, given)


def _exact(base: Basis) -> list[str]:
    """["oracle"] if the law is known; the oracle of a finite set would only return its points."""
    known = base.dataset.known_law and base.dataset.exact_score(base.schedule) is not None
    return ["oracle"] if known else []
