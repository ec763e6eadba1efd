"""The designed grids of a sweep: one for each of its samplers and numbers of steps.

`DesignedGrid` is a recipe, the grid of a sweep before its levels are known. `designed` replaces it
by the `OwnGrid` of each sampler once the denoiser exists. A design is found by its identity, in a
cache and in the folder of a run, so no levels are computed twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from samplerbench.bench.cell import Origin, sampler_name
from samplerbench.bench.criteria import CRITERIA, Criterion, Problem, Targets
from samplerbench.bench.design import (
    DESIGNED,
    HELD_OUT,
    LEAST_STEPS,
    NO_FREE_LEVEL,
    Value,
    design,
    gain_of,
    ratios,
    why_not_designed,
)
from samplerbench.bench.fitting import Archives, model_of
from samplerbench.bench.own_grids import OwnGrid, find_own
from samplerbench.core.coupling import BrownianNoise
from samplerbench.core.grids import Levels, TruncatedLevels, karras, log_snr, to_data
from samplerbench.core.models import Denoiser
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.core.starts import Start
from samplerbench.datasets.base import Dataset
from samplerbench.errors import InvalidSetting, require
from samplerbench.identity import arithmetic, identity, settings_text
from samplerbench.samplers.base import Sampler, final_state

if TYPE_CHECKING:
    from samplerbench.bench.sweep import Sweep

#: The designs of a run in its folder, and the file of one design in a cache.
DESIGNS, DESIGN = "designs.json", "design.json"


@dataclass(frozen=True, kw_only=True)
class DesignedGrid:
    """A recipe: `design` finds levels for each sampler at each number of steps.

    Until then it is Karras's grid with the same ends, so that a job can be checked before it trains
    its denoiser.

    Args:
        criterion: paired, kl or spectrum; see `criteria`.
        denoiser: the name of the denoiser: oracle, or another one of the job. None: the oracle if
            the data have one, otherwise the first denoiser of the job.
        start: the name of one of the job's starts; None is the first for samplers that move.
        noise_min: κ_min of the standard grids, as in `grids.karras`.
        noise_max: κ_max of all grids, as in `grids.karras`.
        seed: the seed of the starts; the seed of the job changes no level.
        budget: the largest number of candidate grids of a design; None is `design.usual_budget`.
        paths: the number of training starts; None is that of `design.usual_starts`.
        choice: the number of starts for the choice among candidates; None as for paths.
        held_out: the number of starts for the result.
    """

    criterion: str = "paired"
    denoiser: str | None = None
    start: str | None = None
    noise_min: float = 0.02
    noise_max: float | None = None
    seed: int = 0
    budget: int | None = None
    paths: int | None = None
    choice: int | None = None
    held_out: int = HELD_OUT

    def __post_init__(self) -> None:
        allowed = f"one of {', '.join(CRITERIA)}"
        require(self.criterion in CRITERIA, "criterion", self.criterion, allowed)
        for name, least in (("budget", 10), ("paths", 8), ("choice", 8), ("held_out", 100)):
            number = getattr(self, name)
            require(number is None or number >= least, name, number, f"at least {least}")

    @property
    def base(self) -> partial[Levels]:
        """The standard grid with the ends of the designed levels."""
        return partial(karras, noise_min=self.noise_min, noise_max=self.noise_max, rho=5.0)

    def __call__(self, schedule: NoiseSchedule, steps: int) -> Levels:
        return self.base(schedule, steps)


@dataclass(frozen=True)
class AtTimes:
    """The levels at given times of one path."""

    times: tuple[float, ...]  # decreasing, the first N or N + 1 levels
    plain: bool = False  # whether the last time is the end (final=none); otherwise the data follow

    def __call__(self, schedule: NoiseSchedule, steps: int) -> Levels:
        found = len(self.times) - self.plain
        require(steps == found, "steps", steps, f"{found}, for which the levels were designed")
        times = torch.tensor(self.times, dtype=torch.float64)
        return TruncatedLevels(times, *schedule(times)) if self.plain else to_data(schedule, times)


def at_times(levels: Levels) -> AtTimes:
    """The grid of these levels."""
    plain = isinstance(levels, TruncatedLevels)
    return AtTimes(tuple(levels.t.tolist())[: None if plain else -1], plain)


@dataclass(frozen=True)
class Designed:
    """A design of a sweep, as it is stored and shown; see `design.Design` for the values."""

    sampler: str
    settings: str  # of the sampler, JSON
    steps: int  # the number of steps
    nfe: int  # evaluations of a run
    denoiser: str  # the name of the model
    start: str  # the name of the start
    criterion: str
    unit: str  # of the values
    grid: str  # designed, or the best standard grid if the design is not better
    standard: str  # the best standard grid
    standard_value: float  # of the standard grid, held out
    designed_value: float  # of the designed levels, held out
    training: float  # of the designed levels, on the training starts
    gain: float  # standard_value/designed_value
    lower: float  # end of its 95 % interval
    upper: float  # the other end
    candidates: int  # grids that were tried
    evaluations: int  # of the denoiser; a call for n states counts n times
    ratios: tuple[float, ...]  # κ of the result
    levels: AtTimes  # of the result
    designed_levels: AtTimes  # designed, whether better or not
    standard_levels: AtTimes  # of the standard grid
    design_id: str  # identity of everything that determines the levels

    @property
    def better(self) -> bool:
        """Whether the designed levels are the result."""
        return self.grid == DESIGNED

    @property
    def verdict(self) -> str:
        """The result in words."""
        if self.better:
            return DESIGNED
        worse = self.upper < 1
        return f"{self.grid}: the design is {'worse' if worse else 'not shown to be better'}"

    @property
    def name(self) -> str:
        """The sampler with its settings, and its steps."""
        return f"{sampler_name(self.sampler, self.settings)}, N={self.steps}"


def to_json(design: Designed) -> dict[str, object]:
    """The design as plain data."""
    return asdict(design)


def from_json(record: Mapping[str, object]) -> Designed:
    """A design from the data that `to_json` made."""
    values = dict(record)
    for key in ("levels", "designed_levels", "standard_levels"):
        inner = values[key]
        assert isinstance(inner, Mapping)
        values[key] = AtTimes(tuple(map(float, inner["times"])), bool(inner["plain"]))
    values["ratios"] = tuple(map(float, values["ratios"]))  # type: ignore[call-overload]
    return Designed(**values)  # type: ignore[arg-type]


#: The designs of this process, by their identity.
_KNOWN: dict[str, Designed] = {}


def designed(
    sweep: Sweep,
    cache: Archives | None = None,
    refresh: bool = False,
    on_design: Callable[[Designed], None] = lambda design: None,
) -> tuple[Sweep, list[Designed]]:
    """The sweep with its recipe replaced by designed levels, and the designs.

    A sweep without a recipe is returned unchanged.

    Args:
        sweep: a learned denoiser must be trained.
        refresh: whether to ignore known designs.

    Raises:
        InvalidSetting: nothing can be designed for one of the samplers.
    """
    recipe = sweep.grid
    if not isinstance(recipe, DesignedGrid):
        return sweep, []
    require_designs(sweep)
    targets, done = Targets(), []
    for name, sampler, steps in _places(sweep):
        done.append(one_design(sweep, recipe, name, sampler, steps, targets, cache, refresh))
        on_design(done[-1])
    return with_designs(sweep, done), done


def with_designs(sweep: Sweep, designs: Sequence[Designed]) -> Sweep:
    """The sweep with its recipe replaced by earlier designs; refused if a sampler has none."""
    recipe = sweep.grid
    assert isinstance(recipe, DesignedGrid)
    origin = _model(sweep, recipe)[2]
    shared = identity([recipe, origin.kind, origin.recipe, _start(sweep, recipe)[1]])
    known = {(one.sampler, one.settings, one.steps): one for one in designs}
    own: list[OwnGrid] = []
    for name, sampler, steps in _places(sweep):
        found = known.get((name, settings_text(sampler), steps))
        if found is None:
            raise InvalidSetting("grid", DESIGNED, f"with a design for {name} at {steps} steps")
        grid = OwnGrid(sampler, steps, found.levels, found.grid, recipe=shared)
        if find_own(own, sampler, steps) is None:  # a sampler may have two names
            own.append(grid)
    labels = replace(sweep.labels, grid="karras")  # of cells at other numbers of steps
    return replace(sweep, grid=recipe.base, own_grids=own, labels=labels)


def require_each_designed(sweep: Sweep) -> None:
    """Refuse samplers without levels to design, which a job runs without a design."""
    for name, sampler in sweep.samplers:
        reason = why_not_designed(sampler)
        if reason is not None:
            raise InvalidSetting("sampler", sampler_name(name, settings_text(sampler)), reason)


def require_designs(sweep: Sweep) -> None:
    """Refuse a recipe that cannot be followed for one of the sweep's samplers, before any work."""
    recipe = sweep.grid
    if not isinstance(recipe, DesignedGrid):
        return
    measure, (_, model, _) = CRITERIA[recipe.criterion], _model(sweep, recipe)
    start = _start(sweep, recipe)[1]
    for name, sampler, steps in _places(sweep):
        levels = sweep.levels(steps)
        problem = Problem(sampler, model, sweep.dataset, start, levels)
        named = sampler_name(name, settings_text(sampler))
        if steps < LEAST_STEPS:
            plain = sweep.final == "none"
            cost = sampler.least_evaluations(LEAST_STEPS, plain=plain)
            least = cost if sweep.nfe else LEAST_STEPS
            allowed = f"at least {least} for {named} with grid=designed: {NO_FREE_LEVEL}"
            key, bounds = ("nfe", sweep.nfe) if sweep.nfe else ("steps", sweep.steps)
            raise InvalidSetting(key, min(bounds), allowed)
        for key, value, reason in (
            ("sampler", named, why_not_designed(sampler)),
            ("sampler", named, sampler.why_incompatible(model, levels)),
            ("grid.criterion", recipe.criterion, measure.why_incompatible(problem)),
        ):
            if reason is not None:
                allowed = f"another one for {named}" if key != "sampler" else "another one"
                raise InvalidSetting(key, value, f"{allowed} with grid=designed: {reason}")


