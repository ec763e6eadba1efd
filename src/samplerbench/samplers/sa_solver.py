"""SA-Solver: a stochastic Adams method with a predictor and a corrector."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from samplerbench.core.grids import Levels
from samplerbench.core.models import Denoiser
from samplerbench.core.noise import Noise
from samplerbench.errors import require
from samplerbench.samplers.base import Sampler, Step
from samplerbench.samplers.multistep import adams_weights, log_snr, quadrature, weighted


@dataclass(frozen=True)
class SASolver(Sampler):
    """x_s = (σ_s/σ_t)·e^{−τ²h}·x_t + Σ_j w_j·x̂₀^{(j)} + σ_s·√(1 − e^{−2τ²h})·z,   h = λ_s − λ_t;
    w_j = ∫ ℓ_j(λ) dμ,   dμ = σ_s·e^{−τ²(λ_s − λ)}·(1 + τ²)·e^λ dλ,   λ = ln(α/σ).

    This solves the reverse SDE whose noise has τ² times the variance of the plain one, exactly if
    x̂₀ is the polynomial with the Lagrange basis ℓ_j. The predictor's polynomial goes through the
    outputs at this level and at `predictor` − 1 earlier levels. The corrector repeats the step with
    the same z; its polynomial goes through the output at the predicted state, and `corrector` − 1
    outputs at this level and earlier ones. `corrector` = 0 switches it off. The first steps use the
    available outputs. A last step to σ > 0 is not corrected. A level without signal is not a node.
    The last step is x̂₀.

    The next step uses the output at the predicted state (PEC, N evaluations), or evaluates the
    model again at the corrected state (PECE, 2N − 1 evaluations). τ is `tau` in the steps that
    begin at a κ = σ/α between `tau_min` and `tau_max`, and 0 in the other steps, which draw no
    noise.

    The order is that of the last polynomial, min(corrector, predictor + 1) or, without a corrector,
    min(predictor, 2), because the first step has one point. With noise the weak order is at most 2
    (measured; the paper proves 1). diffusers' `SASolverScheduler`, whose `corrector_order` counts
    like ours, uses another weight for the difference of two outputs. Xue, Yi, Luo, Zhang, Sun, Li,
    Ma, "SA-Solver: stochastic Adams solver for fast sampling of diffusion models", NeurIPS 2023
    (arXiv 2309.05019), Algorithm 1.

    Args:
        predictor: the number of outputs in the predictor, 1 to 3.
        corrector: the number of outputs in the corrector, 0 to 3.
        tau: τ, the standard deviation of the noise relative to the plain reverse SDE's; 0 is
            deterministic.
        tau_min: the smallest κ with noise.
        tau_max: the largest κ with noise.
        pece: whether the model is evaluated at corrected states too.
    """

    couples: ClassVar[bool] = True
    predictor: int = 3
    corrector: int = 3
    tau: float = 1.0
    tau_min: float = 0.0
    tau_max: float = math.inf
    pece: bool = False

    def __post_init__(self) -> None:
        require(self.predictor in (1, 2, 3), "predictor", self.predictor, "1, 2 or 3")
        require(self.corrector in (0, 1, 2, 3), "corrector", self.corrector, "0, 1, 2 or 3")
        require(0 <= self.tau < math.inf, "tau", self.tau, "at least 0 and finite")
        require(self.tau_min >= 0, "tau_min", self.tau_min, "at least 0")
        allowed = f"at least tau_min={self.tau_min}"
        require(self.tau_max >= self.tau_min, "tau_max", self.tau_max, allowed)
        allowed = "false without a corrector"
        require(self.corrector > 0 or not self.pece, "pece", self.pece, allowed)

    @classmethod
    def variants(cls) -> Sequence[Self]:
        return [
            cls(),
            cls(2, 0),
            cls(1, 0, tau=0.5),
            cls(1, 2),
            cls(2, 3, tau=0.0),
            cls(1, 2, pece=True),
        ]

    @property
    def order(self) -> int:
        corrected = min(self.corrector, self.predictor + 1)
        points = corrected if self.corrector > 0 else min(self.predictor, 2)
        return min(points, 2) if self.stochastic else points

    @property
    def stochastic(self) -> bool:
        return self.tau > 0

    def evaluations(self, steps: int) -> int:
        return 2 * steps - 1 if self.pece else steps

    def plain_evaluations(self, steps: int) -> int:
        return self.evaluations(steps)

    def steps(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        kept, fresh, predict, correct = self._coefficients(levels)
        past: list[Tensor] = []
        before, z = x, x  # the state at the last level, corrected, and the noise of its step
        for step, now, to in levels.pairs():
            x0_hat = model.denoiser(x, now)
            if step > 0 and self.corrector > 0:
                outputs = (x0_hat, *past[: self.corrector - 1])
                x = weighted((kept[step - 1], *correct[step - 1]), (before, *outputs))
                if fresh[step - 1] > 0:
                    x = x + fresh[step - 1] * z
                if self.pece:
                    x0_hat = model.denoiser(x, now)
            past = [x0_hat, *past[:2]]
            before = x
            if to.sigma == 0:
                x = x0_hat
            else:
                x = weighted((kept[step], *predict[step]), (x, *past[: self.predictor]))
                if fresh[step] > 0:
                    z = noise.normal(x, step)
                    x = x + fresh[step] * z
            yield Step(x, x0_hat)

    def _coefficients(
        self, levels: Levels
    ) -> tuple[list[float], list[float], list[list[float]], list[list[float]]]:
        """The factor of x, the noise's standard deviation and both sets of weights of each step."""
        kappa, lam = (levels.sigma / levels.alpha)[:-1], log_snr(levels)
        inside = (kappa >= self.tau_min) & (kappa <= self.tau_max)
        tau2 = self.tau**2 * inside.to(kappa)
        decay = torch.where(tau2 > 0, tau2 * lam.diff(), 0.0)
        kept = levels.sigma[1:] / levels.sigma[:-1] * (-decay).exp()
        fresh = levels.sigma[1:] * (-torch.expm1(-2 * decay)).sqrt()
        at, spacing = quadrature(levels)
        gain = (1 + tau2)[:, None]
        measure = levels.alpha[1:, None] * gain * (gain * (at - lam[1:, None])).exp() * spacing
        total = levels.alpha[1:] - kept * levels.alpha[:-1]
        predict = adams_weights(lam, at, measure, total, self.predictor)
        correct = adams_weights(lam, at, measure, total, max(self.corrector, 2), newest=1)
        if self.corrector == 1:
            correct = [[float(value), 0.0] for value in total]
        return kept.tolist(), fresh.tolist(), predict, correct
