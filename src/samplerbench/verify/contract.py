"""What every sampler promises, whatever its order: checks that anybody's sampler can be put to.

A check runs a sampler on a *ground*, a law and a path that it must run on, and says in one line
what is broken, or nothing. The promises are those that make numbers comparable:

- *states*: N steps yield N finite states of the batch's own shape, whatever it is, and change
  neither the start nor a state that was yielded before;
- *end*: the last state is the last x̂₀, bit for bit, just where `ends_at_data` says so;
- *bits*: the same key gives the same bits, and another key others just where `stochastic` says so;
- *neighbours*: no sample depends on the others of its batch;
- *type*: states keep the type and the device of the start;
- *evaluations*: as many as `evaluations(steps)` says, counted;
- *needs*: any score serves a sampler that `needs` a score; the others refuse it in one line;
- *levels*: levels that stand still, move or hold no signal are refused in one line where the
  sampler says that it cannot run there, and only there;
- *lost*: a sample that is not a number stays so, and costs no other;
- *generators*: the global random generators are left alone.

The order and the law are `orders`' and `laws`'.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from samplerbench.core import grids
from samplerbench.core.grids import Level, Levels
from samplerbench.core.models import Counted, Denoiser, Density, Score
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import EDM, NoiseSchedule, Rectified
from samplerbench.datasets.gaussian_mixture import GaussianMixture
from samplerbench.errors import kind_and_line
from samplerbench.samplers.base import Sampler, final_state

STEPS = 5


@dataclass(frozen=True)
class Ground:
    """Where a sampler is put to the test.

    Args:
        law: of data in the plane.
        schedule: the path.
        device: where model and states are.
    """

    law: GaussianMixture
    schedule: NoiseSchedule
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @cached_property
    def model(self) -> Denoiser:
        """The exact denoiser, which knows its log-density."""
        return self.law.oracle(self.schedule).to(self.device)

    def levels(self, sampler: Sampler, steps: int = STEPS) -> Levels:
        """Levels that the sampler must run on: the full path, unless it says that it cannot.

        For one that needs signal and a path that loses it, the path from t = .9 on; for one that
        holds a level, σ/α = .5 all the time.
        """
        if sampler.holds:
            return grids.hold(self.schedule, steps, noise=0.5)
        loses_signal = float(self.schedule.alpha(torch.ones(()))) == 0
        if sampler.needs_signal and loses_signal:
            return grids.uniform(self.schedule, steps, t_max=0.9)
        return grids.uniform(self.schedule, steps)

    def run(self, sampler: Sampler, x: Tensor, key: int = 0, steps: int = STEPS) -> Tensor:
        """The last state from x, with the noise of a key."""
        levels = self.levels(sampler, steps)
        return final_state(sampler, self.model, x, levels, _noise(key))

    def start(self, sampler: Sampler, *batch: int) -> Tensor:
        """A first state, shape (*batch, 2), float64; the same whenever it is asked for."""
        like = torch.empty(*batch, 2, dtype=torch.float64)
        draw = KeyedNoise(("contract", "start")).normal(like, 0)
        return (self.levels(sampler).rows[0].sigma * draw).to(self.device)


class ScoreAlone(Score):
    """A model that has nothing but a score."""

    def __init__(self, model: Score) -> None:
        super().__init__()
        self.model = model

    def score(self, x: Tensor, level: Level[Any]) -> Tensor:
        return self.model.score(x, level)


class ScoreAndDensity(ScoreAlone):
    """A model that has a score and a density, and no x̂₀."""

    def log_density(self, x: Tensor, level: Level[Any]) -> Tensor:
        return cast(Density, self.model).log_density(x, level)


def states(sampler: Sampler, ground: Ground) -> str | None:
    """N finite states of the right shape, none of them changed afterwards."""
    levels = ground.levels(sampler)
    for batch in ((), (4,), (2, 3)):
        x = ground.start(sampler, *batch)
        before = x.clone()
        steps = list(sampler.steps(ground.model, x, levels, _noise()))
        if len(steps) != levels.steps:
            return f"{levels.steps} steps yield {len(steps)} states"
        for step in steps:
            if not step.x.shape == step.x0_hat.shape == x.shape:
                found = f"{tuple(step.x.shape)} and {tuple(step.x0_hat.shape)}"
                return f"from a start of shape {tuple(x.shape)} states and x̂₀ have {found}"
            if not (step.x.isfinite().all() and step.x0_hat.isfinite().all()):
                return "a state or an x̂₀ is not finite"
        if not torch.equal(x, before):
            return "the start was changed in place"
        if any(one.x.data_ptr() == two.x.data_ptr() for one, two in pairwise(steps)):
            return "a yielded state was changed in place"
    return None


def end(sampler: Sampler, ground: Ground) -> str | None:
    """The last state is x̂₀ just where it says so."""
    x, levels = ground.start(sampler, 4), ground.levels(sampler)
    *_, last = sampler.steps(ground.model, x, levels, _noise())
    if torch.equal(last.x, last.x0_hat) == sampler.ends_at_data:
        return None
    is_or_not = "is not" if sampler.ends_at_data else "is"
    return f"the last state {is_or_not} its x̂₀, and ends_at_data is {sampler.ends_at_data}"


def bits(sampler: Sampler, ground: Ground) -> str | None:
    """The key decides the bits, and matters just where it says so."""
    x = ground.start(sampler, 4)
    first, again, other = (ground.run(sampler, x, key) for key in (1, 1, 2))
    if not torch.equal(first, again):
        return "the same key gives other bits"
    if torch.equal(first, other) == sampler.stochastic:
        does_or_not = "does not draw" if sampler.stochastic else "draws"
        return f"it {does_or_not} from noise, and stochastic is {sampler.stochastic}"
    return None


def neighbours(sampler: Sampler, ground: Ground) -> str | None:
    """No sample depends on the others of its batch."""
    for dtype in (torch.float32, torch.float64):
        x = ground.start(sampler, 16).to(dtype)
        other = 3 * x.flip(0) + 1
        other[5] = x[5]
        one, two = (ground.run(sampler, start) for start in (x, other))
        if not torch.equal(one[5], two[5]):
            return "a sample depends on its neighbours"
        # at η = 1 a start without signal is forgotten
        if not sampler.stochastic and torch.equal(one[4], two[4]):
            return "the start does not matter"
    return None


def kind(sampler: Sampler, ground: Ground) -> str | None:
    """States keep the type and the device of the start."""
    for dtype in (torch.float32, torch.float64):
        x = ground.start(sampler, 3).to(dtype)
        for step in sampler.steps(ground.model, x, ground.levels(sampler), _noise()):
            for name, found in (("state", step.x), ("x̂₀", step.x0_hat)):
                if (found.dtype, found.device) != (x.dtype, x.device):
                    return f"from a {x.dtype} start on {x.device} the {name} is {found.dtype}"
    return None


def evaluations(sampler: Sampler, ground: Ground) -> str | None:
    """As many evaluations as it says, counted."""
    for steps in (1, 2, STEPS):
        expected, counted = sampler.evaluations(steps), Counted(ground.model)
        levels, x = ground.levels(sampler, steps), ground.start(sampler, 3)
        final_state(sampler, counted, x, levels, _noise())
        if expected is not None and counted.evaluations != expected:
            return f"evaluations({steps}) is {expected}, and {counted.evaluations} are made"
    return None


def needs(sampler: Sampler, ground: Ground) -> str | None:
    """Any score serves a sampler that needs a score; the others refuse it in one line."""
    levels, x = ground.levels(sampler), ground.start(sampler, 3)
    alone: ScoreAlone = ScoreAlone(ground.model)
    reason = sampler.why_incompatible(alone, levels)
    if sampler.needs_density:
        if not _refuses(reason, "needs the log-density"):
            return "it needs a density, and does not refuse a score without one"
        alone = ScoreAndDensity(ground.model)
        reason = sampler.why_incompatible(alone, levels)
    if sampler.needs is not Score:
        served = _refuses(reason, "needs a denoiser")
        return None if served else "it needs a denoiser, and does not refuse a score"
    if reason is not None:
        return f"it needs a score, and refuses one: {reason}"
    models = (cast(Denoiser, alone), ground.model)  # a score is enough where the sampler says so
    runs = [final_state(sampler, model, x, levels, _noise()) for model in models]
    return None if torch.equal(*runs) else "it needs a score, and is another on a denoiser"


def levels(sampler: Sampler, ground: Ground) -> str | None:
    """The levels it cannot run on are refused in one line, and no others."""
    reason = sampler.why_incompatible(ground.model, ground.levels(sampler))
    if reason is not None:
        return f"it refuses levels made for it: {reason}"

    def refused(path: NoiseSchedule, levels: Levels) -> str | None:
        return sampler.why_incompatible(ground.law.oracle(path).to(ground.device), levels)

    if sampler.holds:
        well = _refuses(refused(EDM(), grids.uniform(EDM(), 3)), "grid=hold")
        return None if well else "it holds a level, and takes others"
    times = torch.tensor([1.0, 1.0, 0.5], dtype=torch.float64)
    for path, still in (
        (EDM(), grids.hold(EDM(), 3)),
        (EDM(), grids.hold(EDM(), 3, noise=0.5)),
        (Rectified(), Levels(times, *Rectified()(times))),  # twice without signal
    ):
        if not _refuses(refused(path, still), "stand still: use a grid"):
            return "it goes from level to level, and takes levels that stand still"
    lost = refused(Rectified(), grids.uniform(Rectified(), 3))
    if sampler.needs_signal and not _refuses(lost, "no signal is left"):
        return "it needs signal, and takes a level without"
    if not sampler.needs_signal and lost is not None:
        return f"it does not say that it needs signal, and refuses a level without: {lost}"
    return None


class Failing(Denoiser):
    """Gives NaN for the first sample of a batch below a noise-to-signal ratio."""

    def __init__(self, model: Denoiser, below: float) -> None:
        super().__init__()
        self.model = model
        self.schedule = model.schedule
        self.below = below

    def denoiser(self, x: Tensor, level: Level[Any]) -> Tensor:
        x0_hat = self.model.denoiser(x, level)
        first = torch.arange(len(x), device=x.device)[:, None] == 0
        low = torch.as_tensor(level.sigma < self.below * level.alpha, device=x.device)
        return torch.where(first & low, torch.nan, x0_hat)


def lost(sampler: Sampler, ground: Ground) -> str | None:
    """What is not a number stays so; a method that refuses a proposal keeps the state before it."""
    if sampler.holds:
        return None
    levels, x = ground.levels(sampler), ground.start(sampler, 4)
    middle = levels.rows[levels.steps // 2]
    failing = Failing(ground.model, middle.sigma / middle.alpha)
    x = final_state(sampler, failing, x, levels, _noise())
    if x[0].isfinite().all():
        return "a sample whose x̂₀ is not a number becomes a number again"
    return None if x[1:].isfinite().all() else "a sample that is not a number costs others"


def generators(sampler: Sampler, ground: Ground) -> str | None:
    """The global random generators are left alone."""

    def state() -> str:
        legacy = np.random.get_state()  # noqa: NPY002
        return repr((torch.get_rng_state().tolist(), legacy, random.getstate()))

    before = state()
    ground.run(sampler, ground.start(sampler, 3))
    return None if state() == before else "a global random generator is used"


#: All of them, by name.
PROMISES: dict[str, Callable[[Sampler, Ground], str | None]] = {
    "states": states,
    "end": end,
    "bits": bits,
    "neighbours": neighbours,
    "type": kind,
    "evaluations": evaluations,
    "needs": needs,
    "levels": levels,
    "lost": lost,
    "generators": generators,
}


def broken(sampler: Sampler, ground: Ground) -> list[str]:
    """What a sampler breaks on a ground, one line each: "neighbours: a sample depends on …"."""
    found = []
    for name, check in PROMISES.items():
        try:
            line = check(sampler, ground)
        except Exception as error:  # a sampler that is not ours may raise anything
            line = kind_and_line(error)
        if line is not None:
            found.append(f"{name}: {line}")
    return found


def _noise(key: int = 0) -> KeyedNoise:
    return KeyedNoise((key, "contract"))


def _refuses(reason: str | None, words: str) -> bool:
    """Whether the reason is one line with these words."""
    return reason is not None and words in reason and "\n" not in reason
