"""What a divergence costs beside the sampling of as many points, by the processor's time.

Asked are at most dim + 2 times as much. Run with `make bench ARGS="-k densities"`; never asserted.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from statistics import median

import pytest
import torch

from helpers import by_turns, sweep_of
from samplerbench.bench.cell import Cell
from samplerbench.bench.densities import density
from samplerbench.core.models import Learned
from samplerbench.core.schedules import EDM
from samplerbench.core.starts import Exact
from samplerbench.core.targets import EDMTarget
from samplerbench.datasets.four_well_boltzmann import FourWellBoltzmann
from samplerbench.datasets.gaussian_mixture import GaussianMixture, isotropic
from samplerbench.datasets.grid_mixture import grid_mixture
from samplerbench.datasets.tree import tree
from samplerbench.datasets.two_modes import two_modes
from samplerbench.metrics.kl_law import KLLaw
from samplerbench.networks.residual_mlp import ResidualMLP
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.heun import Heun
from samplerbench.samplers.unipc import UniPC

pytestmark = pytest.mark.bench

AGAIN = 7


@pytest.mark.parametrize("denoiser", ["learned", "oracle"])
@pytest.mark.parametrize("sampler", [DDIM(0.0), Heun()], ids=lambda s: type(s).__name__)
def test_densities(benchmark, sampler, denoiser):
    law, schedule = grid_mixture(), EDM(10.0)
    network = ResidualMLP(2, 0).requires_grad_(False)
    learned = Learned(network, EDMTarget(), schedule, torch.zeros(2), 8.0).eval()
    denoisers = {"learned": learned, "oracle": law.oracle(schedule)}
    settings = {"denoisers": denoisers, "starts": {"exact": Exact()}, "n_samples": 2048}
    sweep = sweep_of(law, [("sampler", sampler)], [36], metrics={"kl_law": KLLaw()}, **settings)
    sweep = replace(sweep, block=2048)
    cell = Cell(denoiser, "exact", "sampler", sampler, 36, 0)
    measured(benchmark, sweep, cell, f"{denoiser}, {type(sampler).__name__}")


def measured(benchmark, sweep, cell, name, again=AGAIN):
    """Print how many times the sampling a divergence costs: the median of ratios of turns."""
    ways = {"alone": lambda: sweep.draw(cell), "density": lambda: density(sweep, cell)}
    found = {}
    benchmark.pedantic(lambda: found.update(by_turns(ways, again)), rounds=1)
    pairs = zip(found["density"], found["alone"], strict=True)
    ratio = median(whole / part for whole, part in pairs)
    benchmark.extra_info |= {"times_the_sampling": round(ratio, 2), "asked": sweep.dataset.dim + 2}
    print(f"\n{name}: {benchmark.extra_info}")


def components(count, dim, *, round_):
    """Gaussians at random places, with one variance, or with any covariances."""
    random = torch.Generator().manual_seed(0)
    means = 4 * torch.randn(count, dim, generator=random, dtype=torch.float64)
    points, weights = tuple(map(tuple, means.tolist())), (1 / count,) * count
    if round_:
        return isotropic(weights, points, 0.3)
    roots = torch.randn(count, dim, dim, generator=random, dtype=torch.float64)
    matrices = roots @ roots.mT / dim + 0.1 * torch.eye(dim, dtype=torch.float64)
    return GaussianMixture(weights, points, tuple(tuple(map(tuple, m)) for m in matrices.tolist()))


LAWS = {
    **{f"two modes in {dim}": partial(two_modes, dim) for dim in (1, 2, 4, 8, 16, 32)},
    **{f"25 round in {dim}": partial(components, 25, dim, round_=True) for dim in (2, 8, 16, 32)},
    **{f"any 5 in {dim}": partial(components, 5, dim, round_=False) for dim in (2, 4, 8, 16)},
    "any 40 in 8": partial(components, 40, 8, round_=False),
    "the tree": tree,
}


@pytest.mark.parametrize("name", LAWS)
def test_exact_scores_in_many_dimensions(benchmark, name):
    """On a line the law is computed by quadrature, to 1e-7, and not from points."""
    law, sampler = LAWS[name](), DDIM(0.0)
    settings = {"denoisers": {"oracle": law.oracle(EDM(10.0))}, "starts": {"exact": Exact()}}
    metrics = {"kl_law": KLLaw()}
    sweep = sweep_of(law, [("sampler", sampler)], [36], metrics=metrics, n_samples=2048, **settings)
    sweep = replace(sweep, block=2048)
    cell = Cell("oracle", "exact", "sampler", sampler, 36, 0)
    measured(benchmark, sweep, cell, name, again=1 if name == "the tree" else AGAIN)


LINES = {
    "wells": FourWellBoltzmann,
    "mixture": partial(
        GaussianMixture,
        (0.2, 0.5, 0.3),
        ((1.5,), (-1.0,), (4.0,)),
        (((0.1,),), ((0.3,),), ((0.05,),)),
    ),
}


@pytest.mark.parametrize("steps", [9, 36])
@pytest.mark.parametrize("sampler", [DDIM(0.0), Heun(), UniPC()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("name", LINES)
def test_on_a_line(benchmark, name, sampler, steps):
    """With the mixture a step costs as much as its operations, whatever the number of states."""
    law = LINES[name]()
    settings = {"denoisers": {"oracle": law.oracle(EDM(10.0))}, "starts": {"exact": Exact()}}
    metrics = {"kl_law": KLLaw()}
    sweep = sweep_of(
        law, [("sampler", sampler)], [steps], metrics=metrics, n_samples=2048, **settings
    )
    sweep = replace(sweep, block=2048)
    cell = Cell("oracle", "exact", "sampler", sampler, steps, 0)
    measured(benchmark, sweep, cell, f"{name}, {type(sampler).__name__}, {steps}", again=3)
