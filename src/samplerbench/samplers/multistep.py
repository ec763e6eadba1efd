"""Multistep exponential integrators: the weights of past model outputs in a step.

With λ = ln(α/σ), from the level t to s and with h = λ_s − λ_t, the probability flow is exactly

    x_s = (σ_s/σ_t)·x_t + α_s·∫ e^{λ−λ_s}·x̂₀ dλ              (data),
    x_s = (α_s/α_t)·x_t + α_s·∫ ε̂ dκ,   κ = σ/α = e^{−λ}      (noise)

(Lu et al., "DPM-Solver++", arXiv 2211.01095, Proposition 4.1; "DPM-Solver", NeurIPS 2022, arXiv
2206.00927, Proposition 3.1; Zhang and Chen, "Fast sampling of diffusion models with exponential
integrator", ICLR 2023, arXiv 2204.13902). An Adams method replaces the output by a polynomial in
some clock c that goes through k known outputs m_j at c_j:

    ∫ m dμ  ≈  Σ_j w_j·m_j,   w_j = ∫ ℓ_j(c) dμ,   ℓ_j = Π_{i≠j} (c − c_i)/(c_j − c_i).

Adams–Bashforth extrapolates from this level and k − 1 earlier ones; Adams–Moulton interpolates and
uses the next level too. The global order is k on any grid, if the first steps are accurate enough.
A first step with one point has a local error of h². That is enough for k ≤ 2, but limits a method
with k = 3 to order 2.

The integrals are Gauss–Legendre sums with 24 points in λ. They are exact to rounding for h < 15 and
do not cancel for small h, as closed forms do. The weights are exact for a constant output. A level
without signal has λ = −∞ and cannot be a node of a polynomial in λ or κ: the step from it is
DDIM's, and the history begins after it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from samplerbench.core.grids import Levels

_POINTS, _SHARES = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(24))


def log_snr(levels: Levels) -> Tensor:
    """λ = ln(α/σ), shape (steps + 1,): −∞ without signal, +∞ at the data."""
    return levels.alpha.log() - levels.sigma.log()


def weighted(weights: Sequence[float], outputs: Sequence[Tensor]) -> Tensor:
    """Σ_j w_j·m_j over the available outputs."""
    total = weights[0] * outputs[0]
    for weight, output in zip(weights[1:], outputs[1:], strict=False):
        total = total.add(output, alpha=weight)
    return total


def quadrature(levels: Levels) -> tuple[Tensor, Tensor]:
    """λ and dλ at the Gauss–Legendre points of each step, shape (steps, 24) each."""
    lam = log_snr(levels)
    half = 0.5 * lam.diff()[:, None]
    return lam[:-1, None] + half * (1 + _POINTS), half * _SHARES


def adams_weights(
    clock: Tensor, at: Tensor, measure: Tensor, total: Tensor, points: int, newest: int = 0
) -> list[list[float]]:
    """The w_j of every step, newest output first; 0 for a missing level.

    Args:
        clock: c at the levels, shape (steps + 1,); a level with an infinite c is not a node.
        at: c at the points of the quadrature, shape (steps, points of the quadrature).
        measure: dμ at these points, same shape.
        total: ∫ dμ, shape (steps,): the sum of the weights.
        points: k, more than `newest`.
        newest: 0 if the newest node is the level of the step (Bashforth), 1 if it is the next
            level (Moulton).
    """
    before = clock.new_full((points,), torch.nan)
    padded, steps = torch.cat([before, clock]), len(at)
    nodes = [padded[points + newest - j :][:steps, None] for j in range(points)]
    columns = []
    for j, own in enumerate(nodes):
        basis = torch.ones_like(at)
        for other in nodes[:j] + nodes[j + 1 :]:
            basis = basis * torch.where(other.isfinite(), (at - other) / (own - other), 1.0)
        inside = torch.where(own.isfinite(), measure * basis, 0.0)
        columns.append(inside.sum(-1).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0))
    weights = torch.stack(columns, dim=-1)
    weights[:, newest] += total - weights.sum(-1)
    return weights.tolist()


def constant_weights(levels: Levels) -> Tensor:
    """α_s·∫ e^{λ−λ_s} dλ = α_s − α_t·σ_s/σ_t of each step, shape (steps,); DDIM(0)'s weight."""
    alpha, sigma = levels.alpha, levels.sigma
    return alpha[1:] - alpha[:-1] * sigma[1:] / sigma[:-1]


def data_weights(levels: Levels, points: int, newest: int = 0) -> list[list[float]]:
    """Adams weights for x̂₀ as a polynomial in λ."""
    at, spacing = quadrature(levels)
    measure = levels.alpha[1:, None] * (at - log_snr(levels)[1:, None]).exp() * spacing
    return adams_weights(log_snr(levels), at, measure, constant_weights(levels), points, newest)


def half_weights(levels: Levels, size: Tensor | None = None) -> list[tuple[float, float]]:
    """The two-point weights of DPM-Solver++ 2M: (b + w, −w), w = ½·b·h/h', b as in DDIM(0).

    h' is the length in λ of the previous step. w differs from the exact weight by O(h²) and
    multiplies a difference of O(h), so the local error has the order of an exact two-point rule. In
    the first step w = 0.

    Args:
        size: replaces b in w, with b = size + O(h²), shape (steps,); b itself by default.
    """
    h, b = log_snr(levels).diff().tolist(), constant_weights(levels).tolist()
    c = b if size is None else size.tolist()
    w = [0.0, *(0.5 * c[i] * h[i] / h[i - 1] for i in range(1, len(h)))]
    return [(b_i + w_i, -w_i) for b_i, w_i in zip(b, w, strict=True)]
