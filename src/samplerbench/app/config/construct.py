"""From a config node to an object: the only place where a `_target_` is called.

A target must be a member of this package, or of a package that the current command trusts: a config
is data, and data must not choose the code that runs. (Hydra's `instantiate` only has a list of
forbidden targets, which can be bypassed.) A target in this package must belong to the key's group,
see `KINDS`, because the package also has functions that write files or that trust packages. Only
the command line can trust a package, for one command, see `trusting`; a stored config cannot.
Values are checked against the annotations of the parameters, so a wrong type is reported with its
key.
"""

from __future__ import annotations

import functools
import inspect
import sys
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from itertools import product, takewhile
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from pydantic import ConfigDict, TypeAdapter, ValidationError

from samplerbench.errors import InvalidSetting, kind_and_line, require, similar

OURS = "samplerbench"

#: The classes of each group's members; a function that returns such an object is a member too.
KINDS = {
    "dataset": ("datasets.base.Dataset",),
    "guide": ("datasets.base.Dataset",),
    "schedule": ("core.schedules.NoiseSchedule",),
    "grid": (
        "core.grids.Levels",
        "core.grids.LogLinear",
        "core.fitted_grids.FittedGrid",
        "bench.designing.DesignedGrid",
    ),
    "network": ("networks.base.Network",),
    "target": ("core.targets.Target",),
    "level_law": ("core.level_laws.LevelLaw",),
    "weighting": ("core.weightings.Weighting",),
    "objective": ("objectives.base.Objective",),
    "trainer": ("objectives.base.Recipe",),
    "sampler": ("samplers.base.Sampler",),
    "start": ("core.starts.Start",),
    "metric": ("metrics.base.Metric", "metrics.base.LawMetric"),
    "picture": ("figures.base.Picture",),
    "logger": ("logs.base.Logger",),
}

# only for the current command: a second job of the same process starts without trust
_TRUSTED: ContextVar[tuple[str, ...]] = ContextVar("trusted", default=())


@contextmanager
def trusting(packages: object) -> Iterator[None]:
    """Within the context a target may also be a member of these packages.

    Packages may be in the current folder. It is the last place in which Python searches, so a file
    there cannot replace an installed module.
    """
    listed = [packages] if isinstance(packages, str) else packages or []
    allowed = "the name of a package, such as my_package, or a list of names"
    require(isinstance(listed, Sequence), "trusted", packages, allowed)
    names = tuple(cast(Sequence[object], listed))
    for name in names:
        plain = isinstance(name, str) and all(part.isidentifier() for part in name.split("."))
        require(plain, "trusted", name, allowed)
    token, here = _TRUSTED.set(cast(tuple[str, ...], names)), [""] * (len(names) > 0)
    sys.path += here
    try:
        yield
    finally:
        _TRUSTED.reset(token)
        if here and "" in sys.path:
            sys.path.remove("")


def trusted_packages() -> tuple[str, ...]:
    """The packages that the current command trusts besides this one."""
    return _TRUSTED.get()


def construct(node: DictConfig, key: str, **shared: Any) -> Any:
    """Call the node's `_target_` with the node's values and the shared objects.

    With `_partial_: true` the function is returned with the values bound to it.

    Args:
        node: `_target_`, optionally `_partial_`, and keyword arguments.
        key: the node's key in the config, for messages: "schedule".
        shared: more keyword arguments: objects made from other nodes.
    """
    return _call(_values(node, key), key, shared)


def parameters(node: DictConfig, key: str) -> frozenset[str]:
    """The names of the parameters of the node's `_target_`."""
    return frozenset(inspect.signature(trusted(_values(node, key).get("_target_"), key)).parameters)


def read_member(path: Path) -> DictConfig:
    """The node of a member's yaml file, as Hydra would put it into the config."""
    node = OmegaConf.load(path)
    assert isinstance(node, DictConfig)
    return node


def first_comment(path: Path) -> str:
    """The comment at the top of a member's yaml: a description and the reference."""
    lines = [
        line
        for line in path.read_text(encoding="utf-8").splitlines()
        if not line.startswith("# @package")
    ]
    leading = takewhile(lambda line: line.startswith("# "), lines)
    return " ".join(line.removeprefix("# ") for line in leading)


def construct_grid(node: DictConfig, key: str) -> list[Any]:
    """One object for each combination of the node's lists: a list is a grid."""
    values = _values(node, key)
    lists = {name: value for name, value in values.items() if isinstance(value, list)}
    for name, value in lists.items():
        if not value:
            raise InvalidSetting(f"{key}.{name}", value, "a value or a list of at least one")
    plain = {name: value for name, value in values.items() if name not in lists}
    members = [
        _call({**plain, **dict(zip(lists, combination, strict=True))}, key, {})
        for combination in product(*lists.values())
    ]
    if any(one in members[:place] for place, one in enumerate(members)):
        values_of = {n: {getattr(one, n, None) for one in members} for n in lists}
        name = min(lists, key=lambda n: len(values_of[n]) - len(lists[n]))
        raise InvalidSetting(f"{key}.{name}", lists[name], "a list without repetitions")
    return members


def _values(node: object, key: str) -> dict[str, Any]:
    """The node's values, with interpolations resolved."""
    if not isinstance(node, DictConfig) or node._is_none():
        raise InvalidSetting(key, node, "a _target_ with its settings: see conf/")
    values = cast(dict[object, Any], OmegaConf.to_container(node, resolve=True))
    return {str(name): value for name, value in values.items()}


