#!/usr/bin/env bash
# flow_matching 1.0.10: a model that runs on another schedule (ScheduleTransformedModel) gets worse with more steps,
# or is not a number from the first step.
#
# The class finds the time t at which the model's own schedule has the signal-to-noise ratio of the schedule that one
# wants, and divides by that schedule's sigma(t) = sqrt(1 - t²). Near the data t is 1 but for some 1e-7, so in float32
# (the usual arithmetic) the sigma has no correct digit: at time .999 the velocity of a Gaussian is -23 instead of 1.
# More steps come nearer to the data and meet worse values. In float64 the same runs are right. A model of the
# VPScheduler is not a number at any number of steps: at time 0 the straight path has no signal at all, which the
# variance-preserving path never reaches, and the time found is minus infinity. A polynomial schedule of order 3 is
# not a number either (0/0 at time 0). The class refuses none of these pairs and warns of none.
#
# The exact velocity of data N(0, .5²), midpoint rule in even steps, 20 000 samples; the number is the standard
# deviation of the samples divided by that of exact samples from the same noise: 1 is right.
#
# Guessed before, for VP on CondOT with 100 steps: finite, and within 1 %.
# No thread of the package among those that a search found says so (2026-11-30).
# Exits with 0 while this is so, with 1 once it is not.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet flow_matching==1.0.10 torch==2.13.0 torchdiffeq==0.2.5 numpy==2.4.6 tqdm==4.70.1

cat > "$folder/program.py" <<'PYTHON'
import math
import sys
from importlib.metadata import version

import torch
from flow_matching.path.scheduler import (
    CondOTScheduler,
    CosineScheduler,
    LinearVPScheduler,
    PolynomialConvexScheduler,
    VPScheduler,
)
from flow_matching.path.scheduler.schedule_transform import ScheduleTransformedModel
from flow_matching.solver import ODESolver
from flow_matching.utils import ModelWrapper

WIDTH = 0.5
NUMBERS = (10, 30, 100, 300, 1000)


class Velocity(ModelWrapper):
    """The exact velocity of the path alpha(t)·data + sigma(t)·noise, data N(0, WIDTH²)."""

    def __init__(self, scheduler):
        super().__init__(torch.nn.Identity())
        self.scheduler = scheduler

    def forward(self, x, t, **extras):
        now = self.scheduler(t)
        variance = now.alpha_t**2 * WIDTH**2 + now.sigma_t**2
        return (now.alpha_t * now.d_alpha_t * WIDTH**2 + now.sigma_t * now.d_sigma_t) / variance * x


torch.manual_seed(0)
NOISE = torch.randn(20_000, 1, dtype=torch.float64)


def ratio(velocity, steps, dtype=torch.float32):
    noise = NOISE.to(dtype)
    times = torch.tensor([0.0, 1.0], dtype=dtype)
    samples = ODESolver(velocity).sample(x_init=noise, step_size=1 / steps, method="midpoint", time_grid=times)
    return float(samples.double().std() / NOISE.std() / WIDTH)


linear, straight = LinearVPScheduler(), CondOTScheduler()
CASES = {
    "trained on LinearVP, run on it": (Velocity(linear), torch.float32),
    "LinearVP, run on CondOT": (ScheduleTransformedModel(Velocity(linear), linear, straight), torch.float32),
    "the same in float64": (ScheduleTransformedModel(Velocity(linear), linear, straight), torch.float64),
    "LinearVP, run on Cosine": (ScheduleTransformedModel(Velocity(linear), linear, CosineScheduler()), torch.float32),
    "CondOT, run on Cosine": (ScheduleTransformedModel(Velocity(straight), straight, CosineScheduler()), torch.float32),
}
for name, scheduler in (("VP", VPScheduler()), ("polynomial n=3", PolynomialConvexScheduler(3))):
    changed = ScheduleTransformedModel(Velocity(scheduler), scheduler, straight)
    CASES[f"{name}, run on CondOT"] = (changed, torch.float32)

print(f"flow_matching {version('flow_matching')}, torch {torch.__version__}")
print("steps".ljust(32), *(f"{steps:<8}" for steps in NUMBERS))
found = {}
for name, (velocity, dtype) in CASES.items():
    for steps in NUMBERS:
        found[name, steps] = ratio(velocity, steps, dtype)
    print(name.ljust(32), *(f"{found[name, steps]:<8.4f}" for steps in NUMBERS))
near = CASES["LinearVP, run on CondOT"][0](torch.ones(1, 1), torch.tensor(0.999)).item()
exact = Velocity(straight)(torch.ones(1, 1), torch.tensor(0.999)).item()
print(f"velocity at time .999 and x = 1: {near:.3g}, exact {exact:.3g}")


def error(name, steps):
    return abs(found[name, steps] - 1)


worse = error("LinearVP, run on CondOT", 1000) > 0.02 and error("LinearVP, run on CondOT", 30) < 0.002
cosine = error("LinearVP, run on Cosine", 1000) > 0.02
right = all(
    error(name, 1000) < 0.002
    for name in ("trained on LinearVP, run on it", "the same in float64", "CondOT, run on Cosine")
)
never = all(
    math.isnan(found[f"{name}, run on CondOT", steps]) for name in ("VP", "polynomial n=3") for steps in NUMBERS
)
if not (worse and cosine and right and never and near < 0):
    sys.exit("changed: the transformed models behave otherwise")
print("\nas described: right with 30 steps and 4 to 5 % too narrow with 1 000, or not a number; no warning says so")
PYTHON
"$folder/venv/bin/python" "$folder/program.py"
