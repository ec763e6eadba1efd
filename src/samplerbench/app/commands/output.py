"""The file or folder that a command creates: `out=…`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from samplerbench.errors import InvalidSetting, require
from samplerbench.files import temporary_name


def new_path(out: Path, kind: str) -> Path:
    """The path, if it does not exist and its folder can be written to."""
    writable = out.parent.is_dir() and os.access(out.parent, os.W_OK)
    require(writable, "out", out, "in a folder that exists and can be written to")
    require(not os.path.lexists(out), "out", out, f"a new {kind}; the existing one is kept")
    return out


@contextmanager
def whole_or_nothing(out: Path) -> Iterator[Path]:
    """A hidden path to write to. At the end it is renamed to `out`, or removed after an error."""
    hidden = temporary_name(out)
    try:
        yield hidden
        require(not os.path.lexists(out), "out", out, "a new name; it was created meanwhile")
        hidden.rename(out)
    except OSError as error:
        allowed = f"in a place where files can be written ({error.strerror})"
        raise InvalidSetting("out", out, allowed) from error
    finally:
        hidden.unlink(missing_ok=True) if hidden.is_file() else shutil.rmtree(hidden, True)
