"""iPNDM: the Adams–Bashforth weights of a uniform grid, used on every grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from torch import Tensor

from samplerbench.core.grids import Levels
from samplerbench.core.models import Denoiser
from samplerbench.core.noise import Noise
from samplerbench.errors import require
from samplerbench.samplers.base import Deterministic, Step
from samplerbench.samplers.multistep import weighted

CLASSICAL = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


@dataclass(frozen=True)
class IPNDM(Deterministic):
    """A step of DDIM(0) with ε̃ = Σ_j c_j·ε̂^{(j)}:   x_s = (α_s/α_t)·(x_t − σ_t·ε̃) + σ_s·ε̃.

    ε̂ = (x − α·x̂₀)/σ of the last k levels, or fewer in the first steps; c = (1), (3/2, −1/2), (23,
    −16, 5)/12, (55, −59, 37, −9)/24. That is Adams–Bashforth in κ = σ/α for a grid with equal steps
    in κ. On another grid, with κ = κ(ξ), the local error is κ''·dε̂/dξ·h³/12 for k ≥ 2, and the
    first step has one point. So the order is 1 for k = 1 and 2 for k ≥ 2; on grids uniform in κ the
    errors for k > 2 are smaller. One evaluation per step. Liu, Ren, Lin, Zhao, "Pseudo numerical
    methods for diffusion models on manifolds", ICLR 2022 (arXiv 2202.09778), Section 3. The name
    and the start without Runge–Kutta steps are from Zhang and Chen 2023 (arXiv 2204.13902),
    Appendix.

    Args:
        points: k.
    """

    points: int = 4

    def __post_init__(self) -> None:
        require(self.points in (1, 2, 3, 4), "points", self.points, "1, 2, 3 or 4")

    @classmethod
    def variants(cls) -> Sequence[Self]:
        return [cls(), cls(points=2)]

    @property
    def order(self) -> int:
        return min(self.points, 2)

    def steps(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        past: list[Tensor] = []
        for _, now, to in levels.pairs():
            x0_hat = model.denoiser(x, now)
            past = [(x - now.alpha * x0_hat) / now.sigma, *past[: self.points - 1]]
            if to.sigma == 0:
                x = x0_hat
            elif len(past) == 1:  # this form also works for α = 0 at the first level
                x = to.alpha * x0_hat + to.sigma * past[0]
            else:
                eps = weighted(CLASSICAL[len(past) - 1], past)
                x = (to.alpha / now.alpha) * (x - now.sigma * eps) + to.sigma * eps
            yield Step(x, x0_hat)
