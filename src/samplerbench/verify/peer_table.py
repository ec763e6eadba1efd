"""The table of measured properties of samplers of other packages, and sentences about them.

`facts` measures a sampler, and `sentences` describes its faults. `multirun/gallery/peers.py` lists
the rows of the table; it writes their facts to `KEPT`, and from these the page `docs/peers.md`.
`known` finds the row of a sampler, so a job prints the same sentences.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from samplerbench.bench.cell import setting_text
from samplerbench.identity import describe
from samplerbench.samplers.adams_bashforth import AdamsBashforth
from samplerbench.samplers.base import Sampler
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.ddpm_large import DDPMLarge
from samplerbench.samplers.deis import DEISLogRho, DEISRho
from samplerbench.samplers.dpm_solver import DPMSolver2
from samplerbench.samplers.dpm_solver_pp import DPMSolverPP
from samplerbench.samplers.heun import Heun
from samplerbench.samplers.ipndm import IPNDM
from samplerbench.samplers.peers import Peer
from samplerbench.samplers.sde_dpmpp_2m import SDEDPMpp2M
from samplerbench.samplers.unipc import UniPC
from samplerbench.verify.peer_curves import (
    Curve,
    apart_from,
    error_in_double,
    keeps_only_x0,
    touches_other_rows,
)

#: The facts of all rows, from the last measurement.
KEPT = Path(__file__).parent / "peers.json"
#: The numbers of steps whose errors are kept.
SHOWN = (10, 20, 40, 80, 160, 320, 1000)

#: The smallest floor that is described.
_FLOOR = 1e-6

#: Our samplers whose method a package could also have.
OURS: Mapping[str, Sampler] = {
    "ddim, η = 0": DDIM(0.0),
    "ddim, η = 1": DDIM(1.0),
    "ddpm_large": DDPMLarge(),
    "heun": Heun(),
    "dpm_solver_2": DPMSolver2(),
    **{f"dpm_solver_pp, points={n}": DPMSolverPP(n) for n in (2, 3)},
    **{f"adams_bashforth, points={n}": AdamsBashforth(n) for n in (2, 3)},
    **{f"unipc, points={n}": UniPC(n) for n in (2, 3)},
    **{f"deis_rho, points={n}": DEISRho(n) for n in (2, 3, 4)},
    **{f"deis_log_rho, points={n}": DEISLogRho(n) for n in (2, 3)},
    "ipndm, points=4": IPNDM(4),
    "sde_dpmpp_2m": SDEDPMpp2M(),
}
#: The largest distance of the nearest one of them that is shown.
NEAR = 5e-3


@dataclass(frozen=True)
class Facts:
    """The measured properties of a sampler."""

    package: str  # its package
    version: str  # the version of the package
    name: str  # the name of the class or function
    settings: str  # the settings that differ from the defaults, as text
    source: str  # the file of its code, below the package's folder
    stochastic: bool  # whether it draws noise
    clips: str  # the setting with which x̂₀ is clipped; empty if it is not
    evaluations: tuple[int, int, int]  # at N = 10, 11 and 20
    # numbers of steps N at which the number of evaluations differs from its formula
    lengths: tuple[int, ...]
    first: float  # σ/α of the first level at N = 20; infinite if no signal is left
    last: float  # σ/α of the last level at N = 20
    order: tuple[float, float]  # on the Gaussian and on the mixture; NaN where none was found
    gaussian: tuple[float, ...]  # errors at `SHOWN`
    mixture: tuple[float, ...]  # errors at `SHOWN`
    floor: float  # see `Curve.floor`
    before: tuple[float, float]  # σ/α of the level before the last at N = 80 and 320
    time_error: float  # the largest difference of ln σ/α between the model's input and the state
    jump: tuple[int, float]  # see `Curve.jump`
    worse: int  # see `Curve.worse`
    sign_changes: int  # see `Curve.sign_changes`
    not_finite: tuple[int, ...]  # numbers of steps whose result is not a number
    refused: tuple[int, ...]  # numbers of steps that end in an error
    ran: int  # the number of tested N
    # the error at the number of steps of the floor, if the package's tables are float64; NaN
    # without a floor
    in_double: float
    floats: bool  # whether float64 states have the digits of float32
    # whether its code, as shipped, draws from torch's global generator and does not accept another
    # generator
    global_draws: bool
    neighbours: bool  # whether a result depends on the other rows of its batch
    same: str  # our nearest sampler; empty if none is nearer than `NEAR`
    apart: float  # the largest distance from our sampler on the same levels at N = 20
    # levels of its table that a run with all T steps visits, and T; zeros without a table
    visited: tuple[int, int] = (0, 0)
    lowest: tuple[int, float] = (0, math.nan)  # see `Curve.lowest`
    only_x0: bool = False  # whether the state after a step is x̂₀ and fresh noise


def facts(peer: Peer, found: Curve) -> Facts:
    """All properties of a sampler, from its curve, which includes `SHOWN`, and measurements."""
    name, settings = called(peer)
    at = {one.steps: one for one in found.points}
    accepted = {n: count for n, count in enumerate(found.lists, 1) if count is not None}
    ten, eleven, twenty = (_evaluations(peer, n) if n in accepted else 0 for n in (10, 11, 20))
    lengths: set[int] = set()
    if ten and eleven:
        slope, more = eleven - ten, accepted[11] - accepted[10]
        ran = [one for one in found.points if not one.refused]
        lengths = {one.steps for one in ran if one.evaluations != ten + slope * (one.steps - 10)}
        lengths |= {n for n, one in accepted.items() if one != accepted[10] + more * (n - 10)}
    same, apart = nearest(peer) if twenty else ("", math.nan)
    return Facts(
        package=peer.package,
        version=peer.installed(),
        name=name,
        settings=settings,
        source=source(peer),
        stochastic=peer.stochastic,
        clips=peer.clips,
        evaluations=(ten, eleven, twenty),
        lengths=tuple(sorted(n for n in lengths if n > 4)),
        first=at[20].first,
        last=at[20].last,
        order=(found.order("gaussian"), found.order("mixture")),
        gaussian=tuple(at[n].gaussian for n in SHOWN),
        mixture=tuple(at[n].mixture for n in SHOWN),
        floor=found.floor,
        before=(at[80].before, at[320].before),
        time_error=peer.time_error(20) if twenty else 0.0,
        jump=found.jump,
        worse=found.worse,
        sign_changes=found.sign_changes,
        not_finite=tuple(found.not_finite),
        refused=tuple(found.refused),
        ran=len(found.points),
        in_double=error_in_double(peer, found.at_floor) if found.floor > _FLOOR else math.nan,
        floats=found.floats,
        global_draws=peer.global_draws,
        neighbours=touches_other_rows(peer),
        same=same,
        apart=apart,
        visited=peer.table_visited(),
        lowest=found.lowest,
        only_x0=keeps_only_x0(peer),
    )


def _evaluations(peer: Peer, steps: int) -> int:
    return peer.evaluations(steps) or 0


def nearest(peer: Peer) -> tuple[str, float]:
    """Our nearest sampler at N = 20 and its distance; ("", NaN) if none is nearer than `NEAR`."""
    found = {name: gap for name, gap in apart_from(peer, OURS).items() if gap < NEAR}
    name = min(found, key=lambda key: found[key], default="")
    return name, found.get(name, math.nan)


def called(peer: Peer) -> tuple[str, str]:
    """The name of a peer's class or function, and its settings as text."""
    values = describe(peer)
    name = next(values[key] for key in ("scheduler", "function", "method") if key in values)
    groups = [v for k, v in values.items() if isinstance(v, dict) and k != "custom"]
    words = [f"{k}={setting_text(v)}" for group in groups for k, v in sorted(group.items())]
    return str(name), " ".join(words)


