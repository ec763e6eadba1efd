"""Distances of runs to the converged run from the same starts: errors of the steps alone.

The converged run is the flow of the probability-flow ODE of a cell's denoiser, computed by
`criteria.converged`. It depends only on the denoiser and the start, so samplers share it. A sampler
of another package may have states of another scale, such as x₀ + κ·ε on a path with α < 1. In the
scale of the data the flow is the same on all paths, dx/dκ = (x − x̂₀)/κ, so it begins at the level
of the path with the same κ, from the rescaled state. Above the noise of the path it is integrated
in κ.

A sampler that draws noise does not follow this flow. The distance to its own converged run on the
same Brownian path is a strong error, which must not be compared with this one; see `budget.run`.
"""

from __future__ import annotations

import math
import time
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from samplerbench.bench.cell import Cell
from samplerbench.bench.criteria import Problem, converged
from samplerbench.bench.densities import OutputLaw
from samplerbench.core.grids import Level, Levels, at_noise, in_data_units
from samplerbench.core.lazy import Lazy
from samplerbench.core.models import Counted, Denoiser
from samplerbench.errors import InvalidSetting, first_line
from samplerbench.samplers.base import final_state

if TYPE_CHECKING:
    from samplerbench.bench.sweep import Sweep

#: The flow ends below this κ, in units of sd; the last step to the data moves by about as much.
LEAST_NOISE = 1e-4
#: Steps of the flow above the noise of a path, where it is nearly straight.
DOWN = 50

#: A converged run: its outputs, shape (n, dim), and its change by the last doubling, in sd.
Converged = tuple[Tensor, float]


def why_not_converged(sweep: Sweep, cell: Cell) -> str | None:
    """Why a cell has no converged run, in one line; None if it has one."""
    sampler = cell.algorithm
    if sampler.holds:
        return "a sampler that stays at one noise level has no converged run"
    if sampler.stochastic:
        return "a sampler that draws noise does not follow the flow; see experiment=budget"
    if not isinstance(sweep.denoisers[cell.denoiser], Denoiser):
        return "a converged run needs a denoiser"
    return None


@torch.no_grad()
def distances_to_converged(sweep: Sweep, cell: Cell) -> OutputLaw:
    """‖x − x_∞‖²/sd² of the cell's starts, shape (n,)."""
    began, sampler = time.perf_counter(), cell.algorithm
    levels, model = sweep.levels_of(cell), sweep.denoisers[cell.denoiser]
    reason = why_not_converged(sweep, cell) or sampler.why_incompatible(model, levels)
    if reason is not None:
        return OutputLaw(None, 0, 0.0, "incompatible", reason)
    assert isinstance(model, Denoiser)
    counted, scale = Counted(model), sweep.dataset.deviation
    parts, change = [], 0.0
    for block in range(math.ceil(sweep.n_samples / sweep.block)):
        x, noise = sweep.beginning(cell, levels, block)
        key = (cell.denoiser, cell.start, cell.repetition, block, levels.rows[0], levels.rows[-2])
        flow = Lazy(partial(_flow, sweep, cell, levels, x))
        known = sweep.converged_runs.setdefault(key, flow)()
        if isinstance(known, InvalidSetting):
            return OutputLaw(None, 0, 0.0, "failed", first_line(known))
        end, own = known
        out = in_data_units(final_state(sampler, counted, x, levels, noise), levels)
        left = sweep.n_samples - block * sweep.block
        parts.append(((out - end) / scale).square().sum(1)[:left].double().cpu())
        change = max(change, own)
    squares, seconds = torch.cat(parts), time.perf_counter() - began
    nfe = counted.evaluations // len(parts)
    bad = int((~squares.isfinite()).sum())
    if bad > 0:
        message = f"{bad} of {len(squares)} samples are not finite"
        return OutputLaw(None, nfe, seconds, "diverged", message)
    return OutputLaw(squares, nfe, seconds, info={"converged_to": change})


def _flow(sweep: Sweep, cell: Cell, levels: Levels, x: Tensor) -> Converged | InvalidSetting:
    """The converged run of a block of a cell from its first states x, (n, dim), or an error."""
    model, sampler = sweep.denoisers[cell.denoiser], cell.algorithm
    assert isinstance(model, Denoiser)
    if sampler.brings_levels:
        levels, x = _on_path(model, levels, x)
    start = sweep.starts_of(sampler)[cell.start]
    problem = Problem(sampler, model, sweep.dataset, start, levels)
    try:
        out, _, change = converged(problem, x, sweep.dataset.deviation, LEAST_NOISE)
    except InvalidSetting as error:
        return error
    return out, change


def _on_path(model: Denoiser, levels: Levels, x: Tensor) -> tuple[Levels, Tensor]:
    """Levels of the path with the same κ as other levels, and the state at the first of them."""
    first, last = levels.rows[0], levels.rows[-2]
    if first.alpha == 0:
        return levels, x
    low, high = model.schedule.noise_range
    x, kappa, end = x / first.alpha, first.sigma / first.alpha, last.sigma / last.alpha
    if kappa > high:
        x, kappa = _down(model, x, kappa, high), high
    ratios = torch.tensor([kappa, end], dtype=torch.float64).clamp(low, high)
    own = at_noise(model.schedule, ratios)
    return own, x * own.rows[0].alpha


def _down(model: Denoiser, x: Tensor, kappa: float, end: float) -> Tensor:
    """The flow of x₀ + κ·ε from κ to another one, by Heun's method."""
    ratios = torch.linspace(math.log(kappa), math.log(end), DOWN + 1).exp().tolist()
    for now, to in pairwise(ratios):
        first, second = (Level(1.0, 1.0, noise) for noise in (now, to))
        slope = (x - model.denoiser(x, first)) / now
        ahead = x + (to - now) * slope
        x = x + (to - now) * (slope + (ahead - model.denoiser(ahead, second)) / to) / 2
    return x
