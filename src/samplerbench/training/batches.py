"""Training data and their batches: rows of one tensor, gathered by index.

Without replacement each pass visits the data in a new order. Rows that do not fill a batch are left
out of the pass, or form its last, smaller batch. With replacement every batch is a new draw. Batch
k depends only on (train_seed, k): a resumed run gets the same batches as an uninterrupted run, and
torch's global generator is not used. For Lightning all steps are one epoch, because a thousand
short epochs take more time than the network. The data may be on the accelerator; the indices are
moved there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from samplerbench.core.noise import torch_generator
from samplerbench.errors import require
from samplerbench.objectives.base import Recipe


class TensorData:
    """Training and validation data in memory, as float32.

    Args:
        x0: training data, shape (n, dim).
        validation: held-out data, shape (m, dim); None for no validation.
    """

    def __init__(self, x0: Tensor, validation: Tensor | None) -> None:
        require(x0.ndim == 2 and len(x0) > 0, "n_train", len(x0), "at least 1")
        require(bool(x0.isfinite().all()), "dataset", "draws with NaN or infinity", "finite")
        self.x0 = x0.float()
        self.validation = None if validation is None else validation.float()

    @property
    def mean(self) -> Tensor:
        """The mean of the training data, shape (dim,)."""
        return self.x0.double().mean(0)

    @property
    def std(self) -> float:
        """The root of the mean variance of the coordinates; 1 if all rows are equal."""
        std = float(self.x0.double().var(0, correction=0).mean().sqrt())
        return std if std > 0 else 1.0


@dataclass(frozen=True, eq=False)
class Batches:
    """The batches `first`, …, `recipe.steps` − 1 of a training.

    Args:
        x0: the data, shape (n, dim).
        recipe: batch size, steps, whether rows are drawn with replacement, number of devices.
        train_seed: determines the order of the rows.
        first: number of the first batch; above 0 in a resumed run.
        rank: the index of the device; each of several devices gets its share of every batch.
    """

    x0: Tensor
    recipe: Recipe
    train_seed: int
    first: int = 0
    rank: int = 0

    def __len__(self) -> int:
        return self.recipe.steps

    def __iter__(self) -> Iterator[Tensor]:
        recipe, rows = self.recipe, len(self.x0)
        size = recipe.batch_size if recipe.replacement else min(recipe.batch_size, rows)
        batches_per_pass = -(-rows // size) if recipe.keep_last else rows // size
        order, current_pass = torch.empty(0, dtype=torch.int64), -1
        for step in range(self.first, recipe.steps):
            if recipe.replacement:
                generator = torch_generator("batch", self.train_seed, step)
                index = torch.randint(rows, (size,), generator=generator)
            else:
                pass_number, place = divmod(step, batches_per_pass)
                if pass_number != current_pass:
                    generator = torch_generator("order", self.train_seed, pass_number)
                    order, current_pass = torch.randperm(rows, generator=generator), pass_number
                index = order[place * size : (place + 1) * size]
            share = index[self.rank :: recipe.devices]
            yield self.x0[share.to(self.x0.device)]


@dataclass(frozen=True, eq=False)
class SingleBatch:
    """All rows as one batch.

    A plain list would not work: Lightning interprets a list with one tensor as a list of data
    loaders, and each row of the tensor as a batch.

    Args:
        x0: shape (n, dim).
    """

    x0: Tensor

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Tensor]:
        yield self.x0
