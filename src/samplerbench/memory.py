"""How this process returns memory to the operating system, and when Python looks for garbage."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress

#: Parameters of glibc's mallopt.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> bool:
    """Let glibc keep up to 128 MiB of freed memory; returns whether it does.

    By default it immediately returns the memory of a few tensors of a megabyte, and the next
    operation gets it again page by page, filled with zeros. This took a quarter of the time of an
    error budget on a file of 200 rows. Blocks of 32 MiB and more are still returned. Other C
    libraries are not changed.
    """
    with suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        return bool(mallopt(_MMAP_THRESHOLD, 2**25) and mallopt(_TRIM_THRESHOLD, 2**27))
    return False


_imported: set[str] = set()


@contextmanager
def first_import(package: str) -> Iterator[None]:
    """A block that imports a large package, without the search for garbage; for commands.

    Python looks for unreachable cycles while it imports, and again at its exit. Modules have almost
    none, but half a million objects, so this took a fifth of the time of the imports and a second
    at the exit. The objects at the end of the block are left out of all later searches. Therefore
    this has an effect only once per package: a later job of the process may have garbage.
    """
    if package in _imported:
        yield
        return
    _imported.add(package)
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
