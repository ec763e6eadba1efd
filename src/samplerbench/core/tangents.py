"""Tangents of a sampler: how its output changes with its start.

A sampler with fixed steps that draws no noise combines states and denoised states linearly, with
coefficients that depend only on the levels: x ← Σ aᵢ·xᵢ + Σ bᵢ·x̂₀(xᵢ). So a tangent v of the start
follows the same steps, with J·v instead of x̂₀, J = ∂x̂₀/∂x at the state. One run of the sampler on a
batch of states and tangents gives the output and its Jacobian. The code of the sampler does not
change and needs no automatic differentiation.

On a line there is one tangent, and dual numbers carry it, also through a sampler that is not
linear.

Cost: in general the derivative of a denoiser takes one evaluation and dim backward passes, and then
J is multiplied by dim columns. A network may carry its tangents forward. Mixtures have a formula:
either for J, or for J·v by two products of all tangents with the means, if they have few components
(`Denoiser.along`).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

from samplerbench.core.grids import AnyLevel
from samplerbench.core.models import Denoiser


def with_tangents(x: Tensor) -> Tensor:
    """States (n, dim) and the unit vectors as their tangents, shape (1 + dim, n, dim)."""
    n, dim = x.shape
    unit = torch.eye(dim, dtype=x.dtype, device=x.device)
    return torch.cat([x[None], unit[:, None, :].expand(dim, n, dim)])


def jacobian(batch: Tensor) -> Tensor:
    """∂x_out/∂x_in of the n states of a batch with tangents, shape (n, dim, dim)."""
    return batch[1:].permute(1, 2, 0)


def log_volume(derivatives: Tensor) -> tuple[Tensor, Tensor]:
    """The sign of the determinants of matrices (n, dim, dim) and ln of their size, (n,) each."""
    if derivatives.shape[-1] != 2:
        sign, volume = torch.linalg.slogdet(derivatives)
        return sign, volume
    # a decomposition of each small matrix takes as long as a fifth of a run
    (a, b), (c, d) = (row.unbind(-1) for row in derivatives.unbind(-2))
    determinant = a * d - b * c
    return determinant.sign(), determinant.abs().log()


class WithTangents(Denoiser):
    """A denoiser with independent, differentiable rows, on batches of states and tangents."""

    def __init__(self, model: Denoiser) -> None:
        super().__init__()
        self.model, self.schedule, self.trained_noise = model, model.schedule, model.trained_noise

    def denoiser(self, x: Tensor, level: AnyLevel) -> Tensor:
        """x̂₀ of the states and J·v of their tangents, shape (1 + dim, n, dim)."""
        x0_hat, moved = self.model.along(x[0], x[1:], level)
        return torch.cat([x0_hat[None], moved])


class OnDuals(Denoiser):
    """A denoiser with independent, differentiable rows, on dual numbers x + ε·v on a line."""

    def __init__(self, model: Denoiser) -> None:
        super().__init__()
        self.model, self.schedule, self.trained_noise = model, model.schedule, model.trained_noise

    def denoiser(self, x: Tensor, level: AnyLevel) -> Tensor:
        """x̂₀ + ε·J·v, shape (n, 1)."""
        state, tangent = forward_ad.unpack_dual(x)  # type: ignore[no-untyped-call]
        x0_hat, derivative = self.model.derivative(state, level)
        if tangent is None:
            return x0_hat
        along = derivative[..., 0] * tangent
        dual: Tensor = forward_ad.make_dual(x0_hat, along)  # type: ignore[no-untyped-call]
        return dual
