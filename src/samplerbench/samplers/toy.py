"""A toy model, the oracle of N(0, I), by which properties of a sampler's code are measured."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from samplerbench.core.grids import Level, Levels
from samplerbench.core.models import Denoiser
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.samplers.base import Sampler, final_state

#: Weights of two inputs: two runs, and one in the middle between them. A clipped x̂₀ is clipped at
#: such sizes.
_ONE, _TWO, _MIDDLE = (500.0, 0.0), (0.0, 300.0), (250.0, 150.0)


class Toy(Denoiser):
    """The oracle of N(0, I): x̂₀ = α·x/(α² + σ²)."""

    def __init__(self, schedule: NoiseSchedule) -> None:
        super().__init__()
        self.schedule = schedule

    def denoiser(self, x: Tensor, level: Level[Any]) -> Tensor:
        x0_hat: Tensor = x * (level.alpha / (level.alpha**2 + level.sigma**2))
        return x0_hat


class _Sum:
    """Noise that is a sum of two noises with the given weights."""

    def __init__(self, weights: tuple[float, float]) -> None:
        self.parts = [(weight, KeyedNoise(("sum", of))) for of, weight in enumerate(weights)]

    def normal(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        """The weighted sum of standard normal numbers."""
        first, second = (weight * noise.normal(like, step, draw) for weight, noise in self.parts)
        return first + second

    def uniform(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        """Uniform numbers, the same for all weights."""
        return self.parts[0][1].uniform(like, step, draw)


@torch.no_grad()
def is_affine_run(
    sampler: Sampler, schedule: NoiseSchedule, levels: Levels, tolerance: float
) -> bool:
    """Whether a run on `Toy` is affine in start and noise.

    Start and noise in the middle between those of two runs must lead to the middle of their ends,
    up to `tolerance` times the largest number in an end.
    """
    first = levels.rows[0]
    like = torch.empty((1, 2), dtype=torch.float64)

    def end(weights: tuple[float, float]) -> Tensor:
        noise = _Sum(weights)
        x = math.hypot(first.alpha, first.sigma) * noise.normal(like, -1)
        return final_state(sampler, Toy(schedule), x, levels, noise)

    one, two, middle = map(end, (_ONE, _TWO, _MIDDLE))
    off, size = (one + two) / 2 - middle, torch.stack([one, two]).abs().max()
    return not bool((off.abs() > tolerance * size).any())
