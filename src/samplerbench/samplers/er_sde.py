"""ER-SDE: multistep solvers of a family of reverse SDEs, which differ in their noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from samplerbench.core.grids import Levels
from samplerbench.core.models import Denoiser
from samplerbench.core.noise import Noise
from samplerbench.errors import require
from samplerbench.samplers.base import Sampler, Step
from samplerbench.samplers.multistep import quadrature

#: ln(φ(κ)/κ) by the name of φ.
SCALES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "er": lambda kappa: torch.logaddexp(kappa**0.3, kappa.new_tensor(math.log(10))),
    "ode": torch.zeros_like,
    "sde": torch.log,
}


@dataclass(frozen=True)
class ERSDE(Sampler):
    """x̄_s = r·x̄_t + (1 − r)·x̂₀ + c₁·d + c₂·d' + √(κ_s² − r²κ_t²)·z,   r = φ(κ_s)/φ(κ_t).

    x̄ = x/α, κ = σ/α, z ~ N(0, I). If φ(κ)/κ does not decrease, φ defines a reverse SDE with the
    marginals of the path, and the step is exact for a constant x̂₀. d and d' approximate the first
    and second derivatives of x̂₀ in κ: divided differences of the last outputs, the second doubled;

        c₁ = κ_s − κ_t + φ(κ_s)·I₀,   c₂ = ½(κ_s − κ_t)² + φ(κ_s)·I₁,   I_k = ∫ (κ − κ_t)^k/φ(κ) dκ

    from κ_s to κ_t, by 24 Gauss–Legendre points. The first steps use the available outputs, and the
    last step is x̂₀. The step from a level without signal has order 1, and the level is not a node.

    φ is `er`: κ·(e^{κ^.3} + 10), the paper's choice; `ode`: κ, a deterministic method, DDIM(0) for
    one point; `sde`: κ², the plain reverse SDE, DDIM(1) for one point. Weak order min(points, 2).
    The third point lowers the error but does not raise the order, because the first step has one
    point, and noise adds another error of h². One evaluation per step. Cui, Zhang, Bao, Liao,
    "Elucidating the solution space of extended reverse-time SDE for diffusion models", WACV 2025
    (arXiv 2309.06169), Algorithms 1 to 3.

    Args:
        points: the number of outputs, 1, 2 or 3: ER-SDE-Solver-1, -2, -3.
        scale: the name of φ.
    """

    couples: ClassVar[bool] = True
    points: int = 3
    scale: str = "er"

    def __post_init__(self) -> None:
        require(self.points in (1, 2, 3), "points", self.points, "1, 2 or 3")
        require(self.scale in SCALES, "scale", self.scale, " or ".join(SCALES))

    @classmethod
    def variants(cls) -> Sequence[Self]:
        return [cls(), cls(1), cls(2), cls(2, "sde"), cls(1, "ode"), cls(2, "ode")]

    @property
    def order(self) -> int:
        return min(self.points, 2)

    @property
    def stochastic(self) -> bool:
        return self.scale != "ode"

    def steps(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        kept, fresh, first, second = self._coefficients(levels)
        kappa = (levels.sigma / levels.alpha).tolist()
        past: list[tuple[float, Tensor]] = []  # κ and x̂₀, newest first
        for step, now, to in levels.pairs():
            x0_hat = model.denoiser(x, now)
            if now.alpha > 0:
                past = [(kappa[step], x0_hat), *past[: self.points - 1]]
            if to.sigma == 0:
                x = x0_hat
            else:
                x = kept[step] * x + (to.alpha - kept[step] * now.alpha) * x0_hat
                if len(past) > 1:
                    slope = _difference(*past[:2])
                    x = x + (to.alpha * first[step]) * slope
                if len(past) > 2:
                    bend = (slope - _difference(*past[1:])) / (0.5 * (past[0][0] - past[2][0]))
                    x = x + (to.alpha * second[step]) * bend
                if fresh[step] > 0:
                    x = x + fresh[step] * noise.normal(x, step)
            yield Step(x, x0_hat)

    def _coefficients(self, levels: Levels) -> list[list[float]]:
        """The factor of x, the noise's standard deviation, c₁ and c₂ of every step.

        With g(κ) = φ(κ)/κ the factor is (σ_s/σ_t)·g_s/g_t, which is defined without signal too, and
        dκ/φ = −dλ/g with λ = −ln κ.
        """
        log_scale = SCALES[self.scale]
        kappa = levels.sigma / levels.alpha
        log_g = log_scale(kappa)
        ratio = log_g.diff().exp()
        kept = levels.sigma[1:] / levels.sigma[:-1] * ratio
        fresh = levels.sigma[1:] * (1 - ratio.square()).clamp(min=0.0).sqrt()
        at, spacing = quadrature(levels)
        inner, now, to = (-at).exp(), kappa[:-1, None], kappa[1:, None]
        # κ_s·g_s/g(κ) dλ = φ(κ_s) dκ/φ(κ), with the sign of an integral from κ_s to κ_t
        measure = to * (log_g[1:, None] - log_scale(inner)).exp() * spacing
        length = (to - now).squeeze(1)
        first = length + measure.sum(1)
        second = 0.5 * length.square() + (measure * (inner - now)).sum(1)
        return [kept.tolist(), fresh.tolist(), first.tolist(), second.tolist()]


def _difference(new: tuple[float, Tensor], old: tuple[float, Tensor]) -> Tensor:
    """(x̂₀ − x̂₀')/(κ − κ')."""
    return (new[1] - old[1]) / (new[0] - old[0])
