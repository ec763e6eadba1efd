"""What the repetitions of a cell say about its distance.

The estimand is the *expected* distance at the stated n, m and metric. Repetitions are independent
sets of samples, so their mean estimates it, and

    mean ± t_{0.975, R−1}·s/√R

is a 95 % interval, s the standard deviation of the R values (Student 1908). No bootstrap over the
samples: near zero distance it is biased.
"""

from __future__ import annotations

import pandas as pd
from scipy import stats

#: What a cell is: repetitions differ in nothing of this.
CELL = [
    "dataset",
    "metric",
    "denoiser",
    "start",
    "sampler",
    "sampler_settings",
    "eta",
    "steps",
    "n_samples",
]


def summary(table: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """One line a cell: mean, sd, count, the interval [lower, upper], nfe and seconds.

    Args:
        table: rows of the results store; only those with status ok are used.
        level: of the interval, which is NaN for fewer than two repetitions.
    """
    ok = table[table["status"] == "ok"]
    # eta is NaN for samplers without one, and pandas would drop those groups
    groups = ok.groupby(CELL, dropna=False, sort=True)
    lines = groups.agg(
        mean=("value", "mean"),
        sd=("value", "std"),
        count=("value", "size"),
        nfe=("nfe", "max"),
        seconds=("seconds", "mean"),
    ).reset_index()
    quantile = stats.t.ppf(0.5 + level / 2, (lines["count"] - 1).clip(lower=1))
    half = quantile * lines["sd"] / lines["count"] ** 0.5
    return lines.assign(lower=lines["mean"] - half, upper=lines["mean"] + half)
