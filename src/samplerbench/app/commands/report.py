"""`samplerbench report DIR…`: one page over any number of runs, finished or not.

    samplerbench report multirun/
    samplerbench report A B out=page panels=false
    samplerbench report A B --compare

Each DIR is a run or a folder of runs. Written is a folder with `report.html`, which needs no
network, `cells.csv`, `table.md`, `table.tex` and figures; `out` names it, and nothing that is there
already is overwritten. `--compare` adds the paired differences of two runs that measure the same.

What cannot be read is named, on the page and here, and left out. Runs that still run are read as
they are.
"""

from __future__ import annotations

from pathlib import Path

from samplerbench.app.commands.words import read_words
from samplerbench.app.config.compose import run_name
from samplerbench.app.folder.plan import PLAN
from samplerbench.app.folder.runs import find_runs
from samplerbench.errors import InvalidSetting, require


def main(words: list[str]) -> None:
    """Write a report and say where it is.

    Raises:
        InvalidSetting: a word is not understood, a folder holds no run, or `out` is there already.
    """
    folders, out, panels, comparing = _read(words)
    found: list[list[Path]] = []
    skipped: list[InvalidSetting] = []
    for folder in folders:
        try:
            found.append(_found(folder))
        except InvalidSetting as error:
            if comparing or len(folders) == 1:
                raise
            skipped.append(error)
    if skipped and not found:
        raise skipped[0]
    paths = list(dict.fromkeys(path.resolve() for of in found for path in of))
    if comparing:
        allowed = "two folders with one run each"
        require([len(of) for of in found] == [1, 1], "--compare", " ".join(words), allowed)
        require(len(paths) == 2, "--compare", " ".join(words), "two different runs")
    from samplerbench.app.commands.reporting import report  # slow: imports plotly

    out = out or Path("multirun") / f"report_{run_name()}"
    left_out = [f"left out: {error}" for error in skipped]
    report(paths, folders, left_out, out, panels=panels, comparing=comparing)


def _read(words: list[str]) -> tuple[list[Path], Path | None, bool, bool]:
    """Folders, out, panels and whether to compare."""
    folders, values = read_words("report", words, ["out", "panels"], options=["--compare"])
    require(len(folders) > 0, "report", "no folder", "one or more folders of runs")
    panels = values.get("panels", "true").lower()
    require(panels in ("true", "false"), "panels", panels, "true or false")
    out = Path(values["out"]) if "out" in values else None
    if out is not None and (out.exists() or out.is_symlink()):  # before any work
        raise InvalidSetting("out", out, "a folder that is not there yet: nothing is overwritten")
    return [Path(folder) for folder in folders], out, panels == "true", "--compare" in values


def _found(folder: Path) -> list[Path]:
    """The runs in a folder; a run that lost its config is one still."""
    try:
        return find_runs(folder)
    except InvalidSetting:
        if (folder / "cells").is_dir() or (folder / "cells.parquet").is_file():
            return [folder]
        if any(folder.rglob(PLAN)):  # its jobs have not begun
            return []
        raise
