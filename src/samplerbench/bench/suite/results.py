"""The results of a suite: one row per value, from the tables of its jobs.

A *task* is a law, a path, a denoiser and a quantity. All quantities are shares of the size of the
data, s = (tr Cov(x₀))^½, or nats:

    paired            root mean square distance of paths to the converged run, /s
    w_output_1d       exact W₂ to the law on a line, /s
    w2_law_gaussian   exact W₂ to a Gaussian law, /s
    kl_law            KL divergence from the law, in nats

On a line the flow is an increasing map. If the map of a sampler increases too, its paired distance
is W₂, and otherwise it is an upper bound of W₂. So there it counts as `w_output_1d`.

A sampler with noise follows no flow, so it only has the tasks where the law of its output is known
exactly: on a line, and on Gaussians.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from samplerbench.bench.cell import sampler_name

#: The targets of each quantity, from the easiest to the hardest.
TARGETS: Mapping[str, tuple[float, ...]] = {
    "paired": (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005),
    "w_output_1d": (0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001),
    "w2_law_gaussian": (0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001),
    "kl_law": (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002),
}
#: The grid settings: one grid for all samplers, or for each sampler the best of several grids.
COMMON, OWN = "common", "own"
#: The name of the levels of a sampler of another package.
SHIPPED = "shipped"
#: The columns of the results.
COLUMNS = [
    *("law", "path", "denoiser", "grid", "quantity", "unit", "entrant", "package", "version"),
    *("sampler", "sampler_settings", "order", "noise", "nfe", "steps", "chosen"),
    *("value", "lower", "upper", "status", "message", "cell_id", "samples_id", "command"),
]


#: The columns that say how a job ran, in JSON: the versions of the software, with the digest of the
#: code of this package, and the machines that worked on the job. They belong to no identity.
RECORDED = ["versions", "machines"]
#: Their text in results that were made before they were recorded.
NOT_RECORDED = "not recorded"


def with_records(results: pd.DataFrame) -> pd.DataFrame:
    """The results with the columns `RECORDED`."""
    return results.assign(**{name: NOT_RECORDED for name in RECORDED if name not in results})


@dataclass(frozen=True)
class About:
    """The facts that a job of the suite adds to its rows.

    Args:
        law: the name of the data set.
        scale: s, the size of the data.
        dim: the number of coordinates of the data.
        own: whether every sampler has its own grid.
        command: the command that repeats the job.
        entrants: the entrant for the sampler and the settings of a row.
        versions: of the software, by package.
        machines: those that worked on the job; see `identity.machine`.
    """

    law: str
    scale: float
    dim: int
    own: bool
    command: str
    entrants: Callable[[str, str], Entrant]
    versions: Mapping[str, str] = field(default_factory=dict)
    machines: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Entrant:
    """A sampler with its settings."""

    package: str
    version: str
    order: float
    noise: bool
    brings_levels: bool


def job_results(cells: pd.DataFrame, about: About) -> pd.DataFrame:
    """The rows of one job.

    Args:
        cells: the job's table, with the columns of `bench.cell.Row`.
        about: the job.
    """
    rows = []
    for cell in cells.to_dict("records"):
        entrant = about.entrants(cell["sampler"], cell["sampler_settings"])
        unit, scale = "share", about.scale
        quantity = quantity_of(str(cell["metric"]), about.dim)
        if quantity == "kl_law":
            unit, scale = "nats", 1.0
        if cell["metric"] == "paired":  # in units of the deviation of one coordinate
            scale = math.sqrt(about.dim)
        value = cell["value"] / scale
        half = _half(cell) / scale
        rows.append(
            {
                **{key: cell[key] for key in COLUMNS if key in cell},
                "law": about.law,
                "path": cell["schedule"],
                "grid": OWN if about.own else COMMON,
                "quantity": quantity,
                "unit": unit,
                "entrant": sampler_name(cell["sampler"], cell["sampler_settings"]),
                "package": entrant.package,
                "version": entrant.version,
                "order": entrant.order,
                "noise": entrant.noise,
                "chosen": SHIPPED if entrant.brings_levels else cell["grid"],
                "value": value,
                "lower": max(0.0, value - half) if math.isfinite(value) else math.nan,
                "upper": value + half,
                "command": about.command,
            }
        )
    # a run that was made before its machines were recorded has none
    records = {
        name: json.dumps(one, sort_keys=True) if one else NOT_RECORDED
        for name, one in zip(RECORDED, (about.versions, about.machines), strict=True)
    }
    return pd.DataFrame(rows, columns=COLUMNS).assign(**records)


def quantity_of(metric: str, dim: int) -> str:
    """The quantity of a metric: on a line a paired distance counts as W₂."""
    return "w_output_1d" if metric == "paired" and dim == 1 else metric


def _half(cell: Mapping[Any, Any]) -> float:
    """Half of a value's interval: the sampling error plus the error of its reference."""
    text = str(cell["info"] or "")
    info = json.loads(text) if text else {}
    half = float(info.get("half_width", 0.0))
    half = 0.0 if math.isnan(half) else half
    bounds = [float(str(cell[name])) for name in ("lower", "upper")]
    if np.isfinite(bounds).all():
        half += (bounds[1] - bounds[0]) / 2
    return half + float(info.get("converged_to", 0.0))
