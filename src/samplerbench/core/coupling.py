"""One Brownian path for every number of steps: coupled noise of stochastic samplers.

A run with N steps and one with 2N from the same start, each with noise of its own, end far apart
even where both are nearly exact. With the noise of one path they end close together, and their
distance is the discretisation alone, as it is for η = 0.

*Where the path is.* In w = x·α/σ², with the signal-to-noise ratio τ = (α/σ)² as the clock, a step
of DDIM(η) reads

    w_s = c·w_t + c'·x̂₀ + η·√(τ_s − τ_t)·z,

so its fresh noise is an increment of η·B_τ, B a Brownian motion, on every schedule. At η = 1 even
c = 1 and c' = τ_s − τ_t: DDIM(1) is Euler–Maruyama for dw = x̂₀ dτ + dB_τ, the stochastic
localisation of the data (Montanari, "Sampling, diffusions, and stochastic localization", 2023,
arXiv 2305.10690), and its increments add up exactly. For every η > 0 it is a scheme for

    dw = [½(1 − η²)·w/τ + ½(1 + η²)·x̂₀] dτ + η dB_τ,

whose noise is additive, so with z_i = (B(τ_{i+1}) − B(τ_i))/√(τ_{i+1} − τ_i) its strong order is 1.
Any sampler that draws one normal number per step for an SDE of this family, in whatever variable
(Euler–Maruyama in t, say), may use the same z: over a step its own Brownian increment differs from
that z by a share of order h, as little as the scheme's own error. Thus the coupling is

- exact for ancestral sampling, DDIM(1), where increments compose;
- of strong order 1, the scheme's own, for 0 < η < 1 and Euler–Maruyama; for η > 1 from the step on
  where ς is no longer clipped. Where the path starts without any signal, at τ = 0, a first step
  with η < 1 spans infinitely many octaves of τ, and the order is η² instead;
- undefined for Langevin steps and correctors (the level, so the clock, stands still), for several
  draws per step and for accept–reject methods. Asked for those, the path refuses: one clear line.

*How it is drawn.* B is bisected: its value at the middle of an interval of log₂ τ is normal given
the ends, with a draw whose key is the middle's place. So a value depends on its place only, not on
the steps of the run (Li, Wong, Chen, Duvenaud, "Scalable gradients for stochastic differential
equations", AISTATS 2020, arXiv 2001.01328, Section 4). Places are 2⁻²⁰ apart in log₂ τ: grids that
share a level share its place, others are moved by at most 3·10⁻⁷ of τ. Increments are scaled by the
distance of their places, so they are standard normal and independent whatever the rounding.
A step costs up to 26 draws of the state's size where keyed noise costs one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from samplerbench.core.grids import Levels
from samplerbench.core.noise import generator

_LOG_RANGE = 32
"""The path covers 2⁻³² ≤ τ ≤ 2³²: noise-to-signal ratios from 65 536 down to 0.000 015."""
_PER_UNIT = 1 << 20
"""Places per unit of log₂ τ."""
_PLACES = 2 * _LOG_RANGE * _PER_UNIT


class BrownianNoise:
    """Noise whose draws are the increments of one Brownian path, whatever the number of steps.

    One object serves one run of one block; objects with equal keys hold the same path.

    Args:
        key: identifies the block: (purpose, seed, repetition, block).
        levels: the levels of the run, whose signal-to-noise ratios are the clock.
    """

    def __init__(self, key: tuple[int | str, ...], levels: Levels) -> None:
        self._key = key
        self._places = [_place(row.alpha, row.sigma) for row in levels.rows]
        self._path: dict[int, Tensor] = {}  # what was drawn on the way to the last place

    def normal(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        """The path's increment over a step, scaled to variance 1, shape and dtype of `like`.

        Raises:
            ValueError: a second draw within the step, or a step over which the clock stands still.
        """
        if draw != 0:
            raise ValueError("noise cannot be coupled: the sampler draws more than once a step")
        start, end = self._places[step], self._places[step + 1]
        if start is None:
            time, before = 0.0, torch.zeros(like.shape, dtype=torch.float64)
        else:
            time, before = _time(start), self._value(start, like)
        if end is None or (start is not None and end <= start):
            raise ValueError(f"noise cannot be coupled: no signal is gained in step {step}")
        after = self._value(end, like)
        return ((after - before) / math.sqrt(_time(end) - time)).to(like)

    def uniform(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        """Refuse: no path is behind uniform numbers.

        Raises:
            ValueError: always.
        """
        raise ValueError("noise cannot be coupled: the sampler draws uniform numbers")

    def _value(self, place: int, like: Tensor) -> Tensor:
        """B at a place, float64 on the CPU."""
        last, self._path = self._path, {}
        low, high = 0, _PLACES
        self._visit(low, last, like, 0.0, _time(low))
        self._visit(high, last, like, self._path[low], _time(high) - _time(low))
        while place not in self._path:
            middle = (low + high) // 2
            start, now, end = _time(low), _time(middle), _time(high)
            share = (now - start) / (end - start)
            mean = (1 - share) * self._path[low] + share * self._path[high]
            self._visit(middle, last, like, mean, share * (end - now))
            low, high = (middle, high) if middle < place else (low, middle)
        return self._path[place]

    def _visit(
        self, place: int, last: dict[int, Tensor], like: Tensor, mean: Tensor | float, spread: float
    ) -> None:
        """Draw B at a place with mean and variance given its neighbours, unless it is known."""
        if place not in last:
            z = generator(*self._key, "path", place).standard_normal(tuple(like.shape))
            last[place] = mean + math.sqrt(spread) * torch.from_numpy(z)
        self._path[place] = last[place]


def _place(alpha: float, sigma: float) -> int | None:
    """Where on the path a level is: its end for the data, None where no signal is left."""
    if alpha == 0:
        return None
    if sigma == 0:
        return _PLACES
    place = round((2 * math.log2(alpha / sigma) + _LOG_RANGE) * _PER_UNIT)
    return min(max(place, 0), _PLACES)


def _time(place: int) -> float:
    """τ at a place."""
    return math.exp2(place / _PER_UNIT - _LOG_RANGE)
