"""The state of an unfinished training: saved regularly, and checked before it is used."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities.types import STEP_OUTPUT

from samplerbench.files import sealed, set_aside, unsealed, write_atomically
from samplerbench.objectives.base import Recipe


class Keeper(Checkpoint):
    """Writes the state about twenty times in a training, at steps that log their loss.

    If validation follows such a step, the state is written after the validation, so it also
    contains the validation loss. No state is written after the last step: when Lightning resumes
    without steps left, it skips the end of a training, such as copying the averaged weights into
    the model.

    Args:
        recipe: the settings of the training.
        validate_every: steps between two validations; None for no validation.
        state: the file to write.
    """

    def __init__(self, recipe: Recipe, validate_every: int | None, state: Path) -> None:
        self._every = recipe.log_every * max(1, round(recipe.steps / (20 * recipe.log_every)))
        self._validate_every = validate_every
        self._state = state

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Write the state, if no validation follows."""
        if self._validate_every is None or trainer.global_step % self._validate_every > 0:
            self._keep(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the state with the validation loss."""
        self._keep(trainer)

    def _keep(self, trainer: pl.Trainer) -> None:
        if trainer.global_step % self._every == 0 and trainer.global_step < trainer.max_steps:
            trainer.save_checkpoint(self._state, weights_only=False)


class States(TorchCheckpointIO):
    """Reads and writes states with a digest in the same file."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a state; after an interruption the file is complete or absent."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(Path(path), sealed(content.getbuffer()))

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read a state, without executing code in it.

        Raises:
            ValueError: the file has changed since it was written.
        """
        content = io.BytesIO(unsealed(Path(path).read_bytes()))
        state: dict[str, Any] = torch.load(content, map_location=map_location, weights_only=True)
        return state


def usable(state: Path) -> bool:
    """Whether there is a state to resume from; an unusable file is renamed, with a warning."""
    if not state.exists():
        return False
    try:
        States().load_checkpoint(state)
    except Exception as error:  # the file may have any content
        set_aside(state, error)
        return False
    return True
