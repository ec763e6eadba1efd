"""`samplerbench sample RUN …`: samples of a stored run's score model, as many as the disk holds.

    samplerbench sample RUN sampler=heun steps=20 n=100000 out=samples.npy
    samplerbench sample RUN sampler=ddim sampler.eta=0.5 steps=50 n=100 out=way.npy --every 10

The model, the path, the grid and the start are the run's. Other words: `denoiser=oracle`, `grid`
and `start` with their settings (`grid.rho=7`), `seed`, `device`. A member that the run has comes
with the run's settings, any other with those of its yaml. The samples are those of the run's own
cells, bit for bit, and sample i does not depend on n. `--every k` keeps the way, the states after
0, k, 2k, … steps and after the last one: shape (frames, n, dim).

They are written block by block into a hidden file, which gets its name when it is whole.
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

from samplerbench.app.commands.words import read_words, value_of
from samplerbench.errors import InvalidSetting, kind_and_line, require
from samplerbench.files import temporary_name

if TYPE_CHECKING:
    from samplerbench.app.folder.runs import StoredRun
    from samplerbench.bench.cell import Cell
    from samplerbench.bench.sampling import Made
    from samplerbench.bench.sweep import Sweep

#: What has to be given, with an example of each.
NEEDED = {"sampler": "heun", "steps": "20", "n": "1000", "out": "samples.npy"}
OTHER = ("denoiser", "start", "grid", "seed", "device", "every")
GROUPS = ("sampler", "start", "grid")


@dataclass(frozen=True)
class Asked:
    """What the words ask for.

    Args:
        run: the folder.
        out: the file.
        steps: of the sampler.
        n: how many samples.
        every: k of `--every`, or None.
        values: of all words with a key.
    """

    run: Path
    out: Path
    steps: int
    n: int
    every: int | None
    values: Mapping[str, Any]

    def settings(self, group: str) -> dict[str, Any]:
        """What is said of a group's member: {"rho": 7} for `grid.rho=7`."""
        dotted = f"{group}."
        return {
            key.removeprefix(dotted): value
            for key, value in self.values.items()
            if key.startswith(dotted)
        }


def main(words: list[str]) -> None:
    """Sample, write, and say what was done; status 1 if some samples are not finite.

    Raises:
        InvalidSetting: before any work, if it cannot be done.
    """
    asked = read(words)
    # what the words alone can show is checked; from here on it takes seconds
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from samplerbench.app.folder.runs import open_run
    from samplerbench.bench.sampling import sample_into, shape_of

    run = open_run(asked.run)
    sweep, cell = one_cell(run, asked)
    dtype = str(sweep.dtype).removeprefix("torch.")
    columns = (TextColumn("sampling"), BarColumn(), TimeRemainingColumn())
    try:
        with (
            new_array(asked.out, shape_of(sweep, cell, asked.every), dtype) as array,
            Progress(
                *columns,
                console=Console(stderr=True),
                transient=True,
                disable=not sys.stderr.isatty(),
            ) as progress,
        ):
            task = progress.add_task("", total=math.ceil(asked.n / sweep.block))
            made = sample_into(array, sweep, cell, asked.every, lambda: progress.advance(task))
    except KeyboardInterrupt:
        print(f"samplerbench: interrupted; there is no {asked.out}", file=sys.stderr)
        sys.exit(130)
    except (InvalidSetting, OSError):
        raise
    except Exception as error:  # of a sampler that is not ours
        sys.exit(f"samplerbench: {cell.sampler}: {kind_and_line(error)}; there is no {asked.out}")
    for line in report(run, asked, sweep, cell, made):
        print(line)
    if made.bad:
        sys.exit(f"samplerbench: {made.bad:,} of {asked.n:,} samples are not finite")


def read(words: list[str]) -> Asked:
    """The words, checked as far as can be without opening the run.

    Raises:
        InvalidSetting: naming the word and what is allowed.
        HydraException: a value cannot be read.
    """
    folders, texts = read_words("sample", words, (*NEEDED, *OTHER), groups=GROUPS)
    require(len(folders) == 1, "sample", " ".join(folders) or "no folder", "the folder of one run")
    # a path may hold what has a meaning in other values
    values = {k: text if k == "out" else value_of(f"{k}={text}") for k, text in texts.items()}
    for key, example in NEEDED.items():
        require(key in values, key, "", f"given, as in {key}={example}")
    run, out = Path(folders[0]), Path(values["out"])
    steps, n = whole("steps", values["steps"]), whole("n", values["n"])
    every = whole("every", values["every"]) if "every" in values else None
    require(out.suffix == ".npy", "out", out, "a file that ends in .npy")
    writable = out.parent.is_dir() and os.access(out.parent, os.W_OK)
    require(writable, "out", out, "in a folder that is there and can be written to")
    require(not os.path.lexists(out), "out", out, "a new file; what is there is kept")
    return Asked(run, out, steps, n, every, values)


def whole(key: str, value: object) -> int:
    """A whole number, at least 1; 1e5 is one."""
    text = f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)
    good = text.isdecimal() and 1 <= int(text) < 2**40
    require(good, key, value, "a whole number, at least 1")
    return int(text)


