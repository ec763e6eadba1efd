"""`samplerbench sample RUN …`: samples from the score model of a stored run.

    samplerbench sample RUN sampler=heun steps=20 n=100000 out=samples.npy
    samplerbench sample RUN sampler=ddim sampler.eta=0.5 steps=50 n=100 out=way.npy --every 10

The model, the path, the grid and the start are those of the run. Other words: `denoiser=oracle`,
`grid` and `start` with their settings (`grid.rho=7`), `seed`, `device`. A member of the run has the
settings of the run; any other member has the settings of its yaml file. The samples equal those of
the run's own cells, bit for bit, and sample i does not depend on n. `--every k` also keeps the
states after 0, k, 2k, … steps and after the last one: shape (frames, n, dim).

Samples are written block by block into a hidden file, which is renamed when it is complete. So
their number is limited by the disk, not by the memory.
"""

from __future__ import annotations

import math
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from samplerbench.app.commands.output import new_path, whole_or_nothing
from samplerbench.app.commands.words import read_words, require_folder, value_of
from samplerbench.app.config.compose import member_node
from samplerbench.app.config.construct import construct, construct_grid, convert
from samplerbench.app.config.groups import FROM_PATH
from samplerbench.app.folder.runs import StoredRun, open_run
from samplerbench.errors import InvalidSetting, kind_and_line, require

if TYPE_CHECKING:
    from samplerbench.bench.cell import Cell
    from samplerbench.bench.sampling import SamplingCost
    from samplerbench.bench.sweep import Sweep

#: The required keys, with an example of each.
NEEDED = {"sampler": "heun", "steps": "20", "n": "1000", "out": "samples.npy"}
OTHER = ("denoiser", "start", "grid", "seed", "device", "every")
GROUPS = ("sampler", "start", "grid")


@dataclass(frozen=True)
class Request:
    """The words of the command; `values` has all words with a key."""

    run: Path
    out: Path
    steps: int
    n: int
    every: int | None
    values: Mapping[str, Any]

    def settings(self, group: str) -> dict[str, Any]:
        """The settings of a group's member: {"rho": 7} for `grid.rho=7`."""
        parts = {key: key.partition(".") for key in self.values}
        return {
            name: self.values[key]
            for key, (first, _, name) in parts.items()
            if name and first == group
        }


def main(words: list[str]) -> None:
    """Sample, write the file and print a summary; status 1 if some samples are not finite."""
    request = read(words)
    # slow: imports torch
    from samplerbench.bench.sampling import sample_into, shape_of

    run = open_run(request.run)
    sweep, cell = one_cell(run, request)
    dtype = str(sweep.dtype).removeprefix("torch.")
    columns = (TextColumn("sampling"), BarColumn(), TimeRemainingColumn())
    out, quiet = Console(stderr=True), not sys.stderr.isatty()
    bar = Progress(*columns, console=out, transient=True, disable=quiet)
    try:
        with (
            new_array(request.out, shape_of(sweep, cell, request.every), dtype) as array,
            bar as progress,
        ):
            task = progress.add_task("", total=math.ceil(request.n / sweep.block))
            cost = sample_into(array, sweep, cell, request.every, lambda: progress.advance(task))
    except KeyboardInterrupt:
        print(f"samplerbench: interrupted; there is no {request.out}", file=sys.stderr)
        sys.exit(130)
    except (InvalidSetting, OSError):
        raise
    except Exception as error:  # the sampler of another package may raise anything
        sys.exit(f"samplerbench: {cell.sampler}: {kind_and_line(error)}; there is no {request.out}")
    for line in report(run, request, sweep, cell, cost):
        print(line)
    if cost.bad:
        text = f"{cost.bad:,} of {request.n:,} samples are not finite"
        sys.exit(f"samplerbench: {text}; score refuses {request.out} until their rows are removed")


def read(words: list[str]) -> Request:
    """The words, checked as far as possible without opening the run."""
    folders, texts = read_words("sample", words, (*NEEDED, *OTHER), groups=GROUPS)
    require_folder("sample", folders, one=True)
    # a path is used as it is typed
    values = {k: text if k == "out" else value_of(f"{k}={text}") for k, text in texts.items()}
    for key, example in NEEDED.items():
        require(key in values, key, "", f"given, as in {key}={example}")
    run, out = Path(folders[0]), Path(values["out"])
    steps, n = whole("steps", values["steps"]), whole("n", values["n"])
    every = whole("every", values["every"]) if "every" in values else None
    require(out.suffix == ".npy", "out", out, "a file that ends in .npy")
    return Request(run, new_path(out, "file"), steps, n, every, values)


def whole(key: str, value: object) -> int:
    """An integer of at least 1, also in the form 1e5."""
    text = f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)
    good = text.isdecimal() and 1 <= int(text) < 2**40
    require(good, key, value, "a whole number, at least 1")
    return int(text)


