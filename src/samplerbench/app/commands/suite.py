"""`samplerbench suite`: all samplers on fixed tasks, in versions; see docs/suite.md.

    samplerbench suite                                     all tasks, all entrants
    samplerbench suite suite=quick                         a few tasks, in minutes
    samplerbench suite suite=v1                            an earlier version
    samplerbench suite results=FOLDER                      only tasks without results in a folder
    samplerbench suite sampler=heun                        one entrant: its entry
    samplerbench suite --config-dir conf trusted=lab sampler=mine
    samplerbench suite hydra/launcher=joblib               on several processes, as any multirun
    samplerbench suite page FOLDER|ENTRY...                the page from finished tasks and entries
    samplerbench suite table FOLDER|ENTRY...               a number of the page's tables again
    samplerbench suite verify ENTRY                        run a part of an entry again

The suite is one multirun of jobs, `experiment=suite/v1/LAW-PATH`, each of which can be run alone.
Version 2 has the tasks of version 1, which do not change, and those in conf/experiment/suite/v2.
Give the command again to continue an interrupted suite; values in the cache are not computed again.
`results=` takes the values of the tasks of an earlier version from its results, as they are.
Other words are those of a multirun; `hydra.sweep.dir` is the folder, by default multirun/suite-v2.
It gets `results.parquet`, one row per value, and the page `index.html`. With `sampler=…` it also
gets an entry, `entry.parquet`. `verify` checks some cells of an entry, by default `cells=12`, also
from other starts, which a random `seed` determines. A value that a sampler cannot give is marked ×
with the reason, and counts as unsolved. `table` prints the standings among the problems and
samplers that its words choose, such as `grid=own path=edm noise=without`: all rows, the row of
`entrant=NAME`, or the ratio of its runtimes to those of `over=NAME`.
"""

from __future__ import annotations

import math
import os
import secrets
import shlex
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from rich.table import Table

from samplerbench.app.commands.sample import whole
from samplerbench.app.commands.words import read_words, split_member_words, value_of
from samplerbench.app.config.construct import trusting
from samplerbench.app.config.folders import adding, conf_directory
from samplerbench.app.folder.runs import CONFIG, STATUS
from samplerbench.app.terminal import console, shown
from samplerbench.errors import choice, refusing, require

#: The versions of the suite. A version has the tasks of its own folder and of all earlier ones.
VERSIONS = ("v1", "v2")
VERSION = VERSIONS[-1]
#: Each sampler runs on the best of these grids for it, at each number of evaluations.
OWN_GRIDS = ("karras", "log_snr", "uniform", "quadratic", "tangent")
#: The tasks and the words of suite=quick.
QUICK = (
    *("v1/two_moons-vp_linear", "v1/grid_mixture-edm", "v1/gaussian-vp_linear"),
    *("v1/four_wells-rectified", "v2/two_moons-vp_linear-learned"),
)
QUICK_WORDS = ("nfe=[4,8,16,32]", "n_samples=128")
#: The end of the size of a quick run, and all sizes, as in entries and verdicts.
TRIAL = " quick"
SIZES = [version + kind for version in VERSIONS for kind in ("", TRIAL)]
#: The results, the output of the jobs, and the rows of the table that are printed.
RESULTS, OUTPUT, PRINTED = "results.parquet", "output.txt", 15
#: In a folder of jobs, the results of tasks that another folder had before.
EARLIER = "earlier.parquet"
#: What `suite table` can choose by the values of a column.
CHOICES = ("law", "path", "denoiser", "quantity", "grid", "noise", "order")
#: The file of an entry.
ENTRY = "entry.parquet"
#: Prefixes of the tasks of samplers that draw noise, and of the tasks that only these have.
NOISY_TASKS, ONLY_NOISY = ("four_wells_noisy", "gaussian"), "four_wells_noisy"


