"""The affine map of a sampler with fixed steps and an affine denoiser.

For Gaussian data the denoiser is affine in the state. So a step of such a sampler, and its whole
run, are affine in the state and in the draws z_j of its noise:

    x_out = c + A·(x_in − m) + Σ_j B_j·z_j ,

with c the output from m without noise. One run from m gives c, and backward passes through it give
A and all B_j: dim passes, or a single one if the denoiser acts on each coordinate separately. A
second run, from another state and with noise, checks the map; if they disagree, the run is not
affine.

If the denoiser acts on each coordinate separately, its outputs are g_k·u_k + h_k. Then the map
follows from the table of the run, see `coefficients`, unless evaluations and coordinates are many.
With w_kj the weights of its states,

    ∂x_out/∂x̂₀_j = w_Kj + Σ_{k>j} g_k·w_kj·∂x_out/∂x̂₀_k ,

from the last evaluation to the first, for all coordinates at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from samplerbench.bench.coefficients import NotLinear, table_of_states
from samplerbench.core.grids import Level, Levels
from samplerbench.core.models import Denoiser, Score
from samplerbench.core.noise import Noise
from samplerbench.samplers.base import Sampler, iterate

#: The most products of two numbers for a map from a table; gradients need fewer of them.
_FEW = 2**27
#: The largest difference between a run and its table, as a share of the largest term.
_SAME = 1e-9


@dataclass(frozen=True, eq=False)
class AffineMap:
    """The output of a run without noise, and its derivatives, float64."""

    output: Tensor  # c, shape (dim,)
    by_state: Tensor  # A, shape (dim, dim), or its diagonal, shape (dim,)
    by_draws: Tensor  # the matrices B_j or their diagonals, stacked


def affine_map(
    sampler: Sampler,
    model: Score,
    levels: Levels,
    mean: Tensor,
    *,
    diagonal: bool = False,
    steps: int | None = None,
) -> AffineMap:
    """The affine map of a sampler around a first state.

    Args:
        sampler: a method with fixed steps.
        model: an affine denoiser, such as the oracle of one Gaussian.
        mean: m, shape (dim,).
        diagonal: whether the model acts on each coordinate separately.
        steps: the number of steps to take; None for all.

    Raises:
        ValueError: the sampler cannot run here, or its run is not affine, or not diagonal.
    """
    reason = sampler.why_incompatible(model, levels)
    if reason is None and not sampler.affine:
        reason = f"{type(sampler).__name__} is not affine: it chooses its steps, clips or rejects"
    if reason is not None:
        raise ValueError(reason)

    def state(x: Tensor, noise: Noise) -> Tensor:
        """The state after the steps."""
        taken = islice(iterate(sampler, model, x, levels, noise), steps)
        return deque(taken, maxlen=1)[0].x

    work = (sampler.evaluations(levels.steps) or levels.steps) ** 2 * len(mean)
    if diagonal and isinstance(model, Denoiser) and work <= _FEW:
        with suppress(NotLinear):
            return _by_table(sampler, model, levels, mean.double(), steps)
    mean, noise = mean.double()[None], _Draws()
    with torch.enable_grad():
        start = mean.clone().requires_grad_()
        out = state(start, noise)
        if out.requires_grad:
            derivatives = _by_gradients(out, [start, *noise.draws.values()], diagonal)
        else:  # a package may switch gradients off
            derivatives = _by_units(state, mean, out, list(noise.draws), diagonal)
    zero = torch.zeros_like(mean)
    probe = _Signs(list(noise.draws), mean)
    with torch.no_grad():
        again, other = state(torch.cat([mean, mean - 2]), probe)
    moved = derivatives * torch.stack([zero - 2, *probe.signs.values()])
    expected = moved.sum(0)[0] if diagonal else moved.sum((0, 2))
    scale = out.abs().max() + derivatives.abs().sum((0, 1)).max()
    wrong = torch.stack([again - out[0], other - out[0] - expected])
    if not wrong.abs().max() <= 1e-9 * scale:
        raise ValueError(f"{sampler} is not affine in state and noise on this model")
    if diagonal:
        derivatives = derivatives[:, 0]
    return AffineMap(out[0].detach(), derivatives[0], derivatives[1:])


@torch.no_grad()
def _by_table(
    sampler: Sampler, model: Denoiser, levels: Levels, mean: Tensor, steps: int | None
) -> AffineMap:
    """The map of a model that acts on each coordinate separately, from the table of the run."""
    table = table_of_states(sampler, model.schedule, levels, steps)
    if not table.error <= _SAME:
        raise NotLinear(f"{sampler} is not affine in state and noise")
    count, shape = table.evaluations, (table.evaluations, len(mean))
    level = Level(*(column.to(mean)[:, None] for column in table.levels))
    size = torch.hypot(level.alpha, level.sigma).expand(shape)
    low, high = model.denoiser(-size, level), model.denoiser(size, level)
    gain = ((high - low) / (2 * size)).cpu().numpy()
    fixed = ((high + low) / 2).cpu().numpy()
    weights = table.weights.numpy()
    columns = np.ascontiguousarray(weights[:, 1 : 1 + count].T)
    by_output, by_evaluated = np.empty(shape), np.empty(shape)
    for j in reversed(range(count)):
        by_output[j] = columns[j, count] + columns[j, j + 1 : count] @ by_evaluated[j + 1 :]
        by_evaluated[j] = gain[j] * by_output[j]
    totals = weights[count, :, None] + weights[:count].T @ by_evaluated
    by_state, by_draws = totals[0], totals[1 + count :]
    output = by_state * mean.cpu().numpy() + (by_output * fixed).sum(0)
    return AffineMap(*(torch.from_numpy(part).to(mean) for part in (output, by_state, by_draws)))


def _by_gradients(out: Tensor, inputs: list[Tensor], diagonal: bool) -> Tensor:
    """The derivatives with respect to the state and each draw; rows of the output; coordinates."""
    sums = [out.sum()] if diagonal else list(out[0])
    passes = [
        torch.autograd.grad(one, inputs, retain_graph=True, allow_unused=True) for one in sums
    ]
    zero = torch.zeros_like(out)
    known = [[zero if one is None else one for one in of_sum] for of_sum in passes]
    return torch.stack([torch.cat(rows) for rows in zip(*known, strict=True)])


def _by_units(
    state: Callable[[Tensor, Noise], Tensor],
    mean: Tensor,
    out: Tensor,
    addresses: list[tuple[int, int]],
    diagonal: bool,
) -> Tensor:
    """The same from a batch of runs; in each one coordinate of the state or a draw is changed."""
    units = torch.ones_like(mean) if diagonal else torch.eye(mean.shape[1]).to(mean)
    x = mean.repeat(len(units) * (1 + len(addresses)), 1)
    x[: len(units)] += units
    changes = (state(x, _Units(units, addresses)) - out).reshape(-1, *units.shape)
    return changes if diagonal else changes.mT


class _Draws:
    """Noise that is 0 and keeps its draws, for derivatives with respect to them."""

    def __init__(self) -> None:
        self.draws: dict[tuple[int, int], Tensor] = {}  # by step and draw

    def normal(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        if (step, draw) not in self.draws:
            self.draws[step, draw] = torch.zeros_like(like).requires_grad_()
        return self.draws[step, draw]

    def uniform(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        raise ValueError("a method that draws uniform numbers is not affine in its noise")


class _Units(_Draws):
    """Noise that is 0, except for unit vectors in the rows that belong to a draw."""

    def __init__(self, units: Tensor, addresses: list[tuple[int, int]]) -> None:
        super().__init__()
        self._units = units
        self._places = {address: place for place, address in enumerate(addresses, 1)}

    def normal(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        z, count = torch.zeros_like(like), len(self._units)
        first = self._places[step, draw] * count
        z[first : first + count] = self._units.to(z)
        return z


class _Signs(_Draws):
    """Noise for two rows: 0 for the first; for the second 1, −1, 1, … over all draws."""

    def __init__(self, addresses: list[tuple[int, int]], mean: Tensor) -> None:
        super().__init__()
        places = torch.arange(len(addresses) * mean.shape[1], device=mean.device)
        values = (1 - 2 * (places % 2)).to(mean).reshape(len(addresses), *mean.shape)
        self.signs = dict(zip(addresses, values, strict=True))

    def normal(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        if (step, draw) not in self.signs:
            raise ValueError("the number of draws depends on the state")
        sign = self.signs[step, draw]
        return torch.cat([torch.zeros_like(sign), sign]).to(like)
