#!/usr/bin/env bash
# langevin-sampling 1.4: MetropolisAdjustedLangevin samples a law that is narrower than its target.
#
# On N(0, I) in two dimensions the second moment of a coordinate is .64 with lr = .5, .71 with .2 and .89 with .05, where the
# Metropolis-adjusted algorithm has 1 for every step size. The same package's LangevinDynamics, which accepts every
# proposal, has 1.26, 1.08 and .99, which is nearer to 1.
#
# Three things in its loop differ from the algorithm. A proposal that is refused is followed by another one until one is
# accepted, and a state is never repeated. After the first acceptance the current state and the proposal share their
# memory, so the next proposal overwrites the state, and a refusal cannot go back to it. And the density of a
# proposal is computed with a drift along the gradient of the loss, while the proposals move against it.
#
# Guessed before: .85 to 1 with lr = .5, and within .03 of 1 with .05, since only the repeated states are missing.
# Issue 3 of its repository (2023, closed) asks why refused proposals are left out of the output; the size of the error
# and the other two causes were not found in any thread (2026-12-01).
# Exits with 0 while this is so, with 1 once it is not.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet langevin-sampling==1.4 torch==2.13.0 numpy==2.4.6

cat > "$folder/program.py" <<'PYTHON'
import sys
from importlib.metadata import version

import torch
from langevin_sampling.samplers import LangevinDynamics, MetropolisAdjustedLangevin

torch.set_num_threads(1)  # small tensors
STEPS, FIRST = 20_000, 2_000


def loss(x):
    """-ln of the density of N(0, I), up to a constant."""
    return (x**2).sum() / 2


def textbook(rate):
    """The Metropolis-adjusted Langevin algorithm; a refused proposal repeats the state."""
    x, states = torch.randn(2), []
    for _ in range(STEPS):
        y = (1 - rate) * x + (2 * rate) ** 0.5 * torch.randn(2)
        there, back = (((b - (1 - rate) * a) ** 2).sum() / (4 * rate) for a, b in ((x, y), (y, x)))
        if torch.rand(()).log() < loss(x) - loss(y) + there - back:
            x = y
        states.append(x)
    return states


def packaged(kind, rate):
    start = torch.randn(2, requires_grad=True)
    # lr falls from rate to .9·rate; it may not be constant
    chain = kind(start, loss, lr=rate, lr_final=0.9 * rate, max_itr=STEPS)
    return [chain.sample()[0] for _ in range(STEPS)]


def moment(states):
    """The second moment of a coordinate, and twice its standard error from 20 batches."""
    means = (torch.stack(states)[FIRST:] ** 2).reshape(20, -1).mean(1)
    return float(means.mean()), 2 * float(means.std()) / 20**0.5


print(f"langevin-sampling {version('langevin-sampling')}, torch {torch.__version__}; second moment, 1 is right")
METHODS = {
    "MetropolisAdjustedLangevin": lambda rate: packaged(MetropolisAdjustedLangevin, rate),
    "LangevinDynamics": lambda rate: packaged(LangevinDynamics, rate),
    "Metropolis-adjusted, by the textbook": textbook,
}
found = {}
for name, states in METHODS.items():
    for rate in (0.5, 0.2, 0.05):
        torch.manual_seed(0)
        found[name, rate], error = moment(states(rate))
        print(f"{name:<37} lr = {rate:<4}: {found[name, rate]:.2f} ± {error:.2f}", flush=True)

narrow = found["MetropolisAdjustedLangevin", 0.5] < 0.75 and found["MetropolisAdjustedLangevin", 0.2] < 0.85
right = all(abs(found["Metropolis-adjusted, by the textbook", rate] - 1) < 0.1 for rate in (0.5, 0.2))
if not (narrow and right):
    sys.exit("changed: the second moment is right, or wrong in another way")
print("\nas described: narrower than the target; the textbook's algorithm is right")
PYTHON
"$folder/venv/bin/python" "$folder/program.py"
