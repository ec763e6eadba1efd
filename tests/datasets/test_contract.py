"""What every data set promises; its members are found in conf/dataset/, so a new one is tested too.

An exact denoiser is orthogonal to whatever can be seen: E[(x₀ − x̂₀(x))·f(x)] = 0 for every f of
x = x₀ + σ·ε, just if x̂₀(x) = E[x₀ | x]. Draws and oracle of a data set are two pieces of code, and
this holds for them together: data that are a tenth noisier than the oracle believes are found.
"""

import math

import numpy as np
import pytest
import torch

import samplerbench as sb
from samplerbench.app.folders import members
from samplerbench.core.grids import Level
from samplerbench.core.schedules import EDM
from samplerbench.datasets.base import Dataset
from samplerbench.datasets.rings import Rings
from samplerbench.errors import InvalidSetting

NEEDS_A_PATH = ("file", "image_folder")
ALL = [name for name in members("dataset") if name not in NEEDS_A_PATH]
#: σ as a share of the data's standard deviation.
SHARES = (0.01, 0.03, 0.1, 0.3, 1.0)


def made(name: str) -> Dataset:
    try:
        return sb.dataset(name)
    except InvalidSetting as error:
        pytest.skip(str(error))


def largest_z(law: Dataset, count: int) -> float:
    """The largest of |mean|/error of (x₀ − x̂₀)·f over functions f and noise levels."""
    path = EDM(1e9)
    oracle = law.oracle(path)
    assert oracle is not None
    x0 = law.sample(count, np.random.default_rng(1))
    eps = torch.from_numpy(np.random.default_rng(2).standard_normal(tuple(x0.shape)))
    found = []
    for share in SHARES:
        sigma = share * float(x0.std())
        x = x0 + sigma * eps
        x0_hat = oracle.denoiser(x, Level(math.nan, 1.0, sigma))
        for seen in (torch.ones_like(x), x, x0_hat - x, (x0_hat - x).tanh()):
            product = ((x0 - x0_hat) * seen).sum(-1)
            # where the noise moves no point beyond its neighbours, x̂₀ is x₀ but for rounding
            error = max(float(product.std()), 1e-9 * float(x0.var())) / len(product) ** 0.5
            found.append(abs(float(product.mean())) / error)
    return max(found)


@pytest.mark.parametrize("name", ALL)
def test_the_oracle_is_of_the_law_that_is_drawn_from(name):
    law = made(name)
    if law.oracle(EDM()) is None:
        pytest.skip("its law has no exact denoiser")
    count = 100_000 if law.dim <= 2 and law.known_law else 2_000
    assert largest_z(law, count) < 5


def test_data_a_tenth_noisier_than_their_oracle_are_found():
    class Noisier(Rings):
        def sample(self, count, generator):
            state = generator.bit_generator.state
            clean = Rings(noise=1e-9).sample(count, generator)
            generator.bit_generator.state = state
            return clean + 1.1 * (super().sample(count, generator) - clean)

    assert largest_z(Noisier(), 100_000) > 5


@pytest.mark.parametrize("name", ALL)
def test_draws_are_keyed_and_of_the_right_shape(name):
    law = made(name)
    one, again, other = (law.draws(8, "train", seed) for seed in (1, 1, 2))
    assert one.shape == (8, law.dim)
    assert one.dtype == torch.float64
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert math.prod(law.event_shape) == law.dim
    assert not torch.equal(one, law.draws(8, "validation", 1))
