"""How evenly samples cover the modes of a mixture, compared with the law: an entropy of shares.

With the share p̂_k of the samples in mode k (assigned as in `modes`) and weights w_k,

    coverage = −Σ_k p̂_k·ln p̂_k / ln K,     value = |coverage − (−Σ_k w_k·ln w_k / ln K)| .

The coverage is 1 for equal shares of all K modes and 0 for a single mode, so with equal weights the
value is 1 − coverage. `info` has coverage, truth, and `found`, the number of modes with a sample.
Unlike `mode_weights` it does not detect shares that are exchanged between modes.

Cost: n·K·dim². Fresh draws have a value of about K/(2n·ln K) with equal weights.

Reference: D. Blessing, X. Jia, J. Esslinger, F. Vargas, G. Neumann, Beyond ELBOs: A Large-Scale
Evaluation of Variational Methods for Sampling, ICML 2024 (arXiv 2406.07423), Section 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from samplerbench.metrics.base import Measurement
from samplerbench.metrics.mode_weights import ModeWeights


@dataclass(frozen=True)
class ModeCoverage(ModeWeights):
    """The difference between the normalised entropies of samples and law over the modes; no units.

    Args:
        max_overlap: as in `ModeWeights`.
    """

    name: ClassVar[str] = "mode_coverage"

    def compare(self, counts: Tensor, weights: Tensor) -> Measurement:
        coverage, truth = _entropy(counts / counts.sum()), _entropy(weights)
        value = abs(coverage - truth)
        info = {"coverage": coverage, "truth": truth, "found": float((counts > 0).sum())}
        return Measurement(value, value, value, None, 0, info)


def _entropy(shares: Tensor) -> float:
    """−Σ p·ln p / ln K, shape (K,)."""
    return float(torch.special.entr(shares).sum()) / math.log(len(shares))
