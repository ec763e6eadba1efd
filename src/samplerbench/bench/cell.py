"""What a cell is: its names, what its identities stand for, its row, and the name of its file.

A *cell* is a set of n samples: of a sampler with its settings, at a number of steps, on a denoiser,
from a start, with one repetition's random numbers. A *value* is one metric of it. Four identities
(`books` makes them) say what may be taken for what:

    samples_id    all that decides the bits of the samples
    cell_id       the same and all that decides the value: metric, its seed, the reference itself
    setting_id    what repetitions, seeds and numbers of steps of one curve have in common
    measure_id    what two values must share to be compared: law, metric, kind of reference

and `sweep_id` stands for what all rows of a sweep share: law, path, seeds, n and versions.

So repetitions of one cell are the rows that agree in names, setting, steps and seeds (`CELL`), and
values of two sweeps that differ in anything are never pooled, whatever they are called.

Names decide nothing: two samplers of one job may have different names and the same settings, hence
the same `cell_id`. A fragment is therefore named by identity *and* names; the cache, which knows no
names, by the identity alone.
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


#: The status of a cell whose law has no density that is known, see `densities`.
NOT_A_DENSITY = "not a density"


@dataclass(frozen=True)
class Labels:
    """The names a row carries for people; they decide nothing."""

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

    The floor's denoiser is law; its start is the name of a stratified start whose floor it is, or
    empty. `coupled` cells draw the increments of one Brownian path, so that runs with different
    numbers of steps see the same noise, see `coupling`.
    """

    denoiser: str
    start: str
    sampler: str
    settings: Sampler | None
    steps: int
    repetition: int
    coupled: bool = False


#: What a denoiser's name says of it; law is the floor's, which has none.
KINDS = ("learned", "pretrained", "empirical", "oracle", "law")


@dataclass(frozen=True)
class Origin:
    """Where a denoiser comes from, which stands for it in an identity.

    Args:
        kind: one of `KINDS` (an oracle follows from data and path), or own, a model that somebody
            gave.
        id: identity of what made it: a training, a pretrained model's weights, the points of an
            empirical law, the content of an own model.
        recipe: the same without seeds, so that trainings which differ in nothing else share it.
        content: identity of the model when it was made; one that was changed since is an own one.
            Empty where nobody can have changed it.
    """

    kind: str
    id: str = ""
    recipe: str = ""
    content: str = ""


@dataclass(frozen=True)
class Against:
    """What samples are measured against; part of a value's identity.

    Args:
        name: data, law, training, other samples (see `budget`), or chain (see `chains`).
        count: its number of points; 0 where it has none.
        content: identity of the points or samples themselves.
        setting: what those samples share over seeds and repetitions; empty where `name` says it.
    """

    name: str
    count: int = 0
    content: str = ""
    setting: str = ""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One value and everything it depends on.

    `denoiser` is learned, oracle, or law for the floor's fresh draws, which have no sampler, no
    start and no steps. `lower` and `upper` bound the metric's own value for these samples (a
    certificate, not a confidence interval), and are NaN where it has none. `eta` is NaN for
    samplers without one. `info` holds a metric's further figures as JSON, such as the p-value of
    mode_weights. `seconds` are of the cell alone: sampling and metric. `status` is ok,
    diverged, not a density, incompatible or failed, and `message` says why; then the value is NaN.
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
    denoiser: str
    start: str
    sampler: str
    sampler_settings: str
    eta: float
    steps: int
    nfe: int
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


#: The columns that take work; all others follow from what was asked for.
FOUND = ("value", "lower", "upper", "info", "nfe", "seconds", "status", "message")
#: The names of a value: with its cell_id they tell the values of a job apart.
NAMES = ["denoiser", "start", "sampler", "metric"]
SEEDS = ["seed", "data_seed", "train_seed", "metric_seed"]
#: What a curve is: its cells differ in the number of steps, and their rows in the repetition.
CURVE = [
    *("dataset", "metric", "denoiser", "start", "sampler", "sampler_settings", "eta"),
    *("n_samples", "setting_id", *SEEDS),
]
#: What a cell is: its rows are its repetitions.
CELL = [*CURVE, "steps"]
#: What two distances must share to be compared.
MEASURE = [
    *("dataset", "metric", "metric_settings", "n_samples", "reference", "n_reference"),
    "measure_id",
]
#: What may differ between curves of one name, in the order in which a reader is told.
TELLING = [
    *("dataset", "schedule", "grid", "network", "objective", "target", "n_samples", "n_reference"),
    *(*SEEDS, "dtype", "device", "block", "version", "measure_id", "setting_id"),
]


