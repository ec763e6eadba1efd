"""Targets: regress and denoise belong together, and agree with the papers."""

from __future__ import annotations

import pytest
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

NEEDS_SIGNAL = [NoiseTarget(), ScoreTarget()]
EVERYWHERE = [DataTarget(), VTarget(), VelocityTarget(), EDMTarget()]
TIMES = torch.linspace(0.01, 0.99, 30, dtype=torch.float64)


def per_sample(schedule, times):
    """One level for each sample: tensors (n, 1), as in training."""
    return Level(*(v.unsqueeze(-1) for v in (times, *schedule(times))))


@pytest.mark.parametrize("target", NEEDS_SIGNAL + EVERYWHERE, ids=repr)
def test_denoise_undoes_regress(target, schedule, states):
    x0, eps = 1 + states(30, 3), states(3, 30).T
    level = per_sample(schedule, TIMES)
    x = level.alpha * x0 + level.sigma * eps
    torch.testing.assert_close(
        target.denoise(x, target.regress(x0, eps, level), level), x0, rtol=1e-11, atol=1e-11
    )
    one = Level(float(TIMES[3]), float(level.alpha[3]), float(level.sigma[3]))
    torch.testing.assert_close(
        target.regress(x0, eps, one)[3], target.regress(x0, eps, level)[3], rtol=1e-13, atol=0
    )


@pytest.mark.parametrize("target", EVERYWHERE, ids=repr)
def test_finite_without_signal_and_without_noise(target, states):
    x0, eps = states(5, 3), 1 + states(5, 3)
    for level in (Level(1.0, 0.0, 1.0), Level(0.0, 1.0, 0.0)):
        y = target.regress(x0, eps, level)
        assert y.isfinite().all()
        assert target.denoise(eps, y, level).isfinite().all()


def test_published_forms(states):
    x0, eps = states(30, 3), states(3, 30).T
    level = per_sample(VPLinear(), TIMES)
    x = level.alpha * x0 + level.sigma * eps
    assert torch.equal(NoiseTarget().regress(x0, eps, level), eps)
    assert torch.equal(DataTarget().regress(x0, eps, level), x0)
    torch.testing.assert_close(
        ScoreTarget().regress(x0, eps, level), (level.alpha * x0 - x) / level.sigma**2
    )
    # the rectified path's dx/dt, and v = dx/dφ on the circle α = cos φ, σ = sin φ
    torch.testing.assert_close(VelocityTarget().regress(x0, eps, level), eps - x0)
    torch.testing.assert_close(
        VTarget().regress(x0, eps, level), level.alpha * eps - level.sigma * x0
    )
    torch.testing.assert_close(
        EDMTarget().regress(x0, eps, level), -VTarget().regress(x0, eps, level), rtol=1e-14, atol=0
    )


def test_edm_preconditioning(states):
    """c_skip = 1/(σ² + 1) and c_out = σ/√(1 + σ²): Karras et al. 2022, Table 1 with σ_data = 1."""
    x, y = states(30, 3), states(3, 30).T
    level = per_sample(EDM(), TIMES)
    skip, out = 1 / (level.sigma**2 + 1), level.sigma / (1 + level.sigma**2).sqrt()
    torch.testing.assert_close(EDMTarget().denoise(x, y, level), skip * x + out * y)


def test_edm_target_has_unit_variance(schedule, states):
    x0, eps = states(4000, 1, 1), states(1, 4000).T.reshape(4000, 1, 1).flip(0)
    y = EDMTarget().regress(x0, eps, per_sample(schedule, TIMES))
    assert (y.square().mean(0) - 1).abs().max() < 5 * (2 / 4000) ** 0.5
