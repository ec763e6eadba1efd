"""Entries of a suite: the results of somebody's samplers, and their verification.

An entry is one parquet file with the results of its samplers. Its metadata, in JSON, have the
version of the suite, the command, the class of each sampler, its settings and the digest of its
source, the versions of the software, the machine that wrote it, and the digest of the rows. The
rows have the versions and the machines of their jobs.

`verify` runs some cells of an entry again, chosen at random, and makes these checks:

    table     the rows are those that the metadata describe, with all numbers of steps
    tasks     no task is missing; those that could not be measured are listed
    source    the class of the sampler has the source that the entry had
    value     the cell has the same value again: the same bits if its identity is the same, else
              within `ELSEWHERE` of the value, and for paired distances within `CONVERGED` besides
    grid      the sampler ran on the levels that the entry names
    starts    from `FRESH` other sets of starts the values are not all larger: a sampler that is
              tuned on the starts of the suite, or knows them, is not as good elsewhere
    model     the samples have the same bits with an opaque denoiser (`opaque`), in a thread from
              whose stack the law cannot be reached: a sampler must not read the law, or the
              network, from the model
    count     the entry, the declaration `evaluations(steps)` if there is one, and the opaque
              denoiser have the same number of evaluations. That of the denoiser is the number of
              rows of all calls over the number of states, so a call with k times the states, or
              with k levels for each state, counts k times
    noise     the samples depend on the noise if and only if the sampler declares that it draws
              some: the two kinds have different tasks and tables
    law       on `LAWS` laws that the sampler cannot know, mixtures of two narrow Gaussians at
              random places within the data, the samples lie in the law

These checks find accidents and easy tricks, not everything: a sampler is code of the same process.
So a person also reads the source of an entry.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import json
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch._C._functorch import get_unwrapped, is_batchedtensor
from torch.nn.functional import normalize

from samplerbench.bench.cell import Cell, Row
from samplerbench.bench.criteria import AGREE
from samplerbench.bench.store import as_table
from samplerbench.bench.suite.results import COLUMNS, OWN, RECORDED, SHIPPED
from samplerbench.bench.suite.standing import ABOUT as DESCRIBES
from samplerbench.bench.suite.standing import BUDGET, PEERS, TASK, not_counted
from samplerbench.bench.sweep import Samples, Sweep, most_steps
from samplerbench.core.grids import AnyLevel, Level, Levels, in_data_units
from samplerbench.core.models import Denoiser, Density, IsotropicMixtureOracle
from samplerbench.core.noise import KeyedNoise, Noise
from samplerbench.datasets.base import all_usable
from samplerbench.errors import kind_and_line, refusing, require
from samplerbench.files import write_atomically
from samplerbench.identity import OURS, VERSIONS, machine, settings_text
from samplerbench.samplers.base import Sampler, final_state

#: The key of the metadata.
ABOUT = b"samplerbench"
#: The largest relative difference of a value that is computed on another machine or by other
#: versions.
ELSEWHERE = 0.01
#: How far a paired distance, and an end of its interval, may move besides if another version
#: computes the converged runs: their change by a doubling is in the interval, and at most `AGREE`;
#: the error of a distance was a fifteenth of that.
CONVERGED = {"value": AGREE / 15, "lower": AGREE, "upper": AGREE}
#: The number of other sets of starts. An entry is refused if all values from them are larger by
#: more than `BEYOND` times the combined half-width of both intervals.
FRESH, BEYOND = 2, 2.0
#: The unknown law, in standard deviations of the data: `SHIFT` is the distance of its centre from
#: that of the data, and of its two means from its centre; `WIDTH` is the deviation of its two
#: Gaussians; `OFF` is the largest root mean square distance of samples from the nearer mean. The
#: check is skipped for an entrant whose values are all above `GOOD`.
SHIFT, WIDTH, OFF, GOOD = 0.5, 0.1, 0.3, 0.1
#: The number of unknown laws, and of samples that are compared with two noises.
LAWS, FEW = 3, 8
#: The number of cells that are checked in one job, which may first train a network.
PER_JOB = 4
#: The columns that are not text, by the kind of their values.
_WHOLE, _NUMBERS, _TRUTHS = ("nfe", "steps"), ("value", "lower", "upper", "order"), ("noise",)
#: The possible states of a finished run; see `bench.sweep` and `bench.densities`.
STATUSES = ("ok", "failed", "diverged", "incompatible", "not a density")
#: Columns that describe the entrant.
_DESCRIBED = ("package", "order", "noise")
#: A row of the results.
Values = Mapping[Hashable, Any]
#: The columns that identify a value within an entry.
KEY = [*TASK, "grid", "entrant", "steps"]


def about_samplers(samplers: Mapping[str, Sampler]) -> dict[str, dict[str, str]]:
    """The class, the settings and the digest of the source of samplers.

    Args:
        samplers: samplers by the name of their entrant.
    """
    return {
        name: {
            "class": f"{class_of(sampler).__module__}.{class_of(sampler).__qualname__}",
            "settings": settings_text(sampler),
            "source": _source_digest(sampler),
        }
        for name, sampler in samplers.items()
    }


def class_of(sampler: Sampler) -> type[Any]:
    """The class whose code a sampler runs: its own, or somebody's scheduler that it runs."""
    custom: type[Any] | None = getattr(sampler, "custom", None)
    return type(sampler) if custom is None else custom


