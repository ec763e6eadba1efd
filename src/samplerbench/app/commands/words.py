"""Parse the words after a command's name, in the same way for all commands.

A word that names an existing folder (for `score` also a file) means that folder, even if it
contains "="; a word without "=" means a folder too. Any other word is `key=value`, also written
`--key=value` or `--key value`. A command refuses words that it would not use.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal

from samplerbench.errors import require, similar

_IS_THERE = {"folder": os.path.isdir, "file or folder": os.path.exists}


def read_words(
    command: str,
    words: Sequence[str],
    keys: Collection[str],
    *,
    groups: Collection[str] = (),
    options: Collection[str] = (),
    place: Literal["folder", "file or folder"] = "folder",
) -> tuple[list[str], dict[str, str]]:
    """The folders or files that the words name, and the values of the keys.

    Args:
        words: the words after the command, without those of `split_member_words`.
        keys: the keys that the command uses.
        groups: keys that may have settings too, `group.setting=value`.
        options: words without a value, such as `--compare`; their value is "".
        place: what a word without a key names.
    """
    places: list[str] = []
    values: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        if _IS_THERE[place](word) or not (word.startswith("-") or "=" in word):
            places.append(word)
            continue
        key, equals, value = word.removeprefix("--").partition("=")
        if word in options:
            key = word
        else:
            group, dot, _ = key.partition(".")
            is_key = key in keys or (bool(dot) and group in groups)
            allowed = f"left out: {command} uses {', '.join((*keys, *options))}"
            allowed += f", and no {place} has this name{similar(key, keys)}"
            require(is_key, *((key, value) if equals else (command, word)), allowed)
            value = value if equals else next(rest, "")
            require(bool(value), key, value, "followed by its value")
        require(key not in values, key, value, "given once")
        values[key] = value
    return places, values


def require_folder(command: str, folders: Sequence[str], *, one: bool = False) -> None:
    """Refuse a command without the folder of a run, or with several if it takes one."""
    number = "one folder of a run" if one else "one or more folders of runs"
    allowed = f"followed by {number}, such as multirun/NAME"
    enough = len(folders) == 1 or (len(folders) > 1 and not one)
    require(enough, "", " ".join([command, *folders]), allowed)


def split_member_words(words: Sequence[str]) -> tuple[list[Path], object, list[str]]:
    """The folders after `--config-dir`, the value of `trusted=`, and the other words."""
    folders, trusted, kept = [], list[object](), []
    rest = iter(words)
    for word in rest:
        key, equals, value = word.partition("=")
        if key in ("--config-dir", "-cd"):
            value = value if equals else next(rest, "")
            require(bool(value), key, value, "followed by a folder")
            folders.append(Path(value))
        elif key == "trusted" and not os.path.isdir(word):
            require(not trusted, key, value, "given once: a package or a list of packages")
            trusted.append(value_of(word))
        else:
            kept.append(word)
    return folders, trusted[0] if trusted else (), kept


def value_of(word: str) -> Any:
    """The value of `key=value`, read as on the command line of a job."""
    from hydra.core.override_parser.overrides_parser import OverridesParser  # slow to import

    override = OverridesParser.create().parse_override(word)
    require(not override.is_sweep_override(), override.key_or_group, word, "one value")
    return override.value()
