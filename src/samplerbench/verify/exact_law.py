"""The exact law of a sampler's output on Gaussian data, with no Monte Carlo.

For Gaussian data the denoiser is affine in the state, so a step of a non-adaptive sampler is affine
in the state and in its noise, and so is the whole run:

    x_out = A·x_in + Σ_j B_j·z_j + c,   z_j ~ N(0, I) independent,   x_in ~ N(μ, Σ)
    ⇒  x_out ~ N(A·μ + c, A·Σ·Aᵀ + Σ_j B_j·B_jᵀ).

One run from μ without noise gives the mean, runs with one unit added to the state or to one draw
give the columns of A and B_j; all are rows of a single batch. Two Gaussians N(m, A) and N(m', B)
at distance Δ = m − m' then have, without sampling error,

    W₂² = ‖Δ‖² + min_{UᵀU = I} ‖√A − √B·U‖²_F,   U = the orthogonal polar factor of √B·√A,

the Bures form (Bhatia, Jain, Lim, "On the Bures–Wasserstein distance between positive definite
matrices", Expositiones Mathematicae 2019, Theorem 1), which does not cancel for A ≈ B, and along
the direction θ (Kolouri et al., "Generalized sliced Wasserstein distances", NeurIPS 2019, Section
3, have the maximum over θ)

    f(θ) = (θᵀΔ)² + (√(θᵀAθ) − √(θᵀBθ))².

Since −2√(ab) = max_{r>0} −(r·a + b/r), f(θ) = max_r θᵀM(r)θ, and the two maxima change places:

    max_θ f(θ) = max_{r>0} λ_max(M(r)),   M(r) = Δ·Δᵀ + (1 − r)·A + (1 − 1/r)·B.

So the max-sliced distance is a search over the one number r = √(θᵀBθ/θᵀAθ) in any dimension: a
dense scan over the values it can have, then refinements around the best.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from samplerbench.core.grids import Level, Levels
from samplerbench.core.models import Denoiser
from samplerbench.samplers.base import Sampler, final_state


def noised_law(mean: Tensor, covariance: Tensor, level: Level[float]) -> tuple[Tensor, Tensor]:
    """Mean and covariance of α·x₀ + σ·ε for x₀ ~ N(mean, covariance)."""
    identity = torch.eye(len(mean), dtype=mean.dtype, device=mean.device)
    return level.alpha * mean, level.alpha**2 * covariance + level.sigma**2 * identity


def output_law(
    sampler: Sampler, model: Denoiser, levels: Levels, start_mean: Tensor, start_covariance: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean (dim,) and covariance (dim, dim) of the sampler's output, float64.

    Costs two runs, one of them of 2 + dim·(1 + draws) rows.

    Args:
        sampler: any method whose steps are affine in state and noise: not an adaptive one, and
            none that accepts and rejects.
        model: an affine denoiser, such as the oracle of one Gaussian.
        levels: where the sampler stops.
        start_mean: of the first state, shape (dim,).
        start_covariance: of the first state, shape (dim, dim).

    Raises:
        ValueError: the sampler cannot run here, or a probe finds that its run is not affine.
    """
    reason = sampler.why_incompatible(model, levels)
    if reason is not None:
        raise ValueError(reason)
    mean, covariance = start_mean.double(), start_covariance.double()
    units = torch.eye(len(mean), dtype=torch.float64, device=mean.device)
    recorder = _Recorder()
    noise = _Impulses(units, recorder.addresses)
    with torch.no_grad():
        final_state(sampler, model, mean.unsqueeze(0), levels, recorder)
        blocks = [mean.unsqueeze(0), mean + units, mean.expand(noise.rows, -1), mean.unsqueeze(0)]
        blocks[-1] = blocks[-1] - 2.0  # the probe moves in every coordinate and every draw at once
        out = final_state(sampler, model, torch.cat(blocks), levels, noise)
    base, columns, probed = out[0], out[1:-1] - out[0], out[-1] - out[0]
    amounts = torch.cat([torch.full_like(mean, -2.0), noise.probe])
    scale = out.abs().max() + columns.abs().sum(0).max()
    if not (probed - amounts @ columns).abs().max() <= 1e-9 * scale:
        raise ValueError(f"{sampler} is not affine in state and noise on this model")
    by_state, by_noise = columns[: len(mean)], columns[len(mean) :]
    return base, by_state.mT @ covariance @ by_state + by_noise.mT @ by_noise


