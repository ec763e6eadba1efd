"""Samples of one cell of a sweep, or all the way to them, written block by block.

Starts and noise are those of the sweep, keyed by block: so the samples are the same bits as in the
sweep, and sample i depends neither on how many there are nor on whether its way is kept. What is
kept of the way are the states after 0, k, 2k, … steps and after the last one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samplerbench.bench.cell import Cell
from samplerbench.bench.sweep import Sweep, mean_over_samples
from samplerbench.core.models import Counted
from samplerbench.datasets.base import LARGEST
from samplerbench.errors import InvalidSetting
from samplerbench.samplers.base import iterate


@dataclass(frozen=True)
class Made:
    """What it took to make samples.

    Args:
        nfe: evaluations of the model per sample.
        seconds: of all of them.
        bad: how many samples are not finite, or too large to be measured.
    """

    nfe: int
    seconds: float
    bad: int


def frames(steps: int, every: int) -> list[int]:
    """After how many steps a state is kept: 0, every, 2·every, …, and the last one always."""
    return [*range(0, steps, every), steps]


def shape_of(sweep: Sweep, cell: Cell, every: int | None) -> tuple[int, ...]:
    """(n, dim), or (frames, n, dim) where every k-th state is kept."""
    last = (sweep.n_samples, sweep.dataset.dim)
    return last if every is None else (len(frames(cell.steps, every)), *last)


def require_runs(sweep: Sweep, cell: Cell) -> None:
    """Refuse a cell that cannot be drawn.

    Raises:
        InvalidSetting: with the reason.
    """
    assert cell.settings is not None
    start = sweep.starts_of(cell.settings)[cell.start]
    reason = start.why_incompatible(sweep.dataset)
    if reason is not None:
        raise InvalidSetting("start", cell.start, f"another one: {reason}")
    model = sweep.denoisers[cell.denoiser]
    levels = sweep.levels(cell.steps, cell.settings)
    reason = cell.settings.why_incompatible(model, levels)
    if reason is not None:
        raise InvalidSetting("sampler", cell.sampler, f"another one: {reason}")


def sample_into(
    array: NDArray[np.floating],
    sweep: Sweep,
    cell: Cell,
    every: int | None = None,
    on_block: Callable[[], None] = lambda: None,
) -> Made:
    """Fill an array with the samples of a cell; only one block a worker is in memory.

    Args:
        array: of `shape_of`.
        sweep: what the cell is of; its workers make blocks side by side.
        cell: one that can be drawn.
        every: k, or None for the last states only.
        on_block: called in this thread when a block is done.
    """
    began = time.perf_counter()
    kept = [cell.steps] if every is None else frames(cell.steps, every)
    rows = {number: array if every is None else array[i] for i, number in enumerate(kept)}
    counts, bad = [], 0
    with ThreadPoolExecutor(sweep.workers) as pool:
        try:
            blocks = range(math.ceil(sweep.n_samples / sweep.block))
            for count, wrong in pool.map(lambda block: _block(rows, sweep, cell, block), blocks):
                counts.append(count)
                bad += wrong
                on_block()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    sizes = [min(sweep.block, sweep.n_samples - block * sweep.block) for block in blocks]
    return Made(mean_over_samples(counts, sizes), time.perf_counter() - began, bad)


@torch.no_grad()
def _block(
    rows: Mapping[int, NDArray[np.floating]], sweep: Sweep, cell: Cell, block: int
) -> tuple[int, int]:
    """Fill the block's rows of every frame; (evaluations, samples that are not finite)."""
    assert cell.settings is not None
    first = block * sweep.block
    count = min(sweep.block, sweep.n_samples - first)

    def keep(number: int, x: Tensor) -> None:
        if number in rows:
            rows[number][first : first + count] = x[:count].cpu().numpy()

    model = Counted(sweep.denoisers[cell.denoiser])
    levels = sweep.levels(cell.steps, cell.settings)
    x, noise = sweep.beginning(cell, levels, block)
    keep(0, x)
    for number, step in enumerate(iterate(cell.settings, model, x, levels, noise), 1):
        x = step.x
        keep(number, x)
    return model.evaluations, int(
        (~(x[:count].abs() < LARGEST)).any(-1).sum()
    )  # NaN is below nothing
