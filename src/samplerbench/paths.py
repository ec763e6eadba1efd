"""Paths that a user has typed.

A path may be wrong in many ways: no such user after ~, a name that is too long, a folder that may
not be read. In all of them there is no such file, and the functions here raise no other error.
"""

from __future__ import annotations

import os
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

from samplerbench.errors import InvalidSetting, did_you_mean


def expanded(path: str | Path) -> Path:
    """The path with the home directory in place of ~; the ~ of an unknown user stays."""
    return Path(os.path.expanduser(path))


def existing_file(path: str) -> Path:
    """The file at the path of a setting `path`.

    Raises:
        InvalidSetting: there is no such file.
    """
    location = expanded(path)
    if os.path.isfile(location):
        return location
    is_folder = os.path.isdir(location)
    allowed = "a file: this is a folder" if is_folder else f"a file that exists{similar_path(path)}"
    raise InvalidSetting("path", path, allowed)


def similar_path(path: str) -> str:
    """The text "; did you mean …?" with files of the same folder; empty if none is similar.

    A similar file has the same name with another ending, or the same ending and a similar name.
    """
    typed = Path(path)
    others: list[Path] = []
    with suppress(OSError, ValueError), os.scandir(expanded(path).parent) as entries:
        files = (Path(entry.name) for entry in entries if os.path.isfile(entry.path))
        seen = (one for one in files if not one.name.startswith("."))
        others = sorted(one for one in seen if one.name != typed.name)
    stems = {one.stem: one for one in others if one.suffix == typed.suffix}
    same = [one for one in others if one.stem in (typed.stem, typed.name)]
    near = same or [stems[stem] for stem in get_close_matches(typed.stem, stems, n=1, cutoff=0.75)]
    return did_you_mean([str(typed.parent / one) for one in near[:3]])
