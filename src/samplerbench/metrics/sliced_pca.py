"""The sliced Wasserstein distance on the principal components of the reference.

With the mean c of the reference and the k eigenvectors B of its covariance with the largest
eigenvalues, the value is the distance `sliced` between the clouds Bᵀ(x − c), in the units of the
data: components are not scaled to equal variances. For images with many pixels, a random direction
contains mostly noise; k components contain the rough shapes, but not the finest details.

Cost: once the eigenvectors of a matrix of m² or dim² numbers, whichever is smaller; per call
n·dim·k, and the cost of `sliced` in k dimensions.

Reference: I. T. Jolliffe, Principal Component Analysis, 2nd ed., Springer 2002, Chapter 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from samplerbench.errors import require
from samplerbench.metrics.base import Distance, MeasuredBy, Metric
from samplerbench.metrics.max_sliced import Precision
from samplerbench.metrics.sliced import Sliced

#: Eigenvalues below this share of the largest one are rounding errors.
_SMALLEST = 1e-12


@dataclass(frozen=True)
class SlicedPCA(Metric):
    """The mean W_p over random directions among the principal components of the reference.

    Args:
        components: the largest number of components; fewer if the data vary in fewer directions.
        p: the order of W_p, at least 1.
        directions: the number of random directions.
        precision: the dtype of the projections.
    """

    components: int = 32
    p: float = 2.0
    directions: int = 1000
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        require(self.components >= 1, "components", self.components, "at least 1")
        self._sliced()

    def _sliced(self) -> Sliced:
        """Return the metric on the components; it checks the settings."""
        return Sliced(self.p, self.directions, self.precision)

    def prepare(self, reference: Tensor, seed: int) -> Distance:
        points = reference.double()
        centre = points.mean(dim=0)
        basis = principal_components(points - centre, self.components)
        distance = self._sliced().prepare((points - centre) @ basis, seed)
        return MeasuredBy(
            points.shape[1], lambda samples: distance.measure((samples.to(centre) - centre) @ basis)
        )


def principal_components(centred: Tensor, count: int) -> Tensor:
    """The directions `(dim, count or fewer)` in which a centred cloud `(m, dim)` varies most.

    Raises:
        InvalidSetting: the points are all equal.
    """
    m, dim = centred.shape
    wide = m < dim
    squares, vectors = torch.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)
    kept = int((squares > _SMALLEST * squares[-1]).sum())
    require(kept > 0, "reference", f"{m} equal points", "points that differ; see metric=sliced")
    chosen = slice(-min(kept, count), None)
    basis = vectors[:, chosen].flip(1)
    if wide:
        basis = centred.T @ (basis / squares[chosen].flip(0).sqrt())
    # the sign of an eigenvector is arbitrary; make its largest entry positive
    signs = basis.gather(0, basis.abs().argmax(dim=0, keepdim=True)).sign()
    signed: Tensor = basis * signs
    return signed
