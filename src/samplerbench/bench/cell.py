"""Cells, the columns of their rows, and the names of cells, curves and files.

A *cell* is a set of n samples: of a sampler with its settings, at a number of steps, on a denoiser,
from a start, with the random numbers of one repetition. A *value* is one metric of it. A row has
five identities, which `books` computes. Rows with equal identities have the same

    samples_id    bits of the samples
    cell_id       value: samples_id, the metric, its seed, and the points of the reference
    setting_id    curve, with any repetition, seed and number of steps
    measure_id    law, metric and kind of reference, so their values can be compared
    sweep_id      sweep: law, path, seeds, n and versions

So the repetitions of a cell are the rows that agree in names, setting, steps and seeds (`CELL`).
Values of two sweeps that differ in any setting are never pooled, even if they have the same names.

Names affect no value. Two samplers of one job may have different names and the same settings, and
then the same `cell_id`. So the name of a fragment has the identity *and* the names. The cache has
no names; its files are named by the identity.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

import pandas as pd

from samplerbench.errors import require

if TYPE_CHECKING:  # a table can be read without torch, which takes seconds to import
    from samplerbench.samplers.base import Sampler


#: The status of a cell whose density could not be computed, see `densities`.
NOT_A_DENSITY = "not a density"


#: The ends of a run: at x̂₀, or at the smallest level with σ > 0.
FINAL = ("denoise", "none")


@dataclass(frozen=True)
class Labels:
    """Names in a row for readers; they affect no value."""

    run: str = ""
    experiment: str = ""
    dataset: str = ""
    network: str = ""
    objective: str = ""
    schedule: str = ""
    target: str = ""
    grid: str = ""
    model: str = ""


@dataclass(frozen=True)
class Cell:
    """One set of n samples, by names in the sweep's mappings.

    A floor has the denoiser "law"; its start is the name of its stratified start, or empty.
    `coupled` cells draw the increments of one Brownian path, so runs with different numbers of
    steps have the same noise; see `coupling`. `final` is one of `FINAL`, or empty for the sweep's.
    """

    denoiser: str
    start: str
    sampler: str
    settings: Sampler | None
    steps: int
    repetition: int
    coupled: bool = False
    final: str = ""

    @property
    def algorithm(self) -> Sampler:
        """The sampler of a cell that is no floor."""
        assert self.settings is not None
        return self.settings


#: Kinds of denoisers; law stands for the floor, which has no denoiser.
KINDS = ("learned", "pretrained", "empirical", "guided", "autoguided", "corrupted", "oracle", "law")


@dataclass(frozen=True)
class Origin:
    """The origin of a denoiser, which represents it in an identity."""

    kind: str  # one of `KINDS` (data and path determine an oracle), or "own" for a user's model
    # identity of its source: a training, the weights of a pretrained model, the points of an
    # empirical law, the content of a user's model
    id: str = ""
    recipe: str = ""  # `id` without seeds, the same for trainings that differ only in seeds
    # identity of the model when it was made; a model that was changed later gets the kind "own".
    # Empty if the model cannot change.
    content: str = ""


@dataclass(frozen=True)
class Against:
    """The reference of a value; part of its identity."""

    name: str  # data, law, training, other samples (see `budget`), or chain (see `chains`)
    count: int = 0  # its number of points; 0 if it has none
    content: str = ""  # identity of the points or samples themselves
    setting: str = ""  # the setting_id of those samples; empty for other references


@dataclass(frozen=True, kw_only=True)
class Row:
    """One value and everything it depends on.

    `denoiser` is learned, oracle, …, or law for the floor's fresh draws, which have no sampler, no
    start and no steps. `lower` and `upper` bound the metric's own value for these samples (a
    certificate, not a confidence interval); they are NaN for a metric without bounds. `eta` is NaN
    for samplers without one. `final` is one of `FINAL`, or empty for samplers with an end of their
    own. `nfe` is the number of evaluations of the model, `rounds` the number of sequential ones,
    smaller than `nfe` only for a sampler with parallel evaluations. `info` has more numbers of the
    metric as JSON, such as the p-value of mode_weights. `seconds` is the time of sampling and
    metric of this cell. `status` is ok, diverged, not a density, incompatible or failed. If it is
    not ok, the value is NaN, and `message` is the reason.
    """

    cell_id: str
    samples_id: str
    setting_id: str
    measure_id: str
    sweep_id: str
    training_id: str
    run: str
    experiment: str
    dataset: str
    network: str
    objective: str
    schedule: str
    target: str
    grid: str
    final: str
    denoiser: str
    start: str
    sampler: str
    sampler_settings: str
    eta: float
    steps: int
    nfe: int
    rounds: int
    seed: int
    data_seed: int
    train_seed: int
    metric_seed: int
    repetition: int
    n_samples: int
    reference: str
    n_reference: int
    metric: str
    metric_settings: str
    value: float
    lower: float
    upper: float
    info: str
    seconds: float
    block: int
    device: str
    dtype: str
    version: str
    status: str
    message: str


#: The columns with results; all others are known before the cell is run.
RESULTS = ("value", "lower", "upper", "info", "nfe", "rounds", "seconds", "status", "message")
#: The names of a value; with its cell_id they identify it within a job.
NAMES = ["denoiser", "start", "sampler", "metric"]
SEEDS = ["seed", "data_seed", "train_seed", "metric_seed"]
#: A curve is all rows that agree in these: its cells differ in the number of steps.
CURVE = [
    *("dataset", "metric", "denoiser", "start", "sampler", "sampler_settings", "eta"),
    *("n_samples", "setting_id", *SEEDS),
]
#: A cell is all rows that agree in these: its rows are its repetitions.
CELL = [*CURVE, "steps"]
#: Two distances can be compared if they agree in these.
MEASURE = [
    *("dataset", "metric", "metric_settings", "n_samples", "reference", "n_reference"),
    "measure_id",
]
#: Columns that distinguish curves with the same name, in the order in which names get them.
DISTINGUISHING = [
    *("dataset", "schedule", "grid", "final", "network", "objective", "target"),
    *("n_samples", "n_reference"),
    *(*SEEDS, "dtype", "device", "block", "version", "measure_id", "setting_id"),
]


def point_count(n_samples: int) -> int:
    """The points of an estimate from densities: the next power of two, for a Sobol sequence.

    At least 64, since fewer show neither the spread of the estimate nor a map that folds.
    """
    return 1 << max(6, (int(n_samples) - 1).bit_length())


def distinct(table: pd.DataFrame) -> pd.DataFrame:
    """The rows without repeated values, which concatenated tables may have; all if no cell_id."""
    if "cell_id" not in table:
        return table
    key = ["cell_id", *(name for name in (*NAMES, "steps") if name in table)]
    return table[~table.duplicated(key) | (table["cell_id"] == "")]


def require_one_sweep(table: pd.DataFrame) -> None:
    """Raise `InvalidSetting` for a table with rows of several sweeps."""
    if table.empty or not {"sweep_id", "setting_id"} <= set(table.columns):
        return
    cell = [*NAMES, "sampler_settings", "steps", "reference"]
    settings = table.groupby(cell, dropna=False)["setting_id"].nunique()
    sweeps = max(table["sweep_id"].nunique(), int(settings.max()))
    require(sweeps <= 1, "table", f"rows of {sweeps} sweeps", "those of one: select it first")


def fragment_name(row: Row) -> str:
    """The name of a value's file, unique within a job."""
    names = json.dumps([getattr(row, name) for name in NAMES]).encode()
    return f"{row.cell_id}-{blake2b(names, digest_size=4).hexdigest()}.json"


