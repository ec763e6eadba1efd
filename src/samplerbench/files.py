"""Files that are whole or absent, whatever happens while they are written.

Bytes go into a temporary file beside the one that is meant and are flushed to the disk; then the
name is moved to them, which a file system does in one step. What cannot be read back is named and
set aside, never deleted. Bytes that nobody could tell from others carry their digest.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
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
    with replacing(path) as temporary:
        _write(temporary, content, durable)


def create_atomically(path: Path, content: bytes) -> None:
    """Write a file that only one writer can create.

    Raises:
        FileExistsError: it is there.
    """
    with _beside(path) as temporary:
        _write(temporary, content, durable=True)
        os.link(temporary, path)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write a file under; the file gets its own when the block ends, and is whole.

    After an error nothing of it is left.

    Args:
        path: of the file, in the place of one that may be there.
    """
    with _beside(path) as temporary:
        yield temporary
        temporary.replace(path)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    temporary = temporary_name(path)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def temporary_name(path: Path) -> Path:
    """A hidden name beside a file or folder that nobody else has: hosts share their pids."""
    return path.with_name(f".{path.name}.{os.urandom(8).hex()}.tmp")


def _write(path: Path, content: bytes, durable: bool) -> None:
    with path.open("wb") as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())


def sealed(content: bytes | memoryview) -> bytes:
    """The content after its digest, for `unsealed`."""
    return sha256(content).digest() + content


def unsealed(content: bytes) -> bytes:
    """What `sealed` was given.

    Raises:
        ValueError: these are not its bytes.
    """
    size = sha256().digest_size
    if sha256(memoryview(content)[size:]).digest() != content[:size]:
        raise ValueError("its bytes are not those that were written")
    return content[size:]


def set_aside(path: Path, error: Exception) -> None:
    """Name a file that cannot be used, and keep it out of the way."""
    reason = first_line(error)
    message.warning("%s is not usable and is put aside: %s", path, reason)
    with suppress(OSError):  # then it is replaced when the new one is written
        path.replace(path.with_name(f"{path.name}.unusable"))
