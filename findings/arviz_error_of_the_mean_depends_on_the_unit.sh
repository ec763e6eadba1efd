#!/usr/bin/env bash
# ArviZ 0.23.4: mcse_mean and mcse_sd of az.summary depend on the unit of the states: here they are 15 times too small in
# a unit of 1e-16, and 11 times from 1e-12 on. And chains that stay at one point have an effective size of all states,
# and a split R̂ of .996 or NaN, by the digits of the point and the number of states.
#
# If the range of its numbers is below 1e-15, the effective size is the number of states, whatever their correlation. The
# range is compared with nothing in the data. For the mean the numbers are the states; for the standard deviation they are
# squared deviations, so their unit is squared. The bulk and the tail size come from ranks and indicators, so the table
# has a right ess_bulk beside a wrong mcse_mean. Strains of gravitational waves, for example, are about 1e-21.
# Equal states have the range 0. Their R̂ is 0/0 if their mean is exact. If its rounding makes a variance of some 1e-33,
# the methods "split" and "identity" give sqrt(1 - 1/n), as for chains that agree. "rank", the default, always gives NaN.
# arviz-stats 0.8.0, which replaces this part of ArviZ, has the same numbers.
#
# Four chains of 20 000 states of an AR(1) process with ρ = .99 and variance 1, times the unit; errors are divided by the
# unit. The exact ones are .050 for the mean and .025 for the standard deviation.
#
# Guessed before: R̂ is NaN for all chains that do not move. After we read the line with 1e-15: the error of the mean is
# wrong below this unit, where a user expects the same in all units.
# No thread of the package mentions it among those that a search found (2026-12-01).
# Exits with 0 while this is so, with 1 once it is not.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet arviz==0.23.4 numpy==2.4.6 scipy==1.17.1

cat > "$folder/program.py" <<'PYTHON'
import sys
import warnings
from importlib.metadata import version

import numpy as np
from scipy.signal import lfilter

warnings.simplefilter("ignore")  # its next version is announced; 0/0 of equal states
import arviz

RHO, STATES = 0.99, 20_000
UNITS = (1.0, 1e-8, 1e-12, 1e-15, 1e-16, 1e-21)
POINTS = (1.0, 0.3, 1 / 3, 0.7, 2.2, 1e-8)

noise = np.random.default_rng(0).standard_normal((4, 2 * STATES)) * np.sqrt(1 - RHO**2)
chains = lfilter([1], [1, -RHO], noise, axis=1)[:, STATES:]
print(f"ArviZ {version('arviz')}, numpy {np.__version__}")
print("unit      mcse_mean  mcse_sd  ess_bulk  ess mean  ess sd   r_hat")
rows = {}
for unit in UNITS:
    table = arviz.summary({"x": chains * unit}, round_to="none").loc["x"]
    sizes = [float(arviz.ess(chains * unit, method=method)) for method in ("mean", "sd")]
    rows[unit] = table["mcse_mean"] / unit, table["mcse_sd"] / unit, table["ess_bulk"], *sizes, table["r_hat"]
    print("{:<9g} {:<10.4f} {:<8.4f} {:<9.1f} {:<9.1f} {:<8.1f} {:.3f}".format(unit, *rows[unit]))

print("\nfour chains of n equal states     n   ess (of 4n)   R̂: rank    split     identity")
agree, unknown, sizes = set(), set(), True
for point in POINTS:
    for n in (250, 500):
        stuck = np.full((4, n), point)
        size = float(arviz.ess(stuck))
        values = {method: float(arviz.rhat(stuck, method=method)) for method in ("rank", "split", "identity")}
        print(f"{point:<33.6g} {n}   {size:<13.0f} {values['rank']:<11.4f}", end=" ")
        print(f"{values['split']:<9.4f} {values['identity']:.4f}")
        sizes &= size == 4 * n and np.isnan(values["rank"])
        for method in ("split", "identity"):
            (unknown if np.isnan(values[method]) else agree).add((point, n, method))

first = rows[1.0]
same = all(np.allclose(np.array(rows[unit])[[2, 5]], np.array(first)[[2, 5]], rtol=1e-6) for unit in UNITS)
large = all(np.isclose(rows[unit][0], first[0], rtol=1e-6) for unit in (1e-8, 1e-12))
small = all(rows[unit][0] < first[0] / 10 and rows[unit][3] == 4 * STATES for unit in (1e-16, 1e-21))
deviation = all(rows[unit][1] < first[1] / 5 and rows[unit][4] == 4 * STATES for unit in (1e-12, 1e-15, 1e-21))
if not (same and large and small and deviation and sizes and agree and unknown):
    sys.exit("changed: the errors do not depend on the unit, or equal states have another size or R̂")
print("\nas described: small states count as independent; equal states have R̂ of chains that agree, or none")
PYTHON
"$folder/venv/bin/python" "$folder/program.py"
