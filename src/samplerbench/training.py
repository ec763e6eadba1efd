"""Training: from an objective and its data to a denoiser.

Lightning runs the steps; its weight-averaging callback keeps the exponential moving average

    θ̄_1 = θ_1,   θ̄_{k+m} = decay^m·θ̄_k + (1 − decay^m)·θ_{k+m},

which validation uses and which is what training returns (Polyak and Juditsky, "Acceleration of
stochastic approximation by averaging", 1992; with constant decay as in Song et al. 2021, arXiv
2011.13456, Section 4), m = 1 or more steps at a time. Its horizon is 1/(1 − decay) steps. Only
parameters are averaged: buffers are constants here.
"""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import safetensors.torch
from pytorch_lightning.callbacks import Callback, Checkpoint, EMAWeightAveraging, RichProgressBar
from pytorch_lightning.loggers import Logger
from pytorch_lightning.profilers import PassThroughProfiler
from pytorch_lightning.utilities.types import STEP_OUTPUT

from samplerbench.evaluation.store import write_atomically
from samplerbench.objectives.base import Model, Objective

WEIGHTS = "model.safetensors"


def train(
    objective: Objective[Model],
    data: pl.LightningDataModule,
    *,
    directory: Path,
    logger: Logger | None = None,
    callbacks: Sequence[Callback] = (),
    accelerator: str = "cpu",
    progress: bool = True,
    resume: Path | None = None,
) -> Model:
    """Train the objective's model by its recipe and write its weights to `directory`.

    The same objective, data and seeds give the same bits on the same machine with the same number
    of threads, also when the run was interrupted and resumed from a `ModelCheckpoint`.

    Args:
        objective: the loss, with its model and recipe; its model is changed in place.
        data: batches of clean data.
        directory: where the weights go, as `model.safetensors`.
        logger: Lightning's, for the losses; None logs nothing.
        callbacks: more of Lightning's callbacks.
        accelerator: Lightning's word for where to run: "cpu", "gpu", "auto".
        progress: whether a progress bar is shown.
        resume: a checkpoint of Lightning's to go on from.

    Returns:
        The model, with averaged weights, in float32, on the CPU, not to be trained further.

    Raises:
        InvalidSetting: if the loss is no longer finite.
    """
    recipe = objective.recipe
    own: list[Callback] = []
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
    with _quiet():
        trainer = pl.Trainer(
            accelerator=accelerator,
            devices=1,
            precision=recipe.precision,  # type: ignore[arg-type]  # Recipe has checked it
            max_steps=recipe.steps,
            max_epochs=1,
            logger=logger if logger is not None else False,
            callbacks=[*callbacks, *own],
            log_every_n_steps=recipe.log_every,
            val_check_interval=recipe.validate_every,
            limit_val_batches=None if recipe.validate_every else 0,
            check_val_every_n_epoch=None if recipe.validate_every else 1,
            num_sanity_val_steps=0,
            enable_checkpointing=any(isinstance(c, Checkpoint) for c in callbacks),
            enable_progress_bar=progress,
            enable_model_summary=False,
            profiler=NoProfiler(),
            default_root_dir=directory,
        )
        before = signal.getsignal(signal.SIGINT)
        try:
            trainer.fit(objective, datamodule=data, ckpt_path=resume, weights_only=True)
        except SystemExit:
            # Lightning's answer to Ctrl-C, which would also end the other jobs of a multirun
            if trainer.interrupted:
                signal.signal(signal.SIGINT, before)
                raise KeyboardInterrupt from None
            raise
    model = objective.model.float().cpu().eval().requires_grad_(False)
    directory.mkdir(parents=True, exist_ok=True)
    write_atomically(directory / WEIGHTS, safetensors.torch.save(model.state_dict()))
    return model


class LossHistory(Callback):
    """Keeps the losses that are logged, for a picture of them.

    Attributes:
        rows: (step, "train" or "validation", loss), in the order they came.
    """

    def __init__(self, log_every: int) -> None:
        self.rows: list[tuple[int, str, float]] = []
        self._log_every = log_every

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

    def _keep(self, trainer: pl.Trainer, name: str) -> None:
        loss = trainer.callback_metrics.get(f"{name}/loss")
        if loss is not None:
            self.rows.append((trainer.global_step, name, float(loss)))


class NoProfiler(PassThroughProfiler):
    """Lightning's way not to profile, without a new generator for each of 25 actions a step."""

    _nothing = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        """A context that does nothing."""
        return self._nothing


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


def load(model: Model, path: Path) -> Model:
    """Read the weights that `train` wrote into a model built in the same way.

    The format holds numbers and nothing that could be executed.

    Args:
        model: with the same network, target and schedule; its weights and data scale are replaced.
        path: of the weights.
    """
    model.load_state_dict(safetensors.torch.load_file(path))
    return model.float().eval().requires_grad_(False)


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
            warnings.filterwarnings("ignore", ".*Total length of `list` across ranks is zero.*")
            # ours are: batch k is the same whatever came before it
            warnings.filterwarnings("ignore", ".*your dataloader is not resumable.*")
            yield
    finally:
        log.setLevel(level)