def gaussian_w2(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """W₂ between two Gaussians, covariances positive semi-definite."""
    root_a, root_b = _square_root(cov_a), _square_root(cov_b)
    left, _, right = torch.linalg.svd(root_b @ root_a)
    bures = (root_a - root_b @ (left @ right)).square().sum()
    return float((bures + (mean_a - mean_b).square().sum()).sqrt())


def gaussian_max_sliced_w2(
    mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor, *, points: int = 512
) -> tuple[float, Tensor]:
    """Max-sliced W₂ between two Gaussians, and a direction (dim,) that attains it.

    Args:
        mean_a: shape (dim,), like `mean_b`.
        cov_a: shape (dim, dim), positive semi-definite, like `cov_b`.
        mean_b: see `mean_a`.
        cov_b: see `cov_a`.
        points: how many values of r the scan looks at; one eigenvalue problem each.
    """
    a, b, gap = cov_a.double(), cov_b.double(), (mean_a - mean_b).double()
    scale = float(torch.stack([a.trace(), b.trace(), gap.square().sum()]).max())
    if scale == 0:
        return 0.0, torch.eye(len(gap), dtype=torch.float64, device=a.device)[0]
    # r² lies between the extreme ratios of the two quadratic forms; 1e-16 stands for a zero one
    eigenvalues = torch.stack([torch.linalg.eigvalsh(a), torch.linalg.eigvalsh(b)])
    least, most = (eigenvalues[:, [0, -1]].clamp_min(1e-16 * scale).log() / 2).mT.tolist()
    lower, upper = least[1] - most[0], most[1] - least[0]
    best, direction = -1.0, gap
    for _ in range(4):
        logs = torch.linspace(lower, upper, points, dtype=torch.float64, device=a.device)
        r = logs.exp()[:, None, None]
        theta = torch.linalg.eigh(torch.outer(gap, gap) + (1 - r) * a + (1 - 1 / r) * b)[1][..., -1]
        form_a, form_b = (torch.einsum("nd,de,ne->n", theta, c, theta) for c in (a, b))
        spread = form_a.clamp_min(0).sqrt() - form_b.clamp_min(0).sqrt()
        value, index = ((theta @ gap).square() + spread.square()).max(0)
        if float(value) > best:
            best, direction = float(value), theta[index]
        width = (upper - lower) / (points - 1)
        centre = float(logs[index])
        lower, upper = centre - width, centre + width
    return best**0.5, direction


def _square_root(covariance: Tensor) -> Tensor:
    eigenvalues, basis = torch.linalg.eigh(covariance.double())
    root: Tensor = (basis * eigenvalues.clamp_min(0).sqrt()) @ basis.mT
    return root


class _Recorder:
    """No noise, but a note of which draws were asked for."""

    def __init__(self) -> None:
        self.addresses: dict[tuple[int, int], int] = {}  # address: how many came before it

    def normal(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        self.addresses.setdefault((step, draw), len(self.addresses))
        return torch.zeros_like(like)

    def uniform(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        raise ValueError("a method that draws uniform numbers is not affine in its noise")


class _Impulses:
    """One unit in one coordinate of one draw for each row, and all draws at once in the last row.

    Rows: 1 without noise, dim that move the state, dim for each draw, the probe.
    """

    def __init__(self, units: Tensor, addresses: dict[tuple[int, int], int]) -> None:
        self._units = units
        self._addresses = addresses

    @property
    def rows(self) -> int:
        """How many rows stand for noise."""
        return len(self._units) * len(self._addresses)

    @cached_property
    def probe(self) -> Tensor:
        """The noise of the last row, 1, −1, 1, …, one number for each row that stands for noise."""
        return 1 - 2.0 * (torch.arange(self.rows, device=self._units.device).double() % 2)

    def normal(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        dim = len(self._units)
        if (step, draw) not in self._addresses:
            raise ValueError("the number of draws depends on the state")
        start = dim * self._addresses[step, draw]
        z = torch.zeros_like(like)
        z[1 + dim + start : 1 + 2 * dim + start] = self._units.to(like)
        z[-1] = self.probe[start : start + dim].to(like)
        return z

    def uniform(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        raise ValueError("a method that draws uniform numbers is not affine in its noise")
