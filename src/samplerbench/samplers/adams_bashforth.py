"""Exponential Adams–Bashforth in log-SNR on x̂₀, with exact weights on any grid."""

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
from samplerbench.samplers.multistep import constant_weights, data_weights, weighted


@dataclass(frozen=True)
class AdamsBashforth(Deterministic):
    """x_s = (σ_s/σ_t)·x_t + Σ_j w_j·x̂₀^{(j)},   w_j = α_s·∫ e^{λ−λ_s}·ℓ_j(λ) dλ from λ_t to λ_s.

    The ℓ_j interpolate the last k outputs, or fewer in the first steps. With k = 3 the first step,
    which is DDIM's, is repeated after the evaluation at its end,

        x_s ← (σ_s/σ_t)·x_t + α_s·(1 − e^{−h})·½(x̂₀(x_t) + x̂₀(x_s)).

    This costs no evaluation and reduces the local error to h³. Order k; one evaluation per step.
    k = 1 is DDIM(0); k = 2 is DPM-Solver++(2M) with exact weights; k = 3 is DPM-Solver++(3M) with
    the second difference doubled, as its Taylor expansion requires. Lu et al., "DPM-Solver++"
    (arXiv 2211.01095), Proposition 4.1; Hochbruck and Ostermann, "Exponential multistep methods of
    Adams-type", BIT 51, 2011; the first step is Zhao et al., "UniPC", NeurIPS 2023 (arXiv
    2302.04867), UniC-1.

    Args:
        points: k.
    """

    points: int = 3

    def __post_init__(self) -> None:
        require(self.points in (1, 2, 3), "points", self.points, "1, 2 or 3")

    @classmethod
    def variants(cls) -> Sequence[Self]:
        return [cls(), cls(points=2)]

    @property
    def order(self) -> int:
        return self.points

    def steps(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        weights, constant = data_weights(levels, self.points), float(constant_weights(levels)[0])
        start = x
        past: list[Tensor] = []
        for step, now, to in levels.pairs():
            x0_hat = model.denoiser(x, now)
            past = [x0_hat, *past[: self.points - 1]]
            if step == 1 and self.points == 3:
                mean = 0.5 * (past[0] + past[1])
                x = (now.sigma / levels.rows[0].sigma) * start + constant * mean
            if to.sigma == 0:
                x = x0_hat
            else:
                x = weighted((to.sigma / now.sigma, *weights[step]), (x, *past))
            yield Step(x, x0_hat)
