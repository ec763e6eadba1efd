"""A design against the plain way: Powell's method, which calls the sampler a run at a time."""

import math
import statistics
import time
from contextlib import suppress

import pytest
from scipy.optimize import minimize

import samplerbench as sb
from samplerbench.bench.criteria import CRITERIA, Problem, Targets
from samplerbench.bench.design import Space, design, usual_starts
from samplerbench.core.grids import in_data_units, karras, log_snr
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import EDM
from samplerbench.core.starts import Exact
from samplerbench.samplers.base import final_state
from samplerbench.samplers.dpm_solver_pp import DPMSolverPP
from samplerbench.samplers.heun import Heun
from samplerbench.samplers.unipc import UniPC

PATH = EDM(10.0)
RUNS = 300


def grid(schedule, steps):
    return karras(schedule, steps, noise_min=0.02, rho=5.0)


def powell(problem, targets, steps):
    """The best of 300 runs of the sampler from each of two first grids, from the same starts."""
    x, space = problem.draw("training", len(targets)), Space(PATH, grid(PATH, steps))
    tried = []
    most = [0]

    def distance(theta):
        if len(tried) == most[0]:
            raise StopIteration
        levels = space.levels(space.logs(theta)[0])
        out = final_state(problem.sampler, problem.model, x, levels, KeyedNoise(("none",)))
        value = float((in_data_units(out, levels) - targets).square().sum(-1).mean())
        tried.append((value, levels))
        return value

    for first in (grid(PATH, steps), log_snr(PATH, steps, noise_min=0.02)):
        most[0] += RUNS
        with suppress(StopIteration):
            minimize(distance, space.theta(first), method="Powell", options={"maxfev": RUNS})
    return min(tried, key=lambda pair: pair[0])[1]


@pytest.mark.bench
@pytest.mark.parametrize("name", ["grid_mixture", "two_moons"])
def test_design_against_powell(name, record_property):
    law = sb.dataset(name)
    model, start = law.oracle(PATH), Exact()
    paths, choice = usual_starts(model, law)
    for sampler, steps in ((Heun(), 5), (DPMSolverPP(), 10), (UniPC(), 10), (UniPC(), 16)):
        ratios, ours, plain = [], [], []
        for seed in range(3):
            targets = Targets()
            problem = Problem(sampler, model, law, start, grid(PATH, steps), seed, targets=targets)
            paired = CRITERIA["paired"]
            for purpose, count in (("training", paths), ("choice", choice), ("held-out", 2000)):
                sample = paired.sample(
                    problem, purpose, count
                )  # both ways share the converged runs
                if purpose == "training":
                    target = next(iter(targets._known.values()))
            began = time.process_time()
            found = design(sampler, steps, model, start, law, grid, seed=seed, targets=targets)
            middle = time.process_time()
            other = powell(problem, target, steps)
            end = time.process_time()
            ratios.append((end - middle) / (middle - began))
            ours.append(found.designed.value)
            plain.append(math.sqrt(float(sample.losses([other]).mean())))
        middle_of = statistics.median
        line = (
            f"{name} {type(sampler).__name__} N={steps}: {middle_of(ratios):.1f} times as fast; "
            f"held out {middle_of(ours):.3g}, Powell {middle_of(plain):.3g} sd"
        )
        print(line)
        record_property(f"{type(sampler).__name__} {steps}", line)
