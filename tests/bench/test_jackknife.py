"""The interval of one file's distance, compared with the distances of other files."""

import math

import numpy as np
import pytest
import torch

from samplerbench.bench.jackknife import half_width
from samplerbench.datasets.grid_mixture import grid_mixture
from samplerbench.metrics.base import Distance, Measurement
from samplerbench.metrics.sliced import Sliced


class Mean(Distance):
    """The mean of the first coordinate, for which the jackknife is known in closed form."""

    def measure(self, samples):
        return Measurement(float(samples[:, 0].mean()), math.nan, math.nan, None, 1)


def test_of_a_mean_it_is_the_standard_error():
    samples = torch.randn(10_000, 1, generator=torch.Generator().manual_seed(0)).double()
    halves = [half_width(Mean(1), samples, seed=seed) for seed in range(200)]
    variance = np.mean(np.square(halves)) / 2.2622**2
    assert variance == pytest.approx(float(samples.var()) / 10_000, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(("factor", "shift"), [(1.1, 0.5), (1.0, 0.0), (1.0, 0.5)])
def test_it_holds_what_other_files_show(factor, shift):
    data = grid_mixture()
    to_data = Sliced(directions=100).against(data.draws(4_000, "evaluation", 0), seed=0)
    files = [data.draws(1_000, "mine", k) * factor + shift for k in range(40)]
    values = np.array([to_data(points).value for points in files])
    halves = np.array([half_width(to_data, points, seed=0) for points in files])
    assert (np.abs(values - values.mean()) < halves).mean() >= 0.9
    assert halves.mean() < 2.2622 * 2.5 * values.std(ddof=1)  # and it is no longer than it must be


@pytest.mark.slow
def test_it_holds_the_median_of_heavy_tails():
    """W₂ of t₃ data: rare sets of samples dominate its mean, and one file does not contain them."""
    rng = np.random.default_rng(0)

    def draws(count):
        return torch.from_numpy(rng.standard_t(3, (count, 1)))

    to_data = Sliced(directions=1).against(draws(20_000), seed=0)
    median = np.median([to_data(draws(300)).value for _ in range(400)])
    files = [draws(300) for _ in range(150)]
    held = [
        abs(to_data(points).value - median) <= half_width(to_data, points, seed=0)
        for points in files
    ]
    assert np.mean(held) >= 0.9


def test_too_few_samples_have_none():
    points = torch.arange(50.0)[:, None]
    assert math.isnan(half_width(Mean(1), points[:49], seed=0))
    assert half_width(Mean(1), points, seed=0) > 0
