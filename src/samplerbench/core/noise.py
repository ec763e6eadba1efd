"""Keyed random numbers: every draw has an address.

A draw is identified by a key such as (seed, purpose, repetition, block, step, draw), never by the
number of draws before it. The key is hashed (BLAKE2b, 128 bits) into the key of a counter-based
generator (Philox 4×64; Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3",
SC 2011). Two keys give independent streams. Therefore

- the numbers of a cell do not depend on other cells, their order, or the worker;
- cells with the same key share their noise (common random numbers), so their difference is paired;
- the global generators of torch, NumPy and Python are neither read nor changed.

Numbers are drawn on the CPU in float64 and then moved: a key gives the same numbers on every
device.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from operator import index
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

#: The largest size of a draw that is kept, and the number of kept draws: 4 MB in all.
_SMALL, _KEPT = 2**12, 128


def generator(*key: int | str) -> np.random.Generator:
    """A new NumPy generator for a key of integers and words such as "train"."""
    return np.random.Generator(np.random.Philox(key=_hash(key, 16)))


def torch_generator(*key: int | str) -> torch.Generator:
    """A new torch generator for a key, for shuffling and for random numbers in training."""
    return torch.Generator().manual_seed(_hash(key, 8) >> 1)


def _hash(key: tuple[int | str, ...], size: int) -> int:
    # index() makes NumPy's integers equal to Python's, and refuses floats
    plain = tuple(part if isinstance(part, str) else int(index(part)) for part in key)
    return int.from_bytes(blake2b(repr(plain).encode(), digest_size=size).digest(), "little")


class Noise(Protocol):
    """The source of a sampler's random numbers, for one block of samples.

    `step` is the index of the step, and `draw` the index of the draw within it. The numbers have
    the shape, the dtype and the device of `like`, shape (*batch, dim).
    """

    def normal(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        """Standard normal numbers."""
        ...

    def uniform(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        """Uniform numbers on [0, 1)."""
        ...


@dataclass(frozen=True)
class KeyedNoise:
    """Noise that depends only on a key, (seed, purpose, repetition, block), step and draw."""

    key: tuple[int | str, ...]

    def normal(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        key, shape = (*self.key, "normal", step, draw), tuple(like.shape)
        if like.numel() > _SMALL:
            return _normal(key, shape).to(like)
        return _recent(key, shape).to(like, copy=True)  # the caller may change it in place

    def uniform(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        numbers = generator(*self.key, "uniform", step, draw).random(tuple(like.shape))
        # rounding to a shorter format must not give 1
        return torch.from_numpy(numbers).to(like).clamp(max=1 - torch.finfo(like.dtype).eps / 2)


def _normal(key: tuple[int | str, ...], shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(generator(*key).standard_normal(shape))


@lru_cache(maxsize=_KEPT)
def _recent(key: tuple[int | str, ...], shape: tuple[int, ...]) -> Tensor:
    """A draw, kept for other cells of a sweep: drawing it again takes ten times as long."""
    return _normal(key, shape)
