"""The results of the suite in the folder of its multirun."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig

from samplerbench.app.config.compose import compose_config
from samplerbench.app.config.construct import construct
from samplerbench.app.config.groups import samplers_of
from samplerbench.app.folder.runs import find_runs, open_run
from samplerbench.app.job.refusals import SUITE, why_nothing
from samplerbench.bench.cell import sampler_name
from samplerbench.bench.suite.entry import about_samplers, class_of, write_entry
from samplerbench.bench.suite.results import COLUMNS, RECORDED, About, Entrant, job_results
from samplerbench.datasets.base import Dataset
from samplerbench.errors import require
from samplerbench.identity import OURS, settings_text
from samplerbench.samplers.base import Sampler
from samplerbench.samplers.peers import Peer
from samplerbench.version import __version__

#: Keys for where a job runs and which files it keeps; they are left out of the stored command.
PLACES = ("cache", "cache_dir", "workers", "logger", "picture", "hydra", "debug")


def suite_results(folder: Path) -> pd.DataFrame:
    """The results of all jobs of a suite in a folder, one row per value.

    Raises:
        InvalidSetting: there is no job of the suite.
    """
    runs = [open_run(path) for path in find_runs(folder)]
    jobs = [run for run in runs if str(run.choices.get("experiment", "")).startswith(SUITE)]
    allowed = f"a folder with jobs of experiment={SUITE}…: samplerbench suite makes one"
    require(len(jobs) > 0, "suite", folder, allowed)
    scales: dict[str, tuple[float, int]] = {}
    parts = []
    for run in jobs:
        law = str(run.choices["dataset"])
        if law not in scales:
            scales[law] = scale_of(construct(run.config.dataset, "dataset"))
        about, table = about_job(run.config, law, scales[law], run.overrides), run.table()
        about = replace(about, versions=run.versions, machines=run.machines)
        if about.own:  # entrants without a choice of grid have their values in the other job
            entrants = map(about.entrants, table["sampler"], table["sampler_settings"])
            table = table[[not (one.brings_levels or one.noise) for one in entrants]]
        parts.append(job_results(table, about))
    return pd.concat(parts, ignore_index=True)[[*COLUMNS, *RECORDED]]


def entry_of(folder: Path, path: Path, suite: str, command: str) -> Path:
    """Write the entry of the samplers of a suite's jobs.

    Args:
        folder: the folder of the multirun.
        path: the file of the entry.
        suite: the version and size of the suite.
        command: the command that made the entry.
    """
    results = suite_results(folder)
    samplers = {
        sampler_name(name, settings_text(sampler)): sampler
        for path in find_runs(folder)
        for name, sampler in samplers_of(open_run(path).config)
    }
    own = {name: samplers[name] for name in sorted({*results["entrant"]})}
    about = {"suite": suite, "command": command, "samplers": about_samplers(own)}
    return write_entry(results, path, about)


def why_no_value(words: Sequence[str]) -> str | None:
    """Why a job of the suite can measure no value of its samplers; None if it can measure one."""
    from samplerbench.app.job.build import build

    return why_nothing(build(*compose_config(words), "").sweep)


def about_job(
    config: DictConfig, law: str, scale: tuple[float, int], words: Sequence[str]
) -> About:
    """The facts that a job of the suite adds to its rows, without its versions and machines.

    Args:
        config: the config of the job.
        law: the name of its data set.
        scale: the scale of the data and their number of coordinates.
        words: the words of the command, without its name.
    """
    # by the sampler's name and settings in a row
    entrants = {(name, settings_text(one)): _entrant(one) for name, one in samplers_of(config)}
    own = config.get("grids") is not None
    kept = [word for word in words if word.partition("=")[0].partition(".")[0] not in PLACES]
    command = shlex.join(["samplerbench", *kept])
    return About(law, *scale, own, command, lambda *pair: entrants[pair])


def _entrant(sampler: Sampler) -> Entrant:
    package, *_ = class_of(sampler).__module__.partition(".")
    ours = package == OURS
    version = __version__ if ours else _version(package)
    if isinstance(sampler, Peer) and ours:  # a user's class could claim any package and version
        package, version = sampler.package, sampler.version
    order = math.nan if sampler.order is None else float(sampler.order)
    return Entrant(package, version, order, sampler.stochastic, sampler.brings_levels)


@cache
def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:  # a package in a folder, as trusted=lab
        return ""


def scale_of(dataset: Dataset) -> tuple[float, int]:
    """The scale s of the data, and their number of coordinates."""
    return dataset.deviation * math.sqrt(dataset.dim), dataset.dim