def _call(values: dict[str, Any], key: str, shared: dict[str, Any]) -> Any:
    target = values.pop("_target_", None)
    partial = values.pop("_partial_", False)
    function = trusted(target, key)
    checked = _checked(function, values, key)
    if partial:
        return functools.partial(function, **checked, **shared)
    try:
        return function(**checked, **shared)
    except InvalidSetting as error:
        raise InvalidSetting(f"{key}.{error.field}", error.value, error.allowed) from error


def trusted(target: object, key: str, name: str = "_target_") -> Callable[..., Any]:
    """The class or function that `target` names, if a module of a trusted package defines it."""

    def refused(allowed: str) -> InvalidSetting:
        return InvalidSetting(f"{key}.{name}", target, allowed)

    packages = (OURS, *_TRUSTED.get())
    if target is None:
        raise refused("a line of its yaml: _target_: package.module.Class")
    if not isinstance(target, str) or not _within(target, packages):
        package = str(target).partition(".")[0]
        allowed = f"a member of {', '.join(packages)}"
        if isinstance(target, str) and package.isidentifier():
            allowed += f"; add trusted={package} if you trust its code"
        raise refused(allowed)
    try:
        found = _imported(target)
    except Exception as error:  # the code of a package may raise anything
        reason = kind_and_line(error)
        raise refused(f"a class or function that can be imported ({reason})") from error
    if not (inspect.isclass(found) or inspect.isfunction(found)) or inspect.isabstract(found):
        raise refused("a class or a function, not an abstract class")
    defined = f"{found.__module__}.{found.__qualname__}"
    if defined != target:
        hint = f": {defined}" if _within(defined, packages) else ""
        raise refused(f"a member of {', '.join(packages)}, by the module that defines it{hint}")
    group = key.partition(".")[0]
    held = name == "_target_" and _holds(group, found)
    if _within(defined, (OURS,)) and not held:
        raise refused(f"a _target_ of conf/{group}/, or another member of this kind")
    if name == "_target_" and inspect.isclass(found) and group in KINDS and not held:
        raise refused(f"a class that derives from {OURS}.{KINDS[group][0]}")
    member: Callable[..., Any] = found
    return member


def _imported(name: str) -> Any:
    """The object with a dotted name, in a module or in a class of a module."""
    place, _, last = name.rpartition(".")
    try:
        return getattr(import_module(place), last)
    except ModuleNotFoundError as error:
        # the error may also come from an import inside the module
        if "." not in place or not f"{place}.".startswith(f"{error.name}."):
            raise
        return getattr(_imported(place), last)  # in a class


def _holds(group: str, found: Callable[..., Any]) -> bool:
    """Whether a class, or the class that our function returns, belongs to the group."""
    try:
        kind = found if inspect.isclass(found) else typing.get_type_hints(found).get("return")
    except NameError:  # a name that is only imported for annotations
        kind = None
    bases = inspect.getmro(kind) if inspect.isclass(kind) else ()
    names = {f"{base.__module__}.{base.__qualname__}" for base in bases}
    return any(f"{OURS}.{allowed}" in names for allowed in KINDS.get(group, ()))


def _within(name: str, packages: Sequence[str]) -> bool:
    return any(name.startswith(f"{package}.") for package in packages)


def _checked(function: Callable[..., Any], values: dict[str, Any], key: str) -> dict[str, Any]:
    """The values, each converted to the type of its parameter."""
    parameters = inspect.signature(function).parameters
    # the fields of a dataclass may have types that only the module of its base imports
    has_fields = "__dataclass_fields__" in vars(function)
    own = function.__init__ if inspect.isclass(function) and not has_fields else function
    hints = typing.get_type_hints(own)
    checked = {}
    for name, value in values.items():
        if name not in parameters:
            allowed = f"left out: {key} has {', '.join(parameters) or 'no setting at all'}"
            allowed += similar(name, parameters)
            if name in getattr(function, "__annotations__", {}):
                allowed = f"a field: write @dataclass(frozen=True) above class {function.__name__}"
            raise InvalidSetting(f"{key}.{name}", value, allowed)
        hint = hints.get(name, Any)
        if value == "???":  # OmegaConf's mark of a value that must be given
            raise InvalidSetting(f"{key}.{name}", "", "given" + ": a whole number" * (hint is int))
        if isinstance(value, str) and _is_function(hint):
            value = trusted(value, key, name)
        checked[name] = convert(value, hint, f"{key}.{name}")
    return checked


def _is_function(hint: Any) -> bool:
    """Whether a setting is a function; a config names it in the same way as a `_target_`."""
    return any(typing.get_origin(one) is Callable for one in (hint, *typing.get_args(hint)))


def convert(value: Any, kind: Any, key: str) -> Any:
    """The value as the given type, or an error that names the key."""
    if isinstance(value, bool) and kind in (int, float):  # Python counts True as 1
        raise InvalidSetting(key, value, "a number")
    try:
        return TypeAdapter(kind, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(
            value
        )
    except ValidationError as error:
        first = error.errors()[0]
        # pydantic's message for a text instead of a list does not fit after "must be"
        is_text = first["type"] == "sequence_str"
        message = "a list" if is_text else first["msg"].removeprefix("Input should be ")
        raise InvalidSetting(key, value, message.split(", unable")[0]) from error
