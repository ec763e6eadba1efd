"""A user's own data: an array of n points from a `.npy` or a `.csv` file, in the file's own units.

What is known of a law from n points is the points. The rows are shuffled once, in an order that
depends on nothing but n, and cut into four parts that share no row:

    part         for                                             share (default)
    train        training; the exact start; the oracle           0.5
    validation   the validation loss                             0.1
    evaluation   the points that samples are compared with       0.2
    floor        the "fresh draws" of the floor                  the rest

The cut does not depend on a seed, or a training with one seed could have seen the evaluation points
of another. The seed decides *which* rows of a part are drawn where fewer are asked for than it has,
always without replacement. Asking for more is refused: a row counted twice would make a floor too
low. Rows that are equal in the file may end in different parts: remove duplicates first.

Two draws of n rows from a part of m share about n²/m of them. So the spread between the sets of a
floor is too small by √(1 − n/m), and 0 where n = m: keep n_samples well below the floor's part.

The law, as far as `sample` and `oracle` know one, is the empirical law of the training part (see
`empirical`): the oracle is what a perfectly trained network would be, and memorises. Held-out parts
are draws of the law behind the file, so that distances to them contain the generalisation gap.
"""

from __future__ import annotations

import csv
from dataclasses import InitVar, dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from samplerbench.core.models import Denoiser
from samplerbench.core.noise import generator as keyed
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.datasets.base import LARGEST, Dataset
from samplerbench.datasets.empirical import Empirical, digest
from samplerbench.errors import InvalidSetting, first_line, require

PARTS = ("train", "validation", "evaluation", "floor")
# the setting that asks for draws of a part
KEYS = {
    "train": "n_train",
    "validation": "n_validation",
    "evaluation": "n_reference",
    "floor": "n_samples",
}


@dataclass(frozen=True)
class Divided(Dataset):
    """A finite data set in four parts that share no row: train, validation, evaluation and floor.

    A purpose that is none of the four, such as a start, draws from the law: with replacement from
    the training part.

    Args:
        rows: the points, shape (n, *event_shape), finite, at least 2; they are kept flattened.
        train: share of the rows.
        validation: share of the rows.
        evaluation: share of the rows; what the three leave is the floor's.
        digest: stands for the points in an identity; computed here.
    """

    rows: InitVar[Tensor]
    train: float = 0.5
    validation: float = 0.1
    evaluation: float = 0.2
    digest: str = field(init=False)

    def __post_init__(self, rows: Tensor) -> None:
        for name in PARTS[:3]:
            share = getattr(self, name)
            require(0 <= share <= 1, name, share, "a share between 0 and 1")
        total = self.train + self.validation + self.evaluation
        left = f"such that train + validation + evaluation is at most 1, not {total:.6g}"
        require(total <= 1 + 1e-9, "evaluation", self.evaluation, left)
        points = Empirical(rows.flatten(1) if rows.ndim > 1 else rows).points
        count = len(points)
        require(count >= 2, "rows", f"{count} point", "at least 2")
        least = f"at least {0.5 / count:.2g}, so that one of the {count} rows is for training"
        require(round(self.train * count) >= 1, "train", self.train, least)
        order = torch.from_numpy(keyed("data", "split").permutation(count))
        shares = np.cumsum([self.train, self.validation, self.evaluation])
        cuts = np.minimum(np.rint(shares * count).astype(int), count)
        parts = dict(zip(PARTS, points[order].tensor_split(torch.from_numpy(cuts)), strict=True))
        object.__setattr__(self, "_parts", parts)
        object.__setattr__(self, "_event_shape", tuple(rows.shape[1:]))
        object.__setattr__(self, "digest", digest(points.reshape(rows.shape)))

    def part(self, purpose: str) -> Tensor:
        """All the rows that belong to one of the four purposes, shape (m, dim), float64."""
        parts: dict[str, Tensor] = self.__dict__["_parts"]  # no field: see `Empirical`
        return parts[purpose]

    @cached_property
    def law(self) -> Empirical:
        """The empirical law of the training part; its points are hashed when it is made."""
        return Empirical(self.part("train"))

    @property
    def known_law(self) -> bool:
        return False

    @property
    def event_shape(self) -> tuple[int, ...]:
        shape: tuple[int, ...] = self.__dict__["_event_shape"]  # the digest has it too
        return shape

    def sample(self, count: int, generator: np.random.Generator) -> Tensor:
        """Rows of the training part, with replacement, shape (count, dim), float64."""
        return self.law.sample(count, generator)

    def oracle(self, schedule: NoiseSchedule) -> Denoiser:
        """The ideal denoiser of the training part."""
        return self.law.oracle(schedule)

    def floor_sets(self, count: int) -> int:
        """As many as fit into the floor's part without sharing a row."""
        return len(self.part("floor")) // count

    def draws(self, count: int, purpose: str, *key: int) -> Tensor:
        """Rows of the purpose's part, without replacement, shape (count, dim), float64.

        The floor's key is (seed, repetition): the sets of different repetitions share no row, since
        overlapping ones would vary too little, by √(1 − count/m).

        Raises:
            InvalidSetting: naming the key that asked for more rows than there are.
        """
        if purpose not in PARTS:
            return super().draws(count, purpose, *key)
        part = self.part(purpose)
        total = sum(len(self.part(name)) for name in PARTS)
        allowed = f"at most {len(part)}: the {purpose} part of the data set's {total} rows"
        require(count <= len(part), KEYS[purpose], count, allowed)
        first = 0
        if purpose == "floor" and len(key) > 1:
            key, repetition = key[:-1], key[-1]
            first = repetition * count
            sets = f"at most {self.floor_sets(count)} sets of {count} rows of {len(part)}"
            require(first + count <= len(part), "floor_repetitions", repetition + 1, sets)
        order = keyed("data", purpose, *key).permutation(len(part))
        chosen = order[first : first + count]
        return part[torch.from_numpy(chosen)]


