"""The table of measured properties of samplers of other packages, and sentences about them.

`ROWS` are the settings of the table. `facts` measures one of them, and `sentences` describes its
faults. `multirun/gallery/peers.py` writes the facts of all rows to `KEPT`, and the page
`docs/peers.md` from them. `known` finds the row of a sampler, so a job prints the same sentences.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from samplerbench.bench.cell import setting_text
from samplerbench.identity import describe
from samplerbench.samplers.azula import Azula
from samplerbench.samplers.base import Sampler
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.deis import DEISLogRho, DEISRho
from samplerbench.samplers.diffusers import Diffusers
from samplerbench.samplers.dpm_solver_pp import DPMSolverPP
from samplerbench.samplers.k_diffusion import KDiffusion
from samplerbench.samplers.peers import Peer
from samplerbench.samplers.unipc import UniPC
from samplerbench.verify.peer_curves import (
    EVERY,
    FROM_THERE,
    LAWS,
    MOST,
    STEPS,
    Curve,
    apart_from,
    error_in_double,
    touches_other_rows,
)

#: The facts of all rows, as they were measured last.
KEPT = Path(__file__).parent / "peers.json"
#: The numbers of steps whose errors are kept.
SHOWN = (10, 20, 40, 80, 160, 320, 1000)

#: A smaller floor is not described.
_FLOOR = 1e-6

_PLAIN = {"clip_sample": False}
_ZERO_SNR = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
_FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
_KARRAS = {"use_karras_sigmas": True}
_LEADING, _TRAILING, _LINSPACE = (
    {"timestep_spacing": name} for name in ("leading", "trailing", "linspace")
)
_SIGMA_MIN = {"final_sigmas_type": "sigma_min"}
#: Classes of diffusers and their settings, each a row.
SCHEDULERS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "DDIMScheduler": [
        *({}, _PLAIN, _PLAIN | _TRAILING, _PLAIN | _LINSPACE, _PLAIN | {"eta": 1.0}),
        *(_PLAIN | {"set_alpha_to_one": False}, _PLAIN | _TRAILING | _ZERO_SNR),
    ],
    "DDPMScheduler": [
        *(_PLAIN, _PLAIN | _TRAILING, _PLAIN | {"variance_type": "fixed_large"}),
    ],
    "DPMSolverMultistepScheduler": [
        *({}, _LEADING, _TRAILING, _KARRAS, {"use_lu_lambdas": True}),
        *({"use_exponential_sigmas": True}, {"use_beta_sigmas": True}, _SIGMA_MIN),
        *({"solver_order": 3}, {"solver_type": "heun"}, {"euler_at_final": True}),
        *({"algorithm_type": "dpmsolver"} | _SIGMA_MIN, {"algorithm_type": "sde-dpmsolver++"}),
        *(_SIGMA_MIN | {"lower_order_final": False}, _FLOW),
    ],
    "DPMSolverSinglestepScheduler": [{}, {"solver_order": 3}, _KARRAS],
    "UniPCMultistepScheduler": [{}, {"solver_type": "bh1"}, {"solver_order": 3}, _KARRAS, _FLOW],
    "DEISMultistepScheduler": [{}, {"solver_order": 3}, _KARRAS],
    "SASolverScheduler": [{}],
    "EulerDiscreteScheduler": [
        *({}, _LEADING, _TRAILING, _KARRAS, {"use_exponential_sigmas": True}, _SIGMA_MIN),
        {"s_churn": 10.0},
    ],
    "EulerAncestralDiscreteScheduler": [{}, _TRAILING],
    "HeunDiscreteScheduler": [{}, _KARRAS, _TRAILING],
    "KDPM2DiscreteScheduler": [{}, _KARRAS],
    "KDPM2AncestralDiscreteScheduler": [{}],
    "LMSDiscreteScheduler": [{}, _KARRAS, {"order": 2}],
    "PNDMScheduler": [{}, {"skip_prk_steps": True}],
    "IPNDMScheduler": [{}],
    "EDMEulerScheduler": [{}],
    "EDMDPMSolverMultistepScheduler": [{}, {"solver_order": 3}, _SIGMA_MIN],
    "FlowMatchEulerDiscreteScheduler": [{}, {"shift": 3.0}],
    "FlowMatchHeunDiscreteScheduler": [{}],
    "FlowMatchLCMScheduler": [{}],
    "LTXEulerAncestralRFScheduler": [{}],
    "CogVideoXDDIMScheduler": [{}],
    "LCMScheduler": [{}],
    "TCDScheduler": [{}],
    "UnCLIPScheduler": [_PLAIN],
}
FUNCTIONS = (
    *("sample_euler", "sample_euler_ancestral", "sample_heun", "sample_dpm_2"),
    *("sample_dpm_2_ancestral", "sample_lms", "sample_dpm_fast", "sample_dpmpp_2s_ancestral"),
    *("sample_dpmpp_sde", "sample_dpmpp_2m", "sample_dpmpp_2m_sde", "sample_dpmpp_3m_sde"),
)
METHODS = (
    *("DDPMSampler", "DDIMSampler", "EulerSampler", "HeunSampler", "ItoSampler", "zABSampler"),
    *("vABSampler", "zEABSampler", "xEABSampler", "REABSampler", "PCSampler"),
)
#: Our sampler of the same method on the same levels: its description and the object.
SAME: Mapping[str, tuple[str, Sampler]] = {
    "DDIMScheduler": ("ddim, η = 0", DDIM(0.0)),
    "EulerDiscreteScheduler": ("ddim, η = 0", DDIM(0.0)),
    "FlowMatchEulerDiscreteScheduler": ("ddim, η = 0", DDIM(0.0)),
    "EDMEulerScheduler": ("ddim, η = 0", DDIM(0.0)),
    "DPMSolverMultistepScheduler": ("dpm_solver_pp", DPMSolverPP(2)),
    "EDMDPMSolverMultistepScheduler": ("dpm_solver_pp", DPMSolverPP(2)),
    "UniPCMultistepScheduler": ("unipc", UniPC(2)),
    "DEISMultistepScheduler": ("deis_log_rho", DEISLogRho(2)),
    "LMSDiscreteScheduler": ("deis_rho, points=4", DEISRho(4)),
    "sample_euler": ("ddim, η = 0", DDIM(0.0)),
    "sample_lms": ("deis_rho, points=4", DEISRho(4)),
    "sample_dpmpp_2m": ("dpm_solver_pp", DPMSolverPP(2)),
    "EulerSampler": ("ddim, η = 0", DDIM(0.0)),
    "DDIMSampler": ("ddim, η = 0", DDIM(0.0)),
    "zABSampler": ("deis_rho", DEISRho(2)),
    "zEABSampler": ("deis_log_rho", DEISLogRho(2)),
}


@cache
def rows() -> tuple[Peer, ...]:
    """The samplers of the table, of the packages that are installed."""
    kinds = (
        (
            Diffusers,
            [{"scheduler": k, "settings": s} for k, all_ in SCHEDULERS.items() for s in all_],
        ),
        (KDiffusion, [{"function": name} for name in FUNCTIONS]),
        (Azula, [{"method": name} for name in METHODS]),
    )
    return tuple(one for kind, settings in kinds for one in kind.if_installed(*settings))


@dataclass(frozen=True)
class Facts:
    """The measured properties of a sampler."""

    package: str  # its package
    version: str  # of the package
    name: str  # of the class or function
    settings: str  # those that differ from its defaults, as text
    source: str  # the file of its code, below the package's folder
    stochastic: bool  # whether it draws noise
    clips: bool  # whether x̂₀ is clipped
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
    ran: int  # how many numbers of steps were tried
    # the error at the number of steps of the floor, if the package's tables are made in float64;
    # NaN without a floor
    in_double: float
    floats: bool  # whether float64 states have the digits of float32
    # whether its code, as shipped, draws from torch's global generator, with no argument for
    # another one
    global_draws: bool
    neighbours: bool  # whether a result depends on the other rows of its batch
    same: str  # our sampler of the same method; empty if there is none
    apart: float  # the largest distance from it on the same levels at N = 20


def facts(peer: Peer, found: Curve) -> Facts:
    """All properties of a sampler, from its curve and from further measurements.

    Args:
        found: its curve, which must hold `SHOWN`.
    """
    name, settings = called(peer)
    at = {one.steps: one for one in found.points}
    ten, eleven, twenty = (peer.evaluations(n) or 0 for n in (10, 11, 20))
    slope = eleven - ten
    lengths = {
        one.steps
        for one in found.points
        if not one.refused and one.steps > 4 and one.evaluations != ten + slope * (one.steps - 10)
    }
    if found.lists:
        states = dict(enumerate(found.lists, 1))
        more, at_ten = (states[11] or 0) - (states[10] or 0), states[10] or 0
        wrong = {n for n, count in states.items() if count not in (None, at_ten + more * (n - 10))}
        lengths |= {n for n in wrong if n > 4}
    plain = not peer.stochastic and not settings
    words, ours = SAME.get(name, ("", None)) if plain or name == "DDIMScheduler" else ("", None)
    return Facts(
        package=peer.package,
        version=peer.installed(),
        name=name,
        settings=settings,
        source=source(peer),
        stochastic=peer.stochastic,
        clips=not peer.affine,
        evaluations=(ten, eleven, twenty),
        lengths=tuple(sorted(lengths)),
        first=at[20].first,
        last=at[20].last,
        order=(found.order("gaussian"), found.order("mixture")),
        gaussian=tuple(at[n].gaussian for n in SHOWN),
        mixture=tuple(at[n].mixture for n in SHOWN),
        floor=found.floor,
        before=(at[80].before, at[320].before),
        time_error=peer.time_error(20),
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
        same=words,
        apart=math.nan if ours is None or peer.stochastic else apart_from(peer, ours),
    )


def called(peer: Peer) -> tuple[str, str]:
    """The name of a peer's class or function, and its settings as text."""
    values = describe(peer)
    name = next(values[key] for key in ("scheduler", "function", "method") if key in values)
    others = {k: v for k, v in values.items() if isinstance(v, dict) and k != "custom"}
    words = [f"{k}={setting_text(v)}" for one in others.values() for k, v in sorted(one.items())]
    return str(name), " ".join(words)


