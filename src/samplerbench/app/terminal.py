"""The terminal that commands print to."""

from __future__ import annotations

import sys

from rich.console import Console


def console() -> Console:
    """Standard output, never narrower than the table of the main job; it remembers what it said."""
    width = max(120, Console(file=sys.stdout).width)
    # no markup: names and paths of the user's may have brackets in them
    return Console(file=sys.stdout, width=width, highlight=False, markup=False, record=True)
