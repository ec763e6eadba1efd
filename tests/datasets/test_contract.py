"""What every data set promises; the members are those of conf/dataset and of the package.

An exact denoiser is orthogonal to all functions of what it sees: E[(x₀ − x̂₀(x))·f(x)] = 0 for every
f of x = x₀ + σ·ε, if and only if x̂₀(x) = E[x₀ | x]. The draws and the oracle of a data set are two
pieces of code, and this holds for them together. The oracle's log-density is a third one: it must
integrate to 1, and its slope, by differences, must be the score (Tweedie).
"""

import inspect
import math
import pkgutil
from functools import cache
from importlib import import_module
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor

import samplerbench as sb
import samplerbench.datasets
from samplerbench.app.config.folders import members
from samplerbench.core.grids import Level
from samplerbench.core.models import Denoiser, Density
from samplerbench.core.schedules import EDM, Rectified
from samplerbench.datasets.base import Dataset
from samplerbench.datasets.divided import Divided
from samplerbench.datasets.empirical import Empirical
from samplerbench.datasets.rings import Rings, RingsOracle
from samplerbench.datasets.unseen import Unseen
from samplerbench.errors import InvalidSetting
from samplerbench.identity import identity

NEED_A_PATH = ("file", "image_folder", "density")  # or a function
NAMES = [name for name in members("dataset") if name not in NEED_A_PATH]
PURPOSES = ("train", "validation", "evaluation", "floor", "start")
#: σ as a share of the data's standard deviation.
SHARES = (0.03, 0.1, 0.3, 1.0)


@cache
def build(name: str) -> Dataset:
    try:
        return sb.dataset(name)
    except InvalidSetting as error:
        pytest.skip(str(error))


def normal(*shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(2).standard_normal(shape))


def some_states(law: Dataset, alpha: float, sigma: float, count: int = 40) -> Tensor:
    x0 = law.sample(count, np.random.default_rng(3))
    return alpha * x0 + sigma * normal(count, law.dim)


def check_orthogonality(law: Dataset, oracle: Denoiser) -> None:
    """|mean|/error of (x₀ − x̂₀)·f over functions f and noise levels is that of a mean 0."""
    count = 20_000 if law.dim <= 2 and law.known_law else 2_000
    x0 = law.sample(count, np.random.default_rng(1))
    eps = normal(*x0.shape)
    for share in SHARES:
        sigma = share * float(x0.std())
        x = x0 + sigma * eps
        x0_hat = oracle.denoiser(x, Level(math.nan, 1.0, sigma))
        for seen in (torch.ones_like(x), x, x0_hat - x, (x0_hat - x).tanh()):
            product = ((x0 - x0_hat) * seen).sum(-1)
            # where the noise moves no point beyond its neighbours, x̂₀ is x₀ but for rounding
            error = max(float(product.std()), 1e-9 * float(x0.var())) / count**0.5
            assert abs(float(product.mean())) < 5 * error


def check_tweedie(law: Dataset, oracle: Denoiser) -> None:
    """σ²·∇ log q = α·x̂₀ − x, the slope by differences of the log-density."""
    assert isinstance(oracle, Density)
    width = float(law.sample(1000, np.random.default_rng(0)).std())
    for alpha, sigma in ((1.0, 0.05 * width), (1.0, 20 * width), (0.6, 0.4 * width), (1e-3, 1.0)):
        at, x = Level(0.5, alpha, sigma), some_states(law, alpha, sigma)
        step = 1e-4 * sigma
        for axis in {0, law.dim // 2, law.dim - 1}:
            there = step * torch.eye(law.dim, dtype=x.dtype)[axis]
            rise = oracle.log_density(x + there, at) - oracle.log_density(x - there, at)
            slope = rise / (2 * step)
            drift = (alpha * oracle.denoiser(x, at) - x)[:, axis] / sigma**2
            scale = 1e-5 * (1 + float(oracle.log_density(x, at).abs().max())) / sigma
            torch.testing.assert_close(slope, drift, rtol=1e-5, atol=scale)
            torch.testing.assert_close(oracle.score(x, at)[:, axis], drift, rtol=1e-7, atol=scale)


def check_mass(law: Dataset, oracle: Denoiser) -> None:
    """∫ q = 1, by the trapezoidal rule, which is exact for a smooth density that vanishes."""
    x0 = law.sample(1000, np.random.default_rng(0))
    sigma = 0.2 * float(x0.std())
    step, reach = 0.4 * sigma, 15 * sigma
    axes = [
        torch.arange(float(x.min()) - reach, float(x.max()) + reach, step, dtype=x.dtype)
        for x in x0.T
    ]
    points = torch.cartesian_prod(*axes).reshape(-1, law.dim)
    density = oracle.log_density(points, Level(0.5, 1.0, sigma)).exp()
    mass = float(density.sum()) * step**law.dim
    assert mass == pytest.approx(1, abs=1e-6)


def check_batches(law: Dataset, oracle: Denoiser) -> None:
    """Any batch, a level for every state, no state depends on another; the state's precision."""
    t = torch.linspace(0.1, 0.9, 6, dtype=torch.float64).reshape(2, 3, 1)
    x, at = some_states(law, 0.5, 0.5, 6).reshape(2, 3, law.dim), Level(t, *Rectified()(t))
    each, density = oracle.denoiser(x, at), oracle.log_density(x, at)
    assert each.shape == x.shape
    assert density.shape == (2, 3)
    for i, j in ((0, 1), (1, 2)):
        own = Level(*(float(values[i, j]) for values in (at.t, at.alpha, at.sigma)))
        torch.testing.assert_close(oracle.denoiser(x[i, j], own), each[i, j], rtol=0, atol=1e-9)
        torch.testing.assert_close(oracle.log_density(x[i, j], own), density[i, j])
    single = oracle.denoiser(x.float(), at)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), each, rtol=1e-3, atol=1e-3)
    assert oracle.denoiser(x[:0], Level(0.5, 0.5, 0.5)).shape == (0, 3, law.dim)


