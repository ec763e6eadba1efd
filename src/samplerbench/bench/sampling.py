"""Write the samples of one cell of a sweep, or also their intermediate states, block by block.

Starts and noise are those of the sweep, keyed by block. So the samples have the same bits as in the
sweep, and sample i depends neither on their number nor on whether intermediate states are kept.
Intermediate states are those after 0, k, 2k, … steps and after the last one.
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
from samplerbench.core.grids import in_data_units
from samplerbench.core.models import Counted
from samplerbench.datasets.base import LARGEST
from samplerbench.errors import require_compatible
from samplerbench.samplers.base import iterate


@dataclass(frozen=True)
class SamplingCost:
    """The cost of sampling, and the number of bad samples."""

    nfe: int  # evaluations of the model per sample
    rounds: int  # the number of sequential evaluations
    seconds: float  # for all samples
    bad: int  # the number of samples that are not finite, or too large to be measured


def frames(steps: int, every: int) -> list[int]:
    """The numbers of steps after which a state is kept: 0, every, 2·every, …, and the last."""
    return [*range(0, steps, every), steps]


def shape_of(sweep: Sweep, cell: Cell, every: int | None) -> tuple[int, ...]:
    """(n, dim), or (frames, n, dim) if every k-th state is kept."""
    last = (sweep.n_samples, sweep.dataset.dim)
    return last if every is None else (len(frames(cell.steps, every)), *last)


def require_runs(sweep: Sweep, cell: Cell) -> None:
    """Raise `InvalidSetting` with the reason if a cell cannot be drawn."""
    start = sweep.starts_of(cell.algorithm)[cell.start]
    require_compatible(start.why_incompatible(sweep.dataset), "start", cell.start)
    model, levels = sweep.denoisers[cell.denoiser], sweep.levels_of(cell)
    reason = cell.algorithm.why_incompatible(model, levels)
    require_compatible(reason, "sampler", cell.sampler)


def sample_into(
    array: NDArray[np.floating],
    sweep: Sweep,
    cell: Cell,
    every: int | None = None,
    on_block: Callable[[], None] = lambda: None,
) -> SamplingCost:
    """Fill an array of `shape_of` with the samples of a cell; holds one block per worker in memory.

    Args:
        cell: a cell that passes `require_runs`.
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
    nfe, rounds = (mean_over_samples(each, sizes) for each in zip(*counts, strict=True))
    return SamplingCost(nfe, rounds, time.perf_counter() - began, bad)


@torch.no_grad()
def _block(
    rows: Mapping[int, NDArray[np.floating]], sweep: Sweep, cell: Cell, block: int
) -> tuple[tuple[int, int], int]:
    """Fill the block's rows of every frame; return its evaluations, rounds, and bad samples."""
    first = block * sweep.block
    count = min(sweep.block, sweep.n_samples - first)

    def keep(number: int, x: Tensor) -> None:
        if number in rows:
            rows[number][first : first + count] = x[:count].cpu().numpy()

    model = Counted(sweep.denoisers[cell.denoiser])
    levels = sweep.levels_of(cell)
    x, noise = sweep.beginning(cell, levels, block)
    keep(0, x)
    for number, step in enumerate(iterate(cell.algorithm, model, x, levels, noise), 1):
        x = step.x if number < cell.steps else in_data_units(step.x, levels)
        keep(number, x)
    bad = ~(x[:count].abs() < LARGEST)  # also true for NaN
    return model.taken(), int(bad.any(-1).sum())
