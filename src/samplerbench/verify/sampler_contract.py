"""The contract of samplers: promises that make their numbers comparable, and a check of each.

A check runs a sampler on a `TestBed`, a law and a path, and returns one line about the fault, or
None. The contract includes neither the declared order nor the law: see `orders` and `laws`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor

from samplerbench.core import grids
from samplerbench.core.coupling import BrownianNoise
from samplerbench.core.grids import Level, Levels, TruncatedLevels
from samplerbench.core.models import Counted, Denoiser, Density, Score
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import EDM, NoiseSchedule, Rectified, VPCosine
from samplerbench.core.starts import Exact
from samplerbench.datasets.gaussian_mixture import GaussianMixture
from samplerbench.samplers.base import Sampler, final_state, iterate, place_of
from samplerbench.verify.orders import GAUSSIAN, MIXTURE, interior

Check = Callable[..., str | None]
#: The result of a check that does not apply to a member, such as a check of a missing oracle.
DOES_NOT_APPLY = ""

STEPS = 5


@dataclass(frozen=True)
class TestBed:
    """A law and a path on which samplers are tested."""

    __test__ = False  # for pytest: this is not a test

    law: GaussianMixture  # of data in the plane
    schedule: NoiseSchedule
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))  # of model and states

    @cached_property
    def model(self) -> Denoiser:
        """The exact denoiser, which also has a log-density."""
        return self.law.oracle(self.schedule).to(self.device)

    def levels(self, sampler: Sampler, steps: int = STEPS) -> Levels:
        """Levels that the sampler must accept.

        They cover the whole path, or begin at t = .9 if the path ends without signal and the
        sampler needs signal. For a sampler that holds a level, σ/α is .5.
        """
        if sampler.holds:
            return grids.hold(self.schedule, steps, noise=0.5)
        if sampler.brings_levels:
            return sampler.levels(grids.uniform, self.schedule, steps)
        loses_signal = float(self.schedule.alpha(torch.ones(()))) == 0
        if sampler.needs_signal and loses_signal:
            return grids.uniform(self.schedule, steps, t_max=0.9)
        return grids.uniform(self.schedule, steps)

    def run(self, sampler: Sampler, x: Tensor, key: int = 0, steps: int = STEPS) -> Tensor:
        """The last state from x, with the noise of a key."""
        levels = self.levels(sampler, steps)
        return final_state(sampler, self.model, x, levels, _noise(key))

    def start(self, sampler: Sampler, *batch: int) -> Tensor:
        """A first state, shape (*batch, 2), float64, the same in every call."""
        like = torch.empty(*batch, 2, dtype=torch.float64)
        draw = KeyedNoise(("contract", "start")).normal(like, 0)
        return (self.levels(sampler).rows[0].sigma * draw).to(self.device)


#: A path that begins without signal is the hardest.
BED = TestBed(MIXTURE, Rectified())


class ScoreAlone(Score):
    """A model with only a score."""

    def __init__(self, model: Score) -> None:
        super().__init__()
        self.model = model

    def score(self, x: Tensor, level: Level[Any]) -> Tensor:
        return self.model.score(x, level)


class DenoiserAlone(Denoiser):
    """A denoiser without a log-density."""

    def __init__(self, model: Denoiser) -> None:
        super().__init__()
        self.model, self.schedule = model, model.schedule

    def denoiser(self, x: Tensor, level: Level[Any]) -> Tensor:
        return self.model.denoiser(x, level)


class Changed(DenoiserAlone):
    """A denoiser whose output is changed by a function of the output and the level."""

    def __init__(self, model: Denoiser, change: Callable[[Tensor, Level[Any]], Tensor]) -> None:
        super().__init__(model)
        self.change = change

    def denoiser(self, x: Tensor, level: Level[Any]) -> Tensor:
        return self.change(super().denoiser(x, level), level)

    def log_density(self, x: Tensor, level: Level[Any]) -> Tensor:
        return cast(Density, self.model).log_density(x, level)


def states(sampler: Sampler, bed: TestBed = BED) -> str | None:
    """N steps yield N finite states of the start's shape, and no state is changed later."""
    levels = bed.levels(sampler)
    reason = sampler.why_incompatible(bed.model, levels)
    if reason is not None:
        return f"it refuses levels that it must accept: {reason}"
    for batch in ((), (4,), (2, 3)):
        x = bed.start(sampler, *batch)
        before = x.clone()
        steps = list(iterate(sampler, bed.model, x, levels, _noise()))
        for number, step in enumerate(steps):
            if step.x0_hat.shape != x.shape:
                shape = tuple(step.x0_hat.shape)
                return f"from a start of shape {tuple(x.shape)} x̂₀ has the shape {shape}"
            if not (step.x.isfinite().all() and step.x0_hat.isfinite().all()):
                return _not_finite(sampler, levels, number)
            if ("acceptance" in step.info) is not sampler.rejects:
                return f"rejects is {sampler.rejects}, and its steps have {list(step.info)}"
        if not torch.equal(x, before):
            return "the start was changed in place"
        if any(one.x.data_ptr() == two.x.data_ptr() for one, two in pairwise(steps)):
            return "a yielded state was changed in place"
    return None


