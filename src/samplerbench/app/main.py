"""The command line: `samplerbench` and `python -m samplerbench`.

The first word is the name of a command, see `COMMANDS`. Where there is none the words are those of
a job, see `commands.run`. A mistake ends with one line on standard error and status 2.
"""

from __future__ import annotations

import inspect
import os
import sys
from importlib import import_module

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from samplerbench.app.commands import run
from samplerbench.app.commands.complaints import COMMANDS, complain
from samplerbench.app.commands.words import members_of_others
from samplerbench.app.config.construct import trusting
from samplerbench.app.config.folders import adding
from samplerbench.app.terminal import replace_unencodable
from samplerbench.errors import InvalidSetting


def entry() -> None:
    """Run `main` as a process; the reader of its output may leave early."""
    try:
        try:
            main()
        finally:
            if sys.stdout is not None:  # it is None where it was closed from the beginning
                sys.stdout.flush()
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
        except (InvalidSetting, HydraException, OmegaConfBaseException) as error:
            sys.exit(complain(str(error)))
        except KeyboardInterrupt:
            sys.exit(complain("interrupted", 130))
        return
    run.main(sys.argv[1:])


def command(name: str, words: list[str]) -> None:
    """Run a command of `COMMANDS`, or print its help.

    Args:
        name: of `COMMANDS`.
        words: after the name. A command that builds members sees all but `trusted=…`, the packages
            of somebody else's, and `--config-dir DIR`, the folder of their yamls.
    """
    module = import_module(f"samplerbench.app.commands.{name}")
    if {"--help", "-h"} & set(words):
        print(inspect.getdoc(module))
        return
    if name == "cache":  # it builds no members
        module.main(words)
        return
    folders, packages, words = members_of_others(words)
    with adding(folders), trusting(packages):
        module.main(words)
