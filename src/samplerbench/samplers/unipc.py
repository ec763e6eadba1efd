"""UniPC: a multistep predictor, and a corrector that needs no extra evaluation."""

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
from samplerbench.samplers.multistep import (
    constant_weights,
    data_weights,
    half_weights,
    log_snr,
    weighted,
)


@dataclass(frozen=True)
class UniPC(Deterministic):
    """UniP:  x_s = (σ_s/σ_t)·x_t + Σ_j w_j·x̂₀^{(j)}   over this level and the k − 1 levels before;
    UniC:  x_s ← (σ_s/σ_t)·x_t + Σ_j v_j·x̂₀^{(j)}   over the next level too.

    The corrector uses the evaluation at the predicted state. The next step uses this evaluation
    again, without a new one at the corrected state. The last state is not corrected. w and v are
    the exact weights of the polynomial in λ = ln(α/σ) through the outputs, in which the paper's
    B(h) cancels. Only for k = 1 in UniC and k = 2 in UniP the paper has ½·B(h) in place of the
    exact weight. By default B is B₂ = 1 − e^{−h}: then these two are the trapezoid and
    DPM-Solver++(2M). With `bh1` B is B₁ = h, which gives the change of x̂₀ more weight in long
    steps; diffusers recommends it for unconditional models below ten steps. The first steps use the
    available points. With B₁ the first step is not corrected if α = 0, where h is infinite.

    UniPC-k, k = `points`. The order is min(k + 1, 3), since the first step is a trapezoid with a
    local error of h³. For k = 3 only this error prevents order 4, and on grids with short first
    steps in λ it dominates only for thousands of steps: from 40 to 320 steps the error falls like
    N^−3.1 to N^−3.8, and on the full path (σ from 157 to .01) like N^−3.7 to N^−4.0. So `variants`
    leaves k = 3 out; it has its own test. One evaluation per step.
    Zhao, Bai, Rao, Zhou, Lu, "UniPC", NeurIPS 2023 (arXiv 2302.04867), Section 3, on x̂₀.

    Args:
        points: k, the order p of the paper.
        bh1: whether B is B₁ instead of B₂; the `solver_type` of diffusers.
    """

    points: int = 2
    bh1: bool = False

    def __post_init__(self) -> None:
        require(self.points in (1, 2, 3), "points", self.points, "1, 2 or 3")

    @classmethod
    def variants(cls) -> Sequence[Self]:
        return [cls(), cls(points=1), cls(bh1=True), cls(points=1, bh1=True)]

    @property
    def order(self) -> int:
        return min(self.points + 1, 3)

    def steps(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        predict, correct = _weights(levels, self.points, self.bh1)
        start = x
        past: list[Tensor] = []
        for step, now, to in levels.pairs():
            x0_hat = model.denoiser(x, now)
            past = [x0_hat, *past[: self.points]]
            if step > 0:
                before = levels.rows[step - 1]
                ratio = now.sigma / before.sigma
                x = weighted((ratio, *correct[step - 1]), (start, *past))
            start = x
            if to.sigma == 0:
                x = x0_hat
            else:
                ratio = to.sigma / now.sigma
                x = weighted((ratio, *predict[step]), (x, *past[: self.points]))
            yield Step(x, x0_hat)


def _weights(
    levels: Levels, points: int, bh1: bool
) -> tuple[list[Sequence[float]], list[Sequence[float]]]:
    """The weights of the predictor and of the corrector in every step, newest output first."""
    b = constant_weights(levels)
    size = levels.alpha[1:] * log_snr(levels).diff() if bh1 else b  # α_s·B(h)
    half = half_weights(levels, size)
    late = (0.5 * size).nan_to_num(posinf=0.0)
    trapezoid = list(zip(late.tolist(), (b - late).tolist(), strict=True))
    rough_predictor = slice(None) if points == 2 else slice(min(points, 2))
    rough_corrector = slice(None) if points == 1 else slice(1)
    predict: list[Sequence[float]] = [*data_weights(levels, points)]
    correct: list[Sequence[float]] = [*data_weights(levels, points + 1, newest=1)]
    predict[rough_predictor] = half[rough_predictor]
    correct[rough_corrector] = trapezoid[rough_corrector]
    return predict, correct
