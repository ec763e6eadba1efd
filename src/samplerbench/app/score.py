"""`samplerbench score FILE…`: the distance of anybody's samples to the data, with its floor.

    samplerbench score samples.npy dataset=grid_mixture
    samplerbench score a.npy b.npy reference=data.npy metric=sliced

Files hold one sample a row (.npy or .csv), from any tool in any language. The other words are those
of a job, or the same as `--dataset grid_mixture`: `dataset`, `metric` with its settings,
`n_reference`, `seed`. `reference` is a file of data in place of a data set; its floor comes from
disjoint parts of it.

The *floor* is the same distance for as many fresh draws of the law: what perfect samples show.
Samples within 95 % of the floor's draws cannot be told from the data at this number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from rich.table import Table
from torch import Tensor

from samplerbench.app.build import finite, members
from samplerbench.app.compose import composed
from samplerbench.app.console import console
from samplerbench.app.construct import construct
from samplerbench.datasets.base import Dataset
from samplerbench.datasets.file import read_points
from samplerbench.errors import InvalidSetting, require
from samplerbench.metrics.base import Distance, LawMetric, Metric
from samplerbench.noise import generator

FLOORS = 40


@dataclass(frozen=True, eq=False)
class Truth:
    """What samples are compared with.

    Args:
        name: of it, for people.
        dim: of its points.
        distance: to it.
        floor: n ↦ the distances of perfect samples, shape (R,); empty where there are none.
    """

    name: str
    dim: int
    distance: Distance
    floor: Callable[[int], NDArray[np.float64]]


def main(words: list[str]) -> None:
    """Print a table, the nearest file first.

    Raises:
        InvalidSetting: a file cannot be read, or a word is none of the config's.
    """
    words = without_dashes(words)
    files = [word for word in words if "=" not in word]
    require(len(files) > 0, "score", "no file", "one or more .npy or .csv files of samples")
    overrides = [word for word in words if "=" in word and not word.startswith("reference=")]
    given = [word.partition("=")[2] for word in words if word.startswith("reference=")]
    clouds = {name: read_points(name) for name in files}
    config, _ = composed(overrides)
    for metric, settings in members(config, "metric").items():
        if given:
            truth = to_file(given[-1], metric, settings, config)
        else:
            truth = to_law(metric, settings, config)
        show(metric, truth, clouds)


def without_dashes(words: list[str]) -> list[str]:
    """The words with `--key value` and `--key=value` as `key=value`.

    Raises:
        InvalidSetting: such a key has no value.
    """
    plain, rest = [], iter(words)
    for word in rest:
        if not word.startswith("--"):
            plain.append(word)
            continue
        key, equals, value = word.removeprefix("--").partition("=")
        if not equals:
            found = next(rest, None)
            if found is None:
                raise InvalidSetting("score", word, f"followed by its value, or {key}=…")
            value = found
        plain.append(f"{key}={value}")
    return plain


def to_file(file: str, name: str, metric: Metric | LawMetric, config: DictConfig) -> Truth:
    """The truth of a file of data."""
    points = read_points(file)
    if isinstance(metric, LawMetric):
        raise InvalidSetting("metric", name, "one between points, such as sliced: no law here")
    between, seed, metric_seed = metric, int(config.seed), int(config.metric_seed)

    def floor(n: int) -> NDArray[np.float64]:
        sets = max(0, min(FLOORS, len(points) // n - 1))
        order = torch.from_numpy(generator("score", seed).permutation(len(points)))
        values = []
        for repetition in range(sets):
            chosen = torch.zeros(len(points), dtype=torch.bool)
            chosen[order[repetition * n : (repetition + 1) * n]] = True
            to_rest = between.against(points[~chosen], seed=metric_seed)
            values.append(to_rest(points[chosen]).value)
        return np.array(values)

    distance = between.against(points, seed=metric_seed)
    return Truth(f"{len(points):,} points of {file}", points.shape[1], distance, floor)


def to_law(name: str, metric: Metric | LawMetric, config: DictConfig) -> Truth:
    """The truth of a data set of ours."""
    dataset: Dataset = construct(config.dataset, "dataset")
    seed, metric_seed, count = int(config.seed), int(config.metric_seed), int(config.n_reference)
    if isinstance(metric, LawMetric):
        reason, against = metric.why_incompatible(dataset), "the law itself"
    else:
        reason, against = metric.why_incompatible(dataset.dim), f"{count:,} draws"
    if reason is not None:
        raise InvalidSetting("metric", name, f"another one: {reason}")
    if isinstance(metric, LawMetric):
        distance = metric.against_law(dataset, seed=metric_seed)
    else:
        reference = finite(dataset.draws(count, "evaluation", seed), "dataset")
        distance = metric.against(reference, seed=metric_seed)

    def floor(n: int) -> NDArray[np.float64]:
        most = dataset.floor_sets(n)
        sets = FLOORS if most is None else min(FLOORS, most)
        draws = (dataset.draws(n, "floor", seed, repetition) for repetition in range(sets))
        return np.array([distance(points).value for points in draws])

    return Truth(f"{type(dataset).__name__}, {against}", dataset.dim, distance, floor)


def show(metric: str, truth: Truth, clouds: dict[str, Tensor]) -> None:
    """Measure every cloud and print a line for each, the nearest first."""
    for name, points in clouds.items():
        allowed = f"{truth.dim} columns, as the data have"
        require(points.shape[1] == truth.dim, name, f"{points.shape[1]} columns", allowed)
    values = {name: truth.distance(points).value for name, points in clouds.items()}
    floors = {n: truth.floor(n) for n in {len(points) for points in clouds.values()}}
    out = console()
    out.print(f"{metric} to {truth.name}")
    table = Table(box=None, pad_edge=False)
    table.add_column("samples", overflow="fold")
    for column in ("n", "distance", "floor", "95 % of perfect samples"):
        table.add_column(column, no_wrap=True, justify="right")
    table.add_column("verdict", no_wrap=True)
    for name in sorted(values, key=lambda name: values[name]):
        value, n = values[name], len(clouds[name])
        floor = floors[n]
        if len(floor) < 2:
            texts = ("–", "–", "no floor: too few data for fresh sets of this size")
        else:
            low, high = np.quantile(floor, [0.025, 0.975])
            far = value > high
            texts = (
                f"{floor.mean():.3g}",
                f"{low:.3g} to {high:.3g}",
                "told from the data" if far else "cannot be told from the data",
            )
        table.add_row(name, f"{n:,}", f"{value:.4g}" if math.isfinite(value) else "–", *texts)
    out.print(table)
