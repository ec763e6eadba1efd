"""Training: from an objective and its data to a trained model.

Lightning runs the steps. Its weight-averaging callback keeps the exponential moving average

    θ̄_1 = θ_1,   θ̄_{k+m} = decay^m·θ̄_k + (1 − decay^m)·θ_{k+m},

every m ≥ 1 steps. Validation uses this average, and training returns it (Polyak and Juditsky,
"Acceleration of stochastic approximation by averaging", 1992; with constant decay as in Song et al.
2021, arXiv 2011.13456, Section 4). Its horizon is 1/(1 − decay) steps. Only parameters are
averaged; buffers are constant here.
"""

from __future__ import annotations

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
from pytorch_lightning.callbacks import Callback, Checkpoint, EMAWeightAveraging, RichProgressBar
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.types import STEP_OUTPUT
from torch.multiprocessing.spawn import ProcessRaisedException

from samplerbench.environment import environment
from samplerbench.errors import RunFailed
from samplerbench.files import write_atomically
from samplerbench.objectives.base import Model, Objective
from samplerbench.training.batches import TensorData
from samplerbench.training.fitting import Fitting, diverged
from samplerbench.training.resuming import Keeper, States, usable
from samplerbench.training.weights import LOSSES, STATE, WEIGHTS, Loss, finite, save

