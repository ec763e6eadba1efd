"""`samplerbench list [group]`: what there is, one line a member.

Samplers are listed with what they declare and the tests hold them to; the members of the other
groups with the first line of their yaml.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from rich.table import Table

from samplerbench.app.console import console
from samplerbench.app.construct import construct_grid, read_member
from samplerbench.app.main import conf_directory
from samplerbench.errors import InvalidSetting
from samplerbench.models import Denoiser
from samplerbench.samplers.base import Sampler


def main(words: list[str]) -> None:
    """Print the members of the groups named, or the groups.

    Raises:
        InvalidSetting: there is no such group.
    """
    folder = conf_directory()
    groups = sorted(
        path.name for path in folder.iterdir() if path.is_dir() and path.name != "hydra"
    )
    for word in words:
        # "samplers" is what one says
        group = word if word in groups else word.removesuffix("s")
        if group not in groups:
            raise InvalidSetting("list", word, f"one of {', '.join(groups)}, or nothing")
        table = samplers(folder) if group == "sampler" else members(folder, group)
        console().print(table)
    if not words:
        table = Table("group", "members", box=None, pad_edge=False)
        for group in groups:
            table.add_row(group, ", ".join(_names(folder / group)))
        console().print(table)


def members(folder: Path, group: str) -> Table:
    """A line for each member of a group: its name and what it is."""
    table = Table(group, "what it is", box=None, pad_edge=False)
    for name in _names(folder / group):
        table.add_row(name, _comment((folder / group / f"{name}.yaml").read_text()))
    return table


def samplers(folder: Path) -> Table:
    """A line for each sampler: order, evaluations, needs and reference."""
    table = Table(box=None, pad_edge=False)
    table.add_column("sampler", no_wrap=True)
    table.add_column("what it is", ratio=1)
    for column in ("order", "NFE of N steps", "needs", "reference"):
        table.add_column(column, no_wrap=True)
    for name in _names(folder / "sampler"):
        path = folder / "sampler" / f"{name}.yaml"
        sampler = construct_grid(read_member(path), f"sampler.{name}")[0]
        table.add_row(name, _comment(path.read_text()), *describe(sampler))
    return table


def describe(sampler: Sampler) -> tuple[str, str, str, str]:
    """Order, evaluations, needs and reference of a sampler, in words."""
    order = "–" if sampler.order is None else f"{sampler.order}{' weak' * sampler.stochastic}"
    order = f"{order} adaptive" if sampler.adaptive else order
    needs = "a denoiser" if issubclass(sampler.needs, Denoiser) else "a score"
    if sampler.needs_density:
        needs = "a density"
    if sampler.holds:
        needs += ", grid=hold"
    if sampler.needs_signal:
        needs += ", α > 0"
    document = " ".join((inspect.getdoc(type(sampler)) or "").split())
    found = re.search(r"arXiv (\d{4}\.\d{4,5})", document)
    other = re.search(r"[A-Z][\w-]+(?: (?:and|et al\.)[^,.(]*)? (?:19|20)\d\d", document)
    reference = f"arXiv {found[1]}" if found else other[0] if other else ""
    return order, evaluations(sampler), needs, reference


def evaluations(sampler: Sampler) -> str:
    """The number of evaluations as a formula in N; it is linear from N = 2 on for all of ours."""
    at = {steps: sampler.evaluations(steps) for steps in (10, 11, 20)}
    ten, eleven, twenty = at[10], at[11], at[20]
    if ten is None or eleven is None or twenty is None:
        return "as the run needs"
    slope, constant = eleven - ten, ten - 10 * (eleven - ten)
    if twenty != 20 * slope + constant:
        return f"{ten} at N = 10"
    return f"{slope if slope != 1 else ''}N" + (f"{constant:+d}" if constant else "")


def _names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).with_suffix("").as_posix() for p in folder.rglob("*.yaml"))


def _comment(text: str) -> str:
    """The first comment of a yaml, up to its first full stop or line without a comment."""
    lines = text.splitlines()
    lines = [line for line in lines if not line.startswith("# @package")]
    words = []
    for line in lines:
        if not line.startswith("# "):
            break
        words.append(line.removeprefix("# "))
    return re.split(r"(?<=[a-zé)0-9])[.:;](?: |$)", " ".join(words))[0]
