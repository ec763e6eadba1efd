"""Data that are not here: of a pretrained model's images nothing is known but their shape."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from samplerbench.datasets.base import Dataset
from samplerbench.errors import InvalidSetting


@dataclass(frozen=True)
class Unseen(Dataset):
    """A law without draws: to look at a model's samples, and to compare them with nothing.

    What is asked for in passing, x₀ of a start that does not use it, is NaN.

    Args:
        shape: of an image: (channels, height, width).
    """

    shape: tuple[int, ...]

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.shape

    @property
    def can_be_drawn(self) -> bool:
        return False

    @property
    def known_law(self) -> bool:
        return False

    def sample(self, count: int, generator: np.random.Generator) -> Tensor:
        """NaN, shape (count, dim), of no memory."""
        return torch.full((1, 1), torch.nan, dtype=torch.float64).expand(count, self.dim)

    def floor_sets(self, count: int) -> int:
        return 0

    def draws(self, count: int, purpose: str, *key: int) -> Tensor:
        """NaN for a picture, which shows nothing where the data would be.

        Raises:
            InvalidSetting: they are wanted for anything else.
        """
        if purpose == "picture":
            return super().draws(count, purpose, *key)
        only = "without data there are pictures only, metric=[] picture=image_panel start=prior"
        raise InvalidSetting("dataset", "null", f"given for {purpose}: {only}")
