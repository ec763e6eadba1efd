"""Estimates of ln Z from weighted particles: one for each sample of a cell.

Starts, noise and blocks are those of the samples, so each estimate belongs to one sample.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import torch

from samplerbench.bench.cell import Cell
from samplerbench.bench.densities import OutputLaw
from samplerbench.core.models import Counted
from samplerbench.samplers.base import iterate

if TYPE_CHECKING:
    from samplerbench.bench.sweep import Sweep


def why_no_log_z(sweep: Sweep, cell: Cell) -> str | None:
    """Why a cell has no estimate of ln Z, in one line; None if it has."""
    if cell.algorithm.estimates_log_z:
        return None
    name = type(cell.algorithm).__name__
    return f"{name} has no estimate of ln Z; see sampler=smc and ais"


@torch.no_grad()
def log_z_of(sweep: Sweep, cell: Cell) -> OutputLaw:
    """ln of the estimated integral of the model's density, shape (n,)."""
    began, sampler = time.perf_counter(), cell.algorithm
    levels, model = sweep.levels_of(cell), Counted(sweep.denoisers[cell.denoiser])
    reason = why_no_log_z(sweep, cell) or sampler.why_incompatible(model.model, levels)
    if reason is not None:
        return OutputLaw(None, 0, 0.0, "incompatible", reason)
    parts = []
    blocks = math.ceil(sweep.n_samples / sweep.block)
    for block in range(blocks):
        x, noise = sweep.beginning(cell, levels, block)
        *_, last = iterate(sampler, model, x, levels, noise)
        parts.append(torch.as_tensor(last.info["log_z"]).double().cpu())
    values = torch.cat(parts)[: sweep.n_samples]
    evaluations, rounds = (count // blocks for count in model.taken())
    seconds = time.perf_counter() - began
    bad = int((~values.isfinite()).sum())
    if bad:
        message = f"{bad} of {len(values)} estimates of ln Z are not finite"
        return OutputLaw(None, evaluations, seconds, "diverged", message, rounds=rounds)
    return OutputLaw(values, evaluations, seconds, rounds=rounds)
