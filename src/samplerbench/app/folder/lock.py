"""The lock of a run's folder: one process works there at a time.

The operating system releases the lock when its process ends, also after a crash and on another
machine. If the file system has no locks, `hold` returns None, and the status of the run is used.
"""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".lock"

#: The locks that this process holds, by the folder of their run.
_held: dict[Path, FileLock] = {}


def hold(directory: Path) -> bool | None:
    """Take the lock of a run's folder; False if it is taken, None if there are no locks."""
    folder = directory.resolve()
    if folder in _held:
        return False
    lock = FileLock(folder / LOCK, timeout=1, thread_local=False)  # `is_locked` may hold it briefly
    try:
        lock.acquire()
    except Timeout:
        return False
    except (OSError, NotImplementedError):  # for example a file system without locks
        return None
    _held[folder] = lock
    return True


def release(directory: Path) -> None:
    """Release the lock, if this process has it."""
    lock = _held.pop(directory.resolve(), None)
    if lock is not None:
        lock.release()


def is_held(directory: Path) -> bool:
    """Whether this process has the lock."""
    return directory.resolve() in _held


def is_locked(path: Path) -> bool | None:
    """Whether a process has the lock of a file; None if that is not known. Creates no file."""
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True
    except (OSError, NotImplementedError):  # for example a file without write permission
        return None
