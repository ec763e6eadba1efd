"""Grids: the published formulas, the last row, and their settings."""

from __future__ import annotations

import math
import sys
from functools import partial
from itertools import product

import pytest
import torch

from helpers import each, refused_in_one_line
from samplerbench.core.grids import (
    Level,
    Levels,
    Truncated,
    TruncatedLevels,
    ays_table,
    beta,
    custom,
    flow_shift,
    hold,
    in_data_units,
    karras,
    leading,
    linspace,
    log_snr,
    polynomial,
    tangent,
    trailing,
    uniform,
)
from samplerbench.core.schedules import EDM, DDPMTable, GeometricVE, Rectified, VPCosine, VPLinear
from samplerbench.errors import InvalidSetting

NOISE_GRIDS = [partial(g, noise_max=1.9, noise_min=0.05) for g in (karras, log_snr, tangent)]
INTEGERS = [leading, linspace, trailing]


def test_karras_is_the_notebooks_formula():
    """G1: υ_i = (υ_max^{1/ρ} + i/(N−1)·(υ_min^{1/ρ} − υ_max^{1/ρ}))^ρ, ρ = 5, .02 to 10."""
    steps = 100
    levels = karras(EDM(), steps, noise_max=10.0, noise_min=0.02, rho=5.0)
    top, bottom = 10 ** (1 / 5), 0.02 ** (1 / 5)
    formula = [(top + i / (steps - 1) * (bottom - top)) ** 5 for i in range(steps)]
    assert levels.sigma.tolist() == pytest.approx([*formula, 0.0], rel=1e-12)


@pytest.mark.parametrize("grid", NOISE_GRIDS, ids=["karras", "log_snr", "tangent"])
def test_ratios_do_not_depend_on_the_schedule(grid, every_schedule):
    levels, other = grid(every_schedule, 9), grid(EDM(), 9)
    torch.testing.assert_close(levels.sigma / levels.alpha, other.sigma, rtol=1e-12, atol=0)
    assert other.sigma[:: len(other.sigma) - 2].tolist() == pytest.approx([1.9, 0.05], rel=1e-12)


def test_log_snr_ratio():
    sigma = log_snr(EDM(), 12, noise_max=10.0, noise_min=0.02).sigma[:-1]
    torch.testing.assert_close(
        sigma[1:] / sigma[:-1], torch.full((11,), 500.0 ** (-1 / 11)).double(), rtol=1e-6, atol=0
    )
    assert (sigma.log().diff().diff().abs() < 1e-12).all()


def test_tangents_have_equal_angles():
    sigma = tangent(EDM(), 12, scale=0.5, noise_max=80.0, noise_min=0.002).sigma[:-1]
    assert sigma[[0, -1]].tolist() == pytest.approx([80, 0.002])
    assert ((sigma / 0.5).atan().diff().diff().abs() < 1e-12).all()


def test_uniform_and_polynomial_times():
    assert uniform(Rectified(), 4).t.tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]
    times = uniform(Rectified(), 3, t_max=0.9, t_min=0.3).t
    assert times.tolist() == pytest.approx([0.9, 0.6, 0.3, 0.0])
    assert polynomial(Rectified(), 4).t.tolist() == pytest.approx([1, 9 / 16, 1 / 4, 1 / 16, 0])
    # a path that keeps noise at t = 0 stops there, and the step to the data is the last one
    assert uniform(GeometricVE(), 3).t.tolist() == [1.0, 0.5, 0.0, 0.0]
    assert uniform(GeometricVE(), 3).sigma[-2:].tolist() == pytest.approx([0.03, 0.0])
    times = polynomial(GeometricVE(), 5, power=3.0, t_max=0.8, t_min=0.1).t[:-1]
    assert times[[0, -1]].tolist() == pytest.approx([0.8, 0.1])
    assert (times ** (1 / 3)).diff().diff().abs().max() < 1e-15


def test_karras_log_snr_and_beta_are_the_grids_of_diffusers():
    """In κ; on the path σ = σ_max·t the times of `beta` are its σ."""
    euler = pytest.importorskip("diffusers").EulerDiscreteScheduler
    options = {"use_karras_sigmas": None, "use_exponential_sigmas": None, "use_beta_sigmas": None}
    for option in options:
        one = euler(beta_schedule="scaled_linear", **{option: True})
        one.set_timesteps(9)
        high, low = one.sigmas[0].item(), one.sigmas[-2].item()
        ends = {"noise_max": high, "noise_min": low}
        ours = {
            "use_karras_sigmas": partial(karras, **ends, rho=7.0),
            "use_exponential_sigmas": partial(log_snr, **ends),
            "use_beta_sigmas": partial(beta, t_min=low / high),
        }[option](EDM(high), 9)
        torch.testing.assert_close(ours.sigma, one.sigmas.double(), rtol=1e-5, atol=0)


