"""η has four dialects: how much fresh noise a number between 0 and 1 means, and to whom.

For a step from σ_t to σ_s, ρ = κ_s/κ_t with κ = σ/α, every dialect draws fresh noise of variance

    ς² = share·σ_s²·(1 − ρ²),   share = 0 deterministic, 1 ancestral (DDPM's small variance),

and scales what is kept of ε̂ by √(σ_s² − ς²). They differ in between:

    dialect       share at η                      where
    PAPER         η²                              DDIM, Eq. 16; diffusers; k-diffusion's *_ancestral
    AZULA         η                               azula's DDIMSampler
    HACKABLE      (1 − (1 − η + ηρ)²)/(1 − ρ²)    hackable_diffusion's DDIMStep, `stoch_coeff`
    EXPONENTIAL   (1 − ρ^{2η})/(1 − ρ²)           k-diffusion's sample_dpmpp_2m_sde; `SDEDPMpp1`

At η = .5 and ρ = ½: .25, .50, .58, .67. The first two do not depend on the step; the last two do,
so a number in one of them is a different η of the paper's at each step. For small steps, ρ → 1, the
shares of both tend to η, azula's: the noise of their SDE has η times the reverse SDE's variance.

Everywhere else in this package η is the paper's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from samplerbench.errors import require


@dataclass(frozen=True)
class Dialect:
    """What η means, both ways.

    Args:
        share: (η, ρ) ↦ variance of the fresh noise as a share of ancestral sampling's.
        eta: (share, ρ) ↦ η, its inverse.
    """

    share: Callable[[float, float], float]
    eta: Callable[[float, float], float]


PAPER = Dialect(lambda eta, _: eta**2, lambda share, _: math.sqrt(share))
AZULA = Dialect(lambda eta, _: eta, lambda share, _: share)
HACKABLE = Dialect(
    lambda eta, ratio: (1 - (1 - eta * (1 - ratio)) ** 2) / (1 - ratio**2),
    lambda share, ratio: (1 - math.sqrt(1 - share * (1 - ratio**2))) / (1 - ratio),
)
EXPONENTIAL = Dialect(
    lambda eta, ratio: (1 - ratio ** (2 * eta)) / (1 - ratio**2),
    lambda share, ratio: math.log(1 - share * (1 - ratio**2)) / (2 * math.log(ratio)),
)


def translate(eta: float, ratio: float, source: Dialect, target: Dialect) -> float:
    """The η of `target` whose step has as much fresh noise as the η of `source`.

    Args:
        eta: η in the source's dialect; the share it stands for must be at most 1.
        ratio: ρ = κ_s/κ_t of the step, above 0 and below 1.
        source: the dialect that `eta` is in.
        target: the dialect of the result.
    """
    require(0 < ratio < 1, "ratio", ratio, "above 0 and below 1")
    require(0 <= eta <= 1, "eta", eta, "at least 0 and at most 1")
    return target.eta(source.share(eta, ratio), ratio)
