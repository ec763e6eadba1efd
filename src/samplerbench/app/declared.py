"""What our samplers declare, read from their source: to list them takes no torch.

A class is made again of those of its statements that declare something (its fields, its class
variables, and what `SAYS` names), upon bases that are made again in the same way. Nothing else of
its module is run. So there is no second list of what samplers declare, and the tests compare every
member with its real class.
"""

from __future__ import annotations

import ast
from abc import ABCMeta
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from sys import stdlib_module_names
from typing import Any

from hydra.utils import get_object

OURS = "samplerbench."
#: The methods and properties in which a sampler declares something, besides its class variables.
SAYS = ("order", "stochastic", "adaptive", "needs_density", "needs_signal", "holds", "evaluations")


def declared(target: str, settings: Mapping[str, Any]) -> Any:
    """An object with these settings that declares what one of the class would.

    Args:
        target: the full name of a class of ours, "samplerbench.samplers.heun.Heun".
        settings: values of its fields.

    Raises:
        LookupError: the class is not ours, or its source alone does not tell.
    """
    made = again(target)()
    vars(made).update(settings)
    return made


@cache
def again(target: str) -> type:
    """The class of that name, made again of what it declares.

    Raises:
        LookupError: it is not ours, or its source alone does not tell.
    """
    module, _, name = target.rpartition(".")
    if not target.startswith(OURS):
        raise LookupError(f"{target} is not ours")
    tree, known = _read(module)
    found = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    if not found:
        raise LookupError(f"{module} defines no class {name}")
    bases = [known.get(ast.unparse(base), "") for base in found[0].bases]
    body = [node for node in found[0].body if _declares(node)]
    # only what is named is looked for: most of what a module imports needs torch
    names = {word: _object(known[word]) for word in _names(body) if word in known}
    namespace: dict[str, Any] = {}
    # it is our own source, and importing it would run the same
    exec(compile(ast.Module(body, []), f"<what {target} declares>", "exec"), names, namespace)
    # as an abstract class, it refuses to be made without what its base leaves open
    return ABCMeta(name, tuple(again(base) for base in bases if base.startswith(OURS)), namespace)


@cache
def _read(module: str) -> tuple[ast.Module, Mapping[str, str]]:
    """The module's tree, and the full names of its classes and of what it imports."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise LookupError(f"there is no module {module}")
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    known = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            known[node.name] = f"{module}.{node.name}"
        elif isinstance(node, ast.Import):
            known |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            known |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return tree, known


def _declares(node: ast.stmt) -> bool:
    named = isinstance(node, ast.FunctionDef) and node.name in SAYS
    return named or (isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None)


def _names(body: Sequence[ast.stmt]) -> set[str]:
    """The names that these statements use, but for their annotations, which nobody evaluates."""
    parts: list[ast.AST] = []
    for node in body:
        if isinstance(node, ast.FunctionDef):
            parts += [*node.decorator_list, *node.body]
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            parts.append(node.value)
    inner = (node for part in parts for node in ast.walk(part))
    return {node.id for node in inner if isinstance(node, ast.Name)}


def _object(name: str) -> Any:
    """A class of ours made again, or a part of the standard library."""
    if name.startswith(OURS):
        return again(name)
    if name.partition(".")[0] not in stdlib_module_names:
        raise LookupError(f"{name} would have to be imported")
    return get_object(name)
