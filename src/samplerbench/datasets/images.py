"""Image data sets: finite sets of pictures, as points between −1 and 1.

An image of integers 0, …, largest becomes x = 2·v/largest − 1, flattened from (channels, height,
width). Its set is divided once into four parts that share no row, as a user's file is, see `file`;
of equal images only the first is kept, or one could be trained on and held out. So distances to
held-out images contain the generalisation gap, and the oracle is the ideal denoiser of the training
part: what a network would be that had learned its images by heart.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from samplerbench.datasets.file import Divided


def divided(
    values: NDArray[np.generic],
    largest: float,
    train: float = 0.5,
    validation: float = 0.1,
    evaluation: float = 0.2,
) -> Divided:
    """The data set of images in the four parts of `Divided`, without repetitions.

    Args:
        values: shape (n, channels, height, width), from 0 to largest.
        largest: white.
        train: share of the images.
        validation: share of the images.
        evaluation: share of the images; what the three leave is the floor's.
    """
    _, first = np.unique(values.reshape(len(values), -1), axis=0, return_index=True)
    kept = values[np.sort(first)].astype(np.float64)
    return Divided(torch.from_numpy(2 * kept / largest - 1), train, validation, evaluation)
