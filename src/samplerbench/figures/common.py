"""Shared parts of figures and of a report's charts: colours, names of metrics, space for labels.

This module does not import matplotlib, which takes longer than writing the page of a report.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from samplerbench.bench.cell import point_count
from samplerbench.errors import require

#: Formats in which a figure can be written.
FORMATS = ("png", "pdf", "svg")
#: The size of text in points, and the width in inches; None if each figure has its own width.
STYLES = {"page": (10.0, None), "slides": (16.0, 12.0), "column": (8.0, 3.4)}


@dataclass(frozen=True)
class Look:
    """Format and style of all figures.

    Args:
        style: one of `STYLES`: a page such as a README, slides, a column of a paper.
        format: one or several of `FORMATS`; none, if no figures of results are drawn.
        font: size of the text in points; None is the size of the style.
        width: width in inches; None is the width of the style.
    """

    style: str = "page"
    format: tuple[str, ...] = ("png",)
    font: float | None = None
    width: float | None = None

    def __post_init__(self) -> None:
        require(self.style in STYLES, "figure.style", self.style, f"one of {', '.join(STYLES)}")
        known = len(self.format) == len(set(self.format) & set(FORMATS))
        allowed = f"one or several of {', '.join(FORMATS)}, or [] for no figures of results"
        require(known, "figure.format", ",".join(self.format), allowed)
        for name, low, high in (("font", 4, 40), ("width", 1.5, 40)):
            value = getattr(self, name)
            allowed = f"null, or {low} to {high}"
            require(value is None or low <= value <= high, f"figure.{name}", value, allowed)

    @property
    def points(self) -> float:
        """Size of the text."""
        return self.font or STYLES[self.style][0]

    @property
    def scale(self) -> float:
        """The size of text and lines, relative to the size for which figures are laid out."""
        return self.points / STYLES["page"][0]

    @property
    def inches(self) -> float | None:
        """Width of a figure; None if each figure has its own."""
        return self.width or STYLES[self.style][1]


_LOOK: ContextVar[Look | None] = ContextVar("look", default=None)


def look() -> Look:
    """The current look of figures."""
    return _LOOK.get() or Look()


@contextmanager
def looking(chosen: Look) -> Iterator[None]:
    """Use this look for figures within the block."""
    token = _LOOK.set(chosen)
    try:
        yield
    finally:
        _LOOK.reset(token)


#: Okabe and Ito's palette in the order of the style file.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

#: The parts of an error budget by name; the floor and the total are grey.
PART_COLOURS = {
    "floor": "#b0b0b0",
    "generalisation": COLOURS[5],
    "truncation": COLOURS[6],
    "finite data": COLOURS[3],
    "optimisation": COLOURS[4],
    "discretisation": COLOURS[0],
    "start": COLOURS[1],
    "score": COLOURS[2],
    "total": "#4d4d4d",
}


def ticks(numbers: Iterable[float], width: float) -> list[float]:
    """The positive numbers on a log axis that have space for a label, from the largest one down."""
    ordered = sorted(set(numbers), reverse=True)
    # the axis is a tenth longer than the numbers; a digit of 10 points is 0.09 inches wide
    inches = width / 1.1 / (math.log(ordered[0] / ordered[-1]) or 1.0)
    chosen: list[float] = []
    for number in ordered:
        digits = len(f"{number:g}{chosen[-1]:g}") / 2 if chosen else 0.0
        if not chosen or inches * math.log(chosen[-1] / number) > 0.09 * digits + 0.08:
            chosen.append(number)
    return chosen


_METRICS = {
    "max_sliced": "max-sliced W₂",
    "sliced": "sliced W₂",
    "sliced_pca": "sliced W₂ of principal components",
    "exact_w1": "W₁",
    "exact_w2": "W₂",
    "w_law_1d": "Wasserstein distance",
    "w2_law_gaussian": "W₂",
    "w_output_1d": "Wasserstein distance",
    "kl_law": "KL divergence from the law, nats",
    "kl_law_gaussian": "KL divergence from the law, nats",
    "kl_paths": "upper bound of the KL divergence (paths), nats",
    "log_z": "error of ln Z, nats",
    "paired": "distance to the converged run, same starts, sds",
    "tv_law": "total variation distance",
    "within_mode": "W₂ within the modes",
    "mode_weights": "error of the modes' weights",
    "mode_coverage": "error of the entropy over the modes",
    "outliers": "error of the share of outliers",
    "share_left": "error of the share on the left",
    "share_middle": "error of the share in the middle",
    "energy": "energy distance",
    "moments": "error of mean and deviation",
    "mmd": "squared MMD",
    "fid": "FID",
    "kid": "KID",
    "nearest_training": "distance to the nearest training point",
    "one_minus_precision": "1 − precision",
    "one_minus_recall": "1 − recall",
}
#: Metrics whose titles already contain the reference.
_WHOLE = {
    *("kl_law", "kl_law_gaussian", "kl_paths", "log_z", "within_mode", "mode_weights"),
    *("mode_coverage", "outliers", "share_left", "share_middle", "one_minus_precision"),
    *("one_minus_recall", "moments", "nearest_training", "paired"),
}
#: Metrics of exact laws for all data sets.
EXACT_METRICS = {"w2_law_gaussian", "kl_law_gaussian", "w_output_1d"}
_DENSITIES = {"kl_law", "kl_paths", "tv_law"}


#: The source of values without samples, which are the same in each repetition.
EXACT_LAWS = "exact laws, no samples"


def metric_title(metric: str) -> str:
    """The usual name of a metric, for an axis."""
    return _METRICS.get(_kind(metric), metric.replace("_", " "))


def distance_title(metric: str, references: Iterable[str]) -> str:
    """The metric and its reference: "sliced W₂ to the data"."""
    if _kind(metric) in _WHOLE:
        return metric_title(metric)
    return f"{metric_title(metric)} to the {'law' if set(references) == {'law'} else 'data'}"


def sizes(metrics: Iterable[str], n_samples: Iterable[int], exact: bool = False) -> str:
    """The source of values: "n = 2,000 samples", exact laws, or the points of a density.

    Args:
        exact: whether densities are exact laws, as on a line.
    """
    kinds, counts = set(map(_kind, metrics)), sorted(set(n_samples))
    if kinds <= EXACT_METRICS or (exact and kinds <= EXACT_METRICS | _DENSITIES):
        return EXACT_LAWS
    if kinds <= _DENSITIES:
        points = " and ".join(f"{point_count(n):,}" for n in dict.fromkeys(counts))
        return f"densities at {points} points of each output"
    return f"n = {' and '.join(f'{n:,}' for n in counts)} samples"


def _kind(metric: str) -> str:
    return "max_sliced" if metric.startswith("max_sliced") else metric


def repetitions(counts: Iterable[int]) -> str:
    """The number of repetitions of cells: "8 repetitions", "3 to 8 repetitions"."""
    ordered = sorted(counts)
    fewest, most = int(ordered[0]), int(ordered[-1])
    return f"{fewest if fewest == most else f'{fewest} to {most}'} repetition{'s' * (most > 1)}"


def score_title(denoiser: str) -> str:
    """The name of a denoiser's score, for a title or a legend."""
    names = {"oracle": "exact score", "empirical": "training set's score"}
    kind, _, settings = denoiser.partition(" ")
    # with several settings: "guided 2" has its weight, "corrupted 0.3 noise" amplitude and profile
    number = "amplitude " if kind == "corrupted" else "weight "
    number = number if settings[:1].isdigit() else ""
    several = f"{kind} score, {number}{settings}" if settings else f"{kind} score"
    return names.get(denoiser, several)


#: The quantities of a suite: a short name for an axis, and a description.
QUANTITIES = {
    "paired": ("paired distance", "root mean square distance to the converged run, same starts"),
    "kl_law": ("KL divergence", "KL divergence of the output's law from the law of the data"),
    "w2_law_gaussian": ("W₂ of Gaussian laws", "W₂ of the output's law to the law of the data"),
    "w_output_1d": ("W₂ on a line", "W₂ of the output's law to the law of the data"),
}


#: Units of a suite: a short name, for an axis, and a phrase.
UNITS = {
    "sd": ("sd", "in standard deviations of the data"),
    "share": ("relative", "relative to the size of the data"),
}


def quantity_title(quantity: str) -> str:
    """A short name of a quantity of a suite."""
    return QUANTITIES[quantity][0] if quantity in QUANTITIES else metric_title(quantity)


def unit_title(unit: str) -> str:
    """A short name of a unit of a suite."""
    return UNITS[unit][0] if unit in UNITS else unit