def main(words: list[str]) -> None:
    """Run the suite, make its page, or verify an entry.

    Raises:
        InvalidSetting: before any work, for a word that is not used.
    """
    parts = {"page": _page, "table": _table, "verify": _verify}
    if words[:1] == [] or words[0] not in parts:
        sys.exit(_run(words))
    folders, packages, rest = split_member_words(words[1:])
    with adding(folders), trusting(packages):
        parts[words[0]](rest)


def tasks(version: str = VERSION) -> list[str]:
    """The names of the tasks of a version, such as v1/tree-edm, by law and path."""
    found = [f"{one}/{path.stem}" for one in VERSIONS for path in _folder(one).glob("*.yaml")]
    return sorted(_until(version, found))


def _until(version: str, names: Sequence[str]) -> list[str]:
    """The names of tasks without those that are new in later versions."""
    known = VERSIONS[: VERSIONS.index(version) + 1]
    return [name for name in names if name.partition("/")[0] in known]


def _of_size(size: str) -> tuple[Sequence[str], Sequence[str]]:
    """The tasks of a suite of this size, and the words that commands of its jobs may have."""
    require(size in SIZES, "entry.suite", size, f"one of {', '.join(SIZES)}")
    version = size.removesuffix(TRIAL)
    if size != version:
        return _until(version, QUICK), ("grids=null", *QUICK_WORDS)
    return tasks(version), ("grids=null", f"grids=[{','.join(OWN_GRIDS)}]")


def _folder(version: str) -> Path:
    return conf_directory() / "experiment" / "suite" / version


def _run(words: Sequence[str]) -> int:
    """Run the jobs and write the results; return the exit status."""
    size, own = _taken("suite", words, VERSION)
    sizes = {"quick": VERSION + TRIAL, **dict(zip(SIZES, SIZES, strict=True))}
    require(size in sizes, "suite", size, f"left out, or one of {', '.join(sizes)}")
    size = sizes[size]
    names = list(_of_size(size)[0])
    quick = size.endswith(TRIAL)
    before, own = _taken("results", own)
    entry = [word.partition("=")[2] for word in own if word.startswith("sampler=")]
    from samplerbench.app.job.suite import PLACES

    free = ("sampler", "trusted", *PLACES)
    for word in own:
        fixed = "=" in word and _group(word) not in free
        allowed = f"left out: the tasks of the suite are fixed; free are {', '.join(free)}"
        require(not fixed, "suite", word, allowed)
    for chosen in entry:  # the jobs of a multirun would be other suites
        allowed = f"one sampler, or a list in brackets: sampler=[{chosen}]"
        require("," not in chosen or chosen[0] in "[{", "sampler", chosen, allowed)
    noisy = _checked(own)
    if entry:
        allowed = "left out with sampler=: values of an earlier version come from the cache"
        require(before is None, "results", before, allowed)
        allowed = "samplers that all draw noise, or all draw none: they have different tasks"
        require(len(noisy) == 1, "sampler", entry[-1], allowed)
        names = _tasks_of_kind(names, True in noisy)
        _require_measurable(names, own, QUICK_WORDS if quick else ())
    else:
        _require_packages()
    default = f"multirun/suite-{size.replace(' ', '-')}"
    if entry:
        default += f"-{entry[-1].strip('[]').replace(',', '-')}"
    places = [word.partition("=")[2] for word in own if word.startswith("hydra.sweep.dir=")]
    folder = Path(places[-1] if places else default)
    folders, packages, rest = split_member_words(own)
    with adding(folders), trusting(packages):
        earlier = None if entry else _earlier(before, folder, size)
    if earlier is not None:
        names = _without_results(names, earlier)
    grids = "null" if quick else f"null,[{','.join(OWN_GRIDS)}]"
    jobs = len(names) * (1 if quick else 2)
    listed = ",".join(f"suite/{name}" for name in names)
    options = [word for one in folders for word in ("--config-dir", str(one))]
    trusted = [word for word in own if word.startswith("trusted=")]
    swept = [*options, "-m", f"experiment={listed}", f"grids={grids}", *trusted]
    swept += [*(QUICK_WORDS if quick else ()), *rest]
    if not places:
        swept.append(f"hydra.sweep.dir={folder}")
    require(not folder.is_file(), "hydra.sweep.dir", folder, "a folder")
    require(places[-1:] != [""], "hydra.sweep.dir", "", "the name of a folder")
    with refusing("hydra.sweep.dir", folder, "a folder that can be made and written"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / OUTPUT).open("a", encoding="utf-8").close()
        if earlier is not None:
            earlier.to_parquet(folder / EARLIER, index=False)
    print(f"{jobs} jobs in {folder}; their output: {folder / OUTPUT}", flush=True)
    status = 0
    with _counting(folder, jobs):
        from samplerbench.app.commands import run  # it imports Hydra

        try:
            with _printing_to(folder / OUTPUT):
                run.main(swept)
        except SystemExit as ended:
            status = int(ended.code or 0)
            if status != 1:  # refused, or interrupted
                raise
    with adding(folders), trusting(packages):
        _written([folder], folder, size)
        if entry:
            from samplerbench.app.job.suite import entry_of

            entry_of(folder, folder / ENTRY, size, shlex.join(["samplerbench", "suite", *words]))
            check = ["samplerbench", "suite", "verify", str(folder / ENTRY), *options, *trusted]
            print(f"entry for {size}: {shown(folder / ENTRY)}; {shlex.join(check)}")
    return status


