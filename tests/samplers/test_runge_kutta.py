"""Runge–Kutta members: the papers' algorithms, scipy's, and steps of one's own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import RK45

from helpers import mostly_slow
from samplerbench.core.grids import Level, to_data, uniform
from samplerbench.core.models import Counted, Denoiser
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import EDM, VPCosine
from samplerbench.samplers.base import final_state, slope_at
from samplerbench.samplers.dormand_prince import DormandPrince
from samplerbench.samplers.euler import Euler
from samplerbench.samplers.heun import Heun
from samplerbench.samplers.rk2 import RK2
from samplerbench.samplers.rk4 import RK4
from samplerbench.verify.orders import _flow, _start, interior

NOISE = KeyedNoise((0, "runge kutta"))


def test_rk2_with_alpha_1_is_heun(mixture_law, schedule, states):
    levels, oracle = uniform(schedule, 9), mixture_law.oracle(schedule)
    x = levels.rows[0].sigma * states(8, 2)
    one, two = (final_state(s, oracle, x, levels, NOISE) for s in (RK2(1.0), Heun()))
    torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("sampler", "tableau"),
    [
        (Euler(), ([], [1])),
        (Heun(), ([[1]], [1 / 2, 1 / 2])),
        (RK2(0.5), ([[1 / 2]], [0, 1])),
        (RK2(2 / 3), ([[2 / 3]], [1 / 4, 3 / 4])),
        (RK4(), ([[1 / 2], [0, 1 / 2], [0, 0, 1]], [1 / 6, 1 / 3, 1 / 3, 1 / 6])),
    ],
    ids=repr,
)
def test_they_are_their_butcher_tableaus(sampler, tableau, mixture_law, schedule, states):
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


def test_dormand_prince_follows_its_tolerance(mixture_law):
    """The error is about the tolerance, for every choice of levels."""
    levels, errors = interior(VPCosine(), 2), []
    first, last = levels.rows[0].alpha, levels.rows[-1].alpha
    for tolerance in (1e-3, 1e-5, 1e-7, 1e-9):
        sampler, model = DormandPrince(tolerance, tolerance), mixture_law.oracle(VPCosine())
        end = final_state(sampler, model, first * _start(), levels, NOISE)
        errors.append(float((end / last - _flow("mixture")).abs().max()))
        assert errors[-1] < 30 * tolerance
    assert errors[-1] < 1e-4 * errors[0]


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


@pytest.mark.parametrize(
    ("times", "tolerance"),
    mostly_slow(
        [
            ([10.0, 0.3], 1e-8),  # a long first step, which shrinks to a fifth, more than once
            # a short first step, which grows tenfold, and one between levels that shortens nothing
            ([10.0, 9.99, 4.0, 3.999, 0.5], 1e-3),
            (np.linspace(10.0, 0.5, 20).tolist(), 1e-3),  # steps are cut short at every level
        ],
        1,
    ),
    ids=["long", "short", "many"],
)
def test_step_size_control_is_the_documented_one(mixture_law, states, times, tolerance):
    """Counts and states of every sample, by an independent loop."""
    oracle = mixture_law.oracle(EDM(10.0))
    levels = to_data(EDM(10.0), torch.tensor(times, dtype=torch.float64) / 10)
    x = 10 * states(4, 2)
    found = list(DormandPrince(tolerance, tolerance).steps(oracle, x, levels, NOISE))
    for i in range(len(x)):
        y, counts = by_hand(oracle, x[i], levels, tolerance, tolerance)
        ours = [(int(s.info["accepted"][i]), int(s.info["rejected"][i])) for s in found[:-1]]
        assert ours == counts
        np.testing.assert_allclose(found[-2].x[i].numpy(), y, rtol=1e-11)
    if tolerance == 1e-8:
        assert sum(step.info["rejected"].sum() for step in found) > 0


def test_a_sample_that_does_not_arrive_is_not_a_number(mixture_law, states):
    """The other samples are the same as without it."""
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


class NotANumberOnce(Denoiser):
    """A model whose evaluations two to seven, the first step that is tried, are not numbers."""

    def __init__(self, model):
        super().__init__()
        self.model, self.schedule, self.times = model, model.schedule, []

    def denoiser(self, x, level):
        self.times.append(float(level.t[0]))
        return (math.nan if 2 <= len(self.times) <= 7 else 1) * self.model.denoiser(x, level)


def test_after_an_error_that_is_not_a_number_a_fifth_of_the_step_is_tried(mixture_law, states):
    model = NotANumberOnce(mixture_law.oracle(EDM(10.0)))
    levels = to_data(EDM(10.0), torch.tensor([1.0, 0.5], dtype=torch.float64))
    first, *_ = DormandPrince().steps(model, 10 * states(1, 2), levels, NOISE)
    assert first.x.isfinite().all()
    assert first.info["rejected"][0] >= 1
    start, end = levels.t[:2].tolist()
    nodes = [1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1]
    tried = [start + share * (end - start) * node for share in (1, 0.2) for node in nodes]
    assert model.times[:13] == pytest.approx([start, *tried], rel=1e-12)
