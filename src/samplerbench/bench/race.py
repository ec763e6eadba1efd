"""A race: find the best sampler and grid for a number of evaluations.

There are two tracks: samplers without noise are compared by their paths, samplers with noise by
their laws; see `course`. A sampler with noise wins only if, on the training starts, its law is
significantly nearer to the data than that of the best sampler without noise.

*Successive halving* (Jamieson and Talwalkar, "Non-stochastic best arm identification and
hyperparameter optimization", AISTATS 2016, arXiv 1502.07943). All entrants run from a few states.
The better half stays and runs from as many new states as it had, and so on, until few are left. So
most of the work is spent on entrants that are hard to tell apart. Entrants with equal outputs are
one entrant with several names.

*Designed levels.* For the best samplers of the track of paths, levels are designed, see `design`,
which join the finalists, on the same training starts.

*Choice and measurement.* The choice uses training starts. The finalists are then measured from
held-out starts and against other data, so the reported numbers have no selection bias. Two means of
paths are compared by their ratio, with the paired values a_i and b_i of n starts:

    ln(ā/b̄) ± t·sd(a_i/ā − b_i/b̄)/√n,

and distances of laws by Student's interval over batches with common starts and data. Holm's
correction includes all comparisons with the winner.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from samplerbench.bench.course import BATCHES, CHOICE, MANY, MEASUREMENT, Course, Entrant, Refusal
from samplerbench.bench.design import DESIGNED
from samplerbench.bench.statistics import Estimate, holm, t_interval
from samplerbench.errors import InvalidSetting, first_line
from samplerbench.samplers.base import Sampler

Array = NDArray[np.float64]

#: The tracks.
PATHS, LAWS = "paths", "laws"
#: The exact distance of laws on a line, which replaces `LAWS` for the finalists.
EXACT = "exact laws"
#: Exact distances that differ by less than this, in deviations of the data, are equal.
EQUAL = 1e-5
#: Outputs that differ by less than this, in deviations of the data, are the same.
SAME = 1e-5
LEVEL = 0.95


@dataclass(frozen=True)
class Size:
    """The numbers of states, finalists and designs of a race."""

    first: int = 128  # states of the first round, on the track of paths
    batch: int = 32  # states in each batch of the first round, on the track of laws
    finalists: int = 8  # on the track of paths
    noisy_finalists: int = 4  # on the track of laws
    designs: int = 4  # samplers for which levels are designed
    measured: int = 4096  # states of the measurement, on the track of paths
    measured_batch: int = 512  # states in each batch of the measurement, on the track of laws

    def in_batch(self, round_: int) -> int:
        """The states in each batch of a round on the track of laws; each round has new ones."""
        most = max(self.batch, self.measured_batch // 4)
        return min(self.batch << round_, most)

    @classmethod
    def of(cls, dim: int) -> Size:
        """A size that takes minutes for images, and seconds otherwise."""
        return cls() if dim <= MANY else cls(16, 4, 6, 3, 2, 512, 32)


@dataclass
class Standing:
    """The state of an entrant in its track."""

    entrant: Entrant  # the entrant
    values: Array  # distances: one per start (paths), or one per batch of the last round (laws)
    rounds: int = 1  # the number of rounds in which it ran
    same: list[str] = field(default_factory=list)  # the labels of entrants with the same outputs
    # p-value of its difference from the leader when it was dropped; NaN for finalists
    p_value: float = math.nan

    @property
    def mean(self) -> float:
        """The mean of the values, infinite for runs that diverged."""
        return float(self.values.mean())


@dataclass(frozen=True)
class Track:
    """Entrants that are compared by one distance, from the best to the worst."""

    kind: str  # `PATHS` or `LAWS`
    finalists: Sequence[Standing]  # the remaining entrants, the best one first
    dropped: Sequence[Standing]  # the dropped entrants, those dropped last first
    undesigned: Sequence[Refusal] = ()  # the samplers for which no levels could be designed

    @property
    def undecided(self) -> list[Standing]:
        """The entrants that were dropped without a significant difference from the leader."""
        corrected = holm([standing.p_value for standing in self.dropped])
        pairs = zip(self.dropped, corrected, strict=True)
        return [standing for standing, p in pairs if p > 1 - LEVEL]


def ratio(a: Array, b: Array) -> Estimate:
    """ln(ā/b̄) of paired positive values, with its interval; infinite if only one diverged."""
    top, bottom = float(a.mean()), float(b.mean())
    if (math.isinf(top) and math.isinf(bottom)) or top == bottom == 0:
        return Estimate(0.0, 0.0, 0.0, 0.0, math.nan, len(a))
    if math.isinf(top) or math.isinf(bottom) or top == 0 or bottom == 0:
        sign = math.inf if top > bottom else -math.inf
        return Estimate(sign, sign, sign, 0.0, 0.0, len(a))
    centre = math.log(top / bottom)
    return t_interval(centre + a / top - b / bottom, LEVEL)


def gap(a: Array, b: Array) -> Estimate:
    """ā − b̄ of paired values, with its interval; infinite if only one diverged."""
    fine = [bool(np.isfinite(values).all()) for values in (a, b)]
    if all(fine):
        return t_interval(a - b, LEVEL)
    size = 0.0 if not any(fine) else (-math.inf if fine[0] else math.inf)
    return Estimate(size, size, size, 0.0, 0.0 if size else math.nan, len(a))


def exact_gap(a: float, b: float, tolerance: float) -> Estimate:
    """a − b of exact values; it is significant if it is larger than the tolerance."""
    return Estimate(a - b, a - b, a - b, 0.0, 0.0 if abs(a - b) > tolerance else 1.0, 1)


#: How two entrants of a track are compared.
COMPARED: Mapping[str, Callable[[Array, Array], Estimate]] = {PATHS: ratio, LAWS: gap}


def halve(
    course: Course,
    kind: str,
    entrants: Sequence[Entrant],
    size: Size,
    on_run: Callable[[], None] = lambda: None,
) -> Track:
    """Choose the finalists of a track on training starts, by successive halving."""
    compare = COMPARED[kind]
    keep = size.finalists if kind == PATHS else size.noisy_finalists
    standings, firsts = list[Standing](), dict[int, Array]()
    for entrant in entrants:
        values, some = _values(course, kind, entrant, size, 0)
        standings.append(Standing(entrant, values))
        firsts[id(entrant)] = some
        on_run()
    standings = _merged(standings, firsts, course.scale * SAME)
    dropped = list[Standing]()
    while len(standings) > keep:
        half = max(keep, math.ceil(len(standings) / 2))
        leader, lost = standings[0], standings[half:]
        for standing in lost:
            standing.p_value = compare(standing.values, leader.values).p_value
        dropped = [*lost, *dropped]
        standings = standings[:half]
        for standing in standings:
            values, _ = _values(course, kind, standing.entrant, size, standing.rounds)
            standing.values = np.append(standing.values, values) if kind == PATHS else values
            standing.rounds += 1
            on_run()
        standings.sort(key=_by_mean)
    undesigned = list[Refusal]()
    if kind == PATHS and size.designs > 0:
        found, undesigned = _designed(course, standings, size)
        standings = sorted([*standings, *found], key=_by_mean)
        for standing in standings[keep:]:
            standing.p_value = compare(standing.values, standings[0].values).p_value
        standings, dropped = standings[:keep], [*standings[keep:], *dropped]
    return Track(kind, standings, dropped, undesigned)


def _designed(
    course: Course, standings: Sequence[Standing], size: Size
) -> tuple[list[Standing], list[Refusal]]:
    """The best samplers on levels designed for them, on the training starts of the standings."""
    best: dict[Sampler, Standing] = {}
    for standing in standings:
        best.setdefault(standing.entrant.sampler, standing)
    found, refused = list[Standing](), list[Refusal]()
    for sampler, standing in list(best.items())[: size.designs]:
        entrant = standing.entrant
        try:
            levels = course.designed(entrant)
        except InvalidSetting as error:
            refused.append(Refusal(entrant.label, first_line(error)))
            continue
        own = Entrant(entrant.name, sampler, DESIGNED, levels)
        rounds = [_values(course, PATHS, own, size, n)[0] for n in range(standing.rounds)]
        found.append(Standing(own, np.concatenate(rounds), standing.rounds))
    return found, refused


def _by_mean(standing: Standing) -> float:
    return standing.mean


def run_count(entrants: Sequence[Entrant], size: Size) -> int:
    """The largest number of runs of `choose`."""
    noisy = sum(one.sampler.stochastic for one in entrants)
    total = 0
    for left, keep in ((len(entrants) - noisy, size.finalists), (noisy, size.noisy_finalists)):
        total += left
        while left > keep:
            left = max(keep, math.ceil(left / 2))
            total += left
    return total


def _values(
    course: Course, kind: str, entrant: Entrant, size: Size, round_: int
) -> tuple[Array, Array]:
    """The values of an entrant's runs in a round, and its first outputs."""
    if kind == PATHS:
        # as many new states as in all rounds before
        count = size.first * 2 ** max(round_ - 1, 0)
        x = course.outputs(entrant, CHOICE, round_, count)
        return course.paths(entrant, x, CHOICE, round_), x[:8].double().cpu().numpy()
    count = size.in_batch(round_)
    return laws(course, entrant, CHOICE, round_, count)


