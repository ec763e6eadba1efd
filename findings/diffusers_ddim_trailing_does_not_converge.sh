#!/usr/bin/env bash
# diffusers 0.42.1: DDIM with timestep_spacing="trailing" has a wrong width unless the number of steps divides
# the training table, and one more step than 60 loses the whole width.
#
# The timesteps of trailing are T/N apart and rounded. step() goes down by T//N. If N divides T = 1 000, both are
# the same and the error falls like 1/N. If not, each state is at another noise level than the network is told,
# and the missing parts add up: 501 steps of 1 after timesteps that are 2 apart. At N = 61 the list has 62
# timesteps, and the last is -1, which indexes the noisiest level of the table.
#
# Exact network of data N(.3, .4²), exact start, η = 0, nothing clipped; the number is the error of the standard
# deviation of the samples.
#
# Guessed before: the error falls like 1/N for every N, with steps of some per cent where N does not divide T.
# Exits with 0 while this is so, with 1 once it is not.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet diffusers==0.42.1 torch==2.13.0 numpy==2.4.6

cat > "$folder/program.py" <<'PYTHON'
import sys

import diffusers
import torch
from diffusers import DDIMScheduler

MEAN, WIDTH = 0.3, 0.4


def error(spacing, steps):
    """The relative error of the standard deviation, and the timesteps."""
    scheduler = DDIMScheduler(clip_sample=False, timestep_spacing=spacing)
    scheduler.set_timesteps(steps)
    first = float(scheduler.alphas_cumprod[int(scheduler.timesteps[0])])
    # the mean, and one deviation from it: the map is affine
    x = first**0.5 * MEAN + (first * WIDTH**2 + 1 - first) ** 0.5 * torch.tensor([[0.0], [1.0]]).double()
    for t in scheduler.timesteps:
        signal = float(scheduler.alphas_cumprod[int(t)])
        alpha, sigma = signal**0.5, (1 - signal) ** 0.5
        x0 = MEAN + alpha * WIDTH**2 / (signal * WIDTH**2 + sigma**2) * (x - alpha * MEAN)
        x = scheduler.step((x - alpha * x0) / sigma, t, x).prev_sample
    return float(x[1] - x[0]) / WIDTH - 1, scheduler.timesteps


print(f"diffusers {diffusers.__version__}, torch {torch.__version__}")
print("steps  leading   trailing  timesteps of trailing, their number and the last")
trailing = {}
for steps in (50, 60, 61, 100, 101, 250, 400, 500, 501, 640, 1000):
    trailing[steps], times = error("trailing", steps)
    leading, _ = error("leading", steps)
    print(f"{steps:<6} {leading:<+9.1%} {trailing[steps]:<+9.1%} {len(times)}, {int(times[-1])}")
divides = all(abs(trailing[n]) < 4 / n for n in (50, 100, 250, 500, 1000))
does_not = trailing[501] > 0.5 and trailing[640] > 0.3 and trailing[400] > 0.15
if not (divides and does_not and trailing[61] < -0.9):
    sys.exit("changed: trailing is right where N does not divide T, or wrong where it does")
print("as described: 500 steps are right to 1 %, 501 are 58 % too wide, 61 have no width at all")
PYTHON
"$folder/venv/bin/python" "$folder/program.py"
