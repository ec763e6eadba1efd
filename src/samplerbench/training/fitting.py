"""What Lightning runs: a LightningModule around an objective, a LightningDataModule around data.

Random numbers are keyed by (train_seed, step), so step k draws the same ones whether or not the run
was interrupted before it, and torch's global generator is not touched. The validation loss has the
same noise and levels every time, and the same for all seeds: its changes are the network's.
"""

from __future__ import annotations

import math

import pytorch_lightning as pl
import torch
from torch import Tensor

from samplerbench.core.noise import torch_generator
from samplerbench.errors import RunFailed
from samplerbench.objectives.base import Model, Objective, Recipe
from samplerbench.training.batches import Batches, Once, TensorData


class Fitting(pl.LightningModule):
    """One objective being minimised.

    Args:
        objective: the loss with its model and recipe.
    """

    def __init__(self, objective: Objective[Model]) -> None:
        super().__init__()
        self.objective = objective
        self._losses: list[Tensor] = []  # since the last entry of the log

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """The loss on a batch; every `log_every` steps their mean is logged.

        Raises:
            RunFailed: if the loss is no longer finite.
        """
        step, recipe = self.global_step, self.objective.recipe
        # the first device draws what a single one would; the others have keys of their own
        rank = [self.global_rank] if self.global_rank else []
        generator = torch_generator("loss", self.objective.train_seed, step, *rank)
        loss = self.objective.loss(batch, generator)
        # Lightning's log costs half a millisecond a call: keep the losses, and call it rarely
        self._losses.append(loss.detach())
        if (step + 1) % recipe.log_every == 0 or step + 1 == recipe.steps:
            mean = torch.stack(self._losses).mean()
            self._losses.clear()
            if not math.isfinite(mean.item()):
                reason = f"the training loss is not finite by step {step + 1}"
                raise diverged(recipe, reason)
            self.log("train/loss", mean, prog_bar=True, sync_dist=recipe.devices > 1)
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Log the loss on held-out data."""
        loss = self.objective.loss(batch, torch_generator("validation", batch_idx))
        several = self.objective.recipe.devices > 1
        self.log("validation/loss", loss, prog_bar=True, batch_size=len(batch), sync_dist=several)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The recipe's."""
        return self.objective.recipe.optimiser(self.objective.parameters())

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Set the rate of this step: a function of the step, so there is nothing to resume."""
        recipe = self.objective.recipe
        rate = recipe.lr * recipe.rate(self.global_step)
        for group in optimizer.param_groups:
            group["lr"] = rate


def diverged(recipe: Recipe, reason: str) -> RunFailed:
    """What a training ends with whose numbers are no longer finite."""
    return RunFailed(f"trainer.lr={recipe.lr}: must be smaller: {reason}")


class Loading(pl.LightningDataModule):
    """The batches of a training.

    Args:
        data: what they are of.
    """

    def __init__(self, data: TensorData) -> None:
        super().__init__()
        self.data = data

    def train_dataloader(self) -> Batches:
        """All the batches of a training, or what is left of it where it was interrupted."""
        trainer = self.trainer
        assert trainer is not None
        return self.data.batches(
            trainer.max_steps, trainer.global_step, trainer.global_rank, trainer.world_size
        )

    def val_dataloader(self) -> Once:
        """The validation data as one batch, where there are any."""
        assert self.data.validation is not None
        return Once(self.data.validation)
