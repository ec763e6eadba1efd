"""Runge–Kutta members: the papers' algorithms, scipy's, diffusers', and steps of one's own."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import RK45, solve_ivp

from samplerbench.errors import InvalidSetting
from samplerbench.grids import Level, Levels, karras, to_data, uniform
from samplerbench.models import Counted, Denoiser
from samplerbench.noise import KeyedNoise
from samplerbench.samplers.base import final_state, slope_at
from samplerbench.samplers.dormand_prince import DormandPrince, _attempt, _slope
from samplerbench.samplers.euler import Euler
from samplerbench.samplers.heun import Heun
from samplerbench.samplers.rk2 import RK2
from samplerbench.samplers.rk4 import RK4
from samplerbench.schedules import EDM, VPCosine, VPLinear

NOISE = KeyedNoise((0, "runge kutta"))


@pytest.mark.parametrize("alpha", [0.5, 0.8])
def test_rk2_is_edm_algorithm_3(mixture_law, states, alpha):
    """Karras et al. 2022, Appendix D.2, σ(t) = t and s(t) = 1, but for the last step."""
    oracle, x = mixture_law.oracle(EDM()), 80 * states(16, 2)
    levels = karras(EDM(), 12, noise_max=80.0, noise_min=0.002, rho=7.0)
    ours = RK2(alpha).steps(oracle, x, levels, NOISE)

    def slope(x, sigma):
        return (x - oracle.denoiser(x, Level(sigma / 80, 1.0, sigma))) / sigma

    for (_, now, to), step in zip(levels.pairs(), ours, strict=True):
        h = to.sigma - now.sigma
        d = slope(x, now.sigma)
        if to.sigma == 0:
            x = x + h * d
        else:
            late = slope(x + alpha * h * d, now.sigma + alpha * h)
            x = x + h * ((1 - 1 / (2 * alpha)) * d + 1 / (2 * alpha) * late)
        torch.testing.assert_close(step.x, x, rtol=1e-11, atol=1e-11)


def test_rk2_with_alpha_1_is_heun(mixture_law, schedule, full, states):
    levels, oracle = full(schedule, 9), mixture_law.oracle(schedule)
    x = levels.rows[0].sigma * states(8, 2)
    one, two = (final_state(s, oracle, x, levels, NOISE) for s in (RK2(1.0), Heun()))
    torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


def test_heun_and_euler_are_diffusers(mixture_law, states):
    """Their HeunDiscrete and EDMEuler schedulers; the latter computes in float32."""
    heun = pytest.importorskip("diffusers.schedulers.scheduling_heun_discrete")
    edm = pytest.importorskip("diffusers.schedulers.scheduling_edm_euler")
    oracle, start = mixture_law.oracle(EDM(200.0)), states(8, 2)

    def levels(sigma):
        sigma = sigma.double()
        return Levels(sigma / 200, torch.ones_like(sigma), sigma)

    theirs = heun.HeunDiscreteScheduler(beta_schedule="linear", beta_start=1e-4, beta_end=0.02)
    theirs.set_timesteps(11)
    theirs.sigmas, x = theirs.sigmas.double(), 100 * start
    own = levels(torch.cat([theirs.sigmas[:1], theirs.sigmas[1::2]]))
    ours = final_state(Heun(), oracle, x, own, NOISE)
    for time, sigma in zip(theirs.timesteps, theirs.sigmas.tolist(), strict=False):
        if sigma > 0:
            eps = (x - oracle.denoiser(x, Level(sigma / 200, 1.0, sigma))) / sigma
            x = theirs.step(eps, time, x).prev_sample
    torch.testing.assert_close(ours, x, rtol=1e-10, atol=1e-10)

    theirs = edm.EDMEulerScheduler()
    theirs.set_timesteps(11)
    theirs.is_scale_input_called, x = True, 80 * start
    own = levels(theirs.sigmas)
    ours = final_state(Euler(), oracle, x, own, NOISE)
    for time, level in zip(theirs.timesteps, own.rows, strict=False):
        x0_hat = oracle.denoiser(x.double(), level)
        x = theirs.step(x, time, x, pred_original_sample=x0_hat.float()).prev_sample
    torch.testing.assert_close(ours, x.double(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("sampler", "tableau"),
    [
        (RK2(2 / 3), ([[2 / 3]], [1 / 4, 3 / 4])),
        (RK4(), ([[1 / 2], [0, 1 / 2], [0, 0, 1]], [1 / 6, 1 / 3, 1 / 3, 1 / 6])),
    ],
    ids=repr,
)
def test_they_are_their_butcher_tableaus(sampler, tableau, mixture_law, schedule, interior, states):
    oracle, levels = mixture_law.oracle(schedule), interior(schedule, 5)
    x, (matrix, weights) = states(8, 2), tableau

    def slope(x, t):
        t = torch.tensor(t, dtype=torch.float64)
        alpha, sigma = schedule(t)
        a, b = slope_at(schedule, t, alpha, sigma)
        return a * x + b * oracle.denoiser(x, Level(float(t), float(alpha), float(sigma)))

    for (_, now, to), step in zip(
        levels.pairs(), sampler.steps(oracle, x, levels, NOISE), strict=True
    ):
        h, slopes = to.t - now.t, [slope(x, now.t)]
        for row in matrix:
            y = x + h * sum(weight * k for weight, k in zip(row, slopes, strict=True))
            slopes.append(slope(y, now.t + sum(row) * h))
        x = x + h * sum(weight * k for weight, k in zip(weights, slopes, strict=True))
        torch.testing.assert_close(step.x, x, rtol=1e-11, atol=1e-11)


@pytest.fixture(scope="module")
def flow():
    """x_s of the probability flow on VPCosine from a state at t = 1, to 1e-11, by scipy."""

    def solve(law, x, end):
        oracle, schedule = law.oracle(VPCosine()), VPCosine()

        def slope(t, flat):
            t = torch.tensor(t, dtype=torch.float64)
            alpha, sigma = schedule(t)
            a, b = slope_at(schedule, t, alpha, sigma)
            at = torch.from_numpy(flat).reshape(x.shape)
            x0_hat = oracle.denoiser(at, Level(float(t), float(alpha), float(sigma)))
            return (a * at + b * x0_hat).flatten().numpy()

        flat = x.flatten().numpy()
        result = solve_ivp(slope, (1.0, end), flat, method="DOP853", rtol=1e-11, atol=1e-11)
        return torch.from_numpy(result.y[:, -1]).reshape(x.shape)

    return solve


def test_dormand_prince_follows_its_tolerance(mixture_law, states, flow):
    """From no signal at all; the error is about the tolerance whatever the levels are."""
    oracle, x = mixture_law.oracle(VPCosine()), states(16, 2)
    exact, errors = flow(mixture_law, x, 0.1), []
    for tolerance in (1e-3, 1e-5, 1e-7, 1e-9):
        times = torch.tensor([1.0, 0.4, 0.1], dtype=torch.float64)
        levels = Levels(times, *VPCosine()(times))
        sampler = DormandPrince(tolerance, tolerance)
        error = (final_state(sampler, oracle, x, levels, NOISE) - exact).abs().max()
        assert error < 30 * tolerance
        errors.append(float(error))
    assert all(20 * later < error for error, later in pairwise(errors))


def test_a_step_of_dormand_prince_is_scipys(mixture_law, states):
    """The new state and the estimated error, from scipy's own coefficients."""
    schedule, x, start, h = EDM(10.0), states(1, 2), 0.15, -0.01
    oracle = mixture_law.oracle(schedule)

    def slope(t, flat):
        at = torch.tensor([[t]], dtype=torch.float64)
        return _slope(oracle, torch.from_numpy(flat)[None], at)[0][0].numpy()

    theirs = RK45(slope, start, x[0].numpy(), 0.01, first_step=-h, max_step=-h, rtol=1, atol=1)
    theirs.step()
    t, step = (torch.tensor([[v]], dtype=torch.float64) for v in (start, h))
    new, (last, _), error = _attempt(oracle, x, t, step, _slope(oracle, x, t)[0])
    np.testing.assert_allclose(new[0], theirs.y, rtol=1e-13)
    np.testing.assert_allclose(last[0], theirs.f, rtol=1e-12)
    np.testing.assert_allclose(error[0].abs(), abs(theirs._estimate_error(theirs.K, h)), atol=1e-15)


