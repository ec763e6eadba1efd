"""No data: only the shape of a pretrained model's images is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from samplerbench.datasets.base import Dataset
from samplerbench.errors import InvalidSetting


@dataclass(frozen=True)
class Unseen(Dataset):
    """A law without draws, for jobs that only show a model's samples.

    Draws are NaN. They are never used: a start from the prior, for example, ignores x₀.

    Args:
        shape: the shape of an image: (channels, height, width).
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
        """NaN, shape (count, dim), as a view of one number."""
        return torch.full((1, 1), torch.nan, dtype=torch.float64).expand(count, self.dim)

    def floor_sets(self, count: int) -> int:
        return 0

    def draws(self, count: int, purpose: str, *key: int) -> Tensor:
        """NaN for a picture, which then shows no data; an error for other purposes."""
        if purpose == "picture":
            return super().draws(count, purpose, *key)
        only = "without data there are pictures only, metric=[] picture=image_panel start=prior"
        raise InvalidSetting("dataset", "null", f"given for {purpose}: {only}")
