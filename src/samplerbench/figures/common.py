"""What figures and the charts of a report share: colours, names of metrics, room for labels.

It does not import matplotlib, which takes longer than a page of a report.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

#: Formats in which a figure can be written.
FORMATS = ("png", "pdf", "svg")
#: Okabe and Ito's palette in the order of the style file.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

#: The parts of an error budget by name; the floor and the total are grey.
PART_COLOURS = {
    "floor": "#b0b0b0",
    "generalisation": COLOURS[5],
    "finite data": COLOURS[3],
    "optimisation": COLOURS[4],
    "discretisation": COLOURS[0],
    "start": COLOURS[1],
    "score": COLOURS[2],
    "total": "#4d4d4d",
}


def ticks(numbers: Iterable[float], width: float) -> list[float]:
    """The numbers on a log axis that have room for a label, from the largest one down.

    Args:
        numbers: positive.
        width: of the axis, in inches.
    """
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
    "exact_w2": "W₂",
    "w_law_1d": "Wasserstein distance",
    "within_mode": "W₂ within the modes",
    "mode_weights": "error of the modes' weights",
    "energy": "energy distance",
    "mmd": "squared MMD",
    "fid": "FID",
    "kid": "KID",
    "nearest_training": "distance to the nearest training point",
    "one_minus_precision": "1 − precision",
    "one_minus_recall": "1 − recall",
}
#: Metrics whose names say to what they are measured.
_WHOLE = {"within_mode", "mode_weights", "nearest_training"}


def metric_title(metric: str) -> str:
    """The usual name of a metric, for an axis."""
    return _METRICS.get(_kind(metric), metric.replace("_", " "))


def distance_title(metric: str, references: Iterable[str]) -> str:
    """The metric, and what it is measured to: "sliced W₂ to the data".

    Args:
        metric: its name.
        references: those of its rows.
    """
    if _kind(metric) in _WHOLE:
        return metric_title(metric)
    return f"{metric_title(metric)} to the {'law' if set(references) == {'law'} else 'data'}"


def _kind(metric: str) -> str:
    return "max_sliced" if metric.startswith("max_sliced") else metric
