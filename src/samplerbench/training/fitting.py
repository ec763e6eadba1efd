"""The LightningModule of a training: its batches, its losses, its optimiser.

Random numbers depend only on (train_seed, step). So step k draws the same numbers in an interrupted
and in an uninterrupted run, and torch's global generator is not used. Every validation uses the
same noise and levels, whatever the seed: the validation loss changes only with the network.
"""

from __future__ import annotations

import math

import pytorch_lightning as pl
import torch
from torch import Tensor

from samplerbench.core.noise import torch_generator
from samplerbench.errors import RunFailed
from samplerbench.objectives.base import Model, Objective, Recipe
from samplerbench.training.batches import Batches, SingleBatch, TensorData


class Fitting(pl.LightningModule):
    """Minimises one objective. The methods are in the order of the calls in a step.

    Args:
        objective: the loss, with its model and recipe.
        data: training and validation data.
    """

    def __init__(self, objective: Objective[Model], data: TensorData) -> None:
        super().__init__()
        self.objective = objective
        self.data = data
        self._losses: list[Tensor] = []  # since the last entry of the log

    def train_dataloader(self) -> Batches:
        """The batches of this device, from the current step on."""
        objective = self.objective
        return Batches(
            self.data.x0,
            objective.recipe,
            objective.train_seed,
            self.trainer.global_step,
            self.trainer.global_rank,
        )

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """The loss on a batch; logs the mean loss every `log_every` steps.

        Raises:
            RunFailed: the loss is not finite.
        """
        step, recipe = self.global_step, self.objective.recipe
        # the first device draws the numbers of a training on one device; the others add their rank
        rank = [self.global_rank] if self.global_rank else []
        generator = torch_generator("loss", self.objective.train_seed, step, *rank)
        loss = self.objective.loss(batch, generator)
        # a call of Lightning's log takes half a millisecond: collect losses, and call it rarely
        self._losses.append(loss.detach())
        if (step + 1) % recipe.log_every == 0 or step + 1 == recipe.steps:
            mean = torch.stack(self._losses).mean()
            self._losses.clear()
            if not math.isfinite(mean.item()):
                reason = f"the training loss is not finite by step {step + 1}"
                raise diverged(recipe, reason)
            self.log("train/loss", mean, prog_bar=True, sync_dist=recipe.devices > 1)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.objective.recipe.optimiser(self.objective.parameters())

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Set the learning rate, a function of the step: a resumed run needs no scheduler state."""
        recipe = self.objective.recipe
        rate = recipe.lr * recipe.rate(self.global_step)
        for group in optimizer.param_groups:
            group["lr"] = rate

    def val_dataloader(self) -> SingleBatch:
        """All validation data as one batch."""
        assert self.data.validation is not None  # `train` turns validation off without data
        return SingleBatch(self.data.validation)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Log the loss on held-out data."""
        loss = self.objective.loss(batch, torch_generator("validation", batch_idx))
        several = self.objective.recipe.devices > 1
        self.log("validation/loss", loss, prog_bar=True, batch_size=len(batch), sync_dist=several)


def diverged(recipe: Recipe, reason: str) -> RunFailed:
    """The error for a training with a loss or weights that are not finite."""
    return RunFailed(f"trainer.lr={recipe.lr}: must be smaller: {reason}")
