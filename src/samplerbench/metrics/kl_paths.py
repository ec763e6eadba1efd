"""KL(paths of a sampler ‖ paths of the data), in nats: an upper bound for samplers with noise.

It is at least the KL divergence of the law of the sampler's last state with noise from the law at
that level, in any dimension. `bench.paths` says how it is computed and where it is far above. The
estimate is that of `kl_law`, with r the ratio of the densities of a path.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from samplerbench.datasets.base import Dataset
from samplerbench.metrics.kl_law import KLLaw


@dataclass(frozen=True)
class KLPaths(KLLaw):
    """An upper bound of the divergence at the last level with noise, in nats."""

    needs: ClassVar[str] = "paths"

    def is_exact(self, dataset: Dataset) -> bool:
        return False