def one_design(
    sweep: Sweep,
    recipe: DesignedGrid,
    name: str,
    sampler: Sampler,
    steps: int,
    targets: Targets,
    cache: Archives | None = None,
    refresh: bool = False,
) -> Designed:
    """The design for one sampler of a sweep at one number of steps.

    Args:
        targets: converged runs, shared with other designs.
        refresh: whether to ignore a known design.

    Raises:
        InvalidSetting: as by `design`.
    """
    on, model, origin = _model(sweep, recipe)
    start_name, start = _start(sweep, recipe)
    design_id = identity(
        {
            "recipe": recipe,
            "sampler": sampler,
            "steps": steps,
            "path": sweep.schedule,
            "law": sweep.dataset,
            "start": start,
            "denoiser": [origin.kind, origin.id, origin.recipe],
            "final": sweep.final,
            "dtype": str(sweep.dtype),
            "device": sweep.device.type,
            "arithmetic": arithmetic(),
            "threads": torch.get_num_threads(),
            "versions": sweep.versions,
        }
    )
    known = None if refresh else _KNOWN.get(design_id) or _recalled(design_id, cache)
    if known is not None:  # under other names, perhaps
        return replace(known, sampler=name, denoiser=on, start=start_name)
    found = design(
        sampler,
        steps,
        model,
        start,
        sweep.dataset,
        recipe.base,
        name="karras",
        criterion=recipe.criterion,
        seed=recipe.seed,
        budget=recipe.budget,
        paths=recipe.paths,
        choice=recipe.choice,
        held_out=recipe.held_out,
        final=sweep.final,
        dtype=sweep.dtype,
        device=sweep.device,
        targets=targets,
    )
    plain = sweep.final == "none"
    nfe = (sampler.plain_evaluations if plain else sampler.evaluations)(steps)
    done = Designed(
        sampler=name,
        settings=settings_text(sampler),
        steps=steps,
        nfe=nfe or steps,
        denoiser=on,
        start=start_name,
        criterion=recipe.criterion,
        unit=CRITERIA[recipe.criterion].unit,
        grid=found.grid,
        standard=found.standard.grid,
        standard_value=found.standard.value,
        designed_value=found.designed.value,
        training=found.training,
        gain=found.gain.ratio,
        lower=found.gain.lower,
        upper=found.gain.upper,
        candidates=found.candidates,
        evaluations=found.evaluations,
        ratios=tuple(ratios(found.levels)),
        levels=at_times(found.levels),
        designed_levels=at_times(found.designed.levels),
        standard_levels=at_times(found.standard.levels),
        design_id=design_id,
    )
    _KNOWN[design_id] = done
    if cache is not None:
        cache.keep_archive(design_id, {DESIGN: json.dumps(to_json(done)).encode()})
    return done


