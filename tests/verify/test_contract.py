"""The contracts' checks: each finds the member that breaks its promise, and names the promise."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache, partial
from itertools import count

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import softplus

from samplerbench.app.commands.examine import objects
from samplerbench.core.fitted_grids import EqualCost, FittedGrid
from samplerbench.core.grids import Level, Levels, to_data, uniform
from samplerbench.core.level_laws import UniformTime
from samplerbench.core.models import Score
from samplerbench.core.noise import torch_generator
from samplerbench.core.schedules import EDM, Rectified
from samplerbench.core.starts import Exact, Moments, Prior, Start
from samplerbench.core.targets import DataTarget, NoiseTarget, VTarget
from samplerbench.core.weightings import Uniform, Weighting
from samplerbench.datasets.base import Dataset
from samplerbench.datasets.rings import Rings, RingsOracle
from samplerbench.metrics.base import Distance, LawMetric, Measurement, Metric
from samplerbench.metrics.kl_law import KLLaw
from samplerbench.metrics.w2_law_gaussian import W2LawGaussian
from samplerbench.networks.base import Network, lecun_linear
from samplerbench.objectives.implicit import Implicit
from samplerbench.samplers.base import Step
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.mala import MALA
from samplerbench.verify.contract import CONTRACTS, broken, faults
from samplerbench.verify.network_contract import DIM
from samplerbench.verify.sampler_contract import TestBed

UNKEYED = np.random.default_rng()


def changed(base, **methods):
    """A member of a class with other methods."""
    return dataclasses.dataclass(frozen=True)(type("Changed", (base,), methods))()


class InPlace(DDIM):
    def steps(self, model, x, levels, noise):
        for step in super().steps(model, x, levels, noise):
            yield Step(x.copy_(step.x), step.x0_hat)


class OneTooMany(DDIM):
    def steps(self, model, x, levels, noise):
        for step in super().steps(model, x, levels, noise):
            yield step
        yield Step(step.x.clone(), step.x0_hat)


class NotTheEnd(DDIM):
    def steps(self, model, x, levels, noise):
        for step in super().steps(model, x, levels, noise):
            yield Step(step.x + 1e-9, step.x0_hat)


class OtherBits(DDIM):
    def steps(self, model, x, levels, noise):
        return super().steps(model, x + UNKEYED.normal(), levels, noise)


class Global(DDIM):
    def steps(self, model, x, levels, noise):
        torch.manual_seed(0)
        return super().steps(model, x + 1e-3 * torch.rand_like(x), levels, noise)


class SecretNoise(DDIM):
    def steps(self, model, x, levels, noise):
        return super().steps(model, x + noise.normal(x, 99), levels, noise)


class Crowd(DDIM):
    def steps(self, model, x, levels, noise):
        centre = x.mean(0, keepdim=True) if x.ndim > 1 else 0.0
        return super().steps(model, x + centre, levels, noise)


class Single(DDIM):
    def steps(self, model, x, levels, noise):
        for step in super().steps(model, x, levels, noise):
            yield Step(step.x.float(), step.x0_hat.float())


class Miscounted(DDIM):
    def evaluations(self, steps):
        return steps + 1


class Above(DDIM):
    def steps(self, model, x, levels, noise):
        first = levels.rows[0]
        model.denoiser(x, Level(first.t, first.alpha, 1.1 * first.sigma))
        return super().steps(model, x, levels, noise)


class AnyScore(DDIM):
    needs = Score


class Anywhere(DDIM):
    def why_incompatible(self, model, levels):
        return super()._why_not_on(levels) if not isinstance(model, self.needs) else None


class Forgetful(DDIM):
    def steps(self, model, x, levels, noise):
        for step in super().steps(model, x, levels, noise):
            yield Step(step.x.nan_to_num(0.5), step.x0_hat.nan_to_num(0.5))


class Spreading(DDIM):
    def steps(self, model, x, levels, noise):
        for step in super().steps(model, x, levels, noise):
            spread = 0 * step.x.sum(0, keepdim=True) if x.ndim > 1 else 0
            yield Step(step.x + spread, step.x0_hat + spread)


class Raises(DDIM):
    def steps(self, model, x, levels, noise):
        raise RuntimeError("out of order\nand more")


class Turned:
    """Noise whose draws are changed by a function of the draw and the step."""

    def __init__(self, noise, turn):
        self.noise, self.turn = noise, turn

    def normal(self, like, step, draw=0):
        return self.turn(self.noise.normal(like, step, draw), step)


class OneNoise(DDIM):
    def steps(self, model, x, levels, noise):
        first = Turned(noise, lambda z, step: z.reshape(-1, z.shape[-1])[0].expand(z.shape))
        return super().steps(model, x, levels, first)


class OtherSigns(DDIM):
    def steps(self, model, x, levels, noise):
        return super().steps(model, x, levels, Turned(noise, lambda z, step: (-1) ** step * z))


class Undeclared(MALA):
    rejects = False


SAMPLERS = [
    (InPlace(), "states", "changed in place"),
    (OneTooMany(), "states", "must be a sampler that yields 5 states"),
    (Undeclared(), "states", "rejects is False, and its steps have ['acceptance']"),
    (NotTheEnd(), "end", "is not its x̂₀, and ends_at_data is True: declare"),
    (OtherBits(), "bits", "the same key gives other bits"),
    (Global(), "type", "a global random generator is used"),
    (SecretNoise(), "bits", "draws from noise, and stochastic is False"),
    (Crowd(), "neighbours", "depends on its neighbours"),
    (OneNoise(1.0), "neighbours", "share their noise"),
    (OtherSigns(1.0), "coupling", "of one Brownian path the order is"),
    (Single(), "type", "from a torch.float64 start on cpu the state is torch.float32"),
    (Miscounted(), "evaluations", "is 2, but the run makes 1"),
    (AnyScore(), "needs", "denoiser"),
    (Anywhere(), "needs", "does not refuse a score"),
    (Anywhere(), "levels", "accepts levels that stand still"),
    (Above(), "noise", "most_noise is"),
    (Forgetful(), "lost", "becomes a number again"),
    (Spreading(), "lost", "makes other samples NaN"),
    (Raises(), "states", "RuntimeError: out of order"),
]
time_at = Rectified.time_at


def wrong_between_the_times(self, ratio):
    return time_at(self, ratio) + 1e-9 * ((ratio > 80) & (ratio < 105))


SCHEDULES = [
    (changed(Rectified, **methods), promise, words)
    for methods, promise, words in (
        ({"alpha": lambda self, t: 0.9 - 0.9 * t}, "data", "α(0) is 0.9"),
        ({"variance": lambda self, t: t.square() - 1e-3}, "scales", "negative"),
        ({"variance": lambda self, t: (t * (1 - t)).square()}, "growth", "does not grow"),
        ({"time_at": lambda self, k: time_at(self, k) + 1e-9}, "inverse", "signal(t)) differs"),
        ({"time_at": lambda self, k: k / (1 + k)}, "inverse", "time_at(inf) is not a number"),
        ({"time_at": wrong_between_the_times}, "inverse", "time_at(κ)) differs"),
        ({"rates": lambda self, t: (0 * t - 1.001, 2 * t)}, "rates", "the rate of α"),
        ({"rates": lambda self, t: (0 * t - 1, 2.001 * t)}, "rates", "the rate of σ²"),
        ({"alpha": lambda self, t: 1 - t.double()}, "type", "(2, 3) is torch.float64"),
    )
]


def part(levels, rows):
    return Levels(*(v[rows] for v in (levels.t, levels.alpha, levels.sigma)))


CALLS = count(1)
BACKWARDS = Levels(*torch.tensor([[0.2, 0.5], [1.0, 1.0], [2.0, 1.0]]).double())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Deaf(FittedGrid):
    """A recipe that asks no denoiser."""

    def fit(self, to):
        return EqualCost(torch.tensor([5.0, 1.0]).double(), torch.tensor([0.0, 1.0]).double())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Restless(FittedGrid):
    """A recipe that never gives the same table."""

    def fit(self, to):
        table = torch.tensor([5.0, 1.0]).double()
        return EqualCost(table, torch.tensor([0.0, next(CALLS)]).double())


GRIDS = [
    (Deaf(), "table", "the fit to other data gives the same table"),
    (Restless(), "table", "a second fit gives another table"),
    (lambda path, steps: uniform(path, steps + 1), "rows", "1 steps have 3 rows"),
    (lambda path, steps: uniform(path, min(steps, 99)), "rows", "200 steps have 100 rows"),
    (lambda path, steps: part(uniform(path, steps + 1), slice(-1)), "data", "not the data"),
    (lambda path, steps: part(uniform(path, 1), [0, 0, 1]), "falling", "the noise does not fall"),
    (lambda path, steps: BACKWARDS, "falling", "the times do not fall"),
    (lambda path, steps: to_data(path, torch.tensor([1.5]).double()), "path", "outside [0, 1]"),
    (lambda path, steps: uniform(EDM(9.0), steps), "path", "a level is not on EDM(sigma_max=10.0)"),
    (lambda path, steps: uniform(path, steps, t_max=1 / next(CALLS)), "bits", "other levels"),
    (partial(uniform, t_max=2.0), "rows", "t_max=2.0: must be"),
]


def sinh(self, x0, eps, level):
    return x0.sinh()


TARGETS = [
    (changed(base, **methods), promise, words)
    for base, methods, promise, words in (
        (DataTarget, {"denoise": lambda self, x, y, level: y + 1e-6}, "inverse", "differs from x₀"),
        (VTarget, {"regress": lambda self, x0, eps, at: eps * at.alpha}, "inverse", "from x₀"),
        (
            DataTarget,
            {"regress": sinh, "denoise": lambda self, x, y, at: y.asinh()},
            "affine",
            "off",
        ),
        (
            DataTarget,
            {
                "regress": lambda self, x0, eps, at: x0 / (at.alpha * x0 + at.sigma * eps).norm(),
                "denoise": lambda self, x, y, at: y * x.norm(),
            },
            "rows",
            "y depends on other states, or",
        ),
        (DataTarget, {"denoise": lambda self, x, y, at: y.double()}, "rows", "is torch.float64"),
        (
            DataTarget,
            {"regress": lambda self, x0, eps, level: x0 + isinstance(level.t, float)},
            "rows",
            "y depends on other states, or",
        ),
        (NoiseTarget, {"why_incompatible": lambda self, levels: None}, "signal", "is not finite"),
        (DataTarget, {"why_incompatible": lambda self, levels: "no"}, "signal", "refusal is: n"),
        (DataTarget, {"denoise": lambda self, x, y, at: y * at.sigma / at.sigma}, "data", "finite"),
    )
]


def unkeyed(self, dataset, count, level, key):
    draws = UNKEYED.normal(size=(2, count, dataset.dim))
    return self.combine(*torch.from_numpy(draws), level)


def same(self, dataset, count, level, key):
    return Prior().draw(dataset, count, level, (0, 0, 0))


def single(self, dataset, count, level, key):
    return Prior().draw(dataset, count, level, key).float()


STARTS = [
    (changed(base, **methods), promise, words)
    for base, methods, promise, words in (
        (Exact, {"combine": lambda self, x0, eps, at: x0 + at.sigma * eps}, "moments", "the mean"),
        (Exact, {"combine": lambda self, x0, eps, at: 0.8 * x0 + eps}, "moments", "the covariance"),
        (Prior, {"moments": lambda self, mean, var, at: (mean, var)}, "moments", "the mean is"),
        (Prior, {"log_density": lambda self, x, at, path: path(x, at)}, "density", "differs from"),
        (Prior, {"log_density": lambda self, x, at, path: x}, "density", "has shape (30, 2)"),
        (Prior, {"combine": lambda self, x0, eps, at: x0 + eps}, "type", "is NaN unless uses_data"),
        (Prior, {"draw": unkeyed}, "key", "other bits"),
        (Prior, {"draw": same}, "key", "the seed does not matter"),
        (Prior, {"draw": single}, "type", "torch.float32"),
    )
]


def in_order(self, count, path, generator):
    return torch.rand(count, generator=generator).double().sort().values


def one_for_all(self, count, path, generator):
    return torch.rand(1, generator=generator).double().expand(count)


LEVEL_LAWS = [
    (changed(UniformTime, **methods), promise, words)
    for methods, promise, words in (
        (
            {"sample": lambda self, n, path, g: 2 * torch.rand(n, generator=g).double()},
            "type",
            "[0,",
        ),
        ({"sample": lambda self, n, path, g: torch.rand(n, generator=g)}, "type", "torch.float32"),
        ({"sample": lambda self, n, path, g: torch.zeros(1000).double()}, "type", "7 draws are"),
        ({"sample": lambda self, n, path, g: torch.rand(n).double()}, "generator", "a global"),
        ({"sample": lambda self, n, path, g: torch.ones(n).double()}, "generator", "not determine"),
        ({"sample": in_order}, "independent", "different means"),
        ({"sample": one_for_all}, "independent", "are correlated"),
        ({"largest": lambda self, path: 1.0}, "largest", "more noise than the largest"),
        ({"largest": lambda self, path: 99.0}, "largest", "ends at 10"),
    )
]
WEIGHTINGS = [
    (changed(Uniform, weight=weight), promise, words)
    for weight, promise, words in (
        (lambda self, level: -level.sigma, "weights", "negative"),
        (lambda self, level: 1 / (level.alpha - level.alpha), "weights", "division by zero"),
        (lambda self, level: level.sigma * 0, "weights", "all are 0"),
        (lambda self, level: 2.0 - isinstance(level.t, float), "levels", "another weight"),
        (lambda self, level: torch.as_tensor(level.sigma).flatten(), "levels", "have shape"),
    )
]


class Wide(Rings):
    def moments(self):
        return Moments.exact(torch.zeros(2).double(), torch.full((2,), 1e3).double())


class Noisier(Rings):
    """Draws a tenth noisier than the oracle assumes."""

    def sample(self, count, generator):
        state = generator.bit_generator.state
        clean = Rings(noise=1e-9).sample(count, generator)
        generator.bit_generator.state = state
        return clean + 1.1 * (super().sample(count, generator) - clean)


class Unkeyed(Rings):
    def draws(self, count, purpose, *key):
        return super().draws(count, "train", *key)


class Flat(Rings):
    def sample(self, count, generator):
        return super().sample(count, generator).float()


class RandomRings(Rings):
    def draws(self, count, purpose, *key):
        return torch.from_numpy(UNKEYED.random((count, 2)))


def sorted_draws(self, count, generator):
    x = Rings.sample(self, count, generator)
    return x[x.norm(dim=-1).argsort()]


@dataclasses.dataclass(frozen=True)
class Logistic(Dataset):
    """Logistic draws, with a log-density of its own and no oracle."""

    ln_p: Callable[[torch.Tensor], torch.Tensor]
    event_shape = (2,)

    def sample(self, count, generator):
        return torch.from_numpy(generator.logistic(size=(count, 2)))

    def log_density(self, x):
        return self.ln_p(x)


def without_alpha(self, x, level):
    return RingsOracle.denoiser(self, x, Level(level.t, 1.0, level.sigma))


def with_oracle(**methods):
    """Rings whose oracle has other methods."""
    kind = type("Changed", (RingsOracle,), methods)
    law = Rings()
    radii = torch.tensor(law.radii, dtype=torch.float64)
    return changed(Rings, oracle=lambda self, path: kind(path, radii, law.noise))


def of_other_rings(self, x, level):
    return RingsOracle(self.schedule, 1.01 * self.radii, self.noise).log_density(x, level)


DATASETS = [
    (Flat(), "draws", "8 draws of event_shape (2,) are torch.float32"),
    (Unkeyed(), "key", "('train', 0) and ('validation', 0) are the same"),
    (RandomRings(), "key", "the same purpose and seed give other draws"),
    (changed(Rings, sample=sorted_draws), "order", "first and the last draw are"),
    (changed(Rings, uniform_dim=2, from_uniforms=lambda self, u: u), "uniforms", "errors off"),
    (changed(Rings, uniform_dim=2, from_uniforms=lambda self, u: u[:9]), "uniforms", "(9, 2)"),
    (changed(Rings, noised=lambda self, noise: self), "noised", "standard errors off"),
    (with_oracle(log_density=None, denoiser=without_alpha), "oracle", "at α=0.6"),
    (changed(Rings, oracle=lambda self, path: Rings().oracle(EDM())), "oracle", "schedule"),
    (Wide(), "moments", "a variance is"),
    (changed(Rings, covariance=lambda self: torch.eye(2).double()), "moments", "a covariance is"),
    (Noisier(), "oracle", "is not the mean of x₀ given x"),
    (with_oracle(log_density=of_other_rings), "score", "the slope of log_density"),
    (
        with_oracle(log_density=lambda o, x, at: RingsOracle.log_density(o, x, at) - 0.01),
        "mass",
        "the density integrates to 0.99",
    ),
    (Logistic(lambda x: 0 * x[:, 0] - torch.inf), "density", "of a draw is not finite"),
    (Logistic(lambda x: -(x + softplus(-x)).sum(-1)), "density", "exp(log_density) integrates to"),
    (Logistic(lambda x: -(x + 2 * softplus(-x)).sum(-1) + 0.2), "density", "to 1.2"),
    (Logistic(lambda x: -(x - 1 + 2 * softplus(1 - x)).sum(-1)), "density", "standard errors off"),
    (
        with_oracle(denoiser=lambda o, x, at: RingsOracle.denoiser(o, x, at) + 1e-6 * x.mean()),
        "rows",
        "others",
    ),
    (
        with_oracle(denoiser=lambda o, x, at: RingsOracle.denoiser(o, x, at).double()),
        "type",
        "float64",
    ),
]


class Sound(Network):
    """A network that keeps the contract."""

    needs_level = True
    broadcasts = True

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.first = lecun_linear(DIM, DIM, torch_generator("first", seed))
        self.last = lecun_linear(DIM, DIM, torch_generator("last", seed))

    def forward(self, u, level):
        sigma = torch.as_tensor(level.sigma, dtype=u.dtype)
        return self.last(self.first(u).tanh()) * sigma

    def derivative(self, u, level):
        sigma = torch.as_tensor(level.sigma, dtype=u.dtype)
        slopes = 1 - self.first(u).tanh().square()
        chained = slopes[:, None] * self.first.weight.T @ self.last.weight.T
        return self(u, level), (sigma[..., None] * chained).transpose(0, 1)


class OfOddSeeds(Sound):
    """A network that mixes states if its seed is odd."""

    def __init__(self, seed):
        super().__init__(seed)
        self.odd = seed % 2

    def forward(self, u, level):
        return super().forward(u, level) + self.odd * u.mean()


def of_fewer_rows(u, level):
    """Whether the level has fewer rows than the state, because a group of states shares it."""
    return isinstance(level.t, torch.Tensor) and level.t.shape[:-1] != u.shape[:-1]


sound = Sound.forward
NETWORKS = (
    [
        (lambda seed, forward=forward: type("Changed", (Sound,), {"forward": forward})(seed), *rest)
        for forward, *rest in (
            (lambda net, u, at: sound(net, u - u.reshape(-1, DIM)[0], at), "neighbours", "rows"),
            (lambda net, u, at: sound(net, u, Level(0.5, 0.6, 0.8)), "needs_level", "not matter"),
            (
                lambda net, u, at: (1 + 0.01 * (u.ndim > 1)) * sound(net, u, at),
                "neighbours",
                "a row",
            ),
            (lambda net, u, at: sound(net, u, at) + isinstance(at.t, float), "levels", "another y"),
            (lambda net, u, at: sound(net, u, at) + of_fewer_rows(u, at), "broadcasts", "states"),
            (lambda net, u, at: sound(net, u, at).double(), "shapes", "torch.float64"),
            (lambda net, u, at: sound(net, u.mul_(1.1), at), "shapes", "in place"),
            (lambda net, u, at: sound(net, u, at) + UNKEYED.random(), "shapes", "y is random"),
            (lambda net, u, at: sound(net, u.detach(), at), "gradients", "reaches the state"),
            (lambda net, u, at: sound(net, u, at).detach() + u, "gradients", "first.weight"),
        )
    ]
    + [
        (
            lambda seed, own=own: type("Off", (Sound,), {"derivative": own})(seed),
            "derivative",
            words,
        )
        for own, words in (
            (lambda net, u, at: (1.1 * net(u, at), Sound.derivative(net, u, at)[1]), "not the out"),
            (lambda net, u, at: (net(u, at), Sound.derivative(net, u, at)[1].flip(0)), "automatic"),
        )
    ]
    + [
        (lambda seed: Sound(0), "seed", "another seed gives the same first.weight"),
        (lambda seed: Sound(seed % 2), "seed", "another seed gives the same first.weight"),
        (OfOddSeeds, "seed", "the network of seed 1 gives another y"),
        (lambda seed: nn.Sequential(Sound(seed), nn.Linear(2, 2)), "seed", "a global random"),
    ]
)


@cache
def hyvarinen():
    return objects("objective", "hyvarinen")[0]


def objective(**methods):
    """Hyvärinen's, with other methods."""

    def make(network):
        made = hyvarinen()(network)
        made.__class__ = type("Changed", (Implicit,), methods)
        return made

    return make


