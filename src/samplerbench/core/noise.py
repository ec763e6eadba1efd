"""Keyed random numbers: every draw has an address.

A draw is identified by a key such as (seed, purpose, repetition, block, step, draw), never by how
many draws came before it. The key is hashed (BLAKE2b, 128 bits) into the key of a counter-based
generator (Philox 4×64; Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3",
SC 2011), so two keys give independent streams, and

- a cell's numbers do not depend on which other cells ran, in which order, or on which worker;
- cells that share a key share their noise (common random numbers), so their difference is paired;
- nothing reads or moves the global generators of torch, NumPy or Python.

Numbers are drawn on the CPU in float64 and then moved: the same key gives the same numbers on
every device.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from operator import index
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


def generator(*key: int | str) -> np.random.Generator:
    """The generator that belongs to a key, at its first number.

    Args:
        key: integers and words; the purpose ("train", "start", "sampler", …) is one of the words.
    """
    return np.random.Generator(np.random.Philox(key=_hash(key, 16)))


def torch_generator(*key: int | str) -> torch.Generator:
    """The same for torch's own generator, for shuffling and for random numbers in training."""
    return torch.Generator().manual_seed(_hash(key, 8) >> 1)


def _hash(key: tuple[int | str, ...], size: int) -> int:
    # index() lets NumPy's integers be the same key as Python's, and refuses floats
    plain = tuple(part if isinstance(part, str) else int(index(part)) for part in key)
    return int.from_bytes(blake2b(repr(plain).encode(), digest_size=size).digest(), "little")


class Noise(Protocol):
    """What a sampler draws from. One object serves one block of samples.

    `step` is the index of the step, `draw` counts the draws within it. Returned tensors have the
    shape, the dtype and the device of `like`, shape (*batch, dim).
    """

    def normal(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        """Standard normal numbers."""
        ...

    def uniform(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        """Uniform numbers on [0, 1)."""
        ...


@dataclass(frozen=True)
class KeyedNoise:
    """Noise whose numbers depend on the key, the step and the draw only.

    Args:
        key: identifies the block: (seed, purpose, repetition, block).
    """

    key: tuple[int | str, ...]

    def normal(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        """Standard normal numbers, shaped like `like`."""
        numbers = generator(*self.key, "normal", step, draw).standard_normal(tuple(like.shape))
        return torch.from_numpy(numbers).to(like)

    def uniform(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        """Uniform numbers on [0, 1), shaped like `like`."""
        numbers = generator(*self.key, "uniform", step, draw).random(tuple(like.shape))
        # a float64 just below 1 would round up to 1 in a shorter format
        return torch.from_numpy(numbers).to(like).clamp(max=1 - torch.finfo(like.dtype).eps / 2)