def _source_digest(sampler: Sampler) -> str:
    """SHA-256 of the file of a sampler's class; empty if it has none, as in a notebook."""
    try:
        path = inspect.getsourcefile(class_of(sampler))
        return "" if path is None else hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except (TypeError, OSError):
        return ""


def write_entry(results: pd.DataFrame, path: Path, about: Mapping[str, object]) -> Path:
    """Write the rows of an entry and their metadata into one file.

    Args:
        results: the rows of the entrants' results, all of one suite.
        path: the file, in any folder; an older file is replaced.
        about: suite (its version and size), command, samplers (from `about_samplers`).

    Returns:
        The path.

    Raises:
        InvalidSetting: a column is missing or has invalid values, a row belongs to no sampler of
            the entry, or a value occurs twice.
    """
    missing = [key for key in ("suite", "command", "samplers") if key not in about]
    require(not missing, "about", f"no {', '.join(missing)}", "suite, command and samplers")
    _require_rows(results, about)
    rows = results[_stored(results)].sort_values(KEY, ignore_index=True)
    whole = {**about, "rows": _digest(rows), "versions": dict(VERSIONS), "machine": machine()}
    text = json.dumps(whole, ensure_ascii=False, sort_keys=True).encode()
    table, file = pa.Table.from_pandas(rows, preserve_index=False), io.BytesIO()
    metadata = {**(table.schema.metadata or {}), ABOUT: text}
    pq.write_table(table.replace_schema_metadata(metadata), file)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, file.getvalue())
    return path


