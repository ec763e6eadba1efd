"""Samplers at equal evaluations, on a common grid and each on its own: the figure and the table.

    make grids                      # measures everything again, in two processes
    make grids ARGS=digits          # measures one data set again, or several
    make grids ARGS=trap            # only the designs on a Gaussian twin
    make grids ARGS=gains           # only what designs gain on three seeds
    make grids ARGS=figure          # draws and prints from the last measurements

`digits-unet` is a small U-Net, in the run multirun/grids_unet, which is made if it is not there.

For every data set, sampler and number of evaluations, the best grid is chosen from those of
conf/grid/ and from levels designed for the sampler, on training starts (`bench.best_grids`). Both
the common grid, Karras, and the chosen one are measured on the same held-out starts: the root mean
square distance of paths to the converged run, in deviations of the data. Two samplers are ordered
if their difference is significant (95 %, Holm over all pairs of a panel).
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

import samplerbench as sb
from samplerbench.app.commands import design
from samplerbench.app.job.objects import exact_sweep
from samplerbench.app.job.racing import fitted_grids, racing_grids
from samplerbench.bench.best_grids import chosen
from samplerbench.bench.course import MEASUREMENT, Course, Entrant
from samplerbench.bench.race import ratio
from samplerbench.bench.statistics import holm, t_interval
from samplerbench.figures.style import curve_style, sized, styled, subtitle

PLACE = Path(__file__).parent / "grids"
FACTS = PLACE / "held_out.json"
COMMON = "karras"
#: The data, and the number of held-out starts.
DATA = {
    "grid_mixture": 4000,
    "two_moons": 4000,
    "eight_gaussians": 4000,
    "digits": 1000,
    "digits-unet": 500,
}
#: The data set whose denoiser is a trained network, and the job that trains it.
LEARNED, RUN = "digits-unet", Path("multirun/grids_unet")
TRAINING = (
    "experiment=images/edm trainer=digits network.channels=[16,16] denoiser=learned "
    "trainer.steps=2000 trainer.lr=1e-3 trainer.warmup=100 trainer.ema_decay=.998 "
    "sampler=heun steps=[5] picture=[] repetitions=1"
)
#: The figure of designs on the Gaussian twin of the digits, and the words of `samplerbench design`.
TRAP, TWIN = "trap", PLACE / "twin_trap.png"
TRAPPED = (
    "dataset=digits law=gaussian_twin grid.criterion=spectrum start=exact carry=digits "
    "grid.held_out=500 sampler=[ddim,heun,dpm_solver_pp,unipc] sampler.ddim.eta=0 nfe=[6,10,16]"
)
NFE = (6, 10)
SAMPLERS = {
    "DDIM": ("ddim", {"eta": 0.0}),
    "Heun": ("heun", {}),
    "DPM-Solver-2": ("dpm_solver_2", {}),
    "DPM-Solver-3": ("dpm_solver_3", {}),
    "DPM-Solver++ 2M": ("dpm_solver_pp", {"points": 2}),
    "UniPC": ("unipc", {"points": 2}),
    "DEIS": ("deis_time", {"points": 3}),
    "iPNDM": ("ipndm", {"points": 4}),
}
#: The designs whose gains the page has, and their seeds.
GAINS, GAINED = "gains", PLACE / "gains.json"
SEEDS = (0, 1, 2)
DESIGNED = {
    "grid_mixture": ("DDIM", "Heun", "UniPC", "DPM-Solver++ 2M"),
    "two_moons": ("DDIM", "Heun", "UniPC", "DPM-Solver++ 2M", "DPM-Solver-3"),
}


def gains() -> list[dict[str, Any]]:
    """What each design gains on held-out starts: a row for each of them, a list for each seed."""
    rows: dict[tuple[str, str, int], dict[str, Any]] = {}
    for data, names in DESIGNED.items():
        made = {name: sb.sampler(SAMPLERS[name][0], **SAMPLERS[name][1]) for name in names}
        for seed in SEEDS:
            found = sb.design(data, made, nfe=NFE, starts=["exact"], seed=seed)
            for one in found.designs:
                most = next(n for n in NFE if one.nfe <= n)
                row = rows.setdefault(
                    (data, one.sampler, most),
                    {"data": data, "sampler": one.sampler, "nfe": most, "seeds": []},
                )
                row["seeds"].append(
                    {
                        "standard": one.standard,
                        "standard_value": one.standard_value,
                        "designed_value": one.designed_value,
                        "gain": [one.gain, one.lower, one.upper],
                        "better": one.better,
                    }
                )
    return list(rows.values())


def gains_table(rows: list[dict[str, Any]]) -> str:
    """The gains as Markdown; a star where a design is not shown to be better."""
    lines = [
        "| data | sampler | NFE at most | best standard grid | its value | designed "
        f"| gain at seeds {', '.join(map(str, SEEDS))}, with 95 % intervals |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        seeds = row["seeds"]
        names = "/".join(f"`{name}`" for name in dict.fromkeys(one["standard"] for one in seeds))
        values = [median(one[key] for one in seeds) for key in ("standard_value", "designed_value")]
        texts = []
        for one in seeds:
            gain, lower, upper = (f"{end:.3g}" for end in one["gain"])
            texts.append(f"{gain} ({lower}–{upper}){'' if one['better'] else chr(92) + '*'}")
        lines.append(
            f"| {row['data']} | {row['sampler']} | {row['nfe']} | {names} | {values[0]:.3g} "
            f"| {values[1]:.3g} | {' · '.join(texts)} |"
        )
    return "\n".join(lines)


def measured(data: str, nfe: int) -> dict[str, Any]:
    """The facts of a panel."""
    torch.set_num_threads(1)
    began = time.perf_counter()
    if data == LEARNED:
        sweep, name = sb.load(RUN).sweep, "learned"
        model = sweep.denoisers[name]
    else:
        sweep, name = exact_sweep((data, sb.dataset(data)), None, ["grid=karras"]), "oracle"
        model = sweep.dataset.exact_score(sweep.schedule)
        assert model is not None
    made = [(key, sb.sampler(kind, **settings)) for key, (kind, settings) in SAMPLERS.items()]
    ours = {"denoisers": {name: model}, "starts": {"prior": sb.start("prior")}}
    sweep = replace(sweep, samplers=made, steps=[nfe], nfe=[nfe], **ours)
    candidates, _, _ = fitted_grids(sweep, racing_grids(sweep))
    choices = chosen(sweep, candidates)
    course, count = Course(sweep, name, "prior"), DATA[data]
    values: dict[str, dict[str, np.ndarray]] = {"common": {}, "own": {}}
    for (name, sampler), best in zip(made, choices, strict=True):
        common = course.entrant(name, sampler, COMMON, sweep.grid, best.steps)
        own = course.entrant(name, sampler, best.grid, best.levels, best.steps)
        for key, one in (("common", common), ("own", own)):
            assert isinstance(one, Entrant)
            x = course.outputs(one, MEASUREMENT, 0, count)
            values[key][name] = course.paths(one, x, MEASUREMENT, 0)
    rows = {}
    for name, best in zip(SAMPLERS, choices, strict=True):
        gain = ratio(values["common"][name], values["own"][name])
        rows[name] = {
            "grid": best.grid,
            "choices": best.choices,
            "steps": best.steps,
            **{key: interval(values[key][name]) for key in values},
            "gain": [math.exp(end / 2) for end in (gain.mean, gain.lower, gain.upper)],
        }
    pairs = list(combinations(SAMPLERS, 2))
    orders = {key: [ratio(values[key][a], values[key][b]) for a, b in pairs] for key in values}
    signs = {}
    for key, found in orders.items():
        apart = holm([one.p_value for one in found]) <= 0.05
        signs[key] = [
            int(np.sign(one.mean)) * int(sure) for one, sure in zip(found, apart, strict=True)
        ]
    times = {
        key: [[math.exp(end / 2) for end in (one.mean, one.lower, one.upper)] for one in found]
        for key, found in orders.items()
    }
    entrant = course.entrant("heun", made[1][1], COMMON, sweep.grid, choices[1].steps)
    assert isinstance(entrant, Entrant)
    return {
        "data": data,
        "nfe": nfe,
        "starts": count,
        "rows": rows,
        "pairs": pairs,
        "signs": signs,
        "times": times,
        "converged_to": course.converged_to(entrant, 200),
        "seconds": time.perf_counter() - began,
    }


def interval(values: np.ndarray) -> list[float]:
    """Root mean square and its interval, from squares."""
    own = t_interval(values)
    return [math.sqrt(max(end, 0.0)) for end in (own.mean, own.lower, own.upper)]


def figure(panels: list[dict[str, Any]]) -> Figure:
    """A panel for each data set and number of evaluations; a line for each sampler."""
    names = list(dict.fromkeys(panel["data"] for panel in panels))
    learned = " and a trained U-Net" if LEARNED in names else ""
    with mpl.rc_context(styled()):
        drawn = Figure(figsize=sized(2.9 * len(names), 6.2), layout="constrained")
        axes = drawn.subplots(len(NFE), len(names), squeeze=False, sharex=True)
        for panel in panels:
            own = axes[NFE.index(panel["nfe"]), names.index(panel["data"])]
            own.set_yscale("log")
            for place, (name, row) in enumerate(panel["rows"].items()):
                ends = np.array([row["common"], row["own"]])
                bars = np.abs(ends[:, 1:] - ends[:, :1]).T
                x = np.array([0.0, 1.0]) + 0.02 * (place - 3.5)  # so that bars do not overlap
                look = {"ms": 4, "capsize": 1.5, "label": name, **curve_style(place).line}
                own.errorbar(x, ends[:, 0], bars, **look)
            own.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
            own.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            own.yaxis.set_minor_formatter(NullFormatter())
            own.set_xticks([0, 1], ["common grid", "each its own"])
            own.set_xlim(-0.3, 1.3)
            data = "digits, U-Net" if panel["data"] == LEARNED else panel["data"]
            own.set_title(f"{data}, NFE ≤ {panel['nfe']}", fontsize="medium")
        for row in axes:
            row[0].set_ylabel("distance to the converged run (sd)")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        drawn.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
        subtitle(
            drawn,
            f"Exact denoisers{learned}, σ from 10, prior start. "
            "Common grid: Karras (ρ = 5, σ_min = .02).\n"
            "Own: the best of all grids and of designed levels, chosen on training starts and "
            "measured on others; bars: 95 % intervals",
        )
    return drawn


def table(panels: list[dict[str, Any]]) -> str:
    """The best samplers of each panel and what becomes of the orders, as Markdown."""
    lines = [
        "| data, evaluations | best on the common grid | best on its own grid "
        "| orders on the common grid: kept, lost, reversed "
        "| times closer on the own grid, least and most |",
        "|---|---|---|---|---|",
    ]
    for panel in panels:
        rows, signs = panel["rows"], panel["signs"]
        first = [min(rows, key=lambda name: rows[name][key][0]) for key in ("common", "own")]
        before, after = (np.array(signs[key]) for key in ("common", "own"))
        sure = before != 0
        kept, lost = int((before == after)[sure].sum()), int((after == 0)[sure].sum())
        turned = int(sure.sum()) - kept - lost
        gains = {name: rows[name]["gain"] for name in rows}
        least, most = (end(gains, key=lambda name: gains[name][0]) for end in (min, max))
        texts = [
            f"{name} {rows[name][key][0]:.3g} [{rows[name][key][1]:.2g}, {rows[name][key][2]:.2g}]"
            for name, key in zip(first, ("common", "own"), strict=True)
        ]
        ends = [
            f"{name} {gains[name][0]:.2g} [{gains[name][1]:.2g}, {gains[name][2]:.2g}]"
            for name in (least, most)
        ]
        lines.append(
            f"| {panel['data']}, {panel['nfe']} | {texts[0]} | {texts[1]} | "
            f"{int(sure.sum())} of {len(before)}: {kept}, {lost}, {turned} | {', '.join(ends)} |"
        )
    return "\n".join(lines)


def statements(panels: list[dict[str, Any]]) -> str:
    """For each pair of samplers: in how many panels each is closer, on both kinds of grids."""
    lines = ["| pair | common grid | each its own |", "|---|---|---|"]
    for place, (a, b) in enumerate(panels[0]["pairs"]):
        cells = []
        for key in ("common", "own"):
            found = [panel["signs"][key][place] for panel in panels]
            cells.append(f"{found.count(-1)} : {found.count(1)}")
        lines.append(f"| {a} : {b} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, draw, print."""
    PLACE.mkdir(exist_ok=True)
    words = sys.argv[1:]
    if not {*words} <= {*DATA, TRAP, GAINS, "figure"}:
        sys.exit(f"one of {', '.join(DATA)}, {TRAP}, {GAINS}, or figure")
    if not words or GAINS in words:
        torch.set_num_threads(1)
        GAINED.write_text(json.dumps(gains(), indent=1) + "\n", encoding="utf-8")
    if not words or TRAP in words:
        TWIN.unlink(missing_ok=True)
        design.main([*TRAPPED.split(), f"out={TWIN}"])
    jobs = [(data, nfe) for data in DATA for nfe in NFE if not words or data in words]
    known = json.loads(FACTS.read_text(encoding="utf-8")) if FACTS.exists() else []
    panels = {(one["data"], one["nfe"]): one for one in known}
    if any(data == LEARNED for data, _ in jobs) and not RUN.exists():
        words = [sys.executable, "-m", "samplerbench", *TRAINING.split(), f"hydra.run.dir={RUN}"]
        subprocess.run(words, check=True)
    with ProcessPoolExecutor(2) as pool:
        for panel in pool.map(measured, *zip(*jobs, strict=True)) if jobs else ():
            print(f"{panel['seconds']:4.0f} s  {panel['data']}, {panel['nfe']}", flush=True)
            panels[panel["data"], panel["nfe"]] = panel
    order = [panels[key] for key in ((d, n) for d in DATA for n in NFE) if key in panels]
    FACTS.write_text(json.dumps(order, indent=1) + "\n", encoding="utf-8")
    figure(order).savefig(PLACE / "samplers.png")
    print(table(order))
    print(statements(order))
    if GAINED.exists():
        print(gains_table(json.loads(GAINED.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
