"""What the training losses cost, each against another way of computing the same number.

Both do one training step's work, loss and gradients (or the whole step), by turns in one run on one
thread, so that a busy machine slows both; ratios are of the processor's time, the least of each and
the medians. Run with `make bench`.
"""

from __future__ import annotations

import statistics
import time
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from helpers import by_turns
from samplerbench.core.grids import Level
from samplerbench.core.level_laws import LogNormal, UniformTime
from samplerbench.core.noise import torch_generator
from samplerbench.core.schedules import EDM, GeometricVE
from samplerbench.core.targets import ScoreTarget
from samplerbench.core.weightings import Variance
from samplerbench.datasets.gaussian import gaussian
from samplerbench.datasets.grid_mixture import grid_mixture
from samplerbench.networks.layer_norm_mlp import LayerNormMLP
from samplerbench.networks.ncsn_mlp import NCSNMLP
from samplerbench.networks.time_mlp import TimeMLP
from samplerbench.objectives.base import Recipe
from samplerbench.objectives.denoising import Denoising
from samplerbench.objectives.derivatives import draw_probes
from samplerbench.objectives.hutchinson import hutchinson_loss
from samplerbench.objectives.implicit import implicit_loss
from samplerbench.objectives.implicit_ve import ImplicitVE
from samplerbench.objectives.single_level import single_level_loss
from samplerbench.training.batches import Batches

pytestmark = pytest.mark.bench

BATCH = 2048
LEVEL = Level(0.0, 1.0, 0.0)
EPOCHS = 20


def compared(ways, rounds, benchmark):
    """The least processor time of each, in seconds, after one round to warm up."""
    found = {}
    benchmark.pedantic(lambda: found.update(by_turns(ways, rounds, time.thread_time)), rounds=1)
    least, ours = {name: min(values) for name, values in found.items()}, next(iter(ways))
    for name, values in found.items():
        ratio = statistics.median(values) / statistics.median(found[ours])
        benchmark.extra_info[f"{name}_ms"] = round(1e3 * least[name], 2)
        benchmark.extra_info[f"{name}_ratio"] = round(least[name] / least[ours], 2)
        benchmark.extra_info[f"{name}_median_ratio"] = round(ratio, 2)
    print("", *(f"  {key}: {value}" for key, value in benchmark.extra_info.items()), sep="\n")
    return least


def gradients(network, loss):
    """A loss and its gradients."""

    def step():
        for parameter in network.parameters():
            parameter.grad = None
        value = loss()
        value.backward()
        return value.detach()

    return step


def test_the_exact_divergence(benchmark):
    """O1 with M2; the notebook N1 takes a forward-mode Jacobian of each row and its trace."""
    from torch.func import jacfwd, jacrev, vmap

    network, x = LayerNormMLP(2, 0), grid_mixture().draws(BATCH, "train").float()
    eps = torch.randn(x.shape, generator=torch_generator("eps"))

    def score(u):
        return network(u, LEVEL)

    def by(jacobian):
        trace = vmap(jacobian(score))(x).diagonal(dim1=-2, dim2=-1).sum(-1)
        return (trace + 0.5 * score(x).square().sum(-1)).mean()

    ways = {
        "vjp": gradients(network, lambda: implicit_loss(score, x)),
        "jacfwd": gradients(network, lambda: by(jacfwd)),
        "jacrev": gradients(network, lambda: by(jacrev)),
        "batched_vjp": gradients(network, lambda: implicit_loss(score, x, 2)),
        "denoising": gradients(network, lambda: single_level_loss(score, x, eps, 1.0)),
    }
    values = [float(ways[name]()) for name in ("vjp", "jacfwd", "jacrev", "batched_vjp")]
    assert values == pytest.approx([values[0]] * 4, rel=1e-4)
    least = compared(ways, 6, benchmark)
    assert least["vjp"] < least["jacfwd"]


def test_hutchinson(benchmark):
    """O2 with the notebook's 100 probes: forward-mode products, or at most two backward ones."""
    from torch.func import jvp, vmap

    network, x = LayerNormMLP(2, 0), grid_mixture().draws(BATCH, "train").float()[:256]
    probes = draw_probes(x, 100, False, torch_generator("probes"))

    def score(u):
        return network(u, LEVEL)

    def forward():
        estimates = vmap(lambda v: (v * jvp(score, (x,), (v,))[1]).sum(-1))(probes)
        return (estimates.mean(0) + 0.5 * score(x).square().sum(-1)).mean()

    ways = {
        "vjp": gradients(network, lambda: hutchinson_loss(score, x, probes)),
        "vmap_jvp": gradients(network, forward),
        "one_probe": gradients(network, lambda: hutchinson_loss(score, x, probes[:1])),
    }
    assert float(ways["vjp"]()) == pytest.approx(float(ways["vmap_jvp"]()), rel=1e-3)
    least = compared(ways, 3, benchmark)
    assert least["vjp"] < least["vmap_jvp"] / 4


