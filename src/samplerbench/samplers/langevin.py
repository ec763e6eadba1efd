"""The base class of Langevin samplers at one noise level.

Their chains have a stationary law near q, the law at the level of the hold grid. They follow no
path, so they have no order of convergence, and the last state is a sample at that level.
"""

from __future__ import annotations

from typing import ClassVar

from samplerbench.core.models import Score
from samplerbench.samplers.base import Sampler


class Langevin(Sampler):
    """A stochastic sampler that needs a score and stays at the level of a hold grid."""

    order: ClassVar[int | None] = None
    ends_at_data: ClassVar[bool] = False
    stochastic: ClassVar[bool] = True
    needs: ClassVar[type[Score]] = Score  # type: ignore[type-abstract]
    needs_signal: ClassVar[bool] = True
    holds: ClassVar[bool] = True