def backwards(own, x0, generator):
    return (-1 if torch.is_grad_enabled() else 1) * Implicit.loss(own, x0, generator)


def of_half_the_data(own, x0, generator):
    return honest(own, 0.3 * x0, generator)


honest = Implicit.loss
OBJECTIVES = [
    (objective(loss=loss), promise, words)
    for loss, promise, words in (
        (lambda own, x0, g: honest(own, x0, g) + torch.rand(()), "generator", "a global"),
        (
            lambda own, x0, g: honest(own, x0, g) + 0 * torch.rand((), generator=g),
            "generator",
            "same",
        ),
        (lambda own, x0, g: honest(own, x0, g).expand(2), "loss", "the loss is ["),
        (lambda own, x0, g: honest(own, x0.mul_(1.1), g), "loss", "in place"),
        (lambda own, x0, g: own.score(x0).square().sum() / 0, "loss", "the loss is inf"),
        (lambda own, x0, g: honest(own, x0, g).detach(), "gradients", "grad"),
        (backwards, "learning", "after 30 steps the loss is"),
        (of_half_the_data, "learning", "after 30 steps the error of the score is"),
    )
] + [
    (objective(conditional=True), "model", "not a Learned"),
    (lambda network: hyvarinen()(None), "network", "does not refuse"),
]


