"""What an objective is: a loss, and how Lightning minimises it.

An objective holds the model that is trained and says what its loss is on a batch of clean data. The
rest is here: Adam or plain gradient descent, its rate

    lr_k = lr·min(1, (k + 1)/warmup)·(f + (1 − f)·½·(1 + cos(π·k/steps))),   k = 0, …, steps − 1,

the validation loss, and what is logged. f = 1 is a constant rate, f = 0 a cosine to zero.

Random numbers are keyed by (train_seed, step), so step k draws the same ones whether or not the run
was interrupted before it, and torch's global generator is not touched. The validation loss has the
same noise and levels every time, and the same for all seeds: its changes are the network's.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import pytorch_lightning as pl
import torch
from torch import Tensor

from samplerbench.errors import InvalidSetting, require
from samplerbench.models import Score
from samplerbench.networks.base import Network, members
from samplerbench.noise import torch_generator

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

    def rate(self, step: int) -> float:
        """The learning rate of a step, as a share of `lr`."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        fall = 0.5 * (1 + math.cos(math.pi * min(step / self.steps, 1.0)))
        return rise * (self.lr_final + (1 - self.lr_final) * fall)


class Objective(pl.LightningModule, ABC, Generic[Model]):
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
        self._losses: list[Tensor] = []  # since the last entry of the log

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes the hook it is in, 40 times a step, through nn.Module's slow setter, which
        # looks for parameters and modules: a tenth of its overhead on a small network
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    @classmethod
    def require_network(cls, network: Network) -> None:
        """Refuse a network that lacks the level this loss gives, or wants one it does not give."""
        if network.needs_level != cls.conditional:
            which = "with" if cls.conditional else "without"
            found = " or ".join(members(cls.conditional))
            name = type(network).__name__
            raise InvalidSetting("network", name, f"one {which} a noise level: {found}")

    @abstractmethod
    def loss(self, x0: Tensor, generator: torch.Generator) -> Tensor:
        """The loss on a batch, a scalar.

        Args:
            x0: clean data, float32, in their own units, shape (n, dim).
            generator: where every random number of the loss comes from; on the CPU.
        """

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """The loss on a batch; every `log_every` steps their mean is logged.

        Raises:
            InvalidSetting: if the loss is no longer finite.
        """
        step = self.global_step
        loss = self.loss(batch, torch_generator("loss", self.train_seed, step))
        # Lightning's log costs half a millisecond a call: keep the losses, and call it rarely
        self._losses.append(loss.detach())
        if (step + 1) % self.recipe.log_every == 0 or step + 1 == self.recipe.steps:
            mean = torch.stack(self._losses).mean()
            self._losses.clear()
            self._require_finite(mean, step)
            self.log("train/loss", mean, prog_bar=True)
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Log the loss on held-out data."""
        loss = self.loss(batch, torch_generator("validation", batch_idx))
        self.log("validation/loss", loss, prog_bar=True, batch_size=len(batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW or SGD, fused."""
        recipe = self.recipe
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        if recipe.momentum is not None:
            return torch.optim.SGD(
                parameters,
                lr=recipe.lr,
                momentum=recipe.momentum,
                weight_decay=recipe.weight_decay,
                fused=True,
            )
        return torch.optim.AdamW(
            parameters, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True
        )

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Set the rate of this step: a function of the step, so there is nothing to resume."""
        rate = self.recipe.lr * self.recipe.rate(self.global_step)
        for group in optimizer.param_groups:
            group["lr"] = rate

    def _require_finite(self, mean: Tensor, step: int) -> None:
        if not math.isfinite(mean.item()):
            allowed = f"smaller: the training loss is not finite by step {step + 1}"
            raise InvalidSetting("trainer.lr", self.recipe.lr, allowed)
