"""Identity: a short hash of everything that determines a result, and of nothing else.

Two results with the same identity have the same bits on the same machine. The process, the order of
the cells and the folder are not part of it. Settings are described by their class or function and
their values. So renaming a yaml file changes nothing, and changing a number changes the hash; equal
numbers have equal descriptions. Points, weights and other tensors are described by their content.

The code of a member is part of its identity. For this package it is one hash of the modules that
affect values; for the other packages in `VERSIONS`, such as torch, it is their version. For a
member of any other package it is the code of its module and of the modules that this one imports,
without installed packages, and the classes and functions in memory with the values that they look
up. Comments and docstrings are left out everywhere. Files that the code reads while it runs, and
modules that it imports by a computed name, are not included.
"""

from __future__ import annotations

import ast
import functools
import inspect
import json
import os
import platform
import sys
import types
import typing
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import fields, is_dataclass
from datetime import date
from enum import Enum
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import cache_from_source, find_spec
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from samplerbench.errors import INSTALLED
from samplerbench.files import write_atomically
from samplerbench.version import __version__

OURS = "samplerbench"
#: Modules that only store, compare or show values; excluded from the hash of the code.
PRESENTATION = (
    *("app/", "figures/", "report/", "verify/", "library.py", "logs/", "__main__.py"),
    *(f"bench/{name}.py" for name in ("cache", "jackknife", "ranking", "statistics", "store")),
    *("bench/resolution.py", "bench/rounding.py", "bench/scoring.py"),
    *(f"bench/budget/{name}.py" for name in ("mismatch", "parts", "words")),
    "bench/suite/",
)


def package_code(package: str, excluded: tuple[str, ...] = ()) -> str:
    """A hash of the source of a package or module, without comments and docstrings.

    Args:
        excluded: files and folders of the package that are left out.
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
    chosen = [(name, path) for name, path in sorted(files) if not name.startswith(excluded)]

    def hashed(text: Callable[[Path], bytes]) -> str:
        digest = _digest()
        for name, path in chosen:
            digest.update(name.encode())
            digest.update(text(path))
        return digest.hexdigest()

    def code() -> str:
        return hashed(lambda path: _source(path).encode())

    return _remembered(hashed(Path.read_bytes), excluded, code) if package == OURS else code()


def _remembered(files: str, excluded: tuple[str, ...], code: Callable[[], str]) -> str:
    """The hash of this package's code, which is kept for its files beside their bytecode.

    To compute it takes half a second. It is kept even if Python writes no bytecode. `files` is a
    hash of the whole files.
    """
    part = _digest(" ".join(excluded)).hexdigest()
    kept = Path(cache_from_source(__file__)).with_suffix(f".{part}")
    with suppress(OSError, ValueError):
        known, found = kept.read_text(encoding="utf-8").split()
        if known == files:
            return found
    computed = code()
    with suppress(OSError):  # the folder is read-only
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, f"{files} {computed}".encode(), durable=False)
    return computed


@functools.cache
def drawing_versions() -> dict[str, str]:
    """Versions of the software that affects the look of a figure, in addition to `VERSIONS`."""
    names = ("matplotlib", "pandas", "pillow")
    return {"figures": package_code(OURS), **{name: version(name) for name in names}}


def arithmetic() -> str:
    """The vector instructions that torch uses here; they affect the last bits."""
    return torch.backends.cpu.get_cpu_capability()


def machine() -> dict[str, str | int]:
    """What this machine is, for a reader of the values: no identity contains it."""
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "processor": platform.machine(),
        "model": _processor_model(),
        "instructions": arithmetic(),
        "threads": torch.get_num_threads(),
    }


@functools.cache
def _processor_model() -> str:
    """The name of the processor; empty if the system does not tell it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor()


def describe(thing: object, *, code: bool = False) -> Any:
    """A settings object as plain data for JSON.

    A frozen dataclass gives its class and fields, `functools.partial` its function and arguments,
    and a tensor, array or module its content. An integer in a field that is annotated as float
    becomes a float, so DDIM(1) and DDIM(1.0) are the same.

    Args:
        code: whether to include the code of classes and functions that are not installed.

    Raises:
        TypeError: the value of an object cannot be determined.
    """
    return _Describer(code).describe(thing)