def test_flow_shift_and_beta_are_the_grids_of_diffusers_for_flows():
    """On the path of rectified flow the time is σ."""
    flow = pytest.importorskip("diffusers").FlowMatchEulerDiscreteScheduler
    one = flow(shift=1.0)
    one.set_shift(3.0)
    one.set_timesteps(9)
    ours = flow_shift(Rectified(), 9, shift=3.0, t_min=0.001)
    torch.testing.assert_close(ours.t, one.sigmas.double(), rtol=1e-5, atol=0)
    twice = flow(shift=3.0)  # a shift of the constructor is applied twice to the smallest σ
    twice.set_timesteps(9)
    assert twice.sigmas[-2] > 2.9 * one.sigmas[-2]
    ratios = ours.sigma / ours.alpha
    plain = uniform(Rectified(), 9, t_min=0.001)
    torch.testing.assert_close(ratios[1:], 3 * (plain.sigma / plain.alpha)[1:], rtol=1e-9, atol=0)
    one = flow(use_beta_sigmas=True)
    one.set_timesteps(9)
    torch.testing.assert_close(beta(Rectified(), 9).t, one.sigmas.double(), rtol=1e-5, atol=0)


def test_beta_times_are_quantiles():
    """F(t) is linear; at the ends the density of the levels is higher than in the middle."""
    times = beta(Rectified(), 40, t_min=0.0, alpha=0.7, beta=0.5).t
    assert (times[0], times[-1]) == (1, 0)
    laws = pytest.importorskip("scipy.stats").beta(0.7, 0.5)
    assert laws.cdf(times.numpy()) == pytest.approx([1 - k / 40 for k in range(41)], abs=1e-9)
    gaps = -times.diff()
    assert gaps[[0, -1]].max() < gaps[20] / 2
    equal = beta(Rectified(), 7, alpha=1.0, beta=1.0, t_min=0.0).t
    torch.testing.assert_close(equal, uniform(Rectified(), 7).t)


def test_tables_of_align_your_steps():
    tables = pytest.importorskip("diffusers.schedulers").AysSchedules
    for name in ("StableDiffusion", "StableDiffusionXL"):
        sigma = ays_table(name)(EDM(80.0), 10).sigma
        assert sigma.tolist() == pytest.approx(tables[f"{name}Sigmas"], rel=1e-12)
    table = ays_table()
    with pytest.raises(InvalidSetting, match=r"schedule=EDM: must be one whose σ/α reaches from"):
        table(EDM(10.0), 10)
    # the table has five digits; DDPM's largest σ/α is a little smaller
    rounded = table(EDM(14.61), 10).sigma
    assert rounded[:2].tolist() == pytest.approx([14.61, 6.475], rel=1e-12)
    finer = table(EDM(80.0), 19).sigma[:-1].log()
    torch.testing.assert_close(finer[1::2], (finer[:-1:2] + finer[2::2]) / 2, rtol=1e-9, atol=0)
    with pytest.raises(InvalidSetting, match=r"table=SD: must be one of StableDiffusion, Stable"):
        ays_table("SD")


