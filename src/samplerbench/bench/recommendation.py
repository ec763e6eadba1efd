"""The result of a race in words and as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from samplerbench.bench.course import Entrant, Refusal
from samplerbench.bench.race import EXACT, LAWS, PATHS, Measured, Standing, Verdict
from samplerbench.bench.rounding import counted, difference, plain
from samplerbench.core.grids import Levels, TruncatedLevels
from samplerbench.samplers.base import Sampler

#: The most names in a line.
NAMED = 4


@dataclass(frozen=True, eq=False, repr=False)
class Recommendation:
    """The best sampler on its best grid for a number of evaluations; prints as three lines.

    Args:
        nfe: the bound on the number of evaluations.
        verdict: the result of the race.
        default: the entrant that the winner is compared with; None if it cannot run.
        refused: samplers and grids that could not take part, with the reasons.
        raced: the number of entrants.
        evaluations: the evaluations of the denoiser in the race: calls times states.
        seconds: the duration of the race.
    """

    nfe: int
    verdict: Verdict
    default: Entrant | None
    refused: Sequence[Refusal]
    raced: int
    evaluations: int
    seconds: float

    @property
    def entrant(self) -> Entrant:
        """The winner: the name, the sampler and the grid."""
        return self.verdict.winner.entrant

    @property
    def sampler(self) -> Sampler:
        """The sampler of the winner, with its settings."""
        return self.entrant.sampler

    @property
    def levels(self) -> Levels:
        """The levels of the winner."""
        return self.entrant.levels

    @property
    def steps(self) -> int:
        """The number of steps of the winner."""
        return self.levels.steps

    def __repr__(self) -> str:
        return "\n".join(self.lines)

    @property
    def lines(self) -> list[str]:
        """The recommendation, its gain over the default, and what is not distinguishable."""
        return [self._which, self._how_much, self._undecided]

    @property
    def _which(self) -> str:
        plain = isinstance(self.levels, TruncatedLevels)
        evaluations = self.sampler.plain_evaluations if plain else self.sampler.evaluations
        cost = evaluations(self.steps)
        same = self.verdict.winner.same
        also = f" (the same as {_listed(same)})" if same else ""
        size = f"{counted(self.steps, 'step')}, {counted(cost or 0, 'evaluation')}"
        return f"use {self.entrant.label}: {size}{also}"

    @property
    def _how_much(self) -> str:
        winner, kind = self.verdict.winner, self.verdict.kind
        own = self.verdict.of(winner, kind)
        assert own is not None  # the winner is measured
        text = f"{_DISTANCE[kind]} {_text(own)}"
        if self.default is None:
            return f"{text}; the default cannot run with {self.nfe} evaluations"
        name = f"the default, {self.default.label}"
        if winner.entrant is self.default:
            return f"{text}; it is {name}"
        measured = [one for one in self.verdict.measured if one.standing.entrant is self.default]
        other = next((one for one in measured if one.kind == kind), None)
        if other is None:
            # a default with noise and the best entrant without noise are compared by their laws
            other = next((one for one in measured if one.kind != PATHS), None)
            kind = LAWS if other is None else other.kind
            own = self.verdict.of(winner, kind)
        if other is None or own is None:
            return f"{text}; it is not compared with {name}"
        return f"{_DISTANCE[kind]} {_text(own)}; {name}, has {_text(other)}: {_compared(other)}"

    @property
    def _undecided(self) -> str:
        rivals = [one for one in self.verdict.measured if not math.isnan(one.p_holm)]
        parts = []
        by_law = "by the law of samples"
        for kind, by in ((PATHS, "by paths"), (LAWS, by_law), (EXACT, by_law)):
            own = [one for one in rivals if one.kind == kind]
            ties = [one.standing.entrant.label for one in own if not one.apart]
            ahead = [
                one.standing.entrant.label for one in own if one.apart and one.compared.mean < 0
            ]
            if ties:
                parts.append(f"not distinguishable from it {by}: {_listed(ties)}")
            if ahead:
                parts.append(f"better than it {by} on held-out starts: {_listed(ahead)}")
        quiet = self.verdict.tracks.get(PATHS)
        if self.verdict.kind != PATHS and quiet is not None:
            parts.append(f"the best without noise: {quiet.finalists[0].entrant.label}")
        early = sum(len(track.undecided) for track in self.verdict.tracks.values())
        if early:
            parts.append(f"dropped early without a significant difference: {early} more")
        if not rivals:
            return "nothing else took part"
        return "; ".join(parts or ["all other finalists are worse"]) + " (95 %, Holm)"

    @staticmethod
    def cells(one: Measured) -> tuple[str, str, str]:
        """The texts of a measurement, of its comparison with the winner, and of its p-value."""
        if math.isnan(one.p_holm):
            return _text(one), "", ""
        return _text(one), _interval_text(_ends(one)), plain(one.p_holm, 2)

    @property
    def table(self) -> pd.DataFrame:
        """One row per entrant and distance, the finalists first.

        `distance` is the kind: paths (root mean square, in deviations of the data), laws (squared
        energy distance), or exact laws (W₂ on a line). `chosen_by` is the distance on training
        starts, `value` with `lower` and `upper` that on held-out starts. Compared with the winner,
        `times` is the ratio of path distances and `more` the difference of law distances, with
        their intervals; `p_holm` is corrected. `dropped_p` is the p-value of the difference from
        the leader in the round that dropped the entrant.
        """
        rows = []
        for one in self.verdict.measured:
            rows.append({**_of(one.standing, one.kind), **_numbers(one)})
        known = {(id(one.standing), one.kind) for one in self.verdict.measured}
        for kind, track in self.verdict.tracks.items():
            for standing in (*track.finalists, *track.dropped):
                if (id(standing), kind) not in known:
                    rows.append(_of(standing, kind))
        return pd.DataFrame(rows)


_DISTANCE = {
    PATHS: "root mean square distance of its paths to the converged run, in sd of the data:",
    LAWS: "squared energy distance of its samples to the data:",
    EXACT: "W₂ between the law of its samples and that of the data, exact:",
}


def _of(standing: Standing, kind: str) -> dict[str, object]:
    entrant = standing.entrant
    chosen = _root(standing.mean) if kind == PATHS else standing.mean
    own = LAWS if entrant.sampler.stochastic else PATHS
    return {
        "entrant": entrant.label,
        "sampler": entrant.name,
        "grid": entrant.grid,
        "steps": entrant.levels.steps,
        "noise": entrant.sampler.stochastic,
        "distance": kind,
        "rounds": standing.rounds,
        "chosen_by": chosen if kind == own else math.nan,
        "dropped_p": standing.p_value,
        "same": ", ".join(standing.same),
    }


def _numbers(one: Measured) -> dict[str, object]:
    ends = _ends(one)
    name = "times" if one.kind == PATHS else "more"
    return {
        **dict(zip(("value", "lower", "upper"), _shown(one), strict=True)),
        **dict(zip((name, f"{name}_lower", f"{name}_upper"), ends, strict=True)),
        "p_holm": one.p_holm,
    }


def _shown(one: Measured) -> tuple[float, float, float]:
    """Value and interval: the root of paths."""
    if one.kind != PATHS:
        return one.mean, one.lower, one.upper
    return _root(one.mean), _root(one.lower), _root(one.upper)


def _root(value: float) -> float:
    return math.sqrt(max(value, 0.0))


def _ends(one: Measured) -> tuple[float, float, float]:
    """The comparison with the winner and its interval: a ratio of paths, a difference of laws."""
    ends = (one.compared.mean, one.compared.lower, one.compared.upper)
    if one.kind != PATHS:
        return ends
    first, lower, upper = (math.exp(end / 2) if end < 700 else math.inf for end in ends)
    return first, lower, upper


def _text(one: Measured) -> str:
    value, lower, upper = _shown(one)
    return "diverges" if math.isinf(value) else difference(value, (upper - lower) / 2)


def _interval_text(ends: tuple[float, float, float]) -> str:
    value, lower, upper = (plain(end, 2) for end in ends)
    return value if lower == upper else f"{value} [{lower}, {upper}]"


def _compared(other: Measured) -> str:
    """The comparison of another one with the winner."""
    unit = "times as far" if other.kind == PATHS else "more"
    text = _interval_text(_ends(other))
    value, _, interval = text.partition(" ")
    return f"{value} {unit} {interval}".strip()


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
