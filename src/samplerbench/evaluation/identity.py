"""Identity: a short hash of everything that decides a result, and of nothing else.

Two results with the same identity have the same bits on the same machine; worker, order and
folder are not part of it. Settings are described by their class or function and their values, so
renaming a yaml file changes nothing and changing a number changes the hash; numbers that are equal
are described alike. Points, weights and other tensors are described by their content.

The code of a member is part of its identity. Of this package that is one hash of the modules that
decide numbers, and of torch and other packages that are in `VERSIONS` too, their version. Of a
member of somebody else's it is the module that defines it, and what that imports of its own package
or of other modules that are not installed; comments and docstrings do not count there.
"""

from __future__ import annotations

import ast
import functools
import json
import os
import sys
import sysconfig
import types
import typing
import weakref
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from hashlib import blake2b
from importlib.metadata import version
from importlib.util import find_spec
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from samplerbench import __version__

OURS = "samplerbench"
PRESENTATION = (
    *("app/", "figures/", "report/", "library.py", "logs.py", "references.py", "__main__.py"),
    *(f"evaluation/{name}.py" for name in ("cache", "jackknife", "ranking", "statistics", "store")),
)
"""Modules that only keep, compare or show values; excluded from the hash of what decides them."""


def package_code(package: str, excluded: tuple[str, ...] = ()) -> str:
    """A hash of the source of a package or module.

    Comments and docstrings do not count, except in this package, where leaving them out would
    make every start slower.

    Args:
        package: its name.
        excluded: files and folders of it that do not count.
    """
    spec = find_spec(package)
    if spec is None:
        return ""
    roots = [Path(place) for place in spec.submodule_search_locations or ()]
    files = [
        (path.relative_to(root).as_posix(), path)
        for root in roots
        for path in root.rglob("*")
        if path.suffix in (".py", ".mplstyle")
    ]
    if not roots and spec.origin is not None:
        files = [(package, Path(spec.origin))]
    digest = _digest()
    for name, path in sorted(files):
        if not name.startswith(excluded):
            digest.update(name.encode())
            digest.update(path.read_bytes() if package == OURS else _source(path).encode())
    return digest.hexdigest()


@functools.cache
def drawing_versions() -> dict[str, str]:
    """Versions of the software that decides how a figure looks, besides `VERSIONS`."""
    names = ("matplotlib", "pandas", "pillow")
    return {"figures": package_code(OURS), **{name: version(name) for name in names}}


def describe(thing: object, *, code: bool = False) -> Any:
    """A settings object as plain, JSON-ready data.

    Frozen dataclasses give their class and fields, `functools.partial` its function and keywords,
    tensors and modules a digest of their content. A number in a field that is annotated as float is
    a float: DDIM(1) is DDIM(1.0).

    Args:
        thing: what to describe.
        code: whether the code of classes and functions is described too, where `VERSIONS` does not
            say what their package is.

    Raises:
        TypeError: for anything whose value cannot be read off.
    """
    if thing is None or isinstance(thing, bool | int | float | str):
        return thing
    if isinstance(thing, np.generic):
        return describe(thing.item())
    inner = functools.partial(describe, code=code)
    if isinstance(thing, Mapping):
        return {str(key): inner(thing[key]) for key in sorted(thing, key=str)}
    if isinstance(thing, nn.Module):
        return {**_named("class", type(thing), code), **_module(thing, code)}
    if isinstance(thing, torch.Tensor):
        return {"tensor": content(thing)}
    if is_dataclass(thing) and not isinstance(thing, type):
        kinds = _float_fields(type(thing))
        values = {
            field.name: inner(_as_float(getattr(thing, field.name), field.name in kinds))
            for field in fields(thing)
        }
        return {**_named("class", type(thing), code), **values}
    if isinstance(thing, functools.partial):
        kinds = _float_fields(thing.func)
        keywords = {
            key: inner(_as_float(thing.keywords[key], key in kinds))
            for key in sorted(thing.keywords)
        }
        return {**_named("function", thing.func, code), "args": inner(thing.args), **keywords}
    if callable(thing) and hasattr(thing, "__qualname__"):
        return _named("function", thing, code)
    if isinstance(thing, Sequence):
        return [inner(item) for item in thing]
    if isinstance(thing, Set):
        return sorted((inner(item) for item in thing), key=str)
    if isinstance(thing, torch.dtype | torch.device | Path):
        return str(thing)
    raise TypeError(f"cannot describe a {type(thing).__name__} for an identity")


