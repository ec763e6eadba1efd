"""Standard output, and how paths are written there."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def replace_unencodable() -> None:
    """From now on standard output takes every text; "?" replaces letters that its encoding lacks.

    An encoding may have no η, and a file's name may be no text in any. Standard error is so from
    the beginning. Tables keep their columns, since one character takes the place of one.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # a notebook's takes every text by itself
        sys.stdout.reconfigure(errors="replace")


def console() -> Console:
    """Standard output, at least as wide as the table of the main job; it records the text."""
    from rich.console import Console  # not for a message of one line

    width = max(120, Console(file=sys.stdout).width)
    # no markup: names and paths of the user's may have brackets in them
    return Console(file=sys.stdout, width=width, highlight=False, markup=False, record=True)


def shown(place: Path | str) -> str:
    """A path relative to the current folder if it is below it; an address is unchanged."""
    return str(place).removeprefix(f"{Path.cwd()}{os.sep}")
