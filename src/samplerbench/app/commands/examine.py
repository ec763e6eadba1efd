"""The part of `samplerbench check` that imports torch: build members, check them, print tables."""

from __future__ import annotations

import inspect
import math
import re
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple, cast

import torch
from omegaconf import DictConfig, OmegaConf
from rich.table import Table

from samplerbench.app.config.compose import compose_config, member_node
from samplerbench.app.config.construct import (
    construct,
    construct_grid,
    parameters,
    read_member,
    trusted,
    trusted_packages,
    trusting,
)
from samplerbench.app.config.folders import member_files
from samplerbench.app.terminal import console
from samplerbench.bench.rounding import plain
from samplerbench.core.schedules import EDM, NoiseSchedule, Rectified, VPLinear
from samplerbench.errors import IN_STEP, InvalidSetting, kind_and_line, refusing, require
from samplerbench.networks.base import Network
from samplerbench.objectives.base import Objective, Recipe
from samplerbench.samplers.base import WITHOUT_SIGNAL, Sampler
from samplerbench.samplers.peers import Peer
from samplerbench.verify import network_contract, objective_contract
from samplerbench.verify.contract import CONTRACTS, faults
from samplerbench.verify.laws import LawError, measured_law
from samplerbench.verify.orders import (
    LAWS,
    REFERENCES,
    Order,
    interior,
    measured_order,
    relative_error,
    rough,
)
from samplerbench.verify.peer_curves import MOST, STEPS, Curve, curve
from samplerbench.verify.peer_table import called, facts, kept_promises, sentences
from samplerbench.verify.sampler_contract import BED, DOES_NOT_APPLY

SCHEDULES: dict[str, NoiseSchedule] = {"EDM": EDM(10.0), "VP": VPLinear(), "flow": Rectified()}
PATH = VPLinear()
TOLERANCE = 0.15

#: The levels on which errors are compared with those of reference methods.
GRIDS = {"smooth": interior, "rough": rough}

#: A larger ratio to the error of the reference method gets a remark.
LARGE_ERROR = 10

#: The laws and schedules on which orders are measured.
ON = [(law, path) for law in LAWS for path in SCHEDULES]


#: The class and the place of an error in a user's code, in a line of `errors.kind_and_line`.
_RAISED = re.compile(r"(?:on \w+: )?(\w+): .*(\([^()]+\.py, line \d+\))")


def examine(
    chosen: Sequence[tuple[str, str]], given: Sequence[str] = (), *, every: bool = False
) -> None:
    """Check members and print; exit with status 1 if a promise is broken.

    Args:
        chosen: pairs of a kind and the name of a member of conf/KIND/, or of a class.
        given: settings of members, "sampler.diffusers.scheduler=EulerDiscreteScheduler".
        every: whether to run samplers of other packages at every number of steps.
    """
    samplers = Table("sampler", "declared", box=None, pad_edge=False)
    for law, path in ON:
        samplers.add_column(f"{law}\n{path}", justify="right")
    for grid in GRIDS:
        samplers.add_column(f"error,\n{grid}", justify="right")
    samplers.add_column("law's error", justify="right")
    samplers.add_column("contract")
    for column in samplers.columns:
        column.no_wrap = True
    promise_table = Table("member", "promise", "meaning", "contract", box=None, pad_edge=False)
    lines: list[str] = []
    remarks: list[str] = []
    peers: list[Peer] = []
    members = [(kind, name, objects(kind, name, given)) for kind, name in chosen]
    has_peer = any(isinstance(one, Peer) for *_, built in members for one in built)
    require(has_peer or not every, "every", "true", "left out without a sampler of another package")
    for kind, name, built in members:
        title = name if kind == "sampler" else f"{kind}={name}"
        for one in built:
            with trust(name):
                declares = kind == "sampler" and not isinstance(one, Peer)
                measured = measurements(one) if declares else []
                contract = promises(kind, one)
            if isinstance(one, Peer):
                peers.append(one)
            elif kind == "sampler":
                broken = any(row.fault for row in contract)
                cells = [row.value for row in measured]
                samplers.add_row(title, declared(one), *cells, "broken" if broken else "kept")
                remarks += [f"{title}: {remark}" for remark in large_errors(one, measured)]
            else:
                for row in contract:
                    promise_table.add_row(title, *row[:3])
            lines += [f"{title}: {line}" for line in fault_lines([*measured, *contract])]
    out = console()
    out.width = max(out.width, 140)  # for a class with a long name
    for table in (samplers, promise_table):
        if table.row_count:
            out.print(table)
    for peer in peers:
        found = curve(peer, steps=range(1, MOST + 1) if every else None)
        out.print(curve_table(peer, found))
        known = facts(peer, found)
        for sentence in (*runs(found), *sentences(known), *kept_promises(known)):
            out.print(f"- {sentence}")
    for remark in dict.fromkeys(remarks):
        out.print(remark)
    if lines:
        sys.exit("\n".join(f"samplerbench: {line}" for line in dict.fromkeys(lines)))


