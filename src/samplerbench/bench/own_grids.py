"""Own grids: levels for one sampler at one number of steps, in place of the sweep's grid.

A sweep has one grid for all of its cells. `Sweep.own_grids` replaces it if the levels are chosen
for a sampler and a number of steps, for example by `design`. A cell on an own grid has another
identity than the same cell on the sweep's grid, and its row has the name of the own grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from samplerbench.core.grids import Grid, Levels
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.errors import require
from samplerbench.identity import identity
from samplerbench.samplers.base import Sampler


@dataclass(frozen=True, eq=False)
class OwnGrid:
    """The levels of one sampler at one number of steps.

    They are complete: with `final=none` they end at σ > 0 themselves (`TruncatedLevels`).
    """

    sampler: Sampler  # every equal sampler of a sweep gets these levels
    steps: int  # the number of steps
    # makes the levels, perhaps at its first call, from a model that must be trained first
    grid: Grid
    name: str  # for the column `grid` of a row
    id: str = ""  # identity of everything that determines the levels; by default that of `grid`
    # `id` without seeds and without the number of steps, so that cells of one curve have equal
    # recipes; by default that of `id`
    recipe: str = ""

    @cached_property
    def identities(self) -> tuple[str, str]:
        """(id, recipe), with their defaults."""
        own = self.id or identity(self.grid)
        return own, self.recipe or own

    def levels(self, schedule: NoiseSchedule) -> Levels:
        """The levels of a run."""
        return self.grid(schedule, self.steps)


def find_own(grids: Sequence[OwnGrid], sampler: Sampler | None, steps: int) -> OwnGrid | None:
    """The own grid of a sampler at a number of steps; None if it has none."""
    if sampler is None or sampler.holds or sampler.brings_levels:
        return None
    return next((own for own in grids if own.steps == steps and own.sampler == sampler), None)


def require_no_doubles(grids: Sequence[OwnGrid]) -> None:
    """Refuse two grids for one sampler at one number of steps, and grids that cannot be used."""
    for place, own in enumerate(grids):
        name = type(own.sampler).__name__
        uses = not (own.sampler.holds or own.sampler.brings_levels)
        require(uses, "own_grids", name, "a sampler that runs on the levels of a grid")
        allowed = f"one for each sampler and number of steps, and two are for {own.steps} steps"
        require(find_own(grids[:place], own.sampler, own.steps) is None, "own_grids", name, allowed)
