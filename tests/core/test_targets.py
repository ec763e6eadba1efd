"""Targets: the papers' forms."""

from __future__ import annotations

import torch

from samplerbench.core.grids import Level
from samplerbench.core.schedules import EDM, VPLinear
from samplerbench.core.targets import (
    DataTarget,
    EDMTarget,
    NoiseTarget,
    ScoreTarget,
    VelocityTarget,
    VTarget,
)

TIMES = torch.linspace(0.01, 0.99, 30, dtype=torch.float64)


def per_sample(schedule):
    """One level for each sample: tensors (n, 1), as in training."""
    return Level(*(v.unsqueeze(-1) for v in (TIMES, *schedule(TIMES))))


def test_published_forms(states):
    x0, eps = states(30, 3), states(3, 30).T
    level = per_sample(VPLinear())
    x = level.alpha * x0 + level.sigma * eps
    score = (level.alpha * x0 - x) / level.sigma**2
    # v = dx/dφ on the circle α = cos φ, σ = sin φ; the velocity is the rectified path's dx/dt
    v = level.alpha * eps - level.sigma * x0
    for target, y in (
        (NoiseTarget(), eps),
        (DataTarget(), x0),
        (ScoreTarget(), score),
        (VelocityTarget(), eps - x0),
        (VTarget(), v),
        (EDMTarget(), -v),
    ):
        torch.testing.assert_close(target.regress(x0, eps, level), y)


def test_edm_preconditioning(states):
    """c_skip = 1/(σ² + 1) and c_out = σ/√(1 + σ²): Karras et al. 2022, Table 1 with σ_data = 1."""
    x, y = states(30, 3), states(3, 30).T
    level = per_sample(EDM())
    skip, out = 1 / (level.sigma**2 + 1), level.sigma / (1 + level.sigma**2).sqrt()
    torch.testing.assert_close(EDMTarget().denoise(x, y, level), skip * x + out * y)