def curve_table(peer: Peer, found: Curve) -> Table:
    """The errors of a sampler of another package at some numbers of steps."""
    title = " ".join(filter(None, (peer.package, peer.installed(), *called(peer))))
    orders = [found.order(law) for law in ("gaussian", "mixture")]
    columns = ("N", "NFE", "steps", "σ/α", "gaussian", "mixture", "width")
    table = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False)
    for one in (found.at(n) for n in STEPS):
        ends = f"{one.first:.3g} → {one.last:.2g}"
        # with noise the law on the mixture is computed at some N only
        unknown = "–" if one.noisy and one.finite else "nan"
        known = (one.gaussian, one.mixture)
        errors = (unknown if math.isnan(error) else f"{error:.2g}" for error in known)
        width = unknown if math.isnan(one.spread) else f"{100 * one.spread:+.2g} %"
        row = [str(one.evaluations), str(one.states), ends, *errors, width]
        table.add_row(str(one.steps), *(["–", "–", "refused"] if one.refused else row))
    table.add_row("order", *[""] * 3, *(f"{order:.2f}" for order in orders))
    table.add_row("sign changes", *[""] * 5, str(found.sign_changes))
    return table


def runs(found: Curve) -> list[str]:
    """Which numbers of steps were run, how the runs ended, and the largest jump of their errors."""
    count, first, last = len(found.points), found.points[0].steps, found.points[-1].steps
    bad = len(found.not_finite) + sum(bool(one.refused) for one in found.points)
    which = "every" if count == last - first + 1 else f"{count} of the"
    ends = f"{bad} did not end with numbers" if bad else "all ended with numbers"
    n, ratio = found.jump
    rise = f"at most {ratio:.3g} times larger (from N = {n} to {n + 1})"
    if ratio < 1.01:
        rise = "never larger" if found.ran else "not known"
    return [
        f"runs at {which} N from {first} to {last}: {ends}",
        f"the error after one more step is {rise}",
    ]


class Checked(NamedTuple):
    """A promise, its meaning, the measured value, and the fault in one line (None if kept)."""

    promise: str
    meaning: str
    value: str
    fault: str | None


def fault_lines(rows: Sequence[Checked]) -> list[str]:
    """One line for each fault: "neighbours: a row depends on …", "end, and 7 more: ValueError".

    Errors from the same line of code are one fault. Its line shows an error at a level with signal,
    if there is one, because errors at α = 0 have a hint that would mislead.
    """
    broken: dict[tuple[str, ...], list[Checked]] = {}
    for row in rows:
        if row.fault:
            raised = _RAISED.match(row.fault)
            key = raised.groups() if raised else (row.fault.partition(IN_STEP)[0],)
            broken.setdefault(key, []).append(row)
    lines = []
    for same in broken.values():
        first = next((row for row in same if WITHOUT_SIGNAL not in str(row.fault)), same[0])
        more = f", and {len(same) - 1} more" * (len(same) > 1)
        lines.append(f"{first.promise}{more}: {first.fault}")
    return lines


