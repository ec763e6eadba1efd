"""Files that are whole or absent, whatever happens while they are written.

Bytes go into a temporary file beside the one that is meant and are flushed to the disk; then the
name is moved to them, which a file system does in one step. What cannot be read back is named and
set aside, never deleted.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from samplerbench.errors import first_line

message = logging.getLogger(__name__)


def write_atomically(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a file, in the place of one that may be there.

    Args:
        path: of the file.
        content: all of it.
        durable: whether it is on the disk when this returns; otherwise a loss of power within
            seconds may leave it empty. Waiting for a disk takes milliseconds, a network's more.
    """
    with _written(path, content, durable) as temporary:
        temporary.replace(path)


def create_atomically(path: Path, content: bytes) -> None:
    """Write a file that only one writer can create.

    Raises:
        FileExistsError: it is there.
    """
    with _written(path, content, durable=True) as temporary:
        os.link(temporary, path)


@contextmanager
def _written(path: Path, content: bytes, durable: bool) -> Iterator[Path]:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def set_aside(path: Path, error: Exception) -> None:
    """Name a file that cannot be used, and keep it out of the way."""
    reason = first_line(error)
    message.warning("%s is not usable and is worked out again: %s", path, reason)
    with suppress(OSError):  # then it is replaced when the new one is written
        path.replace(path.with_name(f"{path.name}.unusable"))