def one_cell(run: StoredRun, asked: Asked) -> tuple[Sweep, Cell]:
    """The run's sweep with what is asked for in it, and the one cell that is sampled.

    Raises:
        InvalidSetting: the run has no such model, or the sampler cannot run on it.
    """
    from samplerbench.app.config.construct import construct, construct_grid, convert
    from samplerbench.app.job.rebuild import rebuild
    from samplerbench.bench.cell import Cell
    from samplerbench.bench.sampling import require_runs

    name, start = str(asked.values["sampler"]), first_start(run, asked)
    samplers = construct_grid(node(run, asked, "sampler", name), "sampler")
    allowed = "one method: its lists need one value each, as in sampler.eta=0.5"
    require(len(samplers) == 1, "sampler", name, allowed)
    changed: dict[str, Any] = {
        "n_samples": asked.n,
        "starts": {start: construct(node(run, asked, "start", start), "start")},
    }
    if "grid" in asked.values or asked.settings("grid"):
        grid = str(asked.values.get("grid", run.choices.get("grid")))
        changed["grid"] = construct(node(run, asked, "grid", grid), "grid")
    if "seed" in asked.values:
        changed["seed"] = convert(asked.values["seed"], int, "seed")
        require(changed["seed"] >= 0, "seed", changed["seed"], "at least 0")
    device = {"device": asked.values["device"]} if "device" in asked.values else {}
    sweep = rebuild(run, **device).sweep
    denoisers = dict(sweep.denoisers)
    oracle = sweep.dataset.exact_score(sweep.schedule)
    if oracle is not None:
        denoisers.setdefault("oracle", oracle.to(sweep.device))
    denoiser = str(asked.values.get("denoiser", "learned"))
    allowed = f"one of {', '.join(denoisers)}" if denoisers else "of another run: this has none"
    require(denoiser in denoisers, "denoiser", denoiser, allowed)
    sweep = replace(sweep, denoisers=denoisers, **changed)
    start = next(iter(sweep.starts_of(samplers[0])))  # chains have no prior
    cell = Cell(denoiser, start, name, samplers[0], asked.steps, repetition=0)
    require_runs(sweep, cell)
    return sweep, cell


def first_start(run: StoredRun, asked: Asked) -> str:
    """The name of the start that is asked for, or of the run's first one."""
    return str(asked.values.get("start", next(iter(run.config.start))))


def node(run: StoredRun, asked: Asked, group: str, name: str) -> DictConfig:
    """The member of a group with the settings that are asked for: the run's own, or a yaml's.

    A name with dots is a class, of a package that is trusted.
    """
    from samplerbench.app.config.compose import member

    # the grid's node is the group itself, the others have one for each name
    own = {run.choices.get(group): run.config[group]} if group == "grid" else run.config[group]
    if name in (own or {}):
        found = own[name]
    elif "." in name:
        found = OmegaConf.create({"_target_": name})
    else:
        found = member(group, name)
    merged = OmegaConf.merge(found, asked.settings(group))
    assert isinstance(merged, DictConfig)
    return merged


@contextmanager
def new_array(out: Path, shape: tuple[int, ...], dtype: str) -> Iterator[NDArray[np.floating]]:
    """An array on the disk, to be filled: it gets its name at the end, or is gone.

    Raises:
        InvalidSetting: there is no room for it, or the file was made meanwhile.
    """
    hidden = temporary_name(out)
    try:
        yield from _filled(hidden, shape, dtype, out)
        require(not os.path.lexists(out), "out", out, "a new file; it was made meanwhile")
        hidden.rename(out)
    finally:
        hidden.unlink(missing_ok=True)


def _filled(
    hidden: Path, shape: tuple[int, ...], dtype: str, out: Path
) -> Iterator[NDArray[np.floating]]:
    size = math.prod(shape) * np.dtype(dtype).itemsize
    free = shutil.disk_usage(out.parent).free
    require(size < free, "out", out, f"where {size / 1e6:,.0f} MB are free, not {free / 1e6:,.0f}")
    try:
        array = np.lib.format.open_memmap(hidden, "w+", dtype, shape)
        if hasattr(os, "posix_fallocate"):  # writing where the disk is full would end the process
            with hidden.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, hidden.stat().st_size)
    except OSError as error:
        allowed = f"a file that can be written ({error.strerror})"
        raise InvalidSetting("out", out, allowed) from error
    yield array
    array.flush()


def report(run: StoredRun, asked: Asked, sweep: Sweep, cell: Cell, made: Made) -> Iterator[str]:
    """What was done, where it is, and how to score it."""
    from samplerbench.bench.cell import sampler_name
    from samplerbench.bench.sampling import shape_of
    from samplerbench.identity import settings_text

    name = sampler_name(cell.sampler, settings_text(cell.settings))
    yield (
        f"{name}, N={cell.steps}, {cell.denoiser} score, {cell.start} start: {asked.n:,} samples, "
        f"NFE {made.nfe}, {made.seconds:.1f} s"
    )
    yield f"samples: {asked.out}, shape {shape_of(sweep, cell, asked.every)}"
    if asked.every is not None:
        yield "         the first axis is the way; its last entry are the samples"
    elif sweep.levels(cell.steps, cell.settings).rows[-1].sigma == 0:
        words = scoring(run, asked.out)
        if words:
            yield f"score:   {shlex.join(words)}"


def scoring(run: StoredRun, out: Path) -> list[str]:
    """The command that scores samples of the run's data, or nothing where they are not ours."""
    from samplerbench.app.config.compose import member

    name = str(run.choices.get("dataset"))
    try:
        default = member("dataset", name)
    except InvalidSetting:
        return []
    changed = [f"dataset.{k}={v}" for k, v in run.config.dataset.items() if default.get(k) != v]
    metrics = [f"metric={metric}" for metric in list(run.config.metric or {})[:1]]
    return ["samplerbench", "score", str(out), f"dataset={name}", *changed, *metrics]
