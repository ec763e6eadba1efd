"""Atomic writing: a file is complete or absent, even if the writer is interrupted.

The content goes into a temporary file in the same folder and is flushed to the disk; then the file
is renamed, which is atomic. A file that cannot be read back is renamed with a warning, not deleted.
Binary files without their own checks contain a digest of their content.
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
    """Write a file, or replace it.

    Args:
        durable: whether to wait until the content is on the disk, which takes milliseconds.
            Without it, a loss of power within seconds may leave the file empty.
    """
    with replacing(path) as temporary:
        _write(temporary, content, durable)


def create_atomically(path: Path, content: bytes) -> None:
    """Write a file that must not exist. Of several writers at the same time one succeeds.

    Raises:
        FileExistsError: the file exists.
    """
    with _beside(path) as temporary:
        _write(temporary, content, durable=True)
        os.link(temporary, path)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name to write to; the end of the block renames the file.

    After an error the temporary file is removed.

    Args:
        path: the final name; an existing file is replaced.
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
    """A hidden, random name beside a file or folder; process ids are not unique across hosts."""
    return path.with_name(f".{path.name}.{os.urandom(8).hex()}.tmp")


def _write(path: Path, content: bytes, durable: bool) -> None:
    with path.open("wb") as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())


def sealed(content: bytes | memoryview) -> bytes:
    """A digest of the content, followed by the content; see `unsealed`."""
    return sha256(content).digest() + content


def unsealed(content: bytes) -> bytes:
    """The content of `sealed` bytes.

    Raises:
        ValueError: the digest is not that of the content.
    """
    size = sha256().digest_size
    if sha256(memoryview(content)[size:]).digest() != content[:size]:
        raise ValueError("its content has changed")
    return content[size:]


def set_aside(path: Path, error: Exception) -> None:
    """Warn about a file that cannot be used, and rename it."""
    reason = first_line(error)
    message.warning("%s is not usable and is set aside: %s", path, reason)
    with suppress(OSError):  # if it cannot be renamed, the next write replaces it
        path.replace(path.with_name(f"{path.name}.unusable"))
