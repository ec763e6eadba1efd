"""How this process returns memory to the operating system."""

from __future__ import annotations

import ctypes
from contextlib import suppress

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