def laws(
    course: Course, entrant: Entrant, purpose: str, round_: int, count: int
) -> tuple[Array, Array]:
    """The distances of laws in every batch, shape (BATCHES,), and the first outputs."""
    x = course.outputs(entrant, purpose, LAW_BLOCKS + round_, BATCHES * count)
    parts = enumerate(torch.split(x, count))
    values = np.array([course.laws(part, purpose, batch) for batch, part in parts])
    return values, x[:8].double().cpu().numpy()


#: Blocks of the track of laws begin here; on the track of paths they are the numbers of rounds.
LAW_BLOCKS = 100


def _merged(
    standings: Sequence[Standing], firsts: Mapping[int, Array], tolerance: float
) -> list[Standing]:
    """The standings, the best first; entrants with equal outputs are one, with the first name."""
    kept = list[Standing]()
    for standing in standings:
        x = firsts[id(standing.entrant)]
        equal = next((one for one in kept if _near(firsts[id(one.entrant)], x, tolerance)), None)
        if equal is None:
            kept.append(standing)
        else:
            equal.same.append(standing.entrant.label)
    return sorted(kept, key=_by_mean)


def _near(first: Array, second: Array, tolerance: float) -> bool:
    return bool((np.abs(first - second) <= tolerance).all())  # false for NaN