def one_cell(run: StoredRun, request: Request) -> tuple[Sweep, Cell]:
    """The run's sweep with the requested settings, and the cell to sample."""
    from samplerbench.app.job.rebuild import rebuild
    from samplerbench.bench.cell import Cell
    from samplerbench.bench.designing import designed
    from samplerbench.bench.fitting import fitted
    from samplerbench.bench.own_grids import find_own
    from samplerbench.bench.sampling import require_runs

    name = str(request.values["sampler"])
    start = str(request.values.get("start", next(iter(run.config.start))))
    samplers = construct_grid(node(run, request, "sampler", name), "sampler")
    allowed = "one method: its lists need one value each, as in sampler.eta=0.5"
    require(len(samplers) == 1, "sampler", name, allowed)
    changed: dict[str, Any] = {
        "n_samples": request.n,
        "starts": {start: construct(node(run, request, "start", start), "start")},
    }
    if "grid" in request.values or request.settings("grid"):
        grid = str(request.values.get("grid", run.choices.get("grid")))
        changed["grid"] = construct(node(run, request, "grid", grid), "grid")
        changed["own_grids"] = ()
    if "seed" in request.values:
        changed["seed"] = convert(request.values["seed"], int, "seed")
        require(changed["seed"] >= 0, "seed", changed["seed"], "at least 0")
    device = {"device": request.values["device"]} if "device" in request.values else {}
    sweep = rebuild(run, **device).sweep
    denoisers = dict(sweep.denoisers)
    oracle = sweep.dataset.exact_score(sweep.schedule)
    if oracle is not None:
        denoisers.setdefault("oracle", oracle.to(sweep.device))
    denoiser = str(request.values.get("denoiser", "learned"))
    allowed = (
        f"one of {', '.join(denoisers)}" if denoisers else "from another run: this one has none"
    )
    require(denoiser in denoisers, "denoiser", denoiser, allowed)
    sweep = replace(sweep, denoisers=denoisers, **changed)
    sweep, fit = fitted(sweep)
    one: dict[str, Any] = {"samplers": [(name, samplers[0])], "steps": [request.steps], "nfe": ()}
    if sweep.own_grids and find_own(sweep.own_grids, samplers[0], request.steps) is None:
        # the run has no levels for this sampler and number of steps: they are designed here
        recipe = construct(node(run, request, "grid", str(run.choices.get("grid"))), "grid")
        sweep = replace(sweep, grid=recipe, own_grids=())
    sweep = designed(replace(sweep, **one))[0]
    if fit is not None:
        print(fit.line)
    start = next(iter(sweep.starts_of(samplers[0])))  # chains have no prior
    cell = Cell(denoiser, start, name, samplers[0], request.steps, repetition=0)
    require_runs(sweep, cell)
    return sweep, cell


def node(run: StoredRun, request: Request, group: str, name: str) -> DictConfig:
    """The config node of a member, from the run or a yaml file, with the requested settings.

    A name with dots is a class of a trusted package.
    """
    # a run has one grid, and the other groups by name
    own = {run.choices.get(group): run.config[group]} if group == "grid" else run.config[group]
    if name in (own or {}):
        found = own[name]
    elif "." in name:
        found = OmegaConf.create({"_target_": name})
    else:
        found = member_node(group, name)
    merged = OmegaConf.merge(found, request.settings(group))
    assert isinstance(merged, DictConfig)
    return merged


@contextmanager
def new_array(out: Path, shape: tuple[int, ...], dtype: str) -> Iterator[NDArray[np.floating]]:
    """An empty array on the disk."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    free = shutil.disk_usage(out.parent).free
    require(size < free, "out", out, f"where {size / 1e6:,.0f} MB are free, not {free / 1e6:,.0f}")
    with whole_or_nothing(out) as hidden:
        array = np.lib.format.open_memmap(hidden, "w+", dtype, shape)
        if hasattr(os, "posix_fallocate"):  # writing to a full disk would kill the process
            with hidden.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, hidden.stat().st_size)
        yield array
        array.flush()


def report(
    run: StoredRun, request: Request, sweep: Sweep, cell: Cell, cost: SamplingCost
) -> Iterator[str]:
    """A summary, the path of the file, and the command that scores it."""
    from samplerbench.bench.cell import sampler_name
    from samplerbench.bench.sampling import shape_of
    from samplerbench.identity import settings_text

    name = sampler_name(cell.sampler, settings_text(cell.settings))
    where = f"{name}, N={cell.steps}, {cell.denoiser} score, {cell.start} start"
    rounds = "" if cost.rounds == cost.nfe else f" in {cost.rounds} sequential rounds"
    yield f"{where}: {request.n:,} samples, NFE {cost.nfe}{rounds}, {cost.seconds:.1f} s"
    yield f"samples: {request.out}, shape {shape_of(sweep, cell, request.every)}"
    if request.every is not None:
        yield "         the first axis is the number of steps; its last entry has the samples"
    if sweep.levels_of(cell).rows[-1].sigma == 0 and not cost.bad:
        sets = sweep.dataset.floor_sets(request.n)
        words = scoring(run, request.out, few=sets is not None and sets < 2)
        if words:
            way = ["frame=last"] if request.every is not None else []
            yield f"score:   {shlex.join([*words, *way])}"


def scoring(run: StoredRun, out: Path, *, few: bool) -> list[str]:
    """The command that scores the samples; empty if the data set is from another package.

    Args:
        few: whether the data set has too few rows for a floor; then all of them are the reference.
    """
    name = str(run.choices.get("dataset"))
    try:
        default = member_node("dataset", name)
    except InvalidSetting:
        return []
    changed = [f"dataset.{k}={v}" for k, v in run.config.dataset.items() if default.get(k) != v]
    metrics = [f"metric={metric}" for metric in list(run.config.metric or {})[:1]]
    of_part = any(run.config.dataset.get(key) is not None for key in ("array", "columns"))
    if few and name in FROM_PATH and not of_part:
        data = [f"reference={run.config.dataset.path}"]
    else:
        data = [f"dataset={name}", *changed]
    return ["samplerbench", "score", str(out), *data, *metrics]
