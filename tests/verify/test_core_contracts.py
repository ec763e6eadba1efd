"""The contracts of the members of `core`: every fault is named."""

from __future__ import annotations

import dataclasses
from itertools import count

import torch

from samplerbench.core.grids import Levels, to_data, uniform
from samplerbench.core.level_laws import UniformTime
from samplerbench.core.schedules import EDM, Rectified
from samplerbench.core.starts import Exact, Prior
from samplerbench.core.targets import DataTarget, NoiseTarget, VTarget
from samplerbench.verify.core_contracts import (
    grid_faults,
    level_law_faults,
    schedule_faults,
    start_faults,
    target_faults,
)


def changed(base, **methods):
    """A member of a class with other methods."""
    return dataclasses.dataclass(frozen=True)(type("Changed", (base,), methods))()


def names(faults, words):
    return any(words in line for line in faults)


def test_schedules():
    for methods, words in (
        ({"alpha": lambda self, t: 0.9 - 0.9 * t}, "α(0) is 0.9"),
        ({"variance": lambda self, t: t.square() - 1e-3}, "negative"),
        ({"variance": lambda self, t: (t * (1 - t)).square()}, "does not grow"),
        ({"time_at": lambda self, k: k / (1 + k) + 1e-9}, "time_at(noise_to_signal(t)) differs"),
        ({"time_at": lambda self, k: (k / (1 + k)).round(decimals=9)}, "(time_at(κ)) differs"),
        ({"rates": lambda self, t: (0 * t - 1.001, 2 * t)}, "the rate of α"),
        ({"rates": lambda self, t: (0 * t - 1, 2.001 * t)}, "the rate of σ²"),
        ({"alpha": lambda self, t: 1 - t.double()}, "shape and dtype"),
    ):
        assert names(schedule_faults(changed(Rectified, **methods)), words), words


def part(levels, row):
    return Levels(*(v[row] for v in (levels.t, levels.alpha, levels.sigma)))


def test_grids():
    calls = count(1)
    for grid, words in (
        (lambda schedule, steps: uniform(schedule, steps + 1), "4 steps have 6 rows"),
        (lambda schedule, steps: part(uniform(schedule, steps + 1), slice(-1)), "not the data"),
        (lambda schedule, steps: part(uniform(schedule, steps), [0, 1, 1, 2, 4]), "every step"),
        (lambda schedule, steps: to_data(schedule, torch.tensor([1.5]).double()), "outside [0, 1]"),
        (lambda schedule, steps: part(uniform(EDM(9.0), steps), slice(None)), "not on the path"),
        (lambda schedule, steps: uniform(schedule, steps, t_max=1 / next(calls)), "other levels"),
    ):
        assert names(grid_faults(grid, EDM(), 4), words), words
    backwards = torch.tensor([0.2, 0.5]).double()
    still = Levels(backwards, torch.ones(2).double(), torch.tensor([2.0, 1.0]).double())
    assert names(grid_faults(lambda schedule, steps: still, EDM(), 1), "times do not decrease")


def test_targets():
    for base, methods, words in (
        (DataTarget, {"denoise": lambda self, x, y, level: y + 1e-6}, "differs from x₀"),
        (VTarget, {"regress": lambda self, x0, eps, level: eps * level.alpha}, "differs from x₀"),
        (NoiseTarget, {"why_incompatible": lambda self, levels: None}, "is not finite"),
        (DataTarget, {"why_incompatible": lambda self, levels: "no"}, "is finite, and the refusal"),
        (DataTarget, {"denoise": lambda self, x, y, level: y * level.sigma / level.sigma}, "data"),
    ):
        assert names(target_faults(changed(base, **methods)), words), words

    def of_floats(self, x0, eps, level):
        return x0 + isinstance(level.t, float)

    assert names(target_faults(changed(DataTarget, regress=of_floats)), "a level of floats")


def test_starts():
    def unkeyed(self, dataset, count, level, key):
        return self.combine(*torch.randn(2, count, dataset.dim).double(), level)

    def same(self, dataset, count, level, key):
        return Prior().draw(dataset, count, level, (0, 0, 0))

    def single(self, dataset, count, level, key):
        return Prior().draw(dataset, count, level, key).float()

    for base, methods, words in (
        (Exact, {"combine": lambda self, x0, eps, level: x0 + level.sigma * eps}, "the mean is"),
        (Exact, {"combine": lambda self, x0, eps, level: 0.8 * x0 + eps}, "the covariance is"),
        (Prior, {"draw": unkeyed}, "other bits"),
        (Prior, {"draw": same}, "the block does not matter"),
        (Prior, {"draw": single}, "torch.float32"),
    ):
        assert names(start_faults(changed(base, **methods)), words), words


def test_level_laws():
    def draws(make):
        return lambda self, n, schedule, generator: make(n, generator)

    for methods, words in (
        ({"sample": draws(lambda n, g: 2 * torch.rand(n, generator=g).double())}, "outside [0, 1]"),
        ({"sample": draws(lambda n, g: torch.rand(n, generator=g))}, "torch.float32"),
        ({"sample": draws(lambda n, g: torch.rand(n).double())}, "the global random generator"),
        ({"sample": draws(lambda n, g: torch.ones(n).double())}, "does not decide"),
        ({"largest": lambda self, schedule: 1.0}, "more noise than the largest"),
        ({"largest": lambda self, schedule: 99.0}, "and the schedule ends at 10"),
    ):
        assert names(level_law_faults(changed(UniformTime, **methods), EDM(10.0)), words), words
