"""`grids=each-best`, or a list of grids: every sampler runs on the grid that is best for it.

At equal evaluations a comparison of samplers on one grid is mostly a comparison of how well the
grid suits them. Here each sampler with its settings gets, at each number of steps, the best of many
grids: all members of conf/grid/, or a list of them. With each-best, or with `designed` in the
list, levels designed for the sampler compete too, if it draws no noise. The choice is made as in a
race, see `race`, on training starts, which no cell of a sweep uses; so the values of the cells have
no selection bias. It uses the first denoiser and the first start of the sweep.

A choice is found by its identity: the candidates, the law, the path, the denoiser, the start, the
seed, and the software and the machine that determine its bits.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch

from samplerbench.bench.course import Course, Entrant
from samplerbench.bench.designing import AtTimes, at_times
from samplerbench.bench.fitting import Archives
from samplerbench.bench.own_grids import OwnGrid
from samplerbench.bench.race import LAWS, PATHS, Size, halve
from samplerbench.bench.sweep import Sweep
from samplerbench.core.grids import Grid
from samplerbench.core.starts import for_samplers
from samplerbench.errors import InvalidSetting, kind_and_line
from samplerbench.identity import arithmetic, identity
from samplerbench.samplers.base import Sampler

#: The values of the key `grids`, besides null.
EACH_BEST = "each-best"
#: The file of the choices in the folder of a run, and of one choice in a cache.
CHOICES = "grids.json"


@dataclass(frozen=True)
class Best:
    """The grid that is best for a sampler at a number of steps."""

    sampler: str
    place: int  # the index of the sampler in the sweep
    steps: int  # the number of steps
    grid: str  # the name of the chosen grid
    choices: int  # the number of grids that it was chosen from
    evaluations: int  # of the denoiser for the choice: calls times states
    levels: AtTimes  # the levels of the grid
    id: str  # identity of the choice
    recipe: str  # `id` without seeds and the number of steps

    @property
    def line(self) -> str:
        """The choice in words."""
        return f"{self.sampler}, N={self.steps}: {self.grid}, the best of {self.choices} grids"


def chosen(
    sweep: Sweep,
    candidates: Mapping[str, Grid],
    cache: Archives | None = None,
    on_choice: Callable[[Best], None] = lambda best: None,
    *,
    designs: bool = True,
    on_none: Callable[[str], None] = lambda line: None,
) -> list[Best]:
    """The best of the fitted candidates for every sampler at each of its numbers of steps.

    Left out are samplers that stay at one level or bring their levels, and samplers that draw noise
    if their law cannot be compared with data: see `without_choice`. A sampler that runs on no
    candidate, or whose code fails, keeps the grid of the sweep, and `on_none` gets a line.

    Args:
        sweep: a learned denoiser must be trained.
        candidates: grids by name.
        designs: whether levels are designed too.
    """
    course, found = _course(sweep), []
    for place, steps in _places(sweep):
        best = _recalled(course, place, steps, candidates, cache, designs)
        if best is None:
            name = sweep.samplers[place][0]
            try:
                best = _best(course, name, place, steps, candidates, designs)
            except Exception as error:  # a defect of one sampler must not stop the others
                on_none(f"no grid is chosen for {name}, N={steps}: {kind_and_line(error)}")
                continue
            if cache is not None:
                cache.keep_archive(best.id, {CHOICES: written([best])})
        on_choice(best)
        found.append(best)
    return found


def require_choices(sweep: Sweep, candidates: Mapping[str, Grid]) -> None:
    """Refuse a denoiser of one level, and a sampler without a grid to choose, before any work."""
    course = _course(sweep)
    for place, steps in _places(sweep):
        _entrants(course, *sweep.samplers[place], steps, candidates)


def _course(sweep: Sweep) -> Course:
    """Runs of the first denoiser from the first start for samplers that move."""
    starts = for_samplers(sweep.starts, holds=False)
    return Course(sweep, next(iter(sweep.denoisers)), next(iter(starts)))


def without_choice(sweep: Sweep) -> str:
    """A line about samplers with noise that keep the grid of the sweep; empty if there are none."""
    reason = _course(sweep).why_no_laws
    noisy = [name for name, sampler in sweep.samplers if sampler.stochastic]
    if reason is None or not noisy:
        return ""
    return f"samplers with noise keep the grid {sweep.labels.grid or 'of the sweep'}: {reason}"


def _places(sweep: Sweep) -> list[tuple[int, int]]:
    """(place, steps) of the samplers that get a grid."""
    no_laws = _course(sweep).why_no_laws is not None
    return [
        (place, steps)
        for place, (_, sampler) in enumerate(sweep.samplers)
        if not (sampler.holds or sampler.brings_levels or sampler.adaptive)
        and not (sampler.stochastic and no_laws)
        for steps in sweep.steps_of(sampler)
    ]


def _entrants(
    course: Course, name: str, sampler: Sampler, steps: int, candidates: Mapping[str, Grid]
) -> list[Entrant]:
    """A sampler on each of the candidates where it can run."""
    found = [course.entrant(name, sampler, grid, candidates[grid], steps) for grid in candidates]
    entrants = [one for one in found if isinstance(one, Entrant)]
    if not entrants:
        reason = next(one.reason for one in found if not isinstance(one, Entrant))
        raise InvalidSetting("grids", EACH_BEST, f"null here: {name} runs on none: {reason}")
    return entrants


def with_best(sweep: Sweep, choices: Sequence[Best]) -> Sweep:
    """The sweep with these grids as own grids of its samplers."""
    own = [
        OwnGrid(sweep.samplers[one.place][1], one.steps, one.levels, one.grid, one.id, one.recipe)
        for one in choices
    ]
    return replace(sweep, own_grids=tuple(own))


def written(choices: Sequence[Best]) -> bytes:
    """The content of a file of choices."""
    return json.dumps([asdict(one) for one in choices], indent=1).encode()


def read(content: bytes) -> list[Best]:
    """The choices in a file."""
    return [_one(values) for values in json.loads(content)]


def _one(values: dict[str, Any]) -> Best:
    levels = values.pop("levels")
    return Best(**values, levels=AtTimes(tuple(map(float, levels["times"])), bool(levels["plain"])))


def _identities(
    course: Course, sampler: Sampler, steps: int, candidates: Mapping[str, Grid], designs: bool
) -> tuple[str, str]:
    sweep = course.sweep
    origin = sweep.origin_of(course.denoiser)
    recipe = {
        "choice": EACH_BEST,
        "candidates": [[name, identity(grid)] for name, grid in candidates.items()],
        "law": identity(sweep.dataset),
        "schedule": sweep.schedule,
        "denoiser": [origin.kind, origin.recipe],
        "start": sweep.starts[course.start],
        "final": sweep.final,
        "size": _size(sweep, designs),
    }
    more = {
        "sampler": sampler,
        "steps": steps,
        "denoiser_id": origin.id,
        "seed": sweep.seed,
        "dtype": str(sweep.dtype),
        "device": sweep.device.type,
        "block": sweep.block,
        "data_seed": sweep.data_seed,
        "n_reference": len(sweep.reference),
        "arithmetic": arithmetic(),
        "threads": torch.get_num_threads(),
        "versions": sweep.versions,
    }
    return identity({**recipe, **more}), identity(recipe)


def _size(sweep: Sweep, designs: bool) -> Size:
    size = Size.of(sweep.dataset.dim)
    return replace(size, finalists=2, noisy_finalists=1, designs=int(designs))


def _recalled(
    course: Course,
    place: int,
    steps: int,
    candidates: Mapping[str, Grid],
    cache: Archives | None,
    designs: bool,
) -> Best | None:
    name, sampler = course.sweep.samplers[place]
    archive, recipe = _identities(course, sampler, steps, candidates, designs)
    check = partial(_check, archive)
    files = None if cache is None else cache.recall_archive(archive, check)
    if files is None:
        return None
    (best,) = read(files[CHOICES])
    return replace(best, sampler=name, place=place, recipe=recipe)


def _check(archive: str, files: Mapping[str, bytes]) -> None:
    (best,) = read(files[CHOICES])
    if best.id != archive:
        raise ValueError("it is another choice")


def _best(
    course: Course, name: str, place: int, steps: int, candidates: Mapping[str, Grid], designs: bool
) -> Best:
    sweep, before = course.sweep, course.evaluations
    sampler = sweep.samplers[place][1]
    entrants = _entrants(course, name, sampler, steps, candidates)
    kind = LAWS if sampler.stochastic else PATHS
    size = _size(sweep, designs)
    track = halve(course, kind, entrants, size)
    designed = int(kind == PATHS and size.designs > 0 and not track.undesigned)
    best, spent = track.finalists[0].entrant, course.evaluations - before
    own, recipe = _identities(course, sampler, steps, candidates, designs)
    levels, choices = at_times(best.levels), len(entrants) + designed
    return Best(name, place, steps, best.grid, choices, spent, levels, own, recipe)
