"""`samplerbench recommend RUN nfe=10`: the best sampler and grid for a number of evaluations.

    samplerbench recommend RUN nfe=10
    samplerbench recommend dataset=two_moons nfe=10
    samplerbench recommend RUN nfe=8 'sampler=[ddim,heun,unipc]' 'grid=[karras,log_snr]'

All samplers race on all grids, with the settings of the run and of their yaml files: ddim runs with
several η. Samplers without noise are compared by the distance of their paths to a converged run,
samplers with noise by the distance of their samples to the data; see `bench.course`. The answer has
three lines: what to use, how much better it is than the default (the first sampler of the run on
the grid of the run), and what is not distinguishable from it. A table of the finalists, the levels
and a command that uses the winner follow. The table uses other random starts than the choice did.

The model and the path are those of the run, or the exact denoiser of `dataset` on the path
`schedule`, both with their settings (`schedule.sigma_max=80`). Other words: `sampler` and `grid`,
names or lists of names that restrict the race; `denoiser` and `start`, one name each; `seed`;
`device`; `out`, a new .csv file with a row for every entrant. Samplers of other packages race only
if the command names them.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from samplerbench.app.commands.output import new_path, whole_or_nothing
from samplerbench.app.commands.sample import whole
from samplerbench.app.commands.words import read_words, value_of
from samplerbench.app.config.compose import compose_config, member_node
from samplerbench.app.config.construct import construct, convert
from samplerbench.app.folder.runs import open_run
from samplerbench.app.terminal import console
from samplerbench.bench.rounding import counted
from samplerbench.errors import require

if TYPE_CHECKING:  # torch is slow to import
    from samplerbench.bench.recommendation import Recommendation
    from samplerbench.bench.sweep import Sweep

#: Keys of the law and the path, which a run determines.
LAW = ("dataset", "schedule")
OTHER = ("sampler", "grid", "denoiser", "start", "seed", "device", "out")
#: The smallest width of the column of names, where longer names are folded; the gap of columns.
NAMES, GAP = 24, 2


def main(words: list[str]) -> None:
    """Race and print."""
    folders, texts = read_words("recommend", words, ("nfe", *LAW, *OTHER), groups=LAW)
    values = {k: text if k == "out" else value_of(f"{k}={text}") for k, text in texts.items()}
    require("nfe" in values, "nfe", "", "given, as in nfe=10")
    nfe = whole("nfe", values["nfe"])
    named = {key: _names(key, values[key]) for key in ("sampler", "grid") if key in values}
    out = new_path(Path(values["out"]), "file") if "out" in values else None
    require(out is None or out.suffix == ".csv", "out", out, "a file that ends in .csv")
    allowed = "followed by one folder of a run, such as multirun/NAME, or by dataset=NAME"
    given = len(folders) == (0 if "dataset" in values else 1)
    require(given, "", " ".join(["recommend", *folders]), allowed)
    law = [f"{key}={text}" for key, text in texts.items() if key.partition(".")[0] in LAW]
    require(not (folders and law), "recommend", law[:1], "a run, which has its own data and path")
    # slow: imports torch
    from samplerbench.app.job.racing import racing_grids, racing_samplers, recommended

    sweep = _restricted(_run_sweep(folders[0], values) if folders else _law_sweep(law), values)
    samplers = racing_samplers(sweep, named.get("sampler"))
    levels = racing_grids(sweep, named.get("grid"))
    found = recommended(sweep, nfe, samplers=samplers, levels=levels, progress=_bar)
    for line in [*found.lines, ""]:
        print(line)
    _print_table(_table(found))
    print(f"levels (σ/α): {_levels(found)}")
    place = ["sample", folders[0]] if folders else [*law, "denoiser=[oracle]"]
    print(f"command: {shlex.join(['samplerbench', *place, *using(found, sweep, bool(folders))])}")
    print(
        f"{counted(found.raced, 'entrant')}, {len(found.refused)} could not run; "
        f"{found.evaluations:,} evaluations of one state, {found.seconds:.0f} s"
    )
    if out is not None:
        with whole_or_nothing(out) as path:
            path.write_text(found.table.to_csv(index=False), encoding="utf-8", errors="replace")


def _names(key: str, value: object) -> list[str]:
    listed = value if isinstance(value, list) else [value]
    names = [name for name in listed if isinstance(name, str)]
    good = 0 < len(listed) == len({*names})
    require(good, key, value, "a name, or a list of different names")
    return names


def _run_sweep(folder: str, values: Mapping[str, Any]) -> Sweep:
    from samplerbench.app.job.rebuild import rebuild

    device = {"device": values["device"]} if "device" in values else {}
    return rebuild(open_run(Path(folder)), **device).sweep


def _law_sweep(words: Sequence[str]) -> Sweep:
    from samplerbench.app.job.objects import exact_sweep

    config, chosen = compose_config(words)
    law = str(chosen["dataset"]), construct(config.dataset, "dataset")
    return exact_sweep(law, None, words)


def _restricted(sweep: Sweep, values: Mapping[str, Any]) -> Sweep:
    """The sweep with one denoiser, one start, and the seed."""
    from samplerbench.core.models import Denoiser

    denoisers, starts = dict(sweep.denoisers), dict(sweep.starts)
    oracle = sweep.dataset.exact_score(sweep.schedule)
    if oracle is not None:
        denoisers.setdefault("oracle", oracle.to(sweep.device))
    fitting = {name: one for name, one in denoisers.items() if isinstance(one, Denoiser)}
    denoiser = str(values.get("denoiser", next(iter(fitting), "none")))
    allowed = "one for all noise levels, which is not known here: train one, then recommend RUN"
    allowed = f"one of {', '.join(fitting)}" if fitting else allowed
    require(denoiser in fitting, "denoiser", denoiser, allowed)
    if "start" in values:
        name = str(values["start"])
        own = starts.get(name)
        starts = {name: construct(member_node("start", name), "start") if own is None else own}
    start = next((name for name, one in starts.items() if one.held is not True), "")
    require(bool(start), "start", ", ".join(starts), "one for samplers that move, such as prior")
    seed = convert(values["seed"], int, "seed") if "seed" in values else sweep.seed
    require(seed >= 0, "seed", seed, "at least 0")
    one = {denoiser: denoisers[denoiser]}
    return replace(sweep, denoisers=one, starts={start: starts[start]}, seed=seed)


def using(found: Recommendation, sweep: Sweep, is_run: bool) -> list[str]:
    """The words that use the winner, in `sample` for a run, or in a job."""
    from samplerbench.app.job.racing import own_grid
    from samplerbench.bench.cell import setting_text
    from samplerbench.bench.design import DESIGNED, ratios

    entrant = found.entrant
    place = "sampler" if is_run else f"sampler.{entrant.name}"
    settings = [
        f"{place}.{one.name}={setting_text(getattr(entrant.sampler, one.name))}"
        for one in fields(entrant.sampler)  # type: ignore[arg-type]  # members are dataclasses
    ]
    grid = [f"grid={entrant.grid}"]
    if entrant.grid == DESIGNED:
        listed = ",".join(map(repr, ratios(entrant.levels)))
        grid = ["grid=custom", f"grid.ratios=[{listed}]"]
    if entrant.sampler.brings_levels or (is_run and entrant.grid == own_grid(sweep)):
        grid = []
    if is_run:
        start = [f"start={next(iter(sweep.starts))}"]
        end = [f"denoiser={next(iter(sweep.denoisers))}", f"steps={found.steps}"]
        return [
            f"sampler={entrant.name}",
            *settings,
            *grid,
            *start,
            *end,
            "n=1000",
            "out=samples.npy",
        ]
    start = [f"start=[{next(iter(sweep.starts))}]"]
    return [f"sampler=[{entrant.name}]", *settings, *grid, *start, f"steps=[{found.steps}]"]


def _levels(found: Recommendation) -> str:
    rows = found.levels.rows
    return " ".join(f"{row.sigma / row.alpha:.5g}" if row.alpha > 0 else "∞" for row in rows)


def _table(found: Recommendation) -> Table:
    from samplerbench.bench.race import EXACT, LAWS, PATHS

    law = EXACT if any(one.kind == EXACT for one in found.verdict.measured) else LAWS
    title = "law, W₂" if law == EXACT else "law,\nsquared energy"
    table = Table(box=None, pad_edge=False)
    table.add_column("sampler", overflow="fold")
    for name in ("paths, rms / sd", "times", "p", title, "more", "p"):
        table.add_column(name)
    measured = found.verdict.measured
    for name in dict.fromkeys(one.standing.entrant.label for one in measured):
        cells = []
        for kind in (PATHS, law):
            of_kind = (one for one in measured if one.kind == kind)
            own = next((one for one in of_kind if one.standing.entrant.label == name), None)
            cells += ["", "", ""] if own is None else list(found.cells(own))
        table.add_row(name, *cells)
    return table


def _print_table(table: Table) -> None:
    """Print all columns: a table that is wider than its console loses the last ones."""
    names, *others = table.columns
    for column in others:
        texts = [*str(column.header).splitlines(), *map(str, column.cells)]
        column.width = max(map(len, texts))
    rest = sum((column.width or 0) + GAP for column in others)
    wide = console(max(120, NAMES + rest))
    names.width = min(wide.width - rest, max(len(str(cell)) for cell in names.cells))
    wide.print(table)


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None]]:
    columns = (TextColumn("racing"), BarColumn(), TimeRemainingColumn())
    quiet = not sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=quiet) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, completed=done)
