"""The optimiser that a recipe asks for, written out for stochastic gradient descent."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning.callbacks import Callback

from samplerbench.core.noise import torch_generator
from samplerbench.errors import InvalidSetting
from samplerbench.networks.mlp import MLP
from samplerbench.objectives import base
from samplerbench.objectives.base import Objective, Recipe
from samplerbench.objectives.single_level import SingleLevel
from samplerbench.training.batches import TensorData
from samplerbench.training.loop import train


def objective(recipe):
    return SingleLevel(
        network=MLP(2, 0),
        recipe=recipe,
        mean=torch.zeros(2),
        std=1.0,
        train_seed=0,
        noise=3.0,
        sum_over_batch=True,
    )


#: By hand: f + (1 − f)·½·(1 + cos(π·k/4)) with f = 0.1, times the warm-up over two steps.
RATES = [0.5 * 1.0, 0.1 + 0.9 * 0.853553390593, 0.1 + 0.9 * 0.5, 0.1 + 0.9 * 0.146446609407]


def test_the_rate_rises_and_falls_as_a_cosine():
    recipe = Recipe(steps=4, batch_size=1, lr=1e-3, lr_final=0.1, warmup=2)
    assert [recipe.rate(k) for k in range(4)] == pytest.approx(RATES, rel=1e-10)
    assert recipe.rate(4) == pytest.approx(0.1)
    flat = Recipe(steps=4, batch_size=1, lr=1e-3)
    assert [flat.rate(k) for k in range(5)] == [1.0] * 5


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_gradient_descent(momentum, tmp_path):
    """θ ← θ − lr·v, v ← momentum·v + ∇L + λ·θ, with a warm-up of the rate."""
    recipe = Recipe(
        steps=4, batch_size=8, lr=1e-3, lr_final=0.1, warmup=2, momentum=momentum, weight_decay=0.1
    )
    x0 = torch.randn(8, 2, generator=torch_generator("x0"))
    by_hand = objective(recipe)
    velocity = [torch.zeros_like(p) for p in by_hand.parameters()]
    data = TensorData(x0, None)
    trained = objective(recipe)
    seen = []

    class Record(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            seen.append(batch)

    train(trained, data, directory=tmp_path, callbacks=[Record()], progress=False)
    assert len(seen) == 4
    for k, batch in enumerate(seen):
        loss = by_hand.loss(batch, torch_generator("loss", 0, k))
        slopes = torch.autograd.grad(loss, list(by_hand.parameters()))
        with torch.no_grad():
            for p, v, g in zip(by_hand.parameters(), velocity, slopes, strict=True):
                v.mul_(momentum).add_(g + 0.1 * p)
                p.sub_(1e-3 * RATES[k] * v)
    for one, other in zip(trained.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(one, other.detach(), rtol=1e-5, atol=1e-7)


def test_no_momentum_is_adam():
    parameters = [torch.nn.Parameter(torch.zeros(1))]
    assert isinstance(Recipe(1, 1, 1e-3).optimiser(parameters), torch.optim.AdamW)
    plain = Recipe(1, 1, 1e-3, momentum=0.0).optimiser(parameters)
    assert isinstance(plain, torch.optim.SGD)


def test_impossible_recipes():
    good = Recipe(steps=8, batch_size=4, lr=1e-3)
    for change in (
        {"steps": 0},
        {"batch_size": 0},
        {"lr": -1.0},
        {"lr_final": 2.0},
        {"warmup": -1},
        {"momentum": -0.1},
        {"momentum": 1.0},
        {"momentum": float("nan")},
        {"weight_decay": -1.0},
        {"ema_decay": 1.0},
        {"ema_every": 0},
        {"precision": "8"},
        {"log_every": 0},
        {"validate_every": 0},
        {"devices": 0},
        {"batch_size": 9, "devices": 2},
        {"keep_last": True, "devices": 2},
    ):
        with pytest.raises(InvalidSetting, match=f"^{next(iter(change))}=.*: must be "):
            replace(good, **change)


@pytest.mark.parametrize(
    ("able", "device", "precision"),
    [(True, "cpu", "bf16-mixed"), (False, "cpu", "32-true"), (True, "cuda", "32-true")],
)
def test_auto_is_the_arithmetic_of_the_processor(monkeypatch, able, device, precision):
    monkeypatch.setattr(base, "multiplies_bfloat16", lambda: able)
    recipe = Recipe(steps=1, batch_size=1, lr=1e-3, precision="auto")
    with_levels = SimpleNamespace(recipe=recipe, conditional=True)
    assert Objective.precision(with_levels, device) == precision
    # this objective may differentiate its network
    assert objective(recipe).precision(device) == "32-true"
    chosen = replace(recipe, precision="64-true")
    assert Objective.precision(SimpleNamespace(recipe=chosen), device) == "64-true"


def test_the_instructions_that_multiply_bfloat16(monkeypatch):
    for found, able in [({"amx_bf16": True}, True), ({"avx512_bf16": True}, True), ({}, False)]:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=found: found)
        assert base.multiplies_bfloat16() is able
