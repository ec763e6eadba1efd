"""The results of the suite in the folder of its multirun."""

from __future__ import annotations

import math
import shlex
from functools import cache
from pathlib import Path

import pandas as pd

from samplerbench.app.config.construct import construct, construct_grid
from samplerbench.app.config.groups import chosen_nodes
from samplerbench.app.folder.runs import StoredRun, find_runs, open_run
from samplerbench.bench.suite.results import COLUMNS, About, Entrant, job_results
from samplerbench.datasets.base import Dataset
from samplerbench.errors import require
from samplerbench.identity import settings_text
from samplerbench.samplers.base import Sampler
from samplerbench.samplers.peers import Peer
from samplerbench.version import __version__

#: The experiments of the suite are in this folder of conf/experiment/, by version and task.
SUITE = "suite/"


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
        table, own = run.table(), run.config.get("grids") is not None
        entrants = _entrants(run)
        if own:  # their values on their own levels are those of the other job
            brings = [entrants[pair].brings_levels for pair in _pairs(table)]
            table = table[[not one for one in brings]]
        law = str(run.choices["dataset"])
        if law not in scales:
            scales[law] = _scale(construct(run.config.dataset, "dataset"))
        words = shlex.join(["samplerbench", *run.overrides])
        about = About(law, *scales[law], own, words, lambda *pair: entrants[pair])  # noqa: B023
        parts.append(job_results(table, about))
    return pd.concat(parts, ignore_index=True)[COLUMNS]


def _pairs(table: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(table["sampler"], table["sampler_settings"], strict=True))


def _entrants(run: StoredRun) -> dict[tuple[str, str], Entrant]:
    """By the name and the settings of a row."""
    found = {}
    for name, node in chosen_nodes(run.config, "sampler").items():
        for sampler in construct_grid(node, f"sampler.{name}"):
            found[name, settings_text(sampler)] = _entrant(sampler)
    return found


def _entrant(sampler: Sampler) -> Entrant:
    package, *_ = type(sampler).__module__.partition(".")
    version = __version__ if package == __name__.partition(".")[0] else _version(package)
    if isinstance(sampler, Peer):
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


def _scale(dataset: Dataset) -> tuple[float, int]:
    """s and the number of coordinates."""
    moments = dataset.moments()
    assert moments is not None  # every law of the suite has draws
    return math.sqrt(float(moments.variance.sum())), dataset.dim