def _recalled(design_id: str, cache: Archives | None) -> Designed | None:
    def check(files: Mapping[str, bytes]) -> None:
        found = from_json(json.loads(files[DESIGN])).design_id
        if found != design_id:
            raise ValueError("it contains another design")

    files = None if cache is None else cache.recall_archive(design_id, check)
    return None if files is None else from_json(json.loads(files[DESIGN]))


def _places(sweep: Sweep) -> list[tuple[str, Sampler, int]]:
    """The samplers of a sweep that run on the levels of a grid, with each number of steps."""
    return [
        (name, sampler, steps)
        for name, sampler in sweep.samplers
        if not (sampler.holds or sampler.brings_levels)
        for steps in sweep.steps_of(sampler)
    ]


def _model(sweep: Sweep, recipe: DesignedGrid) -> tuple[str, Denoiser, Origin]:
    name, model, origin = model_of(sweep, recipe.denoiser, only_denoisers=True)
    assert isinstance(model, Denoiser)
    return name, model, origin


def _start(sweep: Sweep, recipe: DesignedGrid) -> tuple[str, Start]:
    """The name and the law of the start that a recipe names."""
    moving = {name: start for name, start in sweep.starts.items() if not start.held}
    wanted = recipe.start or next(iter(moving), "")
    allowed = f"null, or one of {', '.join(moving) or 'none: these are for chains'}"
    require(wanted in moving, "grid.start", recipe.start, allowed)
    return wanted, moving[wanted]


