"""A user's own data: an array in a file, in the units of the file.

Arrays are `.npy`, `.npz` and torch's `.pt`; `array` chooses one of several in a file. Tables are
`.csv` (commas), `.tsv` (tabs), `.txt` (spaces, tabs or commas) and `.parquet`. In a table of text,
lines that begin with # are comments. Columns whose names end with __, the sampler's columns in
Stan, are left out. `columns` chooses columns instead: "x,y" are two columns, and "theta" includes
theta.1, theta.2, …

`.nc` is NetCDF as ArviZ writes it: Markov chains, all variables of the group "posterior". The
columns are the entries of each variable, theta.0, theta.1, …, as ArviZ counts them.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from samplerbench.datasets.base import LARGEST
from samplerbench.datasets.divided import Divided
from samplerbench.errors import InvalidSetting, first_line, require
from samplerbench.paths import existing_file


def from_file(
    path: str,
    train: float = 0.5,
    validation: float = 0.1,
    evaluation: float = 0.2,
    array: str | None = None,
    columns: str | None = None,
) -> Divided:
    """The data set in a file, one point per row, divided into four parts.

    The numbers are not standardised here; a learned denoiser does that. An array has the shape
    (n, dim), integer or floating; only tensors are unpickled. A table of text is UTF-8. Its first
    line is a header if none of its entries is a number, or if it is 0, 1, 2, …, as pandas writes
    columns without names. These are errors: only equal rows, numbers of 1e15 or more in size, and
    numbers like 1_000, which only Python accepts.

    Args:
        path: the path of the file, relative to the current directory; ~ is the home directory.
        train, validation, evaluation: shares of the parts, as in `Divided`.
        array: the name of an array, for a `.npz` or `.pt` file.
        columns: names separated by commas, for a table; see the module.

    Raises:
        InvalidSetting: the file is invalid; the message has the path and the fault.
    """
    points = read_points(path, array=array, columns=columns)
    require_upright(points, path)
    allowed = "a file of data: its rows are all equal"
    require(not bool((points == points[0]).all()), "path", path, allowed)
    return Divided(points, train, validation, evaluation)


def require_upright(data: Tensor, path: str) -> None:
    """Refuse data of a few points and many coordinates: they may be transposed."""
    rows, columns = data.shape
    allowed = f"an array with one point per row: it is {rows} × {columns}; save its transpose"
    require(rows >= min(10, columns), "path", path, allowed)


def read_points(path: str, *, array: str | None = None, columns: str | None = None) -> Tensor:
    """The points in a file, one per row, shape (n, dim), float64; see `from_file`."""
    values = _read(path, array, columns)
    return as_points(values.reshape(-1, values.shape[-1]) if names_axes(path) else values, path)


def names_axes(path: str) -> bool:
    """Whether the format says which axes are chains and draws, so that no layout is needed."""
    return Path(path).suffix.lower() == ".nc"


def read_chains(
    path: str, layout: str | None, *, array: str | None = None, columns: str | None = None
) -> Tensor:
    """Markov chains in a file, shape (draws, chains, dim), float64.

    Args:
        layout: as in `as_chains`; None for a file that names its axes.
        array: as in `read_points`.
        columns: as in `read_points`.
    """
    named = names_axes(path)
    require(layout is None or not named, "layout", layout, f"left out: {path} names its axes")
    return as_chains(_read(path, array, columns), layout or "chain,draw", path)


def read_frames(path: str, *, array: str | None = None) -> Tensor:
    """States on the way to samples, shape (frames, n, dim), as `sample --every` writes them."""
    values = _read(path, array, None)
    allowed = f"states of `sample --every`, shape (frames, n, dim), beside frame: {values.shape}"
    require(values.ndim == 3, "path", path, allowed)
    return as_points(values.reshape(-1, values.shape[-1]), path).reshape(values.shape)


#: The possible first axes of an array of chains.
LAYOUTS = ("draw", "chain,draw", "draw,chain")


def as_chains(values: np.ndarray, layout: str, name: str) -> Tensor:
    """Markov chains, shape (draws, chains, dim), float64.

    Args:
        layout: the meaning of the first axes, one of `LAYOUTS`. The last axis is the coordinates;
            data in one dimension may lack it.
        name: the name of the array, for messages.
    """
    require(layout in LAYOUTS, "layout", layout, f"one of {' or '.join(LAYOUTS)}")
    axes = layout.split(",")
    shape = f"shape ({', '.join([*axes, 'dim'])})"
    fits = values.ndim in (len(axes), len(axes) + 1)
    require(fits, "path", name, f"an array of {shape} for layout={layout}: it is {values.shape}")
    if values.ndim == len(axes):
        values = values[..., None]
    values = np.moveaxis(values, axes.index("draw"), 0)
    chains = values.reshape(len(values), -1, values.shape[-1])
    flat = as_points(chains.reshape(-1, chains.shape[-1]), name)
    return flat.reshape(chains.shape)


def as_points(array: np.ndarray, name: str) -> Tensor:
    """Points, one per row, shape (n, dim), float64."""
    fault = _fault(array)
    require(not fault, "path", name, f"a finite array of numbers of shape (n, dim), n ≥ 2: {fault}")
    return torch.from_numpy(array.astype(np.float64))


#: The suffixes of files for which `columns` can be given.
TABLES = (".csv", ".tsv", ".txt", ".parquet", ".nc")


def _read(path: str, array: str | None, columns: str | None) -> np.ndarray:
    readers: dict[str, Callable[[Path], np.ndarray]] = {
        ".npy": _read_npy,
        ".npz": partial(_read_npz, array=array),
        ".pt": partial(_read_pt, array=array),
        ".csv": partial(_read_text, columns=columns, split=_by_commas),
        ".tsv": partial(_read_text, columns=columns, split=partial(_by_commas, delimiter="\t")),
        ".txt": partial(_read_text, columns=columns, split=_by_spaces),
        ".parquet": partial(_read_parquet, columns=columns),
        ".nc": partial(_read_netcdf, columns=columns),
    }
    suffix = Path(path).suffix.lower()
    require(suffix in readers, "path", path, f"a file of {', '.join(readers)}")
    location = existing_file(path)
    of_arrays = suffix in (".npz", ".pt")
    require(array is None or of_arrays, "array", array, "left out: it is for .npz and .pt")
    require(columns is None or suffix in TABLES, "columns", columns, "left out: it is for tables")
    try:
        return readers[suffix](location)
    except InvalidSetting:
        raise
    except _READING as error:
        raise InvalidSetting("path", path, f"{_CONTENT[suffix]}: {first_line(error)}") from error


_READING = (ValueError, EOFError, OSError, MemoryError, RuntimeError, csv.Error, BadZipFile)
_CONTENT = {
    ".npy": "an array saved by numpy.save, without objects",
    ".npz": "arrays saved by numpy.savez, without objects",
    ".pt": "a tensor, or tensors by name, saved by torch.save",
    ".csv": "a table of numbers with commas",
    ".tsv": "a table of numbers with tabs",
    ".txt": "a table of numbers with spaces, tabs or commas",
    ".parquet": "a table of numbers",
    ".nc": "NetCDF with a group posterior, as ArviZ writes it",
}


def _read_npy(path: Path) -> np.ndarray:
    with path.open("rb") as stream:  # numpy.load would also open archives and pickles
        return np.lib.format.read_array(stream, allow_pickle=False)


def _one_of(names: list[str], array: str | None, path: Path) -> str:
    """The name of the chosen array, or of the only one."""
    known = array in names or (array is None and len(names) == 1)
    allowed = f"one of those in {path}: {', '.join(names)}"
    require(known, "array", array or "", allowed if array else f"given, {allowed}")
    return array or names[0]


def _read_npz(path: Path, array: str | None) -> np.ndarray:
    with ZipFile(path) as archive:  # numpy.load would also open other formats
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        with archive.open(f"{_one_of(names, array, path)}.npy") as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)


def _read_pt(path: Path, array: str | None) -> np.ndarray:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a broken file may raise anything, and torch advises to trust it
        raise InvalidSetting("path", str(path), _CONTENT[".pt"]) from error
    if isinstance(content, dict):
        names = [str(name) for name, value in content.items() if isinstance(value, Tensor)]
        content = content[_one_of(names, array, path)]
    elif array is not None:
        raise InvalidSetting("array", array, f"left out: {path} contains one tensor")
    if not isinstance(content, Tensor):
        raise ValueError(f"it contains a {type(content).__name__}")
    exact = content.detach()
    # numpy has no bfloat16
    values: np.ndarray = (exact.double() if exact.is_floating_point() else exact).numpy()
    return values


def _read_parquet(path: Path, columns: str | None) -> np.ndarray:
    table = pd.read_parquet(path)
    names = [str(name) for name in table]
    for place in (places := _chosen(names, columns)):
        if table.dtypes.iloc[place].kind not in "iuf":
            of_type = f"not numbers but {table.dtypes.iloc[place]}"
            raise ValueError(f"it has {of_type}{_in_column(names, place)}")
    values: np.ndarray = table.iloc[:, places].to_numpy()
    return values


def _read_netcdf(path: Path, columns: str | None) -> np.ndarray:
    allowed = "of another format, or pip install 'samplerbench[chains]'"
    require(find_spec("xarray") is not None, "path", path, allowed)
    import xarray  # slow to import, and rarely needed

    names: list[str] = []
    values: list[np.ndarray] = []
    with xarray.open_dataset(path, group="posterior") as posterior:
        for name, variable in posterior.data_vars.items():
            chains = {"chain", "draw"} <= {*variable.dims}
            require(chains, f"{path}: {name}", variable.dims, "of the axes chain, draw, …")
            entries = variable.transpose("chain", "draw", ...).to_numpy()
            names += [".".join(map(str, (name, *k))) for k in np.ndindex(entries.shape[2:])]
            values.append(entries.reshape(*entries.shape[:2], -1))
    if not values:
        raise ValueError("its group posterior has no variables")
    return np.concatenate(values, axis=-1)[..., _chosen(names, columns)]


def _by_commas(lines: Iterable[str], delimiter: str = ",") -> list[list[str]]:
    return [row for row in csv.reader(lines, delimiter=delimiter) if row]


def _by_spaces(lines: Iterable[str]) -> list[list[str]]:
    return [row for line in lines if (row := line.replace(",", " ").split())]


def _read_text(
    path: Path, columns: str | None, split: Callable[[Iterable[str]], list[list[str]]]
) -> np.ndarray:
    # utf-8-sig removes the byte order mark of spreadsheets
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = split(line for line in stream if not line.startswith("#"))
    if not rows:
        raise ValueError("it is empty")
    names = rows[0]
    indexed = names[0] == "" and len(rows) > 1 and rows[1][0] != ""
    if indexed and columns is None:
        raise ValueError("a column has no name: an index? (pandas: index=False)")
    numbered = len(names) > 1 and names == [str(k) for k in range(len(names))]
    header = indexed or numbered or not any(_is_number(entry) for entry in names)
    if columns is not None and not header:
        raise ValueError("it has no header with names for columns=")
    rows = rows[1:] if header else rows
    if not rows:
        raise ValueError("there are no rows below the header")
    places = _chosen(names, columns) if header else range(len(names))
    for number, row in enumerate(rows, start=2 if header else 1):
        if len(row) != len(rows[0]):
            raise ValueError(f"row {number} has {len(row)} entries, not {len(rows[0])}")
        for place in places:
            # only Python reads 1_000 as a number
            if not _is_number(row[place]) or "_" in row[place]:
                fault = f"row {number} has the entry {row[place]!r}"
                if ";" in row[place]:
                    raise ValueError(f"{fault}; separate by commas")
                raise ValueError(fault + _in_column(names, place) * header)
    return np.array([[row[place] for place in places] for row in rows], dtype=np.float64)


def _in_column(names: list[str], place: int) -> str:
    """Which column has an entry that is no number, and how to leave it out."""
    others = [name for name in names if name != names[place] and not name.endswith("__")]
    hint = f"; columns={','.join(others[:3])}{',…' * (len(others) > 3)} leaves it out"
    return f" in column {names[place]}{hint * bool(others)}"


def _chosen(names: list[str], columns: str | None) -> list[int]:
    """The chosen columns; by default all except those of Stan's sampler."""
    if columns is None:
        return [place for place, name in enumerate(names) if not name.endswith("__")]
    found: list[int] = []
    for column in columns.split(","):
        own = [k for k, name in enumerate(names) if name == column or name.startswith(f"{column}.")]
        require(len(own) > 0, "columns", column, f"some of {', '.join(names)}")
        found += own
    return found


