#!/usr/bin/env bash
# diffusers 0.42.1: DPMSolverMultistepScheduler with its defaults is not a number if it takes all steps of the
# table, and DEIS neither.
#
# Its timesteps are N + 1 equal parts of [0, T − 1], rounded, without the last one. At N = T = 1 000 two of them are
# the same, so one step has the length 0 in ln σ, and the second-order formula divides by it: 0/0. N = 999 is right.
#
# Exact network of data N(.3, .4²), exact start; the number is the error of the standard deviation.
#
# Guessed before: as many steps as the table has levels are the most accurate of all.
# Exits with 0 while this is so, with 1 once it is not.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet diffusers==0.42.1 torch==2.13.0 numpy==2.4.6

cat > "$folder/program.py" <<'PYTHON'
import math
import sys

import diffusers
import torch
from diffusers import DEISMultistepScheduler, DPMSolverMultistepScheduler

MEAN, WIDTH = 0.3, 0.4


def error(kind, steps):
    """The relative error of the standard deviation, and how many timesteps occur twice."""
    scheduler = kind()
    scheduler.set_timesteps(steps)
    first = float(scheduler.alphas_cumprod[int(scheduler.timesteps[0])])
    x = first**0.5 * MEAN + (first * WIDTH**2 + 1 - first) ** 0.5 * torch.tensor([[0.0], [1.0]]).double()
    for t in scheduler.timesteps:
        signal = float(scheduler.alphas_cumprod[int(t)])
        alpha, sigma = signal**0.5, (1 - signal) ** 0.5
        x0 = MEAN + alpha * WIDTH**2 / (signal * WIDTH**2 + sigma**2) * (x - alpha * MEAN)
        x = scheduler.step((x - alpha * x0) / sigma, t, x).prev_sample
    return float(x[1] - x[0]) / WIDTH - 1, steps - len(set(scheduler.timesteps.tolist()))


print(f"diffusers {diffusers.__version__}, torch {torch.__version__}")
as_said = True
for kind in (DPMSolverMultistepScheduler, DEISMultistepScheduler):
    for steps in (100, 500, 999, 1000):
        found, twice = error(kind, steps)
        print(f"{kind.__name__:<28} {steps:<5} error {found:<+8.3%} timesteps that occur twice: {twice}")
        as_said &= math.isnan(found) == (steps == 1000) == (twice > 0)
if not as_said:
    sys.exit("changed: 1 000 steps give a number, or fewer do not")
print("as described: every number of steps gives a number, but not the largest one")
PYTHON
"$folder/venv/bin/python" "$folder/program.py"