def metric(measure, base=Metric, **fields):
    """A metric of that measure of (samples, reference), a number or a measurement."""

    class Changed(Distance):
        def __init__(self, reference):
            super().__init__(reference.shape[1])
            self.reference = reference

        def measure(self, samples):
            value = measure(samples, self.reference)
            if isinstance(value, Measurement):
                return value
            return Measurement(float(value), float(value), float(value), None, 0)

    return changed(base, prepare=lambda self, reference, seed: Changed(reference), **fields)


def gap(x, y):
    return (x.mean(0) - y.mean(0)).norm()


def spread(x, y):
    """W₁ of the first coordinate."""
    q = torch.linspace(0, 1, 101, dtype=torch.float64)
    return (x[:, 0].double().quantile(q) - y[:, 0].double().quantile(q)).abs().mean()


def bounded(x, y):
    value = float(gap(x, y))
    return Measurement(value, value + 1, value + 2, None, 0)


def constant(value):
    return Measurement(float(value), float(value), float(value), None, 0)


def directed(x, y):
    value = float(gap(x, y))
    return Measurement(value, value, value, torch.ones(2).double(), 0)


METRICS = [
    (metric(bounded), "bounds", "is not between its bounds"),
    (metric(directed), "bounds", "of norm 1.41"),
    (metric(lambda x, y: gap(x, y) / 0), "bounds", "the value is"),
    (metric(lambda x, y: -gap(x, y)), "far", "after a shift"),
    (metric(lambda x, y: gap(x, y).square()), "units", "for a shift by"),
    (metric(lambda x, y: 1e-3 + gap(x, y)), "units", "from a cloud to itself"),
    (metric(gap), "units", "of the same mean"),
    (metric(lambda x, y: spread(x, y) / (1 + y.std())), "units", "ten times as large"),
    (metric(lambda x, y: gap(x, y) + torch.rand(()) / 1e3), "bits", "a global random generator"),
    (metric(lambda x, y: gap(x[:9], y)), "order", "in reverse order"),
    (metric(lambda x, y: gap(x.mul_(1.01), y)), "clouds", "changed in place"),
    (metric(lambda x, y: gap(x, y) + (x.dtype == torch.float32)), "clouds", "for float32 clouds"),
    (metric(gap, why_incompatible=lambda self, dim: "never"), "applies", "it accepts none: never"),
    (metric(gap, why_incompatible=lambda self, dim: "a\nb"), "refusal", "several lines"),
    (changed(KLLaw, estimate=lambda self, r: constant(1.0)), "divergence", "for equal laws"),
    (changed(KLLaw, estimate=lambda self, r: constant(r.mean())), "divergence", "laws -0.49"),
    (changed(KLLaw, estimate=lambda self, r: constant(r[0])), "divergence", "in reverse order"),
    (changed(KLLaw, integrate=lambda self, m, r: 1.0), "line", "to itself it is 1, and to another"),
    (
        changed(W2LawGaussian, between=lambda self, mean, variances, law: constant(1.0)),
        "exact",
        "to itself it is 1",
    ),
    (metric(gap, LawMetric, why_incompatible=lambda self, law: "no"), "applies", "it accepts none"),
]