def _is_number(entry: str) -> bool:
    try:
        float(entry)
    except ValueError:
        return False
    return True


def _fault(array: np.ndarray) -> str:
    """Why an array is not valid data; empty if it is."""
    if array.dtype.kind not in "iuf":
        return f"its numbers are of the type {array.dtype}"
    if array.ndim != 2:
        more = ", for one coordinate (n, 1)" if array.ndim == 1 else ""
        if array.ndim == 3:
            more = "; for samplerbench score, layout=chain,draw or layout=draw,chain says that"
            more += " these are chains, and frame=last or frame=all that sample --every wrote them"
        return f"its shape is {array.shape}{more}"
    if array.shape[1] == 0 or array.shape[0] < 2:
        return f"its shape is {array.shape}"
    finite = np.isfinite(array.astype(np.float64)).all(1)
    bad = int((~finite).sum())
    if bad:
        first = f"the first of them row {finite.argmin()}" if bad > 1 else f"row {finite.argmin()}"
        return f"{bad} row{'s have' if bad > 1 else ' has'} NaN or infinite entries, {first}"
    large = (np.abs(array.astype(np.float64)) >= LARGEST).any(1)
    if large.any():
        return f"row {large.argmax()} has an entry of {LARGEST:g} or more in size"
    return ""