def promises(kind: str, member: Any) -> list[Checked]:
    """The promises of the contract of a kind."""
    require(kind in CONTRACTS, "check", kind, f"one of {', '.join(sorted(CONTRACTS))}")
    checks = CONTRACTS[kind]
    # the first paragraph of its docstring
    docs = {name: str(check.__doc__).partition("\n\n")[0] for name, check in checks.items()}
    meanings = {name: doc.strip().replace("`", "") for name, doc in docs.items()}
    values = {None: "kept", DOES_NOT_APPLY: "–"}
    path = f"on {type(BED.schedule).__name__}: "
    return [
        Checked(
            name,
            meanings[name],
            values.get(fault, "broken"),
            path * (IN_STEP in fault) + fault if fault else None,
        )
        for name, fault in faults(checks, member).items()
    ]


def measurements(sampler: Sampler) -> list[Checked]:
    """A sampler's orders, its errors relative to a reference method, and the error of its law."""
    rows = []
    for law, path in ON:
        fault = None
        try:
            order = measured_order(sampler, SCHEDULES[path], law)
        except Exception as error:  # the code of a user's sampler may raise anything
            order, fault = None, kind_and_line(error)
        if order is not None and is_wrong(order, sampler.order or 0):
            fault = f"{order_text(order)}, and {sampler.order} is declared"
        promise = f"order on the {law}, {path}"
        rows.append(Checked(promise, "The order is the declared one.", order_text(order), fault))
    for name, grid in GRIDS.items():
        ratio, fault = None, None
        try:
            ratio = relative_error(sampler, grid)
        except Exception as error:
            fault = kind_and_line(error)
        meaning = "The error on the mixture, divided by that of a method of the same order."
        value = "–" if ratio is None else plain(ratio, 2)
        rows.append(Checked(f"error, {name}", meaning, value, fault))
    fault = None
    try:
        error_of_law = measured_law(sampler, PATH)
    except Exception as error:
        error_of_law, fault = None, kind_and_line(error)
    if error_of_law is not None and not error_of_law.right:
        fault = f"its error is {law_text(error_of_law)} of the width of the right law"
    meaning = "The law of the samples converges to the right one."
    return [*rows, Checked("law", meaning, law_text(error_of_law), fault)]


def large_errors(sampler: Sampler, rows: Sequence[Checked]) -> list[str]:
    """Remarks on errors that are far larger than those of a reference method of the same order."""
    values = {row.promise: row.value for row in rows if row.promise.startswith("error, ")}
    return [
        f"its {promise} is {value} times that of {REFERENCES[sampler.order or 0]}: is a weight "
        "wrong, or only right for equal steps?"
        for promise, value in values.items()
        if value != "–" and float(value) > LARGE_ERROR
    ]


def declared(sampler: Sampler) -> str:
    """The order that a sampler declares."""
    if sampler.order is None:
        return "–"
    return f"{sampler.order}{' weak' * sampler.stochastic}"


def objects(kind: str, name: str, given: Sequence[str] = ()) -> list[Any]:
    """The objects to check: samplers with all their settings, or one member of another kind."""
    require(kind in CONTRACTS, "check", kind, f"one of {', '.join(sorted(CONTRACTS))}")
    if kind == "sampler":
        return settings(name, given)
    with trust(name):
        try:
            return [_object(kind, name, given)]
        except InvalidSetting:
            raise
        except Exception as error:  # its own code, or settings without a default
            allowed = f"a member that can be built ({kind_and_line(error)})"
            raise InvalidSetting(kind, name, allowed) from error


def trust(name: str) -> AbstractContextManager[None]:
    """Trust the package of a named class, in addition to the packages that are trusted already."""
    package = name.rpartition(".")[0]
    return trusting([*trusted_packages(), *([package] if package else [])])


def _object(kind: str, name: str, given: Sequence[str] = ()) -> Any:
    node = _node(kind, name, given)
    if kind == "network":
        make: Any = partial(_network, node)
    elif kind == "objective":
        has_yaml = name in member_files(kind)
        config = compose_config([f"objective={name}"] if has_yaml else [])[0]
        if not has_yaml:
            config.objective = node
        make = partial(_objective, config)
    else:
        return construct(node, kind if "." in name else f"{kind}.{name}")
    make(0 if kind == "network" else None)  # raises an error if it cannot be built
    return make