def source(peer: Peer) -> str:
    """The file of a peer's code, below the folder of its package."""
    path = Path(inspect.getsourcefile(inspect.unwrap(peer.code)) or "")
    root = peer.package.replace("-", "_")
    parts = path.parts[path.parts.index(root) :] if root in path.parts else (path.name,)
    return "/".join(parts)


def sentences(one: Facts) -> list[str]:
    """Faults of a sampler that a user could confuse with the error of its method."""
    said = []
    if one.not_finite:
        every = len(one.not_finite) == one.ran - len(one.refused)
        said.append(f"not a number at {'every N' if every else numbers(one.not_finite)}")
        if every:
            return said
    if one.refused:
        said.append(f"ends in an error at {numbers(one.refused)}")
    if one.clips:
        said.append("clips x̂₀ to ±1, so data must be in that range: clip_sample=false")
    if one.lengths:
        said.append(f"other numbers of evaluations than its formula at {numbers(one.lengths)}")
    if one.last > 0:
        said.append(f"ends at σ/α = {one.last:.2g}, not at the data")
    if one.jump[1] > 1.5:
        n, ratio = one.jump
        said.append(f"from N = {n} to {n + 1} the error is {ratio:.3g} times larger")
    if one.worse:
        said.append(f"more steps than {one.worse} are worse")
    if one.time_error > 1e-3:
        said.append(f"the model gets a rounded time, up to {100 * one.time_error:.2g} % off in σ/α")
    if one.floor > _FLOOR:
        early, late = one.before
        cause = ""
        if one.in_double < one.floor / 3:
            cause = f": its tables are float32 (in float64 {one.in_double:.1e})"
        elif late > 0.9 * early:
            cause = f": the last step begins at σ/α = {late:.2g} at every N"
        said.append(f"the error stays at {one.floor:.1e}{cause}")
    if one.floats:
        said.append("its states are float32 inside")
    if one.neighbours:
        said.append("a result depends on the other rows of its batch")
    return said


