"""Starting fast: what imports leave behind is not looked through for garbage.

torch, pandas and matplotlib make some million objects that stay until the end. Python's collector
would go through them again and again on the way, and once more at the exit: that was a quarter of
the time of a job whose values are known.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


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