def end(sampler: Sampler, bed: TestBed = BED) -> str | None:
    """The last state is the last x̂₀, bit for bit, if and only if `ends_at_data`."""
    if sampler.brings_levels:  # such a sampler has its own last step
        return DOES_NOT_APPLY
    x, levels = bed.start(sampler, 4), bed.levels(sampler)
    *_, last = iterate(sampler, bed.model, x, levels, _noise())
    if not last.x.isfinite().all():  # NaN differs from itself
        return _where_not_finite(sampler, bed, x)
    if torch.equal(last.x, last.x0_hat) == sampler.ends_at_data:
        return None
    hint = ": declare ends_at_data = False, or yield Step(x0_hat, x0_hat) at σ=0"
    is_or_not = "is not" if sampler.ends_at_data else "is"
    fault = f"the last state {is_or_not} its x̂₀, and ends_at_data is {sampler.ends_at_data}"
    return fault + hint * sampler.ends_at_data


def bits(sampler: Sampler, bed: TestBed = BED) -> str | None:
    """The same key gives the same bits; another key changes them if and only if `stochastic`."""
    x = bed.start(sampler, 4)
    first, again, other = (bed.run(sampler, x, key) for key in (1, 1, 2))
    if not first.isfinite().all():  # NaN differs from itself
        return _where_not_finite(sampler, bed, x)
    if not torch.equal(first, again):
        return "the same key gives other bits"
    if torch.equal(first, other) == sampler.stochastic:
        does_or_not = "does not draw" if sampler.stochastic else "draws"
        return f"it {does_or_not} from noise, and stochastic is {sampler.stochastic}"
    return None


def neighbours(sampler: Sampler, bed: TestBed = BED) -> str | None:
    """Samples do not depend on other samples of the batch; each has its own noise."""
    for dtype in (torch.float32, torch.float64):
        x = bed.start(sampler, 16).to(dtype)
        other = 3 * x.flip(0) + 1
        other[5] = x[5]
        one, two = (bed.run(sampler, start) for start in (x, other))
        if not one.isfinite().all():
            return _where_not_finite(sampler, bed, x)
        if not torch.equal(one[5], two[5]):
            return "a sample depends on its neighbours"
        if sampler.stochastic and torch.equal(*bed.run(sampler, x[:1].expand(2, -1))):
            return "the samples of a batch share their noise"
        # DDIM(1) forgets a start without signal
        if not sampler.stochastic and torch.equal(one[4], two[4]):
            return "the start does not matter"
    return None


def sampler_type(sampler: Sampler, bed: TestBed = BED) -> str | None:
    """States keep the dtype and the device of the start."""
    for dtype in (torch.float32, torch.float64):
        x = bed.start(sampler, 3).to(dtype)
        for step in iterate(sampler, bed.model, x, bed.levels(sampler), _noise()):
            for name, value in (("state", step.x), ("x̂₀", step.x0_hat)):
                if (value.dtype, value.device) != (x.dtype, x.device):
                    return f"from a {x.dtype} start on {x.device} the {name} is {value.dtype}"
    return None