def source(peer: Peer) -> str:
    """The file of a peer's code, below the folder of its package."""
    path = Path(inspect.getsourcefile(inspect.unwrap(peer.code)) or "")
    root = peer.package.replace("-", "_")
    parts = path.parts[path.parts.index(root) :] if root in path.parts else (path.name,)
    return "/".join(parts)


def sentences(one: Facts) -> list[str]:
    """Faults of a sampler that a user could confuse with the error of its method."""
    lines = []
    if one.not_finite:
        every = len(one.not_finite) == one.ran - len(one.refused)
        lines.append(f"not a number at {'every N' if every else numbers(one.not_finite)}")
        if every:
            return lines
    if one.refused:
        lines.append(f"ends in an error at {numbers(one.refused)}")
    if one.clips:
        lines.append(f"clips x̂₀ to ±1, so data must be in that range: {one.clips}=false")
    if one.lengths:
        lines.append(f"other numbers of evaluations than its formula at {numbers(one.lengths)}")
    if one.lowest[1] < 0.3 * one.first:
        n, low = one.lowest
        lines.append(f"begins at σ/α = {low:.2g} at N = {n}, and at {one.first:.3g} at N = 20")
    if one.last > 0:
        lines.append(f"ends at σ/α = {one.last:.2g}, not at the data")
    if one.jump[1] > 1.5:
        n, ratio = one.jump
        lines.append(f"from N = {n} to {n + 1} the error is {ratio:.3g} times larger")
    if one.worse:
        lines.append(f"more steps than {one.worse} are worse")
    if one.time_error > 1e-3:
        off = f"{100 * one.time_error:.2g} %"
        if one.time_error > 0.5:  # a difference of logarithms
            off = f"a factor of {math.exp(one.time_error):.2g}"
        lines.append(f"the model gets a rounded time, up to {off} off in σ/α")
    if one.floor > _FLOOR:
        early, late = one.before
        cause = ""
        if one.only_x0:
            cause = ": a step keeps x̂₀ only, which is narrower than the data, and adds fresh noise"
        elif one.in_double < one.floor / 3:
            cause = f": its tables are float32 (in float64 {one.in_double:.1e})"
        elif late > 0.9 * early and one.floor < 3 * late:  # x̂₀ is off by about σ/α
            cause = f": the last step begins at σ/α = {late:.2g} at every N"
        lines.append(f"the error stays at {one.floor:.1e}{cause}")
    if one.floats:
        lines.append("its states are float32 inside")
    if one.neighbours:
        lines.append("a result depends on the other rows of its batch")
    return lines


