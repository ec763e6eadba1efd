"""What an objective is: a loss, the model that it trains, and the recipe by which it does.

An objective says what its loss is on a batch of clean data. A recipe holds the optimiser, Adam or
plain gradient descent, and its rate

    lr_k = lr·min(1, (k + 1)/warmup)·(f + (1 − f)·½·(1 + cos(π·k/steps))),   k = 0, …, steps − 1:

f = 1 is a constant rate, f = 0 a cosine to zero. `fitting` wraps an objective in a LightningModule,
and `training` runs that; nothing here imports Lightning, which takes seconds.
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
    """How long and how fast to train; what a `trainer` config holds.

    Args:
        steps: of the optimiser.
        batch_size: data per step.
        replacement: whether the data of a batch are drawn with replacement; otherwise every datum
            comes once before any comes twice.
        keep_last: whether, without replacement, a pass over the data ends with a smaller batch;
            otherwise what does not fill a batch is left out of that pass.
        lr: the largest learning rate.
        lr_final: f, what is left of it at the end, as a share.
        warmup: steps over which the rate rises.
        momentum: null is AdamW; a number is stochastic gradient descent (SGD) with that momentum,
            0 the plain one.
        weight_decay: of AdamW, 0 makes it Adam; of SGD λ in ½λ‖θ‖².
        ema_decay: per step, of the average of the weights, which is what training returns; null
            returns the last weights.
        ema_every: steps between two entries of the average, each with weight 1 − decay^every; a
            few per horizon 1/(1 − decay) average as well as all, and cost less.
        precision: Lightning's word for the arithmetic: "32-true", "bf16-mixed", …
        log_every: steps between two entries of the training loss, each their mean.
        validate_every: steps between two validations; null for none.
        devices: how many train it together, a process each, each on its share of every batch; their
            gradients are averaged, and other bits come out than with one.
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
        known = ("32-true", "bf16-mixed", "16-mixed", "64-true")
        require(self.precision in known, "precision", self.precision, f"one of {', '.join(known)}")
        require(self.log_every >= 1, "log_every", self.log_every, "at least 1")
        every = self.validate_every
        require(every is None or every >= 1, "validate_every", every, "at least 1, or null")
        require(self.devices >= 1, "devices", self.devices, "at least 1")
        # the mean over devices is the mean over the batch where their shares are equal
        even = self.batch_size % self.devices == 0
        require(even, "batch_size", self.batch_size, f"a multiple of devices={self.devices}")
        allowed = "false with several devices: a smaller batch may not fall into equal shares"
        require(self.devices == 1 or not self.keep_last, "keep_last", True, allowed)

    def rate(self, step: int) -> float:
        """The learning rate of a step, as a share of `lr`."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        fall = 0.5 * (1 + math.cos(math.pi * min(step / self.steps, 1.0)))
        return rise * (self.lr_final + (1 - self.lr_final) * fall)

    def optimiser(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """AdamW or SGD, fused, for those of the parameters that are to be trained."""
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
        model: what is trained.
        recipe: the optimiser's settings.
        train_seed: of the random numbers in the loss.

    Attributes:
        conditional: whether the model has a noise level; its network must then have one too.
    """

    conditional: ClassVar[bool] = True

    def __init__(self, model: Model, recipe: Recipe, train_seed: int) -> None:
        super().__init__()
        self.model: Model = model
        self.recipe = recipe
        self.train_seed = train_seed

    @classmethod
    def require_network(cls, network: Network) -> None:
        """Refuse a network that lacks the level this loss gives, or wants one it does not give."""
        which = "with" if cls.conditional else "without"
        good = network.needs_level == cls.conditional
        require(good, "network", type(network).__name__, f"one {which} a noise level")

    @abstractmethod
    def loss(self, x0: Tensor, generator: torch.Generator) -> Tensor:
        """The loss on a batch, a scalar.

        Args:
            x0: clean data, float32, in their own units, shape (n, dim).
            generator: where every random number of the loss comes from; on the CPU.
        """
