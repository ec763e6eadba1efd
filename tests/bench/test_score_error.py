"""The error of a score, against a closed form."""

import pytest
import torch

from samplerbench.bench.score_error import score_errors
from samplerbench.core.grids import Level
from samplerbench.core.models import Denoiser, LevelFree
from samplerbench.core.schedules import EDM
from samplerbench.datasets.gaussian import gaussian


class Shrunk(Denoiser):
    """x̂₀ of the oracle times 1 − share: its score is off by α·share·x̂₀/σ²."""

    def __init__(self, oracle, share):
        super().__init__()
        self.oracle, self.share, self.schedule = oracle, share, oracle.schedule

    def denoiser(self, x, level):
        return (1 - self.share) * self.oracle.denoiser(x, level)


@pytest.fixture
def errors():
    law = gaussian([0.0, 0.0], [[2.0, 0.0], [0.0, 2.0]])
    oracle = law.oracle(EDM())

    def measure(**denoisers):
        return score_errors(
            {"oracle": oracle, **denoisers},
            oracle,
            law,
            [Level(0.0, 1.0, 1.0), Level(0.0, 1.0, 3.0)],
            count=20_000,
            repetitions=2,
            seed=0,
            device=torch.device("cpu"),
        )

    return measure, oracle


def test_closed_form(errors):
    measure, oracle = errors
    rows = measure(learned=Shrunk(oracle, 0.1))
    assert list(rows.columns) == ["denoiser", "sigma", "repetition", "error", "size"]
    assert set(rows["denoiser"]) == {"learned"}
    mean = rows.groupby("sigma")[["error", "size"]].mean()
    for sigma in (1.0, 3.0):  # x ~ N(0, 2 + σ²), x̂₀ = 2x/(2 + σ²), s* = −x/(2 + σ²), two axes
        variance = 2 + sigma**2
        assert mean["size"][sigma] == pytest.approx(2 / variance, rel=0.03)
        expected = 2 * (0.1 * 2 / sigma**2) ** 2 / variance
        assert mean["error"][sigma] == pytest.approx(expected, rel=0.03)
    assert (measure(learned=oracle)["error"] == 0).all()


def test_repetitions_see_points_of_their_own(errors):
    """As far apart as independent sets of so many points are, and others with another seed."""
    measure, oracle = errors
    rows = measure(learned=Shrunk(oracle, 0.1))
    for _, of_level in rows.groupby("sigma"):
        first, second = of_level["error"]
        # the error is a constant times x²/variance, whose mean over 2·20 000 has sd √(2/40 000)
        assert 0 < abs(first / second - 1) < 6 * (2 / 40_000) ** 0.5


class Watching(Shrunk):
    """Keeps the points that it is asked about, by level."""

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
    near, far = (torch.cat(watching.seen[sigma]) for sigma in (1.0, 3.0))
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