@dataclass(frozen=True)
class Measured:
    """A measurement on held-out starts."""

    standing: Standing  # the measured entrant
    kind: str  # the distance: `PATHS`, `LAWS` or `EXACT`
    mean: float  # d² of paths, the squared distance of laws, or W₂ of exact laws
    lower: float  # end of its interval
    upper: float  # end of its interval
    compared: Estimate  # its difference from the winner: ln of the ratio of d², or the difference
    p_holm: float  # the corrected p-value of that difference; NaN for the winner

    @property
    def apart(self) -> bool:
        """Whether it differs significantly from the winner."""
        return self.p_holm <= 1 - LEVEL


@dataclass(frozen=True)
class Verdict:
    """The result of a race."""

    winner: Standing  # chosen on training starts
    kind: str  # the distance by which it is compared with the others of its track
    # the finalists and the default, by both distances if both are known
    measured: Sequence[Measured]
    tracks: Mapping[str, Track]  # by kind; one may be missing
    converged_to: float  # the distance d between the converged run and one of half its steps

    def of(self, standing: Standing, kind: str) -> Measured | None:
        """One of the measurements, or None."""
        fitting = (one for one in self.measured if one.standing is standing and one.kind == kind)
        return next(fitting, None)


def race(
    course: Course,
    entrants: Sequence[Entrant],
    size: Size,
    default: Entrant | None = None,
    on_run: Callable[[], None] = lambda: None,
) -> Verdict:
    """Choose the best entrant, then measure it and the default, which need not be an entrant.

    `on_run` is called after each run of an entrant in the choice.
    """
    tracks = choose(course, entrants, size, on_run)
    winner, kind = _winner(course, tracks, size)
    return measure(course, tracks, winner, kind, size, default)


def choose(
    course: Course,
    entrants: Sequence[Entrant],
    size: Size,
    on_run: Callable[[], None] = lambda: None,
) -> dict[str, Track]:
    """The tracks after all rounds; see `halve`."""
    sides = {
        PATHS: [one for one in entrants if not one.sampler.stochastic],
        LAWS: [one for one in entrants if one.sampler.stochastic],
    }
    return {kind: halve(course, kind, own, size, on_run) for kind, own in sides.items() if own}