def test_each_sample_has_its_own_steps(mixture_law, states):
    """Alone or in company, the same steps; calls are those of the slowest, rejected ones too."""
    oracle, x = Counted(mixture_law.oracle(EDM(10.0))), 10 * states(32, 2)
    sampler, levels = DormandPrince(1e-6, 1e-6), uniform(EDM(10.0), 4)
    steps = list(sampler.steps(oracle, x, levels, NOISE))
    tried = [step.info["accepted"] + step.info["rejected"] for step in steps]
    assert oracle.evaluations == 1 + 6 * sum(int(count.max()) for count in tried)
    assert sum(step.info["rejected"].sum() for step in steps) > 0
    assert sum(tried).unique().numel() >= 3
    assert tried[-1].sum() == 0, "the step to the data is the x̂₀ that is known"
    for row in (0, 17):
        alone = list(sampler.steps(oracle, x[row : row + 1], levels, NOISE))
        for one, other in zip(steps, alone, strict=True):
            assert one.info["accepted"][row] == other.info["accepted"][0]
            torch.testing.assert_close(one.x[row], other.x[0], rtol=1e-11, atol=1e-11)


def by_hand(oracle, x, levels, rtol, atol):
    """The same method for one sample, with SciPy's tableau, and (accepted, rejected) of each level.

    The control is that of the class's docstring: e is the root mean square of the estimated error
    over atol + rtol·max(|x|, |x'|); a step with e ≤ 1 is kept; the next one is the last times
    min(10, max(1/5, 0.9·e^(−1/5))), but after a kept step that was cut short at a level it is no
    shorter than the one that was tried.
    """

    def slope(y, t):
        level = Level(*(double([[v]]) for v in (t, *map(float, oracle.schedule(double(t))))))
        a, b = slope_at(
            oracle.schedule, *(v.squeeze() for v in (level.t, level.alpha, level.sigma))
        )
        return (a * y + b * oracle.denoiser(y[None], level)[0]).numpy()

    def double(t):
        return torch.tensor(t, dtype=torch.float64)

    t, y = levels.rows[0].t, x.numpy().copy()
    trial, counts = levels.rows[1].t - t, []
    for to in levels.rows[1:-1]:
        accepted = rejected = 0
        while t > to.t:
            cut = trial <= to.t - t
            h = to.t - t if cut else trial
            k = [slope(torch.from_numpy(y), t)]
            for row, node in zip(RK45.A[1:], RK45.C[1:], strict=True):
                k.append(
                    slope(torch.from_numpy(y + h * (row[: len(k)] @ np.array(k))), t + node * h)
                )
            new = y + h * (RK45.B @ np.array(k))
            k.append(slope(torch.from_numpy(new), t + h))
            scale = atol + rtol * np.maximum(np.abs(y), np.abs(new))
            e = np.sqrt(np.mean((h * (RK45.E @ np.array(k)) / scale) ** 2))
            factor = min(10.0, max(0.2, 0.9 * e**-0.2))
            if e <= 1:
                t, y, accepted = to.t if cut else t + h, new, accepted + 1
                trial = min(trial, factor * h) if cut else factor * h  # both are negative
            else:
                trial, rejected = factor * h, rejected + 1
        counts.append((accepted, rejected))
    return y, counts


