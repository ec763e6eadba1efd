"""The error of a score, without a sampler.

    E‖s(x) − s*(x)‖²     compared with     E‖s*(x)‖²,     x = α·x₀ + σ·ε ~ q at one level,

where s* is the oracle's score. At that level denoising score matching minimises this error, up to a
constant (Vincent 2011). The error is weighted by probability. So it is small for a score that is
wrong only between two clusters, where there are no data but which a chain has to cross. If the
score error is small and the distance is large, the start or the mixing is the cause.

Not every error e = s − s* moves the law: in continuous time the marginals of the flow, and of a
reverse SDE, change only by ∇·(q·e). So e has a part ∇φ with

    ∇·(q·∇φ) = ∇·(q·e),

and a rest without divergence in q, which leaves every marginal as it is (Benamou and Brenier, "A
computational fluid mechanics solution to the Monge–Kantorovich mass transfer problem", Numerische
Mathematik 84, 2000). The two are orthogonal: E‖e‖² = E‖∇φ‖² + E‖rest‖². In the plane φ is computed
on a grid, by finite volumes and SciPy's sparse solver. The grid gives the share
E‖∇φ‖²/E‖e‖² of the error that was measured on points, so the part is never larger than the whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from scipy.sparse import coo_array, csc_array
from scipy.sparse.linalg import spsolve
from torch import Tensor

from samplerbench.core.grids import Level
from samplerbench.core.models import Denoiser, Density, LevelFree, Score
from samplerbench.core.noise import generator
from samplerbench.datasets.base import Dataset

COLUMNS = ("denoiser", "sigma", "noise_to_signal", "repetition", "error", "size", "moving")
#: Cells of the grid along each axis, and the largest relative error of E‖e‖² on it.
CELLS, RESOLVED = 128, 0.1


@torch.no_grad()
def score_errors(
    denoisers: Mapping[str, Score],
    oracle: Denoiser,
    dataset: Dataset,
    levels: Sequence[Level[float]],
    *,
    count: int,
    repetitions: int,
    seed: int,
    device: torch.device,
) -> pd.DataFrame:
    """One row for each score, level and repetition, with the columns `COLUMNS`.

    Scores and errors are those of x at the level, in units of 1/x. `noise_to_signal` is σ/α.
    `moving` is E‖∇φ‖², the part of the error that moves the law. It is a number only if the
    data have two coordinates and a density, and the grid resolves the law; otherwise NaN.

    Args:
        denoisers: scores by name; the one named oracle is left out.
        levels: noise levels; a score of a single level is measured at that level.
        count: points per repetition, the same for all scores.
        repetitions: independent sets of points.
    """
    rows = []
    for name, model in denoisers.items():
        if name == "oracle":
            continue
        for level in [model.level] if isinstance(model, LevelFree) else levels:
            errors, sizes = [], []
            for repetition in range(repetitions):
                x = _points(dataset, level, count, (seed, repetition)).to(device)
                exact = oracle.score(x, level)
                error = (model.score(x, level) - exact).square().sum(-1).mean()
                errors.append(float(error))
                sizes.append(float(exact.square().sum(-1).mean()))
            moving = math.nan
            if dataset.dim == 2 and isinstance(oracle, Density):
                whole, part = parts_in_the_plane(model, oracle, x, level)
                mean = sum(errors) / repetitions
                if abs(whole - mean) <= RESOLVED * mean:
                    moving = mean * (part / whole if whole > 0 else 0.0)
            ratio = level.sigma / level.alpha if level.alpha > 0 else math.inf
            for repetition, pair in enumerate(zip(errors, sizes, strict=True)):
                rows.append((name, level.sigma, ratio, repetition, *pair, moving))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _points(dataset: Dataset, level: Level[float], count: int, key: tuple[int, int]) -> Tensor:
    x0 = dataset.draws(count, "score", *key)
    eps = generator("score", *key).standard_normal(tuple(x0.shape))
    return level.alpha * x0 + level.sigma * torch.from_numpy(eps)


def parts_in_the_plane(
    model: Score, oracle: Denoiser, x: Tensor, level: Level[float]
) -> tuple[float, float]:
    """E‖e‖² and E‖∇φ‖², both on the same grid of `CELLS`² squares; see the module.

    φ minimises Σ q·(e·n − ∂φ/∂n)² over the faces between the squares, with no flow through the
    boundary: the normal equations are those of a graph with the weights q.

    Args:
        x: points of the law at the level, shape (n, 2); the grid covers them.
    """
    assert isinstance(oracle, Density)
    low, high = x.min(0).values, x.max(0).values
    margin = 0.1 * (high - low)
    low, width = low - margin, (high - low + 2 * margin) / CELLS
    number = np.arange(CELLS * CELLS).reshape(CELLS, CELLS)
    axes = [low[k] + width[k] * (torch.arange(CELLS, device=x.device) + 0.5) for k in (0, 1)]
    area = float(width.prod())
    joints, weights, flows = [], [], []
    for axis in (0, 1):
        between = list(axes)
        between[axis] = (axes[axis][1:] + axes[axis][:-1]) / 2
        faces = torch.cartesian_prod(*between).to(x)
        wrong = (model.score(faces, level) - oracle.score(faces, level))[:, axis]
        near = number[:-1] if axis == 0 else number[:, :-1]
        far = number[1:] if axis == 0 else number[:, 1:]
        joints.append((near.ravel(), far.ravel()))
        weights.append(oracle.log_density(faces, level).exp().double().cpu().numpy() * area)
        flows.append((wrong.double().cpu().numpy(), float(width[axis])))
    whole = sum(float(w @ e**2) for w, (e, _) in zip(weights, flows, strict=True))
    # far from the law φ is free: a tiny weight makes it unique and changes nothing
    least = 1e-12 * max(float(w.max()) for w in weights)
    size = CELLS * CELLS
    matrix = csc_array((size, size))
    right = np.zeros(size)
    for (near, far), w, (e, h) in zip(joints, weights, flows, strict=True):
        strength = (w + least) / h**2
        entries = np.concatenate([strength, strength, -strength, -strength])
        rows = np.concatenate([near, far, near, far])
        columns = np.concatenate([near, far, far, near])
        matrix = matrix + csc_array(coo_array((entries, (rows, columns)), (size, size)))
        flow = w * e / h
        np.add.at(right, far, flow)
        np.add.at(right, near, -flow)
    phi = np.zeros(size)  # the constant is free, so the first value is 0
    phi[1:] = spsolve(csc_array(matrix[1:, 1:]), right[1:])
    part = 0.0
    for (near, far), w, (_, h) in zip(joints, weights, flows, strict=True):
        part += float(w @ ((phi[far] - phi[near]) / h) ** 2)
    return whole, part