def from_file(
    path: str, train: float = 0.5, validation: float = 0.1, evaluation: float = 0.2
) -> Divided:
    """The data set in a `.npy` or `.csv` file, one point a row, divided into four parts.

    Numbers are kept as they are: a learned denoiser standardises on its own. A `.npy` file holds an
    array of shape (n, dim), integer or floating; nothing is ever unpickled. A `.csv` file is UTF-8
    and has commas between its columns; its first line is a header where none of its entries is a
    number (column *numbers* as a header would be read as data). Refused are equal rows only,
    numbers of 1e15 or more in size, and 1_000, which only Python reads.

    Args:
        path: of the file, from the directory the program was started in; ~ is the home directory.
        train: share of the rows to train on.
        validation: share of the rows.
        evaluation: share of the rows; what the three leave is the floor's.

    Raises:
        InvalidSetting: naming the path and what is wrong with the file.
    """
    points = read_points(path)
    allowed = "a file of data: its rows are all equal"
    require(not bool((points == points[0]).all()), "path", path, allowed)
    return Divided(points, train, validation, evaluation)


def read_points(path: str) -> Tensor:
    """The points in a `.npy` or `.csv` file, one a row, shape (n, dim), float64; see `from_file`.

    Raises:
        InvalidSetting: naming the path and what is wrong with the file.
    """
    readers = {".npy": _read_npy, ".csv": _read_csv}
    location = Path(path).expanduser()
    suffix = location.suffix.lower()
    require(suffix in readers, "path", path, "a .npy or a .csv file")
    require(location.is_file(), "path", path, "a file that exists")
    try:
        array = readers[suffix](location)
    except (ValueError, EOFError, OSError, MemoryError, csv.Error) as error:
        raise InvalidSetting("path", path, f"{_WHAT[suffix]}: {first_line(error)}") from error
    wrong = _what_is_wrong(array)
    require(not wrong, "path", path, f"a finite array of numbers of shape (n, dim), n ≥ 2: {wrong}")
    return torch.from_numpy(array.astype(np.float64))


_WHAT = {
    ".npy": "an array saved by numpy.save, without objects",
    ".csv": "a table of numbers with commas",
}


def _read_npy(path: Path) -> np.ndarray:
    with path.open("rb") as stream:  # numpy.load would open archives and look for pickles too
        return np.lib.format.read_array(stream, allow_pickle=False)


def _read_csv(path: Path) -> np.ndarray:
    # utf-8-sig drops the mark that spreadsheets put in front
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


def _what_is_wrong(array: np.ndarray) -> str:
    """What makes an array unfit for data, or nothing."""
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
