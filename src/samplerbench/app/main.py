"""The command line: `samplerbench` and `python -m samplerbench`.

The first word is the name of a command, see `COMMANDS`. If it is not, the words are those of a job,
see `commands.run`. Bad input ends with one line on standard error and status 2.
"""

from __future__ import annotations

import gc
import inspect
import os
import sys
from importlib import import_module

from omegaconf.errors import OmegaConfBaseException

from samplerbench.app.commands.complaints import COMMANDS, complain
from samplerbench.app.commands.words import split_member_words
from samplerbench.app.config.construct import trusting
from samplerbench.app.config.folders import adding
from samplerbench.app.terminal import replace_unencodable
from samplerbench.errors import InvalidSetting
from samplerbench.memory import first_import


def entry() -> None:
    """Run `main` as a process; the reader of its output may leave early."""
    try:
        try:
            main()
        finally:
            if sys.stdout is not None:  # None if it was closed before the start
                sys.stdout.flush()
            gc.freeze()  # the memory ends with the process, so its exit need not look for garbage
    except BrokenPipeError:
        # Python would flush again at its exit, and print a second error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def main() -> None:
    """Run the command line and leave with its status: 0, 1 for a failure, 2 for bad input."""
    replace_unencodable()
    if sys.argv[1:] == ["help"]:
        sys.argv[1] = "--help"
    if len(sys.argv) > 1 and sys.argv[1] in COMMANDS:
        try:
            command(sys.argv[1], sys.argv[2:])
        except KeyboardInterrupt:
            sys.exit(complain("interrupted", 130))
        except Exception as error:
            if not _is_bad_input(error):
                raise
            sys.exit(complain(str(error)))
        return
    from samplerbench.app.commands import run  # it imports Hydra, which most commands do not need

    run.main(sys.argv[1:])


def _is_bad_input(error: Exception) -> bool:
    hydra = sys.modules.get("hydra.errors")
    of_hydra = hydra is not None and isinstance(error, hydra.HydraException)
    return of_hydra or isinstance(error, InvalidSetting | OmegaConfBaseException)


def command(name: str, words: list[str]) -> None:
    """Run a command of `COMMANDS`, or print its help.

    A command that builds members gets its words without `trusted=…` and `--config-dir DIR`.
    """
    with first_import(name):
        module = import_module(f"samplerbench.app.commands.{name}")
    if {"--help", "-h"} & set(words):
        print(inspect.getdoc(module))
        return
    if name in ("cache", "suite"):  # cache has no members; suite splits its words itself
        module.main(words)
        return
    folders, packages, words = split_member_words(words)
    with adding(folders), trusting(packages):
        module.main(words)
