"""The divergence of a sampler's paths from those of the data: an upper bound, in any dimension.

A sampler that draws noise once in each step goes from x_i to m_i + s_i·z_i, with m_i a function of
the previous states. So the density Q of its path x₀, …, x_K over the levels with noise is known.
The density P of the data's path is known backwards: x_K has the law at the last level, and given
x_{i+1}

    x_i ~ N(a·x_{i+1}, v·I),     a = α_i/α_{i+1},     v = σ_i² − a²·σ_{i+1}² .

KL(Q ‖ P) is at least the divergence of the law of x_K, which is a marginal of the path. The step to
the data is not included.

Only samplers of the reverse SDE (η = 1) have, in small steps, the variance s² of the data's path.
For other samplers every step adds about the same divergence, and the bound grows with N.

Reference: S. Chen et al., Sampling is as easy as learning the score, ICLR 2023, arXiv 2209.11215,
where Girsanov's theorem gives this bound in continuous time.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from samplerbench.bench.cell import Cell, point_count
from samplerbench.bench.densities import BATCH, OutputLaw, why_no_start
from samplerbench.bench.transitions import Refused, Transition, drive, transitions
from samplerbench.core.grids import Levels
from samplerbench.core.models import Density, Score
from samplerbench.core.noise import KeyedNoise
from samplerbench.samplers.base import Sampler

if TYPE_CHECKING:
    from samplerbench.bench.sweep import Sweep


def why_no_paths(sweep: Sweep, cell: Cell) -> str | None:
    """Why the density of a cell's paths is not known, in one line; None if it is known."""
    sampler = cell.algorithm
    if not sampler.stochastic:
        return "a sampler that draws no noise has no density of paths; use metric=kl_law"
    if sampler.holds:
        return "a sampler that stays at one level does not follow the path of the data"
    reason = why_no_start(sweep, cell)
    model, levels = sweep.dataset.oracle(sweep.schedule), sweep.levels(4, sampler)
    if reason is None and not isinstance(model, Density):
        reason = (
            "the paths of these data have no known density: it needs that of the data with noise"
        )
    if reason is not None or model is None or sampler.why_incompatible(model, levels) is not None:
        return reason
    start = sweep.starts_of(sampler)[cell.start]
    try:
        _scales(sampler, model, levels, start.draw(sweep.dataset, 4, levels.rows[0], (0, 0, 0)))
    except Refused as error:
        return f"{type(sampler).__name__} has no density of paths: {error}"
    return None


@torch.no_grad()
def paths_of(sweep: Sweep, cell: Cell) -> OutputLaw:
    """ln P − ln Q of paths of a cell, shape (n,)."""
    began, sampler = time.perf_counter(), cell.algorithm
    levels, model = sweep.levels_of(cell), sweep.denoisers[cell.denoiser]
    reason = why_no_paths(sweep, cell) or sampler.why_incompatible(model, levels)
    if reason is not None:
        return OutputLaw(None, 0, 0.0, "incompatible", reason)
    count = point_count(sweep.n_samples)
    rows, start, first = min(count, BATCH), sweep.starts_of(sampler)[cell.start], levels.rows[0]
    exact = sweep.dataset.oracle(sweep.schedule)
    assert isinstance(exact, Density)  # see why_no_paths
    path, parts, evaluations = exact.to(sweep.device), [], 0
    chain: list[Transition] = []
    for block in range(count // rows):
        key = (sweep.seed, cell.repetition, block)
        x = start.draw(sweep.dataset, rows, first, key).to(sweep.device, torch.float64)
        chain = chain or _scales(sampler, model, levels, x[:64])
        log_start = start.log_density(x, first, path.log_density)
        log_ratio, last, evaluations = _along(sampler, model, levels, chain, x, ("paths", *key))
        end = path.log_density(last, levels.rows[len(chain)])
        parts.append((log_ratio + end - log_start).cpu())
    return OutputLaw(torch.cat(parts), evaluations, time.perf_counter() - began)


def _scales(sampler: Sampler, model: Score, levels: Levels, starts: Tensor) -> list[Transition]:
    """The transitions, one for each step except the last ones without noise; raises `Refused`."""
    yields: list[int] = []

    def note(event: int, x: Tensor, x0_hat: Tensor | None) -> None:
        if x0_hat is not None:
            yields.append(event)

    chain, _ = transitions(sampler, model, levels, starts)
    drive(sampler, model, starts.clone(), levels, lambda _, like: torch.zeros_like(like), note)
    if [one.event for one in chain] != yields[: len(chain)] or len(chain) < levels.steps - 1:
        raise Refused("not every step draws once, after its last call of the model")
    return chain


def _along(
    sampler: Sampler,
    model: Score,
    levels: Levels,
    chain: list[Transition],
    x: Tensor,
    key: tuple[int | str, ...],
) -> tuple[Tensor, Tensor, int]:
    """ln P/Q of the steps of paths from x, the last states with noise, and the evaluations."""
    noise, place = KeyedNoise(key), {one.event: step for step, one in enumerate(chain)}
    total, before, dim = torch.zeros_like(x[:, 0]), x.clone(), x.shape[1]

    def draw(number: int, like: Tensor) -> Tensor:
        nonlocal total
        z = noise.normal(like, number)
        total = total + 0.5 * z.square().sum(1) + dim * math.log(chain[number].scale)
        return z

    def at(event: int, state: Tensor, x0_hat: Tensor | None) -> None:
        nonlocal total, before
        if event not in place:
            return
        now, to = levels.rows[place[event]], levels.rows[place[event] + 1]
        a = now.alpha / to.alpha
        v = now.sigma**2 - (a * to.sigma) ** 2
        gap = (before - a * state).square().sum(1)
        total = total - 0.5 * gap / v - 0.5 * dim * math.log(v)
        before = state.clone()

    evaluations = drive(sampler, model, x.clone(), levels, draw, at)
    return total, before, evaluations
