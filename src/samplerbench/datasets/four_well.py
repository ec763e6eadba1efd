"""D3, four wells: the trajectory of a Brownian particle on a line.

    dX = −V′(X) dt + √(2/β) dW,    X ← X − V′(X)·dt + √(2·dt/β)·z from X = 0,

with the potential V of `four_well_boltzmann`. The data of the notebook "Train a score-based
diffusion model to generate a 1d distribution". For small dt the trajectory approaches the law
p(x) = exp(−β·V(x))/Z. It takes hundreds of steps to cross a bump, so the default 10 000 steps are
few: the distance of the trajectory from p is W₁ = .162, 29 times that of as many independent draws.
The wells contain the shares .329, .336, .241, .094 of its states, but .232, .303, .267, .198 of p.

Risken, "The Fokker–Planck equation", 2nd ed., Springer 1989, Chapter 5, for the law in the long
run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from samplerbench.core.line_laws import DensityLine
from samplerbench.core.models import Denoiser
from samplerbench.core.noise import generator as keyed
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.datasets.base import Dataset
from samplerbench.datasets.divided import KEYS
from samplerbench.datasets.empirical import Empirical
from samplerbench.datasets.four_well_boltzmann import BUMPS, FourWellBoltzmann, require_temperature
from samplerbench.errors import InvalidSetting, require


@dataclass(frozen=True)
class FourWell(Dataset):
    """The states X_1, …, X_n of one trajectory, and their empirical law. X_0 = 0 is left out.

    As in the notebook, samples are compared with the trajectory itself. `draws` for training,
    validation and evaluation are states without repetition; if n are drawn, they are all states in
    the order of time. These draws share states. So the validation loss is not on unseen data, and a
    distance to the evaluation points is a distance to training points: it shows how well the model
    reproduces its data, not how well it generalises.

    Other draws, such as a start or the floor, are independent draws of the empirical law: states
    with repetition. So the floor is the distance between n states of the trajectory and the
    trajectory: the distance of a sampler that reproduces its data perfectly. It does not include
    the distance between the trajectory and its law in the long run; see metric=w_law_1d.

    Args:
        dt: step of time.
        beta: β, the inverse temperature, from 0.1 to 10.
        steps: n, the number of states.
        seed: the seed for the z (NumPy's default generator); data_seed only chooses states.
    """

    dt: float = 0.005
    beta: float = 2.0
    steps: int = 10_000
    seed: int = 42

    def __post_init__(self) -> None:
        require(0 < self.dt < math.inf, "dt", self.dt, "positive and finite")
        require_temperature(self.beta)
        require(1 <= self.steps <= 10**7, "steps", self.steps, "from 1 to 10 000 000")
        require(self.seed >= 0, "seed", self.seed, "at least 0")

    @property
    def trajectory(self) -> Tensor:
        """The states in the order of time, shape (steps,), float64; do not write to them.

        Raises:
            InvalidSetting: dt is so large that the particle leaves the box.
        """
        return _trajectory(self.dt, self.beta, self.steps, self.seed)

    @property
    def boltzmann(self) -> FourWellBoltzmann:
        """The law that the trajectory approaches in the long run, for small dt."""
        return FourWellBoltzmann(self.beta)

    @property
    def law(self) -> Empirical:
        """The empirical law of the states."""
        return Empirical(self.trajectory[:, None])

    @property
    def known_law(self) -> bool:
        return False

    @property
    def event_shape(self) -> tuple[int, ...]:
        return (1,)

    def sample(self, count: int, generator: np.random.Generator) -> Tensor:
        """States with repetition, shape (count, 1), float64."""
        return self.law.sample(count, generator)

    def oracle(self, schedule: NoiseSchedule) -> Denoiser:
        """The ideal denoiser of the states, not of the Boltzmann law."""
        return self.law.oracle(schedule)

    def line_law(self) -> DensityLine:
        """The Boltzmann law, not the empirical one."""
        return self.boltzmann.line_law()

    def draws(self, count: int, purpose: str, *key: int) -> Tensor:
        """States for a purpose, shape (count, 1), float64; see the class.

        Raises:
            InvalidSetting: there are fewer states; the error names the setting with their number.
        """
        if purpose not in ("train", "validation", "evaluation"):
            return super().draws(count, purpose, *key)
        states = self.trajectory[:, None]
        allowed = f"at most {len(states)}: dataset.steps, the states of the trajectory"
        require(count <= len(states), KEYS[purpose], count, allowed)
        if count == len(states):
            return states.clone()
        chosen = keyed("data", purpose, *key).permutation(len(states))[:count]
        return states[torch.from_numpy(chosen)]


@lru_cache(maxsize=4)
def _trajectory(dt: float, beta: float, steps: int, seed: int) -> Tensor:
    # 10 000 steps take 10 ms with Python's floats and 200 ms with NumPy's
    scale, exp = math.sqrt(2 * dt / beta), math.exp
    states = np.empty(steps)
    x = 0.0
    try:
        for step, z in enumerate(np.random.default_rng(seed).standard_normal(steps).tolist()):
            total = 8 * x**7
            for height, place in BUMPS:
                offset = x - place
                total -= 160 * height * offset * exp(-80 * offset * offset)
            x += -2 * total * dt + scale * z
            states[step] = x
    except OverflowError:
        raise InvalidSetting("dt", dt, "smaller: the trajectory leaves the box") from None
    return torch.from_numpy(states)
