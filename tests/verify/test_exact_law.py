"""Closed-form distances between Gaussians, and what `output_law` accepts and refuses."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from samplerbench.core.grids import Level, uniform
from samplerbench.core.schedules import EDM
from samplerbench.samplers.base import Sampler, Step
from samplerbench.samplers.ddim import DDIM
from samplerbench.verify.exact_law import gaussian_w2, noised_law, output_law


@pytest.fixture
def pair(states):
    """Two Gaussians in R^dim; `rank` limits the rank of the covariances."""

    def build(dim, rank=None):
        numbers = states(2, dim, dim + 1)
        roots = numbers[:, :, : rank or dim]
        (cov_a, cov_b), (mean_a, mean_b) = roots @ roots.mT, numbers[..., -1]
        return mean_a, cov_a, mean_b, cov_b

    return build


def test_w2_of_known_pairs(pair):
    mean_a, cov_a, mean_b, _ = pair(4)
    gap = float((mean_a - mean_b).norm())
    assert gaussian_w2(mean_a, cov_a, mean_b, cov_a) == pytest.approx(gap, rel=1e-12)
    assert gaussian_w2(mean_a, cov_a, mean_a, cov_a) < 1e-12
    # one is a multiple of the other: √(tr A)·|√c − 1|
    expected = float(cov_a.trace().sqrt()) * (3.0 - 1)
    assert gaussian_w2(mean_a, cov_a, mean_a, 9 * cov_a) == pytest.approx(expected, rel=1e-12)
    tiny = gaussian_w2(mean_a, cov_a, mean_a, (1 + 1e-10) * cov_a)
    assert tiny == pytest.approx(float(cov_a.trace().sqrt()) * 0.5e-10, rel=1e-4, abs=0)


@pytest.mark.parametrize("rank", [1, 3])
def test_w2_is_the_trace_formula(pair, rank):
    """‖Δ‖² + tr(A + B − 2·(√A·B·√A)^{1/2}), also without full rank; symmetric; turned."""
    mean_a, cov_a, mean_b, cov_b = law = pair(3, rank=rank)
    values, basis = torch.linalg.eigh(cov_a)
    root = (basis * values.clamp_min(0).sqrt()) @ basis.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp_min(0).sqrt().sum()
    square = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross
    assert gaussian_w2(*law) == pytest.approx(float(square.sqrt()), rel=1e-7)
    assert gaussian_w2(mean_b, cov_b, mean_a, cov_a) == pytest.approx(gaussian_w2(*law), rel=1e-7)
    turn = torch.linalg.qr(root + cov_b)[0]
    turned = (turn @ mean_a, turn @ cov_a @ turn.T, turn @ mean_b, turn @ cov_b @ turn.T)
    assert gaussian_w2(*turned) == pytest.approx(gaussian_w2(*law), rel=1e-7)


def test_noised_law(pair):
    mean, covariance, *_ = pair(2)
    noised = noised_law(mean, covariance, Level(0.5, 0.8, 0.6))
    torch.testing.assert_close(noised[0], 0.8 * mean)
    torch.testing.assert_close(noised[1], 0.64 * covariance + 0.36 * torch.eye(2).double())


@dataclass(frozen=True)
class Walk(Sampler):
    """x + z per step, with the draws and the trouble that a test asks for."""

    order = 1
    draws: tuple[int, ...] = (0,)
    trouble: str = ""

    @property
    def stochastic(self):
        return True

    def why_incompatible(self, model, levels):
        return "no" if self.trouble == "incompatible" else None

    def steps(self, model, x, levels, noise):
        for step in range(levels.steps):
            for draw in self.draws:
                x = x + noise.normal(x, step, draw)
            if self.trouble == "uniform":
                x = x + noise.uniform(x, step)
            if self.trouble == "square":
                x = x.square()
            if self.trouble == "adaptive" and len(x) > 1:
                x = x + noise.normal(x, step, 7)
            yield Step(x, x)


@pytest.fixture
def run(normal_law, gaussian_moments):
    def run(sampler):
        mean, covariance = gaussian_moments(normal_law)
        levels = uniform(EDM(), 4)
        return output_law(sampler, normal_law.oracle(EDM()), levels, mean, covariance)

    return run


@pytest.mark.parametrize(
    ("draws", "variance"), [((), 0), ((0,), 4), ((0, 1), 8), ((0, 0), 16), ((3, 1, 3), 20)], ids=str
)
def test_draws_are_found(run, normal_law, gaussian_moments, draws, variance):
    """Any number of draws a step; a draw that is used twice adds up with itself."""
    mean, covariance = run(Walk(draws))
    expected = gaussian_moments(normal_law)
    torch.testing.assert_close(mean, expected[0])
    torch.testing.assert_close(covariance, expected[1] + variance * torch.eye(3).double())


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ("incompatible", "^no$"),
        ("uniform", "uniform"),
        ("square", "not affine"),
        ("adaptive", "depends on the state"),
    ],
)
def test_refusals(run, trouble, message):
    with pytest.raises(ValueError, match=message):
        run(Walk(trouble=trouble))


def test_a_mixture_is_refused(mixture_law):
    levels, start = uniform(EDM(), 4), torch.zeros(2)
    with pytest.raises(ValueError, match="not affine"):
        output_law(DDIM(), mixture_law.oracle(EDM()), levels, start, torch.eye(2))
