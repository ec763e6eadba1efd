"""The contract of objectives: a loss, the model that it trains, and the training's recipe.

An objective computes its loss on a batch of clean data. A recipe holds the optimiser (Adam or plain
gradient descent) and its learning rate

    lr_k = lr·min(1, (k + 1)/warmup)·(f + (1 − f)·½·(1 + cos(π·k/steps))),   k = 0, …, steps − 1.

f = 1 is a constant rate, f = 0 a cosine to zero. `training.loop` trains an objective with
Lightning; nothing here imports Lightning, which takes seconds.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from samplerbench.core.models import Score
from samplerbench.errors import require
from samplerbench.networks.base import Network

Model = TypeVar("Model", bound=Score)


@dataclass(frozen=True)
class Recipe:
    """Length, batches, optimiser and averaging of a training: a `trainer` config.

    Args:
        steps: number of optimiser steps.
        batch_size: data per step.
        replacement: whether the data of a batch are drawn with replacement; otherwise every datum
            is used once per pass.
        data_per_level: number of data of a batch that share a noise level, for objectives with
            levels. The expected loss does not depend on it. A network that `broadcasts` computes
            fewer features of levels. If the number does not divide a batch, each datum has its own
            level.
        data_per_target: m, the number of data of a batch over which the target of a state is
            averaged, by their probabilities given the state; 1: only its own datum. The expected
            gradient does not depend on it, but its variance does: see `posterior`. For objectives
            that are quadratic or linear in the target; others ignore it.
        keep_last: whether, without replacement, the last data of a pass form a smaller batch;
            otherwise they are left out.
        lr: the largest learning rate.
        lr_final: f, the last learning rate as a share of `lr`.
        warmup: number of steps in which the rate rises.
        momentum: null: AdamW; a number: stochastic gradient descent (SGD) with that momentum, 0 for
            plain SGD.
        weight_decay: the weight decay of AdamW (with 0 it is Adam), or λ in ½λ‖θ‖² for SGD.
        ema_decay: the decay per step of the average of the weights; training returns this average.
            null: training returns the last weights.
        ema_every: steps between two entries of the average, each with weight 1 − decay^every. A few
            entries per horizon 1/(1 − decay) average as well as all, and cost less.
        precision: the precision of the arithmetic, by Lightning's names: "32-true", "bf16-mixed",
            …; or "auto", see `Objective.precision`.
        log_every: steps between two entries of the training loss; an entry is the mean since the
            last one.
        validate_every: steps between two validations; null for no validation.
        devices: number of devices, with one process each. Each gets its share of every batch, and
            gradients are averaged. The last bits differ from those on one device.
    """

    steps: int
    batch_size: int
    lr: float
    lr_final: float = 1.0
    warmup: int = 0
    momentum: float | None = None
    weight_decay: float = 0.0
    replacement: bool = False
    keep_last: bool = False
    ema_decay: float | None = None
    ema_every: int = 1
    data_per_level: int = 1
    data_per_target: int = 1
    precision: str = "32-true"
    log_every: int = 50
    validate_every: int | None = None
    devices: int = 1

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps", self.steps, "at least 1")
        require(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        require(0 < self.lr < math.inf, "lr", self.lr, "positive")
        require(0 <= self.lr_final <= 1, "lr_final", self.lr_final, "between 0 and 1")
        require(self.warmup >= 0, "warmup", self.warmup, "at least 0")
        momentum = self.momentum
        allowed = "at least 0 and below 1, or null"
        require(momentum is None or 0 <= momentum < 1, "momentum", momentum, allowed)
        require(0 <= self.weight_decay < math.inf, "weight_decay", self.weight_decay, "at least 0")
        decay = self.ema_decay
        require(decay is None or 0 <= decay < 1, "ema_decay", decay, "at least 0 and below 1")
        require(self.ema_every >= 1, "ema_every", self.ema_every, "at least 1")
        precisions = ("auto", "32-true", "bf16-mixed", "16-mixed", "64-true")
        allowed = f"one of {', '.join(precisions)}"
        require(self.precision in precisions, "precision", self.precision, allowed)
        require(self.data_per_level >= 1, "data_per_level", self.data_per_level, "at least 1")
        require(self.data_per_target >= 1, "data_per_target", self.data_per_target, "at least 1")
        require(self.log_every >= 1, "log_every", self.log_every, "at least 1")
        every = self.validate_every
        require(every is None or every >= 1, "validate_every", every, "at least 1, or null")
        require(self.devices >= 1, "devices", self.devices, "at least 1")
        # the mean over devices is the mean over the batch only if their shares are equal
        even = self.batch_size % self.devices == 0
        require(even, "batch_size", self.batch_size, f"a multiple of devices={self.devices}")
        allowed = "false with several devices: a smaller batch may not have equal shares"
        require(self.devices == 1 or not self.keep_last, "keep_last", True, allowed)

    def rate(self, step: int) -> float:
        """The learning rate of a step, as a share of `lr`."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        fall = 0.5 * (1 + math.cos(math.pi * min(step / self.steps, 1.0)))
        return rise * (self.lr_final + (1 - self.lr_final) * fall)

    def optimiser(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """AdamW or SGD, fused, for the parameters that require gradients."""
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        if self.momentum is not None:
            return torch.optim.SGD(
                trained,
                lr=self.lr,
                momentum=self.momentum,
                weight_decay=self.weight_decay,
                fused=True,
            )
        return torch.optim.AdamW(trained, lr=self.lr, weight_decay=self.weight_decay, fused=True)


class Objective(nn.Module, ABC, Generic[Model]):
    """A model and the loss that trains it.

    Args:
        model: the model to train.
        recipe: the optimiser's settings.
        train_seed: the seed of the random numbers in the loss.

    Attributes:
        conditional: whether the network has a noise level as input.
    """

    conditional: ClassVar[bool] = True

    def __init__(self, model: Model, recipe: Recipe, train_seed: int) -> None:
        super().__init__()
        self.model: Model = model
        self.recipe = recipe
        self.train_seed = train_seed

    @classmethod
    def require_network(cls, network: Network) -> None:
        """Refuse a network that has a noise level if this loss has none, and vice versa."""
        with_or_without = "with" if cls.conditional else "without"
        fits = network.needs_level == cls.conditional
        require(fits, "network", type(network).__name__, f"one {with_or_without} a noise level")

    def precision(self, device: str) -> str:
        """The precision of the training on a kind of device, by Lightning's name.

        "auto" is "bf16-mixed" on processors that multiply bfloat16 numbers, where a training step
        takes about two thirds of its time, and "32-true" elsewhere. The choice depends on the
        processor, not on a measurement, so the same machine always gives the same bits. Objectives
        without a noise level use "32-true": most of them differentiate their network, and a
        derivative loses more digits.

        Args:
            device: cpu or cuda.
        """
        if self.recipe.precision != "auto":
            return self.recipe.precision
        fast = device == "cpu" and multiplies_bfloat16()
        return "bf16-mixed" if self.conditional and fast else "32-true"

    @abstractmethod
    def loss(self, x0: Tensor, generator: torch.Generator) -> Tensor:
        """The loss on a batch, a scalar.

        Args:
            x0: clean data, float32, in their own units, shape (n, dim).
            generator: source of all random numbers of the loss; on the CPU.
        """


def multiplies_bfloat16() -> bool:
    """Whether the processor has instructions that multiply matrices of bfloat16 numbers."""
    able = torch.cpu.get_capabilities()
    return any(able.get(name, False) for name in ("amx_bf16", "avx512_bf16"))
