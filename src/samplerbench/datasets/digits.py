"""Handwritten digits: the 1 797 distinct grey images of 8 × 8 in scikit-learn.

They are the test set of E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI
Machine Learning Repository 1998: a pixel is the number of black points in a block of 4 × 4 of a
bitmap of 32 × 32, a whole number between 0 and 16. 13 people wrote them.
"""

from __future__ import annotations

from samplerbench.datasets.divided import Divided
from samplerbench.datasets.images import divided_images
from samplerbench.errors import needs


def digits(train: float = 0.5, validation: float = 0.1, evaluation: float = 0.2) -> Divided:
    """The digits between −1 (paper) and 1 (ink), event shape (1, 8, 8); shares as in `Divided`."""
    with needs("scikit-learn", "images"):
        from sklearn.datasets import load_digits  # slow to import
    return divided_images(load_digits().images[:, None], 16.0, train, validation, evaluation)