def better(one: Facts, all_: Sequence[Facts]) -> str:
    """The settings of the same class with the smallest error at 20 steps, if it is a third less."""
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
    """Numbers of steps in few words."""
    shown = ", ".join(map(str, steps[:3]))
    return f"N = {shown}" + (f" and {len(steps) - 3} more" if len(steps) > 3 else "")


@cache
def kept() -> tuple[Facts, ...]:
    """The facts of all rows, as they were measured last."""
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
    said, instead = sentences(one), better(one, kept())
    if instead:
        said.append(f"try {instead}")
    here = "" if one.version == peer.installed() else f" (measured with {one.version})"
    title = " ".join(filter(None, (one.package, one.name, one.settings)))
    return f"{title}: {'; '.join(said)}{here}" if said else None


def dumped(all_: Sequence[Facts]) -> str:
    """The facts as JSON, a row a line."""
    lines = [json.dumps(_rounded(asdict(one)), ensure_ascii=False) for one in all_]
    return "[\n" + ",\n".join(lines) + "\n]\n"


def _rounded(value: Any) -> Any:
    """A value with three digits: the last bits differ between machines."""
    if isinstance(value, float):
        return float(f"{value:.3g}")
    if isinstance(value, Mapping):
        return {k: _rounded(v) for k, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, list | tuple) else value


