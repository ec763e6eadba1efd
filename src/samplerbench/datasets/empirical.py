"""The empirical law of a finite set of points: all points have the same probability.

    q = 1/K·Σ_k δ(x − x_k),        q_t = 1/K·Σ_k N(α·x_k, σ²·I),

    x̂₀(x) = Σ_k r_k(x)·x_k,        r_k(x) ∝ exp(−‖x − α·x_k‖²/(2σ²)).

x̂₀ is the *ideal denoiser*: it minimises the denoising loss on this set. A sampler that follows it
exactly returns the points themselves: it memorises. Its distance to *other* draws of the law of the
points is then a generalisation gap, not a fault of the sampler.

Karras, Aittala, Aila, Laine, "Elucidating the design space of diffusion-based generative models",
NeurIPS 2022 (arXiv 2206.00364), Appendix B.3.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

from samplerbench.core.models import Denoiser, IsotropicMixtureOracle
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.datasets.base import Dataset
from samplerbench.errors import require


@dataclass(frozen=True)
class Empirical(Dataset):
    """The uniform law on given points, in the units of the points.

    Draws are independent, hence with replacement, so draws for different purposes share points. The
    parts of `divided.Divided` do not.

    Args:
        rows: finite points, shape (K, dim); a copy is kept as float64.
        digest: represents the points in an identity; computed here.
    """

    rows: InitVar[Tensor]
    digest: str = field(init=False)

    def __post_init__(self, rows: Tensor) -> None:
        shape = tuple(rows.shape)
        allowed = "of shape (K, dim), neither of them 0"
        require(len(shape) == 2 and 0 not in shape, "rows", f"points of shape {shape}", allowed)
        points = rows.detach().cpu().double().clone()
        bad = int((~points.isfinite()).any(-1).sum())
        require(bad == 0, "rows", f"{bad} points with NaN or infinite entries", "finite")
        object.__setattr__(self, "_points", points)
        object.__setattr__(self, "digest", digest(points))

    @property
    def points(self) -> Tensor:
        """The points, shape (K, dim), float64; do not write to them."""
        points: Tensor = self.__dict__["_points"]  # not a field: the identity has the digest
        return points

    @property
    def event_shape(self) -> tuple[int, ...]:
        return (self.points.shape[1],)

    def sample(self, count: int, generator: np.random.Generator) -> Tensor:
        """Points drawn with replacement, shape (count, dim), float64."""
        return self.points[torch.from_numpy(generator.integers(len(self.points), size=count))]

    def known_points(self) -> Tensor:
        return self.points

    def oracle(self, schedule: NoiseSchedule) -> Denoiser:
        """The ideal denoiser; exact, in bounded memory, K exponentials per state."""
        ones = torch.ones(len(self.points), dtype=torch.float64)
        return IsotropicMixtureOracle(schedule, ones, self.points, 0 * ones)


def digest(points: Tensor) -> str:
    """A hash of the numbers and their shape, 32 hexadecimal digits."""
    array = np.ascontiguousarray(points.numpy(), dtype="<f8")
    state = blake2b(repr(array.shape).encode(), digest_size=16)
    state.update(array.tobytes())
    return state.hexdigest()
