"""`samplerbench cache`: list or prune the results that runs share.

    samplerbench cache                    list the trained models, values and figures
    samplerbench cache prune days=30      remove everything older than 30 days

Both take `cache_dir=FOLDER`. Pruning keeps models that a job is training, and all files that do not
belong to the cache.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout
from rich.table import Table

from samplerbench.app.commands.words import read_words
from samplerbench.app.folder.lock import is_locked
from samplerbench.app.terminal import console
from samplerbench.bench.cache import ABOUT, ARCHIVES, VALUES, Cache
from samplerbench.errors import InvalidSetting, require
from samplerbench.training.weights import WEIGHTS

DAY, HOUR = 86_400, 3600


def main(words: list[str]) -> None:
    """List or prune."""
    tasks, values = read_words("cache", words, ["cache_dir", "days"])
    task = " ".join(tasks) or "list"
    require(task in ("list", "prune"), "cache", task, "list or prune, with cache_dir=… or days=…")
    directory = Path(values.get("cache_dir", "multirun/.cache"))
    allowed = "a folder that exists: jobs make it where they run, so type this command there"
    require(directory.is_dir(), "cache_dir", directory, f"{allowed}, or give cache_dir=FOLDER")
    days = values.get("days", "")
    if task == "list":
        require(not days, "days", days, "left out: only prune uses it, cache prune days=30")
        show(directory)
        return
    number = days.replace(".", "", 1).isdecimal()
    require(number, "days", days, "a number of days, 0 for everything: cache prune days=30")
    prune(directory, time.time() - DAY * float(days))


def show(directory: Path) -> None:
    """Print a line for each model, and the numbers of values and archives of figures and grids."""
    out = console()
    table = Table(box=None, pad_edge=False)
    for name in ("training", "model", "state", "written"):
        table.add_column(name, no_wrap=True)
    cache = Cache(directory)
    folders = cache.trainings()
    values, archives = cache.files(VALUES), cache.files(ARCHIVES)
    for folder in folders:
        when = f"{datetime.fromtimestamp(written(folder)):%Y-%m-%d %H:%M}"
        table.add_row(folder.name, title(folder), state(folder), when)
    if table.row_count:
        out.print(table)
    files = [*values, *archives, *(path for folder in folders for path in folder.iterdir())]
    size = sum(found.st_size for found in _stats(files))
    out.print(
        f"{len(folders):,} trainings, {_count(values):,} values and {_count(archives):,} archives "
        f"of figures and grids, {size / 1e6:,.1f} MB in {directory}"
    )


def _count(paths: Iterable[Path]) -> int:
    """The number of files, without unusable and unfinished ones."""
    return sum(path.suffix in (".json", ".zip") for path in paths)


def prune(directory: Path, before: float) -> None:
    """Remove everything that was written before a time, in seconds since 1970."""
    cache = Cache(directory)
    try:
        models = sum(_removed(folder, before) for folder in cache.trainings())
        values, archives = (_unlinked(cache.files(kind), before) for kind in (VALUES, ARCHIVES))
    except OSError as error:
        allowed = f"a folder that can be written to ({error})"
        raise InvalidSetting("cache_dir", directory, allowed) from error
    console().print(
        f"removed {models:,} trainings, {values:,} values and {archives:,} archives of figures "
        f"and grids from {directory}"
    )


def _unlinked(paths: Iterable[Path], before: float) -> int:
    """Remove files that were written before a time; return their number."""
    unfinished = min(before, time.time() - HOUR)  # a job may be writing them

    def is_old(path: Path) -> bool:
        limit = unfinished if path.suffix == ".tmp" else before
        return any(found.st_mtime < limit for found in _stats([path]))

    old = list(filter(is_old, paths))
    for path in old:
        path.unlink(missing_ok=True)
    return len(old)


def _removed(folder: Path, before: float) -> bool:
    """Remove a training if it was written before a time and is not in use; return whether."""
    try:
        with FileLock(folder.with_suffix(".lock"), timeout=0):
            if not folder.is_dir() or written(folder) >= before:
                return False
            shutil.rmtree(folder)
            return True
    except Timeout:
        return False


def written(folder: Path) -> float:
    """The time of the last file of a training, in seconds since 1970."""
    return max((found.st_mtime for found in _stats([folder, *folder.iterdir()])), default=0.0)


def _stats(paths: Iterable[Path]) -> list[os.stat_result]:
    """The status of each file that still exists; running jobs may remove some."""
    found = []
    for path in paths:
        with suppress(FileNotFoundError):
            found.append(path.stat())
    return found


def title(folder: Path) -> str:
    """The data set, objective, network and schedule of a training."""
    try:
        about = json.loads((folder / ABOUT).read_bytes())
        return " · ".join(
            str(about[key]) for key in ("dataset", "objective", "network", "schedule")
        )
    except (OSError, ValueError, KeyError, TypeError):
        return "?"


def state(folder: Path) -> str:
    """The state of a training, in words."""
    if (folder / WEIGHTS).exists():
        return "trained"
    return "being trained" if is_locked(folder.with_suffix(".lock")) else "interrupted"
