"""Starts: the law of a sampler's first state.

The path says that the first state, at the first level used, has the law of α·x₀ + σ·ε. The *exact*
start draws just that, from fresh draws of the data's law. Practice cannot, and draws from the
*prior* N(0, σ²·I) as if no signal were left: the difference is the prior mismatch, which the error
budget shows on its own. All starts use the same ε for the same key, so their difference is paired.

*Stratified* starts. A start is a map of the unit cube: x₀ from the first k coordinates (see
`Dataset.from_uniforms`), ε from the normal quantiles of the other dim. The n samples of a
repetition are then not independent points but the first n of one Sobol sequence, scrambled by a
random linear map of the digits and a random shift (Matoušek, "On the L₂-discrepancy for anchored
boxes", J. Complexity 14, 1998; the idea, and why the variance falls faster than 1/n, in Owen,
"Randomly permuted (t, m, s)-nets and (t, s)-sequences", 1995). So

- each point alone is uniform on the cube: each first state has exactly the law of a random start;
- the points of one repetition fill the cube evenly: they are dependent, and the distance of n of
  them to the law is smaller than that of n random ones, which is the point;
- repetitions have scrambles of their own and are independent: intervals over them are valid.

Point i belongs to sample i: block b takes points b·B, …, (b+1)·B − 1, whatever B. Any first n
points are even, but they are exactly balanced only where n is a power of two (Owen, "On dropping
the first Sobol' point", 2020): take n = 2 048, not 2 000. A sampler's fresh noise stays random: a
method with η > 0 gains little. A distance of stratified samples must be read against the floor of
`stratified_draws`, not of random draws.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from samplerbench.core.grids import Level
from samplerbench.core.noise import generator
from samplerbench.errors import InvalidSetting, require

#: In place of data for starts that do not use them.
_NONE = torch.full((1, 1), torch.nan, dtype=torch.float64)


class Law(Protocol):
    """What a start asks of the data's law, see `datasets.base.Dataset`."""

    @property
    def can_be_drawn(self) -> bool: ...
    @property
    def dim(self) -> int: ...
    @property
    def uniform_dim(self) -> int | None: ...
    def sample(self, count: int, generator: np.random.Generator) -> Tensor: ...
    def from_uniforms(self, u: Tensor) -> Tensor: ...


class Start(ABC):
    """The law of the first state. Members are frozen dataclasses."""

    @property
    def uses_data(self) -> bool:
        """Whether x₀ matters; where it does not, none is drawn and `combine` gets NaN."""
        return False

    @abstractmethod
    def combine(self, x0: Tensor, eps: Tensor, level: Level[float]) -> Tensor:
        """The first state from a fresh draw of the data and standard normal noise.

        Args:
            x0: shape (n, dim), float64; ignored by starts that do not know the data.
            eps: shape (n, dim), float64.
            level: the first level the sampler uses.
        """

    def why_incompatible(self, dataset: Law) -> str | None:
        """Why this start cannot be drawn for this data set, in one line, or None if it can."""
        if self.uses_data and not dataset.can_be_drawn:
            return "it begins at data, and there are none; see start=prior"
        return None

    def draw(
        self, dataset: Law, count: int, level: Level[float], key: tuple[int | str, ...]
    ) -> Tensor:
        """The first states of a block, shape (count, dim), float64.

        Args:
            dataset: the law that x₀ is drawn from.
            count: the block's size.
            level: the first level the sampler uses.
            key: (seed, repetition, block): what the draw depends on.
        """
        eps = generator("start", *key, "eps").standard_normal((count, dataset.dim))
        x0 = _NONE.expand(count, dataset.dim)
        if self.uses_data:
            x0 = dataset.sample(count, generator("start", *key, "x0"))
        return self.combine(x0, torch.from_numpy(eps), level)


@dataclass(frozen=True)
class Prior(Start):
    """N(0, σ²·I), σ the first level's: what practice does. N(0, I) on variance-preserving paths."""

    def combine(self, x0: Tensor, eps: Tensor, level: Level[float]) -> Tensor:
        return level.sigma * eps


@dataclass(frozen=True)
class Exact(Start):
    """α·x₀ + σ·ε with fresh x₀: the law the path really has at its first level."""

    @property
    def uses_data(self) -> bool:
        return True

    def combine(self, x0: Tensor, eps: Tensor, level: Level[float]) -> Tensor:
        return level.alpha * x0 + level.sigma * eps


