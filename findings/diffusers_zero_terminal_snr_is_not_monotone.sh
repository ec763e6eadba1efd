#!/usr/bin/env bash
# diffusers 0.42.1: with rescale_betas_zero_snr the noisiest level of four schedulers is not the last one.
#
# rescale_betas_zero_snr makes the last level of the table pure noise, ᾱ = 0, which DDIM has. UniPC, Euler,
# ancestral Euler and DPM-Solver++ replace that 0 by 2⁻²⁴ = 6.0e-8, so that σ = √((1 − ᾱ)/ᾱ) is a number.
# The levels before it have less signal than that: ᾱ is 1.7e-8 and 4.2e-9 two and one levels before. So the
# table goes back at its end: a sampler that starts at the last level starts with less noise than at the one
# before it, and an interpolation that needs a monotone table has none.
#
# Guessed before: ᾱ decreases along the table, to 0 or to a small number.
# Exits with 0 while this is so, with 1 once it is not.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet diffusers==0.42.1 torch==2.13.0 numpy==2.4.6

cat > "$folder/program.py" <<'PYTHON'
import sys

import diffusers
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    UniPCMultistepScheduler,
)

print(f"diffusers {diffusers.__version__}: the last three ᾱ with rescale_betas_zero_snr=True")
turned = []
for kind in (
    DDIMScheduler,
    UniPCMultistepScheduler,
    EulerDiscreteScheduler,
    EulerAncestralDiscreteScheduler,
    DPMSolverMultistepScheduler,
):
    table = kind(rescale_betas_zero_snr=True).alphas_cumprod.double()
    decreasing = bool((table.diff() < 0).all())
    print(f"{kind.__name__:<34}", *(f"{value:.3g}" for value in table[-3:].tolist()), end="  ")
    print("decreasing" if decreasing else "goes back at the end")
    if not decreasing:
        turned.append(kind.__name__)
if len(turned) != 4 or "DDIMScheduler" in turned:
    sys.exit("changed: other schedulers, or none, have a table that goes back")
print("as described: four of five have their largest σ one level before the last")
PYTHON
"$folder/venv/bin/python" "$folder/program.py"
