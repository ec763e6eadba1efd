"""Coupled noise: runs with different numbers of steps use the same Brownian path.

Take a run with N steps and a run with 2N steps from the same start. With independent noise they end
far apart, even if both are nearly exact. With the noise of one Brownian path they end close
together, and their distance is the discretisation error, as it is for η = 0.

*The Brownian path.* In w = x·α/σ², with the signal-to-noise ratio τ = (α/σ)² as the clock, a step
of DDIM(η) reads

    w_s = c·w_t + c'·x̂₀ + η·√(τ_s − τ_t)·z,

so its fresh noise is an increment of η·B_τ, B a Brownian motion, on every schedule. For η = 1,
c = 1 and c' = τ_s − τ_t: DDIM(1) is Euler–Maruyama for dw = x̂₀ dτ + dB_τ, the stochastic
localisation of the data (Montanari, "Sampling, diffusions, and stochastic localization", 2023,
arXiv 2305.10690), and its increments add up exactly. For every η > 0 it is a scheme for

    dw = [½(1 − η²)·w/τ + ½(1 + η²)·x̂₀] dτ + η dB_τ.

The noise is additive, so with z_i = (B(τ_{i+1}) − B(τ_i))/√(τ_{i+1} − τ_i) the strong order is 1.
Every sampler that draws one normal number per step for an SDE of this family, in any variable (such
as Euler–Maruyama in t), may use the same z. Over a step its own Brownian increment differs from z
by a relative O(h), which is as small as the error of the scheme. So the coupling is

- exact for ancestral sampling, DDIM(1);
- of strong order 1, the order of the scheme, for 0 < η < 1 and Euler–Maruyama, and for η > 1 after
  the steps in which ς is clipped. If the path starts without signal, at τ = 0, a first step with
  η < 1 covers infinitely many octaves of τ, and the order is η²;
- undefined for Langevin steps and correctors (the clock stands still), for several draws per step,
  and for accept–reject methods. `BrownianNoise` raises an error for these.

*Drawing it.* The value of B in the middle of an interval of log₂ τ is normal given the values at
the ends. It is drawn with the middle's place as the key, so it depends on the place and not on the
steps of the run (Li, Wong, Chen, Duvenaud, "Scalable gradients for stochastic differential
equations", AISTATS 2020, arXiv 2001.01328, Section 4). Places are 2⁻²⁰ apart in log₂ τ: a level has
the same place in every grid, and τ is rounded by at most 3·10⁻⁷ of itself. An increment is divided
by the standard deviation for the rounded places, so it is exactly standard normal.
A step costs up to 26 draws of the size of the state; keyed noise costs one.
"""

from __future__ import annotations

import math
from functools import lru_cache
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samplerbench.core.grids import Levels
from samplerbench.core.noise import generator

Values = NDArray[np.float64]

#: The path covers 2⁻³² ≤ τ ≤ 2³²: noise-to-signal ratios from 65 536 down to 0.000 015.
_LOG_RANGE = 32
#: Places per unit of log₂ τ.
_PER_UNIT = 1 << 20
_PLACES = 2 * _LOG_RANGE * _PER_UNIT

#: The number of values on the way to a place, at most.
_DEEPEST = 28

#: The largest number of values that are kept for other samplers with the same path: the increments
#: of a run, and the values on the way to a place.
_KEPT = 2**21


class _Path:
    """A Brownian path at the places of a run, for all samplers that run there.

    Args:
        key: the key of the block.
        places: the places of the run's levels.
        shape: the shape of an increment.
        keeps: whether increments are kept for other samplers.
    """

    def __init__(
        self,
        key: tuple[int | str, ...],
        places: tuple[int | None, ...],
        shape: tuple[int, ...],
        keeps: bool = True,
    ) -> None:
        self._key, self._places, self.shape = key, places, shape
        self._kept: dict[int, Tensor] | None = {} if keeps else None  # increments by step
        self._last: dict[int, Values] = {}  # the values drawn on the way to the last place
        self._drawing = Lock()  # a sampler in another thread waits, and then finds the increment

    def increment(self, step: int) -> Tensor:
        """The increment over a step, divided by its standard deviation, float64 on the CPU."""
        with self._drawing:
            if self._kept is None:
                return self._increment(step)
            if step not in self._kept:
                self._kept[step] = self._increment(step)
            return self._kept[step]

    def _increment(self, step: int) -> Tensor:
        start, end = self._places[step], self._places[step + 1]
        if end is None or (start is not None and end <= start):
            raise ValueError(f"noise cannot be coupled: no signal is gained in step {step}")
        if start is None:
            time, before = 0.0, np.zeros(self.shape)
        else:
            time, before = _time(start), self._value(start)
        change = self._value(end) - before
        return torch.from_numpy(change / math.sqrt(_time(end) - time))

    def _value(self, place: int) -> Values:
        """B at a place."""
        last, path = self._last, dict[int, Values]()
        low, high = 0, _PLACES
        if low in last:
            path[low], path[high] = last[low], last[high]
        else:
            path[low] = self._normal(low, _time(low))
            path[high] = self._normal(high, _time(high) - _time(low)) + path[low]
        while place not in path:
            middle = (low + high) // 2
            if middle in last:
                path[middle] = last[middle]
            else:
                start, now, end = _time(low), _time(middle), _time(high)
                share = (now - start) / (end - start)
                value = self._normal(middle, share * (end - now))
                mean = path[low] * (1 - share)
                mean += path[high] * share
                value += mean
                path[middle] = value
            low, high = (middle, high) if middle < place else (low, middle)
        self._last = path
        return path[place]

    def _normal(self, place: int, variance: float) -> Values:
        """Normal numbers with mean 0 that belong to a place."""
        z = generator(*self._key, "path", place).standard_normal(self.shape)
        z *= math.sqrt(variance)
        return z


#: Recent paths, for other samplers of a sweep.
_recent = lru_cache(maxsize=8)(_Path)


class BrownianNoise:
    """Noise whose draws are the increments of one Brownian path, for every number of steps.

    One object serves one run of one block. Objects with equal keys have the same path.

    Args:
        key: the key of the block: (purpose, seed, repetition, block).
        levels: the levels of the run; their signal-to-noise ratios are the clock.
    """

    def __init__(self, key: tuple[int | str, ...], levels: Levels) -> None:
        self._key = key
        self._places = tuple(_place(row.alpha, row.sigma) for row in levels.rows)
        self._path: _Path | None = None

    def normal(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        """The increment of the path over a step, divided by its standard deviation.

        There is one draw in each step, and the clock must move: otherwise ValueError.
        """
        if draw != 0:
            raise ValueError("noise cannot be coupled: the sampler draws more than once a step")
        shape = tuple(like.shape)
        if self._path is None or self._path.shape != shape:
            of = (self._key, self._places, shape)
            is_small = (len(self._places) - 1 + _DEEPEST) * math.prod(shape) <= _KEPT
            self._path = _recent(*of) if is_small else _Path(*of, keeps=False)
        return self._path.increment(step).to(like, copy=True)

    def uniform(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        """Raise ValueError: uniform numbers are not increments of a path."""
        raise ValueError("noise cannot be coupled: the sampler draws uniform numbers")


def _place(alpha: float, sigma: float) -> int | None:
    """The place of a level: the last one for the data, None if no signal is left."""
    if alpha == 0:
        return None
    if sigma == 0:
        return _PLACES
    place = round((2 * math.log2(alpha / sigma) + _LOG_RANGE) * _PER_UNIT)
    return min(max(place, 0), _PLACES)


def _time(place: int) -> float:
    return math.exp2(place / _PER_UNIT - _LOG_RANGE)