def identity(thing: object) -> str:
    """16 hexadecimal digits that stand for the description of a thing, its code included."""
    text = json.dumps(
        describe(thing, code=True), sort_keys=True, ensure_ascii=False, allow_nan=True
    )
    return blake2b(text.encode(), digest_size=8).hexdigest()


def identity_of_model(model: nn.Module) -> str:
    """The identity of a model by its content: class, code, weights and attributes.

    Where that cannot be read off, it is a number that no other model of this process has.
    """
    try:
        return identity(model)
    except TypeError:
        if model not in _counted:
            _counted[model] = os.urandom(8).hex()
        return _counted[model]


_counted: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()


def settings_text(thing: object) -> str:
    """The settings of a dataclass as JSON, without its class; empty where it has none."""
    values = describe(thing)
    values.pop("class", None)
    return json.dumps(values, sort_keys=True) if values else ""


def content(points: torch.Tensor) -> str:
    """16 hexadecimal digits that stand for a tensor's numbers, dtype and shape."""
    state = _digest(f"{points.dtype} {tuple(points.shape)}")
    flat = points.detach().cpu().contiguous().view(-1)
    state.update(flat.view(torch.uint8).numpy().data)
    return state.hexdigest()


#: What every module has for itself; its weights and parts among it are described on their own.
_MODULE = frozenset(vars(nn.Module()))


def _module(module: nn.Module, code: bool) -> dict[str, Any]:
    """The weights of a model, and the attributes of it and of its parts."""
    plain = {
        name: describe(value, code=code)
        for name, value in sorted(vars(module).items())
        if name not in _MODULE
    }
    tensors = dict(module.named_parameters(recurse=False)) | dict(
        module.named_buffers(recurse=False)
    )
    parts = {name: describe(part, code=code) for name, part in module.named_children()}
    weights = {name: content(tensor) for name, tensor in sorted(tensors.items())}
    return {"attributes": plain, "weights": weights, "parts": parts}


def _named(kind: str, thing: Any, code: bool) -> dict[str, Any]:
    """The name of a class or function and, unless `VERSIONS` says what its package is, its code."""
    named = {kind: f"{thing.__module__}.{thing.__qualname__}"}
    known = str(thing.__module__).partition(".")[0] in VERSIONS
    return named if known or not code else {**named, "code": _code_of(thing)}


def _as_float(value: object, is_float: bool) -> object:
    """The value with its whole numbers as floats, where it stands for floats."""
    if not is_float:
        return value
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_as_float(item, True) for item in value]
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return float(index(value)) if whole else value  # type: ignore[arg-type]  # it is a whole number


@functools.cache
def _float_fields(thing: Any) -> frozenset[str]:
    """The fields or parameters that hold floats, or lists of them, by their annotations."""
    try:
        hints = typing.get_type_hints(thing)
    except Exception:  # an annotation of somebody else's that cannot be evaluated
        return frozenset()
    return frozenset(name for name, hint in hints.items() if _holds_floats(hint))


def _holds_floats(hint: Any) -> bool:
    inner = set(_leaves(hint))
    return float in inner and int not in inner


def _leaves(hint: Any) -> Iterator[Any]:
    arguments = typing.get_args(hint)
    if not arguments:
        yield hint
    for argument in arguments:
        yield from _leaves(argument)


@functools.cache
def _code_of(thing: Any) -> str:
    """A hash of the code behind a class or function of somebody else's.

    Its module with what that imports, where it lies in a file; of what was typed into a notebook,
    or made by a function, the compiled code.
    """
    digest = _digest()
    sources = _sources(thing.__module__) if _found_again(thing) else {}
    for name, source in sorted(sources.items()):
        digest.update(f"{name} {source}".encode())
    if not sources:
        digest.update(repr(_compiled(thing, set())).encode())
    return digest.hexdigest()


def _found_again(thing: Any) -> bool:
    """Whether the thing is what its module has under its name."""
    found: Any = sys.modules.get(thing.__module__)
    for name in thing.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is thing


