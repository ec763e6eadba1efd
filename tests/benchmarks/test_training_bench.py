"""What Lightning costs: a training step through `train` against a bare PyTorch loop.

The two alternate step by step in one run, with the same network, batch, optimiser and average, so
that a busy machine slows both; the ratio is of the medians. Recipes are compared by short trainings
by turns. Run with `make bench`.
"""

from __future__ import annotations

import statistics
import time
from copy import deepcopy

import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from samplerbench.app.config.folders import conf_directory
from samplerbench.app.job.build import build
from samplerbench.core.grids import Level
from samplerbench.core.level_laws import LogNormal
from samplerbench.core.schedules import EDM
from samplerbench.core.targets import EDMTarget, ScoreTarget
from samplerbench.core.weightings import Uniform, Variance
from samplerbench.datasets.grid_mixture import grid_mixture
from samplerbench.networks.base import Network
from samplerbench.networks.ncsn_mlp import NCSNMLP
from samplerbench.networks.residual_mlp import ResidualMLP
from samplerbench.objectives.base import Recipe
from samplerbench.objectives.denoising import Denoising
from samplerbench.training.batches import TensorData
from samplerbench.training.loop import train

pytestmark = pytest.mark.bench

WARMUP = 10


class Bare:
    """The plain loop: what one writes without any framework."""

    def __init__(self, network: Network, trained: Denoising, x0: Tensor) -> None:
        self.network, self.x0, self.recipe = network, x0, trained.recipe
        self.score = isinstance(trained.model.target, ScoreTarget)
        self.mean, self.std = trained.model.mean, float(trained.model.std)
        self.law, self.copies = trained.level_law, trained.levels_per_datum
        self.parameters = list(network.parameters())
        self.average = [p.detach().clone() for p in self.parameters]
        self.optimiser = torch.optim.AdamW(
            self.parameters, lr=self.recipe.lr, weight_decay=0.0, fused=True
        )
        self.generator = torch.Generator().manual_seed(0)
        self.count = 0

    def step(self) -> None:
        index = torch.randint(len(self.x0), (self.recipe.batch_size,), generator=self.generator)
        u0 = ((self.x0[index] - self.mean) / self.std).repeat(self.copies, 1)
        eps = torch.randn(u0.shape, generator=self.generator)
        assert isinstance(self.law, LogNormal)
        z = torch.randn(len(u0), 1, generator=self.generator)
        sigma = (self.law.mean + self.law.std * z).exp().clamp(0.02, 10) / self.std
        y = self.network(u0 + sigma * eps, Level(sigma, torch.ones_like(sigma), sigma))
        if self.score:
            error = sigma * y + eps
        else:
            error = y - (sigma * u0 - eps) / (1 + sigma.square()).sqrt()
        loss = error.square().sum(-1).mean()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        every, decay = self.recipe.ema_every, self.recipe.ema_decay
        if decay is not None and self.count % every == 0:
            now = [p.detach() for p in self.parameters]
            torch._foreach_lerp_(self.average, now, 1 - decay**every)
        self.count += 1


class Alternate(Callback):
    """After each of Lightning's steps, one of the bare loop's."""

    def __init__(self, bare: Bare) -> None:
        self.bare = bare
        self.wall: list[tuple[float, float]] = []
        self.processor: list[tuple[float, float]] = []
        self._since: tuple[float, float] | None = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object
    ) -> None:
        # what other callbacks do after this one falls into Lightning's next interval
        wall, processor = time.perf_counter(), time.thread_time()
        self.bare.step()
        after = time.perf_counter(), time.thread_time()
        if self._since is not None:
            self.wall.append((wall - self._since[0], after[0] - wall))
            self.processor.append((processor - self._since[1], after[1] - processor))
        self._since = after


CASES = {
    "ncsn": (
        NCSNMLP,
        ScoreTarget(),
        Variance(),
        False,
        2,
        Recipe(steps=60, batch_size=2048, lr=1e-2, replacement=True, ema_decay=0.99),
    ),
    "default": (
        ResidualMLP,
        EDMTarget(),
        Uniform(),
        True,
        1,
        Recipe(
            steps=400,
            batch_size=1024,
            lr=2e-2,
            lr_final=0.0,
            warmup=50,
            ema_decay=0.98,
            ema_every=10,
        ),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_step_through_lightning(case, benchmark, tmp_path):
    member, target, weighting, standardise, copies, recipe = CASES[case]
    x0 = grid_mixture().draws(10_000, "train", 0)
    data = TensorData(x0, None)
    network = member(2, 0)
    trained = Denoising(
        network=network,
        target=target,
        schedule=EDM(10.0),
        level_law=LogNormal(1.4, 1.2, 0.02, 10.0),
        weighting=weighting,
        recipe=recipe,
        mean=data.mean,
        std=data.std,
        train_seed=0,
        standardise=standardise,
        levels_per_datum=copies,
    )
    alternate = Alternate(Bare(deepcopy(network), trained, data.x0))

    def run():
        train(trained, data, directory=tmp_path, callbacks=[alternate])

    benchmark.pedantic(run, rounds=1)
    # on a busy machine only the processor's time of this one thread is to be trusted
    for clock, pairs in (("wall", alternate.wall), ("processor", alternate.processor)):
        lightning, bare = (statistics.median(c) for c in zip(*pairs[WARMUP:], strict=True))
        benchmark.extra_info[f"{clock}_lightning_ms"] = round(1e3 * lightning, 3)
        benchmark.extra_info[f"{clock}_bare_ms"] = round(1e3 * bare, 3)
        benchmark.extra_info[f"{clock}_ratio"] = round(lightning / bare, 3)


STEPS, ROUNDS = 150, 3


def test_a_training_by_the_default_recipe_and_by_the_long_one(benchmark, tmp_path):
    """The processor's time of a whole training, from short ones by turns."""
    spent = {"default": [], "long": []}
    whole = {}

    def run():
        for _ in range(1 + ROUNDS):  # the first one imports and allocates
            for name, seconds in spent.items():
                with initialize_config_dir(str(conf_directory()), version_base="1.3"):
                    config = compose("config", [f"trainer={name}", "denoiser=learned"])
                whole[name] = config.trainer.steps
                config.trainer.steps = STEPS
                training = build(config, {}, name).training
                assert training is not None
                began = time.process_time()
                train(training.objective, training.data, directory=tmp_path, progress=False)
                seconds.append((time.process_time() - began) / STEPS)

    benchmark.pedantic(run, rounds=1)
    trained = {name: whole[name] * statistics.median(spent[name][1:]) for name in spent}
    for name, seconds in trained.items():
        benchmark.extra_info[f"{name}_s"] = round(seconds, 2)
    ratio = trained["long"] / trained["default"]
    benchmark.extra_info["ratio"] = round(ratio, 2)
    print(f"\n{trained}: the default recipe takes 1/{ratio:.2f} of the time of the long one")
