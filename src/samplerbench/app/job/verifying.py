"""Build jobs of the suite again from the commands in an entry."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from rich.console import Console

from samplerbench.app.config.compose import compose_config
from samplerbench.app.config.construct import construct
from samplerbench.app.config.groups import chosen_nodes
from samplerbench.app.job.build import Job, build, with_sweep
from samplerbench.app.job.refusals import SUITE
from samplerbench.app.job.run import chosen_grids, fit
from samplerbench.app.job.scenes import scene
from samplerbench.app.job.suite import about_job, scale_of
from samplerbench.bench.best_grids import with_best
from samplerbench.bench.cell import sampler_name
from samplerbench.bench.suite.entry import SuiteJob
from samplerbench.bench.suite.results import COMMON, OWN, SHIPPED, job_results, quantity_of
from samplerbench.bench.sweep import recall_nothing
from samplerbench.errors import require
from samplerbench.identity import settings_text
from samplerbench.logs.base import NoLog

_EXPERIMENT = re.compile(rf"experiment={SUITE}v\d+/[\w-]+")
#: Keys of a command that change no value. They are ignored: another person wrote the entry, and
#: the person who verifies it decides which packages to trust.
UNUSED = ("trusted", "cache", "cache_dir", "workers", "logger", "picture")


def suite_job(command: str, entrants: Collection[str], fixed: Collection[str]) -> SuiteJob:
    """A job of the suite with some of its entrants.

    Args:
        command: the command that made the results, from their column `command`.
        fixed: the words of the suite that it may have, besides its experiment and sampler.
    """
    words = suite_words(command, fixed)
    config, choices = compose_config(words)
    job = build(config, choices, "")
    samplers = [
        (name, sampler)
        for name, sampler in job.sweep.samplers
        if sampler_name(name, settings_text(sampler)) in entrants
    ]
    # values are computed again; only trainings and choices of grids are taken from the cache
    sweep = replace(job.sweep, samplers=samplers, recall=recall_nothing)
    job = _trained(with_sweep(job, sweep))
    if job.grids and samplers:
        job = with_sweep(job, with_best(job.sweep, chosen_grids(job, _quiet())))
    about = about_job(config, str(choices["dataset"]), scale_of(job.sweep.dataset), words)
    return SuiteJob(job.sweep, lambda cells: job_results(cells, about))


def suite_words(command: str, fixed: Collection[str]) -> list[str]:
    """The words of a command of the suite that determine its values."""
    try:
        name, *words = shlex.split(command)
    except ValueError:  # it is empty, or a quotation does not end
        name, words = "", []
    keys = {word: word.partition("=")[0].partition(".")[0] for word in words}
    experiments = [word for word in words if _EXPERIMENT.fullmatch(word)]
    known = {*experiments, *fixed}
    strange = [
        word for word in words if word not in known and keys[word] not in ("sampler", *UNUSED)
    ]
    good = name == "samplerbench" and len(experiments) == 1 and not strange
    allowed = "that of a job of the suite: samplerbench experiment=suite/… and its sampler"
    require(good, "command", " ".join(strange) or command, allowed)
    return [word for word in words if keys[word] not in UNUSED]


def tasks_of(
    results: pd.DataFrame, names: Sequence[str], fixed: Sequence[str]
) -> list[tuple[str, ...]]:
    """Law, path, denoiser, quantity and grid setting of the tasks that an entry must have.

    The tasks on own grids are left out if all samplers bring their levels or draw noise.

    Args:
        names: the names of the tasks: `two_moons-edm`.
        fixed: the words of the suite in the commands of its jobs.
    """
    grids = [word for word in fixed if word.startswith("grids=")]
    alone = (results["chosen"] == SHIPPED) | results["noise"].astype(bool)
    common = len(results) > 0 and bool(alone.all())
    found: list[tuple[str, ...]] = []
    for name in names:
        for grid in grids:
            if common and grid != "grids=null":
                continue
            words = [f"experiment={SUITE}{name}", grid]
            words += [word for word in fixed if word not in grids]
            found += _tasks(words, COMMON if grid == "grids=null" else OWN)
    return found


def _tasks(words: Sequence[str], grid: str) -> Iterator[tuple[str, ...]]:
    config, choices = compose_config(words)
    law, path = str(choices["dataset"]), str(choices["schedule"])
    denoiser = config.denoiser if isinstance(config.denoiser, str) else config.denoiser[0]
    dim = construct(config.dataset, "dataset").dim
    for metric in chosen_nodes(config, "metric"):
        yield law, path, str(denoiser), quantity_of(metric, dim), grid


def _trained(job: Job) -> Job:
    """The job with its network trained, or taken from the cache."""
    if job.training is None:
        return job
    with TemporaryDirectory(prefix="samplerbench-") as folder:
        view = scene(job.sweep, job.training)
        fit(job, "learned", view, Path(folder), NoLog(), _quiet())
    return job


def _quiet() -> Console:
    """A console that prints nothing."""
    return Console(quiet=True)
