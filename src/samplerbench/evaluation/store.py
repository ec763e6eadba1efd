"""The results store: one atomic fragment per value, one table that is a view of them.

A value is one metric of one set of samples. It is written, the moment it is known, as a JSON file
named by its identity: into a temporary file, flushed to the disk, then renamed, so a fragment is
whole or absent. `cells.parquet` is the sorted table of all fragments, one row per value. Figures,
console tables and logs are views of that table.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import get_type_hints

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

#: Columns that hold readings of a clock: all others are the same bits when a command is repeated.
CLOCKS = ("seconds",)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One value and everything it depends on.

    `denoiser` is learned, oracle, or law for the floor's fresh draws, which have no sampler, no
    start and no steps. `lower` and `upper` bound the metric's own value for these samples (a
    certificate, not a confidence interval), and are NaN where it has none. `eta` is NaN for
    samplers without one. `info` holds a metric's further figures as JSON, such as the p-value of
    mode_weights. `seconds` are of the cell alone: sampling and metric. `status` is ok,
    diverged, incompatible or failed, and `message` says why; then the value is NaN.
    """

    cell_id: str
    samples_id: str
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


_ARROW = {str: pa.string(), int: pa.int64(), float: pa.float64()}
_TYPES = get_type_hints(Row)
_SCHEMA = pa.schema([(field.name, _ARROW[_TYPES[field.name]]) for field in fields(Row)])
_ORDER = ["dataset", "metric", "denoiser", "start", "sampler", "sampler_settings", "steps"]
_ORDER += ["repetition", "cell_id"]


class Store:
    """The fragments under one folder.

    Args:
        directory: of the run; fragments lie in its subfolder `cells`.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.fragments = directory / "cells"
        self.fragments.mkdir(parents=True, exist_ok=True)

    def write(self, row: Row) -> None:
        """Write one fragment, atomically."""
        path = self.fragments / f"{row.cell_id}.json"
        # JSON has no NaN
        record = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(row).items()
        }
        write_atomically(path, json.dumps(record, ensure_ascii=False, indent=0).encode())

    def table(self) -> pd.DataFrame:
        """All values, one row each, in an order that does not depend on when they were written."""
        records = [json.loads(path.read_bytes()) for path in self.fragments.glob("*.json")]
        return as_table(records)

    def compact(self) -> pd.DataFrame:
        """Write `cells.parquet` from the fragments and return it."""
        table = self.table()
        buffer = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pandas(table, _SCHEMA, preserve_index=False), buffer)
        write_atomically(self.directory / "cells.parquet", buffer.getvalue().to_pybytes())
        return table


def as_table(records: Iterable[dict[str, object]]) -> pd.DataFrame:
    """Records as a table with the columns of `Row`, typed and sorted."""
    table = pd.DataFrame(list(records), columns=[field.name for field in fields(Row)])
    for name, kind in _TYPES.items():
        table[name] = table[name].astype("object" if kind is str else kind)
    return table.sort_values(_ORDER, ignore_index=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is whole or absent, whatever happens in between."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