def evaluations(sampler: Sampler, bed: TestBed = BED) -> str | None:
    """The number of evaluations is `evaluations(steps)`, or with final=none `plain_evaluations`.

    final=none is tested for samplers that accept such levels.
    """
    few = sampler.fewest_steps
    for steps in sorted({few, max(few, 2), STEPS}):
        runs = [("evaluations", sampler.evaluations(steps), bed.levels(sampler, steps))]
        if not (sampler.holds or sampler.brings_levels):
            whole = bed.levels(sampler, steps + 1)
            plain = TruncatedLevels(whole.t[:-1], whole.alpha[:-1], whole.sigma[:-1])
            if sampler.why_incompatible(bed.model, plain) is None:
                runs.append(("plain_evaluations", sampler.plain_evaluations(steps), plain))
        for name, expected, levels in runs:
            counted = Counted(bed.model)
            final_state(sampler, counted, bed.start(sampler, 3), levels, _noise())
            if expected is not None and counted.evaluations != expected:
                return f"{name}({steps}) is {expected}, but the run makes {counted.evaluations}"
    return None


def noise(sampler: Sampler, bed: TestBed = BED) -> str | None:
    """No evaluation has a larger noise-to-signal ratio than `most_noise`."""
    if sampler.holds or sampler.brings_levels:
        return DOES_NOT_APPLY
    # below the largest ratio of the path, so that a sampler can evaluate above its levels
    top = min(bed.schedule.noise_range[1], 8.0) / 2
    levels = grids.karras(bed.schedule, STEPS, noise_max=top, noise_min=top / 9)
    ratios = [0.0]

    def watch(x0_hat: Tensor, level: Level[Any]) -> Tensor:
        ratios.append(float(torch.as_tensor(level.sigma / level.alpha).max()))
        return x0_hat

    final_state(sampler, Changed(bed.model, watch), bed.start(sampler, 4), levels, _noise())
    declared, most = sampler.most_noise(bed.schedule, levels), max(ratios)
    if most <= declared * (1 + 1e-6):
        return None
    return f"most_noise is {declared:.4g}, and the model is evaluated at {most:.4g}"


def needs(sampler: Sampler, bed: TestBed = BED) -> str | None:
    """A sampler that `needs` a score accepts every score; other samplers refuse it in one line."""
    levels, x = bed.levels(sampler), bed.start(sampler, 3)
    alone: Any = ScoreAlone(bed.model)
    if sampler.needs_density:
        without = alone if sampler.needs is Score else DenoiserAlone(bed.model)
        if not _refuses(sampler.why_incompatible(without, levels), "needs the log-density"):
            return "it needs a density, and does not refuse a model without one"
        alone.log_density = cast(Density, bed.model).log_density
    reason = sampler.why_incompatible(alone, levels)
    if sampler.needs is not Score:
        refuses = _refuses(reason, "needs a denoiser")
        return None if refuses else "it needs a denoiser, and does not refuse a score"
    if reason is not None:
        return f"it needs a score, and refuses one: {reason}"
    runs = [final_state(sampler, model, x, levels, _noise()) for model in (alone, bed.model)]
    return None if torch.equal(*runs) else "it needs a score, and a denoiser gives other states"


def levels(sampler: Sampler, bed: TestBed = BED) -> str | None:
    """Levels that stand still, move or have no signal are refused as declared, in one line."""
    if sampler.brings_levels:
        refuses = _refuses(
            sampler.why_incompatible(bed.model, grids.uniform(bed.schedule, 3)), "its own levels"
        )
        return None if refuses else "it brings its levels, and accepts other levels"

    def refused(path: NoiseSchedule, levels: Levels) -> str | None:
        return sampler.why_incompatible(bed.law.oracle(path).to(bed.device), levels)

    if sampler.holds:
        refuses = _refuses(refused(EDM(), grids.uniform(EDM(), 3)), "grid=hold")
        return None if refuses else "it holds a level, and accepts levels that move"
    times = torch.tensor([1.0, 1.0, 0.5], dtype=torch.float64)
    for path, still in (
        (EDM(), grids.hold(EDM(), 3)),
        (EDM(), grids.hold(EDM(), 3, noise=0.5)),
        (Rectified(), Levels(times, *Rectified()(times))),  # twice without signal
    ):
        if not _refuses(refused(path, still), "stand still: use a grid"):
            return "it goes from level to level, and accepts levels that stand still"
    reason = refused(Rectified(), grids.uniform(Rectified(), 3))
    if sampler.needs_signal and not _refuses(reason, "no signal is left"):
        return "it needs signal, and accepts a level without signal"
    if not sampler.needs_signal and reason is not None:
        return f"needs_signal is False, and it refuses a level without signal: {reason}"
    return None


