"""Starting and ending fast: what imports leave behind is not looked through, nor taken apart.

torch, pandas and matplotlib make some million objects that stay until the end. Python's collector
would go through them again and again on the way, and once more at the exit: that was a quarter of
the time of a job whose values are known. To free them one by one before the process is gone takes
half a second more.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


@contextmanager
def importing() -> Iterator[None]:
    """Within the context heavy modules are imported; nothing happens where torch is there already.

    A second job of the process must not freeze what the first one left.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def leave(status: int) -> NoReturn:
    """End the process with a status as Python does, but without taking its modules apart.

    Threads are waited for, what was registered for the exit runs, and what was printed is written.

    Args:
        status: 0 for success.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # what the interpreter calls, in this order
    atexit._run_exitfuncs()
    try:
        for stream in filter(None, (sys.stdout, sys.stderr)):  # None where it was closed
            stream.flush()
    except BrokenPipeError:  # who read the output has left
        status = status or 1
    os._exit(status)
