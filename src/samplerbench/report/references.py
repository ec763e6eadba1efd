"""The papers behind what runs used, as the docstrings of the members cite them.

See `samplerbench.references`: files are read and not run. Of a stored config only our own members
are looked up, since to find a module is to import the packages around it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from samplerbench.references import cited
from samplerbench.references import references as mentioned_by

#: Groups of the config whose members' papers a reader of the results wants.
GROUPS = ("sampler", "metric", "schedule", "grid")
_OURS = re.compile(r"samplerbench(?:\.[a-z_0-9]+)+\.[A-Za-z_0-9]+")


@dataclass(frozen=True)
class Source:
    """What a member of a group cites.

    Args:
        group: of the config.
        name: of the member.
        texts: one for each paper.
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
        if _OURS.fullmatch(target) and (texts := tuple(map(cited, mentioned_by(target))))
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