@dataclass(frozen=True)
class Carried:
    """A design and the standard grid on a denoiser, data or sampler it was not made for."""

    design: str  # the sampler with its settings, and its steps
    to: str  # the name of the other denoiser, data set or sampler
    standard: str  # the name of the standard grid
    standard_value: float  # the value of the standard grid
    designed_value: float  # the value of the designed levels
    gain: float  # standard_value/designed_value
    lower: float  # end of its 95 % interval
    upper: float  # the other end
    unit: str  # of the values

    @property
    def verdict(self) -> str:
        """Better, worse, or not distinguishable."""
        if self.lower > 1:
            return "better"
        return "WORSE than the standard grid" if self.upper < 1 else "not distinguishable"


def require_carried(sweep: Sweep, laws: Mapping[str, Dataset], eta: float | None) -> None:
    """Refuse places where `carried` cannot run designs, before any work."""
    for name, law in laws.items():
        fits = law.dim == sweep.dataset.dim and law.oracle(sweep.schedule) is not None
        allowed = f"data with an exact denoiser and {sweep.dataset.dim} dimensions"
        require(fits, "carry", name, allowed)
    if eta is None:
        return
    try:
        noisy = [_with_noise(sampler, eta) for _, sampler in sweep.samplers]
    except InvalidSetting as error:
        raise InvalidSetting("eta", eta, error.allowed) from error
    allowed = "left out: no sampler here has an η of 0, as sampler=ddim sampler.ddim.eta=0 has"
    require(any(one is not None for one in noisy), "eta", eta, allowed)
    require(eta > 0, "eta", eta, "above 0: it is for runs with noise")


