"""`samplerbench list [group…]`: the members of each group, one line per member.

A sampler is listed with its declared order, cost and needs, which the tests check. Other members
are listed with the comment of their yaml file. `--config-dir DIR` adds a folder of your own
members, as for a job; samplers of another package need `trusted=that_package`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig
from rich.table import Table

from samplerbench.app.config.construct import construct_grid, first_comment, read_member, trusted
from samplerbench.app.config.folders import groups, member_files
from samplerbench.app.terminal import console
from samplerbench.errors import InvalidSetting, similar
from samplerbench.report.references import mentioned, references, short

if TYPE_CHECKING:
    from samplerbench.samplers.base import Sampler


def main(words: list[str]) -> None:
    """Print the members of the named groups, or all groups."""
    known = groups()
    out = console()
    for word in words:
        # the plural "samplers" is accepted too
        group = word if word in known else word.removesuffix("s")
        if group not in known:
            allowed = f"one of {', '.join(known)}, or nothing{similar(group, known)}"
            raise InvalidSetting("list", word, allowed)
        paths = member_files(group)
        out.print(sampler_table(paths) if group == "sampler" else member_table(group, paths))
    if not words:
        table = Table("group", "members", box=None, pad_edge=False)
        for group in known:
            table.add_row(group, ", ".join(member_files(group)))
        out.print(table)


def member_table(group: str, paths: dict[str, Path]) -> Table:
    """A line for each member of a group: its name, description and first reference."""
    table = Table(box=None, pad_edge=False)
    table.add_column(group, no_wrap=True)
    table.add_column("what it is", ratio=1)
    table.add_column("reference", no_wrap=True)
    for name, path in paths.items():
        table.add_row(name, first_comment(path).removesuffix("."), reference(path))
    return table


def sampler_table(paths: dict[str, Path]) -> Table:
    """A line for each sampler: order, evaluations, needs and reference."""
    table = Table(box=None, pad_edge=False)
    table.add_column("sampler", no_wrap=True)
    table.add_column("what it is", ratio=1)
    for column in ("order", "NFE", "needs", "reference"):
        table.add_column(column, no_wrap=True)
    for name, path in paths.items():
        # up to a full stop (not that of "et al."), a colon or a semicolon
        words = re.split(r"(?<=[a-zé)0-9])(?<!\bal)[.:;](?: |$)", first_comment(path))
        try:
            row = described(read_member(path), f"sampler.{name}")
        except InvalidSetting as error:
            if error.field.rpartition(".")[2] != "needs":
                raise
            row = "–", "–", f"{error.value}, not installed"
        table.add_row(name, words[0], *row, reference(path))
    return table


def described(node: DictConfig, key: str) -> tuple[str, str, str]:
    """Order, evaluations and needs of a member, in words.

    A sampler of another package is not constructed, because the import of its package can take a
    second: its order and cost depend on its settings, and `samplerbench check` measures them.
    """
    from samplerbench.samplers.peers import Peer  # slow: imports torch

    kind = trusted(node.get("_target_"), key)
    if isinstance(kind, type) and issubclass(kind, Peer):
        kind.installed()
        return "–", "varies", "denoiser"
    return declared(construct_grid(node, key)[0])


def declared(sampler: Sampler) -> tuple[str, str, str]:
    """Order, evaluations and needs of a sampler, in words."""
    from samplerbench.core.models import Denoiser  # slow: imports torch

    needs = "denoiser" if issubclass(sampler.needs, Denoiser) else "score"
    if sampler.needs_density:
        needs = "density"
    if sampler.holds:
        needs += ", one level"
    if sampler.needs_signal:
        needs += ", α > 0"
    return order(sampler), evaluations(sampler), needs


def order(sampler: Sampler) -> str:
    """The declared order, in words."""
    if sampler.order is None:
        return "–"
    return f"{sampler.order}{' weak' * sampler.stochastic}{' adaptive' * sampler.adaptive}"


def evaluations(sampler: Sampler) -> str:
    """The number of evaluations as a formula in N; for all our samplers it is linear from N = 2."""
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
    keys = mentioned(first_comment(path)) or (references(target) if isinstance(target, str) else [])
    return short(keys[0]) if keys else ""