@dataclass(frozen=True)
class FixedGaussian(Start):
    """N(mean, std²·I) with given numbers, the same for every coordinate, in the data's units."""

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        require(math.isfinite(self.mean), "mean", self.mean, "finite")
        require(0 < self.std < math.inf, "std", self.std, "positive")

    def combine(self, x0: Tensor, eps: Tensor, level: Level[float]) -> Tensor:
        return self.mean + self.std * eps


@dataclass(frozen=True)
class Sobol(Start):
    """The law of another start, drawn evenly: from the points of a scrambled Sobol sequence.

    Starts with the same key share their points, so the difference of `Sobol(Exact())` and
    `Sobol(Prior())` is paired. Data that are not a map of the unit cube allow `Sobol(Prior())`
    only, where x₀ does not matter.

    Args:
        start: the law.
    """

    start: Start

    @property
    def uses_data(self) -> bool:
        return self.start.uses_data

    def combine(self, x0: Tensor, eps: Tensor, level: Level[float]) -> Tensor:
        return self.start.combine(x0, eps, level)

    def why_incompatible(self, dataset: Law) -> str | None:
        reason = self.start.why_incompatible(dataset)
        if reason is None and self.start.uses_data and dataset.uniform_dim is None:
            name = type(dataset).__name__
            return f"{name} cannot be drawn from given uniform numbers, which a Sobol start needs"
        return reason

    def draw(
        self, dataset: Law, count: int, level: Level[float], key: tuple[int | str, ...]
    ) -> Tensor:
        """The first states of a block, shape (count, dim), float64.

        Args:
            dataset: the law that x₀ is drawn from.
            count: the block's size, the same for all blocks.
            level: the first level the sampler uses.
            key: (seed, repetition, block); the last part says which points of the sequence.

        Raises:
            InvalidSetting: the data set is not a map of the unit cube, and x₀ matters.
        """
        reason = self.why_incompatible(dataset)
        if reason is not None:
            raise InvalidSetting("start", type(self).__name__, f"another one: {reason}")
        for_data = dataset.uniform_dim or 0
        *shared, block = key
        first = int(block) * count
        # the data's columns come first: the earliest of a Sobol sequence are its most even ones
        u = sobol_points(count, for_data + dataset.dim, first, "start", *shared)
        eps = torch.special.ndtri(u[:, for_data:])
        x0 = _NONE.expand(count, dataset.dim)
        if self.uses_data:
            x0 = dataset.from_uniforms(u[:, :for_data])
        return self.combine(x0, eps, level)


def sobol_prior() -> Sobol:
    """`Prior`, drawn evenly."""
    return Sobol(Prior())


def sobol_exact() -> Sobol:
    """`Exact`, drawn evenly."""
    return Sobol(Exact())


def stratified_draws(dataset: Law, count: int, *key: int | str) -> Tensor:
    """Even draws of the law itself, shape (count, dim), float64: the floor of stratified starts.

    Args:
        dataset: the law.
        count: n; a power of two is best.
        key: purpose, seed and repetition; another scramble for each.

    Raises:
        ValueError: the law is not a map of the unit cube.
    """
    return dataset.from_uniforms(sobol_points(count, dataset.uniform_dim or 1, 0, "draws", *key))


_BITS = 32
"""Digits of a point, the most with which SciPy 1.17 can skip points: 4 294 967 296 of them."""


def sobol_points(count: int, columns: int, first: int, *key: int | str) -> Tensor:
    """Points first, …, first + count − 1 of the scrambled Sobol sequence that belongs to a key.

    Shape (count, columns), float64, strictly inside (0, 1).
    """
    from scipy.stats import qmc  # slow to import, and few starts need it

    # SciPy spawns from a seed; a keyed generator has none to spawn from
    seed = int(generator("sobol", *key).integers(2**63))
    engine = qmc.Sobol(columns, bits=_BITS, rng=seed)
    if first > 0:
        engine.fast_forward(first)
        points = engine.random(count)
    else:  # one by itself, since SciPy warns where a first call asks for 1 000
        points = np.concatenate([engine.random(1), engine.random(count - 1)])
    return torch.from_numpy(points + 0.5 ** (_BITS + 1))