def _taken(key: str, words: Sequence[str], default: Any = None) -> tuple[Any, list[str]]:
    """The value of a key that is given at most once, and the other words."""
    found = [word.partition("=")[2] for word in words if word.partition("=")[0] == key]
    require(len(found) < 2, key, ",".join(found), "given once")
    rest = [word for word in words if word.partition("=")[0] != key]
    return (*found, default)[0], rest


def _earlier(before: str | None, folder: Path, size: str) -> Any:
    """The results of other tasks, from `results=` or from the same command before; None if none."""
    if before is None:
        import pandas as pd

        there = (folder / EARLIER).exists()
        return pd.read_parquet(folder / EARLIER) if there else None
    found, results = _together([Path(before)])
    allowed = f"results of an earlier version than {size}"
    require(found in VERSIONS and size in VERSIONS and found < size, "results", before, allowed)
    return results


def _without_results(names: Sequence[str], earlier: Any) -> list[str]:
    """The tasks without results; refuse results of entrants that the other tasks do not have."""
    from samplerbench.app.config.compose import compose_config
    from samplerbench.app.config.groups import samplers_of
    from samplerbench.bench.cell import sampler_name
    from samplerbench.identity import settings_text

    experiments = {name: f"experiment=suite/{name}" for name in names}
    there = {word for command in earlier["command"].unique() for word in shlex.split(command)}
    left = [name for name in names if experiments[name] not in there]
    known = {
        sampler_name(sampler, settings_text(one))
        for name in left
        for sampler, one in samplers_of(compose_config([experiments[name]])[0])
    }
    more = ", ".join(sorted({*earlier["entrant"]} - known))
    require(not more, "results", more, "those of the entrants of the suite alone")
    return left


def _group(word: str) -> str:
    """The group of a word: sampler of +sampler.mine.order=2."""
    return word.lstrip("+~").partition("=")[0].partition(".")[0].partition("/")[0]


def _tasks_of_kind(names: Sequence[str], noise: bool) -> list[str]:
    """The tasks of entrants with noise, or of those without."""
    if noise:
        return [name for name in names if name.partition("/")[2].startswith(NOISY_TASKS)]
    return [name for name in names if not name.partition("/")[2].startswith(ONLY_NOISY)]


