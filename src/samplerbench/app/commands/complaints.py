"""What a mistake is answered with: one line on standard error.

Hydra and its launchers say what was wrong in several lines, or in words that a user has not typed;
here they are made short, with what they leave out.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from argparse import ArgumentError
from collections.abc import Sequence

from hydra._internal.utils import get_args_parser

from samplerbench.app.config.folders import members

#: Which extra brings a plugin of Hydra's, by the plugin's name; see docs/cluster.md.
PLUGINS = {
    "joblib": "launchers",
    "submitit_local": "launchers",
    "submitit_slurm": "launchers",
    "ray": "ray",
    "optuna": "optuna",
}


def complain(message: str, status: int = 2) -> int:
    """Print the message as one line; the status to leave with, 2 for bad input."""
    # Hydra adds where it looked and where to read more; the first part says what was wrong
    message = re.split(r"\n(?:Config search path|See https|    full_key)", message)[0]
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    text = " ".join([*lines, *_in_folders(message), *_extra(message)])
    print(f"samplerbench: {text}", file=sys.stderr)
    return status


def no_text(words: Sequence[str]) -> str:
    """What is wrong with the first word that has bytes of no character; empty where none has.

    A config and a table are text, and could not be written with it.
    """
    broken = (word for word in words if re.search("[\ud800-\udfff]", word))
    encoding = sys.getfilesystemencoding()
    return next((f"{word}: must be text in {encoding}, the encoding here" for word in broken), "")


def misplaced(words: list[str]) -> str:
    """What Hydra's parser would answer with its usage, in one line; empty where it understands."""
    parser = get_args_parser()
    parser.exit_on_error = False
    try:
        _, rest = parser.parse_known_args(words)
    except ArgumentError as error:
        return str(error)
    if not rest:
        return ""
    if rest[0].startswith("-"):
        return f"{rest[0]}: no such option; see samplerbench --help"
    return f"{rest[0]}: must stand beside the other words, not apart: options come before or after"


def subdirs(words: list[str]) -> list[str]:
    """The folders that jobs of a multirun are told to take, as far as the words say them."""
    told = [word.partition("=")[2] for word in words if word.startswith("hydra.sweep.subdir=")]
    return [part.strip("'\" ") for value in told for part in value.split(",")]


def raised_by_hydra(error: BaseException) -> bool:
    """Whether an error came before or after our job, not out of it."""
    ours = traceback.extract_tb(error.__traceback__)
    return not any(f"samplerbench{os.sep}app{os.sep}job" in frame.filename for frame in ours)


def without_trace(message: str) -> str:
    """A launcher's message with the last line of what it quotes of a job's log or traceback."""
    head, *quoted = re.split(r"\n-{10,}\n", message)
    last = quoted[0].strip().splitlines()[-1:] if quoted else []
    return "\n".join([head, *last])


def _in_folders(message: str) -> list[str]:
    """The members of a group that lie in its folders, which Hydra does not name with the others."""
    named = re.search(r"Available options in '([\w/]+)'", message)
    return [name for name in members(named[1]) if "/" in name] if named else []


def _extra(message: str) -> list[str]:
    """How to get a launcher or sweeper that is not installed."""
    named = re.search(r"Could not find 'hydra/(?:launcher|sweeper)/(\w+)'", message)
    extra = PLUGINS.get(named[1]) if named else None
    return [f"(it comes with pip install 'samplerbench[{extra}]')"] if extra else []
