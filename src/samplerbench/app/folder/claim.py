"""Reserve the folder of a run for a job, and write the status of the job into it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from omegaconf import DictConfig, OmegaConf

from samplerbench.app.config.construct import trusted_packages, trusting
from samplerbench.app.folder.lock import hold, is_held, release
from samplerbench.app.folder.runs import (
    ABOUT,
    CHECKPOINTS,
    CONFIG,
    STATUS,
    State,
    StoredRun,
    is_gone,
    read_about,
    read_machines,
    read_status,
)
from samplerbench.errors import InvalidSetting
from samplerbench.files import create_atomically, set_aside, write_atomically

#: Files of a run besides its config. A folder with one of them and no config is refused.
WRITTEN = (
    *(ABOUT, STATUS, CHECKPOINTS),
    *("cells", "cells.parquet", "grid.json", "losses.csv", "report.txt"),
)

T = TypeVar("T")


def claim(directory: Path, config: DictConfig, about: Mapping[str, Any]) -> None:
    """Reserve the folder for this run: only one run can create its file with the resolved config.

    The same run continues in its own folder if its process has ended or Slurm starts its job again.
    A file of the run that cannot be read is reported and renamed.

    Args:
        about: choices, overrides, values and sweep_id, as in `StoredRun`.

    Raises:
        InvalidSetting: the folder belongs to another run, or this run is active or was made with
            other versions; the results in the folder are kept.
    """
    content = _as_stored(config)
    if not (directory / CONFIG).exists() and any((directory / name).exists() for name in WRITTEN):
        _refuse(directory, f"it has no {CONFIG}")
    try:
        create_atomically(directory / CONFIG, content)
        continues = False
    except FileExistsError:
        continues = not _requeued(directory)
    if continues and (directory / CONFIG).read_bytes() != content:
        _refuse(directory, f"its {CONFIG} belongs to another run")
    locked = hold(directory)
    if continues and locked is False:
        _refuse(directory, "it still runs")
    reason = _why_not_continued(directory, locked) if continues else ""
    if reason:
        release(directory)
        _refuse(directory, reason)
    _write(directory / ABOUT, {**about, "versions": versions(), "machines": _machines(directory)})
    write_status(directory, "running")


def _machines(directory: Path) -> list[dict[str, Any]]:
    """The machines that worked on a run, and this one: a run can continue on another machine."""
    from samplerbench.identity import machine  # imports torch

    machines, here = _readable(directory / ABOUT, read_machines) or [], machine()
    return machines if here in machines else [*machines, here]


def amend(directory: Path, more: Mapping[str, Any]) -> None:
    """Add entries to the run's `run.json`."""
    about = json.loads((directory / ABOUT).read_bytes())
    _write(directory / ABOUT, {**about, **more})


def write_status(directory: Path, state: State, message: str = "") -> None:
    """Write the state of the run; unless it is running, release its folder."""
    process = {"host": socket.gethostname(), "process": os.getpid(), "lock": is_held(directory)}
    _write(directory / STATUS, {"state": state, "message": message, **process, "slurm": _slurm()})
    if state != "running":
        release(directory)


def versions() -> dict[str, str]:
    """Versions of the software that determines a run's bits, with trusted packages and Python."""
    from samplerbench.identity import VERSIONS, package_code  # imports torch

    code = {package: package_code(package) for package in trusted_packages()}
    return {**VERSIONS, **code, "python": platform.python_version()}


def why_refused(run: StoredRun) -> str:
    """Why the command of a run cannot continue in its folder; empty if it can."""
    with trusting(run.config.get("trusted")):  # their code has a version too
        return "it still runs" if run.state == "running" else _other_versions(run.versions)


def own_folder(directory: Path, multirun: Path, config: DictConfig) -> Path:
    """The folder of a job in a multirun that may have started with fewer or other jobs.

    The folder with the job's number may belong to another job of an earlier start. So return the
    folder that contains this job; else the folder with its number, if it is free; else a new one.
    """
    content = _as_stored(config)
    if _holds(directory, content):
        return directory
    depth = len(directory.relative_to(multirun).parts)
    for path in sorted(multirun.glob("/".join([*["*"] * depth, CONFIG]))):
        if _holds(path.parent, content) and not _is_running(path.parent):
            return path.parent
    if not (directory / CONFIG).exists():
        return directory
    return directory.with_name(f"{directory.name}_{hashlib.sha256(content).hexdigest()[:8]}")


def _as_stored(config: DictConfig) -> bytes:
    """The content of a run's config file."""
    return OmegaConf.to_yaml(config, resolve=True).encode()


def _holds(directory: Path, content: bytes) -> bool:
    with suppress(OSError):
        return (directory / CONFIG).read_bytes() == content
    return False


def _is_running(directory: Path) -> bool:
    with suppress(Exception):  # the file may have any content; `claim` reports errors
        status = read_status(directory)
        return status["state"] == "running" and not is_gone(directory, status)
    return False


def _refuse(directory: Path, reason: str) -> NoReturn:
    allowed = (
        f"a folder without a run, or of this run if it has ended ({reason}); nothing was changed"
    )
    raise InvalidSetting("hydra.run.dir", directory, allowed)


def _why_not_continued(directory: Path, locked: bool | None) -> str:
    """Why the same run cannot continue in its folder; a file that cannot be read is set aside."""
    about = _readable(directory / ABOUT, read_about)
    status = _readable(directory / STATUS, read_status)
    if status is not None and status["state"] == "running":
        ended = locked and status.get("lock")  # the run had the lock, and this process has it now
        process = f"process {status['process']} on {status['host']}"
        if not ended:
            return f"it still runs, by {STATUS}: {process}; delete that file if it has ended"
    return _other_versions(about[2] if about is not None else {})


def _other_versions(before: Mapping[str, str]) -> str:
    """The versions that have changed, as a reason; empty if none has, or if they are not known."""
    now = versions()
    if before in ({}, now):
        return ""
    changed = sorted(name for name in {**now, **before} if now.get(name) != before.get(name))
    listed = ", ".join(f"{name} {before.get(name)}, now {now.get(name)}" for name in changed)
    return f"it was made with other versions: {listed}; use another folder"


def _readable(path: Path, read: Callable[[Path], T]) -> T | None:
    """The content of a run's file; None if it is missing or unreadable (then it is set aside)."""
    try:
        return read(path.parent)
    except FileNotFoundError:
        return None
    except Exception as error:  # the file may have any content
        set_aside(path, error)
        return None


def _slurm() -> list[str] | None:
    """The id of this Slurm job, which survives restarts, and its number of restarts."""
    job = os.environ.get("SLURM_JOB_ID")
    return [job, os.environ.get("SLURM_RESTART_COUNT", "0")] if job else None


def _requeued(directory: Path) -> bool:
    """Whether the folder belongs to this Slurm job, which was started again."""
    here = _slurm()
    try:
        before = json.loads((directory / STATUS).read_bytes())["slurm"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if here is None or not isinstance(before, list) or len(before) != 2:
        return False
    return bool(before[0] == here[0] and before[1] != here[1])


def _write(path: Path, content: Mapping[str, Any]) -> None:
    write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False).encode())