def _require_measurable(names: Sequence[str], words: Sequence[str], size: Sequence[str]) -> None:
    """Before any work, refuse entrants that have no measurable value in any task."""
    from samplerbench.app.job.suite import why_no_value

    folders, packages, rest = split_member_words(words)
    given = [word for word in rest if _group(word) == "sampler"]
    with adding(folders), trusting(packages):
        for name in names:
            reason = why_no_value([f"experiment=suite/{name}", *size, *given])
            if reason is None:
                return
    allowed = f"one that can be measured on at least one of its {len(names)} tasks"
    value = " ".join(given).removeprefix("sampler=")
    require(False, "sampler", value, f"{allowed} ({names[-1]}: {reason})")


def _size(results: Any) -> str:
    """The size of the suite that results are from, by the commands of their jobs."""
    words = [shlex.split(one) for one in results["command"].unique()]
    quick = {QUICK_WORDS[0] in one for one in words}
    if len(quick) > 1:
        return "both"
    version = max([_version(word) for one in words for word in one], default=VERSIONS[0])
    return version + (TRIAL if quick == {True} else "")


def _version(word: str) -> str:
    """The version that has the task of a word `experiment=suite/v1/…`; the first for others."""
    found = [one for one in VERSIONS if word.startswith(f"experiment=suite/{one}/")]
    return (*found, VERSIONS[0])[0]


def _require_packages() -> None:
    """Before any work, refuse a suite of all entrants if the packages of some are missing."""
    from samplerbench.samplers.azula import Azula
    from samplerbench.samplers.diffusers import Diffusers
    from samplerbench.samplers.k_diffusion import KDiffusion

    for peer in (Diffusers, KDiffusion, Azula):
        peer.installed()


def _checked(words: Sequence[str]) -> set[bool]:
    """Whether the samplers of a command draw noise; its words are checked before any work.

    Raises:
        InvalidSetting: a word is not one of a job, or a sampler cannot be built.
    """
    from samplerbench.app.config.compose import compose_config
    from samplerbench.app.config.groups import samplers_of
    from samplerbench.app.config.numbers import check_numbers, whole_number
    from samplerbench.app.job.basis import chosen_cache

    folders, packages, rest = split_member_words(words)
    for word in rest:
        good = "=" in word or word.startswith("~")
        allowed = "key=value, such as suite=quick; page, table and verify come first"
        require(good, "suite", word, allowed)
    with adding(folders), trusting(packages):
        of_jobs = [word for word in rest if not word.lstrip("+~").startswith("hydra")]
        config, _ = compose_config(of_jobs)
        check_numbers(config)
        chosen_cache(config)
        if config.workers is not None:
            whole_number(config, "workers")
        return {sampler.stochastic for _, sampler in samplers_of(config)}


@contextmanager
def _printing_to(path: Path) -> Iterator[None]:
    """Append standard output to a file, also that of processes that start within the block.

    The workers of joblib inherit the file descriptor, not Python's `sys.stdout`.
    """
    with path.open("a", encoding="utf-8") as log:
        before = os.dup(1)
        os.dup2(log.fileno(), 1)
        try:
            with redirect_stdout(log):
                yield
        finally:
            os.dup2(before, 1)
            os.close(before)