class _Describer:
    """Describes objects, which may contain each other; `code` as in `describe`."""

    def __init__(self, code: bool) -> None:
        self._code = code
        self._reading: set[int] = set()  # ids of functions, classes and modules in progress

    def describe(self, thing: object) -> Any:
        if thing is None or isinstance(thing, bool | int | float | str):
            return thing
        if isinstance(thing, Enum):
            return {**self._named("class", type(thing)), "name": thing.name}
        if isinstance(thing, np.generic):
            return self.describe(thing.item())
        if isinstance(thing, Mapping):
            return {str(key): self.describe(thing[key]) for key in sorted(thing, key=str)}
        if isinstance(thing, nn.Module):
            return {**self._named("class", type(thing)), **self._module(thing)}
        if isinstance(thing, torch.Tensor):
            return {"tensor": content(thing)}
        if isinstance(thing, np.ndarray):
            return {"array": content(torch.from_numpy(np.ascontiguousarray(thing)))}
        if is_dataclass(thing) and not isinstance(thing, type):
            return {**self._named("class", type(thing)), **self._fields(thing)}
        if isinstance(thing, functools.partial):
            return {**self._named("function", thing.func), **self._arguments(thing)}
        if isinstance(thing, types.MethodType):
            return {
                **self._named("function", thing.__func__),
                "self": self.describe(thing.__self__),
            }
        if callable(thing) and hasattr(thing, "__qualname__"):
            return self._named("function", thing)
        if isinstance(thing, Sequence):
            return [self.describe(item) for item in thing]
        if isinstance(thing, Set):
            return sorted((self.describe(item) for item in thing), key=str)
        if isinstance(thing, torch.dtype | torch.device | Path | complex | date):
            return str(thing)
        raise TypeError(f"cannot describe a {type(thing).__name__} for an identity")

    def _fields(self, thing: Any) -> dict[str, Any]:
        kinds = _float_fields(type(thing))  # type: ignore[arg-type]  # a class is hashable
        names = [field.name for field in fields(thing)]
        values = {name: getattr(thing, name) for name in names}
        # objects of other packages may have more attributes than their fields
        if not _is_installed(type(thing)):
            kept = {name for name in vars(type(thing)) if _is_cached(type(thing), name)}
            values |= {k: v for k, v in vars(thing).items() if k not in values and k not in kept}
        return {
            name: self.describe(_as_float(value, name in kinds)) for name, value in values.items()
        }

    def _arguments(self, thing: functools.partial[Any]) -> dict[str, Any]:
        """The arguments of a partial, with defaults: giving a default value changes nothing."""
        try:
            bound = inspect.signature(thing.func).bind_partial(*thing.args, **thing.keywords)
        except (TypeError, ValueError):  # the arguments do not fit, or there is no signature
            return {"args": self.describe(thing.args), **self.describe(thing.keywords)}
        bound.apply_defaults()
        kinds = _float_fields(thing.func)
        return {
            name: self.describe(_as_float(value, name in kinds))
            for name, value in sorted(bound.arguments.items())
        }

    def _module(self, module: nn.Module) -> dict[str, Any]:
        """The weights and attributes of a model and of its parts."""
        if id(module) in self._reading:  # parts may contain each other
            return {}
        self._reading.add(id(module))
        plain = {
            name: self.describe(value)
            for name, value in sorted(vars(module).items())
            # a cached property follows from the rest, and is there only after its first use
            if name not in _MODULE
            and not isinstance(getattr(type(module), name, None), functools.cached_property)
        }
        hooks = [hook for name in _HOOKS for hook in getattr(module, name).values()]
        tensors = dict(module.named_parameters(recurse=False)) | dict(
            module.named_buffers(recurse=False)
        )
        weights = {name: content(tensor) for name, tensor in sorted(tensors.items())}
        parts = {name: self.describe(part) for name, part in module.named_children()}
        self._reading.remove(id(module))
        return {
            "attributes": plain,
            "training": module.training,
            "hooks": self.describe(hooks),
            "weights": weights,
            "parts": parts,
        }

    def _named(self, kind: str, thing: Any) -> dict[str, Any]:
        """The name of a class or function and its code, or its version if it is installed."""
        named = {kind: f"{thing.__module__}.{thing.__qualname__}"}
        if not self._code:
            return named
        if _is_installed(thing):
            installed = _installed_version(_package_of(thing))
            return {**named, "version": installed} if installed else named
        sources = _sources(thing.__module__) if _found_again(thing) else {}
        return {**named, "source": sources, "code": self._compiled(thing)}

    def _compiled(self, thing: Any) -> Any:
        """The parts of a function or class in memory that determine its behaviour.

        They differ from the file if it was edited after the import, or if something was replaced in
        memory. Code that was typed into a notebook has no file.
        """
        if isinstance(thing, types.CodeType):
            constants = list(thing.co_consts)
            if constants and isinstance(constants[0], str) and not thing.co_name.startswith("<"):
                del constants[0]  # the docstring
            return [thing.co_code.hex(), thing.co_names, list(map(self._compiled, constants))]
        if isinstance(thing, staticmethod | classmethod):
            return self._compiled(thing.__func__)
        if isinstance(thing, property):
            return [self._compiled(part) for part in (thing.fget, thing.fset) if part]
        if not isinstance(thing, type | types.FunctionType):
            return self._value(thing)
        name = f"{thing.__module__}.{thing.__qualname__}"
        if id(thing) in self._reading:
            return name
        if _is_installed(thing):
            return f"{name} {_installed_version(_package_of(thing))}"
        self._reading.add(id(thing))
        try:
            if isinstance(thing, types.FunctionType):
                cells = [cell.cell_contents for cell in thing.__closure__ or ()]
                globals_ = [thing.__globals__.get(word) for word in _words(thing.__code__)]
                defaults = [*(thing.__defaults__ or ()), *(thing.__kwdefaults__ or {}).items()]
                held = [thing.__code__, *defaults, *cells, *globals_]
                return [name, *map(self._compiled, held)]
            own = {
                word: self._compiled(value)
                for word, value in vars(thing).items()
                if callable(value) or not word.startswith("__")
            }
            return [name, sorted(own.items()), *map(self._compiled, thing.__bases__)]
        finally:
            self._reading.remove(id(thing))

    def _module_in_memory(self, module: types.ModuleType) -> Any:
        """The classes, functions and values of a module, unless it is installed."""
        name = module.__name__
        if id(module) in self._reading or _lies_among_installed(module):
            return name
        self._reading.add(id(module))
        values = {
            word: self._compiled(value)
            for word, value in vars(module).items()
            if not word.startswith("__")
        }
        self._reading.remove(id(module))
        return [name, values]

    def _value(self, thing: object) -> Any:
        """A value that a function or class refers to."""
        if isinstance(thing, types.ModuleType):
            return self._module_in_memory(thing)
        if isinstance(thing, Mapping):
            return {str(key): self._compiled(value) for key, value in thing.items()}
        if isinstance(thing, list | tuple | set | frozenset):
            return [self._compiled(item) for item in thing]
        try:
            return self.describe(thing)
        except TypeError:
            return type(thing).__name__


