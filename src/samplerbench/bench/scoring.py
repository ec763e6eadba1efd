"""The distance of samples from any source to data, with its floor; differences of such distances.

The *floor* is the distance of perfect samples: of the same number of fresh draws of the law. The
interval of a distance is for other samples of the same size; see `jackknife`.

Perfect samples are exchangeable with the draws of the floor, so a verdict is a prediction of one
more draw:

- with 39 draws the interval is from the smallest to the largest: for any law one more draw is above
  the largest with a probability of 1/40, and below the smallest with the same probability;
- with R draws, 2 ≤ R < 39, if a finite data set has no more, the interval is mean ± t_{0.975,
  R−1}·s·√(1 + 1/R) of the logarithms (of the distances themselves if one is not positive);
- with one draw there is no verdict.

For a data set each draw is n fresh points, against the same reference. For a file of m points there
are no fresh points. Then the n + m rows of both files are relabelled 39 times: n of them, drawn at
random, are compared with the other m. If samples and data have the same law, all labels are equally
likely, so the prediction is exact (Fisher's permutation test), with all n and all m points. If they
have different laws, this is the floor of the mixture of both, which is above the floor of the data.

The states of a Markov chain depend on each other, so their floor is that of n states with the same
dependence, see `blocks`. It needs a metric between points, and data with two sets of n draws.
Otherwise the floor is that of ESS independent draws (the bulk ESS of the worst coordinate, see
`chains`), and chains may be below it: a distance also depends on quantities other than the mean,
which chains often estimate more precisely.

Two sets of samples are compared by the difference of their distances at the same n, with the first
rows of the larger set. The jackknife leaves out the same rows of both sets. If row i of both comes
from the same start, this is a paired comparison. If all rows are independent, it is a comparison of
two independent sets. Of chains it leaves out consecutive states. The p-values of all pairs are
corrected by Holm's procedure, see `statistics`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import stdtrit  # scipy.stats takes a second to import
from torch import Tensor

from samplerbench.bench import blocks, jackknife
from samplerbench.bench.chains import LEAST_FRAMES, Chains
from samplerbench.bench.rounding import counted
from samplerbench.bench.statistics import MIXED, holm
from samplerbench.core.noise import generator
from samplerbench.datasets.base import Dataset, finite
from samplerbench.datasets.file import TABLES
from samplerbench.errors import InvalidSetting, require, require_compatible
from samplerbench.metrics.base import AnyMetric, Distance, LawMetric, Metric

#: Correlations between any rows count if they have so many standard errors.
FAR = 7.0
#: With fewer chains no dependence between chains is looked for.
FEWEST_CHAINS = 12
#: These correlations are computed for so many columns at most.
FAR_COLUMNS = 8
#: The number of draws of a floor; with it the verdict is exact.
FLOORS = 39


@dataclass(frozen=True, eq=False)
class Cloud:
    """Samples."""

    points: Tensor  # shape (n, dim), float64
    chains: Chains | None = None  # the same points as Markov chains; None for independent samples
    in_order: bool = True  # False if the order of the rows has no meaning, as for image files

    @classmethod
    def of_chains(cls, frames: Tensor, name: str) -> Cloud:
        """Chains of shape (draws, chains, dim), if they are long enough and ArviZ is installed."""
        installed = find_spec("arviz") is not None
        allowed = "independent samples, or pip install 'samplerbench[chains]'"
        require(installed, name, "chains", allowed)
        draws, chains, dim = frames.shape
        allowed = f"chains of at least {LEAST_FRAMES} draws: with this layout it has {chains:,} "
        allowed += f"of {draws} draws, in dimension {dim}; layout=draw is for a single chain"
        require(draws >= LEAST_FRAMES, "", name, allowed)
        return cls(frames.flatten(0, 1), Chains(frames, frames.new_ones(frames.shape[1])))

    @cached_property
    def ess_and_r_hat(self) -> tuple[int, float]:
        """ESS and split R̂ of the worst coordinate; n and NaN for independent samples."""
        count = len(self.points)
        if self.chains is None:
            return count, math.nan
        ess = self.chains.effective_sample_size().min()
        r_hat = float(self.chains.split_r_hat().max())
        return max(1, min(count, int(ess.nan_to_num(1.0)))), r_hat

    @property
    def has_interval(self) -> bool:
        """Whether the jackknife is valid, so that the cloud can be compared with others."""
        ess, r_hat = self.ess_and_r_hat
        of_chains = r_hat <= MIXED and not self.chains_depend
        valid = self.lag == 0 if self.chains is None else of_chains
        return valid and ess >= jackknife.FEWEST

    @cached_property
    def chains_depend(self) -> bool:
        """Whether neighbouring chains are correlated, as the states of a chain read as chains are.

        By over `FAR` standard errors, over the pairs of neighbours; a few chains have too few.
        """
        if self.chains is None or self.chains.frames.shape[1] < FEWEST_CHAINS:
            return False
        centred = self.chains.frames - self.chains.frames.mean((0, 1))
        products = (centred[:, 1:] * centred[:, :-1]).mean(0)
        errors = products.std(0) / math.sqrt(len(products))
        return bool((products.mean(0) > FAR * errors).any())

    @property
    def other_layout(self) -> str:
        """A question whether the layout is right, if it looks wrong; else empty."""
        if self.chains is None:
            return ""
        draws, chains, _ = self.chains.frames.shape
        depend = "neighbouring chains depend on each other: " * self.chains_depend
        text = f"{chains:,} chains of {draws:,} draws: {depend}is it the other layout?"
        return text if draws < chains or self.chains_depend else ""

    @cached_property
    def lag(self) -> int:
        """How many rows before a row the row is on which it depends; 0 if no dependence is seen.

        If an array of chains of shape (draws, chains, dim) was flattened, it is the number of
        chains. Otherwise it is one if rows are correlated with the rows before them, by over five
        standard errors.
        """
        if not self.in_order:
            return 0
        centred = self.points - self.points.mean(0)
        products = (centred[1:] * centred[:-1]).mean(0) / centred.square().mean(0)
        # NaN if a coordinate is constant
        near = bool((products * math.sqrt(len(self.points)) > 5).any())
        return _lag(self.points.numpy()) or int(near)

    @property
    def layout(self) -> tuple[str, str]:
        """The layout that the rows have if they depend on each other, and what is to be read."""
        if self.lag < 2:
            return "draw", "a chain"
        return "draw,chain", f"an array of shape (draws, {self.lag}, {self.points.shape[1]})"

    @property
    def dependence(self) -> str:
        """Which rows depend on each other, in words; empty if no dependence is seen."""
        if self.lag < 2:
            return "its rows depend on the rows before them" * self.lag
        chains = f"as those of {self.lag:,} chains do"
        return f"its rows depend on the rows {self.lag:,} places before them, {chains}"


def _lag(points: NDArray[np.float64]) -> int:
    """The lag with the largest correlation of ranks; 0 if none is beyond chance.

    In independent rows some of the n/2 lags have a large correlation by chance, and two outliers
    far from all other points have one at their distance. Ranks have no outliers, and a correlation
    of `FAR` standard errors has a probability of 1e-12 at each lag.
    """
    n, largest, found = len(points), FAR, 0
    for column in points.T[:: -(-points.shape[1] // FAR_COLUMNS)]:
        _, places, counts = np.unique(column, return_inverse=True, return_counts=True)
        ranks = (counts.cumsum() - counts / 2)[places] - n / 2  # equal numbers have equal ranks
        power = np.abs(np.fft.rfft(ranks, 2 ** (2 * n - 1).bit_length())) ** 2
        products = np.fft.irfft(power)[: n // 2 + 1]
        scores = products[1:] * math.sqrt(n) / max(products[0], 1e-300)
        if scores.max() > largest:
            largest, found = scores.max(), int(scores.argmax()) + 1
    return found


@dataclass(frozen=True, eq=False)
class Truth:
    """The data with which samples are compared, by one metric."""

    metric: str
    name: str  # a description of the data, for the output
    dim: int  # the dimension of the points
    distance: Distance  # of samples to the data
    # samples ↦ the distances of the same number of perfect samples, shape (R,), perhaps R = 0
    floor: Callable[[Tensor], NDArray[np.float64]]
    # n ↦ why n samples are too many for the metric; None if they are not
    why_too_large: Callable[[int], str | None]
    seed: int  # of the groups for the intervals
    between: Metric | None = None  # the metric, if it compares two sets of points


@dataclass(frozen=True)
class Line:
    """The distance of a cloud, or a difference of two, as a line of a table.

    Args:
        kind: distance or difference.
        metric: name of the metric.
        samples: name of the cloud.
        n: the number of samples.
        distance: to the data; or this distance minus that of another cloud.
        half_width: half of its 95 % interval; NaN if it has none.
        verdict: in words.
        minus: name of the other cloud; empty for a distance.
        p_value: the corrected p-value of a difference.
        ess: effective sample size, n for independent samples; 0 (empty in a table) for a
            difference.
        r_hat: split R̂ of chains.
        floor: mean distance of perfect samples.
        floor_sets: the number of sets of perfect samples; empty in a table for a difference.
        floor_lower: lower end of the interval that has 95 % of perfect samples.
        floor_upper: upper end of this interval.
    """

    kind: str
    metric: str
    samples: str
    n: int
    distance: float
    half_width: float
    verdict: str
    minus: str = ""
    p_value: float = math.nan
    ess: int = 0
    r_hat: float = math.nan
    floor: float = math.nan
    floor_sets: int = 0
    floor_lower: float = math.nan
    floor_upper: float = math.nan


def table_of(lines: Sequence[Line]) -> pd.DataFrame:
    """One row for each line, with its fields as columns."""
    table = pd.DataFrame(map(asdict, lines)).astype({"ess": "Int64", "floor_sets": "Int64"})
    table.loc[table["kind"] == "difference", ["ess", "floor_sets"]] = pd.NA
    return table


def truths(
    data: Dataset | Tensor,
    origin: str,
    metrics: Mapping[str, AnyMetric],
    n_reference: int,
    seed: int,
) -> list[Truth]:
    """The truth of each metric.

    Args:
        data: a data set, or points of shape (m, dim).
        origin: the name of the data set, or of the file of points, for the output.
        n_reference: the number of points that represent a data set.
        seed: the seed of all random numbers.

    Raises:
        InvalidSetting: a metric cannot be used with these data.
    """
    if isinstance(data, Dataset):
        return [to_law(data, origin, name, own, n_reference, seed) for name, own in metrics.items()]
    return [to_points(data, origin, name, own, seed) for name, own in metrics.items()]


def to_points(points: Tensor, origin: str, name: str, metric: AnyMetric, seed: int) -> Truth:
    """The truth of m points, shape (m, dim), that come from `origin`."""
    if isinstance(metric, LawMetric):
        raise InvalidSetting(
            "metric", name, "one between points, such as sliced: a file has no law"
        )
    require_compatible(metric.why_incompatible(points.shape[1]), "metric", name)
    between = metric
    return Truth(
        name,
        f"{len(points):,} points of {origin}, with a floor from the relabelled rows of both files",
        points.shape[1],
        distance=between.against(points, seed=seed),
        floor=lambda samples: relabelled(between, samples, points, seed),
        why_too_large=lambda n: between.why_too_large(n, len(points)),
        seed=seed,
        between=between,
    )


def relabelled(metric: Metric, samples: Tensor, points: Tensor, seed: int) -> NDArray[np.float64]:
    """Distances between two clouds after random exchanges of their rows; see the module."""
    n, both = len(samples), torch.cat([samples, points])
    values = []
    for repetition in range(FLOORS):
        order = torch.from_numpy(generator("score", seed, repetition).permutation(len(both)))
        to_rest = metric.against(both[order[n:]], seed=seed)
        values.append(to_rest(both[order[:n]]).value)
    return np.array(values)


def reference_size(dataset: Dataset, usual: int) -> int:
    """The number of points that represent a data set, if the user gives none."""
    most = dataset.most_draws("evaluation")
    return usual if most is None else min(usual, most)


def to_law(
    dataset: Dataset, origin: str, name: str, metric: AnyMetric, n_reference: int, seed: int
) -> Truth:
    """The truth of a data set, whose name is `origin`."""
    if isinstance(metric, LawMetric):
        reason, against = metric.why_incompatible(dataset), "the law itself"
    else:
        reason, against = metric.why_incompatible(dataset.dim), f"{n_reference:,} draws"
    require_compatible(reason, "metric", name)
    if isinstance(metric, LawMetric):
        distance = metric.against_law(dataset, seed=seed)
    else:
        require(n_reference >= 2, "n_reference", n_reference, "at least 2, as for a file")
        reference = finite(dataset.draws(n_reference, "evaluation", seed), "dataset")
        distance = metric.against(reference, seed=seed)

    @cache
    def of_size(n: int) -> NDArray[np.float64]:
        most = dataset.floor_sets(n)
        sets = FLOORS if most is None else min(FLOORS, most)
        draws = (dataset.draws(n, "floor", seed, repetition) for repetition in range(sets))
        return np.array([distance(points).value for points in draws])

    def why_too_large(n: int) -> str | None:
        return None if isinstance(metric, LawMetric) else metric.why_too_large(n, n_reference)

    return Truth(
        name,
        f"{origin}, {against}",
        dataset.dim,
        distance,
        floor=lambda samples: of_size(len(samples)),
        why_too_large=why_too_large,
        seed=seed,
        between=None if isinstance(metric, LawMetric) else metric,
    )


def require_fits(clouds: Mapping[str, Cloud], truth: Truth) -> None:
    """Refuse samples of another dimension than the data, or too many for the metric."""
    for name, cloud in clouds.items():
        rows, columns = cloud.points.shape
        allowed = f"{counted(truth.dim, 'column')}, as the data have"
        if rows == truth.dim:
            allowed += f": the array has {rows} rows, so it may be on its side; save its transpose"
        elif columns > truth.dim and name.endswith(TABLES):
            allowed += "; columns=NAME,NAME chooses some of a table"
        require(columns == truth.dim, name, counted(columns, "column"), allowed)
        reason = truth.why_too_large(rows)
        require(reason is None, name, f"{rows} rows", f"fewer for {truth.metric}: {reason}")


def distances(clouds: Mapping[str, Cloud], truth: Truth) -> list[Line]:
    """A line for each cloud: its distance with its interval, its floor and the verdict."""
    lines = []
    for name, cloud in clouds.items():
        value = truth.distance(cloud.points).value
        ess, r_hat = cloud.ess_and_r_hat
        half = math.nan
        if ess >= jackknife.FEWEST:
            half = jackknife.half_width(
                truth.distance, cloud.points, seed=truth.seed, consecutive=cloud.chains is not None
            )
        floor, of_size_n = _floor(cloud, truth)
        ends = (math.nan, math.nan) if len(floor) < 2 else prediction(floor)
        lines.append(
            Line(
                kind="distance",
                metric=truth.metric,
                samples=name,
                n=len(cloud.points),
                distance=value,
                half_width=half,
                verdict=_verdict(cloud, value, len(floor), *ends, of_size_n),
                ess=ess,
                r_hat=r_hat,
                floor=float(floor.mean()) if len(floor) else math.nan,
                floor_sets=len(floor),
                floor_lower=ends[0],
                floor_upper=ends[1],
            )
        )
    return lines


def _floor(cloud: Cloud, truth: Truth) -> tuple[NDArray[np.float64], bool]:
    """Distances of perfect samples, and whether they are of n samples, not of ESS draws."""
    independent = truth.floor(cloud.points)
    if cloud.chains is None:
        return independent, True
    ess, _ = cloud.ess_and_r_hat
    n, metric = len(cloud.points), truth.between
    if metric is not None and len(independent) > 1 and metric.why_too_large(n, n) is None:
        frames = cloud.chains.frames
        return blocks.floor_of_chains(frames, ess, metric, independent, truth.seed), True
    # ESS states of the chains, equally spaced
    rows = torch.linspace(0, n - 1, ess).round().long()
    return truth.floor(cloud.points[rows]), False


def _verdict(
    cloud: Cloud, value: float, sets: int, low: float, high: float, of_size_n: bool
) -> str:
    """The verdict on a distance, from the interval of perfect samples."""
    if cloud.chains and not (r_hat := cloud.ess_and_r_hat[1]) <= MIXED:
        # correct chains that are short have such an R̂ too
        return f"no verdict: R̂ is {'unknown' if math.isnan(r_hat) else f'above {MIXED}'}"
    if cloud.chains_depend:
        return "no verdict: its chains depend on each other"
    if cloud.chains is None and cloud.lag:
        return "no verdict: its rows depend on each other"
    if sets < 2:
        count = "one set" if sets else "no set"
        return f"no verdict: {count} of fresh draws of this size"
    if value > high:
        return "differs from the data"
    below = value < low and of_size_n  # a chain may be closer than ESS draws
    return "closer than perfect samples" if below else "not distinguishable from the data"


def prediction(floor: NDArray[np.float64]) -> tuple[float, float]:
    """The interval that holds one more perfect sample's distance in 95 % of cases; see the module.

    `floor` has the distances of perfect samples, shape (R,), R ≥ 2.
    """
    count = len(floor)
    if count >= FLOORS:
        return float(floor.min()), float(floor.max())
    positive = floor.min() > 0
    values = np.log(floor) if positive else floor
    half = stdtrit(count - 1, 0.975) * values.std(ddof=1) * math.sqrt(1 + 1 / count)
    ends = values.mean() - half, values.mean() + half
    low, high = np.exp(np.clip(ends, -700, 700)) if positive else ends
    return float(low), float(high)


def differences(clouds: Mapping[str, Cloud], truth: Truth) -> list[Line]:
    """The difference of the distances of each pair of clouds, the farther minus the nearer.

    Only pairs of clouds that are worth at least `jackknife.FEWEST` independent draws. Chains that
    have not mixed are left out, and so are dependent rows that are not known to be a chain.
    """
    usable = [name for name, cloud in clouds.items() if cloud.has_interval]

    @cache
    def measured(name: str, n: int) -> tuple[float, NDArray[np.float64]]:
        points, are_chains = clouds[name].points[:n], clouds[name].chains is not None
        without = jackknife.without_groups(
            truth.distance, points, seed=truth.seed, consecutive=are_chains
        )
        return truth.distance(points).value, without

    gaps = []
    for pair in combinations(usable, 2):
        n = min(len(clouds[name].points) for name in pair)
        values = {name: measured(name, n) for name in pair}
        nearer, farther = sorted(pair, key=lambda name: values[name][0])
        (least, without_least), (most, without_most) = values[nearer], values[farther]
        gap = jackknife.estimate(most - least, without_most - without_least)
        gaps.append((farther, nearer, n, gap))
    corrected = holm([gap.p_value for *_, gap in gaps])
    return [
        Line(
            kind="difference",
            metric=truth.metric,
            samples=farther,
            n=n,
            distance=gap.mean,
            half_width=gap.half,
            verdict=_comparison(p_value),
            minus=nearer,
            p_value=float(p_value),
        )
        for (farther, nearer, n, gap), p_value in zip(gaps, corrected, strict=True)
    ]


def _comparison(p_value: float) -> str:
    if math.isnan(p_value):
        return "the same values"
    return "distinguishable" if p_value <= 0.05 else "not distinguishable"
