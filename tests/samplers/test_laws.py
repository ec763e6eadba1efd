"""Laws of DDIM's steps in closed form, and exact laws of samplers by Monte Carlo."""

from __future__ import annotations

import pytest
import torch

from helpers import each, mostly_slow
from samplerbench.core.grids import hold, karras
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import EDM
from samplerbench.datasets.gaussian import gaussian
from samplerbench.samplers.annealed_langevin import AnnealedLangevin
from samplerbench.samplers.base import final_state
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.edm_churn import EDMChurn
from samplerbench.samplers.peers import Peer
from samplerbench.samplers.predictor_corrector import PredictorCorrector
from samplerbench.samplers.ula import ULA
from samplerbench.samplers.underdamped import Underdamped
from samplerbench.verify.exact_law import noised_law, output_law
from samplerbench.verify.orders import interior

IDENTITY = torch.eye(3, dtype=torch.float64)


@pytest.fixture
def step(schedule):
    """One step on the path: (levels, this level, next level)."""
    levels = interior(schedule, 1)
    return levels, *levels.rows


@each("eta", [0.0, 0.2, 1.0, 50.0])
def test_step_keeps_the_noise_level(step, schedule, eta):
    """For data that are one point the step is exact at every η, also where ς is clipped to σ_s."""
    levels, now, to = step
    law = gaussian((0.7, -1.2, 0.3), torch.zeros(3, 3).tolist())
    moments = torch.tensor(law.means[0], dtype=torch.float64), 0 * IDENTITY
    start, exact = (noised_law(*moments, level) for level in (now, to))
    torch.testing.assert_close(
        output_law(DDIM(eta), law.oracle(schedule), levels, *start), exact, rtol=1e-12, atol=1e-12
    )


@each("eta", [0.0, 0.2, 0.5, 1.0])
def test_covariance_of_a_step(step, schedule, normal_law, gaussian_moments, eta):
    """Σ_s = K·Σ_t·Kᵀ + ς²·I, with the paper's ς, here in x/α: ς̄ = η·(κ_s/κ_t)·√(κ_t² − κ_s²)."""
    levels, now, to = step
    mean, covariance = gaussian_moments(normal_law)
    start = noised_law(mean, covariance, now)
    one, two = now.sigma / now.alpha, to.sigma / to.alpha
    fresh = to.alpha * eta * two / one * (one**2 - two**2) ** 0.5
    keep = (to.sigma**2 - fresh**2) ** 0.5 / now.sigma
    denoise = now.alpha * covariance @ torch.linalg.inv(start[1])  # dx̂₀/dx
    map_ = keep * IDENTITY + (to.alpha - keep * now.alpha) * denoise
    expected = map_ @ start[1] @ map_.T + fresh**2 * IDENTITY
    got = output_law(DDIM(eta), normal_law.oracle(schedule), levels, *start)
    torch.testing.assert_close(got, (to.alpha * mean, expected), rtol=1e-11, atol=1e-13)


def test_the_others_are_not_affine(all_samplers, normal_law, gaussian_moments):
    """`output_law` refuses samplers with affine = False, unless they choose their own steps.

    An adaptive sampler is affine if all rows happen to take the same steps.
    """
    for sampler in (s for s in all_samplers if not s.affine and not s.adaptive):
        levels = hold(EDM(), 4, noise=0.5) if sampler.holds else interior(EDM(), 4)
        if isinstance(sampler, Peer):
            levels = sampler.own(EDM(), 4)
        start = noised_law(*gaussian_moments(normal_law), levels.rows[0])
        with pytest.raises(ValueError, match="not affine"):
            output_law(sampler, normal_law.oracle(EDM()), levels, *start)


@pytest.mark.parametrize(
    "affine",
    mostly_slow(
        [
            *(DDIM(0.3), EDMChurn(), PredictorCorrector(inner=2), AnnealedLangevin()),
            *(ULA(), Underdamped()),
        ],
        *(0, 2),
    ),
    ids=repr,
)
def test_monte_carlo_agrees(affine, normal_law, gaussian_moments, states):
    """Samplers with one draw per step, with several, and with velocities."""
    schedule, count = EDM(), 40_000
    data = karras(schedule, 7, noise_max=1.9, noise_min=0.2)
    if affine.holds:
        data = hold(schedule, 7, noise=0.5)
    oracle, moments = normal_law.oracle(schedule), gaussian_moments(normal_law)
    first = data.rows[0]
    mean, covariance = output_law(affine, oracle, data, *noised_law(*moments, first))
    x0 = normal_law.draws(count, "evaluation", 3)
    start = first.alpha * x0 + first.sigma * states(count, 3)
    out = final_state(affine, oracle, start, data, KeyedNoise((3, "monte carlo")))
    width = covariance.diagonal()
    assert ((out.mean(0) - mean).abs() <= 5 * (width / count).sqrt() + 1e-9).all()
    error = (torch.outer(width, width) + covariance.square()).div(count).sqrt()
    assert ((out.T.cov() - covariance).abs() <= 5 * error + 1e-9).all()
