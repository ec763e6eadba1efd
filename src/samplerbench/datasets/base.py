"""What a data set is: a law that can be drawn from, and, where it is known, its exact denoiser.

Draws for different purposes (training, validation, evaluation, floor, exact start) come from
different keys of `noise.generator` and so never overlap.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import prod

import numpy as np
from torch import Tensor

from samplerbench.core.line_laws import LineLaw
from samplerbench.core.models import Denoiser
from samplerbench.core.noise import generator
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.errors import require

#: Coordinates as large are refused, of data and of samples: their squares overflow in float32.
LARGEST = 1e15


class Dataset(ABC):
    """A law on R^dim. Members are frozen dataclasses in files of their own."""

    @property
    @abstractmethod
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one datum: (dim,), or (channels, height, width). States are flattened."""

    @property
    def dim(self) -> int:
        """The length of a flattened datum."""
        return prod(self.event_shape)

    @abstractmethod
    def sample(self, count: int, generator: np.random.Generator) -> Tensor:
        """Independent draws of the law, shape (count, dim), float64."""

    @property
    def can_be_drawn(self) -> bool:
        """Whether there are data at all: of a pretrained model's images there may be none."""
        return True

    @property
    def known_law(self) -> bool:
        """Whether the law is known, or only points of it: then the oracle knows those."""
        return True

    @property
    def uniform_dim(self) -> int | None:
        """How many uniform numbers make one datum in `from_uniforms`; None where nothing can."""
        return None

    def from_uniforms(self, u: Tensor) -> Tensor:
        """The law as a map of the unit cube: uniform u, shape (n, uniform_dim), to (n, dim).

        It makes stratified draws possible, see `starts.Sobol`. u lies strictly inside (0, 1).

        Raises:
            ValueError: the law has no such map.
        """
        raise ValueError(f"{type(self).__name__} cannot be drawn from given uniform numbers")

    def oracle(self, schedule: NoiseSchedule) -> Denoiser | None:
        """The exact denoiser on a path, or None where the law has no closed form."""
        return None

    def line_law(self) -> LineLaw | None:
        """The law behind data of one dimension, to measure samples against, or None.

        For a finite set of points that is the law they stand for, where it is known, and not their
        empirical law.
        """
        return None

    def noised(self, noise: float) -> Dataset | None:
        """The law of x₀ + noise·ε, or None where that is no data set of ours.

        What Langevin samplers that stay at a noise level have for their stationary law.
        """
        return None

    def floor_sets(self, count: int) -> int | None:
        """How many independent sets of so many floor draws there are; None for any number."""
        return None

    def draws(self, count: int, purpose: str, *key: int) -> Tensor:
        """The draws that belong to a purpose and its seeds, shape (count, dim), float64.

        Args:
            count: how many.
            purpose: "train", "validation", "evaluation", "floor": different words, different draws.
            key: seeds.
        """
        return self.sample(count, generator("data", purpose, *key))


def finite(points: Tensor, key: str) -> Tensor:
    """The points, if there are any and all of them are finite."""
    require(len(points) > 0, key, f"{len(points)} points", "a data set that is not empty")
    bad = int((~points.isfinite()).any(-1).sum())
    require(bad == 0, key, f"{bad} points with NaN or infinite entries", "finite everywhere")
    return points
