"""Closed-form distances between Gaussians, and what `output_law` accepts and refuses."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from samplerbench.core.grids import Level
from samplerbench.core.schedules import EDM
from samplerbench.samplers.base import Sampler, Step
from samplerbench.samplers.ddim import DDIM
from samplerbench.verify.exact_law import (
    gaussian_max_sliced_w2,
    gaussian_w2,
    noised_law,
    output_law,
)


@pytest.fixture
def pair(states):
    """Two Gaussians in R^dim; `rank` limits the rank of the covariances."""

    def build(dim, index=0, rank=None, gap=1.0):
        numbers = states(index + 1, 2, dim, dim + 1)[index]
        roots = numbers[:, :, : rank or dim]
        (cov_a, cov_b), (mean_a, mean_b) = roots @ roots.mT, gap * numbers[..., -1]
        return mean_a, cov_a, mean_b, cov_b

    return build


def sliced(mean_a, cov_a, mean_b, cov_b, theta):
    """W₂ of the projections on unit vectors theta, shape (n, dim)."""
    widths = [
        torch.einsum("nd,de,ne->n", theta, c, theta).clamp_min(0).sqrt() for c in (cov_a, cov_b)
    ]
    return ((theta @ (mean_a - mean_b)) ** 2 + (widths[0] - widths[1]) ** 2).sqrt()


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


@pytest.mark.parametrize("gap", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("index", range(3))
def test_max_sliced_is_the_maximum_in_the_plane(pair, index, rank, gap):
    law = pair(2, index, rank, gap)
    value, direction = gaussian_max_sliced_w2(*law)
    angles = torch.linspace(0, torch.pi, 20_001, dtype=torch.float64)
    scan = sliced(*law, torch.stack([angles.cos(), angles.sin()], dim=1)).max()
    assert value >= float(scan) * (1 - 1e-12)
    assert value == pytest.approx(float(scan), rel=2e-4)  # a kink where a width is 0
    assert float(sliced(*law, direction[None])) == pytest.approx(value, rel=1e-7)
    assert float(direction.norm()) == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("gap", [0.0, 1.0])
@pytest.mark.parametrize("index", range(3))
def test_max_sliced_is_the_maximum_in_space(pair, index, gap, states):
    """Not below gradient ascent from 200 directions, and attained."""
    law = pair(5, index, gap=gap)
    value, direction = gaussian_max_sliced_w2(*law)
    assert float(sliced(*law, direction[None])) == pytest.approx(value, rel=1e-9)
    raw = states(200, 5).requires_grad_()
    climb = torch.optim.LBFGS([raw], max_iter=150, line_search_fn="strong_wolfe")

    def loss():
        climb.zero_grad()
        total = -sliced(*law, raw / raw.norm(dim=1, keepdim=True)).square().sum()
        total.backward()
        return total

    climb.step(loss)
    best = float(sliced(*law, (raw / raw.norm(dim=1, keepdim=True)).detach()).max())
    assert value == pytest.approx(best, rel=1e-6)
    assert value >= best * (1 - 1e-9)
    assert value <= gaussian_w2(*law)


def test_max_sliced_of_known_pairs(pair):
    mean_a, cov_a, mean_b, _ = pair(4)
    gap = mean_a - mean_b
    value, direction = gaussian_max_sliced_w2(mean_a, cov_a, mean_b, cov_a)
    assert value == pytest.approx(float(gap.norm()), rel=1e-10)
    assert abs(float(direction @ gap / gap.norm())) == pytest.approx(1, rel=1e-10)
    top = float(torch.linalg.eigvalsh(cov_a)[-1].sqrt())
    value, _ = gaussian_max_sliced_w2(mean_a, cov_a, mean_a, 9 * cov_a)
    assert value == pytest.approx(2 * top, rel=1e-9)
    assert gaussian_max_sliced_w2(mean_a, cov_a, mean_a, cov_a)[0] < 1e-7
    nothing = 0 * mean_a, 0 * cov_a, 0 * mean_a, 0 * cov_a
    assert gaussian_max_sliced_w2(*nothing)[0] == 0


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
def run(normal_law, gaussian_moments, full):
    def run(sampler):
        mean, covariance = gaussian_moments(normal_law)
        levels = full(EDM(), 4)
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


def test_a_mixture_is_refused(mixture_law, full):
    levels, start = full(EDM(), 4), torch.zeros(2)
    with pytest.raises(ValueError, match="not affine"):
        output_law(DDIM(), mixture_law.oracle(EDM()), levels, start, torch.eye(2))
