"""W₁ between two clouds, exactly: the optimal transport of all points to all points.

    W₁ = min_π Σᵢⱼ πᵢⱼ ‖xᵢ − yⱼ‖,     π ≥ 0,   Σⱼ πᵢⱼ = 1/n,   Σᵢ πᵢⱼ = 1/m ,

computed as in `exact_w2`, at the same cost and with the same bounds. Papers on synthetic data often
report W₁; its floor falls like n^(−1/dim) for dim ≥ 3, as for W₂.

Reference: R. Flamary et al., POT: Python Optimal Transport, JMLR 22 (2021) 78.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from samplerbench.metrics.exact_w2 import ExactW2


@dataclass(frozen=True)
class ExactW1(ExactW2):
    """W₁ of the clouds, without projections; `max_pairs` as in `ExactW2`."""

    p: ClassVar[int] = 1
