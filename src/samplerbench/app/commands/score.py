"""`samplerbench score FILE…`: the distance of samples from any source to the data, with its floor.

    samplerbench score samples.npy dataset=grid_mixture
    samplerbench score a.npy b.npy reference=data.npy metric=sliced
    samplerbench score samples.npy dataset=two_moons out=scores.csv

A file has one sample per row: .npy, .npz, .pt, .csv, .tsv, .txt or .parquet. `array` chooses one of
several arrays in a .npz or .pt file, `columns` the columns of a table. `layout` is for files of
Markov chains and names their first axes: layout=draw for one chain, layout=chain,draw or
layout=draw,chain for several. The states of a chain depend on each other, so their floor is that of
ESS independent draws (the bulk ESS of the worst coordinate, see `bench.chains`). Their distance can
be smaller than this floor, because it also depends on quantities other than the mean, which chains
often estimate more precisely. The other words are as in a job, also in the form
`--dataset grid_mixture`: `dataset` and `metric` with their settings, `n_reference`, and `seed`,
which determines all random numbers. `reference` is a file of data; it replaces `dataset` and
`n_reference`, and its floor comes from the rows of both files. `out` is a new .csv or .json file
for the numbers of the table.

The *floor* is the distance of perfect samples: of the same number of fresh draws of the law. The
interval of a distance is for other files with the same number of samples; see `bench.jackknife`.

Perfect samples are exchangeable with the draws of the floor, so a verdict is a prediction of one
more draw:

- with 39 draws, from the smallest to the largest: one more draw is above the largest with a
  probability of 1/40, and below the smallest with the same probability, for any law;
- with fewer draws, R ≥ 2, if a finite data set has no more: mean ± t_{0.975, R−1}·s·√(1 + 1/R) of
  the logarithms (of the distances themselves if one is not positive);
- with one draw there is no verdict.

For a data set each draw is n fresh points, against the same reference. For a file of m points there
are no fresh points. Then the n + m rows of both files are relabelled 39 times: n of them, drawn at
random, against the other m. If samples and data have the same law, all labels are equally likely,
so the prediction is exact (Fisher's permutation test), with all n and all m points. If they have
different laws, this floor is that of the mixture of both, and larger than that of the data alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig
from rich.table import Table

from samplerbench.app.commands.output import new_path, whole_or_nothing
from samplerbench.app.commands.words import read_words
from samplerbench.app.config.compose import compose_config
from samplerbench.app.config.construct import construct
from samplerbench.app.config.groups import chosen_members
from samplerbench.app.config.numbers import whole_number
from samplerbench.app.terminal import console
from samplerbench.bench.rounding import distance, plain
from samplerbench.errors import InvalidSetting, require

if TYPE_CHECKING:  # torch is slow to import: functions import it after the words are checked
    from torch import Tensor

    from samplerbench.bench.chains import Chains
    from samplerbench.datasets.base import Dataset
    from samplerbench.metrics.base import Distance, LawMetric, Metric

#: The keys of a job that are used here, and those of them with settings.
USED = ("dataset", "metric", "n_reference", "seed")
GROUPS = ("dataset", "metric")
#: Options for reading files.
READING = ("layout", "array", "columns")
#: The number of draws of a floor; with it the verdict is exact.
FLOORS = 39


#: The allowed suffixes of `out`.
WRITTEN = (".csv", ".json")


@dataclass(frozen=True, eq=False)
class Truth:
    """The data with which samples are compared.

    Args:
        name: a description, for the output.
        dim: of its points.
        distance: of samples to it.
        floor: samples ↦ the distances of the same number of perfect samples, shape (R,); empty if
            there are none.
        why_too_large: n ↦ why n samples are too many for the metric; None if they are not.
        seed: of the groups for the intervals.
    """

    name: str
    dim: int
    distance: Distance
    floor: Callable[[Tensor], NDArray[np.float64]]
    why_too_large: Callable[[int], str | None]
    seed: int


def main(words: list[str]) -> None:
    """Print a table, the nearest file first.

    Raises:
        InvalidSetting: a file cannot be read, or a word has no use here.
    """
    keys = ("reference", "out", *READING, *USED)
    files, values = read_words("score", words, keys, groups=GROUPS, place="file")
    reading = {key: values.pop(key) for key in READING if key in values}
    require(len(files) > 0, "score", "no file", "one or more files of samples")
    reference, out = values.pop("reference", None), values.pop("out", None)
    if out is not None:
        require(Path(out).suffix in WRITTEN, "out", out, f"a file of {' or '.join(WRITTEN)}")
        new_path(Path(out), "file")
    for name in [*files, *([] if reference is None else [reference])]:
        require(Path(name).expanduser().is_file(), "path", name, "a file that exists")
    allowed = "given, or reference=FILE: see samplerbench list datasets"
    require(reference is not None or "dataset" in values, "dataset", "", allowed)
    for key in values if reference is not None else ():
        allowed = "left out beside a reference: samples are compared with its points"
        require(key.partition(".")[0] not in ("dataset", "n_reference"), key, values[key], allowed)
    lines = score_files(files, reference, values, **reading)
    if out is not None:
        import pandas as pd  # slow to import, and rarely needed

        table = pd.DataFrame(lines)
        is_csv = Path(out).suffix == ".csv"
        text = table.to_csv(index=False) if is_csv else table.to_json(orient="records", indent=1)
        with whole_or_nothing(Path(out)) as path:
            path.write_text(text, encoding="utf-8", errors="replace")


def score_files(
    files: Sequence[str],
    reference: str | None,
    words: Mapping[str, str],
    layout: str | None = None,
    **reading: str,
) -> list[dict[str, Any]]:
    """Print a table for each metric, the nearest file first; return the lines of all.

    Args:
        files: of samples.
        reference: a file of data; None for the config's data set.
        words: keys of the config and their values, as on the command line.
        layout: of chains, see `read_chains`; None for independent samples.
        reading: the array or columns of the files.

    Raises:
        InvalidSetting: a file cannot be read, or a value is not allowed.
    """
    from samplerbench.bench.chains import LEAST_FRAMES, Chains
    from samplerbench.datasets.file import read_chains, read_points
    from samplerbench.metrics.base import Metric

    chains: dict[str, Chains] = {}
    if layout is not None:
        installed = find_spec("arviz") is not None
        require(installed, "layout", layout, "left out, or pip install 'samplerbench[chains]'")
        for name in files:
            frames = read_chains(name, layout, **reading)
            require(len(frames) >= LEAST_FRAMES, name, f"{len(frames)} draws", "a chain of more")
            chains[name] = Chains(frames, frames.new_ones(frames.shape[1]))
        clouds = {name: own.frames.flatten(0, 1) for name, own in chains.items()}
    else:
        clouds = {name: read_points(name, **reading) for name in files}
    config, _ = compose_config([f"{key}={value}" for key, value in words.items()])
    metrics = chosen_members(config, "metric")
    require(len(metrics) > 0, "metric", words.get("metric"), "at least one: see list metrics")
    used = any(isinstance(metric, Metric) for metric in metrics.values())
    allowed = f"left out: {', '.join(metrics)} compares with the law itself"
    require(used or "n_reference" not in words, "n_reference", words.get("n_reference"), allowed)
    lines: list[dict[str, Any]] = []
    for metric, settings in metrics.items():
        if reference is None:
            truth = to_law(metric, settings, config)
        else:
            truth = to_file(reference, metric, settings, config)
        mixing = {name: ess_and_r_hat(own) for name, own in chains.items()}
        lines += [{"metric": metric, **line} for line in show(metric, truth, clouds, mixing)]
    for name, own in chains.items():
        draws, number, _ = own.frames.shape
        if number > draws:
            text = f"{name}: {number:,} chains of {draws:,} draws: is it the other layout?"
            console().print(text, markup=False)
    for name, points in clouds.items() if layout is None else ():
        if depends(points):
            text = f"{name}: its rows depend on the rows before them; use layout=draw for a chain"
            console().print(text, markup=False)
    return lines


def to_file(file: str, name: str, metric: Metric | LawMetric, config: DictConfig) -> Truth:
    """The truth of a file of data."""
    from samplerbench.datasets.file import read_points
    from samplerbench.metrics.base import LawMetric

    points = read_points(file)
    if isinstance(metric, LawMetric):
        raise InvalidSetting(
            "metric", name, "one between points, such as sliced: a file has no law"
        )
    reason = metric.why_incompatible(points.shape[1])
    require(reason is None, "metric", name, f"another one: {reason}")
    between, seed = metric, whole_number(config, "seed")

    distance = between.against(points, seed=seed)
    return Truth(
        f"{len(points):,} points of {file}, with a floor from the relabelled rows of both files",
        points.shape[1],
        distance,
        lambda samples: relabelled(between, samples, points, seed),
        lambda n: between.why_too_large(n, len(points)),
        seed,
    )


def relabelled(metric: Metric, samples: Tensor, points: Tensor, seed: int) -> NDArray[np.float64]:
    """Distances between two clouds after random exchanges of their rows; see the module."""
    import torch

    from samplerbench.core.noise import generator

    n, both = len(samples), torch.cat([samples, points])
    values = []
    for repetition in range(FLOORS):
        order = torch.from_numpy(generator("score", seed, repetition).permutation(len(both)))
        to_rest = metric.against(both[order[n:]], seed=seed)
        values.append(to_rest(both[order[:n]]).value)
    return np.array(values)


def to_law(name: str, metric: Metric | LawMetric, config: DictConfig) -> Truth:
    """The truth of a data set of ours."""
    from samplerbench.datasets.base import finite
    from samplerbench.metrics.base import LawMetric

    dataset: Dataset = construct(config.dataset, "dataset")
    seed, n_reference = whole_number(config, "seed"), whole_number(config, "n_reference")
    if isinstance(metric, LawMetric):
        reason, against = metric.why_incompatible(dataset), "the law itself"
    else:
        reason, against = metric.why_incompatible(dataset.dim), f"{n_reference:,} draws"
    if reason is not None:
        raise InvalidSetting("metric", name, f"another one: {reason}")
    if isinstance(metric, LawMetric):
        distance = metric.against_law(dataset, seed=seed)
    else:
        reference = finite(dataset.draws(n_reference, "evaluation", seed), "dataset")
        distance = metric.against(reference, seed=seed)

    @cache
    def of_size(n: int) -> NDArray[np.float64]:
        most = dataset.floor_sets(n)
        sets = FLOORS if most is None else min(FLOORS, most)
        draws = (dataset.draws(n, "floor", seed, repetition) for repetition in range(sets))
        return np.array([distance(points).value for points in draws])

    def floor(samples: Tensor) -> NDArray[np.float64]:
        return of_size(len(samples))

    def why_too_large(n: int) -> str | None:
        return None if isinstance(metric, LawMetric) else metric.why_too_large(n, n_reference)

    title = f"{type(dataset).__name__}, {against}"
    return Truth(title, dataset.dim, distance, floor, why_too_large, seed)


def ess_and_r_hat(chains: Chains) -> tuple[int, float]:
    """The bulk ESS of chains and their split R̂, both of the worst coordinate."""
    ess, r_hat = chains.effective_sample_size().min(), chains.split_r_hat().max()
    count = chains.frames.shape[0] * chains.frames.shape[1]
    return max(1, min(count, int(ess.nan_to_num(1.0)))), float(r_hat)


def depends(points: Tensor) -> bool:
    """Whether rows are correlated with the rows before them, by more than five standard errors."""
    centred = points - points.mean(0)
    products = (centred[1:] * centred[:-1]).mean(0) / centred.square().mean(0)
    return bool((products * math.sqrt(len(points)) > 5).any())  # false for NaN: nothing varies


def show(
    metric: str,
    truth: Truth,
    clouds: Mapping[str, Tensor],
    mixing: Mapping[str, tuple[int, float]],
) -> list[dict[str, Any]]:
    """Measure every cloud and print a line for each, the nearest first; return the numbers.

    Args:
        metric: its name.
        truth: the data of the comparison.
        clouds: samples, by file.
        mixing: for files of chains, their ESS and split R̂.
    """
    import torch

    from samplerbench.bench.chains import MIXED
    from samplerbench.bench.jackknife import half_width

    for name, points in clouds.items():
        allowed = f"{truth.dim} columns, as the data have"
        require(points.shape[1] == truth.dim, name, f"{points.shape[1]} columns", allowed)
        reason = truth.why_too_large(len(points))
        require(reason is None, name, f"{len(points)} rows", f"fewer for {metric}: {reason}")
    values = {name: truth.distance(points).value for name, points in clouds.items()}
    # the jackknife needs independent rows
    chance = {
        name: math.nan if name in mixing else half_width(truth.distance, points, seed=truth.seed)
        for name, points in clouds.items()
    }
    out = console()
    out.print(f"{metric} to {truth.name}; distance with its 95 % interval")
    table = Table(box=None, pad_edge=False)
    table.add_column("samples", overflow="fold")
    of_chains = ("ESS", "R̂") if mixing else ()
    for column in ("n", *of_chains, "distance", "floor", "95 % of perfect samples"):
        table.add_column(column, no_wrap=True, justify="right")
    table.add_column(f"verdict by {metric}", no_wrap=True)
    lines = []
    for name in sorted(values, key=lambda name: values[name]):
        ends = math.nan, math.nan
        value, points, numbers = values[name], clouds[name], [f"{len(clouds[name]):,}"]
        if name in mixing:  # ESS states of the chains, equally spaced
            count, r_hat = mixing[name]
            numbers += [f"{count:,}", f"{r_hat:.3f}"]
            points = points[torch.linspace(0, len(points) - 1, count).round().long()]
        floor = truth.floor(points)
        if len(floor) < 2:
            sets = "one set" if len(floor) else "no set"
            texts = ("–", "–", f"no verdict: the data have {sets} of fresh draws of this size")
        else:
            low, high = ends = prediction(floor)
            texts = (
                plain(floor.mean()),
                f"{plain(low)} to {plain(high)} ({len(floor)} sets)",
                # a chain may be closer than ESS draws, so there is no lower bound
                verdict(value, -math.inf if name in mixing else low, high),
            )
        if name in mixing and not mixing[name][1] <= MIXED:
            texts = (*texts[:2], "no verdict: the chains have not mixed")
        table.add_row(name, *numbers, distance(value, chance[name]), *texts)
        count, r_hat = mixing.get(name, (len(clouds[name]), math.nan))
        line = {"file": name, "n": len(clouds[name]), "ess": count, "r_hat": r_hat}
        line |= {"distance": value, "half_width": chance[name], "floor_sets": len(floor)}
        line |= {"floor": floor.mean() if len(floor) else math.nan}
        lines.append(line | {"lower": ends[0], "upper": ends[1], "verdict": texts[-1]})
    out.print(table)
    return lines


def prediction(floor: NDArray[np.float64]) -> tuple[float, float]:
    """The interval that contains the distance of one more perfect sample in 95 % of cases.

    Args:
        floor: distances of perfect samples, shape (R,), R ≥ 2; see the module.
    """
    from scipy.special import stdtrit  # scipy.stats takes a second to import

    count = len(floor)
    if count >= FLOORS:
        return float(floor.min()), float(floor.max())
    positive = floor.min() > 0
    values = np.log(floor) if positive else floor
    half = stdtrit(count - 1, 0.975) * values.std(ddof=1) * math.sqrt(1 + 1 / count)
    ends = values.mean() - half, values.mean() + half
    low, high = np.exp(np.clip(ends, -700, 700)) if positive else ends
    return float(low), float(high)


def verdict(value: float, low: float, high: float) -> str:
    """The verdict on a distance, from the interval of perfect samples."""
    if value > high:
        return "differs from the data"
    return "closer than perfect samples" if value < low else "not distinguishable from the data"
