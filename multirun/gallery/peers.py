"""docs/peers.md: diffusers' schedulers for continuous data, k-diffusion's and azula's samplers.

    make peers              # measures all rows again, in two processes
    make peers ARGS=page    # writes the page from the last measurements

The facts go to `peer_table.KEPT`, from which a job's advice is taken too. A row that differs from
the one before is printed.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch

from samplerbench.errors import InvalidSetting
from samplerbench.samplers.azula import Azula
from samplerbench.samplers.diffusers import Diffusers, scheduler_names
from samplerbench.samplers.k_diffusion import KDiffusion
from samplerbench.samplers.peers import Peer
from samplerbench.verify.peer_curves import EVERY, FROM_THERE, LAWS, MOST, STEPS, curve
from samplerbench.verify.peer_table import KEPT, NEAR, SHOWN, Facts, better, facts, kept, sentences

PAGE = Path(__file__).parents[2] / "docs" / "peers.md"

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
    "DDIMParallelScheduler": [_PLAIN],
    "DDPMScheduler": [*(_PLAIN, _PLAIN | _TRAILING, _PLAIN | {"variance_type": "fixed_large"})],
    "DDPMParallelScheduler": [_PLAIN],
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
    "CosineDPMSolverMultistepScheduler": [{}],
    "DPMSolverSDEScheduler": [{}, _KARRAS],
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
    "CMStochasticIterativeScheduler": [{"clip_denoised": False}, {}],
    "SCMScheduler": [{"intermediate_timesteps": None}],
    "CogVideoXDPMScheduler": [{}, _TRAILING],
    "DDPMWuerstchenScheduler": [{}],
    "MiniMaxH3Scheduler": [{}],
    "PiflowScheduler": [{}],
    "HeliosScheduler": [{"stages": 1}, {"stages": 1, "scheduler_type": "euler"}],
    "HeliosDMDScheduler": [{"stages": 1}],
    "ScoreSdeVeScheduler": [{}, {"correct_steps": 0}],
    "ScoreSdeVpScheduler": [{}],
    "KarrasVeScheduler": [{}, {"s_churn": 0}],
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


def refusals() -> dict[str, list[str]]:
    """The schedulers of diffusers that do not run here, by the reason."""
    found: dict[str, list[str]] = {}
    for name in scheduler_names():
        if name in SCHEDULERS:  # its defaults may be refused
            continue
        try:
            Diffusers(name)
        except InvalidSetting as error:
            found.setdefault(error.allowed.partition(": ")[2], []).append(name)
    return found


def measured(number: int) -> Facts:
    """The facts of one row."""
    torch.set_num_threads(1)
    return facts(rows()[number], curve(rows()[number]))


def main() -> None:
    """Measure, and write both files."""
    try:
        before = {(one.package, one.name, one.settings): one for one in kept()}
    except TypeError:  # `Facts` has got another property since
        before = {}
    if sys.argv[1:] != ["page"]:
        began, found = time.perf_counter(), []
        peers = rows()
        with ProcessPoolExecutor(2) as pool:
            for one in pool.map(measured, range(len(peers))):
                found.append(one)
                seconds = time.perf_counter() - began
                print(f"{seconds:4.0f} s  {one.name} {one.settings}", flush=True)
        KEPT.write_text(dumped(found), encoding="utf-8")
        kept.cache_clear()
        for one in kept():
            old = before.get((one.package, one.name, one.settings))
            if repr(old) != repr(one):
                print(f"{'changed' if old else 'new'}: {one.package} {one.name} {one.settings}")
    PAGE.write_text(page(kept()), encoding="utf-8")


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
            near=NEAR,
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
        files = sorted({one.source for one in chosen})
        lines.append(f"\nSource: {_code(files)}.\n")
        if package == Diffusers.package:
            lines.append("Not in the table, because they do not run here:\n")
            lines += ["| scheduler | reason |", "|---|---|"]
            lines += [f"| {_code(names)} | {why} |" for why, names in refusals().items()]
            lines.append("")
    return "\n".join(lines)


def _code(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _line(one: Facts, all_: Sequence[Facts]) -> str:
    errors = [_errors(one, n) for n in (10, 20, 80, 320, 1000)]
    same = one.same and f"`{one.same}`, {one.apart:.0e} apart"
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
  / on a mixture of two unequal modes, both on the line. With noise it is the W₂ distance of the
  law, without Monte Carlo. On the mixture it is known at N = {laws}, for samplers that keep no
  other memory than their state and at most one x̂₀, and whose noise has the same width for all
  states. The start has the exact law of the first level, and the end is compared with the exact
  flow at the *last level of the sampler*. So the error does not include a wrong start or a last
  level above 0; the column σ/α has both levels at N = 20. An error that stays at a floor of float32
  consists of rounding errors and depends on the processor: on an AMD EPYC and an Intel Xeon DEIS of
  order 3 has 1.3e-02 and 1.8e-02 at N = 320, and UniPC of order 3 at N = 1000 ends in an error on
  one, and is not a number on the other.
- **Order** is the slope from N = 10 down to five times the smallest error, on both laws. Where the
  error has a floor or jumps, read the curve.
- **Depends on** is "global generator" if the code as shipped draws from torch's global generator
  and has no argument for another one (here all draws are keyed), and "other rows" if the result of
  a row depends on the other rows of its batch.
- **What to know** comes from runs at every N up to {every}, every {apart}th above, {curve},
  and the first three N above these whose levels repeat. Refused N and numbers of levels come from
  every N up to {most}. A floor is ascribed to float32 if it falls to less than a third when the
  package's tables are computed in float64.
- **Better settings** is the row of the same class with the smallest error at N = 20 and equal cost.
- **Ours** is our nearest sampler on the same levels and with the same noise, and the largest
  distance at N = 20, if it is below {near}. Below 1e-5 both are the same method. Larger distances
  come from rounded times, or from another first or last step.

If a new version of a package behaves differently, its row changes, and a test that measures a dozen
rows again fails.
"""


if __name__ == "__main__":
    main()
