"""The samplers, with their settings, and the grids of a race; see `bench.race`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

from samplerbench.app.config.compose import make_member, sampler_settings
from samplerbench.app.config.folders import member_files
from samplerbench.bench.best_grids import EACH_BEST
from samplerbench.bench.cache import Cache
from samplerbench.bench.course import ITS_OWN, Course, Entrant, Refusal
from samplerbench.bench.design import DESIGNED
from samplerbench.bench.fitting import fitted
from samplerbench.bench.race import Size, race, run_count
from samplerbench.bench.recommendation import Recommendation
from samplerbench.bench.sweep import Sweep
from samplerbench.core.fitted_grids import FittedGrid
from samplerbench.core.grids import Grid
from samplerbench.errors import InvalidSetting, first_line, require, require_compatible
from samplerbench.samplers.base import Sampler
from samplerbench.samplers.peers import Peer

#: Grids that need settings from the user, and designed levels, which the race makes itself.
NOT_RACED = ("custom", "hold", DESIGNED)

Samplers = Sequence[tuple[str, Sampler]]


def racing_samplers(sweep: Sweep, names: Sequence[str] | None = None) -> Samplers:
    """The samplers of a race: those of the sweep and all members, each with several settings.

    The settings are those of the sweep and of the yaml, and for samplers without noise also those
    of `Sampler.variants`. A sampler of another package takes part only if it is named. A member
    whose package is not installed is left out, or an error if it is named.

    Args:
        sweep: the sweep whose settings come first.
        names: names of members; None for all.
    """
    own = list(sweep.samplers)
    every = list(dict.fromkeys([*(name for name, _ in own), *member_files("sampler")]))
    found: list[tuple[str, Sampler]] = []
    for name in every if names is None else names:
        settings = [sampler for own_name, sampler in own if own_name == name]
        if not settings or name in member_files("sampler"):
            settings += _unless_missing(partial(sampler_settings, name), names is not None) or []
        if not settings or (names is None and isinstance(settings[0], Peer)):
            continue
        if not isinstance(settings[0], Peer) and not any(one.stochastic for one in settings):
            settings += type(settings[0]).variants()
        for one in settings:
            if not any(one == other for _, other in found):
                found.append((name, one))
    return found


def racing_grids(sweep: Sweep, names: Sequence[str] | None = None) -> dict[str, Grid]:
    """The grids of a race: first the sweep's, then the members `names` (None: all) of conf/."""
    own = own_grid(sweep)
    named = names is not None
    allowed = "other ones: levels are designed for the finalists in any case"
    require(DESIGNED not in (names or ()), "grid", DESIGNED, allowed)
    listed = [name for name in member_files("grid") if name not in NOT_RACED]
    found = dict[str, Grid]()
    for name in dict.fromkeys([own, *listed] if names is None else names):
        make = partial(make_member, "grid", name, {})
        grid = sweep.grid if name == own else _unless_missing(make, named)
        if grid is not None:
            found[name] = grid
    return found


def named_grids(grids: Sequence[str]) -> list[str] | None:
    """The names among the values of the key `grids`; None for all members."""
    return None if EACH_BEST in grids else [name for name in grids if name != DESIGNED]


def _unless_missing(make: Callable[[], Any], named: bool) -> Any:
    """A member; None if it needs a package that is not installed and the user has not named it."""
    try:
        return make()
    except InvalidSetting as error:
        if named or not error.field.endswith(".needs"):
            raise
        return None


def fitted_grids(
    sweep: Sweep, levels: Mapping[str, Grid], cache: Cache | None = None
) -> tuple[dict[str, Grid], int, list[Refusal]]:
    """Fit the grids that are recipes; return all grids, the evaluations, and the failures.

    The fit is to the first denoiser of the sweep.
    """
    ready, spent, refused = dict[str, Grid](), 0, list[Refusal]()
    for name, grid in levels.items():
        if not isinstance(grid, FittedGrid):
            ready[name] = grid
            continue
        recipe = replace(grid, denoiser=next(iter(sweep.denoisers)))
        labels = replace(sweep.labels, grid=name)
        try:
            own, fit = fitted(replace(sweep, grid=recipe, labels=labels), cache)
        except InvalidSetting as error:
            refused.append(Refusal(f"grid {name}", first_line(error)))
            continue
        ready[name] = own.grid
        spent += 0 if fit is None or fit.known else fit.evaluations
    return ready, spent, refused


def own_grid(sweep: Sweep) -> str:
    """The name of the sweep's grid."""
    return sweep.labels.grid or "own grid"


def recommended(
    sweep: Sweep,
    nfe: int,
    *,
    samplers: Samplers,
    levels: Mapping[str, Grid],
    progress: Callable[[int], AbstractContextManager[Callable[[int], None]]],
) -> Recommendation:
    """Race with the first denoiser and start of a sweep, in runs of at most `nfe` evaluations.

    The default is the first sampler on its grid. `progress` opens a bar for a number of runs.
    """
    began = time.perf_counter()
    course = Course(sweep, next(iter(sweep.denoisers)), next(iter(sweep.starts)))
    start = sweep.starts[course.start]
    require_compatible(start.why_incompatible(sweep.dataset), "start", course.start)
    ready, spent, missing = fitted_grids(sweep, levels)
    entrants, refused = course.entrants(samplers, ready, nfe)
    refused += missing
    if course.why_no_laws is not None:
        noisy = [one for one in entrants if one.sampler.stochastic]
        entrants = [one for one in entrants if not one.sampler.stochastic]
        refused += [Refusal(one.label, course.why_no_laws) for one in noisy]
    if not entrants:
        reason = refused[0].reason if refused else "there is no sampler"
        raise InvalidSetting("nfe", nfe, f"enough for a sampler on one of the grids: {reason}")
    default = _default(course, entrants, nfe)
    size = Size.of(sweep.dataset.dim)
    done = count(1)
    with progress(run_count(entrants, size)) as advance:
        verdict = race(course, entrants, size, default, lambda: advance(next(done)))
    seconds = time.perf_counter() - began
    return Recommendation(
        nfe, verdict, default, refused, len(entrants), course.evaluations + spent, seconds
    )


def _default(course: Course, entrants: Sequence[Entrant], nfe: int) -> Entrant | None:
    """The first sampler on the sweep's grid, even if it does not race; None if it cannot run."""
    sweep = course.sweep
    name = own_grid(sweep)
    for sampler in sweep.samplers[:1]:
        for one in entrants:
            if one.sampler == sampler[1] and one.grid in (name, ITS_OWN):
                return one
        ready, _, _ = fitted_grids(sweep, {name: sweep.grid})
        found, _ = course.entrants([sampler], ready, nfe)
        if found and not (found[0].sampler.stochastic and course.why_no_laws):
            return found[0]
    return None
