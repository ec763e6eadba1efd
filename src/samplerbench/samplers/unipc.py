"""UniPC: a multistep predictor, and a corrector that costs no evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from torch import Tensor

from samplerbench.core.grids import Levels
from samplerbench.core.models import Denoiser
from samplerbench.core.noise import Noise
from samplerbench.errors import require
from samplerbench.samplers.base import Sampler, Step
from samplerbench.samplers.multistep import (
    constant_weights,
    data_weights,
    half_weights,
    log_snr,
    weighted,
)


@dataclass(frozen=True)
class UniPC(Sampler):
    """UniP:  x_s = (σ_s/σ_t)·x_t + Σ_j w_j·x̂₀^{(j)}   over this level and k − 1 before it;
    UniC:  x_s ← (σ_s/σ_t)·x_t + Σ_j v_j·x̂₀^{(j)}   over the next level too.

    The corrector reads the evaluation at the predicted state, which the next step needs anyway, and
    that is not repeated at the corrected one; the last state is a predicted one. w and v are the
    exact weights of the polynomial in λ = ln(α/σ) through the outputs, so the paper's B(h) cancels,
    but for k = 1 in UniC and k = 2 in UniP, where it takes ½·B(h) for the exact weight. B is B₂,
    1 − e^{−h} on x̂₀: those two are the trapezoid and DPM-Solver++(2M). With `bh1` it is B₁ = h,
    which in long steps gives the change of x̂₀ more weight than x̂₀ itself; diffusers recommends it
    below ten steps where nothing guides the model. The first steps have as many points as there
    are; B₁ does not correct a first step from α = 0, where h is infinite.

    UniPC-k, k = `points`. Order k + 1, but never above 3, since the first step is a trapezoid with
    a local error of h³: 2, 3, 3 for k = 1, 2, 3. At k = 3 that error is all that keeps it from
    order 4, and on grids whose first steps are short in λ it shows only at thousands of steps: over
    40 to 320 its error falls like N^−3.1 to N^−3.8. So `variants`, which must show their order
    there, leave it out; it has tests of its own. One evaluation per step. Zhao, Bai, Rao, Zhou, Lu,
    "UniPC", NeurIPS 2023 (arXiv 2302.04867), Section 3, on x̂₀.

    Args:
        points: k, the paper's order p.
        bh1: whether B is B₁ and not B₂; diffusers' `solver_type`.
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

    @property
    def stochastic(self) -> bool:
        return False

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
    """(of the predictor, of the corrector) in every step, newest output first."""
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