def check_draws(law: Dataset) -> None:
    """Draws have a shape, an address, and nothing to do with the draws of another one."""
    assert math.prod(law.event_shape) == law.dim
    sets = {(purpose, seed): law.draws(8, purpose, seed) for purpose in PURPOSES for seed in (0, 1)}
    for (purpose, seed), draws in sets.items():
        assert draws.shape == (8, law.dim)
        assert draws.dtype == torch.float64
        assert draws.isfinite().all()
        assert torch.equal(draws, law.draws(8, purpose, seed))
    for one, other in combinations(sets.values(), 2):
        shared = torch.isin(one, other).any() if law.known_law else torch.equal(one, other)
        assert not shared


@pytest.mark.parametrize("name", NAMES)
def test_draws(name):
    check_draws(build(name))


@pytest.mark.parametrize("name", NAMES)
def test_the_oracle_is_of_the_law_that_is_drawn_from(name):
    law = build(name)
    oracle = law.oracle(EDM(1e9))
    if oracle is None:
        pytest.skip("its law has no exact denoiser")
    check_orthogonality(law, oracle)
    check_tweedie(law, oracle)
    check_batches(law, oracle)
    if law.dim <= 2:
        check_mass(law, oracle)


def test_no_member_is_left_out():
    """Every class of the package is the class of a member, but for those that get their points."""
    package = samplerbench.datasets
    classes = {
        member
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
        for member in vars(import_module(module.name)).values()
        if inspect.isclass(member) and issubclass(member, Dataset)
        if not inspect.isabstract(member)
    }
    assert classes == {type(build(name)) for name in known()} | {Divided, Empirical, Unseen}
    assert len({identity(build(name)) for name in known()}) == len(known())


def known() -> list[str]:
    """The members that can be built here."""
    found = []
    for name in NAMES:
        try:
            build(name)
        except pytest.skip.Exception:
            continue
        found.append(name)
    return found


class Noisier(Rings):
    """Draws a tenth noisier than the oracle assumes."""

    def sample(self, count, generator):
        state = generator.bit_generator.state
        clean = Rings(noise=1e-9).sample(count, generator)
        generator.bit_generator.state = state
        return clean + 1.1 * (super().sample(count, generator) - clean)


class Lighter(RingsOracle):
    """A log-density without its constant."""

    def log_density(self, x, level):
        return super().log_density(x, level) - 0.01


class Flatter(RingsOracle):
    """A log-density of other rings."""

    def log_density(self, x, level):
        return RingsOracle(self.schedule, 1.01 * self.radii, self.noise).log_density(x, level)


class Mixed(RingsOracle):
    """A denoiser that looks at the batch."""

    def denoiser(self, x, level):
        return super().denoiser(x, level) + 1e-6 * x.mean()


class Forgetful(Rings):
    """Draws that do not depend on their purpose."""

    def draws(self, count, purpose, *key):
        return super().draws(count, "train", *key)


def test_data_sets_that_break_it_are_found():
    law, path = Rings(), EDM(1e9)
    radii = torch.tensor(law.radii, dtype=torch.float64)
    broken = [
        (check_orthogonality, Noisier(), law.oracle(path)),
        (check_mass, law, Lighter(path, radii, law.noise)),
        (check_tweedie, law, Flatter(path, radii, law.noise)),
        (check_batches, law, Mixed(path, radii, law.noise)),
    ]
    for check, data, oracle in broken:
        with pytest.raises(AssertionError):
            check(data, oracle)
    with pytest.raises(AssertionError):
        check_draws(Forgetful())