def _sources(name: str) -> dict[str, str]:
    """The source of a module, and of what it imports of its package or of modules not installed."""
    found: dict[str, str] = {}
    waiting = [name]
    while waiting:
        module = waiting.pop()
        path = None if module in found else _path_of(module)
        if path is None:
            continue
        own = module.partition(".")[0] == name.partition(".")[0]
        if not own and any(path.is_relative_to(place) for place in _INSTALLED):
            continue
        found[module] = _source(path)
        inside = module if path.name == "__init__.py" else module.rpartition(".")[0]
        waiting += _imports(ast.parse(path.read_bytes()), inside)
    return found


#: Where the standard library and installed packages lie: their versions say what they are.
_INSTALLED = tuple(
    Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")
)


def _path_of(module: str) -> Path | None:
    """The file of a module that is written in Python and not of this package."""
    if module.partition(".")[0] in (OURS, "__main__"):
        return None
    try:
        spec = find_spec(module)
    except (ImportError, ValueError, AttributeError):  # the name of something in a module
        return None
    origin = None if spec is None else spec.origin
    return Path(origin) if origin is not None and origin.endswith(".py") else None


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    """The full names of all that a module imports; of `from a import b` both a and a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            above = parents[: len(parents) + 1 - node.level] if node.level else []
            start = ".".join([*above, *filter(None, [node.module])])
            yield start
            yield from (f"{start}.{alias.name}" for alias in node.names)


def _source(path: Path) -> str:
    """The source of a file without comments and docstrings; of what is no Python the text."""
    text = path.read_bytes()
    if path.suffix != ".py":
        return text.decode("utf-8", "replace")
    tree = ast.parse(text)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            kept = [line for line in body if not _is_text(line)]
            node.body = kept or [ast.Pass()]  # type: ignore[attr-defined]  # it has a body
    return ast.dump(tree)


def _is_text(node: ast.AST) -> bool:
    """Whether a statement is a string alone: a docstring."""
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _compiled(thing: Any, seen: set[int]) -> Any:
    """What decides the behaviour of a function or class, as far as it can be read off.

    Args:
        thing: a function, a class, or a value that one of them holds.
        seen: ids of the functions and classes that are being read; they may hold each other.
    """
    inner = functools.partial(_compiled, seen=seen)
    if isinstance(thing, types.CodeType):
        return [thing.co_code.hex(), thing.co_names, list(map(inner, thing.co_consts))]
    if isinstance(thing, staticmethod | classmethod):
        return inner(thing.__func__)
    if isinstance(thing, property):
        return [inner(part) for part in (thing.fget, thing.fset) if part]
    if not isinstance(thing, type | types.FunctionType):
        try:
            return describe(thing)
        except TypeError:
            return type(thing).__name__
    if id(thing) in seen or thing.__module__.partition(".")[0] == OURS or _is_installed(thing):
        return f"{thing.__module__}.{thing.__qualname__}"
    seen.add(id(thing))
    if isinstance(thing, types.FunctionType):
        cells = [cell.cell_contents for cell in thing.__closure__ or ()]
        named = [thing.__globals__.get(name) for name in thing.__code__.co_names]
        held = [thing.__code__, *(thing.__defaults__ or ()), *cells, *named]
        return [thing.__qualname__, *map(inner, held)]
    own = {
        name: inner(value)
        for name, value in vars(thing).items()
        if callable(value) or not name.startswith("__")
    }
    return [thing.__qualname__, sorted(own.items()), *map(inner, thing.__bases__)]


def _is_installed(thing: Any) -> bool:
    """Whether a class or function is of the standard library or of an installed package."""
    if thing.__module__ == "__main__":
        return False
    path = getattr(sys.modules.get(thing.__module__), "__file__", None)
    return path is None or any(Path(path).is_relative_to(place) for place in _INSTALLED)


def _digest(text: str = "") -> blake2b:
    return blake2b(text.encode(), digest_size=8)


#: Versions of the software that decides the bits of a value: our formulas, kernels and streams of
#: random numbers, and the libraries behind them.
VERSIONS = {
    OURS: f"{__version__} {package_code(OURS, PRESENTATION)}",
    **{name: version(name) for name in ("torch", "numpy", "scipy", "pot", "pytorch-lightning")},
}
