"""The KL divergence of a sampler's output from a Gaussian of any dimension, in nats, exact.

With variances λ' of the output and λ of the data in each coordinate, and means m' and m,

    KL = ½·Σ (λ'/λ − 1 − ln(λ'/λ) + (m' − m)²/λ) .

`info` has `reverse`, the divergence of the data's law from the output's. Both are finite only if
the two laws vary in the same directions. In other directions both laws are the same constant, if
the last step is the step to x̂₀.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from samplerbench.datasets.gaussian_spectrum import GaussianSpectrum
from samplerbench.metrics.base import Measurement, SpectrumDistance


@dataclass(frozen=True)
class KLLawGaussian(SpectrumDistance):
    """KL(output's law ‖ data's law), in nats, from means and variances, without samples."""

    is_wasserstein: ClassVar[bool] = False
    needs: ClassVar[str] = "spectrum with a density"

    def between(self, mean: Tensor, variances: Tensor, law: GaussianSpectrum) -> Measurement:
        gap = (mean - law.mean).square()
        varies = (variances > 0) & (law.variances > 0)
        same = (variances == 0) & (law.variances == 0) & (gap == 0)
        wrong = int((~(varies | same)).sum())
        if wrong > 0:
            raise ValueError(
                f"the divergence is infinite: in {wrong} of {law.dim} directions one of the laws "
                "has no variance"
            )
        excess = ((variances - law.variances) / law.variances)[varies]
        kl = float((excess - excess.log1p() + (gap / law.variances)[varies]).sum()) / 2
        # ln(λ'/λ) + λ/λ' − 1, and λ/λ' − 1 = −excess/(1 + excess)
        back = excess.log1p() - excess / (1 + excess) + (gap / variances)[varies]
        return Measurement(kl, kl, kl, None, 0, {"reverse": float(back.sum()) / 2})