def carried(
    sweep: Sweep,
    recipe: DesignedGrid,
    designs: Sequence[Designed],
    laws: Mapping[str, Dataset],
    eta: float | None = None,
) -> list[Carried]:
    """Compare each design with the standard grid on other denoisers, data, samplers and with noise.

    A design that was not shown to be better where it was made is left out, since no job runs on it.
    The criterion is that of the design, or paired if that is not possible.

    Args:
        sweep: as for `designed`, with its recipe.
        laws: other data sets with an exact denoiser, by name; see `require_carried`.
        eta: η of runs with noise, for a sampler that has an η and couples; None is `NOISY_ETA`.
    """
    eta = NOISY_ETA if eta is None else eta
    (on, model, _) = _model(sweep, recipe)
    start, targets = _start(sweep, recipe)[1], dict[str, Targets]()
    samplers = {(n, settings_text(sampler)): sampler for n, sampler in sweep.samplers}
    found = []
    for done in (one for one in designs if one.better):
        own = samplers[done.sampler, done.settings]
        pair = [
            grid(sweep.schedule, done.steps)
            for grid in (done.designed_levels, done.standard_levels)
        ]

        def problem(sampler: Sampler, denoiser: Denoiser, law: Dataset, key: str) -> Problem:
            shared = targets.setdefault(key, Targets())
            with_shared = (recipe.seed, sweep.dtype, sweep.device, shared)
            return Problem(sampler, denoiser, law, start, pair[1], *with_shared)  # noqa: B023

        places = [
            (name, problem(own, other, sweep.dataset, name))
            for name, other in sweep.denoisers.items()
            if isinstance(other, Denoiser) and name != on
        ]
        for name, law in laws.items():
            exact = law.oracle(sweep.schedule)
            assert exact is not None  # see require_carried
            places.append((name, problem(own, exact.to(sweep.device), law, name)))
        for (name, settings), other in samplers.items():
            if other != own:
                text = sampler_name(name, settings)
                places.append((text, problem(other, model, sweep.dataset, on)))
        for name, at in places:
            measure = _measure(recipe, at)
            if measure is None or at.sampler.why_incompatible(at.model, pair[1]):
                continue
            sample = measure.sample(at, "carried", recipe.held_out)
            found.append(_compared(done, name, pair, sample.losses(pair), measure))
        noisy = _with_noise(own, eta)
        if noisy is not None and recipe.criterion == "paired" and sweep.final == "denoise":
            at = problem(noisy, model, sweep.dataset, on)
            losses = coupled_losses(at, pair, recipe.held_out)
            found.append(_compared(done, f"η={eta:g}", pair, losses, CRITERIA["paired"]))
    return found


def _measure(recipe: DesignedGrid, at: Problem) -> Criterion | None:
    """The recipe's criterion if it is possible, else paired if that is possible, else None."""
    for name in (recipe.criterion, "paired"):
        if CRITERIA[name].why_incompatible(at) is None:
            return CRITERIA[name]
    return None


def _with_noise(sampler: Sampler, eta: float) -> Sampler | None:
    """The sampler with another η; None if it has no η, or if its noise cannot be coupled."""
    if not sampler.couples or getattr(sampler, "eta", None) != 0:
        return None
    try:
        replace(sampler, eta=NOISY_ETA)  # type: ignore[type-var]  # samplers are dataclasses
    except InvalidSetting:  # such as Picard's iteration with Euler's rule
        return None
    return replace(sampler, eta=eta)  # type: ignore[type-var]


#: The η of runs with noise on which designs are tried.
NOISY_ETA = 0.5
#: Steps of the converged run of a sampler that draws noise.
_NOISY_STEPS = 400


@torch.no_grad()
def coupled_losses(problem: Problem, grids: Sequence[Levels], count: int) -> Tensor:
    """Squared distances to a run of many steps on the same Brownian paths.

    Shape (grids, count), in units of the data's variance.
    """
    x, model = problem.draw("carried", count), problem.model

    def run(levels: Levels) -> Tensor:
        noise = BrownianNoise(("design", problem.seed), levels)
        return final_state(problem.sampler, model, x, levels, noise)

    rows = problem.levels.rows
    kappa = (rows[-2].sigma / rows[-2].alpha / 10, rows[0].sigma / max(rows[0].alpha, 1e-3))
    low = max(kappa[0], model.schedule.noise_range[0])
    fine = log_snr(model.schedule, _NOISY_STEPS, noise_min=low, noise_max=kappa[1])
    end = run(fine)
    losses = [((run(one) - end) / problem.scale).square().sum(-1) for one in grids]
    return torch.stack(losses).double().cpu()


def _compared(
    design: Designed, to: str, pair: Sequence[Levels], losses: Tensor, measure: Criterion
) -> Carried:
    own, other = (
        Value(name, levels, loss, measure.value(float(loss.mean())))
        for name, levels, loss in zip((DESIGNED, design.standard), pair, losses, strict=True)
    )
    gain = gain_of(own, other, measure)
    return Carried(
        design.name,
        to,
        design.standard,
        other.value,
        own.value,
        gain.ratio,
        gain.lower,
        gain.upper,
        measure.unit,
    )
