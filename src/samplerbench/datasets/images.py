"""Image data sets: finite sets of images, as points between −1 and 1.

An image of integers v = 0, …, largest becomes x = 2·v/largest − 1, flattened from (channels,
height, width). The set is divided into four parts that share no row, see `divided`. Of equal images
only the first is kept; otherwise the same image could be in two parts.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from samplerbench.datasets.divided import Divided


def divided_images(
    values: NDArray[np.generic],
    largest: float,
    train: float = 0.5,
    validation: float = 0.1,
    evaluation: float = 0.2,
) -> Divided:
    """The data set of the given images, without repetitions.

    Args:
        values: shape (n, channels, height, width), from 0 to largest.
        largest: the value of white.
        train, validation, evaluation: shares of the parts, as in `Divided`.
    """
    _, first = np.unique(values.reshape(len(values), -1), axis=0, return_index=True)
    kept = values[np.sort(first)].astype(np.float64)
    return Divided(torch.from_numpy(2 * kept / largest - 1), train, validation, evaluation)
