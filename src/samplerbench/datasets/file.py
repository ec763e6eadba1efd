"""A user's own data: an array in a `.npy`, `.npz` or `.csv` file, in the file's own units.

A `.npz` file holds one array, or `array` says which. Of a `.csv` file, lines that begin with # are
comments, and columns whose names end with __ are left out, as Stan writes them; `columns` chooses
others: "x,y" are these two, and theta is also theta.1, theta.2, …
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch
from torch import Tensor

from samplerbench.datasets.base import LARGEST
from samplerbench.datasets.divided import Divided
from samplerbench.errors import InvalidSetting, first_line, require


def from_file(
    path: str,
    train: float = 0.5,
    validation: float = 0.1,
    evaluation: float = 0.2,
    array: str | None = None,
    columns: str | None = None,
) -> Divided:
    """The data set in a `.npy`, `.npz` or `.csv` file, a point a row, divided into four parts.

    The numbers are not standardised here; a learned denoiser does that. A `.npy` file holds an
    array of shape (n, dim), integer or floating; nothing is ever unpickled. A `.csv` file is UTF-8
    with commas between the columns. Its first line is a header if none of its entries is a number
    (so a header of column *numbers* would be read as data). Files whose rows are all equal, numbers
    of 1e15 or more in size, and 1_000, which only Python reads, are errors.

    Args:
        path: of the file, relative to the current directory; ~ is the home directory.
        train: share of the rows to train on.
        validation: share of the rows.
        evaluation: share of the rows; the floor's part is the rest.
        array: of a `.npz` file: the name of one of its arrays.
        columns: of a `.csv` file: names with commas between them; see the module.

    Raises:
        InvalidSetting: with the path and the fault of the file.
    """
    points = read_points(path, array=array, columns=columns)
    allowed = "a file of data: its rows are all equal"
    require(not bool((points == points[0]).all()), "path", path, allowed)
    return Divided(points, train, validation, evaluation)


def read_points(path: str, *, array: str | None = None, columns: str | None = None) -> Tensor:
    """The points in a file, one a row, shape (n, dim), float64; see `from_file`.

    Args:
        path: of the file.
        array: of a `.npz` file: the name of one of its arrays.
        columns: of a `.csv` file: names with commas between them.

    Raises:
        InvalidSetting: with the path and the fault of the file.
    """
    return _checked(_read(path, array, columns), path)


def read_chains(
    path: str, layout: str, *, array: str | None = None, columns: str | None = None
) -> Tensor:
    """Markov chains in a file, shape (draws, chains, dim), float64.

    Args:
        path: of the file.
        layout: what the first axes of its array are, one of `LAYOUTS`; the last axis is the
            coordinates, and is left out of data in one dimension.
        array: as in `read_points`.
        columns: as in `read_points`.

    Raises:
        InvalidSetting: with the path and the fault of the file.
    """
    require(layout in LAYOUTS, "layout", layout, f"one of {' or '.join(LAYOUTS)}")
    values, axes = _read(path, array, columns), layout.split(",")
    shape = f"shape ({', '.join([*axes, 'dim'])})"
    fits = values.ndim in (len(axes), len(axes) + 1)
    require(fits, "path", path, f"an array of {shape} for layout={layout}: it is {values.shape}")
    if values.ndim == len(axes):
        values = values[..., None]
    values = np.moveaxis(values, axes.index("draw"), 0)
    chains = values.reshape(len(values), -1, values.shape[-1])
    flat = _checked(chains.reshape(-1, chains.shape[-1]), path)
    return flat.reshape(chains.shape)


#: What the first axes of an array of chains may be.
LAYOUTS = ("draw", "chain,draw", "draw,chain")


def _read(path: str, array: str | None, columns: str | None) -> np.ndarray:
    readers: dict[str, Callable[[Path], np.ndarray]] = {
        ".npy": _read_npy,
        ".npz": partial(_read_npz, array=array),
        ".csv": partial(_read_csv, columns=columns),
    }
    location = Path(path).expanduser()
    suffix = location.suffix.lower()
    require(suffix in readers, "path", path, "a .npy, a .npz or a .csv file")
    require(location.is_file(), "path", path, "a file that exists")
    require(array is None or suffix == ".npz", "array", array, "left out: it is for .npz files")
    require(columns is None or suffix == ".csv", "columns", columns, "left out: it is for .csv")
    try:
        return readers[suffix](location)
    except InvalidSetting:
        raise
    except (ValueError, EOFError, OSError, MemoryError, csv.Error, BadZipFile) as error:
        raise InvalidSetting("path", path, f"{_CONTENT[suffix]}: {first_line(error)}") from error


def _checked(array: np.ndarray, path: str) -> Tensor:
    fault = _fault(array)
    require(not fault, "path", path, f"a finite array of numbers of shape (n, dim), n ≥ 2: {fault}")
    return torch.from_numpy(array.astype(np.float64))


_CONTENT = {
    ".npy": "an array saved by numpy.save, without objects",
    ".npz": "arrays saved by numpy.savez, without objects",
    ".csv": "a table of numbers with commas",
}


def _read_npy(path: Path) -> np.ndarray:
    with path.open("rb") as stream:  # numpy.load would also open archives and pickles
        return np.lib.format.read_array(stream, allow_pickle=False)


def _read_npz(path: Path, array: str | None) -> np.ndarray:
    with ZipFile(path) as archive:  # whatever else numpy.load would open
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        if array is None and len(names) != 1:
            raise InvalidSetting("array", None, f"one of those in {path}: {', '.join(names)}")
        known = array is None or array in names
        require(known, "array", array, f"one of those in {path}: {', '.join(names)}")
        with archive.open(f"{array or names[0]}.npy") as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)


def _read_csv(path: Path, columns: str | None) -> np.ndarray:
    # utf-8-sig removes the byte order mark of spreadsheets
    with path.open(encoding="utf-8-sig", newline="") as stream:
        lines = (line for line in stream if not line.startswith("#"))
        rows = [row for row in csv.reader(lines) if row]
    if not rows:
        raise ValueError("it is empty")
    header = not any(_is_number(entry) for entry in rows[0])
    if header and "" in rows[0]:
        raise ValueError("a column has no name: an index? (pandas: index=False)")
    names = rows[0]
    if columns is not None and not header:
        raise ValueError("it has no header, and columns= asks for names")
    rows = rows[1:] if header else rows
    if not rows:
        raise ValueError("there are no rows below the header")
    for number, row in enumerate(rows, start=2 if header else 1):
        if len(row) != len(rows[0]):
            raise ValueError(f"row {number} has {len(row)} entries and not {len(rows[0])}")
        for entry in row:
            # Python reads 1_000 as a number, and no other program does
            if not _is_number(entry) or "_" in entry:
                hint = "; separate by commas" if ";" in entry else ""
                raise ValueError(f"row {number} has the entry {entry!r}{hint}")
    values = np.array(rows, dtype=np.float64)
    return values[:, _chosen(names, columns)] if header else values


def _chosen(names: list[str], columns: str | None) -> list[int]:
    """The columns that are asked for; without, all but those of Stan's sampler."""
    if columns is None:
        return [place for place, name in enumerate(names) if not name.endswith("__")]
    found: list[int] = []
    for asked in columns.split(","):
        own = [k for k, name in enumerate(names) if name == asked or name.startswith(f"{asked}.")]
        require(len(own) > 0, "columns", asked, f"some of {', '.join(names)}")
        found += own
    return found


def _is_number(entry: str) -> bool:
    try:
        float(entry)
    except ValueError:
        return False
    return True


def _fault(array: np.ndarray) -> str:
    """Why an array cannot be data; empty if it can."""
    if array.dtype.kind not in "iuf":
        return f"its numbers are of the type {array.dtype}"
    if array.ndim != 2:
        more = ", for one coordinate (n, 1)" if array.ndim == 1 else ""
        if array.ndim == 3:
            more = "; of chains, say layout=chain,draw or layout=draw,chain to samplerbench score"
        return f"its shape is {array.shape}{more}"
    if array.shape[1] == 0 or array.shape[0] < 2:
        return f"its shape is {array.shape}"
    finite = np.isfinite(array.astype(np.float64)).all(1)
    bad = int((~finite).sum())
    if bad:
        return f"{bad} rows have NaN or infinite entries, the first of them row {finite.argmin()}"
    large = (np.abs(array.astype(np.float64)) >= LARGEST).any(1)
    if large.any():
        return f"row {large.argmax()} has an entry of {LARGEST:g} or more in size"
    return ""