def test_an_ncsn_step(benchmark):
    """O4 with M3: the objective against the same loss written out, two levels a datum."""
    network, x0 = NCSNMLP(2, 0), grid_mixture().draws(BATCH, "train").float()
    other = deepcopy(network)
    trained = Denoising(
        network=network,
        target=ScoreTarget(),
        schedule=EDM(10.0),
        level_law=LogNormal(-0.5, 1.2, 0.02, 10.0),
        weighting=Variance(),
        recipe=Recipe(steps=1, batch_size=BATCH, lr=1e-2),
        mean=torch.zeros(2),
        std=1.0,
        train_seed=0,
        standardise=False,
        levels_per_datum=2,
    )
    generator = torch_generator("bench")

    def bare():
        u0 = x0.repeat(2, 1)
        eps = torch.randn(u0.shape, generator=generator)
        z = torch.randn(len(u0), 1, generator=generator)
        sigma = (1.2 * z - 0.5).exp().clamp(0.02, 10)
        y = other(u0 + sigma * eps, Level(sigma, torch.ones_like(sigma), sigma))
        return (sigma * y + eps).square().sum(-1).mean()

    ways = {
        "objective": gradients(network, lambda: trained.loss(x0, generator)),
        "bare": gradients(other, bare),
    }
    compared(ways, 10, benchmark)


def test_a_training_step_of_n2(benchmark):
    """O5 with M4, batches of 2 000 from 10 000 scalars: by index, or collated one by one.

    Each goes on for a hundred steps before it is the other's turn, as in a training: after five,
    what the other has left in the processor's memory costs the faster one a quarter more. Of the
    step by index the network's passes and the optimiser are four fifths, and they are in both.
    """
    x0 = gaussian((0.0,), ((0.4,),)).draws(10_000, "train").float()
    recipe = Recipe(steps=10_000, batch_size=2000, lr=1e-3)
    trained = ImplicitVE(
        network=TimeMLP(1, 0),
        target=ScoreTarget(),
        schedule=GeometricVE(0.03, 2.0),
        level_law=UniformTime(0.0),
        weighting=Variance(),
        recipe=recipe,
        mean=torch.zeros(1),
        std=1.0,
        train_seed=0,
        standardise=False,
    )
    batches = iter(Batches(x0, replace(recipe, steps=2 * recipe.steps), 0))
    optimiser = recipe.optimiser(trained.parameters())
    numbers = iter(range(recipe.steps))

    def by_index():
        """Twenty epochs of five steps."""
        for _ in range(5 * EPOCHS):
            generator = torch_generator("loss", 0, next(numbers))
            loss = trained.loss(next(batches), generator)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    network = deepcopy(trained.model.network)
    generator = torch_generator("bench")
    loader = DataLoader(TensorDataset(x0[:, 0]), 2000, shuffle=True, generator=generator)
    plain = torch.optim.Adam(network.parameters(), lr=1e-3)

    def collated():
        """The same with a loader that collates scalars."""
        for (scalars,) in (batch for _ in range(EPOCHS) for batch in loader):
            x = scalars.unsqueeze(-1)
            t = torch.rand(len(x), 1, generator=generator)
            z = torch.randn(x.shape, generator=generator)
            sigma = 0.03 * (2 / 0.03) ** t
            u = network(x + sigma * z, Level(t, torch.ones_like(t), sigma))
            loss = ((0.5 * u.square() + u * z / sigma) * sigma.square()).sum(-1).mean()
            plain.zero_grad()
            loss.backward()
            plain.step()

    def loaded_by_index():
        """The batches alone."""
        for _ in range(5 * EPOCHS):
            next(batches)

    def loaded_collated():
        for _ in range(EPOCHS):
            for _ in loader:
                pass

    steps = {"by_index": by_index, "collated": collated}
    loads = {"loaded_by_index": loaded_by_index, "loaded_collated": loaded_collated}
    least = compared(steps | loads, 8, benchmark)
    assert least["collated"] > 2.5 * least["by_index"]
    assert least["loaded_collated"] > 10 * least["loaded_by_index"]
