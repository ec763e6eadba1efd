"""A run as a table of coefficients: it must give what the sampler gives, for every sampler."""

import inspect
import math
import pkgutil
from collections.abc import Iterator
from importlib import import_module

import pytest
import torch

from helpers import Clipped, mostly_slow
from samplerbench import samplers
from samplerbench.bench import coefficients
from samplerbench.bench.coefficients import NotLinear, Runs, recorded, with_tangents_by_rows
from samplerbench.core.grids import Level, Levels, Truncated, at_noise, in_data_units, log_snr
from samplerbench.core.models import Denoiser
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import EDM, Rectified, VPLinear
from samplerbench.core.starts import Prior
from samplerbench.datasets.grid_mixture import grid_mixture
from samplerbench.datasets.two_modes import two_modes
from samplerbench.datasets.two_moons import TwoMoons
from samplerbench.samplers.base import Sampler, final_state
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.dormand_prince import DormandPrince
from samplerbench.samplers.heun import Heun

LAW = grid_mixture(10.0, 0.1)
STEPS = 5


def deterministic() -> Iterator[Sampler]:
    for module in pkgutil.walk_packages(samplers.__path__, "samplerbench.samplers."):
        for kind in vars(import_module(module.name)).values():
            ours = inspect.isclass(kind) and kind.__module__ == module.name
            if ours and issubclass(kind, Sampler) and not inspect.isabstract(kind):
                if kind.holds or kind.brings_levels or kind.adaptive:
                    continue
                fixed = (one for one in kind.variants() if one.evaluations(STEPS) is not None)
                yield from (one for one in fixed if not one.stochastic)


def levels(path, logs: torch.Tensor) -> Levels:
    return at_noise(path, logs.exp())


LOGS = torch.linspace(math.log(9.0), math.log(0.05), STEPS, dtype=torch.float64)


def start(path) -> torch.Tensor:
    return Prior().draw(LAW, 6, levels(path, LOGS).rows[0], (0, 0, 0))


PATHS = [(EDM(10.0),), (VPLinear(),), (Rectified(),)]


@pytest.mark.parametrize("path", mostly_slow(PATHS, 1), ids=repr)
def test_tables_give_the_outputs_and_derivatives_of_a_sampler(path, monkeypatch):
    for sampler in deterministic():
        model, x = LAW.oracle(path), start(path)
        other = torch.linspace(math.log(9.0), math.log(0.3), STEPS, dtype=torch.float64)
        grids = [levels(path, LOGS), levels(path, other)]
        runs = Runs(sampler, model, x, grids[0])
        assert runs.linear, sampler
        found = runs.outputs(grids)
        for one, out in zip(grids, found, strict=True):
            alone = final_state(sampler, model, x, one, KeyedNoise(("x",)))
            assert torch.allclose(out, alone, rtol=0, atol=1e-9), sampler
        calls = sampler.evaluations(STEPS)
        assert (runs.grids, runs.evaluations) == (2, 2 * calls * len(x)), sampler
        change = 1e-6
        moved = []
        for place in range(1, STEPS):
            logs = LOGS.clone()
            logs[place] += change
            moved.append(levels(path, logs))
        plain = runs.outputs([grids[0], *moved])
        for several in (0, 99):
            monkeypatch.setattr(coefficients, "_SEVERAL", several)
            states = runs.variations(grids[0], moved, change)
            assert torch.allclose(states, plain, rtol=0, atol=1e-9), sampler
            assert (states[1:] - states[:1]).abs().max() > change / 100, sampler


def test_a_truncated_run_ends_in_the_units_of_the_data():
    path = VPLinear()
    grid = Truncated(lambda schedule, steps: log_snr(schedule, steps, noise_min=0.1))
    truncated, model = grid(path, 4), LAW.oracle(path)
    x = start(path)
    (out,) = Runs(Heun(), model, x, truncated).outputs([truncated])
    alone = final_state(Heun(), model, x, truncated, KeyedNoise(("x",)))
    assert torch.allclose(out, in_data_units(alone, truncated), rtol=0, atol=1e-9)


def test_draws_have_columns_of_their_own():
    path = EDM(10.0)
    table = recorded(DDIM(1.0), path, levels(path, LOGS))
    assert (table.evaluations, table.draws) == (STEPS, STEPS - 1)  # the step to the data draws none


def test_a_denoiser_that_looks_at_the_levels_of_its_batch_gets_near_ones():
    """The quadrature of a curve is as fine as the lowest level of a batch needs."""
    path, law = EDM(10.0), TwoMoons()
    model, x = law.oracle(path), start(path)
    base = levels(path, LOGS)
    derivative = model.derivative(x, base.rows[1])[1]
    by_gradients = super(type(model), model).derivative(x, base.rows[1])[1]
    assert torch.allclose(derivative, by_gradients, rtol=1e-6, atol=1e-9)


def test_a_sampler_that_is_not_linear_is_run_alone():
    path = EDM(10.0)
    grid, x = levels(path, LOGS), start(path)
    sampler = Clipped(0.0)
    runs = Runs(sampler, LAW.oracle(path), x, grid)
    assert not runs.linear
    (out,) = runs.outputs([grid])
    assert torch.equal(out, final_state(sampler, LAW.oracle(path), x, grid, KeyedNoise(("x",))))
    with pytest.raises(NotLinear, match="chooses its own steps"):
        recorded(DormandPrince(), path, grid)


@pytest.mark.parametrize("grids", [1, 3])
def test_tangents_on_several_grids_are_products_with_derivatives(grids):
    """Each grid has a level of its own."""
    law = two_modes(3)
    model = law.oracle(EDM(10.0))
    random = torch.Generator().manual_seed(1)
    x = torch.randn(grids, 4, 5, 3, generator=random, dtype=torch.float64)  # a state, 3 tangents
    sigma = torch.linspace(0.5, 2, grids, dtype=torch.float64)[:, None, None]
    level = Level(0.1 * sigma, torch.ones_like(sigma), sigma)
    found = with_tangents_by_rows(model)(x.reshape(grids, 20, 3), level).reshape(x.shape)
    for place in range(grids):
        own = Level(0.1 * float(sigma[place]), 1.0, float(sigma[place]))
        x0_hat, derivative = Denoiser.derivative(model, x[place, 0], own)
        torch.testing.assert_close(found[place, 0], x0_hat)
        moved = torch.einsum("nji,cni->cnj", derivative, x[place, 1:])
        torch.testing.assert_close(found[place, 1:], moved)
