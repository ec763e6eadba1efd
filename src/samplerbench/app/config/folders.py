"""The folders of the config's groups: ours, and the user's own (`--config-dir`)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import cache
from pathlib import Path

from samplerbench.errors import InvalidSetting, choice, related, require

#: Groups of which a run can have several members; the key of a node has the name: `sampler.ddim`.
SEVERAL = ("sampler", "metric", "start", "picture")
#: Advice for a user whose own members are in another folder.
ADDING = "; --config-dir DIR adds those of your own folder"

_own: ContextVar[tuple[Path, ...]] = ContextVar("own", default=())


@cache
def conf_directory() -> Path:
    """The folder of our groups: inside an installed wheel, beside src/ in a checkout."""
    package = Path(__file__).resolve().parents[2]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


def own_directories() -> tuple[Path, ...]:
    """The user's folders of groups."""
    return _own.get()


@contextmanager
def adding(folders: Sequence[Path]) -> Iterator[None]:
    """Within the context the members of these folders are known too."""
    for folder in folders:
        require(folder.is_dir(), "--config-dir", folder, "a folder")
    require_own_names(folders)
    token = _own.set((*_own.get(), *(folder.resolve() for folder in folders)))
    try:
        yield
    finally:
        _own.reset(token)


def require_own_names(folders: Iterable[Path]) -> None:
    """Refuse a user's yaml that Hydra would confuse with another member.

    If one of our files has the same name, Hydra reads only ours. In the groups of `SEVERAL`, it
    would mix the settings of two files with the same `# @package` line.
    """
    theirs = (folder for folder in folders if folder.resolve() != conf_directory())
    for path in sorted(path for folder in theirs for path in folder.glob("*/*.yaml")):
        group, key = path.parent.name, f"{path.parent.name}.{path.stem}"
        ours = conf_directory() / group / path.name
        allowed = "a file with another name: one of ours has this one"
        require(path.resolve() == ours or not ours.exists(), key, path, allowed)
        line = f"# @package {key}"
        named = group not in SEVERAL or line in path.read_text(encoding="utf-8").splitlines()
        require(named, key, path, f"a file with the line {line}")


def groups() -> list[str]:
    """The groups' names, without Hydra's own."""
    folders = (conf_directory(), *own_directories())
    found = {path.name for folder in folders for path in folder.iterdir() if path.is_dir()}
    return sorted(found - {"hydra"})


def member_files(group: str) -> dict[str, Path]:
    """The yaml files of a group, by the names of their members; ours win over the user's."""
    found: dict[str, Path] = {}
    for folder in (conf_directory(), *own_directories()):
        for path in sorted((folder / group).rglob("*.yaml")):
            name = path.relative_to(folder / group).with_suffix("").as_posix()
            found.setdefault(name, path)
    return dict(sorted(found.items()))


def unknown_member(group: str, name: str, advice: str = "") -> InvalidSetting:
    """The error for a name that is no member of a group: see `errors.choice`.

    `advice` is added if no name is near, except if the user has a folder of members.
    """
    known = member_files(group)
    allowed = choice(name, known, f"a name in `samplerbench list {group}`")
    needed = not related(name, known) and not own_directories()
    return InvalidSetting(group, name, allowed + advice * needed)


def run_name() -> str:
    """A unique folder name: the time, for readers, and 64 random bits."""
    return f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{os.urandom(8).hex()}"
