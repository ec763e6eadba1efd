"""Level laws: the law of the noise-to-signal ratio, and bad settings."""

from __future__ import annotations

import math

import pytest
import torch

from samplerbench.core.grids import karras
from samplerbench.core.level_laws import KarrasGrid, KarrasTime, LogNormal, LogUniform, UniformTime
from samplerbench.core.noise import torch_generator
from samplerbench.core.schedules import EDM, GeometricVE, Rectified, VPCosine, VPLinear
from samplerbench.errors import InvalidSetting

COUNT = 40_000
PATH = VPLinear()


def ratios(law, schedule=PATH, count=COUNT):
    return schedule.noise_to_signal(law.sample(count, schedule, torch_generator(0)))


def distance_to(cdf, values):
    """Kolmogorov's distance; 1.63/√n is its 1 % point."""
    ranks = (torch.arange(len(values), dtype=torch.float64) + 0.5) / len(values)
    return float((cdf(values.sort().values) - ranks).abs().max())


def is_uniform(values):
    return distance_to(lambda value: value, values) < 1.63 / math.sqrt(COUNT)


def test_log_normal():
    ratio = ratios(LogNormal(-0.5, 1.2, 0.02, 10.0))
    inside = (ratio > 0.02 * 1.0001) & (ratio < 10 * 0.9999)
    normal = torch.distributions.Normal(-0.5, 1.2)
    low, high = (float(normal.cdf(torch.tensor(math.log(v)))) for v in (0.02, 10.0))
    assert float(ratio.min()) == pytest.approx(0.02)
    assert float(ratio.max()) == pytest.approx(10)
    assert float((ratio < 0.02 * 1.0001).double().mean()) == pytest.approx(low, abs=0.001)
    assert float((ratio > 10 * 0.9999).double().mean()) == pytest.approx(1 - high, abs=0.002)
    assert is_uniform((normal.cdf(ratio[inside].log()) - low) / (high - low))


def test_log_uniform():
    assert is_uniform((ratios(LogUniform(0.02, 10.0)) / 0.02).log() / math.log(500))


def test_uniform_time():
    times = UniformTime(0.2, 0.7).sample(COUNT, EDM(), torch_generator(0))
    assert is_uniform((times - 0.2) / 0.5)


@pytest.mark.parametrize("schedule", [EDM(10.0), VPLinear()], ids=repr)
def test_the_levels_of_a_grid_are_equally_likely(schedule):
    times = KarrasGrid(25, 0.02, 10.0, 5.0).sample(COUNT, schedule, torch_generator(0))
    levels = karras(schedule, 25, noise_min=0.02, noise_max=10.0, rho=5.0).t[:-1]
    found, counts = times.unique(return_counts=True)
    assert torch.equal(found, levels.flip(0))
    spread = math.sqrt(COUNT / 25)
    assert (counts - COUNT / 25).abs().max() < 4 * spread


@pytest.mark.parametrize("s_min", [0.0, 0.1])
def test_karras_time(s_min):
    ratio = ratios(KarrasTime(0.02, 10.0, 5.0, s_min))
    low, high = 0.02**0.2, 10**0.2
    assert is_uniform(((ratio**0.2 - low) / (high - low) - s_min) / (1 - s_min))


@pytest.mark.parametrize("law", [KarrasGrid(10, 0.01, 10.0), KarrasTime(0.01, 10.0)], ids=repr)
def test_karras_laws_stay_on_the_schedule(law):
    schedule = GeometricVE(0.03, 2.0)
    ratio = ratios(law, schedule, 1000)
    assert 0.03 * (1 - 1e-9) <= float(ratio.min()) < 0.04
    assert 1.9 < float(ratio.max()) <= 2 * (1 + 1e-9)
    # not by clipping: a path that ends early has no heap at its end
    assert float((ratio > 1.999).double().mean()) < 0.2
    with pytest.raises(InvalidSetting, match=r"^minimum=3\.0: must be below 2"):
        type(law)(*((10,) if isinstance(law, KarrasGrid) else ()), 3.0, 9.0).sample(
            5, schedule, torch_generator(0)
        )


def test_a_law_in_ratios_is_the_same_on_every_schedule():
    laws = LogNormal(0.0, 1.0, 0.02, 10.0), LogUniform(0.02, 10.0)
    for law in (*laws, KarrasGrid(9, 0.02, 10.0), KarrasTime(0.02, 10.0)):
        one, two, three = (ratios(law, s, 100) for s in (EDM(80.0), VPLinear(), Rectified()))
        torch.testing.assert_close(one, two, rtol=1e-9, atol=0)
        torch.testing.assert_close(one, three, rtol=1e-9, atol=0)


BAD = [
    (lambda: LogNormal(0.0, -1.0, 0.02, 10.0), "std"),
    (lambda: LogNormal(math.nan, 1.0, 0.02, 10.0), "mean"),
    (lambda: LogNormal(0.0, 1.0, -0.02, 10.0), "minimum"),
    (lambda: LogUniform(1.0, 0.5), "maximum"),
    (lambda: KarrasGrid(1, 0.02, 10.0), "steps"),
    (lambda: KarrasGrid(9, 0.0, 10.0), "minimum"),
    (lambda: KarrasGrid(9, 0.02, 10.0, 0.0), "rho"),
    (lambda: KarrasTime(0.5, 0.1), "maximum"),
    (lambda: KarrasTime(0.02, 10.0, -1.0), "rho"),
    (lambda: KarrasTime(0.02, 10.0, 5.0, 1.0), "s_min"),
    (lambda: UniformTime(-0.1), "t_min"),
    (lambda: UniformTime(0.5, 1.5), "t_max"),
]


def test_bad_settings():
    for build, field in BAD:
        with pytest.raises(InvalidSetting, match=f"^{field}="):
            build()


def test_the_largest_noise_of_a_law_is_bounded_by_the_path():
    law = LogUniform(0.02, 10.0)
    assert law.largest(EDM(80.0)) == pytest.approx(10.0)
    assert law.largest(EDM(5.0)) == pytest.approx(5.0)
    assert UniformTime().largest(VPCosine()) > 1e6
