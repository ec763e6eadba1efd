"""A finite data set in four parts that share no row: train, validation, evaluation and floor.

The rows are shuffled once, in an order that depends only on n, and cut into four parts:

    part         use                                             share (default)
    train        training; the exact start; the oracle           0.5
    validation   the validation loss                             0.1
    evaluation   the points that samples are compared with       0.2
    floor        the "fresh draws" of the floor                  the rest

The cut does not depend on a seed. Otherwise the training points of one seed could be the evaluation
points of another. The seed determines *which* rows of a part are drawn, if not all are drawn. Rows
are drawn without replacement, because repeated rows would make a floor too low; too many draws are
an error. Equal rows may end up in different parts: remove duplicates first.

Two draws of n rows from a part of m rows share about n²/m rows. So the spread between the sets of a
floor is too small by the factor √(1 − n/m), which is 0 for n = m: keep n_samples well below the
size of the floor's part.

`sample` and `oracle` use the empirical law of the training part (see `empirical`): the oracle acts
like a perfectly trained network, which memorises. The other parts are draws of the unknown law, so
distances to them contain the generalisation gap.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from samplerbench.core.models import Denoiser
from samplerbench.core.noise import generator as keyed
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.datasets.base import Dataset
from samplerbench.datasets.empirical import Empirical, digest
from samplerbench.errors import require

PARTS = ("train", "validation", "evaluation", "floor")
#: The setting with the number of rows that are drawn from a part.
KEYS = {
    "train": "n_train",
    "validation": "n_validation",
    "evaluation": "n_reference",
    "floor": "n_samples",
}


@dataclass(frozen=True)
class Divided(Dataset):
    """A finite data set in four parts that share no row.

    Draws for other purposes, such as a start, are rows of the training part, with replacement.

    Args:
        rows: at least 2 finite points, shape (n, *event_shape); they are kept flattened.
        train: share of the rows.
        validation: share of the rows.
        evaluation: share of the rows; the floor's part is the rest.
        digest: represents the points in an identity; computed here.
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
        allowed = f"such that train + validation + evaluation is at most 1, not {total:.6g}"
        require(total <= 1 + 1e-9, "evaluation", self.evaluation, allowed)
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
        parts: dict[str, Tensor] = self.__dict__["_parts"]  # not a field, see `Empirical`
        return parts[purpose]

    @cached_property
    def law(self) -> Empirical:
        """The empirical law of the training part."""
        return Empirical(self.part("train"))

    @property
    def known_law(self) -> bool:
        return False

    @property
    def event_shape(self) -> tuple[int, ...]:
        shape: tuple[int, ...] = self.__dict__["_event_shape"]  # the digest includes it
        return shape

    def sample(self, count: int, generator: np.random.Generator) -> Tensor:
        """Rows of the training part, with replacement, shape (count, dim), float64."""
        return self.law.sample(count, generator)

    def known_points(self) -> Tensor:
        """All rows, of all parts."""
        return torch.cat([self.part(purpose) for purpose in PARTS])

    def oracle(self, schedule: NoiseSchedule) -> Denoiser:
        """The ideal denoiser of the training part."""
        return self.law.oracle(schedule)

    def most_draws(self, purpose: str) -> int | None:
        """The number of rows of the purpose's part."""
        return len(self.part(purpose)) if purpose in PARTS else None

    def floor_sets(self, count: int) -> int:
        """The number of sets that fit into the floor's part without sharing a row."""
        return len(self.part("floor")) // count

    def draws(self, count: int, purpose: str, *key: int) -> Tensor:
        """Rows of the purpose's part, without replacement, shape (count, dim), float64.

        The floor's key is (seed, repetition). The sets of different repetitions share no row:
        overlapping sets would vary too little, by the factor √(1 − count/m).

        Raises:
            InvalidSetting: the part has fewer rows; the error names the setting with their number.
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
