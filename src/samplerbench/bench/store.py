"""The results store: one atomic fragment per value, and a table of all of them.

A value is one metric of one set of samples. As soon as it is computed it is written as a JSON file,
named by its identity and its names (`cell.fragment_name`): into a temporary file, flushed to the
disk, then renamed. So a fragment is complete or absent. `cells.parquet` is the sorted table of all
fragments, one row per value. Figures, console tables and logs are made from that table.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import fields
from hashlib import sha256
from operator import itemgetter
from pathlib import Path
from typing import Any, cast, get_type_hints

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from samplerbench.bench.cell import Row, fragment_name
from samplerbench.errors import first_line
from samplerbench.files import set_aside, write_atomically

#: Columns that depend on the time of a run. If a command is repeated, all other columns have the
#: same bits.
CLOCKS = ("run", "seconds")
#: The suffix of the sampler's name in the converged runs of an error budget.
LIMIT = " limit"


_ARROW = {str: pa.string(), int: pa.int64(), float: pa.float64()}
_TYPES = get_type_hints(Row)
_SCHEMA = pa.schema([(field.name, _ARROW[_TYPES[field.name]]) for field in fields(Row)])
_ORDER = ["dataset", "metric", "denoiser", "start", "sampler", "sampler_settings", "steps"]
_ORDER += ["repetition", "cell_id"]


#: All exceptions of reading a fragment, whatever its content.
UNREADABLE = (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError)


class Store:
    """The fragments in the folder of a run.

    Args:
        directory: the folder of the run; fragments are in its subfolder `cells`.
        sweep_id: identity of the sweep whose values the table has; empty for all sweeps. The folder
            may also have fragments of an earlier state of the job, such as one before its data
            file was changed.
    """

    def __init__(self, directory: Path, sweep_id: str = "") -> None:
        self.directory = directory
        self.sweep_id = sweep_id
        self.fragments = directory / "cells"

    def write(self, row: Row, *, durable: bool = True) -> None:
        """Write one fragment, atomically; if `durable`, wait until it is on the disk."""
        self.fragments.mkdir(parents=True, exist_ok=True)
        path = self.fragments / fragment_name(row)
        write_atomically(path, fragment(row), durable=durable)

    def table(self) -> pd.DataFrame:
        """All values, one row each, in an order that does not depend on when they were written.

        A fragment that cannot be read is set aside, with a warning.
        """
        records = []
        for path in self.fragments.glob("*.json"):
            try:
                records.append(_completed(json.loads(path.read_bytes())))
            except UNREADABLE as error:
                set_aside(path, error)
        return _of_sweep(as_table(records), self.sweep_id)

    def readable(self) -> tuple[pd.DataFrame, list[str]]:
        """The values that can be read, and one line for each that cannot; writes nothing.

        A fragment may be cut off, or have the columns of another version. If it has the columns
        that identify a cell and its value, the other columns get the defaults "", 0 and NaN.

        `cells.parquet` is read instead if it is not older than the last fragment.
        """
        whole = self.directory / "cells.parquet"
        problems = []
        records: list[tuple[str, Any]] = []
        try:
            if whole.is_file() and _time(whole) >= _time(self.fragments):
                table = pd.read_parquet(whole)
                if list(table.columns) == list(_TYPES):
                    return _of_sweep(table, self.sweep_id), []
                records = [(whole.name, line) for line in table.to_dict("records")]
        except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
            problems.append(f"{whole.name}: {first_line(error)}")
        for path in [] if records else sorted(self.fragments.glob("*.json")):
            try:
                records.append((path.name, json.loads(path.read_bytes())))
            except UNREADABLE as error:
                problems.append(f"{path.name}: {first_line(error)}")
        completed = []
        for name, record in records:
            try:
                completed.append(_completed(record))
            except UNREADABLE as error:
                problems.append(f"{name}: {first_line(error)}")
        table = _of_sweep(as_table(completed), self.sweep_id)
        if len(table) < len(completed):
            more = len(completed) - len(table)
            problems.append(f"cells: {more} values of an earlier state of the job are left out")
        return table, list(dict.fromkeys(problems))

    def compact(self) -> pd.DataFrame:
        """Write `cells.parquet` from the fragments and return it."""
        table = self.table()
        buffer = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pandas(table, _SCHEMA, preserve_index=False), buffer)
        write_atomically(self.directory / "cells.parquet", buffer.getvalue().to_pybytes())
        return table


def _of_sweep(table: pd.DataFrame, sweep_id: str) -> pd.DataFrame:
    """The rows of a sweep, and those without a sweep_id."""
    own = table["sweep_id"].isin([sweep_id, ""]) if sweep_id else table["sweep_id"].notna()
    return table[own].reset_index(drop=True)


def fragment(row: Row) -> bytes:
    """The content of a row's file."""
    # JSON has no NaN
    record = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in vars(row).items()
    }
    # one line per column, without json's own indent: that has no fast encoder
    return json.dumps(record, ensure_ascii=False, separators=(",\n", ": ")).encode()