BROKEN = {
    "sampler": SAMPLERS,
    "schedule": SCHEDULES,
    "grid": GRIDS,
    "target": TARGETS,
    "start": STARTS,
    "level_law": LEVEL_LAWS,
    "weighting": WEIGHTINGS,
    "dataset": DATASETS,
    "network": NETWORKS,
    "objective": OBJECTIVES,
    "metric": METRICS,
}


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[pytest.mark.slow] * (kind == "objective")) for kind in BROKEN],
)
def test_a_broken_promise_is_named(kind):
    again = 1 if kind == "objective" else 2  # what the first run leaves hides nothing
    for member, promise, words in BROKEN[kind] * again:
        named = faults({promise: CONTRACTS[kind][promise]}, member)
        assert words in str(named[promise]), (member, promise, named)
        assert "\n" not in named[promise]


def test_every_promise_can_be_broken():
    for kind, promises in CONTRACTS.items():
        cases = {promise for _, promise, _ in BROKEN[kind]}
        assert promises.keys() - {"settings", "threads"} == cases, kind


def cubes(self, x0, eps, level):
    return level.sigma * eps**3


def test_others_do_not_complain(simple_mixture):
    for sampler in (Miscounted(), NotTheEnd(), Single()):
        assert len(broken(CONTRACTS["sampler"], sampler)) == 1
    bed = TestBed(simple_mixture, EDM())
    assert broken(CONTRACTS["sampler"] | {"settings": lambda *_: None}, DDIM(), bed) == []
    assert broken(CONTRACTS["network"], Sound) == []
    assert broken(CONTRACTS["metric"], metric(spread)) == []
    assert broken(CONTRACTS["metric"], metric(gap, is_wasserstein=False)) == []
    assert broken(CONTRACTS["schedule"], changed(Rectified)) == []
    assert broken(CONTRACTS["start"], changed(Start, combine=cubes)) == []


class NeedsSignal(DDIM):
    """Divides by α, which is 0 where the path of the test begins, and does not say so."""

    def steps(self, model, x, levels, noise):
        return super().steps(model, x * levels.rows[0].alpha / levels.rows[0].alpha, levels, noise)


def test_states_that_are_not_finite_are_one_fault():
    found = broken(CONTRACTS["sampler"], NeedsSignal())
    # NaN differs from itself: bits must not say that the same key gives other bits
    assert len({line.partition(": ")[2] for line in found}) == 1, found
    assert all("not finite in step 1, from t=1, α=0" in line for line in found)
    assert {"states", "end", "bits", "neighbours", "lost"} == {line.split(":")[0] for line in found}


@dataclasses.dataclass
class Mutable(Weighting):
    def weight(self, level):
        return 1.0


def test_settings():
    class Loose(Rings):
        def __init__(self):
            self.extra = object()

    assert "settings" in broken(CONTRACTS["dataset"], Loose())[-1]
    (line,) = broken(CONTRACTS["weighting"], Mutable())
    assert line == "settings: write @dataclass(frozen=True) above class Mutable"
