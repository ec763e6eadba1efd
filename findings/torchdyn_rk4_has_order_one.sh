#!/usr/bin/env bash
# torchdyn 1.0.6: the fixed-step solver "rk4" has order 1 if the field depends on time, as the velocity of a flow does.
#
# torchdyn integrates the flows of the examples of torchcfm. Its four stages must be at t, t + h/2, t + h/2 and t + h.
# The table of times begins with the 0 of the first stage, but the step takes its first entry for the second stage. So
# the stages are at t, t, t + h/2 and t + h/2. With four evaluations a step it is worse than midpoint with two at every
# number of steps here: its error is .31 to .47 of Euler's. A field that does not depend on time hides the fault: there
# the order is 4. dopri5 and tsit5 have a table without that 0 and are right.
#
# The flow of rectified flow from N(0, 1) to data, with the exact velocity, in even steps and float64. Data: the Gaussian
# N(.3, .4²), with the relative error of the standard deviation of the samples; and two unequal modes, with the largest
# error of the end of five starts. NeuralODE calls odeint. The last line of each table is the classical formula.
#
# Guessed before: rk4 has order 4, and its error is below that of midpoint.
# No thread of the package mentions it among those that a search found (2026-11-30).
# Exits with 0 while this is so, with 1 once it is not.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torchdyn==1.0.6 torch==2.13.0 numpy==2.4.6 scipy==1.17.1

cat > "$folder/program.py" <<'PYTHON'
import math
import sys
import warnings
from importlib.metadata import version

warnings.simplefilter("ignore")  # of packages that it imports

import torch
from torchdyn.numerics import odeint

torch.set_default_dtype(torch.float64)
NUMBERS = (10, 20, 40, 80, 160)
WEIGHTS, MEANS, WIDTHS = torch.tensor([0.3, 0.7]), torch.tensor([-1.0, 0.8]), torch.tensor([0.3, 0.2])


def posterior_mean(t, x, mean, width):
    """E[data | x] of one Gaussian, for x = t·data + (1 - t)·noise."""
    return mean + t * width**2 / (t**2 * width**2 + (1 - t) ** 2) * (x - t * mean)


class Gaussian(torch.nn.Module):
    def forward(self, t, x, args=None):  # E[data - noise | x]
        variance = t**2 * 0.4**2 + (1 - t) ** 2
        return 0.3 + (t * 0.4**2 - (1 - t)) / variance * (x - t * 0.3)


class Mixture(torch.nn.Module):
    def forward(self, t, x, args=None):
        variance = t**2 * WIDTHS**2 + (1 - t) ** 2
        share = torch.softmax(WEIGHTS.log() - variance.log() / 2 - (x - t * MEANS) ** 2 / variance / 2, -1)
        velocity = MEANS + (t * WIDTHS**2 - (1 - t)) / variance * (x - t * MEANS)
        return (share * velocity).sum(-1, keepdim=True)


class NoTime(torch.nn.Module):
    def forward(self, t, x, args=None):
        return torch.sin(3 * x) + 1


def classical(field, x, steps):
    h = 1 / steps
    for i in range(steps):
        t = torch.tensor(i * h)
        a = field(t, x)
        b = field(t + h / 2, x + h / 2 * a)
        c = field(t + h / 2, x + h / 2 * b)
        d = field(t + h, x + h * c)
        x = x + h / 6 * (a + 2 * b + 2 * c + d)
    return x


def run(field, x, steps, method):
    times = torch.linspace(0, 1, steps + 1)
    if method == "the classical formula":
        return classical(field, x, steps)
    return odeint(field, x, times, method)[1][-1].detach()


print(f"torchdyn {version('torchdyn')}, torch {torch.__version__}")
found, two, five = {}, torch.tensor([[0.0], [1.0]]), torch.linspace(-2, 2, 5)[:, None]
for law, field in {"Gaussian": Gaussian(), "mixture": Mixture(), "no time": NoTime()}.items():
    exact = None if law == "Gaussian" else classical(field, five, 1000)
    print(f"\n{law}, steps:".ljust(27), *(f"{steps:<8}" for steps in NUMBERS), " slope of the last two")
    for method in ("euler", "midpoint", "rk4", "the classical formula"):
        for steps in NUMBERS:
            if law == "Gaussian":  # the map is affine: the mean, and one deviation from it
                end = run(field, two, steps, method)
                found[law, method, steps] = abs(float(end[1] - end[0]) / 0.4 - 1)
            else:
                found[law, method, steps] = float((run(field, five, steps, method) - exact).abs().max())
        slope = math.log2(found[law, method, 80] / found[law, method, 160])
        found[law, method, "slope"] = slope
        print(f"{method:<26}", *(f"{found[law, method, steps]:<8.0e}" for steps in NUMBERS), f" {slope:.1f}")

wrong = all(
    0.8 < found[law, "rk4", "slope"] < 1.3 and found[law, "rk4", steps] > found[law, "midpoint", steps]
    for law in ("Gaussian", "mixture")
    for steps in NUMBERS
)
hidden = found["no time", "rk4", "slope"] > 3.7
right = all(found[law, "the classical formula", "slope"] > 3.5 for law in ("Gaussian", "mixture"))
if not (wrong and hidden and right):
    sys.exit("changed: rk4 is right for fields that depend on time, or wrong for others")
print("\nas described: rk4 has order 1 for a flow, and order 4 only without time")
PYTHON
"$folder/venv/bin/python" "$folder/program.py"