def test_tables_need_diffusers(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers.schedulers", None)
    with pytest.raises(InvalidSetting, match=r"^needs=diffusers: must be installed: pip install"):
        ays_table()


def test_ddpms_integers_are_diffusers():
    scheduling_ddim = pytest.importorskip("diffusers.schedulers.scheduling_ddim")
    for grid, steps in product(INTEGERS, (2, 7, 10, 300, 999, 1000)):
        theirs = scheduling_ddim.DDIMScheduler(1000, timestep_spacing=grid.__name__)
        theirs.set_timesteps(steps)
        integers = 1000 * grid(VPLinear(), steps).t[:-1] - 1
        assert integers.tolist() == pytest.approx(theirs.timesteps.tolist(), abs=1e-9)


def test_ddpms_integers_by_hand():
    """An N that does not divide T, and one step."""
    expected = {leading: ([6, 3, 0], [0]), linspace: ([9, 4, 0], [9]), trailing: ([9, 6, 2], [9])}
    for grid, (three, one) in expected.items():
        for steps, integers in ((3, three), (1, one)):
            t = grid(VPLinear(), steps, train_steps=10).t[:-1]
            assert t.tolist() == pytest.approx([(i + 1) / 10 for i in integers])


def test_a_table_knows_its_number_of_levels():
    table = DDPMTable(tuple(1 - (k + 1) / 9 for k in range(8)))
    for grid in INTEGERS:
        for steps in (1, 3, 8):
            own, given = grid(table, steps), grid(table, steps, train_steps=8)
            assert torch.equal(own.t, given.t)
        assert own.alpha[:-1].square().tolist() == pytest.approx(table.signal[::-1], rel=1e-12)
        with pytest.raises(InvalidSetting, match=r"steps=9: .* at most train_steps=8"):
            grid(table, 9)
        assert torch.equal(grid(VPLinear(), 7).t, grid(VPLinear(), 7, train_steps=1000).t)


def test_custom_and_hold_have_the_given_ratios(schedule):
    levels = custom(schedule, 3, ratios=[1.7, 0.9, 0.1])
    ratio = levels.sigma[:-1] / levels.alpha[:-1]
    assert ratio.tolist() == pytest.approx([1.7, 0.9, 0.1], rel=1e-12)
    for noise in (0.0, 0.5):
        levels = hold(schedule, 7, noise=noise)
        row = levels.rows[0]
        assert levels.rows == [row] * 8
        assert levels.held
        assert not levels.moving
        assert row.sigma / row.alpha == pytest.approx(noise, rel=1e-12)
    assert hold(schedule, 1).rows == [Level(0.0, 1.0, 0.0)] * 2  # the data, on every path


def test_levels_that_stop_on_the_way():
    """Two equal rows are neither a path nor one level."""
    levels = Levels(*(torch.tensor(v).double() for v in ([1, 0.5, 0.5], [1, 1, 1], [2, 1, 1])))
    assert not levels.held
    assert not levels.moving


def test_schedules_own_ends_are_allowed():
    """noise_max and noise_min as the schedule itself computes them, rounding included."""
    one, rounded_up = torch.ones(1, dtype=torch.float64), 0
    for index in range(1, 20):
        for path in (GeometricVE(0.03, 0.7 * index), VPLinear(0.1, 1.3 * index)):
            top = path.noise_to_signal(one)
            rounded_up += path.time_at(top).item() > 1
            assert karras(path, 5, noise_max=top.item(), noise_min=0.03).t[0].item() <= 1
            assert log_snr(path, 5, noise_min=0.03).sigma[0].item() <= path(one)[1].item()
    assert rounded_up > 0, "the case that this test is for"


def test_levels_in_other_units():
    assert Level(0.5, 0.8, 0.6).in_units_of(2.0) == Level(0.5, 0.8, 0.3)


IMPOSSIBLE = [
    ([1.0, 0.0], [1.0, 1.0], [1.0], "same length"),
    ([0.0], [1.0], [0.0], "at least two rows"),
    ([1.0, 0.0], [1.0, 1.0], [math.nan, 0.0], "finite"),
    ([1.0, 0.0], [1.0, 1.0], [1.0, -1.0], "negative"),
    ([1.0, 0.0], [1.0, 1.0], [1.0, 1.1], "must not increase"),
    ([1.0, 0.5], [0.5, 0.4], [1.0, 0.9], "must not increase"),
]


def test_impossible_levels():
    for *columns, message in IMPOSSIBLE:
        with pytest.raises(ValueError, match=message):
            Levels(*(torch.tensor(v, dtype=torch.float64) for v in columns))
    with pytest.raises(ValueError, match="float64"):
        Levels(*(torch.tensor(v) for v in ([1.0, 0.0], [1.0, 1.0], [1.0, 0.0])))


BAD = [
    (EDM(), uniform, {"steps": 0}, "steps=0: must be at least 1"),
    (EDM(), polynomial, {"steps": -1}, "steps=-1: must be at least 1"),
    (EDM(), karras, {"steps": 0}, "steps=0: must be at least 1"),
    (EDM(), log_snr, {"steps": 0}, "steps=0: must be at least 1"),
    (EDM(), uniform, {"t_max": 1.1}, "t_max=1.1: must be above 0 and at most 1"),
    (EDM(), uniform, {"t_max": 0.0}, "t_max=0.0: must be above 0 and at most 1"),
    (EDM(), polynomial, {"t_min": -0.1}, "t_min=-0.1: must be at least 0 and below t_max=1.0"),
    (EDM(), uniform, {"t_min": 1.0}, "t_min=1.0: must be at least 0 and below t_max=1.0"),
    (EDM(), karras, {"rho": 0.0}, "rho=0.0: must be positive"),
    (EDM(5.0), karras, {}, "noise_max=10.0: must be .*positive, finite and at most 5,"),
    (VPCosine(), karras, {"noise_max": math.inf}, "noise_max=inf: must be .*finite"),
    (EDM(), tangent, {"scale": 0.0}, "scale=0.0: must be positive and finite"),
    (EDM(), log_snr, {"noise_max": -1.0}, "noise_max=-1.0: must be .*positive"),
    (EDM(), karras, {"noise_min": 0.0}, "noise_min=0.0: must be positive and below"),
    (EDM(), log_snr, {"noise_min": -0.1}, "noise_min=-0.1: must be positive and below"),
    (EDM(), karras, {"noise_min": 10.0}, "noise_min=10.0: must be .*below noise_max=10$"),
    (EDM(), karras, {"noise_min": math.nan}, "noise_min=nan: must be positive"),
    (EDM(), polynomial, {"power": 0.0}, "power=0.0: must be positive"),
    (EDM(), polynomial, {"t_max": 2.0}, "t_max=2.0: must be above 0 and at most 1"),
    (EDM(), leading, {"steps": 0}, "steps=0: must be at least 1"),
    (EDM(), linspace, {"steps": 11, "train_steps": 10}, "steps=11: must be .*at most train_st"),
    (EDM(), trailing, {"train_steps": 0}, "train_steps=0: must be at least 1"),
    (EDM(), custom, {"ratios": [3.0, 1.0]}, "steps=5: must be 2, the number of grid.ratios"),
    (EDM(), custom, {"ratios": []}, "ratios=.*: must be a list of at least one number"),
    (EDM(), custom, {"ratios": [3.0, 3.0], "steps": 2}, "ratios=.*: must be decreasing"),
    (EDM(), custom, {"ratios": [3.0, 0.0], "steps": 2}, "ratios=.*: must be decreasing, pos"),
    (EDM(5.0), custom, {"ratios": [6.0], "steps": 1}, "ratios=.*between 0 and 5, the sch"),
    (VPCosine(), custom, {"ratios": [math.inf], "steps": 1}, "ratios=.*: must be .*finite"),
    (GeometricVE(), custom, {"ratios": [0.01], "steps": 1}, "ratios=.*between 0.03 and 2"),
    (EDM(), hold, {"steps": 0}, "steps=0: must be at least 1"),
    (EDM(), hold, {"noise": -1.0}, "noise=-1.0: must be at least 0 and at most 80,"),
    (EDM(5.0), hold, {"noise": 6.0}, "noise=6.0: must be at least 0 and at most 5,"),
    (VPCosine(), hold, {"noise": math.inf}, "noise=inf: must be"),
    (GeometricVE(), hold, {"noise": 0.01}, "noise=0.01: must be 0, or at least 0.03"),
]


def test_bad_settings():
    for schedule, grid, settings, message in BAD:
        defaults = (
            {"noise_max": 10.0, "noise_min": 0.02} if grid in (karras, log_snr, tangent) else {}
        )
        with refused_in_one_line(message):
            grid(schedule, **{"steps": 5} | defaults | settings)


@each("grid", [*NOISE_GRIDS, *INTEGERS, uniform, polynomial, partial(uniform, t_min=1e-3)])
def test_a_truncated_grid_has_as_many_steps_and_ends_above_the_data(grid):
    """For N = 1 too; with the levels of one more step, but the data."""
    for steps in (1, 7):
        levels, whole = Truncated(grid)(VPLinear(), steps), grid(VPLinear(), steps + 1)
        assert levels.steps == steps
        assert levels.moving
        assert levels.rows == whole.rows[:-1]
        assert levels.rows[-1].sigma > 0


def test_where_a_truncated_grid_ends():
    end = Truncated(partial(uniform, t_min=1e-3))(VPLinear(), 9).rows[-1]
    assert end.t == pytest.approx(1e-3)
    assert end.alpha == pytest.approx(math.exp(-0.5 * (0.1e-3 + 19.9e-6 / 2)), rel=1e-12)
    assert Truncated(NOISE_GRIDS[0])(EDM(), 4).rows[-1].sigma == pytest.approx(0.05)
    ratios = partial(custom, ratios=[1.0, 0.5, 0.25])
    assert Truncated(ratios)(EDM(), 2).sigma.tolist() == pytest.approx([1.0, 0.5, 0.25])
    with pytest.raises(InvalidSetting, match=r"^steps=3: must be one less than with final=denoise"):
        Truncated(ratios)(EDM(), 3)
    with pytest.raises(InvalidSetting, match=r"^noise_min=-1"):
        Truncated(partial(karras, noise_min=-1.0))(EDM(), 3)
    held = partial(hold, noise=0.5)
    assert Truncated(held)(EDM(), 3).rows == held(EDM(), 3).rows


def test_only_truncated_levels_are_rescaled():
    x = torch.ones(2, 1).double()
    levels = Truncated(partial(uniform, t_min=0.3))(VPLinear(), 2)
    assert isinstance(levels, TruncatedLevels)
    torch.testing.assert_close(in_data_units(x, levels), x / levels.alpha[-1])
    own = Levels(levels.t, levels.alpha, levels.sigma)
    for other in (own, uniform(VPLinear(), 2), hold(VPLinear(), 2, noise=0.5)):
        assert in_data_units(x, other) is x