def lost(sampler: Sampler, bed: TestBed = BED) -> str | None:
    """A sample that is NaN stays NaN, and does not change other samples."""
    if sampler.holds:  # MALA rejects a proposal that is NaN, and keeps the state before it
        return DOES_NOT_APPLY
    levels, x = bed.levels(sampler), bed.start(sampler, 4)
    if not bed.run(sampler, x).isfinite().all():
        return _where_not_finite(sampler, bed, x)
    middle = levels.rows[levels.steps // 2]
    first = torch.arange(4, device=x.device)[:, None] == 0

    def fail(x0_hat: Tensor, level: Level[Any]) -> Tensor:
        low = torch.as_tensor(level.sigma * middle.alpha < middle.sigma * level.alpha)
        return torch.where(first & low.to(x0_hat.device), torch.nan, x0_hat)

    x = final_state(sampler, Changed(bed.model, fail), x, levels, _noise())
    if x[0].isfinite().all():
        return "a sample whose x̂₀ is NaN becomes a number again"
    return None if x[1:].isfinite().all() else "a sample that is NaN makes other samples NaN"


def coupling(sampler: Sampler, bed: TestBed = BED) -> str | None:
    """If `couples`, runs with the noise of one Brownian path converge strongly."""
    if not (sampler.couples and sampler.stochastic):
        return DOES_NOT_APPLY
    order = strong_order(sampler)
    return None if order > 0.4 else f"with the noise of one Brownian path the order is {order:.2f}"


def strong_order(sampler: Sampler) -> float:
    """The strong order with the noise of one Brownian path, on a Gaussian."""
    path, steps = VPCosine(), (30, 60)  # fewer steps would cut the noise of EDMChurn
    model = GAUSSIAN.oracle(path)
    x = Exact().draw(GAUSSIAN, 60, interior(path, 1).rows[0], (0, 0, 0))

    def run(n: int) -> Tensor:
        levels = interior(path, n)
        return final_state(sampler, model, x, levels, BrownianNoise(("coupled",), levels))

    best = run(240)
    coarse, fine = (float((run(n) - best).norm()) for n in steps)
    return math.log2(coarse / fine)


#: Promises that may fail on some schedules: on one that begins without signal (0/0 in a
#: coefficient), one that ends with noise at t = 0 (the step to the data then has no length in t),
#: and because α and σ are arbitrary functions.
ON_EVERY_SCHEDULE: dict[str, Check] = {
    "states": states,
    "end": end,
    "evaluations": evaluations,
    "noise": noise,
}
#: Promises about the key, the batch, the dtype, the model and NaN. They do not depend on the
#: schedule, which only supplies coefficients. `levels` has its own schedules.
ON_ONE_SCHEDULE: dict[str, Check] = {
    "bits": bits,
    "neighbours": neighbours,
    "coupling": coupling,
    "type": sampler_type,
    "needs": needs,
    "levels": levels,
    "lost": lost,
}
SAMPLER = ON_EVERY_SCHEDULE | ON_ONE_SCHEDULE


def _not_finite(sampler: Sampler, levels: Levels, number: int) -> str:
    return f"a state or an x̂₀ is not finite{place_of(sampler, levels, number)}"


def _where_not_finite(sampler: Sampler, bed: TestBed, x: Tensor) -> str:
    """The fault of a run whose last state is not finite, with the first such step."""
    levels = bed.levels(sampler)
    steps = enumerate(iterate(sampler, bed.model, x, levels, _noise()))
    bad = (n for n, one in steps if not (one.x.isfinite().all() and one.x0_hat.isfinite().all()))
    return _not_finite(sampler, levels, next(bad, levels.steps - 1))


def _noise(key: int = 0) -> KeyedNoise:
    return KeyedNoise((key, "contract"))


def _refuses(reason: str | None, words: str) -> bool:
    """Whether the reason is one line with these words."""
    return reason is not None and words in reason and "\n" not in reason
