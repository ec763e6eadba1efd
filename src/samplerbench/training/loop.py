"""Training: from an objective and its data to a denoiser.

Lightning runs the steps; its weight-averaging callback keeps the exponential moving average

    θ̄_1 = θ_1,   θ̄_{k+m} = decay^m·θ̄_k + (1 − decay^m)·θ_{k+m},

which validation uses and which is what training returns (Polyak and Juditsky, "Acceleration of
stochastic approximation by averaging", 1992; with constant decay as in Song et al. 2021, arXiv
2011.13456, Section 4), m = 1 or more steps at a time. Its horizon is 1/(1 − decay) steps. Only
parameters are averaged: buffers are constants here.
"""

from __future__ import annotations

import io
import logging
import os
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.callbacks import (
    Callback,
    Checkpoint,
    EMAWeightAveraging,
    RichProgressBar,
)
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.types import STEP_OUTPUT
from torch.multiprocessing.spawn import ProcessRaisedException

from samplerbench.environment import environment
from samplerbench.errors import RunFailed
from samplerbench.files import sealed, set_aside, unsealed, write_atomically
from samplerbench.objectives.base import Model, Objective, Recipe
from samplerbench.training.batches import TensorData
from samplerbench.training.fitting import Fitting, Loading, diverged
from samplerbench.training.weights import LOSSES, STATE, WEIGHTS, Loss, finite, save

