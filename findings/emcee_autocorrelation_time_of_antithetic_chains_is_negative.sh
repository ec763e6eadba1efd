#!/usr/bin/env bash
# emcee 3.1.6: emcee.autocorr.integrated_time is too short, or negative, if consecutive states are strongly antithetic,
# and no chain is too short for it then.
#
# States of Hamiltonian Monte Carlo are often antithetic, which is good: the mean is more precise than that of
# independent draws. The sum 1 + 2·Σρ(k) ends at the first window M ≥ 5·τ(M). If ρ(1) < -.4, τ(1) = 1 + 2·ρ(1) is
# below 1/5, so the window ends after one term, and the alternating rest of the sum is lost: τ is 2.5 times too small
# at ρ(1) = -.42, 0 at -.5, and negative below. The number of effective samples n/τ is then too large, or of any size
# and sign, or negative. More states do not help. The check of the length asks for n > 50·τ, which a negative τ always
# passes, so there is no error, although there is one for chains that are too short. ρ(1) ≥ -.3 is right.
#
# Chains with known τ: AR(1) processes, where τ = (1 + ρ)/(1 - ρ), and exact trajectories of Hamiltonian Monte Carlo on
# N(0, 1) of length L, for which ρ(k) = cos(L)^k. Four chains of n states. In the last columns is the effective size of
# all states: by emcee, by ArviZ, which gives at most states · log10(states), and the exact one.
#
# Guessed before: the effective size is within 10 % of the exact one at ρ = -.5, 0 and .9.
# No thread of the package mentions it among those that a search found (2026-11-30). Its closed issue 171 has times
# below 1 of thinned chains, which are right for them.
# Exits with 0 while this is so, with 1 once it is not.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet emcee==3.1.6 arviz==0.23.4 numpy==2.4.6 scipy==1.17.1

cat > "$folder/program.py" <<'PYTHON'
import math
import sys
import warnings
from importlib.metadata import version

import numpy as np
from emcee.autocorr import integrated_time
from scipy.signal import lfilter

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its next version is announced
    import arviz

CHAINS = 4
random = np.random.default_rng(0)


def ar1(rho, n):
    """States by chains, with unit variance from the first state on."""
    noise = random.standard_normal((n, CHAINS)) * math.sqrt(1 - rho**2)
    noise[0] /= math.sqrt(1 - rho**2)
    return lfilter([1], [1, -rho], noise, axis=0)


def hamiltonian(length, n):
    """Exact trajectories on N(0, 1): a rotation of position and fresh momentum."""
    states = np.empty((n, CHAINS))
    states[0] = random.standard_normal(CHAINS)
    momentum = random.standard_normal((n, CHAINS))
    for i in range(1, n):
        states[i] = math.cos(length) * states[i - 1] + math.sin(length) * momentum[i]
    return states


print(f"emcee {version('emcee')}, ArviZ {version('arviz')}, numpy {np.__version__}")
print("chain               ρ(1)    n        τ exact   τ of emcee   size: emcee    ArviZ     exact")
found = {}
cases = [("AR(1)", ar1, rho, rho) for rho in (0.9, 0.5, 0.0, -0.3, -0.42, -0.5, -0.8)]
cases += [("Hamiltonian L=2.5", hamiltonian, 2.5, math.cos(2.5))]
for name, make, setting, rho in cases:
    for n in (2000, 50_000):
        chain = make(setting, n)
        tau = float(integrated_time(chain)[0])  # raises if it finds the chain too short
        exact = (1 + rho) / (1 - rho)
        size = float(arviz.ess(chain.T, method="mean"))
        found[name, setting, n] = tau, exact, size / (CHAINS * n / exact)
        sizes = f"{CHAINS * n / tau:<14.0f} {size:<9.0f} {CHAINS * n / exact:.0f}"
        print(f"{name:<19} {rho:<+7.2f} {n:<8} {exact:<9.3f} {tau:<+12.3f} {sizes}")

arviz_right = all(0.8 < found["AR(1)", rho, 50_000][2] < 1.2 for rho in (0.9, 0.5, 0, -0.3, -0.42, -0.5))
mild = all(abs(found["AR(1)", rho, 50_000][0] / found["AR(1)", rho, 50_000][1] - 1) < 0.1 for rho in (0.9, 0.5, 0, -0.3))
short = all(found["AR(1)", -0.42, n][0] < 0.5 * found["AR(1)", -0.42, n][1] for n in (2000, 50_000))
none = all(abs(found["AR(1)", -0.5, n][0]) < 0.1 for n in (2000, 50_000))
negative = all(found[key][0] < -0.4 for key in found if key[1] in (-0.8, 2.5))
if not (arviz_right and mild and short and none and negative):
    sys.exit("changed: the times of antithetic chains are right, or those of other chains are wrong")
print("\nas described: right from ρ(1) = -.3 on, too short at -.42, 0 at -.5, negative below, and no error says so")
PYTHON
"$folder/venv/bin/python" "$folder/program.py"
