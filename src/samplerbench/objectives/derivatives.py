"""Derivatives of a score inside a loss: quadratic forms of its Jacobian J = ∂s/∂x.

    Q(x) = Σ_j a_jᵀ·J(x)·b_j

is the divergence ∇·s = tr J for a_j = b_j = e_j. For random a_j = b_j = v with E[v·vᵀ] = I it is
Hutchinson's estimate of the divergence (Hutchinson, "A stochastic estimator of the trace of the
influence matrix", Communications in Statistics 1990). Each a_j needs one vector-Jacobian product
a_jᵀ·J. Its graph is kept, because the loss is differentiated again. All products share one forward
pass.

The mean of the k estimates v_jᵀ·J·v_j is tr(J·M), M = (1/k)·Σ v_j·v_jᵀ. So for k ≥ dim the rows
e_jᵀ·J give the same number with dim products instead of k. Probes have covariance I, not unit norm:
with unit norm the estimate of the divergence would be dim times too small.

The pathwise gradient of E[tr J] is correct only if J is continuous in x. With ReLU and LeakyReLU J
jumps: its derivative has a Dirac mass that samples never hit, and the gradient is biased.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def score_and_form(
    score: Callable[[Tensor], Tensor], x: Tensor, left: Tensor, right: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    """s(x), shape (n, dim), and Q(x) = Σ_j a_jᵀ·J(x)·b_j, shape (n,).

    Both can be differentiated with respect to the parameters if gradients are enabled. The values
    are the same without gradients, as in validation.

    Args:
        score: x ↦ s, row by row.
        x: shape (n, dim).
        left: a, shape (count, n, dim).
        right: b, same shape.
        chunk: number of products at a time.
    """
    differentiable = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        s = score(x).to(x.dtype)
        form = torch.zeros_like(x[:, 0])
        for first in range(0, len(left), chunk):
            a, b = left[first : first + chunk], right[first : first + chunk]
            batched = len(a) > 1
            (rows,) = torch.autograd.grad(
                s,
                x,
                a if batched else a[0],
                retain_graph=True,
                create_graph=differentiable,
                is_grads_batched=batched,
            )
            form = form + (rows * b).reshape(-1, *x.shape).sum((0, -1))
    return s, form


def coordinates(x: Tensor) -> Tensor:
    """The unit vectors e_j as a and b: shape (dim, n, dim), one copy in memory for all rows."""
    rows, dim = x.shape
    return torch.eye(dim, dtype=x.dtype, device=x.device).unsqueeze(1).expand(dim, rows, dim)


def probe_pairs(probes: Tensor) -> tuple[Tensor, Tensor]:
    """a and b with Σ_j a_j·b_jᵀ = (1/k)·Σ v_j·v_jᵀ: one pair per probe, but at most dim pairs.

    Args:
        probes: v, shape (k, n, dim).
    """
    count, _, dim = probes.shape
    if count < dim:
        scaled = probes / math.sqrt(count)
        return scaled, scaled
    moment = probes.permute(1, 2, 0) @ probes.permute(1, 0, 2) / count
    return coordinates(probes[0]), moment.transpose(0, 1)


def draw_probes(x: Tensor, count: int, gaussian: bool, generator: torch.Generator) -> Tensor:
    """Probes of covariance I for each row of x, shape (count, n, dim).

    Args:
        x: shape (n, dim).
        count: k.
        gaussian: whether probes are standard normal; otherwise Rademacher, independent signs, which
            give a smaller variance: the estimate is exact for a diagonal J.
        generator: source of the random numbers; on the CPU.
    """
    shape = (count, *x.shape)
    # drawn on the CPU and then moved: the same numbers on every device
    if gaussian:
        return torch.randn(shape, generator=generator, dtype=x.dtype).to(x.device)
    signs = torch.empty(shape, dtype=x.dtype).bernoulli_(0.5, generator=generator)
    return signs.mul_(2).sub_(1).to(x.device)
