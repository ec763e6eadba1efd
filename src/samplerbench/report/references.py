"""The papers behind what runs used, as the docstrings of the members cite them.

Sources are parsed and not imported: a report is written without loading torch, and a stored config
cannot make it run anything.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import samplerbench

#: Groups of the config whose members' papers a reader of the results wants.
GROUPS = ("sampler", "metric", "schedule", "grid")
_CITES = re.compile(r"arXiv[: ]\d{4}\.\d{4,5}|\b(?:18|19|20)\d\d\b")
_SENTENCE = re.compile(r"(?<=[a-z0-9)\"”ᵢ])[.;:] (?=[A-Z])(?<!al\. )")
_TARGET = re.compile(r"samplerbench(?:\.[a-z_0-9]+)+\.[A-Za-z_0-9]+")


@dataclass(frozen=True)
class Source:
    """What a member of a group cites.

    Args:
        group: of the config.
        name: of the member.
        texts: the sentences with a year or a number of arXiv.
    """

    group: str
    name: str
    texts: tuple[str, ...]


def references(configs: list[Mapping[str, Any]]) -> list[Source]:
    """What the members in some configs cite, each once, in the order of `GROUPS`."""
    found = {
        (group, name): texts
        for group in GROUPS
        for config in configs
        for name, target in _targets(config.get(group), group)
        if (texts := _cited(target))
    }
    return [Source(group, name, texts) for (group, name), texts in found.items()]


def _targets(node: Any, name: str) -> Iterator[tuple[str, str]]:
    if not isinstance(node, Mapping):
        return
    target = node.get("_target_")
    if isinstance(target, str):
        yield target.rpartition(".")[2] if name in GROUPS else name, target
        return
    for key, inner in node.items():
        yield from _targets(inner, str(key))


def _cited(target: str) -> tuple[str, ...]:
    """The sentences of a member's docstrings that cite something; none of what is not ours."""
    if not _TARGET.fullmatch(target):
        return ()
    *folders, module, name = target.split(".")[1:]
    path = Path(samplerbench.__file__).parent.joinpath(*folders, f"{module}.py")
    if not path.is_file():
        return ()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.ClassDef, ast.FunctionDef)
    own = [node for node in tree.body if isinstance(node, kinds) and node.name == name]
    texts: dict[str, None] = {}
    for node in own:
        texts |= dict.fromkeys(_sentences(ast.get_docstring(node) or ""))
    # a flat module has many members, and speaks for all of them
    if not texts or folders:
        texts |= dict.fromkeys(_sentences(ast.get_docstring(tree) or ""))
    return tuple(texts)


def _sentences(document: str) -> list[str]:
    document = document.partition("\nArgs:")[0]
    listed = re.search(r"^References?: (.+)", document, re.S | re.M)
    text = " ".join((listed[1] if listed else document).split())
    if listed:
        return [part.strip(" .") for part in text.split(";") if _CITES.search(part)]
    return [part.strip(" .") for part in _SENTENCE.split(text) if _CITES.search(part)]