#: Environment variables with the rank of a process; Lightning would read them.
RANK_VARIABLES = (
    "LOCAL_RANK",
    "NODE_RANK",
    "GROUP_RANK",
    "WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
)


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
    training_id: str = "",
) -> Model:
    """Train the objective's model by its recipe; write losses and weights to `directory`.

    The same objective, data and seeds give the same bits on the same machine with the same number
    of threads, even if the training was interrupted and resumed. The weights are written last, so
    the losses of a complete file of weights are in the same folder.

    Args:
        objective: the loss, with its model and recipe; its model is changed in place.
        data: clean data.
        directory: the folder for `losses.csv` and `model.safetensors`.
        log: called with all losses so far after each new one; not with several devices.
        callbacks: more Lightning callbacks.
        device: the device of the training; with several devices, the first one.
        progress: whether to show a progress bar.
        resumable: whether to save the state in `directory` during the training, and to resume from
            an existing state. An unusable state is renamed, with a warning.
        training_id: the identity of this training, which the file of weights contains.

    Returns:
        The model, with averaged weights, in float32, on the CPU, without gradients.

    Raises:
        RunFailed: the loss or the weights are not finite.
    """
    recipe = objective.recipe
    state = directory / STATE
    validate_every = None if data.validation is None else recipe.validate_every
    callbacks = [*callbacks, LossHistory(recipe.log_every, directory, log)]
    if resumable:
        callbacks.append(Keeper(recipe, validate_every, state))
    if recipe.ema_decay is not None:
        callbacks.append(
            EMAWeightAveraging(
                use_buffers=False,
                decay=recipe.ema_decay**recipe.ema_every,
                update_every_n_steps=recipe.ema_every,
            )
        )
    if progress:
        callbacks.append(SparseBar(refresh_rate=max(1, recipe.steps // 100)))
    kind = torch.device(device).type
    with _quiet(), _without_environment():
        trainer = pl.Trainer(
            accelerator="cpu" if kind == "cpu" else "gpu",
            devices=_devices(torch.device(device), recipe.devices),
            # fork: Lightning's other strategies start the whole command again in each process
            strategy="ddp_fork" if recipe.devices > 1 else "auto",
            # even under Slurm: Lightning's own requeueing works only during a training, and writes
            # a checkpoint in the middle of a step (Lightning issue 21406)
            plugins=[LightningEnvironment(), States()],
            precision=objective.precision(kind),  # type: ignore[arg-type]  # Recipe has checked it
            max_steps=recipe.steps,
            max_epochs=1,
            logger=False,
            callbacks=callbacks,
            log_every_n_steps=recipe.log_every,
            val_check_interval=validate_every,
            limit_val_batches=None if validate_every else 0,
            check_val_every_n_epoch=None if validate_every else 1,
            num_sanity_val_steps=0,
            enable_checkpointing=any(isinstance(c, Checkpoint) for c in callbacks),
            enable_progress_bar=progress,
            enable_model_summary=False,
            default_root_dir=directory,
        )
        interrupt_handler = signal.getsignal(signal.SIGINT)
        resume = state if resumable and usable(state) else None
        try:
            trainer.fit(Fitting(objective, data), ckpt_path=resume, weights_only=True)
        except SystemExit:
            # Lightning turns Ctrl-C into an exit, which would also end the other jobs of a multirun
            if trainer.interrupted:
                signal.signal(signal.SIGINT, interrupt_handler)
                raise KeyboardInterrupt from None
            raise
        except ProcessRaisedException as error:  # a forked process failed; only text of its error
            *_, last_line = str(error).strip().splitlines()
            kind, _, reason = last_line.partition(": ")
            if kind == f"{RunFailed.__module__}.{RunFailed.__name__}":
                raise RunFailed(reason) from None
            raise
    if not finite(objective.model.state_dict()):
        raise diverged(recipe, f"the weights are not finite after step {recipe.steps}")
    model = objective.model.float().cpu().eval().requires_grad_(False)
    save(model, directory / WEIGHTS, (directory / LOSSES).read_bytes(), training_id)
    if resumable:
        state.unlink(missing_ok=True)
    return model


def _devices(device: torch.device, count: int) -> int | list[int]:
    """Lightning's `devices`: a number of devices, or a list of indices."""
    if device.index is None or device.type == "cpu":
        return count
    return list(range(device.index, device.index + count))


class LossHistory(Callback):
    """Collects the logged losses, reports each new one, and writes all of them at the end.

    Attributes:
        rows: the losses, in the order of the steps.
    """

    def __init__(
        self, log_every: int, directory: Path, log: Callable[[Sequence[Loss]], None] | None
    ) -> None:
        self.rows: list[Loss] = []
        self._log_every = log_every
        self._directory = directory
        self._log = log

    def state_dict(self) -> dict[str, Any]:
        return {"rows": list(self.rows)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = [tuple(row) for row in state_dict["rows"]]

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Collect the mean loss of the last steps, if it was just logged."""
        step = trainer.global_step
        if step % self._log_every == 0 or step == trainer.max_steps:
            self._collect(trainer, "train")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Collect the loss on held-out data."""
        self._collect(trainer, "validation")

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the losses, from the process of the first device."""
        if trainer.is_global_zero:
            self._directory.mkdir(parents=True, exist_ok=True)
            lines = "".join(f"{step},{name},{loss!r}\n" for step, name, loss in self.rows)
            write_atomically(self._directory / LOSSES, f"step,name,loss\n{lines}".encode())

    def _collect(self, trainer: pl.Trainer, name: str) -> None:
        loss = trainer.callback_metrics.get(f"{name}/loss")
        if loss is not None:
            self.rows.append((trainer.global_step, name, float(loss)))
            if self._log is not None and trainer.world_size == 1:  # forked processes cannot log
                self._log(self.rows)


class SparseBar(RichProgressBar):
    """Lightning's progress bar with about a hundred updates per training.

    The original bar collects the metrics in every step, even if it does not draw. In a terminal
    this takes 5 % of a step of a small network.
    """

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Update the bar at the steps that are drawn, and at the last one."""
        done = batch_idx + 1
        if done % self.refresh_rate == 0 or done == trainer.max_steps:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)


@contextmanager
def _without_environment() -> Iterator[None]:
    """Hide environment variables from Lightning, so that only the config has an effect.

    Lightning would interpret a rank that `srun`, for example, gives to this process as a rank in
    the training, where only forked processes have ranks. It would also read settings of its Trainer
    from the environment, and set the number of threads of forked processes.
    """
    trainer_settings = [name for name in os.environ if name.startswith("PL_TRAINER_")]
    threads = str(torch.get_num_threads())
    rank = rank_zero_only.rank  # type: ignore[attr-defined]
    hidden = dict.fromkeys([*RANK_VARIABLES, *trainer_settings])
    with environment({**hidden, "OMP_NUM_THREADS": threads}):
        rank_zero_only.rank = 0  # type: ignore[attr-defined]
        try:
            yield
        finally:
            rank_zero_only.rank = rank  # type: ignore[attr-defined]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Lightning's messages at each start, and its warnings about intended settings."""
    log = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*does not have many workers.*")
            warnings.filterwarnings("ignore", ".*srun.*")
            warnings.filterwarnings("ignore", ".*LeafSpec.*")
            # our dataloader is resumable: batch k does not depend on the batches before it
            warnings.filterwarnings("ignore", ".*your dataloader is not resumable.*")
            yield
    finally:
        log.setLevel(level)