def setting_text(value: object) -> str:
    """The shortest exact text of a setting's value."""
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value or value != value else repr(value)
    if isinstance(value, list):
        return f"[{','.join(map(setting_text, value))}]"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


#: Settings that a name shows without "key=": the sampler of another package, and its version.
_PLAIN = ("scheduler", "function", "method", "version")


def sampler_name(sampler: str, settings: str) -> str:
    """A sampler with its settings (a column in JSON) for readers: "ddim η=0.5", "heun"."""
    values = json.loads(settings) if settings else {}
    differs: set[str] = set()  # settings of another package's sampler, which are not its defaults
    for key in [key for key, value in values.items() if isinstance(value, dict)]:
        differs |= values[key].keys()
        values |= values.pop(key)
    words = [
        value if key in _PLAIN else f"{'η' if key == 'eta' else key}={setting_text(value)}"
        for key, value in values.items()
        # settings of our samplers that are infinite or off have no effect and are left out
        if key in differs or not (value is None or value is False or value in (math.inf, -math.inf))
    ]
    return " ".join([sampler, *words])


def sampler_names(rows: pd.DataFrame) -> pd.Series:
    """The `sampler_name` of each line."""
    names = map(sampler_name, rows["sampler"], rows["sampler_settings"])
    return pd.Series(list(names), rows.index, dtype=str)


def curve_names(cells: pd.DataFrame) -> pd.Series:
    """The `sampler_name` of each line, made unique for each curve.

    If curves of different settings or seeds have the same name, the columns in which they differ
    are added, as in "ddim η=0 (grid=karras)". If no other column differs, the first digits of an
    identity are added.

    Args:
        cells: lines with the columns of `CURVE`, and others that may distinguish curves.
    """
    index, cells = cells.index, cells.reset_index(drop=True)
    names = sampler_names(cells).astype(object)
    keys = [name for name in ("setting_id", *SEEDS) if name in cells]
    if not keys:
        return names.set_axis(index)
    curve = cells.groupby(keys, dropna=False).ngroup()
    alike = [cells[name] for name in ("metric", "denoiser", "start") if name in cells]
    group = curve.groupby([*alike, names]).ngroup()
    words = pd.Series("", index=cells.index, dtype=object)
    for column in (name for name in DISTINGUISHING if name in cells):
        several = curve.groupby([group, words]).transform("nunique") > 1
        ambiguous = several.groupby(group).transform("any")
        if not ambiguous.any():
            break
        values = cells[column].astype(str)
        differs = ambiguous & (values.groupby(group).transform("nunique") > 1)
        # "measure 0f3a9c"
        short = f"{column.removesuffix('_id')} " + values.str[:6]
        texts = short if column.endswith("_id") else f"{column}=" + values
        words[differs] += ", " + texts[differs]
    names += words.map(lambda word: f" ({word[2:]})" if word else "")
    return names.set_axis(index)
