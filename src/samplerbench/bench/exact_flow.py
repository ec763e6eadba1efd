"""The flow of the probability-flow ODE by an exponential Adams method of order six.

With κ = σ/α, λ = ln κ and u = x/α the flow is the same on every path, du/dκ = (u − x̂₀)/κ, so

    u(κ') = (κ'/κ)·u(κ) + ∫ x̂₀ e^{λ' − μ} dμ,   μ = ln of the noise, from λ' to λ

which is exact for a constant x̂₀. A step replaces x̂₀ by a polynomial in μ, with the weights of
`samplers.multistep` on a path with α = 1. The predictor takes the polynomial through the last five
values of x̂₀. The denoiser is evaluated once, at the predicted state, and the corrector adds this
value to the five. So a step costs one evaluation, and its error is of order seven. (Hairer,
Nørsett, Wanner, "Solving ordinary differential equations I", 1993, Section III.1, for the
polynomials; Hochbruck and Ostermann, "Exponential multistep methods of Adams-type", BIT 51, 2011,
for the factor e^{λ' − μ}.)

The first steps have fewer values. `graded` divides the first interval into pieces that grow from
1/32 of it, so that their low order costs no accuracy.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samplerbench.core.grids import MOST_NOISE, Level, Levels, TruncatedLevels
from samplerbench.core.models import Denoiser
from samplerbench.samplers.multistep import data_weights, weighted

Vector = NDArray[np.float64]

#: The number of earlier values of x̂₀ in a polynomial; the order is one more.
EARLIER = 5
#: The number of pieces of the first interval.
_PIECES = 6


def graded(top: float, low: float, steps: int) -> Vector:
    """λ from `top` down to `low` in equal steps, the first of which is divided into pieces."""
    logs = np.linspace(top, low, steps + 1)
    inner = top + (logs[1] - top) * 0.5 ** np.arange(_PIECES - 1, 0, -1)
    return np.concatenate([logs[:1], inner, logs[1:]])


def end_of_flow(model: Denoiser, x: Tensor, levels: Levels) -> Tensor:
    """The end of the flow from the states x, shape (n, dim), in the units of the data.

    It costs one evaluation for each level with noise, and one more for the last step x̂₀.

    Args:
        levels: of the model's path; the first one may have no signal.
    """
    plain = isinstance(levels, TruncatedLevels)
    rows = levels.rows if plain else levels.rows[:-1]
    first = rows[0]
    signal = first.alpha / first.sigma
    most = MOST_NOISE if signal == 0 else min(1 / signal, MOST_NOISE)
    x0_hat = model.denoiser(x, first)
    # above MOST_NOISE x̂₀ is constant
    u = x * (most / first.sigma) + x0_hat * (1 - most * signal)
    kappa = torch.tensor([most, *(row.sigma / row.alpha for row in rows[1:])], dtype=torch.float64)
    of_u = TruncatedLevels(kappa, torch.ones_like(kappa), kappa)  # the times have no effect
    weights = zip(data_weights(of_u, EARLIER), data_weights(of_u, EARLIER + 1, 1), strict=True)
    known = deque([x0_hat], maxlen=EARLIER)
    for row, shrunk, (ahead, corrected) in zip(
        rows[1:], (kappa[1:] / kappa[:-1]).tolist(), weights, strict=True
    ):
        kept = shrunk * u
        x0_hat = _at(model, kept + weighted(ahead, [*known]), row)
        u = kept + weighted(corrected, [x0_hat, *known])
        known.appendleft(x0_hat)
    return u if plain else _at(model, u, rows[-1])


def _at(model: Denoiser, u: Tensor, level: Level[float]) -> Tensor:
    return model.denoiser(u * level.alpha, level)