TIMES = {
    "a long first step": [10.0, 0.3],  # which shrinks to a fifth, more than once
    "a short first step": [10.0, 9.99, 4.0, 0.5],  # which grows tenfold
    "many": np.linspace(10.0, 0.5, 20).tolist(),  # steps are cut short at every one
}


@pytest.mark.parametrize("tolerance", [1e-3, 1e-8])
@pytest.mark.parametrize("times", TIMES)
def test_the_control_of_the_step_is_the_one_that_is_written_down(
    mixture_law, states, times, tolerance
):
    """Counts and states of every sample, by an independent loop."""
    oracle = mixture_law.oracle(EDM(10.0))
    levels = to_data(EDM(10.0), torch.tensor(TIMES[times], dtype=torch.float64) / 10)
    x = 10 * states(4, 2)
    found = list(DormandPrince(tolerance, tolerance).steps(oracle, x, levels, NOISE))
    for i in range(len(x)):
        y, counts = by_hand(oracle, x[i], levels, tolerance, tolerance)
        ours = [(int(s.info["accepted"][i]), int(s.info["rejected"][i])) for s in found[:-1]]
        assert ours == counts
        np.testing.assert_allclose(found[-2].x[i].numpy(), y, rtol=1e-11)
    if (times, tolerance) == ("a long first step", 1e-8):
        assert sum(step.info["rejected"].sum() for step in found) > 0


