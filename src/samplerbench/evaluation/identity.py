"""Identity: a short hash of everything that decides a result, and of nothing else.

Two results with the same identity have the same bits on the same machine; worker, order and
folder are not part of it. Settings are described by their class or function and their values, so
renaming a yaml file changes nothing and changing a number changes the hash.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from hashlib import blake2b
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from samplerbench import __version__

SHOWS = ("figures", "report", "logs.py")
"""What of this package decides no number."""


def code(package: str) -> str:
    """A hash of the source of a package or module: its version stays while it is worked on.

    Args:
        package: its name; of this one, without what only shows results.
    """
    spec = find_spec(package)
    if spec is None:
        return ""
    roots = [Path(place) for place in spec.submodule_search_locations or ()]
    files = [
        (path.relative_to(root), path)
        for root in roots
        for path in root.rglob("*")
        if path.suffix in (".py", ".mplstyle")
    ]
    if not roots and spec.origin is not None:
        files = [(Path(package), Path(spec.origin))]
    digest = blake2b(digest_size=8)
    for name, path in sorted(files):
        if package != "samplerbench" or name.parts[0] not in SHOWS:
            digest.update(name.as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


#: What of the software decides the bits: our formulas, kernels, streams of numbers, the trainer's
#: order of operations, and the libraries behind single metrics and starts.
VERSIONS = {
    "samplerbench": f"{__version__} {code('samplerbench')}",
    **{name: version(name) for name in ("torch", "numpy", "scipy", "pot", "pytorch-lightning")},
}


@functools.cache
def drawing_versions() -> dict[str, str]:
    """What of the software decides how a figure looks, besides `VERSIONS`."""
    names = ("matplotlib", "pandas", "pillow")
    return {"figures": code("samplerbench.figures"), **{name: version(name) for name in names}}


def describe(thing: object) -> Any:
    """A settings object as plain, JSON-ready data.

    Frozen dataclasses give their class and fields, `functools.partial` its function and keywords.

    Raises:
        TypeError: for anything whose value cannot be read off.
    """
    if thing is None or isinstance(thing, bool | int | float | str):
        return thing
    if isinstance(thing, Mapping):
        return {str(key): describe(thing[key]) for key in sorted(thing, key=str)}
    if is_dataclass(thing) and not isinstance(thing, type):
        values = {field.name: describe(getattr(thing, field.name)) for field in fields(thing)}
        return {"class": _path(type(thing)), **values}
    if isinstance(thing, functools.partial):
        return {
            "function": _path(thing.func),
            "args": describe(thing.args),
            **{key: describe(thing.keywords[key]) for key in sorted(thing.keywords)},
        }
    if callable(thing) and hasattr(thing, "__qualname__"):
        return _path(thing)
    if isinstance(thing, Sequence):
        return [describe(item) for item in thing]
    raise TypeError(f"cannot describe a {type(thing).__name__} for an identity")


def identity(thing: object) -> str:
    """16 hexadecimal digits that stand for the description of a thing."""
    return described_identity(describe(thing))


def described_identity(plain: Any) -> str:
    """The `identity` of what `describe` gives, for things of which much is described already."""
    text = json.dumps(plain, sort_keys=True, ensure_ascii=False, allow_nan=True)
    return blake2b(text.encode(), digest_size=8).hexdigest()


def settings_text(thing: object) -> str:
    """The settings of a dataclass as JSON, without its class; empty where it has none."""
    values = describe(thing)
    values.pop("class", None)
    return json.dumps(values, sort_keys=True) if values else ""


def _path(thing: Any) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"
