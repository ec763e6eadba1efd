"""`samplerbench list [group…]`: what there is, one line a member.

Samplers are listed with what they declare and the tests hold them to, the members of the other
groups with what the comment of their yaml says. `--config-dir DIR` adds a folder of your own
members, as it does for a job; samplers of another package need `trusted=that_package`.
"""

from __future__ import annotations

import re
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console
from rich.table import Table

from samplerbench.app.construct import comment, construct_grid, read_member
from samplerbench.app.main import conf_directory
from samplerbench.errors import InvalidSetting
from samplerbench.references import mentioned, references, short

if TYPE_CHECKING:
    from samplerbench.samplers.base import Sampler


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InvalidSetting(
            "list", " ".join(sys.argv[2:]), f"[group…] [--config-dir DIR]: {message}"
        )


def main(words: list[str]) -> None:
    """Print the members of the groups named, or the groups.

    Raises:
        InvalidSetting: there is no such group or folder.
    """
    parser = _Parser(add_help=False)
    parser.add_argument("groups", nargs="*")
    parser.add_argument("--config-dir", "-cd", type=Path)
    given = parser.parse_args(words)
    folders = [conf_directory()]
    if given.config_dir is not None:
        if not given.config_dir.is_dir():
            raise InvalidSetting("--config-dir", given.config_dir, "a folder")
        folders.append(given.config_dir)
    groups = sorted(
        {path.name for folder in folders for path in folder.iterdir() if path.is_dir()} - {"hydra"}
    )
    out = Console(width=max(120, Console().width), highlight=False, markup=False)
    for word in given.groups:
        # "samplers" is what one says
        group = word if word in groups else word.removesuffix("s")
        if group not in groups:
            raise InvalidSetting("list", word, f"one of {', '.join(groups)}, or nothing")
        paths = members(folders, group)
        out.print(samplers(paths) if group == "sampler" else others(group, paths))
    if not given.groups:
        table = Table("group", "members", box=None, pad_edge=False)
        for group in groups:
            table.add_row(group, ", ".join(members(folders, group)))
        out.print(table)


def members(folders: Sequence[Path], group: str) -> dict[str, Path]:
    """The yaml files of a group, by the names of their members; of one name the first folder's."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted((folder / group).rglob("*.yaml")):
            name = path.relative_to(folder / group).with_suffix("").as_posix()
            found.setdefault(name, path)
    return dict(sorted(found.items()))


def others(group: str, paths: dict[str, Path]) -> Table:
    """A line for each member of a group: its name, what it is, and its first reference."""
    table = Table(box=None, pad_edge=False)
    table.add_column(group, no_wrap=True)
    table.add_column("what it is", ratio=1)
    table.add_column("reference", no_wrap=True)
    for name, path in paths.items():
        table.add_row(name, comment(path).removesuffix("."), reference(path))
    return table


def samplers(paths: dict[str, Path]) -> Table:
    """A line for each sampler: order, evaluations, needs and reference."""
    table = Table(box=None, pad_edge=False)
    table.add_column("sampler", no_wrap=True)
    table.add_column("what it is", ratio=1)
    for column in ("order", "NFE", "needs", "reference"):
        table.add_column(column, no_wrap=True)
    for name, path in paths.items():
        sampler = construct_grid(read_member(path), f"sampler.{name}")[0]
        # up to a full stop, a colon or a semicolon, but for that of "et al."
        words = re.split(r"(?<=[a-zé)0-9])(?<!\bal)[.:;](?: |$)", comment(path))
        table.add_row(name, words[0], *describe(sampler), reference(path))
    return table


def describe(sampler: Sampler) -> tuple[str, str, str]:
    """Order, evaluations and needs of a sampler, in words."""
    from samplerbench.models import Denoiser  # slow to import: it brings torch

    order = "–" if sampler.order is None else f"{sampler.order}{' weak' * sampler.stochastic}"
    order = f"{order} adaptive" if sampler.adaptive else order
    needs = "denoiser" if issubclass(sampler.needs, Denoiser) else "score"
    if sampler.needs_density:
        needs = "density"
    if sampler.holds:
        needs += ", grid=hold"
    if sampler.needs_signal:
        needs += ", α > 0"
    return order, evaluations(sampler), needs


def evaluations(sampler: Sampler) -> str:
    """The number of evaluations as a formula in N; it is linear from N = 2 on for all of ours."""
    at = {steps: sampler.evaluations(steps) for steps in (10, 11, 20)}
    ten, eleven, twenty = at[10], at[11], at[20]
    if ten is None or eleven is None or twenty is None:
        return "varies"
    slope, constant = eleven - ten, ten - 10 * (eleven - ten)
    if twenty != 20 * slope + constant:
        return f"{ten} at N = 10"
    return f"{slope if slope != 1 else ''}N" + (f"{constant:+d}" if constant else "")


def reference(path: Path) -> str:
    """The first reference of a member, "arXiv 2010.02502", from its yaml or its docstring."""
    target = read_member(path).get("_target_")
    keys = mentioned(comment(path)) or (references(target) if isinstance(target, str) else [])
    return short(keys[0]) if keys else ""
