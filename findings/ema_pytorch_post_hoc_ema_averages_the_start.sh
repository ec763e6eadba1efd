#!/usr/bin/env bash
# ema-pytorch 0.8.3: KarrasEMA and PostHocEMA average the wrong part of the training unless update_every=1. The
# default is 100.
#
# The power-function average of EDM2 weighs training step t like t^γ. sigma_rel, which the user gives, is the width of
# these weights as a share of the training. KarrasEMA.update() takes every update_every-th step only (the README sets
# 10, to save on compute), but multiplies the old average by β(t) = (1 - 1/t)^(γ+1), the decay of one step and not of
# all the steps since the last update. So the weights are t^((γ+1)/update_every - 1). With the default they decrease:
# of the average at sigma_rel = .28 the first tenth of the training has 97 % instead of 7 %. Longer training does not
# help, since these shares do not depend on its length. What PostHocEMA makes of its checkpoints inherits them.
# An average every 100 steps can be right: with (1 - 100/t)^(γ+1) it is, in the last two rows.
#
# Here the parameter of step t is 1 in the place of t and 0 elsewhere. So the averaged parameter holds the weights.
#
# Guessed before: sigma_rel is right to 1 or 2 % at the default settings, also of an average that is made afterwards.
# No thread of the package mentions it among those that a search found (2026-11-30). Its pull request 15 brought β(t).
# Exits with 0 while this is so, with 1 once it is not.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ema-pytorch==0.8.3 torch==2.13.0 numpy==2.4.6

cat > "$folder/program.py" <<'PYTHON'
import sys
import tempfile
from importlib.metadata import version

import torch
from ema_pytorch import PostHocEMA
from ema_pytorch.post_hoc_ema import sigma_rel_to_gamma

STEPS, PLACES = 10_000, 500  # a place is 20 steps
KEPT, MADE = (0.05, 0.28), (0.1, 0.2)  # sigma_rel of the averages in training, and of those made afterwards


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(PLACES, dtype=torch.float64))

    @torch.no_grad()
    def train_to(self, step):
        self.weight.zero_()
        self.weight[(step - 1) * PLACES // STEPS] = 1


def shape(weights):
    """Mean and width of the weights over the training from 0 to 1, and the share of its first tenth."""
    weights = weights.detach().double() / weights.detach().double().sum()
    place = (torch.arange(PLACES).double() + 0.5) / PLACES
    mean = weights @ place
    return float(mean), float(weights @ (place - mean) ** 2) ** 0.5, float(weights[: PLACES // 10].sum())


def expected(sigma_rel):
    """The same of the weights t^γ."""
    gamma = sigma_rel_to_gamma(sigma_rel)
    return (gamma + 1) / (gamma + 2), sigma_rel, 0.1 ** (gamma + 1)


def theirs(**settings):
    """The weights of PostHocEMA by sigma_rel."""
    net = Net()
    with tempfile.TemporaryDirectory() as folder:
        average = PostHocEMA(
            net, sigma_rels=KEPT, checkpoint_folder=folder, checkpoint_dtype=torch.float32, **settings
        )
        for step in range(1, STEPS + 1):
            net.train_to(step)
            average.update()
        found = {sigma_rel: shape(one.ema_model.weight) for sigma_rel, one in zip(KEPT, average.ema_models)}
        for sigma_rel in MADE:
            found[sigma_rel] = shape(average.synthesize_ema_model(sigma_rel=sigma_rel).ema_model.weight)
    return found


def every_100_steps(sigma_rel):
    """The weights with the decay of all the steps since the last update."""
    net, average = Net(), torch.zeros(PLACES, dtype=torch.float64)
    for step in range(100, STEPS + 1, 100):
        net.train_to(step)
        decay = (1 - 100 / step) ** (sigma_rel_to_gamma(sigma_rel) + 1)
        average = decay * average + (1 - decay) * net.weight.detach()
    return shape(average)


print(f"ema-pytorch {version('ema-pytorch')}, torch {torch.__version__}")
print("update_every   sigma_rel          mean, expected  width, expected  first tenth of the training, expected")
runs = {"1": theirs(update_every=1), "10": theirs(update_every=10), "default (100)": theirs()}
runs["100, by hand"] = {sigma_rel: every_100_steps(sigma_rel) for sigma_rel in KEPT}
for name, found in runs.items():
    for sigma_rel, (mean, width, tenth) in found.items():
        right = expected(sigma_rel)
        made = "afterwards" if sigma_rel in MADE else ""
        print(f"{name:<14} {sigma_rel:<7g}{made:<11} {mean:.3f}, {right[0]:.3f}    {width:.3f}, {right[1]:.3f}", end="")
        print(f"     {tenth:.1%}, {right[2]:.1%}")


def off(name, sigma_rel):
    """The largest difference from the expected mean, width and share."""
    return max(abs(a - b) for a, b in zip(runs[name][sigma_rel], expected(sigma_rel)))


if not all(off("1", sigma_rel) < 5e-3 for sigma_rel in KEPT + MADE):
    sys.exit("changed: wrong also at every step")
if not all(off("100, by hand", sigma_rel) < 1e-2 for sigma_rel in KEPT):
    sys.exit("wrong by hand")
wrong = all(off(name, sigma_rel) > 0.2 for name in ("10", "default (100)") for sigma_rel in KEPT + MADE)
if not (wrong and runs["default (100)"][0.28][2] > 0.9):
    sys.exit("changed: update_every no longer changes what is averaged")
print("as described: by default the average is nearly the network of the first tenth of the training")
PYTHON
"$folder/venv/bin/python" "$folder/program.py"
