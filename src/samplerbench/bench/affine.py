"""The affine map of a sampler with fixed steps and an affine denoiser.

For Gaussian data the denoiser is affine in the state. So a step of such a sampler, and its whole
run, are affine in the state and in the draws z_j of its noise:

    x_out = c + A·(x_in − m) + Σ_j B_j·z_j ,

with c the output from m without noise. One run from m gives c, and backward passes through it give
A and all B_j: dim passes, or a single one if the denoiser acts on each coordinate separately. A
second run, from another state and with noise, checks the map; if they disagree, the run is not
affine.

If the denoiser acts on each coordinate separately, its outputs are g_k·u_k + h_k. Then the map
follows from the coefficients of the run for all coordinates at once, see `recurrences`. The
coefficients are read off the code of the sampler, or come from a run on vectors, see
`coefficients`; such a run is avoided if there are many evaluations and coordinates.
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
from samplerbench.bench.recurrences import Array, NotTraced, Recurrence, from_weights, traced
from samplerbench.core.grids import Level, Levels
from samplerbench.core.models import Corrupted, Denoiser, Guided, Score
from samplerbench.core.noise import Noise
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.datasets.gaussian_spectrum import SpectrumOracle
from samplerbench.samplers.base import Sampler, iterate
from samplerbench.samplers.peers import Peer

#: The largest number of products for a map from a table; above it gradients are cheaper.
_FEW = 2**27
#: The largest difference between a run and its table, as a share of the largest term.
_SAME = 1e-9
#: The same for codes of other packages: some of them compute their steps in float32.
_SAME_PEER = 1e-5
#: The deviations of the start at which a run is also compared with its map.
_FAR = 5.0


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
    """The affine map of a sampler with fixed steps on an affine denoiser, around m, shape (dim,).

    Args:
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

    if diagonal and isinstance(model, Denoiser):
        with suppress(NotLinear):
            run = _recurrence(sampler, model.schedule, levels, len(mean), steps)
            return _by_recurrence(run, model, mean.double())
    mean, noise = mean.double()[None], _Draws()
    with torch.enable_grad():
        start = mean.clone().requires_grad_()
        out = state(start, noise)
        if out.requires_grad:
            derivatives = _by_gradients(out, [start, *noise.draws.values()], diagonal)
        else:  # a package may switch gradients off
            derivatives = _by_units(state, mean, out, list(noise.draws), diagonal)
    probe = _Signs(list(noise.draws), mean)
    # the start has at least this deviation, so that a function which is only linear near m is seen
    shifts = [0.0, -2.0, _FAR * max(1.0, levels.rows[0].sigma)]
    with torch.no_grad():
        others = state(torch.cat([mean + shift for shift in shifts]), probe)
    moved = [
        derivatives * torch.cat([torch.full_like(mean[None], shift), factor * probe.signs])
        for shift, factor in zip(shifts, _Signs.FACTORS, strict=True)
    ]
    expected = torch.stack([one.sum(0)[0] if diagonal else one.sum((0, 2)) for one in moved])
    size = torch.stack([one.abs().sum((0, 1)).max() for one in moved])
    size += out.abs().max() + torch.tensor(shifts).abs().to(size)  # the states lose digits of both
    wrong = (others - out - expected).abs().amax(1)
    if not (wrong <= (_SAME_PEER if isinstance(sampler, Peer) else _SAME) * size).all():
        raise ValueError(f"{sampler} is not affine in state and noise on this model")
    if diagonal:
        derivatives = derivatives[:, 0]
    return AffineMap(out[0].detach(), derivatives[0], derivatives[1:])


def _recurrence(
    sampler: Sampler, schedule: NoiseSchedule, levels: Levels, dim: int, steps: int | None
) -> Recurrence:
    """The coefficients of a run; raises `NotLinear` without any, or if gradients are cheaper."""
    with suppress(NotTraced):
        return traced(sampler, schedule, levels, steps)
    if (sampler.evaluations(levels.steps) or levels.steps) ** 2 * dim > _FEW:
        raise NotLinear("gradients cost less")
    table = table_of_states(sampler, schedule, levels, steps)
    if not table.error <= _SAME:
        raise NotLinear(f"{sampler} is not affine in state and noise")
    return from_weights(table.weights.numpy(), table.levels.numpy())


def _by_recurrence(run: Recurrence, model: Denoiser, mean: Tensor) -> AffineMap:
    """The map of a model that acts on each coordinate separately; `NotLinear` if it is unknown."""
    gain, fixed = _line(model, run.levels[:, :, None])
    by_start, by_output, by_draws = run.derivatives(gain)
    output = by_start * mean.cpu().numpy() + np.einsum("kd,kd->d", by_output, fixed)
    return AffineMap(*(torch.from_numpy(part).to(mean) for part in (output, by_start, by_draws)))


def _line(model: Denoiser, levels: Array) -> tuple[Array, Array]:
    """g and h of x̂₀ = g·x + h, if known, shape (K, dim), at t, α and σ, shape (3, K, 1)."""
    if isinstance(model, SpectrumOracle):
        return model.line(*levels[1:])
    if isinstance(model, Corrupted) and model.direction == "along":
        share = np.asarray(model.share(Level(*torch.from_numpy(levels))))
        gain, fixed = _line(model.model, levels)
        return (1 + share) * gain - share / levels[1], (1 + share) * fixed
    if not isinstance(model, Guided):
        raise NotLinear(f"{type(model).__name__} is not known to act on each coordinate")
    own, guide = (_line(one, levels) for one in (model.model, model.guide))
    w = model.weight
    gain, fixed = (w * one + (1 - w) * other for one, other in zip(own, guide, strict=True))
    return gain, fixed


def _by_gradients(out: Tensor, inputs: list[Tensor], diagonal: bool) -> Tensor:
    """Derivatives of each coordinate of the output, by the coordinates of the state and each draw.

    Shape (1 + draws, dim, dim); (1 + draws, 1, dim) if `diagonal`.
    """
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
    """The derivatives of `_by_gradients` from a batch of runs, each with one input changed."""
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
    """Noise for three rows: 1, −1, 1, … over all draws, times the factor of the row."""

    FACTORS = (0.0, 1.0, -_FAR)

    def __init__(self, addresses: list[tuple[int, int]], mean: Tensor) -> None:
        super().__init__()
        places = torch.arange(len(addresses) * mean.shape[1], device=mean.device)
        values = (1 - 2 * (places % 2)).to(mean).reshape(len(addresses), *mean.shape)
        self.signs = values  # shape (draws, 1, dim)
        self._places = {address: place for place, address in enumerate(addresses)}

    def normal(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        if (step, draw) not in self._places:
            raise ValueError("the number of draws depends on the state")
        sign = self.signs[self._places[step, draw]]
        return torch.cat([factor * sign for factor in self.FACTORS]).to(like)
