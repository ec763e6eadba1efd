"""What a path and its grid cost on data of another centre or scale, before anything is run.

A path begins at the noise-to-signal ratio κ of its first level and takes its last step, to the
data, from the ratio ε. Data are taken for a Gaussian N(m, Σ), Σ with eigenvalues λ_i; then both
costs in W₂ have closed forms:

- *start*: the probability-flow map takes N(0, σ²) to a Gaussian whose mean is off by
  |m|·√(λ/(λ + κ²)), and whose standard deviation is off by √λ·(1 − κ/√(λ + κ²)), λ the largest;
- *end*: the last step replaces a state by its mean E[x₀ | x], whose variance is λ_i²/(λ_i + ε²):
  the deviation is off by √λ_i·(1 − √(λ_i/(λ_i + ε²))).

A network is trained on the noised data, N(m, Σ + κ²) at the first level. Where the prior lies more
than a standard deviation from it, |m| > √(mᵀΣm/|m|² + κ²), it is asked about what it never saw: the
error is then the start's, whatever the network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from inspect import signature

import torch
from torch import Tensor

from samplerbench.bench.rounding import plain
from samplerbench.bench.sweep import Sweep
from samplerbench.core.starts import FixedGaussian, Sobol
from samplerbench.errors import require

#: Shares of the data's scale from which a cost is said.
_START, _END = 0.1, 0.05

#: In more dimensions, where eigenvalues take minutes, variances are those of the coordinates.
_MOST = 512


@dataclass(frozen=True, eq=False)
class Scale:
    """Centre and scale of points.

    Args:
        mean: length of their mean.
        along: their variance along it.
        variances: eigenvalues of their covariance, shape (dim,), ascending.
    """

    mean: float
    along: float
    variances: Tensor

    @property
    def sd(self) -> float:
        """The largest standard deviation along any direction."""
        return math.sqrt(float(self.variances[-1]))

    def start_cost(self, ratio: float) -> float:
        """W₂ that a start at the prior costs; see the module."""
        root = math.hypot(self.sd, ratio)
        if root == 0:
            return 0.0
        return math.hypot(self.mean * self.sd / root, self.sd * (1 - ratio / root))

    def end_cost(self, ratio: float) -> float:
        """W₂ that the last step costs; see the module."""
        kept = (self.variances / (self.variances + ratio**2)).nan_to_num(1.0).sqrt()
        return float((self.variances.sqrt() * (1 - kept)).norm())

    def distance_in_sds(self, ratio: float) -> float:
        """How many standard deviations of the noised data the prior's mean is from theirs."""
        width = math.sqrt(self.along + ratio**2)
        return self.mean / width if width > 0 else 0.0


def scale_of(points: Tensor) -> Scale:
    """The scale of points, shape (n, dim)."""
    points = points.double().cpu()
    mean = points.mean(0)
    length = float(mean.norm())
    along = float((points @ mean / length).var()) if length > 0 else 0.0
    if points.shape[1] > _MOST:
        return Scale(length, along, points.var(0).sort().values)
    covariance = points.T.cov().reshape(2 * (points.shape[1],))
    return Scale(length, along, torch.linalg.eigvalsh(covariance).clamp(min=0))


def enough_noise(points: Tensor, allowed: float) -> float:
    """The noise-to-signal ratio at which the start costs about `allowed`, rounded up to one digit.

    Args:
        points: of the data, shape (n, dim).
        allowed: the W₂ allowed to the start, above 0.
    """
    require(0 < allowed < math.inf, "allowed", allowed, "positive and finite")
    scale = scale_of(points)
    low, high = 0.0, 1.0
    while scale.start_cost(high) > allowed:
        low, high = high, 2 * high
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if scale.start_cost(middle) > allowed else (low, middle)
    return _one_digit(high)


def _one_digit(number: float) -> float:
    digit: float = 10.0 ** math.floor(math.log10(number))
    return math.ceil(number / digit - 1e-9) * digit


@dataclass(frozen=True)
class Mismatch:
    """What of a sweep's path does not fit its data, each in a sentence; empty where it fits.

    Args:
        start: of the prior.
        unseen: whether a network is asked about states that it was not trained on.
        end: of the last step.
        lost: W₂ that the last step costs, where it does not fit.
    """

    start: str = ""
    unseen: bool = False
    end: str = ""
    lost: float = 0.0

    @property
    def lines(self) -> list[str]:
        """The sentences, for people."""
        return [f"mismatch: {text}" for text in (self.start, self.end) if text]


def mismatch(sweep: Sweep) -> Mismatch:
    """What does not fit; nothing is said of a sweep without samplers on the path."""
    samplers = [sampler for _, sampler in sweep.samplers if not sampler.holds]
    if not samplers or len(sweep.reference) < 2:
        return Mismatch()
    scale = scale_of(sweep.reference)
    levels = sweep.levels(max(sweep.all_steps)).rows
    first, last = levels[0], levels[-2]
    start, unseen, end, lost = "", False, "", 0.0
    plain_starts = [s.start if isinstance(s, Sobol) else s for s in sweep.starts.values()]
    priors = [s for s in plain_starts if not s.uses_data and not isinstance(s, FixedGaussian)]
    if priors and first.alpha > 0 and scale.sd > 0:
        ratio = first.sigma / first.alpha
        cost, sds = scale.start_cost(ratio), scale.distance_in_sds(ratio)
        unseen = sds > 1
        if cost > _START * scale.sd or unseen:
            start = (
                f"the prior is N(0, σ²) with σ/α = {ratio:.3g}, and the data have a mean of length "
                f"{plain(scale.mean)} and a largest sd of {plain(scale.sd)}: this start costs "
                f"about W₂ = {plain(cost, 2)} with an exact score"
            )
            if unseen:
                start += f", and lies {plain(sds, 2)} sds from all that a network is trained on"
                start += "; centre the data, or raise the path's noise"
            else:
                want = enough_noise(sweep.reference, _START * scale.sd)
                start += f"; σ/α = {want:g} would cost a tenth of the sd"
    # other grids come nearer to the data with more steps
    if "noise_min" in signature(sweep.grid).parameters and last.alpha > 0 and scale.sd > 0:
        ratio = last.sigma / last.alpha
        cost = scale.end_cost(ratio)
        if cost > _END * float(scale.variances.sum().sqrt()):
            lost = cost
            end = (
                f"the last step to the data begins at σ/α = {ratio:.3g}, and their largest sd is "
                f"{plain(scale.sd)}: it loses about W₂ = {plain(cost, 2)} of their spread; lower "
                f"grid.noise_min to about {_one_digit(scale.sd / 20):g}, or scale the data"
            )
    return Mismatch(start, unseen, end, lost)
