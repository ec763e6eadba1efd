"""Two trees of thin Gaussians: a law with fine detail, and with two classes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from samplerbench.datasets.gaussian_mixture import GaussianMixture
from samplerbench.errors import require

Array = NDArray[np.float64]

ORIGIN = np.array([0.0030, 0.0325])
#: Scales the tree to a standard deviation of ½ in both coordinates.
SCALE = np.array([1.3136, 1.3844])
DEPTH = 7
#: Gaussians in a branch, at these shares of its length.
PLACES = np.linspace(0.07, 0.93, 8)
CLASSES = {"a": 0.25 * math.pi, "b": 1.25 * math.pi}


@dataclass(frozen=True)
class _Branch:
    start: Array
    direction: Array
    length: float
    depth: int

    def weight(self) -> float:
        """The weight of each of its Gaussians, before normalisation."""
        return self.length * 0.5**self.depth

    def means(self) -> Array:
        along: Array = self.start + np.outer(PLACES * self.length, self.direction)
        means: Array = along * SCALE
        return means

    def covariance(self) -> Array:
        """Long along the branch, thin across it."""
        thickness = 0.2 * 0.8**self.depth / self.length
        along = np.outer(self.direction, self.direction)
        size = SCALE * self.length * 0.06
        shape: Array = along + (np.eye(2) - along) * thickness**2
        covariance: Array = shape * np.outer(size, size)
        return covariance


def _branches(
    random: np.random.RandomState, start: Array, angle: float, depth: int = 0
) -> Iterator[_Branch]:
    """A branch and all branches that grow from it, depth first, in the order of the draws."""
    length = 0.292 * 0.8**depth * (1 + 0.2 * random.randn())
    direction = np.array([math.cos(angle), math.sin(angle)])
    yield _Branch(start, direction, length, depth)
    for side in (1, -1):
        # the ends do not use their turns, but draw them: later draws then agree with the paper's
        turn = side * 0.7**depth * (1 + 0.2 * random.randn())
        if depth + 1 < DEPTH:
            yield from _branches(random, start + length * direction, angle + turn, depth + 1)


def tree(label: str = "a", seed: int = 2) -> GaussianMixture:
    """A tree, or two that grow in opposite directions: 127 branches of 8 Gaussians each.

    A branch of depth k = 0 … 6 is about .292·.8^k long, and its share of the law is proportional to
    length·2^−k. Its two children turn by about ±.7^k. Karras et al., "Guiding a diffusion model
    with a bad version of itself", NeurIPS 2024 (arXiv 2406.02507), Appendix C.

    Args:
        label: a or b for one class (a in the paper's figures), or both.
        seed: the seed of the lengths and angles; 2 in the paper.
    """
    require(label in (*CLASSES, "both"), "label", label, "a, b or both")
    require(0 <= seed < 2**32, "seed", seed, "between 0 and 2³² − 1")
    return _grown(label, seed)


@lru_cache(maxsize=4)
def _grown(label: str, seed: int) -> GaussianMixture:
    random = np.random.RandomState(seed)
    grown = {name: list(_branches(random, ORIGIN, angle)) for name, angle in CLASSES.items()}
    branches = [b for name in CLASSES if label in (name, "both") for b in grown[name]]
    weights = np.repeat([branch.weight() for branch in branches], len(PLACES))
    means = np.concatenate([branch.means() for branch in branches])
    covariances = np.repeat([branch.covariance() for branch in branches], len(PLACES), axis=0)
    return GaussianMixture(
        tuple((weights / weights.sum()).tolist()),
        tuple(map(tuple, means.tolist())),
        tuple(tuple(map(tuple, matrix)) for matrix in covariances.tolist()),
    )
