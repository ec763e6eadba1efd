"""The error of a score, against a closed form."""

import math

import pytest
import torch

from helpers import Shrunk
from samplerbench.bench.score_error import score_errors
from samplerbench.core.grids import Level
from samplerbench.core.models import Corrupted, Denoiser, LevelFree
from samplerbench.core.schedules import EDM, VPLinear
from samplerbench.datasets.gaussian import gaussian
from samplerbench.datasets.grid_mixture import grid_mixture

ROUND = gaussian([0.0, 0.0], [[2.0, 0.0], [0.0, 2.0]])


def measured(exact, law, levels, count=2000, repetitions=1, **denoisers):
    settings = {"count": count, "repetitions": repetitions, "seed": 0}
    return score_errors(denoisers, exact, law, levels, device=torch.device("cpu"), **settings)


@pytest.fixture
def errors():
    oracle, levels = ROUND.oracle(EDM()), [Level(0.0, 1.0, 1.0), Level(0.0, 1.0, 3.0)]

    def measure(**denoisers):
        return measured(oracle, ROUND, levels, 20_000, 2, oracle=oracle, **denoisers)

    return measure, oracle


def test_closed_form(errors):
    measure, oracle = errors
    rows = measure(learned=Shrunk(oracle, 0.1))
    assert set(rows["denoiser"]) == {"learned"}
    mean = rows.groupby("sigma")[["error", "size"]].mean()
    for sigma in (1.0, 3.0):  # x ~ N(0, 2 + σ²), x̂₀ = 2x/(2 + σ²), s* = −x/(2 + σ²), two axes
        variance = 2 + sigma**2
        assert mean["size"][sigma] == pytest.approx(2 / variance, rel=0.03)
        expected = 2 * (0.1 * 2 / sigma**2) ** 2 / variance
        assert mean["error"][sigma] == pytest.approx(expected, rel=0.03)
    assert (measure(learned=oracle)["error"] == 0).all()


class Watching(Shrunk):
    """A score that keeps the points of its calls, by level."""

    def __init__(self, oracle):
        super().__init__(oracle, 0.1)
        self.seen = {}

    def denoiser(self, x, level):
        self.seen.setdefault(level.sigma, []).append(x)
        return super().denoiser(x, level)


def test_data_and_noise_of_repetitions_are_their_own(errors):
    """x = x₀ + σ·ε at two levels gives both back."""
    measure, oracle = errors
    watching = Watching(oracle)
    measure(learned=watching)
    near, far = (
        torch.cat([x for x in watching.seen[sigma] if len(x) == 20_000]) for sigma in (1.0, 3.0)
    )
    noise = (far - near) / 2
    for found in (noise, near - noise):
        assert len(found) == 2 * 20_000
        assert len((1e6 * found).round().unique(dim=0)) == 2 * 20_000


def test_a_score_of_one_level_is_measured_there(errors):
    class Zero(torch.nn.Module):
        def forward(self, u, level):
            return 0 * u

    measure, _ = errors
    rows = measure(learned=LevelFree(Zero(), 3.0, torch.zeros(2)))
    assert set(rows["sigma"]) == {3.0}
    assert rows["error"].tolist() == pytest.approx(rows["size"].tolist(), rel=1e-6)


@pytest.mark.slow
def test_the_part_of_an_error_that_moves_the_law(errors):
    """All of an error along the score, which is a gradient; none across it; both for a mixture."""
    measure, oracle = errors
    rows = measure(
        along=Corrupted(oracle, 0.3),
        across=Corrupted(oracle, 0.3, direction="across"),
        learned=Shrunk(oracle, 0.1),
    )
    means = rows.groupby("denoiser")[["error", "moving"]].mean()
    assert means["moving"]["along"] == pytest.approx(means["error"]["along"], rel=0.03)
    assert means["moving"]["learned"] == pytest.approx(means["error"]["learned"], rel=0.03)
    assert 0 <= means["moving"]["across"] < 1e-4 * means["error"]["across"]


def test_the_part_that_moves_the_law_is_at_most_the_whole():
    """All of this error moves the law. Levels of a VP path have their σ/α."""
    oracle = ROUND.oracle(VPLinear())
    levels = [Level(0.5, 0.6, 0.8), Level(0.9, 0.1, 0.99**0.5)]
    rows = measured(oracle, ROUND, levels, repetitions=2, along=Corrupted(oracle, 0.3))
    means = rows.groupby("noise_to_signal")[["error", "moving"]].mean()
    assert list(means.index) == pytest.approx([4 / 3, 99**0.5])
    assert (means["moving"] <= means["error"] * (1 + 1e-12)).all()
    assert means["moving"].tolist() == pytest.approx(means["error"].tolist(), rel=1e-3)


def test_a_rotation_on_a_correlated_gaussian():
    """A rotation of x is a gradient in part. For e = B·x and x ~ N(0, C) it is ∇φ = S·x with the
    symmetric S that minimises tr((B − S)·C·(B − S)ᵀ), by three normal equations here.
    """
    law = gaussian([0.0, 0.0], [[3.0, 1.0], [1.0, 1.0]])
    oracle, level = law.oracle(EDM()), Level(0.0, 1.0, 0.5)
    covariance = torch.tensor([[3.25, 1.0], [1.0, 1.25]]).double()
    turn = torch.tensor([[0.0, -0.4], [0.4, 0.0]]).double()

    class Turned(Denoiser):
        schedule = EDM()

        def denoiser(self, x, level):
            return oracle.denoiser(x, level) + level.sigma**2 * x @ turn.T

    symmetric = ([[1, 0], [0, 0]], [[0, 1], [1, 0]], [[0, 0], [0, 1]])
    basis = [torch.tensor(values).double() for values in symmetric]
    gram = torch.stack([torch.stack([(a @ covariance * b).sum() for b in basis]) for a in basis])
    right = torch.stack([(turn @ covariance * b).sum() for b in basis])
    best = sum(c * b for c, b in zip(torch.linalg.solve(gram, right), basis, strict=True))
    expected = float((best @ covariance * best).sum())
    rows = measured(oracle, law, [level], 20_000, learned=Turned())
    assert rows["error"][0] == pytest.approx(float((turn @ covariance * turn).sum()), rel=0.05)
    assert 0.1 < expected / rows["error"][0] < 0.9
    assert rows["moving"][0] == pytest.approx(expected, rel=0.03)


def test_a_law_that_the_grid_does_not_resolve_has_no_part():
    law = gaussian([0.0, 0.0], [[100.0, 0.0], [0.0, 100.0]])
    narrow = grid_mixture(variance=1e-5)
    for one, known in ((law, True), (narrow, False)):
        oracle = one.oracle(EDM())
        rows = measured(oracle, one, [Level(0.0, 1.0, 0.01)], learned=Shrunk(oracle, 0.1))
        assert math.isnan(rows["moving"][0]) is not known
