"""Four meanings of η in published codes, and how to convert one into another.

In a step from σ_t to σ_s, with ρ = κ_s/κ_t and κ = σ/α, every code draws fresh noise of variance

    ς² = share·σ_s²·(1 − ρ²),   share = 0 deterministic, 1 ancestral (DDPM's small variance),

and multiplies ε̂ by √(σ_s² − ς²). For 0 < η < 1 the codes differ. Each meaning is a *convention*:

    convention    share at η                      used by
    PAPER         η²                              DDIM, Eq. 16; diffusers; k-diffusion's *_ancestral
    AZULA         η                               azula's DDIMSampler
    HACKABLE      (1 − (1 − η + ηρ)²)/(1 − ρ²)    hackable_diffusion's DDIMStep, `stoch_coeff`
    EXPONENTIAL   (1 − ρ^{2η})/(1 − ρ²)           k-diffusion's sample_dpmpp_2m_sde; `SDEDPMpp1`

At η = .5 and ρ = ½ the shares are .25, .50, .58, .67. The last two depend on the step, so one value
of η corresponds to a different η of PAPER in every step. As ρ → 1 these two shares tend to η, which
is AZULA's share: the noise of their SDE has η times the variance of the reverse SDE's.

Everywhere else in this package η is PAPER's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from samplerbench.errors import require


@dataclass(frozen=True)
class Convention:
    """A meaning of η, and its inverse."""

    # (η, ρ) ↦ the variance of the fresh noise, divided by that of ancestral sampling
    share: Callable[[float, float], float]
    eta: Callable[[float, float], float]  # (share, ρ) ↦ η


PAPER = Convention(lambda eta, _: eta**2, lambda share, _: math.sqrt(share))
AZULA = Convention(lambda eta, _: eta, lambda share, _: share)
HACKABLE = Convention(
    lambda eta, ratio: (1 - (1 - eta * (1 - ratio)) ** 2) / (1 - ratio**2),
    lambda share, ratio: (1 - math.sqrt(1 - share * (1 - ratio**2))) / (1 - ratio),
)
EXPONENTIAL = Convention(
    lambda eta, ratio: (1 - ratio ** (2 * eta)) / (1 - ratio**2),
    lambda share, ratio: math.log(1 - share * (1 - ratio**2)) / (2 * math.log(ratio)),
)


def translate(eta: float, ratio: float, source: Convention, target: Convention) -> float:
    """Convert η from one convention to another, for a step with the same fresh noise.

    Args:
        eta: η in the convention `source`, from 0 to 1.
        ratio: ρ = κ_s/κ_t of the step, above 0 and below 1.
        source: the convention of `eta`.
        target: the convention of the result.
    """
    require(0 < ratio < 1, "ratio", ratio, "above 0 and below 1")
    require(0 <= eta <= 1, "eta", eta, "at least 0 and at most 1")
    return target.eta(source.share(eta, ratio), ratio)