def read_entry(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The rows of an entry, and its metadata.

    Raises:
        InvalidSetting: the file is not an entry, or it cannot be read.
    """
    with refusing("entry", path, "the file of an entry, as samplerbench suite sampler=… writes it"):
        content = path.read_bytes()
        results = pd.read_parquet(io.BytesIO(content))
        found = (pq.read_schema(io.BytesIO(content)).metadata or {}).get(ABOUT)
        if found is None:
            raise ValueError("its metadata do not say how it was made")
        about = dict(json.loads(found))
        samplers = dict(about.get("samplers", {}))
        for part, keys in [
            (about, ("suite", "command", "rows")),
            *((one, ("class", "settings", "source")) for one in samplers.values()),
        ]:
            missing = [key for key in keys if not isinstance(part.get(key), str)]
            if missing:
                raise ValueError(f"no text for {', '.join(missing)} in its metadata")
        about["samplers"] = samplers
    _require_rows(results, about)
    same = _digest(results[_stored(results)]) == about["rows"]
    require(same, "entry", path, "the rows that its metadata describe: they have changed")
    if "machine" in about and "machines" not in results:  # an entry of an earlier build
        made = {"versions": about["versions"], "machines": [about["machine"]]}
        results = results.assign(**{key: json.dumps(one) for key, one in made.items()})
    return results, about


def _stored(results: pd.DataFrame) -> list[str]:
    """The columns of an entry; those that say how its jobs ran are missing in earlier builds."""
    return [*COLUMNS, *(name for name in RECORDED if name in results)]


def _digest(rows: pd.DataFrame) -> str:
    """SHA-256 of rows, independent of the version of parquet."""
    return hashlib.sha256(rows.to_csv(index=False).encode()).hexdigest()


def _require_rows(results: pd.DataFrame, about: Mapping[str, Any]) -> None:
    require(len(results) > 0, "entry", "no rows", "at least one value")
    missing = [name for name in COLUMNS if name not in results]
    require(not missing, "entry", f"no column {', '.join(missing)}", "the results of a suite")
    for name in _stored(results):
        kind, good = _kind(name)
        bad = [value for value in results[name].tolist() if not good(value)]
        require(not bad, f"entry, column {name}", repr(bad[:1])[1:-1], kind)
    foreign = sorted({*results["entrant"]} ^ {*about["samplers"]})
    require(not foreign, "entry", ", ".join(foreign), "rows of its own samplers, and of each")
    kinds = results[["entrant", *DESCRIBES]].drop_duplicates()
    several = kinds.loc[kinds.duplicated("entrant"), "entrant"].tolist()
    require(not several, "entry", ", ".join(several), f"with one {', '.join(DESCRIBES)} each")
    twice = results[results.duplicated(KEY)]
    require(twice.empty, "entry", _place(twice[:1]), "there once")
    # a job measures one law, path and denoiser, so its rows cannot be passed off as another task
    task = [*TASK, "grid"]
    place = [name for name in task if name != "quantity"]
    for one, other in (([*place, "command"], "command"), ([*task, "command"], task)):
        jobs = results[one].drop_duplicates()
        strange = jobs[jobs.duplicated(other, keep=False)]
        found = " and ".join(" ".join(map(str, row)) for row in strange[one[:-1]].to_numpy()[:2])
        require(strange.empty, "entry", found, "one command for each task, and one task for each")


def _kind(column: str) -> tuple[str, Callable[[object], bool]]:
    """The kind of the values of a column of the results, in words and as a test."""
    if column in _WHOLE:
        least = int(column == "steps")  # a run that failed has no evaluations
        return f"whole numbers from {least} on", lambda one: type(one) is int and one >= least
    if column in _NUMBERS:
        return "numbers", lambda one: type(one) in (int, float)
    if column in _TRUTHS:
        return "true or false", lambda one: type(one) is bool
    if column == "status":
        return f"one of {', '.join(STATUSES)}", lambda one: one in STATUSES
    return "text of one line", lambda one: type(one) is str and one.isprintable()


@dataclass(frozen=True, eq=False)
class SuiteJob:
    """A job of a suite that can run again.

    Args:
        sweep: the job's sweep, with trained networks and chosen grids.
        results: the rows of the results, from the table of some of its cells.
    """

    sweep: Sweep
    results: Callable[[pd.DataFrame], pd.DataFrame]


@dataclass(frozen=True, eq=False)
class Verdict:
    """The result of the verification of an entry.

    Attributes:
        checks: one row per check of a cell: the columns of `KEY`, check, fault (empty if the check
            is passed).
        suite: the version and the size of the entry's suite.
        unsolved: the tasks that could not be measured, with the reason, one line each; they count
            as unsolved.
    """

    checks: pd.DataFrame = field(repr=False)
    suite: str = ""
    unsolved: Sequence[str] = ()

    @property
    def accepted(self) -> bool:
        """Whether every check is passed."""
        return bool((self.checks["fault"] == "").all())

    @property
    def lines(self) -> list[str]:
        """The faults in words, one line each."""
        bad = self.checks[self.checks["fault"] != ""]
        return [f"{_place(bad[i : i + 1])}: {bad['fault'].iloc[i]}" for i in range(len(bad))]

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        run = self.checks[self.checks["check"] != "tasks"]
        cells = len(run.drop_duplicates(["law", "path", "denoiser", "grid", "entrant", "steps"]))
        done = f"{len(self.checks)} checks of {cells} cells"
        if self.accepted:
            return f"accepted for {self.suite}: {done} passed"
        return f"refused: {int((self.checks['fault'] != '').sum())} of {done} failed"


def _place(rows: pd.DataFrame) -> str:
    """The entrant, task, grid and steps of the first row, in words."""
    if rows.empty:
        return ""
    one = rows.iloc[0]
    task = " ".join(str(one[name]) for name in TASK)
    return f"{one['entrant']}, {task}, grid {one['grid']}, {one['steps']} steps"


def verify(
    entry: Path,
    jobs: Callable[[str, Sequence[str]], SuiteJob],
    *,
    cells: int = 20,
    seed: int = 0,
    tasks: Iterable[tuple[str, ...]] | None = None,
    on_check: Callable[[str], None] = lambda line: None,
) -> Verdict:
    """Run a part of an entry again.

    Args:
        entry: the file.
        jobs: builds a job of the suite again, from its command and the names of its entrants.
        cells: the number of cells that are checked.
        seed: seed of the choice of cells and of the other starts; the entrant must not know it.
        tasks: law, path, denoiser, quantity and grid setting of all tasks that an entry must have.
        on_check: called with a line about each cell.

    Raises:
        InvalidSetting: the entry cannot be read, or there is nothing to check.
    """
    require(cells >= 1, "cells", cells, "at least 1")
    results, about = read_entry(entry)
    rng = np.random.default_rng(seed)
    found = _task_checks(results, tasks)
    able = results[results["status"] != "incompatible"]
    require(len(able) > 0, "entry", entry, "one with a value: it has nothing that was measured")
    left, seen = cells, set[str]()  # every entrant is checked once before one is again
    for command in rng.permutation(sorted({*able["command"]})):
        own = able[able["command"] == command].sort_values(KEY)
        places = own.drop_duplicates(["entrant", "steps"])
        places = places.iloc[rng.permutation(len(places))]
        again = places["entrant"].isin(seen) | places.duplicated("entrant")
        places = places.iloc[again.argsort(kind="stable")[: min(left, PER_JOB)]]
        seen |= {*places["entrant"]}
        job, other = jobs(str(command), sorted({*places["entrant"]})), int(rng.integers(1, 2**31))
        # the cells of a job share their converged runs
        fresh = [replace(job.sweep, seed=other + number) for number in range(FRESH)]
        for entrant, cells_of in places.groupby("entrant", sort=True):
            of_entrant, samplers = own[own["entrant"] == entrant], about["samplers"]
            for number, steps in enumerate(cells_of["steps"]):
                checks = _Checks(job, of_entrant, int(steps), fresh)
                found += checks.run(samplers[entrant], whole=number == 0)
                on_check(f"{_place(checks.rows)}: {'; '.join(checks.faults) or 'passed'}")
        left -= len(places)
        if left <= 0:
            break
    table = pd.DataFrame(found, columns=[*KEY, "check", "fault"])
    return Verdict(table, str(about["suite"]), list(unsolved_tasks(results)))


def unsolved_tasks(results: pd.DataFrame) -> Iterator[str]:
    """Lines with entrant, tasks and reason of values that failed or could not be measured.

    These values count as unsolved. Runs without a density are left out: there are many, and the
    reason is always the same.
    """
    bad = results[~results["status"].isin(["ok", "not a density"]) & ~not_counted(results)]
    bad = bad.assign(reason=bad["message"].str.replace(r"\d[\d,]*", "n", regex=True))
    for (entrant, _), rows in bad.groupby(["entrant", "reason"], sort=True):
        tasks = sorted({" ".join(map(str, one)) for one in rows[TASK].to_numpy()})
        yield f"{entrant} on {', '.join(tasks)}: {rows['message'].iloc[0]}"


def _task_checks(results: pd.DataFrame, tasks: Iterable[tuple[str, ...]] | None) -> list[Values]:
    """Check that every entrant has all tasks, no other tasks, and the same steps in all tasks."""
    if tasks is None:
        return []
    found: list[Values] = []
    names, allowed = [*TASK, "grid"], {*map(tuple, tasks)}

    def note(entrant: object, task: Sequence[object], fault: str) -> None:
        named = dict[Hashable, Any](zip(names, task, strict=True))
        found.append({**named, "entrant": entrant, "steps": 0, "check": "tasks", "fault": fault})

    for entrant, own in results.groupby("entrant", sort=True):
        for place, rows in own.groupby(names, sort=True):
            fault = "" if place in allowed else "the suite has no such task"
            if left := sorted({*own["steps"]} - {*rows["steps"]}):  # the same for all tasks
                fault = f"it has no values at {', '.join(map(str, left))} steps"
            if fault:
                note(entrant, place, fault)
        there = {*own[names].itertuples(index=False, name=None)}
        brings = bool((own["chosen"] == SHIPPED).all())
        for task in sorted(allowed):
            if not (brings and task[-1] == OWN):  # it runs on its own levels in any case
                note(entrant, task, "" if task in there else "the task is missing")
    return found


class _Checks:
    """The checks of one cell, from the rows of its entrant; `fresh` are sweeps with other seeds."""

    def __init__(
        self, job: SuiteJob, of_entrant: pd.DataFrame, steps: int, fresh: Sequence[Sweep]
    ) -> None:
        self.job, self.of_entrant, self.fresh = job, of_entrant, fresh
        self.rows = of_entrant[of_entrant["steps"] == steps]
        self.found: list[Values] = []

    @property
    def faults(self) -> list[str]:
        """The faults found so far, in words."""
        return [str(one["fault"]) for one in self.found if one["fault"]]

    def note(self, row: Values, check: str, fault: str) -> None:
        """Keep the result of a check."""
        place: dict[Hashable, Any] = {key: row[key] for key in KEY}
        self.found.append({**place, "check": check, "fault": fault})

    def run(self, about: Mapping[str, str], whole: bool) -> list[Values]:
        """Make all checks.

        Args:
            about: the sampler, as in the metadata of the entry.
            whole: whether to make also the checks that do not depend on the cell.
        """
        first = self.rows.to_dict("records")[0]
        cell = self._cell(first)
        if cell is None:
            self.note(first, "table", "the job has no such sampler at this number of steps")
            return self.found
        sampler = cell.algorithm
        steps = {*self.job.sweep.steps_of(sampler)} - {*self.of_entrant["steps"]}
        words = ", ".join(map(str, sorted(steps)))
        self.note(first, "table", f"it has no values at {words} steps" if steps else "")
        now = about_samplers({"": sampler})[""]
        # for samplers of this package, the versions in the entry are checked instead
        ours = now["class"].startswith(f"{OURS}.")
        fault = "" if ours or now["source"] == about["source"] else "its source has changed"
        if not ours and first["package"] in PEERS:  # for these, problems can be absent
            fault = f"its package has the name of another one, {first['package']}"
        self.note(first, "source", fault)
        self._values(cell)
        if (self.rows["status"] == "ok").any():
            self._model(first, cell, sampler)
            if whole:
                self._noise(first, cell, sampler)
            if whole and self.of_entrant["value"].min() <= GOOD:
                self._law(first, sampler)
        return self.found

    def _cell(self, row: Values) -> Cell | None:
        """The cell of the sweep."""
        wanted = (row["sampler"], row["sampler_settings"], row["steps"], 0)
        for cell in self.job.sweep.cells():
            own = cell.settings and settings_text(cell.settings)
            if (cell.sampler, own, cell.steps, cell.repetition) == wanted:
                return cell
        return None

    def _results(self, sweep: Sweep, cell: Cell) -> dict[str, Values]:
        """The results of a cell, by quantity."""
        distances, lazy = sweep.distances(), sweep.lazy_samples(cell)
        rows: list[Row] = [
            sweep.measure(lazy, name, distances[name]) for name in sweep.metrics_of(cell)
        ]
        table = self.job.results(as_table(map(vars, rows)))
        return {str(one["quantity"]): one for one in table.to_dict("records")}

    def _values(self, cell: Cell) -> None:
        """Measure the cell again, from the same starts and from others."""
        again = self._results(self.job.sweep, cell)
        from_fresh = [self._results(sweep, cell) for sweep in self.fresh]
        for row in self.rows.to_dict("records"):
            one = again.get(str(row["quantity"]))
            if one is None:
                self.note(row, "value", f"the job measures no {row['quantity']}")
                continue
            self.note(row, "value", _other_value(row, one))
            ran, named = one["chosen"], row["chosen"]
            self.note(row, "grid", "" if ran == named else f"it ran on {ran}, not on {named}")
            if row["status"] == "ok":
                fresh = [results[str(row["quantity"])] for results in from_fresh]
                self.note(row, "starts", _worse_elsewhere(row, fresh))

    def _model(self, row: Values, cell: Cell, sampler: Sampler) -> None:
        """Compare samples and evaluations with those of an opaque denoiser."""
        sweep = self.job.sweep
        usual = sweep.draw(cell)
        levels = sweep.levels_of(cell)
        x, noise = sweep.beginning(cell, levels, 0)
        model, evaluations = opaque(sweep.denoisers[cell.denoiser], len(x))
        hidden = _alone(sampler, model, x, noise, levels)
        counted, fault = evaluations(), ""
        if isinstance(hidden, str):
            fault = f"with an opaque denoiser it fails: {hidden}"
        elif not _same_rows(usual, hidden):
            fault = "with an opaque denoiser it has other samples: it reads more of the model"
        self.note(row, "model", fault)
        plain = sweep.final == "none"
        declared = (sampler.plain_evaluations if plain else sampler.evaluations)(cell.steps)
        fault = ""
        if declared not in (None, counted):
            fault = f"it declares {declared} evaluations and makes {counted}"
        # the number of an adaptive sampler is a mean over blocks, if there are several
        elif not (sampler.adaptive and sweep.n_samples > sweep.block) and row["nfe"] != counted:
            fault = f"the entry has {row['nfe']} evaluations and it makes {counted}"
        self.note(row, "count", fault)

    def _noise(self, row: Values, cell: Cell, sampler: Sampler) -> None:
        """Compare a few samples with two noises, at many steps; at few steps none may be drawn."""
        sweep, levels = self.job.sweep, self._many_levels(sampler)
        x = sweep.beginning(cell, levels, 0)[0][:FEW]
        model, _ = opaque(sweep.denoisers[cell.denoiser], FEW)
        first, second = (
            _alone(sampler, model, x, KeyedNoise(("a noise", self.fresh[0].seed, k)), levels)
            for k in range(2)
        )
        if isinstance(first, str) or isinstance(second, str):
            return  # another check reports it, or it fails only at many steps
        depends, fault = not torch.allclose(first, second, 0, 0, equal_nan=True), ""
        if depends != sampler.stochastic:
            declared = "noise" if sampler.stochastic else "no noise"
            words = "depend on it" if depends else "do not depend on it"
            fault = f"it declares that it draws {declared}, and its samples {words}"
        self.note(row, "noise", fault)

    def _many_levels(self, sampler: Sampler) -> Levels:
        """The levels of as many steps as the budget allows."""
        sweep = self.job.sweep
        steps = most_steps(sampler, BUDGET, plain=sweep.final == "none")
        return sweep.levels(max(1, steps), sampler)

    def _law(self, row: Values, sampler: Sampler) -> None:
        """Check the samples, at many steps, on laws that the sampler cannot know."""
        sweep = self.job.sweep
        levels, fault = self._many_levels(sampler), ""
        for number in range(LAWS):
            noise = KeyedNoise(("unknown law", self.fresh[0].seed, number))
            law, means, x, size = _unknown_law(sweep, levels.rows[0], noise)
            model, _ = opaque(law, sweep.block)
            out = _alone(sampler, model, x, noise, levels)
            if isinstance(out, str):
                fault = f"on a law that it cannot know it fails: {out}"
                break
            nearest = torch.cdist(out.double().cpu(), means).amin(1)
            off = float(nearest.square().mean().sqrt()) / size
            if not off <= OFF:  # also if it is NaN
                fault = f"on a law that it cannot know its samples are {off:.2g} deviations off"
                break
        self.note(row, "law", fault)


def _same_rows(usual: Samples, block: Tensor) -> bool:
    """Whether the first samples of a cell have the bits of a block, whose end may be cut off.

    A cell can have an exact value although its samples diverged and were not kept.
    """
    if usual.points is None:
        return usual.status == "diverged" and not all_usable(block)
    return torch.equal(usual.points[: len(block)], block[: len(usual.points)])


def _unknown_law(
    sweep: Sweep, first: Level[float], noise: KeyedNoise
) -> tuple[Denoiser, Tensor, Tensor, float]:
    """The denoiser of a law at a random place, its two means, first states, and the size of data.

    The law lies within the data, since samplers may clip x̂₀ to their range.
    """
    moments, dim, count = sweep.dataset.moments(), sweep.dataset.dim, sweep.block
    deviation = sweep.dataset.deviation
    centre = torch.zeros(dim) if moments is None else moments.mean.cpu()
    size = deviation * math.sqrt(dim)
    away, along = normalize(noise.normal(torch.zeros(2, dim, dtype=torch.float64), 0))
    point = centre.double() + SHIFT * size * away
    means = torch.stack([point - SHIFT * size * along, point + SHIFT * size * along])
    variances = torch.full((2,), (WIDTH * deviation) ** 2, dtype=torch.float64)
    law = IsotropicMixtureOracle(sweep.schedule, torch.ones(2), means, variances)
    like = torch.zeros(count, dim, dtype=torch.float64)
    draws = means[torch.arange(count) % 2] + WIDTH * deviation * noise.normal(like, 1)
    x = first.alpha * draws + first.sigma * noise.normal(like, 2)
    return law.to(sweep.device), means, x.to(sweep.device, sweep.dtype), size


def _other_value(row: Values, again: Values) -> str:
    """How the new result of a cell differs from that of the entry; empty if it does not."""
    described = (name for name in (*TASK, "grid", "entrant", *_DESCRIBED) if name in row)
    for name in ("status", "nfe", *described):
        one, other = row[name], again[name]
        if one != other and not (pd.isna(one) and pd.isna(other)):
            return f"the entry has {name} {one}, and again it is {other}"
    if row["status"] != "ok":
        return ""
    same = row["cell_id"] == again["cell_id"]
    for name in ("value", "lower", "upper"):
        value, own = float(row[name]), float(again[name])
        if value == own or (math.isnan(value) and math.isnan(own)):
            continue
        allowed = CONVERGED[name] if row.get("quantity") == "paired" else 1e-12
        if same or not abs(value - own) <= ELSEWHERE * abs(own) + allowed:
            where = "the same cell has" if same else f"here it is more than {ELSEWHERE:.0%} away,"
            return f"the entry has {name} {value:.6g}, and {where} {own:.6g}"
    return ""


def _worse_elsewhere(row: Values, fresh: Sequence[Values]) -> str:
    """Whether all values from other starts are larger; empty if they are not."""
    value, half = float(row["value"]), float(row["upper"]) - float(row["value"])
    values = [float(one["value"]) if one["status"] == "ok" else math.inf for one in fresh]
    halves = [float(one["upper"]) - float(one["value"]) for one in fresh]
    gaps = [
        own - value - BEYOND * math.hypot(half, 0.0 if math.isnan(own_half) else own_half)
        for own, own_half in zip(values, halves, strict=True)
    ]
    if min(gaps) <= ELSEWHERE * abs(value) + 1e-12:
        return ""
    return f"the entry has {value:.4g}, and from other starts it is at least {min(values):.4g}"


def opaque(model: Any, states: int) -> tuple[Denoiser, Callable[[], int]]:
    """A denoiser with only what a sampler may use, and a function for its evaluations so far.

    A sampler may call it, its score, its derivative, and its log-density if it has one. It may read
    the schedule, the range of the training, whether there is a covariance, and the levels on which
    it is defined. It cannot reach a data set, an inner model or the counter of evaluations.

    Args:
        model: the denoiser.
        states: the number of states of a run; a call with more counts as several evaluations.
    """
    require(isinstance(model, Denoiser), "denoiser", type(model).__name__, "a denoiser")
    calls: list[int] = []

    def count(x: Tensor, level: AnyLevel) -> None:
        # a call can have several levels for each state without copying it, and vmap hides copies
        given = [one for one in (x, level.t, level.alpha, level.sigma) if isinstance(one, Tensor)]
        shapes = [one.shape[:-1] for one in given]
        rows = math.prod(torch.broadcast_shapes(*shapes))  # type: ignore[no-untyped-call]
        calls.append(-(-rows * max(map(_hidden, given)) // states))

    class Opaque(Denoiser):
        def __init__(self) -> None:
            super().__init__()
            self.schedule, self.trained_noise = model.schedule, model.trained_noise
            self.has_covariance = model.has_covariance

        def why_incompatible(self, levels: Levels) -> str | None:
            reason: str | None = model.why_incompatible(levels)
            return reason

        def denoiser(self, x: Tensor, level: AnyLevel) -> Tensor:
            count(x, level)
            x0_hat: Tensor = model.denoiser(x, level)
            return x0_hat

        def score(self, x: Tensor, level: AnyLevel) -> Tensor:
            count(x, level)
            score: Tensor = model.score(x, level)
            return score

        def derivative(self, x: Tensor, level: AnyLevel) -> tuple[Tensor, Tensor]:
            count(x, level)
            both: tuple[Tensor, Tensor] = model.derivative(x, level)
            return both

    class OpaqueDensity(Opaque):
        def log_density(self, x: Tensor, level: AnyLevel) -> Tensor:
            count(x, level)
            log_density: Tensor = model.log_density(x, level)
            return log_density

    kind = OpaqueDensity if isinstance(model, Density) else Opaque
    return kind(), lambda: sum(calls)


def _hidden(x: Tensor) -> int:
    """The number of copies of a tensor that `torch.vmap` hides from code inside of it."""
    whole = x
    while is_batchedtensor(whole):
        whole = get_unwrapped(whole)
    return whole.numel() // max(1, x.numel())


def _alone(
    sampler: Sampler, model: Denoiser, x: Tensor, noise: Noise, levels: Levels
) -> Tensor | str:
    """The samples, or the reason why there are none, from a thread whose stack hides the law."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_samples, sampler, model, x, noise, levels).result()


@torch.no_grad()
def _samples(
    sampler: Sampler, model: Denoiser, x: Tensor, noise: Noise, levels: Levels
) -> Tensor | str:
    try:
        reason = sampler.why_incompatible(model, levels)
        if reason is not None:
            return reason
        return in_data_units(final_state(sampler, model, x, levels, noise), levels)
    except Exception as error:  # a defect of one sampler must not stop the other checks
        return kind_and_line(error)
