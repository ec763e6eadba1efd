"""Errors of a path and its grid that follow from the centre and the scale of the data.

They are known before any work. A path begins at the noise-to-signal ratio κ of its first level, and
its last step, to the data, begins at the ratio ε. If the data are replaced by a Gaussian N(m, Σ),
with eigenvalues λ_i of Σ, the errors of start and end in W₂ have closed forms:

- *start*: the probability-flow map takes N(0, σ²) to a Gaussian. The error of its mean is
  |m|·√(λ/(λ + κ²)), that of its standard deviation √λ·(1 − κ/√(λ + κ²)), with λ the largest λ_i;
- *end*: the last step replaces a state by its mean E[x₀ | x], whose variance is λ_i²/(λ_i + ε²).
  The error of the standard deviation is √λ_i·(1 − √(λ_i/(λ_i + ε²))).

A network is trained on the noised data, N(m, Σ + κ²) at the first level. If the prior is more than
a standard deviation away from them, |m| > √(mᵀΣm/|m|² + κ²), the network is evaluated at states
that it was not trained on. Then the start causes the error, not the network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from samplerbench.bench.rounding import plain
from samplerbench.bench.sweep import Sweep
from samplerbench.core.fitted_grids import settings_of
from samplerbench.core.starts import FixedGaussian, plain_start
from samplerbench.errors import require

#: Errors of the start and of the end are reported above these shares of the data's scale.
_START, _END = 0.1, 0.05

#: In more dimensions the variances of the coordinates replace eigenvalues, which take minutes.
_MOST = 512


@dataclass(frozen=True, eq=False)
class Scale:
    """Centre and scale of points."""

    mean: float  # length of the mean
    along: float  # the variance along the mean
    variances: Tensor  # eigenvalues of the covariance, shape (dim,), ascending

    @property
    def sd(self) -> float:
        """The largest standard deviation along any direction."""
        return math.sqrt(float(self.variances[-1]))

    def start_cost(self, ratio: float) -> float:
        """The error in W₂ of a start from the prior; see the module."""
        root = math.hypot(self.sd, ratio)
        if root == 0:
            return 0.0
        return math.hypot(self.mean * self.sd / root, self.sd * (1 - ratio / root))

    def end_cost(self, ratio: float) -> float:
        """The error in W₂ of the last step; see the module."""
        kept = (self.variances / (self.variances + ratio**2)).nan_to_num(1.0).sqrt()
        return float((self.variances.sqrt() * (1 - kept)).norm())

    def noise_cost(self, ratio: float) -> float:
        """The W₂ of samples that keep noise of this ratio."""
        noisy = (self.variances + ratio**2).sqrt()
        return float((noisy - self.variances.sqrt()).norm())

    def distance_in_sds(self, ratio: float) -> float:
        """The distance of the prior's mean from that of the noised data, in their sds."""
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
    """The noise-to-signal ratio at which the start's error in W₂ is `allowed`, up to one digit."""
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
    """How the path of a sweep does not fit its data."""

    start: str = ""  # a sentence about the prior; empty if it fits
    unseen: bool = False  # whether a network is evaluated at states that it was not trained on
    end: str = ""  # a sentence about the last step; empty if it fits
    lost: float = 0.0  # the error of the last step in W₂, if it does not fit

    @property
    def lines(self) -> list[str]:
        """The sentences to print."""
        return [f"mismatch: {text}" for text in (self.start, self.end) if text]


def mismatch(sweep: Sweep) -> Mismatch:
    """The mismatch of a sweep; empty if no sampler moves along the path."""
    samplers = [sampler for _, sampler in sweep.samplers if not sampler.holds]
    if not samplers or len(sweep.reference) < 2:
        return Mismatch()
    scale = scale_of(sweep.reference)
    levels = sweep.levels(max(sweep.all_steps), final="denoise").rows
    first, last = levels[0], levels[-2]
    start, unseen, end, lost = "", False, "", 0.0
    plain_starts = [plain_start(start) for start in sweep.starts.values()]
    priors = [s for s in plain_starts if not s.uses_data and not isinstance(s, FixedGaussian)]
    if priors and first.alpha > 0 and scale.sd > 0:
        ratio = first.sigma / first.alpha
        cost, sds = scale.start_cost(ratio), scale.distance_in_sds(ratio)
        unseen = sds > 1
        if cost > _START * scale.sd or unseen:
            start = (
                f"the prior is N(0, σ²) with σ/α = {ratio:.3g}, and the data have a mean of length "
                f"{plain(scale.mean)} and a largest sd of {plain(scale.sd)}: on a Gaussian with "
                f"these moments this start causes an error of W₂ = {plain(cost, 2)}, even with the "
                "exact score"
            )
            if unseen:
                start += f", and is {plain(sds, 2)} sds away from the training states of a network"
                start += "; centre the data, or raise the path's noise"
            else:
                want = enough_noise(sweep.reference, _START * scale.sd)
                start += f"; with σ/α = {want:g} the error would be a tenth of the sd"
    # the last level of other grids has less noise with more steps
    if "noise_min" in settings_of(sweep.grid) and last.alpha > 0 and scale.sd > 0:
        ratio = last.sigma / last.alpha
        keeps = sweep.final == "none"
        cost = scale.noise_cost(ratio) if keeps else scale.end_cost(ratio)
        if cost > _END * float(scale.variances.sum().sqrt()):
            lost, sd = cost, f"the largest sd of the data is {plain(scale.sd)}"
            if keeps:
                end = (
                    f"with final=none the samples keep noise of σ/α = {ratio:.3g}, and {sd}: this "
                    f"costs about W₂ = {plain(cost, 2)}; use final=denoise, or lower grid.noise_min"
                )
            else:
                end = (
                    f"the last step to the data begins at σ/α = {ratio:.3g}, and {sd}: this step "
                    f"loses about W₂ = {plain(cost, 2)} of their spread; lower grid.noise_min to "
                    f"about {_one_digit(scale.sd / 20):g}, or scale the data"
                )
    return Mismatch(start, unseen, end, lost)
