"""Level laws: the right law of the noise-to-signal ratio, on every schedule."""

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
LAWS = [LogNormal(-0.5, 1.2, 0.02, 10.0), LogUniform(0.02, 10.0), UniformTime()]
LAWS += [KarrasGrid(100, 0.02, 10.0), KarrasTime(0.02, 10.0)]


def distance_to(cdf, values):
    """Kolmogorov's distance; 1.63/√n is its 1 % point."""
    ranks = (torch.arange(len(values), dtype=torch.float64) + 0.5) / len(values)
    return float((cdf(values.sort().values) - ranks).abs().max())


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_times_are_float64_in_the_unit_interval_and_decided_by_the_generator(law, schedule):
    state = torch.get_rng_state()
    times = [law.sample(1000, schedule, torch_generator("t", seed)) for seed in (0, 0, 1)]
    assert torch.equal(state, torch.get_rng_state())
    assert times[0].shape == (1000,)
    assert times[0].dtype == torch.float64
    assert (times[0] >= 0).all()
    assert (times[0] <= 1).all()
    assert torch.equal(times[0], times[1])
    assert not torch.equal(times[0], times[2])


@pytest.mark.parametrize("schedule", [EDM(80.0), VPLinear(), Rectified()], ids=repr)
def test_log_normal(schedule):
    law = LogNormal(-0.5, 1.2, 0.02, 10.0)
    ratio = schedule.noise_to_signal(law.sample(COUNT, schedule, torch_generator(0)))
    inside = (ratio > 0.02 * 1.0001) & (ratio < 10 * 0.9999)
    normal = torch.distributions.Normal(-0.5, 1.2)
    low, high = (float(normal.cdf(torch.tensor(math.log(v)))) for v in (0.02, 10.0))
    assert float(ratio.min()) == pytest.approx(0.02)
    assert float(ratio.max()) == pytest.approx(10)
    assert float((ratio < 0.02 * 1.0001).double().mean()) == pytest.approx(low, abs=0.001)
    assert float((ratio > 10 * 0.9999).double().mean()) == pytest.approx(1 - high, abs=0.002)

    def cdf(log_ratio):
        return (normal.cdf(log_ratio) - low) / (high - low)

    assert distance_to(cdf, ratio[inside].log()) < 1.63 / math.sqrt(COUNT)


@pytest.mark.parametrize("schedule", [EDM(80.0), VPLinear(), Rectified()], ids=repr)
def test_log_uniform(schedule):
    law = LogUniform(0.02, 10.0)
    ratio = schedule.noise_to_signal(law.sample(COUNT, schedule, torch_generator(0)))
    share = (ratio / 0.02).log() / math.log(500)
    assert distance_to(lambda value: value, share) < 1.63 / math.sqrt(COUNT)


@pytest.mark.parametrize("schedule", [EDM(10.0), EDM(80.0), VPLinear(), Rectified()], ids=repr)
def test_the_grids_own_levels_are_alike(schedule):
    """They are those a sampler on the grid visits, each with the same probability."""
    times = KarrasGrid(25, 0.02, 10.0, 5.0).sample(COUNT, schedule, torch_generator(0))
    levels = karras(schedule, 25, noise_min=0.02, noise_max=10.0, rho=5.0).t[:-1]
    found, counts = times.unique(return_counts=True)
    assert torch.equal(found, levels.flip(0))
    spread = math.sqrt(COUNT / 25)
    assert (counts - COUNT / 25).abs().max() < 4 * spread


@pytest.mark.parametrize("schedule", [EDM(80.0), VPLinear(), Rectified()], ids=repr)
@pytest.mark.parametrize("s_min", [0.0, 0.1])
def test_karras_time(schedule, s_min):
    law = KarrasTime(0.02, 10.0, 5.0, s_min)
    ratio = schedule.noise_to_signal(law.sample(COUNT, schedule, torch_generator(0)))
    low, high = 0.02**0.2, 10**0.2
    share = ((ratio**0.2 - low) / (high - low) - s_min) / (1 - s_min)
    assert distance_to(lambda value: value, share) < 1.63 / math.sqrt(COUNT)


@pytest.mark.parametrize("law", [KarrasGrid(10, 0.01, 10.0), KarrasTime(0.01, 10.0)], ids=repr)
def test_karras_laws_stay_on_the_schedule(law):
    schedule = GeometricVE(0.03, 2.0)
    ratio = schedule.noise_to_signal(law.sample(1000, schedule, torch_generator(0)))
    assert 0.03 * (1 - 1e-9) <= float(ratio.min()) < 0.04
    assert 1.9 < float(ratio.max()) <= 2 * (1 + 1e-9)
    # not by clipping: a path that ends early has no heap at its end
    assert float((ratio > 1.999).double().mean()) < 0.2
    with pytest.raises(InvalidSetting, match=r"^minimum=3\.0: must be below 2"):
        type(law)(*((10,) if isinstance(law, KarrasGrid) else ()), 3.0, 9.0).sample(
            5, schedule, torch_generator(0)
        )


def test_uniform_time():
    times = UniformTime(0.2, 0.7).sample(COUNT, EDM(), torch_generator(0))
    assert distance_to(lambda t: (t - 0.2) / 0.5, times) < 1.63 / math.sqrt(COUNT)


def test_the_same_numbers_mean_the_same_ratio_on_two_schedules():
    law = LogNormal(0.0, 1.0, 0.02, 10.0)
    one, two = (
        s.noise_to_signal(law.sample(100, s, torch_generator(0))) for s in (EDM(80.0), VPLinear())
    )
    torch.testing.assert_close(one, two, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("build", "field"),
    [
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
    ],
)
def test_impossible_settings(build, field):
    with pytest.raises(InvalidSetting, match=f"^{field}="):
        build()


def test_the_largest_noise_of_a_law_is_bounded_by_the_path():
    law = LogUniform(0.02, 10.0)
    assert law.largest(EDM(80.0)) == pytest.approx(10.0)
    assert law.largest(EDM(5.0)) == pytest.approx(5.0)
    assert UniformTime().largest(VPCosine()) > 1e6