def page(all_: Sequence[Facts]) -> str:
    """docs/peers.md."""
    lines = [
        _HEAD.format(
            curve=", ".join(map(str, STEPS)),
            every=EVERY,
            apart=FROM_THERE,
            laws=", ".join(map(str, LAWS)),
            most=MOST,
        )
    ]
    for package in dict.fromkeys(one.package for one in all_):
        chosen = [one for one in all_ if one.package == package]
        lines.append(f"## {package} {chosen[0].version}\n")
        lines.append(
            "| sampler | settings | NFE | σ/α | order | N = 10 | 20 | 80 | 320 | 1000 "
            "| depends on | what to know | better settings | ours |"
        )
        lines.append("|" + "---|" * 14)
        lines += [_line(one, all_) for one in chosen]
        files = sorted({f"`{one.source}`" for one in chosen})
        lines.append(f"\nSource: {', '.join(files)}.\n")
    return "\n".join(lines)


def _line(one: Facts, all_: Sequence[Facts]) -> str:
    errors = [_errors(one, n) for n in (10, 20, 80, 320, 1000)]
    same = "" if math.isnan(one.apart) else f"`{one.same}`, {one.apart:.0e} apart"
    cells = [
        *(f"`{one.name}`", one.settings and f"`{one.settings}`", _formula(one.evaluations)),
        f"{one.first:.3g} to {one.last:.2g}",
        " / ".join("–" if math.isnan(o) else f"{o:.1f}" for o in one.order),
        *(*errors, _depends(one)),
        *("; ".join(sentences(one)), better(one, all_), same),
    ]
    return "| " + " | ".join(cells) + " |"


def _depends(one: Facts) -> str:
    """What a result depends on besides the arguments of the code."""
    parts = {"global generator": one.global_draws, "other rows": one.neighbours}
    return ", ".join(name for name, does in parts.items() if does)


def _errors(one: Facts, n: int) -> str:
    at = SHOWN.index(n)
    pair = (one.gaussian[at], one.mixture[at])
    return " / ".join("–" if math.isnan(error) else f"{error:.1e}" for error in pair)


def _formula(at: tuple[int, int, int]) -> str:
    """Evaluations as a formula in N."""
    ten, eleven, twenty = at
    slope, constant = eleven - ten, ten - 10 * (eleven - ten)
    if twenty != 20 * slope + constant:
        return f"{ten}, {eleven}, {twenty} at N = 10, 11, 20"
    return f"{slope if slope != 1 else ''}N" + (f" {constant:+d}" if constant else "")


_HEAD = """# Samplers of other packages, measured

This page is made by `make peers` from the packages that are installed; their
versions are in the titles. [Samplers and their peers](samplers_peers.md#run-theirs-here) explains
how their code runs here.

- **Errors** are distances from the exact result, in standard deviations of the data, on a Gaussian
  / on a mixture of two unequal modes, both on the line. With noise it is the W₂
  distance of the law, without Monte Carlo; on the mixture at N = {laws}, for codes that
  continue with the state that the model or the bench has seen, and remember at most one x̂₀. The
  start has the exact law of the first level, and the end is compared with the exact flow at the
  *last level of the sampler*. So the errors of a wrong start and of a last level above 0 are
  not in it; the column σ/α has both levels
  at N = 20.
- **Order** is the slope from N = 10 down to five times the smallest error, on both laws. Where the
  error has a floor or jumps, read the curve.
- **Depends on** is "global generator" if the code as shipped draws from torch's global generator
  and has no argument for another one (here all draws are keyed), and "other rows" if the result of
  a row depends on the others of its batch.
- **What to know** comes from runs at every N up to {every}, every {apart}th above, {curve},
  and the first three N above whose levels repeat. Refused N and numbers of levels are those of
  every N up to {most}. A floor is ascribed to float32 if it falls to less than a third when the
  package's tables are made in float64.
- **Better settings** is the row of the same class with the smallest error at N = 20 and equal cost.
- **Ours** is our sampler of the same method on the same levels, and the largest distance at N = 20.

A new version of a package that does something else changes its row, and a test that measures a
dozen rows again fails.
"""