@contextmanager
def _counting(folder: Path, jobs: int) -> Iterator[None]:
    """Within the block, show on the terminal how many jobs have ended."""
    if not sys.stderr.isatty():
        yield
        return
    done = threading.Event()

    def count() -> None:
        while not done.wait(2):
            texts = (path.read_text(encoding="utf-8") for path in folder.glob(f"*/{STATUS}"))
            ended = sum('"running"' not in text for text in texts)
            print(f"\r{ended} of {jobs} jobs", end="", file=sys.stderr, flush=True)

    thread = threading.Thread(target=count, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        print(file=sys.stderr)


def _page(words: Sequence[str]) -> None:
    """Make the page of finished tasks."""
    places, values = read_words("suite page", words, ("out",))
    folders = [Path(place) for place in places]
    require(bool(folders), "suite", "page", "followed by folders of a suite")
    given = "out" in values or not (folders[0].is_file() or _only_results(folders[0]))
    require(given, "out", "not given", f"a folder: the results in {folders[0]} stay as they are")
    out = Path(values["out"]) if "out" in values else folders[0]
    require(not out.is_file(), "out", out, "a folder")
    _written(folders, out)


def _written(folders: Sequence[Path], place: Path, size: str | None = None) -> None:
    """Write results, page and figures of the jobs in folders; print the table.

    Args:
        size: the size of the suite, if the tasks of its entrants could also be those of another.
    """
    from samplerbench.bench.rounding import counted
    from samplerbench.bench.suite.entry import unsolved_tasks
    from samplerbench.bench.suite.results import TARGETS
    from samplerbench.bench.suite.standing import runtimes, standing
    from samplerbench.figures.suite import write_suite_figures
    from samplerbench.report.suite_page import write_suite_page

    found, results = _together(folders)
    size = size or found
    with refusing("out", place, "a folder that can be made and written"):
        place.mkdir(parents=True, exist_ok=True)
        (place / RESULTS).open("ab").close()
    results.to_parquet(place / RESULTS, index=False)
    solved = runtimes(results, TARGETS)
    for (grid, noise), rows in solved.groupby(["grid", "noise"], sort=True):
        table = standing(rows)
        kind = "with" if noise else "without"
        first, unranked = table.head(PRINTED), table["rank"].isna()
        of = f"the first {len(first)} of {counted(len(table), 'sampler')}"
        of = of if len(first) < len(table) else counted(len(table), "sampler")
        crosses = _crosses(results[(results["grid"] == grid) & (results["noise"] == noise)])
        _print(f"Suite {size}, samplers {kind} noise, {grid} grid: {of}", first, crosses)
        if unranked.any():
            print(
                f"{int(unranked.sum())} of them have no rank: they have less than half of "
                f"the {table['all_problems'].iloc[0]} problems"
            )
    for line in unsolved_tasks(results):
        print(f"×: {line}")
    for path in write_suite_figures(results, place, TARGETS):
        print(f"figure:  {shown(path)}")
    print(f"page:    {shown(write_suite_page(results, place, TARGETS, size))}")
    print(f"results: {shown(place / RESULTS)}")
    if solved["entrant"].nunique() > PRINTED:
        print(f"all rows: {shlex.join(['samplerbench', 'suite', 'table', str(place)])}")


def _together(places: Sequence[Path]) -> tuple[str, Any]:
    """The results of folders and entries, which must have each value once, and their size."""
    import pandas as pd

    from samplerbench.bench.suite.entry import KEY
    from samplerbench.bench.suite.results import with_records

    parts = {place: with_records(_read(place)) for place in places}
    sizes = {place: _size(rows) for place, rows in parts.items()}
    listed = ", ".join(f"{path} is {size}" for path, size in sizes.items())
    results = pd.concat(parts.values(), ignore_index=True)
    size = _size(results)
    require(size != "both", "suite", listed, "all of one size")
    _require_versions(results, listed)
    twice = results.loc[results.duplicated(KEY), KEY]
    example = " ".join(map(str, twice.head(1).to_numpy().ravel()))
    allowed = f"with each value once: {len(twice)} occur again, the first is {example}"
    require(twice.empty, "suite", ", ".join(map(str, places)), allowed)
    return size, results


def _require_versions(results: Any, listed: str) -> None:
    """Refuse entrants without values of the newest version beside entrants that have some."""
    words = results["command"].drop_duplicates()
    versions = words.map(lambda one: max(map(_version, shlex.split(one)), default=VERSIONS[0]))
    version = results["command"].map(dict(zip(words, versions, strict=True)))
    new = results[version == version.max()]
    older = results[results["noise"].isin(new["noise"]) & ~results["entrant"].isin(new["entrant"])]
    found = f"{listed}: no value of {', '.join(sorted({*older['entrant']}))}"
    allowed = f"with the tasks of {version.max()} for every entrant, or for none"
    require(older.empty, "suite", found, allowed)


def _table(words: Sequence[str]) -> None:
    """Print the standings among chosen problems and samplers, or a ratio of two of these."""
    from samplerbench.bench.rounding import counted
    from samplerbench.bench.suite.results import TARGETS
    from samplerbench.bench.suite.standing import ratio, runtimes, standing

    places, values = read_words(
        "suite table", words, (*CHOICES, "targets", "entrant", "over", "unit")
    )
    require(bool(places), "suite", "table", "followed by folders of a suite")
    size, results = _together(list(map(Path, places)))
    unit = values.get("unit", "task")
    require(unit in ("task", "law"), "unit", unit, "task or law")
    solved = runtimes(results, TARGETS)
    for name in CHOICES:
        if name in values:
            texts, known = _choice(name, results), _choice(name, solved)
            allowed = f"one of {', '.join(sorted({*known}))}"
            require(values[name] in {*known}, name, values[name], allowed)
            results, solved = results[texts == values[name]], solved[known == values[name]]
    if "targets" in values:
        named = solved["quantity"] + ":" + solved["target"].map("{:g}".format)
        targets, left = values["targets"].split(","), ", ".join(dict.fromkeys(named))
        require({*targets} <= {*named}, "targets", values["targets"], f"a list from {left}")
        solved = solved[named.isin(targets)]
        results = results[results["quantity"].isin(solved["quantity"])]
    require(len(solved) > 0, "suite", " ".join(words), "words that leave some problem")
    for name in ("entrant", "over"):
        known = sorted({*solved["entrant"]})
        allowed = choice(values.get(name, ""), known, "an entrant, as the table names it")
        require(name not in values or values[name] in known, name, values.get(name), allowed)
    allowed = "given with entrant=: the ratio of its runtimes to those of over="
    require("over" not in values or "entrant" in values, "over", values.get("over"), allowed)
    said = [f"{name} {values[name]}" for name in (*CHOICES, "targets") if name in values]
    for grid, own in solved.groupby("grid", sort=True):
        if "over" in values:
            one = ratio(own, values["entrant"], values["over"], str(grid), unit)
            found = (
                f"{one.value:.3g}{_ends(one.lower, one.upper)} over {counted(one.tasks, 'task')}, "
                f"{counted(one.problems, 'problem')}"
            )
            none = "no ratio: no problem that both have is solved by one of them"
            print(
                f"{values['entrant']} over {values['over']}, {grid} grid: "
                f"{found if one.problems else none}"
            )
            continue
        lines = standing(own, unit)
        rows = lines[lines["entrant"] == values.get("entrant", lines["entrant"])]
        chosen = said if "grid" in values else [f"grid {grid}", *said]
        title = f"Suite {size}, {', '.join(chosen)}: {len(rows)} of {len(lines)}"
        _print(title, rows, _crosses(results[results["grid"] == grid]), runtime=True)


def _choice(name: str, table: Any) -> Any:
    """The column of a choice of `suite table`, as the words that choose from it."""
    if name == "noise":
        return table["noise"].map({True: "with", False: "without"})
    if name == "order":
        return table["order"].map("{:g}".format).replace("nan", "not stated")
    return table[name]


def _crosses(results: Any) -> dict[str, int]:
    """The number of values that failed or could not be measured, by entrant."""
    from samplerbench.bench.suite.standing import not_counted

    bad = results[(results["status"] != "ok") & ~not_counted(results)]
    return {str(name): int(count) for name, count in bad.groupby("entrant").size().items()}


def _only_results(folder: Path) -> bool:
    """Whether a folder has results but not the jobs that made them, as in the gallery."""
    return (folder / RESULTS).exists() and not any(folder.rglob(CONFIG))


def _read(folder: Path) -> Any:
    """The results of an entry file, of a folder with results only, or of a folder of jobs."""
    import pandas as pd

    from samplerbench.app.job.suite import suite_results
    from samplerbench.bench.suite.entry import read_entry

    if folder.is_file():
        results, about = read_entry(folder)
        size, found = about["suite"], _size(results)
        _of_size(size)
        # entrants with noise have no task that is new in version 2 in its quick size
        earlier = found in SIZES and found <= size
        same = earlier and found.endswith(TRIAL) == size.endswith(TRIAL)
        require(same, "entry", folder, f"all of {size}")
        return results
    if _only_results(folder):
        return pd.read_parquet(folder / RESULTS)
    results, earlier = suite_results(folder), folder / EARLIER
    return pd.concat([pd.read_parquet(earlier), results]) if earlier.exists() else results


def _print(title: str, rows: Any, crosses: Mapping[str, int], runtime: bool = False) -> None:
    """Print a table of standings, with the number of values without a result.

    Args:
        runtime: whether to add the mean runtime with its interval.
    """
    import pandas as pd

    solved = [name for name in rows.columns if name.startswith("solved_")]
    caption = (
        "≤ N: share of problems solved within N evaluations; evaluations: the mean ratio to those "
        "of all entrants on the same problems; =: not distinguishable from the entrant above; "
        "×: values that failed or could not be measured"
    )
    out, table = console(), Table(title=title, caption=caption)
    heads = [f"≤ {name.removeprefix('solved_')}" for name in solved]
    means = ["mean runtime"] if runtime else []
    for head in ("rank", "entrant", "problems", "×", *heads, "evaluations", *means):
        left = head == "entrant"
        table.add_column(
            head, justify="left" if left else "right", overflow="fold", no_wrap=not left
        )
    for row in rows.to_dict("records"):
        # halves up, as on the page
        shares = [f"{math.floor(100 * row[name] + 0.5)}%" for name in solved]
        rank = "" if pd.isna(row["rank"]) else f"{row['rank']}{'=' if row['tied'] else ''}"
        bad = crosses.get(row["entrant"], "")
        texts = [rank, row["entrant"], row["problems"], bad, *shares, f"{row['to_field']:.2f}"]
        if runtime:
            mean, lower, upper = (2 ** row[key] for key in ("log2_runtime", "lower", "upper"))
            texts.append(f"{mean:.3g}{_ends(lower, upper)}")
        table.add_row(*map(str, texts))
    out.print(table)


def _ends(lower: float, upper: float) -> str:
    """The interval of a ratio, if there are enough tasks for one."""
    return f" [{lower:.3g}, {upper:.3g}]" if lower > 0 or upper < math.inf else ""


def _verify(words: Sequence[str]) -> None:
    """Run a part of an entry again; exit with status 1 if the entry is refused."""
    places, values = read_words("suite verify", words, ("cells", "seed"))
    require(len(places) == 1, "suite", "verify", "followed by the file of one entry")
    # the entrant must not know the other starts
    values = {"cells": "12", "seed": str(1 + secrets.randbelow(2**31 - 1)), **values}
    cells, seed = (whole(key, value_of(f"{key}={values[key]}")) for key in ("cells", "seed"))
    from samplerbench.app.job.verifying import suite_job, tasks_of
    from samplerbench.bench.suite.entry import read_entry, verify

    results, about = read_entry(Path(places[0]))
    names, fixed = _of_size(about["suite"])
    names = _tasks_of_kind(names, bool(results["noise"].iloc[0]))
    listed = tasks_of(results, names, fixed)
    verdict = verify(
        Path(places[0]),
        lambda command, entrants: suite_job(command, entrants, fixed),
        cells=cells,
        seed=seed,
        tasks=listed,
        on_check=lambda line: print(line, flush=True),
    )
    for line in verdict.unsolved:
        print(f"×: {line}")
    for line in verdict.lines:
        print(f"refused: {line}")
    print(f"{verdict.sentence} (seed={seed})")
    if verdict.accepted and verdict.suite.endswith(TRIAL):
        version = verdict.suite.removesuffix(TRIAL)
        print(f"a quick entry is a trial: only one for {version} can stand in its table")
    if not verdict.accepted:
        sys.exit(1)