def identity(thing: object) -> str:
    """16 hexadecimal digits: a hash of the description of an object, with its code."""
    text = json.dumps(
        describe(thing, code=True), sort_keys=True, ensure_ascii=False, allow_nan=True
    )
    return blake2b(text.encode(), digest_size=8).hexdigest()


def identity_of_model(model: nn.Module) -> str:
    """The identity of a model by its content: class, code, weights and attributes.

    If this cannot be determined, it is a random number, the same for the same model object.
    """
    try:
        return identity(model)
    except TypeError:
        if model not in _random_ids:
            _random_ids[model] = os.urandom(8).hex()
        return _random_ids[model]


_random_ids: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()


def settings_text(thing: object) -> str:
    """The settings of a dataclass as JSON, without its class; empty if it has none."""
    values = describe(thing)
    values.pop("class", None)
    return json.dumps(values, sort_keys=True) if values else ""


def content(points: torch.Tensor) -> str:
    """16 hexadecimal digits: a hash of a tensor's numbers, dtype and shape."""
    state = _digest(f"{points.dtype} {tuple(points.shape)}")
    flat = torch.empty(points.numel(), dtype=points.dtype)
    flat.copy_(points.detach().reshape(-1))  # for any device and strides
    state.update(flat.view(torch.uint8).numpy().data)
    return state.hexdigest()


#: Attributes that every module has; its weights, parts and hooks are described separately.
_MODULE = frozenset(vars(nn.Module()))
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


def _as_float(value: object, is_float: bool) -> object:
    """The value, with its integers as floats if its annotation says float."""
    if not is_float:
        return value
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_as_float(item, True) for item in value]
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return float(index(value)) if whole else value  # type: ignore[arg-type]  # it is a whole number


@functools.cache
def _float_fields(thing: Callable[..., Any]) -> frozenset[str]:
    """The fields or parameters that are floats, or lists of floats, by their annotations."""
    try:
        hints = typing.get_type_hints(thing)
    except Exception:  # an annotation of another package that cannot be evaluated
        return frozenset()
    return frozenset(name for name, hint in hints.items() if _holds_floats(hint))


def _holds_floats(hint: Any) -> bool:
    inner = list(_leaves(hint))  # the parameters of a function are a list, which has no hash
    return float in inner and int not in inner


def _leaves(hint: Any) -> Iterator[Any]:
    arguments = typing.get_args(hint)
    if not arguments:
        yield hint
    for argument in arguments:
        yield from _leaves(argument)


def _found_again(thing: Any) -> bool:
    """Whether the object's module has the same object under the object's name."""
    found: Any = sys.modules.get(thing.__module__)
    for name in thing.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is thing


