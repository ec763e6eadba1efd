"""Gaussian mixtures in few dimensions as quadratic forms of the state.

With u = x − α·c, c the centre of the data, means μ_k relative to c, and P_k = (α²·C_k + σ²·I)⁻¹,

    ln(w_k·N(x; α·(c + μ_k), P_k⁻¹)) = l_k + α·μ_kᵀP_k·u − ½·uᵀP_k·u
    E[x₀ | x, k] = c + m_k,   m_k = b_k + G_k·u,   b_k = σ²·P_k·μ_k,   G_k = α·C_k·P_k.

So all logarithms are one matrix product with the coordinates of u and their products. m_k is linear
in the numbers z_k of b_k and of the symmetric G_k, with coefficients that only depend on u. Hence
the mean and the covariance of m_k over the components follow from those of z_k, and these are one
matrix product with the shares r_k of the components:

    x̂₀ = c + E_r[m],     ∂x̂₀/∂x = E_r[G] + (α/σ²)·Cov_r[m].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from samplerbench.core.responsibilities import fall_, relative_terms_


def eigen_terms(basis: Tensor, means: Tensor) -> Tensor:
    """What P_k, P_k·μ_k and μ_kᵀP_k·μ_k have of each eigenvector q of C_k, for P_k·q = q.

    These are the products of two coordinates of q, (q·μ_k)·q and (q·μ_k)².

    Args:
        basis: the eigenvectors in columns, shape (K, dim, dim).
        means: μ_k, shape (K, dim).

    Returns:
        Shape (dim, pairs + dim + 1, K), with the eigenvectors on the first axis.
    """
    vectors = basis.permute(2, 1, 0)  # eigenvector, coordinate, component
    i, j = torch.triu_indices(len(means.T), len(means.T))
    along = (vectors * means.T).sum(1, keepdim=True)
    terms = [vectors[:, i] * vectors[:, j], along * vectors, along.square()]
    return torch.cat(terms, 1).contiguous()


@dataclass(frozen=True, eq=False)
class Forms:
    """The forms of a mixture at one level; the means of states u have the shape (dim, n)."""

    alpha: float
    sigma: float
    constants: Tensor  # l_k, shape (K, 1)
    slopes: Tensor  # factors of the coordinates of u and their products, shape (K, dim + pairs)
    numbers: Tensor  # 1, and z_k: b_k and the upper triangle of G_k; shape (1 + dim + pairs, K)
    place: Tensor  # of an entry of G_k in z_k, shape (dim, dim)

    def mean(self, u: Tensor) -> Tensor:
        """E_r[m], shape (dim, n)."""
        sums = self.numbers @ self._terms(u)
        return self._of_numbers(sums[1:], u) / sums[0]

    def derivative(self) -> Callable[[Tensor], Tensor]:
        """A function of u: E_r[m] and ∂x̂₀/∂x, shape (dim + dim², n)."""
        count, dim = len(self.numbers), len(self.place)
        p, q = torch.triu_indices(count, count, device=self.numbers.device)
        products = self.numbers[p] * self.numbers[q]
        square = torch.empty(count, count, dtype=torch.long, device=p.device)
        square[p, q] = square[q, p] = torch.arange(len(p), device=p.device)
        ratio = self.alpha / self.sigma**2

        def both(u: Tensor) -> Tensor:
            sums = products @ self._terms(u)
            sums = sums / sums[0]
            first = sums[1:count]
            spread = sums[square[1:, 1:]] - first[:, None] * first
            half = self._of_numbers(spread, u)  # Cov(m, z)
            covariance = self._of_numbers(half.transpose(0, 1), u)
            derivative = first[self.place] + ratio * covariance
            return torch.cat([self._of_numbers(first, u), derivative.reshape(dim**2, -1)])

        return both

    def _terms(self, u: Tensor) -> Tensor:
        """w_k·N(x; α·(c + μ_k), P_k⁻¹) relative to the largest one, shape (K, n)."""
        i, j = torch.triu_indices(len(u), len(u), device=u.device)
        logs = torch.addmm(self.constants, self.slopes, torch.cat([u, u[i] * u[j]]))
        return relative_terms_(fall_(logs, 0)[1])

    def _of_numbers(self, numbers: Tensor, u: Tensor) -> Tensor:
        """b + G·u from the numbers z, shape (dim + pairs, …, n)."""
        total = numbers[: len(u)]
        for column, one in zip(self.place.T, u, strict=True):
            total = torch.addcmul(total, numbers[column], one)
        return total


def forms(
    level: tuple[float, float], log_weights: Tensor, eigenvalues: Tensor, terms: Tensor
) -> Forms:
    """The forms of a mixture.

    Args:
        level: α and σ.
        log_weights: ln w_k, shape (K,).
        eigenvalues: of C_k, shape (dim, K).
        terms: `eigen_terms`.
    """
    alpha, sigma = level
    dim = len(eigenvalues)
    pairs = dim * (dim + 1) // 2
    power = (alpha**2 * eigenvalues + sigma**2).reciprocal_()
    sums = _summed(power, terms)
    inverse, solved, square = sums[:pairs], sums[pairs:-1], sums[-1]
    gains = _summed(alpha * eigenvalues * power, terms[:, :pairs])
    i, j = torch.triu_indices(dim, dim, device=terms.device)
    shares = torch.where(i == j, -0.5, -1.0).to(terms)[:, None]
    constants = log_weights + 0.5 * (power.log().sum(0) - alpha**2 * square)
    place = torch.empty(dim, dim, dtype=torch.long, device=terms.device)
    place[i, j] = place[j, i] = dim + torch.arange(pairs, device=terms.device)
    return Forms(
        alpha,
        sigma,
        constants[:, None],
        torch.cat([alpha * solved, shares * inverse]).T,
        torch.cat([torch.ones_like(solved[:1]), sigma**2 * solved, gains]),
        place,
    )


def _summed(factors: Tensor, terms: Tensor) -> Tensor:
    """Σ over the eigenvectors of a factor times their terms, shape (…, K)."""
    total = factors[0] * terms[0]
    for factor, term in zip(factors[1:], terms[1:], strict=True):
        total.addcmul_(factor, term)
    return total
