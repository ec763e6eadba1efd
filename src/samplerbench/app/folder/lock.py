"""Whose a run's folder is: the job with the same config, and the process that holds its lock.

A process that works on a run holds a lock (`flock`) on a file in its folder, and a lock ends with
its process, however that ends and on whichever machine. Where the file system has no locks there is
what the process wrote of itself: machine, start of the machine, number, and when it began, since
numbers are given again.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

if sys.platform != "win32":
    import fcntl

CONFIG, STATUS, LOCK = "config.yaml", "status.json", ".lock"

#: The locks of this process: open files, by their run's folder.
_held: dict[Path, int] = {}


def hold(directory: Path) -> bool | None:
    """Take the lock of a run's folder; False where another has it, None where there are none."""
    if directory.resolve() in _held:
        return False
    try:
        file = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        return None
    locked = _lock(file, exclusive=True)
    for _ in range(5):  # who looks whether it is held has it for a moment
        if locked is not False:
            break
        time.sleep(0.05)
        locked = _lock(file, exclusive=True)
    if locked:
        _held[directory.resolve()] = file
    else:
        os.close(file)
    return locked


def release(directory: Path) -> None:
    """Give the lock back, if this process has it."""
    file = _held.pop(directory.resolve(), None)
    if file is not None:
        os.close(file)


def signature(directory: Path) -> dict[str, Any]:
    """What this process writes of itself into the status of its run."""
    process = os.getpid()
    return {
        "host": socket.gethostname(),
        "boot": _boot(),
        "process": process,
        "began": _began(process),
        "lock": directory.resolve() in _held,
    }


def is_gone(directory: Path, status: Mapping[str, Any]) -> bool:
    """Whether the process that wrote this status has ended, as far as that can be told."""
    if status.get("lock"):
        held = _is_held(directory)
        if held is not None:
            return not held
    if status["host"] != socket.gethostname():
        return False
    if status.get("boot") not in (None, _boot()):
        return True
    process = status["process"]
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # it is there, and somebody else's
        pass
    began = status.get("began")
    return began is not None and _began(process) not in (None, began)


def stored(config: DictConfig) -> bytes:
    """A config as a run's folder has it."""
    return OmegaConf.to_yaml(config, resolve=True).encode()


def own_folder(directory: Path, multirun: Path, config: bytes) -> Path:
    """The folder of a job in a multirun that may have been begun with fewer or other jobs.

    Args:
        directory: of the job by its number, which is another job's where the numbers have moved.
        multirun: the folder of all its jobs.
        config: of the job, as it is stored.

    Returns:
        The folder that holds this job; else the one of its number if that is free; else one beside.
    """
    if _holds(directory, config):
        return directory
    depth = len(directory.relative_to(multirun).parts)
    for path in sorted(multirun.glob("/".join([*["*"] * depth, CONFIG]))):
        if _holds(path.parent, config) and not _is_running(path.parent):
            return path.parent
    if not (directory / CONFIG).exists():
        return directory
    return directory.with_name(f"{directory.name}_{hashlib.sha256(config).hexdigest()[:8]}")


def _holds(directory: Path, config: bytes) -> bool:
    path = directory / CONFIG
    with suppress(OSError):
        return path.stat().st_size == len(config) and path.read_bytes() == config
    return False


def _is_running(directory: Path) -> bool:
    try:
        status = json.loads((directory / STATUS).read_bytes())
        return status["state"] == "running" and not is_gone(directory, status)
    except Exception:  # whatever the file holds: who claims the folder looks closer
        return False


def _is_held(directory: Path) -> bool | None:
    """Whether a process has the lock, without a change to anything; None where nobody can tell."""
    return True if directory.resolve() in _held else is_locked(directory / LOCK)


def is_locked(path: Path) -> bool | None:
    """Whether a process has locked a file, which is only read; None where nobody can tell."""
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    locked = _lock(file, exclusive=False)
    os.close(file)
    return None if locked is None else not locked


def _lock(file: int, *, exclusive: bool) -> bool | None:
    """Lock an open file; False where another has it, None where there are no locks."""
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _boot() -> str | None:
    """What tells this start of the machine from others; None where it does not say."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return None


def _began(process: int) -> str | None:
    """When a process began, in ticks since the machine did; None where that is not told."""
    with suppress(OSError, IndexError):
        # after the name in brackets, which may hold anything, also what is no text
        return Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[19].decode()
    return None
