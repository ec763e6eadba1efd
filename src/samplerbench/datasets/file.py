"""A user's own data: an array of n points in a `.npy` or a `.csv` file, in the file's own units."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from samplerbench.datasets.base import LARGEST
from samplerbench.datasets.divided import Divided
from samplerbench.errors import InvalidSetting, first_line, require


def from_file(
    path: str, train: float = 0.5, validation: float = 0.1, evaluation: float = 0.2
) -> Divided:
    """The data set in a `.npy` or `.csv` file, one point a row, divided into four parts.

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

    Raises:
        InvalidSetting: with the path and the fault of the file.
    """
    points = read_points(path)
    allowed = "a file of data: its rows are all equal"
    require(not bool((points == points[0]).all()), "path", path, allowed)
    return Divided(points, train, validation, evaluation)


def read_points(path: str) -> Tensor:
    """The points in a `.npy` or `.csv` file, one a row, shape (n, dim), float64; see `from_file`.

    Raises:
        InvalidSetting: with the path and the fault of the file.
    """
    readers = {".npy": _read_npy, ".csv": _read_csv}
    location = Path(path).expanduser()
    suffix = location.suffix.lower()
    require(suffix in readers, "path", path, "a .npy or a .csv file")
    require(location.is_file(), "path", path, "a file that exists")
    try:
        array = readers[suffix](location)
    except (ValueError, EOFError, OSError, MemoryError, csv.Error) as error:
        raise InvalidSetting("path", path, f"{_CONTENT[suffix]}: {first_line(error)}") from error
    fault = _fault(array)
    require(not fault, "path", path, f"a finite array of numbers of shape (n, dim), n ≥ 2: {fault}")
    return torch.from_numpy(array.astype(np.float64))


_CONTENT = {
    ".npy": "an array saved by numpy.save, without objects",
    ".csv": "a table of numbers with commas",
}


def _read_npy(path: Path) -> np.ndarray:
    with path.open("rb") as stream:  # numpy.load would also open archives and pickles
        return np.lib.format.read_array(stream, allow_pickle=False)


def _read_csv(path: Path) -> np.ndarray:
    # utf-8-sig removes the byte order mark of spreadsheets
    with path.open(encoding="utf-8-sig", newline="") as lines:
        rows = [row for row in csv.reader(lines) if row]
    if not rows:
        raise ValueError("it is empty")
    header = not any(_is_number(entry) for entry in rows[0])
    if header and "" in rows[0]:
        raise ValueError("a column has no name: an index? (pandas: index=False)")
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
    return np.array(rows, dtype=np.float64)


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
