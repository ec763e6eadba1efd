#!/usr/bin/env bash
# POT 0.9.7.post1: the W₂ between Gaussians fitted to images (Fréchet distance) is NaN for NumPy arrays, and right for
# the same numbers as PyTorch tensors.
#
# Images have pixels that never change, and often there are fewer images than pixels. Then the covariance is singular:
# its smallest eigenvalue is 0, which NumPy's eigh returns as some -1e-17. The matrix root of POT's NumPy backend takes
# the square root of this number. ot.gaussian.bures_wasserstein_distance then returns NaN (NumPy prints one
# RuntimeWarning), although its documentation asks for semi-definite matrices only. The PyTorch backend has another
# matrix root and agrees with the closed form to 1e-8.
#
# The function that takes samples, ot.gaussian.empirical_bures_wasserstein_distance, adds 1e-6 to all eigenvalues by
# default. This hides the NaN, but it is not in the unit of the data: in units a hundred times as large, the same images
# are 3 to 5 % nearer.
#
# The 8 x 8 digits of scikit-learn; the first N against N others; distances in the unit of the pixels.
#
# Guessed before: finite, and equal to the closed form to 1e-6.
# Issue 708 of the package (closed) reports NaN of the PyTorch backend's root in float32 (2026-11-30).
# Exits with 0 while this is so, with 1 once it is not.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pot==0.9.7.post1 torch==2.13.0 numpy==2.4.6 scipy==1.17.1 scikit-learn==1.9.1

cat > "$folder/program.py" <<'PYTHON'
import sys
import warnings
from importlib.metadata import version

import numpy as np
import ot
import torch
from sklearn.datasets import load_digits

warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's: invalid value encountered in sqrt
IMAGES = load_digits().data / 16


def closed_form(mean, other_mean, covariance, other):
    """W₂ of two Gaussians; eigenvalues that rounding has made negative are 0."""
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ other @ root).clip(0)).sum()
    return np.sqrt(((mean - other_mean) ** 2).sum() + np.trace(covariance) + np.trace(other) - 2 * cross)


print(f"POT {version('pot')}, torch {torch.__version__}, numpy {np.__version__}")
print(f"{'images':<8}{'unit':<6}{'closed form':<13}{'NumPy':<9}{'PyTorch':<10}{'from samples':<14}smallest eigenvalue")
as_described = True
for number in (50, 200, 898):
    for unit in (1, 100):
        first, second = IMAGES[:number] / unit, IMAGES[898 : 898 + number] / unit
        fitted = first.mean(0), second.mean(0), np.cov(first.T), np.cov(second.T)
        exact = closed_form(*fitted) * unit
        in_numpy = float(ot.gaussian.bures_wasserstein_distance(*fitted)) * unit
        in_torch = float(ot.gaussian.bures_wasserstein_distance(*map(torch.tensor, fitted))) * unit
        sampled = float(ot.gaussian.empirical_bures_wasserstein_distance(first, second)) * unit
        smallest = np.linalg.eigvalsh(fitted[2])[0]
        print(f"{number:<8}{unit:<6}{exact:<13.5f}{in_numpy:<9.5f}{in_torch:<10.5f}{sampled:<14.5f}{smallest:.1e}")
        as_described &= np.isnan(in_numpy) and abs(in_torch / exact - 1) < 1e-6
        as_described &= (sampled / exact < 0.98) == (unit == 100)
if not as_described:
    sys.exit("changed: the NumPy backend gives a number, or the samples' distance has no unit any more")
print("\nas described: NaN in NumPy, right in PyTorch; from samples the default depends on the unit")
PYTHON
"$folder/venv/bin/python" "$folder/program.py"
