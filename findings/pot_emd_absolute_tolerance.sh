#!/usr/bin/env bash
# POT 0.9.7.post1: ot.emd and ot.emd2 depend on the unit of the costs.
#
# W₂ of 300 against 300 points of the plane, with the points in one unit after the other. The answer in
# another unit is the same number times that unit; ot.emd2 returns the cost of a plan that is not the best
# one, without a warning, once the costs are below about 1e-10. In its network simplex the artificial arcs
# cost (largest cost + 1)·(n + m), so node potentials of about 600 hide reduced costs below some 1e-13.
# A matrix divided by its largest entry is solved exactly. One point far away that both clouds share does
# the same to the others, at any unit: there the largest cost is the far point's.
#
# Exits with 0 while this is so, with 1 once it is not.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pot==0.9.7.post1 numpy==2.4.6 scipy==1.17.1

cat > "$folder/program.py" <<'PYTHON'
import sys

import numpy as np
import ot
import scipy
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist


def both(x, y):
    """W₂ by SciPy's assignment and by POT, and POT's warning."""
    costs = cdist(x, y, "sqeuclidean")
    best = costs[linear_sum_assignment(costs)].mean()
    found, log = ot.emd2([], [], costs, numItermax=10**8, log=True)
    again = ot.emd2([], [], costs / costs.max(), numItermax=10**8) * costs.max()
    return best**0.5, found**0.5, again**0.5, log["warning"]


print(f"POT {ot.__version__}, NumPy {np.__version__}, SciPy {scipy.__version__}")
random = np.random.default_rng(0)
x, y = random.standard_normal((300, 2)), random.standard_normal((300, 2))
print("unit     assignment    ot.emd2       error     after division by the largest cost   warning")
errors = {}
for unit in (1e14, 1.0, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-12):
    best, found, again, warning = both(unit * x, unit * y)
    errors[unit] = found / best - 1
    print(f"{unit:<8g} {best:<13.6g} {found:<13.6g} {errors[unit]:<+9.1e} {again / best - 1:<+36.1e} {warning}")
    as_said = abs(again / best - 1) < 1e-9 and warning is None
    if not as_said:
        sys.exit(f"changed: at unit {unit:g}")

print("\na point at (c, -c) in both clouds: c, assignment, ot.emd2, error, warning")
shared = {}
for place in (1e2, 1e4, 1e6, 1e8):
    far = np.array([[place, -place]])
    best, found, _, warning = both(np.concatenate([x, far]), np.concatenate([y, far]))
    shared[place] = found / best - 1
    print(f"{place:<8g} {best:<13.6g} {found:<13.6g} {shared[place]:<+9.1e} {warning}")

if not (abs(errors[1.0]) < 1e-9 and errors[1e-6] > 1e-4 and errors[1e-8] > 1):
    sys.exit("changed: the error no longer grows as the unit shrinks")
if not (abs(shared[1e2]) < 1e-9 and shared[1e8] > 1):
    sys.exit("changed: a far point no longer hides the others")
print("\nas described: the plan is not the best one for small costs, and no warning says so")
PYTHON
"$folder/venv/bin/python" "$folder/program.py"