#: Where a process is told its place among others. A training would take it for its own.
PLACE = ("LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def train(
    objective: Objective[Model],
    data: TensorData,
    *,
    directory: Path,
    log: Callable[[Sequence[Loss]], None] | None = None,
    callbacks: Sequence[Callback] = (),
    device: torch.device | str = "cpu",
    progress: bool = True,
    resumable: bool = False,
) -> Model:
    """Train the objective's model by its recipe and write losses and weights to `directory`.

    The same objective, data and seeds give the same bits on the same machine with the same number
    of threads, also when the training was interrupted and resumed. Where there are weights they are
    whole, and their losses are there too.

    Args:
        objective: the loss, with its model and recipe; its model is changed in place.
        data: batches of clean data.
        directory: where `losses.csv` and then `model.safetensors` go.
        log: is given all losses so far whenever there is a new one; not from several devices.
        callbacks: more of Lightning's callbacks.
        device: where to run; several devices are this one and those after it.
        progress: whether a progress bar is shown.
        resumable: whether the state is kept in `directory` now and then, until the training has
            ended, and gone on from where it is there; one that cannot be used is named.

    Returns:
        The model, with averaged weights, in float32, on the CPU, not to be trained further.

    Raises:
        RunFailed: if the loss or the weights are no longer finite.
    """
    recipe = objective.recipe
    own: list[Callback] = [LossHistory(recipe.log_every, directory, log)]
    state = directory / STATE
    validate_every = None if data.validation is None else recipe.validate_every
    if resumable:
        own.append(Keeper(recipe, validate_every, state))
    if recipe.ema_decay is not None:
        own.append(
            EMAWeightAveraging(
                use_buffers=False,
                decay=recipe.ema_decay**recipe.ema_every,
                update_every_n_steps=recipe.ema_every,
            )
        )
    if progress:
        own.append(SparseBar(refresh_rate=max(1, recipe.steps // 100)))
    with _quiet(), _by_config_alone():
        trainer = pl.Trainer(
            accelerator="cpu" if torch.device(device).type == "cpu" else "gpu",
            devices=_numbers(torch.device(device), recipe.devices),
            # of Lightning's ways one that forks: others begin the whole command in each process
            strategy="ddp_fork" if recipe.devices > 1 else "auto",
            # also under Slurm, of which a job is one task: Lightning's way to requeue it writes a
            # checkpoint wherever the step is (its issue 21406), and is there in trainings only
            plugins=[LightningEnvironment(), States()],
            precision=recipe.precision,  # type: ignore[arg-type]  # Recipe has checked it
            max_steps=recipe.steps,
            max_epochs=1,
            logger=False,
            callbacks=[*callbacks, *own],
            log_every_n_steps=recipe.log_every,
            val_check_interval=validate_every,
            limit_val_batches=None if validate_every else 0,
            check_val_every_n_epoch=None if validate_every else 1,
            num_sanity_val_steps=0,
            enable_checkpointing=any(isinstance(c, Checkpoint) for c in [*callbacks, *own]),
            enable_progress_bar=progress,
            enable_model_summary=False,
            default_root_dir=directory,
        )
        before = signal.getsignal(signal.SIGINT)
        resume = state if resumable and _usable(state) else None
        try:
            trainer.fit(
                Fitting(objective), datamodule=Loading(data), ckpt_path=resume, weights_only=True
            )
        except SystemExit:
            # Lightning's answer to Ctrl-C, which would also end the other jobs of a multirun
            if trainer.interrupted:
                signal.signal(signal.SIGINT, before)
                raise KeyboardInterrupt from None
            raise
        except ProcessRaisedException as error:  # of one that was forked, as text
            *_, last = str(error).strip().splitlines()
            kind, _, reason = last.partition(": ")
            if kind == f"{RunFailed.__module__}.{RunFailed.__name__}":
                raise RunFailed(reason) from None
            raise
    if not finite(objective.model.state_dict()):
        raise diverged(recipe, f"the weights are not finite after step {recipe.steps}")
    model = objective.model.float().cpu().eval().requires_grad_(False)
    save(model, directory / WEIGHTS, (directory / LOSSES).read_bytes())
    if resumable:
        state.unlink(missing_ok=True)
    return model


def _numbers(device: torch.device, count: int) -> int | list[int]:
    """Lightning's `devices`: a number alone is the count of any, and it takes the first ones."""
    if device.index is None or device.type == "cpu":
        return count
    return list(range(device.index, device.index + count))


class Keeper(Checkpoint):
    """Keeps the state twenty times in a training, at steps where no loss waits to be logged.

    If such a step is followed by validation then after that, so that its loss is kept too. Not
    after the last step: a training that goes on from there has nothing to do, and Lightning then
    leaves out what ends one, such as putting the averaged weights into the model.

    Args:
        recipe: of the training.
        validate_every: steps between two validations; None for none.
        state: the file to keep the state in.
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
        """Keep it, if no validation follows."""
        if self._validate_every is None or trainer.global_step % self._validate_every > 0:
            self._keep(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep it with the loss on held-out data."""
        self._keep(trainer)

    def _keep(self, trainer: pl.Trainer) -> None:
        if trainer.global_step % self._every == 0 and trainer.global_step < trainer.max_steps:
            trainer.save_checkpoint(self._state, weights_only=False)


class States(TorchCheckpointIO):
    """Kept states with their digest, in one file: it is whole and as it was written, or no use."""

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: Any = None,
    ) -> None:
        """Write a state, so that it is whole or absent."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(Path(path), sealed(content.getbuffer()))

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any = "cpu",
        weights_only: bool | None = True,
    ) -> dict[str, Any]:
        """Read a state; nothing in it is executed.

        Raises:
            ValueError: its bytes are not those that were written.
        """
        content = io.BytesIO(unsealed(Path(path).read_bytes()))
        state: dict[str, Any] = torch.load(content, map_location=map_location, weights_only=True)
        return state


def _usable(state: Path) -> bool:
    """Whether a kept state can be gone on from; one that is there and cannot is put aside."""
    if not state.exists():
        return False
    try:
        States().load_checkpoint(state)
    except Exception as error:  # whatever the file holds
        set_aside(state, error)
        return False
    return True


class LossHistory(Callback):
    """Keeps the losses, tells them as they come, and writes them at the end.

    Attributes:
        rows: in the order they came.
    """

    def __init__(
        self, log_every: int, directory: Path, log: Callable[[Sequence[Loss]], None] | None
    ) -> None:
        self.rows: list[Loss] = []
        self._log_every = log_every
        self._directory = directory
        self._log = log

    def state_dict(self) -> dict[str, Any]:
        """The losses so far, for a training that is resumed."""
        return {"rows": list(self.rows)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the losses of the interrupted training."""
        self.rows = [tuple(row) for row in state_dict["rows"]]

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Keep the mean over the last steps, when it has been logged."""
        step = trainer.global_step
        if step % self._log_every == 0 or step == trainer.max_steps:
            self._keep(trainer, "train")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the loss on held-out data."""
        self._keep(trainer, "validation")

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the losses, where they are: several devices train in processes of their own."""
        if trainer.is_global_zero:
            self._directory.mkdir(parents=True, exist_ok=True)
            lines = "".join(f"{step},{name},{loss!r}\n" for step, name, loss in self.rows)
            write_atomically(self._directory / LOSSES, f"step,name,loss\n{lines}".encode())

    def _keep(self, trainer: pl.Trainer, name: str) -> None:
        loss = trainer.callback_metrics.get(f"{name}/loss")
        if loss is not None:
            self.rows.append((trainer.global_step, name, float(loss)))
            if self._log is not None and trainer.world_size == 1:  # a forked process has no log
                self._log(self.rows)


class SparseBar(RichProgressBar):
    """Lightning's progress bar, asked a hundred times in all.

    It collects the metrics at every step, also where it does not draw them; on a small network
    that is a visible share of the step.
    """

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Lightning's, at the steps that are drawn, and at the last."""
        done = batch_idx + 1
        if done % self.refresh_rate == 0 or done == trainer.max_steps:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)


@contextmanager
def _by_config_alone() -> Iterator[None]:
    """Lightning without what it reads in the environment: the config says how to train.

    It would take the place that this process has among others, such as those that `srun` begins,
    for one in the training, where the only ranks are those of the processes that it forks itself.
    It would take settings of its Trainer, and decide on the threads of a forked process.
    """
    settings = [name for name in os.environ if name.startswith("PL_TRAINER_")]
    threads = str(torch.get_num_threads())
    rank = rank_zero_only.rank  # type: ignore[attr-defined]
    with environment({**dict.fromkeys([*PLACE, *settings]), "OMP_NUM_THREADS": threads}):
        rank_zero_only.rank = 0  # type: ignore[attr-defined]
        try:
            yield
        finally:
            rank_zero_only.rank = rank  # type: ignore[attr-defined]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what Lightning says at each start and what is on purpose here."""
    log = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*does not have many workers.*")
            warnings.filterwarnings("ignore", ".*srun.*")
            warnings.filterwarnings("ignore", ".*LeafSpec.*")
            # ours are: batch k is the same whatever came before it
            warnings.filterwarnings("ignore", ".*your dataloader is not resumable.*")
            yield
    finally:
        log.setLevel(level)