def _node(kind: str, name: str, given: Sequence[str] = ()) -> DictConfig:
    """The settings of a member's yaml, changed by `given`, or a class with its defaults."""
    own = [word for word in given if word.startswith(f"{kind}.")]
    if "." not in name:
        if not own:
            return member_node(kind, name)
        several = "_target_" not in compose_config([])[0][kind]
        chosen = compose_config([f"{kind}=[{name}]" if several else f"{kind}={name}", *own])[0]
        node: DictConfig = chosen[kind][name] if several else chosen[kind]
        return node
    require(not own, "check", own[0] if own else "", "left out: a class has its own defaults")
    node = OmegaConf.create({"_target_": name})
    # a grid is a function of schedule and steps, or an object with settings
    if kind == "grid" and not inspect.isclass(trusted(name, kind)):
        node["_partial_"] = True
    return node


def _network(node: DictConfig, seed: int) -> Network:
    sizes = {"dim": network_contract.DIM, "event_shape": network_contract.EVENT_SHAPE}
    sizes = {key: sizes[key] for key in sizes if key in parameters(node, "network")}
    return cast(Network, construct(node, "network", seed=seed, **sizes))


def _objective(config: DictConfig, network: Network | None = None) -> Objective[Any]:
    """The objective of a config, with the objects that its constructor needs."""
    named = parameters(config.objective, "objective")
    groups = [key for key in ("target", "schedule", "level_law", "weighting") if key in named]
    parts: dict[str, Any] = {
        **{key: construct(config[key], key) for key in groups},
        "network": network or construct(config.network, "network", dim=2, seed=0),
        "mean": torch.tensor(objective_contract.MEAN),
        "std": objective_contract.STD if "level_law" in named else 1.0,
        "recipe": Recipe(steps=1, batch_size=1, lr=1.0),
        "train_seed": 0,
    }
    parts = {key: part for key, part in parts.items() if key in named}
    return cast("Objective[Any]", construct(config.objective, "objective", **parts))


def settings(name: str, given: Sequence[str] = ()) -> list[Sampler]:
    """The samplers of a name: a member of conf/sampler/, or the `variants()` of a class."""
    path = member_files("sampler").get(name)
    if path is not None:
        node = read_member(path)
        own = [word for word in given if word.startswith("sampler.")]
        if own:
            node = compose_config([f"sampler=[{name}]", *own])[0].sampler[name]
        grid = construct_grid(node, f"sampler.{name}")
        return grid if len(grid) == 1 else [grid[0], grid[-1]]
    module, _, class_name = name.rpartition(".")
    allowed = "a member of conf/sampler/, or a sampler's class, package.Class"
    with refusing("check", name, allowed), trust(name):
        member_class = getattr(import_module(module), class_name)
    if not (inspect.isclass(member_class) and issubclass(member_class, Sampler)):
        raise InvalidSetting("check", name, allowed)
    if inspect.isabstract(member_class):
        missing = ", ".join(sorted(member_class.__abstractmethods__))
        raise InvalidSetting("check", name, f"a complete class: it has no {missing}")
    # its code may raise anything, or settings have no default
    with refusing("check", name, "a class whose variants() are objects with their settings"):
        return list(member_class.variants())


def is_wrong(order: Order, declared: int) -> bool:
    """Whether a measured order contradicts the declared one; an exact method has every order."""
    if order_text(order) == "exact":
        return False
    least = order.slope >= declared - TOLERANCE
    return not (least and (order.law == "gaussian" or order.slope <= declared + TOLERANCE))


def order_text(order: Order | None) -> str:
    """A measured order, "exact" if all errors are rounding, or a dash if there is none."""
    if order is None:
        return "–"
    return "exact" if max(order.errors) < 1e-9 else f"{round(order.slope, 2) + 0:.2f}"


def law_text(law: LawError | None) -> str:
    """The errors of a law, "9.4 → 2.4 %", or a dash if there is none."""
    if law is None:
        return "–"
    return " → ".join(f"{100 * error:.2g}" for error in law.errors) + " %"
