"""What Langevin samplers at one noise level share: they ask for a score, and they stay.

Chains of them have a stationary law near q, the law at the one level of a hold grid, and follow no
path: they have no order of convergence to it, and their last state is a sample of that level.
"""

from __future__ import annotations

from typing import ClassVar

from samplerbench.core.models import Score
from samplerbench.samplers.base import Sampler


class Langevin(Sampler):
    """A sampler whose chains stay at the one level of a hold grid, and always draw noise."""

    order: ClassVar[int | None] = None
    needs: ClassVar[type[Score]] = Score  # type: ignore[type-abstract]
    needs_signal: ClassVar[bool] = True
    holds: ClassVar[bool] = True

    @property
    def stochastic(self) -> bool:
        return True

    @property
    def ends_at_data(self) -> bool:
        return False
