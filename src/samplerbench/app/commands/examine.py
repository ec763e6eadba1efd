"""What `samplerbench check` does: a line for each sampler, and what is wrong with it."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable
from importlib import import_module
from typing import TypeVar

from rich.table import Table

from samplerbench.app.config.construct import construct_grid, read_member, trusting
from samplerbench.app.config.folders import members
from samplerbench.app.terminal import console
from samplerbench.core.schedules import EDM, NoiseSchedule, Rectified, VPLinear
from samplerbench.errors import InvalidSetting, kind_and_line
from samplerbench.samplers.base import Sampler
from samplerbench.verify.contract import TestBed, broken
from samplerbench.verify.laws import LawError, measured_law
from samplerbench.verify.orders import LAWS, MIXTURE, Order, measured_order

SCHEDULES: tuple[NoiseSchedule, ...] = (EDM(10.0), VPLinear(), Rectified())
PATH = VPLinear()
BED = TestBed(MIXTURE, Rectified())  # a path that begins without signal is the hardest
TOLERANCE = 0.15

Result = TypeVar("Result")


def examine(names: list[str]) -> None:
    """Measure and print; leave with status 1 if something is not as it should be.

    Args:
        names: of members of conf/sampler/, or of classes.

    Raises:
        InvalidSetting: there is no such sampler.
    """
    found = [(name, sampler) for name in names for sampler in settings(name)]
    table = Table(box=None, pad_edge=False)
    table.add_column("sampler", no_wrap=True)
    table.add_column("declared", no_wrap=True)
    for law in LAWS:
        for schedule in SCHEDULES:
            table.add_column(f"{law}\n{type(schedule).__name__}", justify="right", no_wrap=True)
    table.add_column("law's error", justify="right", no_wrap=True)
    table.add_column("contract", no_wrap=True)
    complaints: list[str] = []
    for name, sampler in found:
        cells, lines = examined(sampler)
        table.add_row(name, *cells)
        complaints += [f"{name}: {line}" for line in lines]
    console().print(table)
    if complaints:
        sys.exit("\n".join(f"samplerbench: {line}" for line in dict.fromkeys(complaints)))


def examined(sampler: Sampler) -> tuple[list[str], list[str]]:
    """The cells of a sampler's line, after its name, and what is wrong with it, a line each."""
    weak = " weak" * (sampler.stochastic and sampler.order is not None)
    cells = ["–" if sampler.order is None else f"{sampler.order}{weak}"]
    wrong: list[str] = []

    def tried(what: str, measure: Callable[[], Result]) -> Result | None:
        try:
            return measure()
        except Exception as error:  # a sampler that is not ours may raise anything
            wrong.append(f"{what}: {kind_and_line(error)}")
            return None

    for law in LAWS:
        for schedule in SCHEDULES:
            what = f"order on the {law}, {type(schedule).__name__}"
            order = tried(what, lambda: measured_order(sampler, schedule, law))  # noqa: B023
            cells.append(shown(order))
            if order is not None and is_wrong(order, sampler.order or 0):
                wrong.append(f"{what}: {shown(order)}, and {sampler.order} is declared")
    of_data = tried("law", lambda: measured_law(sampler, PATH))
    cells.append(shown_law(of_data))
    if of_data is not None and not of_data.right:
        wrong.append(f"law: {shown_law(of_data)} of the width away from the right one")
    lines = broken(sampler, BED)
    cells.append("broken" if lines else "kept")
    return cells, [*wrong, *(f"contract: {line}" for line in lines)]


def settings(name: str) -> list[Sampler]:
    """The samplers of a name: a member of conf/sampler/, or a class and its tested settings."""
    path = members("sampler").get(name)
    if path is not None:
        grid = construct_grid(read_member(path), f"sampler.{name}")
        return grid if len(grid) == 1 else [grid[0], grid[-1]]
    module, _, member = name.rpartition(".")
    allowed = "a member of conf/sampler/, or a sampler's class, package.Class"
    try:
        with trusting(module):
            found = getattr(import_module(module), member)
    except Exception as error:  # the code of a module may raise anything
        reason = kind_and_line(error)
        raise InvalidSetting("check", name, f"{allowed} ({reason})") from error
    if not (inspect.isclass(found) and issubclass(found, Sampler)):
        raise InvalidSetting("check", name, allowed)
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise InvalidSetting("check", name, f"a class that is complete: it lacks {missing}")
    try:
        return list(found.variants())
    except Exception as error:  # its own code, or settings without a default
        allowed = "a class whose variants() are objects with their settings"
        raise InvalidSetting("check", name, f"{allowed} ({kind_and_line(error)})") from error


def is_wrong(order: Order, declared: int) -> bool:
    """Whether a measured order is not the declared one; where nothing is left of an error, no."""
    if shown(order) == "exact":
        return False
    least = order.slope >= declared - TOLERANCE
    return not (least and (order.law == "gaussian" or order.slope <= declared + TOLERANCE))


def shown(order: Order | None) -> str:
    """A measured order, or a dash where there is none to measure."""
    if order is None:
        return "–"
    return "exact" if math.isnan(order.slope) and max(order.errors) < 1e-9 else f"{order.slope:.2f}"


def shown_law(law: LawError | None) -> str:
    """The errors of a law, "9.4 → 2.4 %", or a dash where there is none to measure."""
    if law is None:
        return "–"
    return " → ".join(f"{100 * error:.2g}" for error in law.errors) + " %"