def row_of(record: Any) -> Row:
    """The row of a fragment."""
    if not isinstance(record, dict) or _TYPES.keys() - record.keys():
        raise ValueError("it has other columns")
    row = Row(**cast(dict[str, Any], _completed(record)))
    if row.info and not isinstance(json.loads(row.info), dict):
        raise ValueError("its info is no mapping")
    return row


def as_table(records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Records as a table with the columns of `Row`, typed and sorted."""
    rows = sorted(records, key=itemgetter(*_ORDER))
    # a column at a time: pandas takes three times as long to convert the columns of a table
    columns = {
        name: pd.Series([row[name] for row in rows], dtype="object" if kind is str else kind)
        for name, kind in _TYPES.items()
    }
    return pd.DataFrame(columns)


#: Columns without which a value cannot be read.
_NEEDED = ["cell_id", "dataset", "metric", "denoiser", "start", "sampler", "sampler_settings"]
_NEEDED += ["steps", "repetition", "n_samples", "value", "status"]


def _completed(record: Any) -> dict[str, object]:
    """A record with all columns of `Row`, each of its type."""
    if not isinstance(record, Mapping):
        raise TypeError("no record of a value")
    missing = [name for name in _NEEDED if name not in record]
    if missing:
        raise KeyError(f"no {', '.join(missing)}")
    completed: dict[str, object] = {}
    for name, kind in _TYPES.items():
        given = record.get(name)
        if given is None and name == "rounds":  # before this column every round was one evaluation
            given = record.get("nfe")
        if given is None:
            given = math.nan if kind is float else kind()
        if isinstance(given, str) is not (kind is str):
            raise TypeError(f"{name} is a {type(given).__name__}")
        completed[name] = kind(given)
        if isinstance(given, str):
            given.encode()  # raises for a text that could not be written
        elif kind is int and not -(2**63) <= given < 2**63:
            raise OverflowError(f"{name} is {given:.3g}")
    # only R̂ of a chain that does not move may be NaN
    ok = completed["status"] == "ok" and completed["reference"] != "chain"
    if ok and not math.isfinite(cast(float, completed["value"])):
        raise ValueError("it is ok, and its value is no number")
    return completed


def _time(path: Path) -> int:
    """The time of the last change of a file, or of a folder's entries; 0 if it does not exist."""
    return path.stat().st_mtime_ns if path.exists() else 0


def table_digest(table: pd.DataFrame) -> str:
    """A hash of the rows of a table in their order, without `CLOCKS`."""
    same = table.drop(columns=list(CLOCKS))
    rows = pd.util.hash_pandas_object(same, index=False).to_numpy()
    return sha256(rows.tobytes() + ",".join(same.columns).encode()).hexdigest()


def to_data(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the grid: distances to data or law, without those of an error budget."""
    limits = table["sampler"].str.endswith(LIMIT)
    return table[table["reference"].isin(["data", "law"]) & ~limits]
