"""Objects for the library: from the names of members, with the config's defaults around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from omegaconf import DictConfig

from samplerbench.app.config.compose import composed
from samplerbench.app.config.construct import trusting
from samplerbench.app.folder.runs import open_run
from samplerbench.app.job.build import Ground, assembled, ground
from samplerbench.app.job.rebuild import rebuild
from samplerbench.app.job.refusals import check
from samplerbench.bench import scene
from samplerbench.bench.sweep import Sweep
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.datasets.base import Dataset
from samplerbench.errors import require
from samplerbench.identity import identity_of_model
from samplerbench.training.weights import LOSSES

#: Keys of a job's config that a training in the library, and what is done with it, has no use for.
UNUSED = frozenset(
    {
        *("dataset", "denoiser", "model", "clip_x0", "budget", "chains", "picture", "logger"),
        *("cache", "cache_dir", "wanted", "sweeper_metric", "trusted", "debug", "experiment"),
    }
)


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
    if not dataset[1].can_be_drawn:
        words = [*words, "metric=moments", "start=prior"]
    base = _ground(*composed(words), dataset, schedule)
    return assembled(base, _exact(base))[0]


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
    from samplerbench.training.loop import train  # Lightning takes seconds to import

    for key, value in settings.items():
        unused = UNUSED | ({"schedule"} if schedule is not None else set())
        allowed = "left out: nothing here has a use for it"
        require(key.partition(".")[0] not in unused, key, value, allowed)
    base = _ground(*composed(words, settings), dataset, schedule)
    sweep, training = assembled(base, ["learned", *_exact(base)])
    assert training is not None
    # what is sampled and measured is not known yet; a later sweep checks that
    check(replace(sweep, samplers=[], metrics={}))
    with TemporaryDirectory(prefix="samplerbench-") as folder:
        model = train(
            training.objective,
            training.data,
            directory=Path(folder),
            device=sweep.device,
            progress=False,
            training_id=sweep.origins["learned"].id,
        )
        losses = pd.read_csv(Path(folder) / LOSSES)
    denoisers = {**sweep.denoisers, "learned": model.to(sweep.device)}
    return _as_it_is_now(replace(sweep, denoisers=denoisers)), losses


def stored(
    directory: Path, trust: str | Sequence[str], device: str
) -> tuple[Sweep, pd.DataFrame, pd.DataFrame]:
    """The sweep of a stored run, its losses, and its values so far."""
    with trusting(trust):
        run = open_run(directory)
        job = rebuild(run, device=device)
    path = directory / LOSSES
    losses = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=list(scene.LOSSES))
    return _as_it_is_now(job.sweep), losses, run.table()


def _as_it_is_now(sweep: Sweep) -> Sweep:
    """The sweep, whose learned model is its training's until somebody changes its weights."""
    if "learned" not in sweep.origins:
        return sweep
    now = identity_of_model(sweep.denoisers["learned"])
    learned = replace(sweep.origins["learned"], content=now)
    return replace(sweep, origins={**sweep.origins, "learned": learned})


def _ground(
    config: DictConfig,
    chosen: Mapping[str, Any],
    dataset: tuple[str, Dataset],
    schedule: tuple[str, NoiseSchedule] | None,
) -> Ground:
    names = {"dataset": dataset[0]} | ({} if schedule is None else {"schedule": schedule[0]})
    path = None if schedule is None else schedule[1]
    return ground(config, {**chosen, **names}, dataset[1], path)


def _exact(base: Ground) -> list[str]:
    """The oracle, of a law that is known: that of points only repeats those."""
    known = base.dataset.known_law and base.dataset.exact_score(base.schedule) is not None
    return ["oracle"] if known else []
