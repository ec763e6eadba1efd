"""From a config node to an object: the one place where a `_target_` is called.

A target must be a member of this package: a config is data, and data must not choose what code
runs (Hydra's own `instantiate` has only a deny list, which can be got round). Values are checked
against the annotations of what they are passed to, so that a wrong type is reported with its key.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from pydantic import ConfigDict, TypeAdapter, ValidationError

from samplerbench.errors import InvalidSetting

TRUSTED = ("samplerbench.",)


def construct(node: DictConfig, key: str, **shared: Any) -> Any:
    """Call the node's `_target_` with the node's values and with what is shared.

    With `_partial_: true` the function is returned with the values bound to it.

    Args:
        node: `_target_`, optionally `_partial_`, and keyword arguments.
        key: where the node stands in the config, for messages: "schedule".
        shared: further keyword arguments, objects that other nodes have built.

    Raises:
        InvalidSetting: naming key, value and what is allowed.
    """
    values = OmegaConf.to_container(node, resolve=True)
    assert isinstance(values, dict)
    return _call({str(name): value for name, value in values.items()}, key, shared)


def parameters(node: DictConfig, key: str) -> frozenset[str]:
    """The names of what the node's `_target_` can be given."""
    return frozenset(inspect.signature(trusted(node.get("_target_"), key)).parameters)


def read_member(path: Path) -> DictConfig:
    """The node of a member's yaml file, as Hydra would put it into the config."""
    node = OmegaConf.load(path)
    assert isinstance(node, DictConfig)
    return node


def construct_grid(node: DictConfig, key: str) -> list[Any]:
    """One object for each combination of the node's lists: a list is a grid."""
    values = OmegaConf.to_container(node, resolve=True)
    assert isinstance(values, dict)
    lists = {str(name): value for name, value in values.items() if isinstance(value, list)}
    for name, value in lists.items():
        if not value:
            raise InvalidSetting(f"{key}.{name}", value, "a value or a list of at least one")
    plain = {str(name): value for name, value in values.items() if name not in lists}
    members = [
        _call({**plain, **dict(zip(lists, combination, strict=True))}, key, {})
        for combination in product(*lists.values())
    ]
    for name, value in lists.items():
        if len({getattr(member, name, None) for member in members}) < len(value):
            raise InvalidSetting(f"{key}.{name}", value, "a list without repetitions")
    return members


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


def trusted(target: object, key: str) -> Callable[..., Any]:
    """The class or function of that name, if it is defined in a trusted package.

    Where it is defined decides, not how it is named: a module of ours also holds what it imports.
    """
    allowed = InvalidSetting(f"{key}._target_", target, f"a member of {', '.join(TRUSTED)}")
    if not isinstance(target, str) or not target.startswith(TRUSTED):
        raise allowed
    try:
        found = get_object(target)
    except Exception as error:
        raise allowed from error
    plain = inspect.isclass(found) or inspect.isfunction(found)
    if not plain or f"{found.__module__}.{found.__qualname__}" != target:
        raise allowed
    member: Callable[..., Any] = found
    return member


def _checked(function: Callable[..., Any], values: dict[str, Any], key: str) -> dict[str, Any]:
    """The values, each converted to the type of its parameter."""
    parameters = inspect.signature(function).parameters
    annotated = function.__init__ if inspect.isclass(function) else function
    hints = typing.get_type_hints(annotated)
    checked = {}
    for name, value in values.items():
        if name not in parameters:
            names = ", ".join(parameters) or "no setting at all"
            raise InvalidSetting(f"{key}.{name}", value, f"left out: {key} has {names}")
        checked[name] = convert(value, hints.get(name, Any), f"{key}.{name}")
    return checked


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
        message = first["msg"].removeprefix("Input should be ")
        raise InvalidSetting(key, value, message.split(", unable")[0]) from error
