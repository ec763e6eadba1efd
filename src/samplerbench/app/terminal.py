"""The terminal that commands print to, and how they write a place."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rich.console import Console


def console() -> Console:
    """Standard output, never narrower than the table of the main job; it remembers what it said."""
    width = max(120, Console(file=sys.stdout).width)
    # no markup: names and paths of the user's may have brackets in them
    return Console(file=sys.stdout, width=width, highlight=False, markup=False, record=True)


def shown(place: Path | str) -> str:
    """A path as it is short to read: below the current folder; an address as it is."""
    return str(place).removeprefix(f"{Path.cwd()}{os.sep}")
