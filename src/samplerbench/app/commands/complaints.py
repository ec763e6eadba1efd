"""Error messages of one line on standard error.

Messages of Hydra and its launchers have several lines, or words that the user has not typed. Here
they are shortened, and missing information is added.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from argparse import ArgumentError
from collections.abc import Collection, Sequence

from samplerbench.app.config.folders import ADDING, groups, member_files, unknown_member
from samplerbench.errors import did_you_mean, nearest, similar

#: The commands that parse their own words.
COMMANDS = (
    *("list", "check", "cite", "score", "report", "sample", "design", "recommend"),
    *("export", "cache", "suite"),
)
#: The extra that installs a plugin of Hydra, by the plugin's name; see docs/cluster.md.
PLUGINS = dict.fromkeys(("joblib", "submitit_local", "submitit_slurm"), "launchers")
PLUGINS |= {"ray": "ray", "optuna": "optuna"}


def complain(message: str, status: int = 2) -> int:
    """Print the message as one line; return the exit status, 2 for bad input."""
    # the error is in the first part; Hydra adds its search path and links
    message = re.split(r"\n(?:Config search path|See https|    full_key)", message)[0]
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    text = _no_member(message) or _no_list(message) or " ".join([*lines, *_extra(message)])
    print(f"samplerbench: {text}", file=sys.stderr)
    return status


def no_text(words: Sequence[str]) -> str:
    """A message for the first word with bytes that are not valid text; empty if there is none."""
    broken = (word for word in words if re.search("[\ud800-\udfff]", word))
    encoding = sys.getfilesystemencoding()
    return next((f"{word}: must be text in {encoding}, the encoding here" for word in broken), "")


def misplaced(words: list[str]) -> str:
    """A message for words that make Hydra's parser print its usage; empty if there are none."""
    from hydra._internal.utils import get_args_parser  # slow, and a report does not need it

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
    return f"{rest[0]}: must be next to the other words: put options before or after all of them"


def not_understood(word: str, message: str) -> str:
    """The message for a word that Hydra cannot parse."""
    if "=" not in word:
        near = similar(word, COMMANDS) or choice_of(word) or "; see samplerbench --help"
        return f"{word}: must be a command ({', '.join(COMMANDS)}) or key=value{near}"
    if "no viable alternative" in message or "extraneous input" in message:
        return f"{word}: must be a complete value: a bracket or a quote is missing or superfluous"
    key, _, value = word.partition("=")
    if value.startswith("~"):
        return f"{word}: must be in quotes of two kinds: '{key}=\"{value}\"'"
    return f"{word}: {message}"


def subdirs(words: list[str]) -> list[str]:
    """The folders of a multirun's jobs that the words name."""
    folders = [word.partition("=")[2] for word in words if word.startswith("hydra.sweep.subdir=")]
    return [part.strip("'\" ") for value in folders for part in value.split(",")]


def raised_by_hydra(error: BaseException) -> bool:
    """Whether an error was raised outside our job."""
    ours = traceback.extract_tb(error.__traceback__)
    return not any(f"samplerbench{os.sep}app{os.sep}job" in frame.filename for frame in ours)


def without_trace(message: str) -> str:
    """The message of a launcher, with only the last line of a log or traceback in it."""
    head, *quoted = re.split(r"\n-{10,}\n", message)
    last = quoted[0].strip().splitlines()[-1:] if quoted else []
    return "\n".join([head, *last])


def choice_of(word: str, of: Collection[str] | None = None) -> str:
    """The text "; did you mean dataset=…?" for a word that is nearly the name of a member.

    Args:
        word: the word.
        of: the groups of such members; None: all.
    """
    own = groups() if of is None else of
    members = {f"{group}={name}": name for group in own for name in member_files(group)}
    near = nearest(word, members.values())
    return did_you_mean([choice for choice, name in members.items() if name in near][:3])


def _no_member(message: str) -> str:
    """Our message for a member of a group that Hydra could not find; empty for another error."""
    named = re.search(r"Could not (?:find|load) '(\w+)/([^']+)'", message)
    if named is None or named[1] not in groups():
        return ""
    return str(unknown_member(named[1], named[2], ADDING))


def _no_list(message: str) -> str:
    """Our message for key=a,b in a single job; empty for another error."""
    named = re.search(r"Ambiguous value for argument '([^=']+)=([^']+)'", message)
    if named is None:
        return ""
    key, values = named.groups()
    lists = f"a list is in brackets, '{key}=[{values}]'"
    return f"{key}={values}: must be one value: {lists}, and -m runs a job for each value"


def _extra(message: str) -> list[str]:
    """How to install a missing launcher or sweeper."""
    named = re.search(r"Could not find 'hydra/(?:launcher|sweeper)/(\w+)'", message)
    extra = PLUGINS.get(named[1]) if named else None
    return [f"(it comes with pip install 'samplerbench[{extra}]')"] if extra else []