def test_dormand_prince_costs_less_where_less_is_asked(mixture_law, states):
    calls = []
    for sampler, count in ((DormandPrince(1e-2, 1e-2), 5), (DormandPrince(1e-8, 1e-8), 5)):
        oracle = Counted(mixture_law.oracle(VPLinear()))
        final_state(sampler, oracle, states(8, 2), uniform(VPLinear(), count), NOISE)
        calls.append(oracle.evaluations)
    assert 2 * calls[0] < calls[1]


def test_a_sample_that_does_not_arrive_is_not_a_number(mixture_law, states):
    """The others are what they are without it."""
    oracle, x = mixture_law.oracle(EDM(10.0)), 10 * states(16, 2)
    levels = to_data(EDM(10.0), torch.tensor([1.0, 0.01], dtype=torch.float64))
    best = final_state(DormandPrince(1e-3, 1e-3), oracle, x, levels, NOISE)
    steps = list(DormandPrince(1e-3, 1e-3, attempts=9).steps(oracle, x, levels, NOISE))
    late = steps[0].x.isnan().any(-1)
    assert 0 < late.sum() < 16
    for step in steps[:-1]:  # and never a number again, also at the data
        assert step.x[late].isnan().all()
    assert steps[-1].x[late].isnan().all()
    assert steps[-1].x0_hat[late].isnan().all()
    torch.testing.assert_close(steps[-1].x[~late], best[~late], rtol=0, atol=0)
    nan = x.clone()
    nan[3] = math.nan
    assert final_state(DormandPrince(), oracle, nan, levels, NOISE).isnan().any(-1).sum() == 1


class Exploding(Denoiser):
    """Another model, whose first step of six evaluations gives what is not a number."""

    def __init__(self, model):
        super().__init__()
        self.model, self.schedule, self.times = model, model.schedule, []

    def denoiser(self, x, level):
        self.times.append(float(level.t[0]))
        return (math.nan if 2 <= len(self.times) <= 7 else 1) * self.model.denoiser(x, level)


def test_after_an_error_that_is_no_number_a_fifth_of_the_step_is_tried(mixture_law, states):
    model = Exploding(mixture_law.oracle(EDM(10.0)))
    levels = to_data(EDM(10.0), torch.tensor([1.0, 0.5], dtype=torch.float64))
    first, *_ = DormandPrince().steps(model, 10 * states(1, 2), levels, NOISE)
    assert first.x.isfinite().all()
    assert first.info["rejected"][0] >= 1
    start, end = levels.t[:2].tolist()
    nodes = [1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1]
    tried = [start + share * (end - start) * node for share in (1, 0.2) for node in nodes]
    assert model.times[:13] == pytest.approx([start, *tried], rel=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RK2(0.0), "alpha=0.0: must be above 0 and at most 1"),
        (lambda: RK2(1.5), "alpha=1.5: must be above 0 and at most 1"),
        (lambda: DormandPrince(rtol=0.0), "rtol=0.0: must be positive"),
        (lambda: DormandPrince(atol=math.inf), "atol=inf: must be positive and finite"),
        (lambda: DormandPrince(attempts=0), "attempts=0: must be at least 1"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(InvalidSetting, match=message):
        make()
