"""Batches: rows of one tensor, gathered by index, never collated item by item.

Without replacement each pass visits the data in an order of its own and drops the rows that do not
fill a batch, unless the last, smaller one is kept; with replacement every batch is drawn afresh.
Batch k depends on (train_seed, k) only, so a resumed run sees what an uninterrupted one would have
seen, and nothing reads the global generator. To Lightning all the steps are one epoch: a thousand
short epochs cost more than the network. The tensor may lie on the accelerator; the indices follow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from samplerbench.core.noise import torch_generator
from samplerbench.errors import require


@dataclass(frozen=True, eq=False)
class Batches:
    """The batches `first`, …, `steps` − 1 of a training, as an iterable with a length.

    Args:
        x0: the data, shape (n, dim).
        batch_size: rows per batch; without replacement at most n of them.
        replacement: whether rows are drawn with replacement.
        train_seed: what the order depends on.
        steps: number of batches in the whole training.
        first: number of the first batch here; above 0 in a resumed run.
        keep_last: whether a pass ends with what does not fill a batch.
        rank: which share of each batch is here, where several devices train.
        devices: how many shares there are.
    """

    x0: Tensor
    batch_size: int
    replacement: bool
    train_seed: int
    steps: int
    first: int = 0
    keep_last: bool = False
    rank: int = 0
    devices: int = 1

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Tensor]:
        order, current = torch.empty(0, dtype=torch.int64), -1
        count = len(self.x0)
        size = self.batch_size if self.replacement else min(self.batch_size, count)
        in_pass = count // size
        if self.keep_last and count % size:
            in_pass += 1
        for step in range(self.first, self.steps):
            if self.replacement:
                generator = torch_generator("batch", self.train_seed, step)
                index = torch.randint(count, (size,), generator=generator)
            else:
                number, place = divmod(step, in_pass)
                if number != current:
                    generator = torch_generator("order", self.train_seed, number)
                    order, current = torch.randperm(count, generator=generator), number
                index = order[place * size : (place + 1) * size]
            share = index[self.rank :: self.devices]
            yield self.x0[share.to(self.x0.device)]


@dataclass(frozen=True, eq=False)
class Once:
    """All the data as one batch, once.

    Lightning would take a list with a tensor for a list of loaders, and each row for a batch.
    """

    x0: Tensor

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Tensor]:
        yield self.x0


class TensorData:
    """Training and validation data that lie in memory.

    Args:
        x0: training data, shape (n, dim), kept as float32.
        validation: held-out data, shape (m, dim), one batch; None for no validation.
        batch_size: rows per batch.
        replacement: whether rows are drawn with replacement.
        train_seed: what the order depends on.
        keep_last: whether a pass ends with what does not fill a batch.
    """

    def __init__(
        self,
        x0: Tensor,
        validation: Tensor | None,
        *,
        batch_size: int,
        replacement: bool,
        train_seed: int,
        keep_last: bool = False,
    ) -> None:
        require(x0.ndim == 2 and len(x0) > 0, "n_train", len(x0), "at least 1")
        require(bool(x0.isfinite().all()), "dataset", "draws with NaN or infinity", "finite")
        self.x0 = x0.float()
        self.validation = None if validation is None else validation.float()
        self.batch_size = batch_size
        self.replacement = replacement
        self.train_seed = train_seed
        self.keep_last = keep_last

    @property
    def mean(self) -> Tensor:
        """The mean of the training data, shape (dim,)."""
        return self.x0.double().mean(0)

    @property
    def std(self) -> float:
        """Their standard deviation: the root of the variance's mean over coordinates."""
        std = float(self.x0.double().var(0, correction=0).mean().sqrt())
        return std if std > 0 else 1.0

    def batches(self, steps: int, first: int = 0, rank: int = 0, devices: int = 1) -> Batches:
        """The batches of a training, as `Batches` has them.

        Args:
            steps: of the training.
            first: the batch to begin with.
            rank: which share of each batch.
            devices: how many shares.
        """
        return Batches(
            self.x0,
            self.batch_size,
            self.replacement,
            self.train_seed,
            steps,
            first,
            self.keep_last,
            rank,
            devices,
        )