def _winner(course: Course, tracks: Mapping[str, Track], size: Size) -> tuple[Standing, str]:
    """The best entrant on training starts: the best without noise, unless noise is better."""
    if LAWS not in tracks:
        return tracks[PATHS].finalists[0], PATHS
    first = tracks[LAWS].finalists[0]
    quiet = tracks[PATHS].finalists[0] if PATHS in tracks else None
    exact = _exact_laws(course, tracks)
    if exact is not None:
        first = min(tracks[LAWS].finalists, key=lambda one: exact[id(one)])
        noisy = quiet is None or exact[id(quiet)] - exact[id(first)] > EQUAL * course.scale
    elif quiet is None:
        noisy = True
    else:
        count = size.in_batch(first.rounds - 1)
        values, _ = laws(course, quiet.entrant, CHOICE, first.rounds - 1, count)
        better = gap(first.values, values)
        noisy = better.mean < 0 and better.p_value <= 1 - LEVEL
    if noisy or quiet is None:
        return first, LAWS if exact is None else EXACT
    return quiet, PATHS


def _exact_laws(course: Course, tracks: Mapping[str, Track]) -> dict[int, float] | None:
    """Exact distances of laws of the finalists with noise and of the best one without, by id.

    None if one of them is not known.
    """
    finalists = [*tracks[LAWS].finalists] if LAWS in tracks else []
    finalists += tracks[PATHS].finalists[:1] if PATHS in tracks else []
    found = {id(one): course.exact_law(one.entrant) for one in finalists}
    known = {key: value for key, value in found.items() if value is not None}
    return known if len(known) == len(found) else None


def measure(
    course: Course,
    tracks: Mapping[str, Track],
    winner: Standing,
    kind: str,
    size: Size,
    default: Entrant | None = None,
) -> Verdict:
    """Measure the winner, the other finalists and the default on held-out starts."""
    quiet = list(tracks[PATHS].finalists) if PATHS in tracks else []
    noisy = list(tracks[LAWS].finalists) if LAWS in tracks else []
    if default is not None:
        own = noisy if default.sampler.stochastic else quiet
        if not any(one.entrant is default for one in own):
            track = tracks.get(LAWS if default.sampler.stochastic else PATHS)
            dropped = [one for one in track.dropped if one.entrant is default] if track else []
            own += dropped or [Standing(default, np.array([math.nan]), rounds=0)]
    both = [*noisy, *(one for one in quiet if one is quiet[0] or one.entrant is default)]
    by_paths = {id(one): _held_out_paths(course, one.entrant, size) for one in quiet}
    exact = _exact_laws(course, tracks) if noisy else None
    by_laws: dict[int, Array] = {}
    if exact is not None:
        found = {id(one): course.exact_law(one.entrant) for one in both}
        both = [one for one in both if found[id(one)] is not None]  # a default may have none
        by_laws = {key: np.array([value]) for key, value in found.items() if value is not None}
    elif noisy:
        by_laws = {
            id(one): laws(course, one.entrant, MEASUREMENT, 0, size.measured_batch)[0]
            for one in both
        }
    law_kind = LAWS if exact is None else EXACT
    compared = list[tuple[Standing, str, Array, Estimate]]()
    for one in quiet:
        own_values = by_paths[id(one)]
        by = ratio(own_values, by_paths[id(winner)]) if kind == PATHS else _NOTHING
        compared.append((one, PATHS, own_values, by))
    for one in both if noisy else []:
        own_values = by_laws[id(one)]
        if exact is None:
            by = gap(own_values, by_laws[id(winner)])
        else:
            by = exact_gap(own_values.item(), by_laws[id(winner)].item(), EQUAL * course.scale)
        compared.append((one, law_kind, own_values, by))
    corrected = holm([math.nan if one is winner else by.p_value for one, *_, by in compared])
    measured = [
        Measured(one, by_kind, *_interval(values), by, float(p))
        for (one, by_kind, values, by), p in zip(compared, corrected, strict=True)
    ]
    converged = course.converged_to(quiet[0].entrant, size.first) if quiet else math.nan
    return Verdict(winner, kind, measured, tracks, converged)


_NOTHING = Estimate(math.nan, math.nan, math.nan, math.nan, math.nan, 0)


def _held_out_paths(course: Course, entrant: Entrant, size: Size) -> Array:
    x = course.outputs(entrant, MEASUREMENT, 0, size.measured)
    return course.paths(entrant, x, MEASUREMENT, 0)


def _interval(values: Array) -> tuple[float, float, float]:
    """Mean and interval."""
    if not np.isfinite(values).all():
        return math.inf, math.inf, math.inf
    if len(values) == 1:  # exact
        return (float(values[0]),) * 3
    own = t_interval(values, LEVEL)
    return own.mean, own.lower, own.upper