def _sources(name: str) -> dict[str, str]:
    """Hashes of the sources of a module and of its imports that are not installed."""
    found: dict[str, str] = {}
    waiting = [name]
    while waiting:
        module = waiting.pop()
        path = None if module in found else _path_of(module)
        if path is None:
            continue
        own = module.partition(".")[0] == name.partition(".")[0]
        if not own and any(path.is_relative_to(place) for place in INSTALLED):
            continue
        found[module], imports = _read(path, path.stat().st_mtime_ns)
        inside = module if path.name == "__init__.py" else module.rpartition(".")[0]
        waiting += [_absolute(level, start, inside) for level, start in imports]
    return found


@functools.cache
def _read(path: Path, changed: int) -> tuple[str, list[tuple[int, str]]]:
    """A hash of a file's source, and its imports (levels upwards, names), at its last change."""
    return _digest(_source(path)).hexdigest(), list(_imports(ast.parse(path.read_bytes())))


def _absolute(level: int, name: str, package: str) -> str:
    """The full name of an import within a package."""
    parents = package.split(".")
    above = parents[: len(parents) + 1 - level] if level else []
    return ".".join([*above, *filter(None, [name])])


def _path_of(module: str) -> Path | None:
    """The file of a module that is written in Python and whose package is not in `VERSIONS`."""
    if module.partition(".")[0] in ("__main__", *VERSIONS):
        return None
    try:
        spec = find_spec(module)
    except (ImportError, ValueError, AttributeError):  # the name of something in a module
        return None
    origin = None if spec is None else spec.origin
    return Path(origin) if origin is not None and origin.endswith(".py") else None


def _imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The imports of a module; for `from a import b` both a and a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = node.module or ""
            yield node.level, start
            yield from ((node.level, f"{start}.{alias.name}".lstrip(".")) for alias in node.names)


def _source(path: Path) -> str:
    """The source of a Python file without comments and docstrings; the text of other files.

    It is the same for all versions of Python.
    """
    text = path.read_bytes()
    if path.suffix != ".py":
        return text.decode("utf-8", "replace")
    return ast.unparse(_CodeOnly().visit(ast.parse(text)))


class _CodeOnly(ast.NodeTransformer):
    """Removes docstrings, and makes tuples of f-strings, whose quotes depend on the version."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if isinstance(node, ast.JoinedStr):
            return ast.Tuple(node.values, ast.Load())
        if isinstance(node, ast.FormattedValue):
            parts = [node.value, ast.Constant(node.conversion), node.format_spec]
            return ast.Tuple([part for part in parts if part is not None], ast.Load())
        body = getattr(node, "body", None)
        if isinstance(body, list):
            kept = [line for line in body if not _is_text(line)]
            node.body = kept or [ast.Pass()]  # type: ignore[attr-defined]  # it has a body
        return node


def _is_text(node: ast.AST) -> bool:
    """Whether a statement is a string alone: a docstring."""
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _is_installed(thing: Any) -> bool:
    """Whether a class or function is from `VERSIONS`, the standard library or installed."""
    if _package_of(thing) == "__main__":
        return False
    return _lies_among_installed(sys.modules.get(thing.__module__))


def _lies_among_installed(module: types.ModuleType | None) -> bool:
    path = getattr(module, "__file__", None)
    known = module is not None and module.__name__.partition(".")[0] in VERSIONS
    return known or path is None or any(Path(path).is_relative_to(place) for place in INSTALLED)


def _package_of(thing: Any) -> str:
    """The top-level package of a class or function."""
    return str(thing.__module__).partition(".")[0]


@functools.cache
def _installed_version(package: str) -> str:
    """The version of an installed package; empty if `VERSIONS` or Python's own version has it."""
    if package in VERSIONS or package in sys.stdlib_module_names:
        return ""
    try:
        return version(package)
    except PackageNotFoundError:  # its distribution has another name, or there is none
        distributions = packages_distributions().get(package, [])
        return version(distributions[0]) if distributions else package_code(package)


def _is_cached(kind: type, name: str) -> bool:
    return isinstance(inspect.getattr_static(kind, name), functools.cached_property)


def _words(code: types.CodeType) -> Iterator[str]:
    """The names that code, and the code inside it, looks up."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _words(constant)


def _digest(text: str = "") -> blake2b:
    return blake2b(text.encode(), digest_size=8)


#: Versions of the software that determines the bits of a value: this package and the libraries
#: that it computes with.
VERSIONS = {
    OURS: f"{__version__} {package_code(OURS, PRESENTATION)}",
    **{name: version(name) for name in ("torch", "numpy", "scipy", "pot", "pytorch-lightning")},
}
