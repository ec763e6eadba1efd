"""Standard output, and the form of paths there."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def replace_unencodable() -> None:
    """Make standard output print "?" for characters that its encoding does not have.

    The encoding may lack η, and the name of a file may not be valid text. Standard error replaces
    such characters by default. Columns stay aligned, since "?" is one character wide.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # a notebook's output accepts all text
        sys.stdout.reconfigure(errors="replace")


def console(least: int = 120) -> Console:
    """A console on standard output, at least as wide as the main job's table; it records text."""
    from rich.console import Console  # slow to import

    width = max(least, Console(file=sys.stdout).width)
    # no markup: names and paths may contain brackets
    return Console(file=sys.stdout, width=width, highlight=False, markup=False, record=True)


def shown(place: Path | str) -> str:
    """A path, relative to the current folder if it is below it; a URL is unchanged."""
    return str(place).removeprefix(f"{Path.cwd()}{os.sep}")