def kept_promises(one: Facts) -> list[str]:
    """Promises that a sampler keeps, the levels of its table, and our nearest sampler."""
    lines = []
    if not one.neighbours:
        lines.append("a result does not depend on the other rows of its batch")
    if not one.floats:
        lines.append("float64 states stay float64")
    if one.global_draws:
        lines.append("as shipped it draws from torch's global generator; here all draws are keyed")
    elif one.stochastic:
        lines.append("its source of noise can be handed in; here all draws are keyed")
    visited, length = one.visited
    if length:
        share = "each level" if visited == length else f"{visited} of the {length} levels"
        lines.append(f"with N = {length} it visits {share} of its table")
    if not math.isnan(one.apart):
        lines.append(f"our nearest on the same levels: {one.same}, {one.apart:.0e} apart at N = 20")
    return lines


def better(one: Facts, all_: Sequence[Facts]) -> str:
    """The settings of the class with the smallest error at 20 steps, if it is a third smaller."""
    at = SHOWN.index(20)

    def error(facts: Facts) -> float:
        pair = [e for e in (facts.gaussian[at], facts.mixture[at]) if not math.isnan(e)]
        return max(pair, default=math.inf)

    alike = [
        other
        for other in all_
        if (other.package, other.name, other.stochastic) == (one.package, one.name, one.stochastic)
        and other.evaluations == one.evaluations
        and _network(other) == _network(one)
        and not other.last > one.last
    ]
    best = min(alike, key=error, default=one)
    if best is one or not error(best) < 0.67 * error(one):
        return ""
    return f"{best.settings or 'its defaults'}: error {error(best):.2g} at N = 20"


def _network(one: Facts) -> set[str]:
    """The settings that describe the network, which a user cannot choose."""
    fixed = ("prediction_type=", "use_flow_sigmas=", "rescale_betas_zero_snr=")
    return {word for word in one.settings.split() if word.startswith(fixed)}


def numbers(steps: Sequence[int]) -> str:
    """Numbers of steps in few words, such as "N = 3, 4, 5 and 7 more"."""
    shown = ", ".join(map(str, steps[:3]))
    return f"N = {shown}" + (f" and {len(steps) - 3} more" if len(steps) > 3 else "")


@cache
def kept() -> tuple[Facts, ...]:
    """The facts of all rows, from the last measurement."""
    if not KEPT.is_file():
        return ()
    lists: list[dict[str, Any]] = json.loads(KEPT.read_text(encoding="utf-8"))
    return tuple(Facts(**_with_tuples(one)) for one in lists)


def _with_tuples(one: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in one.items()}


def known(peer: Peer) -> Facts | None:
    """The row of a sampler, if its settings are in the table."""
    name, settings = called(peer)
    wanted = (peer.package, name, settings)
    return next((one for one in kept() if (one.package, one.name, one.settings) == wanted), None)


def advice(peer: Peer) -> str | None:
    """The sentences about a sampler and better settings, in one line; None if there are none."""
    one = known(peer)
    if one is None:
        return None
    lines, instead = sentences(one), better(one, kept())
    if instead:
        lines.append(f"try {instead}")
    here = "" if one.version == peer.installed() else f" (measured with {one.version})"
    title = " ".join(filter(None, (one.package, one.name, one.settings)))
    return f"{title}: {'; '.join(lines)}{here}" if lines else None
