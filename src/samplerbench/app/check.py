"""`samplerbench check [sampler…]`: the orders that samplers really have, beside those they declare.

A sampler is named as in conf/sampler/, with its settings there, or as a class of any package that
can be imported: `samplerbench check heun my_package.MySampler`. Without a name all are checked.
Exit status 1 if an order is not what was declared, by more than 0.15. More is no mistake on a
Gaussian, whose linear field flatters some methods.
"""

from __future__ import annotations

import inspect
import math
import sys
from importlib import import_module

from rich.table import Table

from samplerbench.app.console import console
from samplerbench.app.construct import construct_grid, read_member
from samplerbench.app.main import conf_directory
from samplerbench.errors import InvalidSetting
from samplerbench.evaluation.orders import LAWS, Order, measured_order
from samplerbench.samplers.base import Sampler
from samplerbench.schedules import EDM, NoiseSchedule, Rectified, VPLinear

SCHEDULES: tuple[NoiseSchedule, ...] = (EDM(10.0), VPLinear(), Rectified())
TOLERANCE = 0.15


def main(words: list[str]) -> None:
    """Measure and print.

    Raises:
        InvalidSetting: there is no such sampler.
    """
    folder = conf_directory() / "sampler"
    names = words or sorted(path.stem for path in folder.glob("*.yaml"))
    found = [(name, sampler) for name in names for sampler in settings(name)]
    table = Table(box=None, pad_edge=False)
    table.add_column("sampler", no_wrap=True)
    table.add_column("declared")
    columns = [(law, schedule) for law in LAWS for schedule in SCHEDULES]
    for law, schedule in columns:
        table.add_column(f"{law}\n{type(schedule).__name__}", justify="right")
    wrong = []
    for name, sampler in found:
        orders = [measured_order(sampler, schedule, law) for law, schedule in columns]
        declared = "–" if sampler.order is None else str(sampler.order)
        table.add_row(
            name,
            declared + " weak" * (sampler.stochastic and sampler.order is not None),
            *map(shown, orders),
        )
        if any(is_wrong(order, sampler.order or 0) for order in orders if order is not None):
            wrong.append(name)
    console().print(table)
    if wrong:
        text = "not what is declared, by more than"
        sys.exit(f"samplerbench: {', '.join(dict.fromkeys(wrong))}: an order is {text} {TOLERANCE}")


def settings(name: str) -> list[Sampler]:
    """The samplers of a name: a member of conf/sampler/, or a class and its tested settings."""
    path = conf_directory() / "sampler" / f"{name}.yaml"
    if path.is_file():
        members = construct_grid(read_member(path), f"sampler.{name}")
        return members if len(members) == 1 else [members[0], members[-1]]
    module, _, member = name.rpartition(".")
    known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
    allowed = InvalidSetting("check", name, f"one of {known}, or a sampler's class, package.Class")
    if not module:
        raise allowed
    sys.path.insert(0, "")  # a module in the current folder, as for python -m
    try:
        found = getattr(import_module(module), member)
    except (ImportError, AttributeError) as error:
        raise allowed from error
    if not (inspect.isclass(found) and issubclass(found, Sampler)):
        raise allowed
    return list(found.variants())


def is_wrong(order: Order, declared: int) -> bool:
    """Whether a measured order is not the declared one; NaN is not."""
    least = order.slope >= declared - TOLERANCE
    return not (least and (order.law == "gaussian" or order.slope <= declared + TOLERANCE))


def shown(order: Order | None) -> str:
    """A measured order, or a dash where there is none to measure."""
    if order is None:
        return "–"
    return "exact" if math.isnan(order.slope) and max(order.errors) < 1e-9 else f"{order.slope:.2f}"