def distinct(table: pd.DataFrame) -> pd.DataFrame:
    """The table with every value once: tables that were put together may share some.

    Args:
        table: rows of the results store; those without a cell_id are all kept.
    """
    if "cell_id" not in table:
        return table
    key = ["cell_id", *(name for name in (*NAMES, "steps") if name in table)]
    return table[~table.duplicated(key) | (table["cell_id"] == "")]


def require_one_sweep(table: pd.DataFrame) -> None:
    """Refuse a table of several sweeps, for what is worked out from the rows of one.

    Raises:
        InvalidSetting: saying how many there are.
    """
    if table.empty or not {"sweep_id", "setting_id"} <= set(table.columns):
        return
    cell = [*NAMES, "sampler_settings", "steps", "reference"]
    settings = table.groupby(cell, dropna=False)["setting_id"].nunique()
    sweeps = max(table["sweep_id"].nunique(), int(settings.max()))
    require(sweeps <= 1, "table", f"rows of {sweeps} sweeps", "those of one: select it first")


def fragment_name(row: Row) -> str:
    """The name of a value's file, which no other value of a job has."""
    names = json.dumps([getattr(row, name) for name in NAMES]).encode()
    return f"{row.cell_id}-{blake2b(names, digest_size=4).hexdigest()}.json"


def setting_text(value: object) -> str:
    """A value of a setting as short as it can be written without becoming another one."""
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value or value != value else repr(value)
    if isinstance(value, list):
        return f"[{','.join(map(setting_text, value))}]"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def sampler_name(sampler: str, settings: str) -> str:
    """A sampler with its settings as people write them: "ddim η=0.5", "heun".

    Args:
        sampler: the column of that name.
        settings: the column `sampler_settings`, JSON.
    """
    values = json.loads(settings) if settings else {}
    words = [
        f"{'η' if key == 'eta' else key}={setting_text(value)}"
        for key, value in values.items()
        # what is infinite or off has no effect, and a table has little room
        if not (value is None or value is False or value in (math.inf, -math.inf))
    ]
    return " ".join([sampler, *words])


def curve_names(cells: pd.DataFrame) -> pd.Series:
    """The `sampler_name` of each line, with what tells its curve from others of that name.

    Where curves of different settings or seeds have the same names, what differs is added, as in
    "ddim η=0 (grid=karras)"; where no other column shows it, the first digits of an identity.

    Args:
        cells: lines with the columns of `CURVE`, and others that may tell curves apart.
    """
    index, cells = cells.index, cells.reset_index(drop=True)
    plain = list(map(sampler_name, cells["sampler"], cells["sampler_settings"]))
    names = pd.Series(plain, dtype=object)
    keys = [name for name in ("setting_id", *SEEDS) if name in cells]
    if not keys:
        return names.set_axis(index)
    curve = cells[keys].astype(str).agg(" ".join, axis=1)
    alike = [cells[name] for name in ("metric", "denoiser", "start") if name in cells]
    for _, curves in curve.groupby([*alike, names.copy()]):
        words = pd.Series("", index=curves.index)
        for column in (name for name in TELLING if name in cells):
            if curves.groupby(words).nunique().max() == 1:
                break
            values = cells.loc[curves.index, column].astype(str)
            if values.nunique() > 1:
                short = values.str[:6] if column.endswith("_id") else values
                words += f", {column}=" + short
        names[curves.index] += words.map(lambda word: f" ({word[2:]})" if word else "")
    return names.set_axis(index)
