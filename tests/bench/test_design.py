"""Designed grids: the optimum where it is known, no leak, and what cannot be designed."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from samplerbench.bench import criteria
from samplerbench.bench.criteria import CRITERIA, Problem, Targets, converged
from samplerbench.bench.design import (
    CHOICE,
    DESIGNED,
    PATHS,
    Space,
    design,
    gain_of,
    ratios,
    standard_grids,
    usual_starts,
)
from samplerbench.core.grids import Truncated, karras, log_snr, tangent, uniform
from samplerbench.core.models import Denoiser
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import EDM, GeometricVE, Rectified, VPLinear
from samplerbench.core.starts import Exact, FixedGaussian, Prior, Sobol
from samplerbench.datasets.gaussian import gaussian
from samplerbench.datasets.gaussian_spectrum import GaussianSpectrum, gaussian_twin
from samplerbench.datasets.grid_mixture import grid_mixture
from samplerbench.datasets.pinwheel import Pinwheel
from samplerbench.datasets.two_moons import TwoMoons
from samplerbench.errors import InvalidSetting
from samplerbench.samplers.base import final_state
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.dormand_prince import DormandPrince
from samplerbench.samplers.dpm_solver import DPMSolver3
from samplerbench.samplers.dpm_solver_pp import DPMSolverPP
from samplerbench.samplers.heun import Heun
from samplerbench.samplers.rk4 import RK4
from samplerbench.samplers.ula import ULA

LAW, PATH = grid_mixture(10.0, 0.1), EDM(10.0)
KARRAS = partial(karras, noise_min=0.02, rho=5.0)
FEW = {"paths": 64, "choice": 64, "held_out": 200, "budget": 100}


#: The divergence of five Euler steps on the tangent grid, from the exact law, in closed form.
ANGLES = math.atan(80.0 / 0.5), math.atan(0.002 / 0.5)
SHRUNK = math.cos((ANGLES[0] - ANGLES[1]) / 5) ** 10 * (1 + 0.004**2)
KL = 0.5 * (SHRUNK - 1 - math.log(SHRUNK))


def on_mixture(sampler=None, steps=3, **settings):
    settings = {**FEW, "name": "karras", **settings}
    start = settings.pop("start", Exact())
    return design(sampler or Heun(), steps, LAW.oracle(PATH), start, LAW, KARRAS, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("criterion", ["kl", "spectrum"])
def test_the_best_levels_of_ddim_on_one_gaussian_are_those_of_the_tangent_law(criterion):
    """Align your steps, Theorem 3.1: angles arctan(σ/c) at equal distances, without a last x̂₀."""
    c, path, steps = 0.5, EDM(80.0), 5
    if criterion == "kl":
        law = gaussian([0.0], [[c**2]])
    else:
        law = GaussianSpectrum(torch.full((1,), c**2).double(), torch.zeros(1).double())
    grid = partial(log_snr, noise_min=0.002)
    found = design(
        DDIM(0.0),
        steps,
        law.oracle(path),
        Sobol(Exact()) if criterion == "kl" else Exact(),
        law,
        grid,
        criterion=criterion,
        final="none",
        **{**FEW, "budget": 1500, "paths": 512},
    )
    best = Truncated(partial(tangent, scale=c, noise_min=0.002))(path, steps)
    if criterion == "spectrum":  # without samples the levels themselves are known
        assert ratios(found.designed.levels) == pytest.approx(best.sigma.tolist(), rel=0.01)
    angles = (found.designed.levels.sigma / c).atan()  # an Euler step multiplies x·cos by cos(Δ)
    shrunk = float(angles.diff().cos().prod().square() / angles[-1].cos().square())
    assert 0.5 * (shrunk - 1 - math.log(shrunk)) == pytest.approx(KL, rel=0.01)


@pytest.mark.slow
def test_designed_levels_carry_to_starts_that_they_have_not_seen():
    found = on_mixture(paths=192, choice=256, held_out=1000)
    assert found.grid == DESIGNED
    assert found.gain.lower > 1
    # the best standard grid is far better than Karras's here, and the design is better still
    plain = Problem(Heun(), LAW.oracle(PATH), LAW, Exact(), KARRAS(PATH, 3))
    sample = CRITERIA["paired"].sample(plain, "other", 1000)
    both = sample.losses([KARRAS(PATH, 3), found.levels]).mean(1).sqrt()
    assert both[0] > 1
    assert both[1] < 0.297  # a design by Powell's method


@pytest.mark.slow
def test_more_starts_make_better_designs_on_a_mixture():
    """By starts of another seed: the usual numbers of starts, and those of other laws.

    In the root mean square of three designs, since a single one depends on few rare starts.
    """
    law, sampler = grid_mixture(), DPMSolverPP()
    oracle, levels = law.oracle(PATH), KARRAS(PATH, 10)
    assert usual_starts(oracle, law) == (2048, 2048)
    other = Problem(sampler, oracle, law, Exact(), levels, seed=99)
    sample = CRITERIA["paired"].sample(other, "other", 8000)
    losses = []
    for seed in (0, 1, 2):
        few, usual = (
            design(sampler, 10, oracle, Exact(), law, KARRAS, seed=seed, held_out=100, **more)
            for more in ({"paths": PATHS, "choice": CHOICE}, {})
        )
        losses.append(sample.losses([few.designed.levels, usual.designed.levels]).mean(1))
    values = torch.stack(losses).mean(0).sqrt()
    assert values[1] < 0.9 * values[0]


@pytest.mark.slow
def test_no_level_is_better_than_a_design_with_one_free_level():
    """DPM-Solver-3 with four evaluations, by a scan of its only free level."""
    law, sampler = TwoMoons(), DPMSolver3()
    oracle, levels = law.oracle(PATH), KARRAS(PATH, 2)
    found = design(sampler, 2, oracle, Exact(), law, KARRAS, held_out=1000).designed
    space = Space(PATH, levels)
    grids = [space.levels(np.log([kappa])) for kappa in np.geomspace(0.02, 9.9, 100)]
    sample = CRITERIA["paired"].sample(
        Problem(sampler, oracle, law, Exact(), levels, seed=99), "other", 1000
    )
    losses = sample.losses([found.levels, *grids]).mean(1).sqrt()
    assert losses[0] < 1.005 * losses[1:].min()
    assert losses[0] == pytest.approx(0.217, abs=0.01)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits_and_another_one_other_levels():
    one, again, other = on_mixture(), on_mixture(), on_mixture(seed=1)
    assert torch.equal(one.levels.t, again.levels.t)
    assert one.designed.losses.equal(again.designed.losses)
    assert not torch.equal(one.levels.t, other.levels.t)


@pytest.mark.slow
def test_no_level_depends_on_the_held_out_starts(monkeypatch):
    before = on_mixture()
    asked = []
    plain = Problem.draw

    def permuted(self, purpose, count):
        asked.append(purpose)
        x = plain(self, purpose, count)
        return 0.5 * x.flip(0) if purpose == "held-out" else x

    monkeypatch.setattr(Problem, "draw", permuted)
    after = on_mixture()
    assert asked == ["training", "choice", "held-out"]
    assert torch.equal(before.designed.levels.t, after.designed.levels.t)
    assert before.training == after.training
    assert not before.designed.losses.equal(after.designed.losses)
    assert on_mixture(held_out=300).designed.levels.t.equal(before.designed.levels.t)


def test_the_three_sets_of_starts_have_nothing_in_common():
    problem = Problem(Heun(), LAW.oracle(PATH), LAW, Exact(), KARRAS(PATH, 3))
    sets = [problem.draw(purpose, 50) for purpose in ("training", "choice", "held-out")]
    sets.append(Exact().draw(LAW, 50, problem.levels.rows[0], (0, 0, 0)))  # of a sweep
    points = torch.cat(sets)
    assert len(points.unique(dim=0)) == 200


def test_a_design_that_is_not_better_says_so_and_gives_the_standard_grid():
    c, path = 1.0, EDM(20.0)
    law = GaussianSpectrum(torch.full((3,), c**2).double(), torch.zeros(3).double())
    best = partial(tangent, scale=c, noise_min=0.02)
    found = design(
        *(DDIM(0.0), 6, law.oracle(path), Exact(), law, best),
        **{**FEW, "budget": 10, "criterion": "spectrum", "final": "none", "name": "tangent"},
    )
    assert found.grid == found.standard.grid == "tangent"
    assert found.gain.ratio == pytest.approx(1)
    assert torch.equal(found.levels.t, Truncated(best)(path, 6).t)


@pytest.mark.parametrize("path", [VPLinear(), Rectified(), GeometricVE(0.03, 10.0)], ids=str)
@pytest.mark.parametrize("final", ["denoise", "none"])
def test_every_vector_is_a_grid_between_the_ends(path, final):
    grid = partial(karras, noise_min=0.05, noise_max=min(50.0, path.noise_range[1]), rho=5.0)
    first = (Truncated(grid) if final == "none" else grid)(path, 5)
    space = Space(path, first)
    for theta in torch.randn(20, 4, generator=torch.Generator().manual_seed(0)).double() * 8:
        logs, rates = space.logs(theta.numpy())
        levels = space.levels(logs)
        assert levels.moving
        assert levels.steps == 5
        assert levels.t[0] == first.t[0]
        assert min(ratios(levels)) >= path.noise_range[0] * (1 - 1e-9)
        moved, _ = space.logs(theta.numpy() + 1e-6)
        assert moved - logs == pytest.approx(1e-6 * rates.sum(1), abs=1e-10)
    inside = space.levels(space.logs(space.theta(first))[0])
    assert ratios(inside) == pytest.approx(ratios(first), rel=0.02)


def test_standard_grids_begin_where_the_start_lies():
    for final, least in (("denoise", 6), ("none", 4)):
        first = (Truncated(KARRAS) if final == "none" else KARRAS)(PATH, 4)
        grids = standard_grids(first, grid=KARRAS, name="karras")
        made = [(Truncated(one) if final == "none" else one)(PATH, 4) for one in grids.values()]
        assert len(made) >= least - 1
        assert all(levels.t[0] == first.t[0] for levels in made)
        if final == "none":
            assert all(abs(levels.t[-1] - first.t[-1]) < 1e-12 for levels in made)


@pytest.mark.slow
def test_converged_runs_are_shared_by_samplers_and_counted_once():
    targets = Targets()
    one, two = on_mixture(targets=targets), on_mixture(DDIM(0.0), targets=targets)
    alone = on_mixture(DDIM(0.0))
    assert torch.equal(two.levels.t, alone.levels.t)
    assert two.evaluations < alone.evaluations
    assert one.candidates > 20


def test_a_loss_of_kl_is_the_divergence():
    problem = Problem(DDIM(0.0), LAW.oracle(PATH), LAW, Exact(), log_snr(PATH, 16, noise_min=0.02))
    sample = CRITERIA["kl"].sample(problem, "x", 2000)
    value = float(sample.losses([karras(PATH, 16, noise_min=0.02, rho=5.0)]).mean())
    assert value == pytest.approx(0.074, rel=0.25)


def test_w2_of_a_spectrum_is_exact_also_with_noise():
    law = GaussianSpectrum(torch.tensor([4, 1, 0.1]).double(), torch.tensor([1, 0, 0]).double())
    levels = karras(PATH, 6, noise_min=0.02, rho=5.0)
    from samplerbench.bench.spectra import output_spectrum

    for sampler in (DDIM(1.0), DPMSolverPP()):
        problem = Problem(sampler, law.oracle(PATH), law, Prior(), levels)
        sample = CRITERIA["spectrum"].sample(problem, "x", 0)
        (loss,) = sample.losses([levels])[:, 0].tolist()
        first = Prior().moments(law.mean, law.variances, levels.rows[0])
        mean, variances = output_spectrum(sampler, law.oracle(PATH), levels, *first)
        gaps = torch.cat([variances.sqrt() - law.variances.sqrt(), mean - law.mean])
        assert loss == pytest.approx(float(gaps.square().sum()), rel=1e-9)


class Rough(Denoiser):
    """A denoiser whose flow has no smooth path."""

    schedule = PATH

    def denoiser(self, x, level):
        return 5 * torch.sin(1e4 * x)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sampler": DDIM(0.5)}, "this sampler draws noise"),
        ({"sampler": DDIM(0.5), "criterion": "kl"}, "the density of a sampler that draws noise"),
        ({"sampler": ULA()}, "runs on the levels of a grid"),
        ({"sampler": DormandPrince()}, "fixed steps"),
        ({"steps": 1}, "one step has no free level"),
        ({"criterion": "w2"}, "one of paired, kl, spectrum"),
        ({"criterion": "spectrum"}, "law=gaussian_twin"),
        ({"law": Pinwheel(), "criterion": "kl"}, "density"),
        ({"law": Pinwheel(), "model": Rough()}, "do not converge, .* steps differ by"),
        ({"budget": 3}, "budget=3: must be at least 10"),
        (
            {"start": FixedGaussian(), "law": Pinwheel(), "criterion": "kl"},
            "whose density is known",
        ),
    ],
)
def test_what_cannot_be_designed_is_refused_in_one_line(settings, words, monkeypatch):
    monkeypatch.setattr(criteria, "MOST_STEPS", 160)
    law = settings.pop("law", LAW)
    model = settings.pop("model", LAW.oracle(PATH))
    sampler, start = settings.pop("sampler", Heun()), settings.pop("start", Exact())
    steps = settings.pop("steps", 3)
    with pytest.raises(InvalidSetting, match=words) as refused:
        design(sampler, steps, model, start, law, KARRAS, **{**FEW, **settings})
    assert "\n" not in str(refused.value)


def on_rk4(problem, x, steps):
    """The end of the same flow by the classical Runge–Kutta method."""
    levels = log_snr(PATH, steps, noise_min=math.exp(criteria._ends(problem)[2]))
    return final_state(RK4(), problem.model, x, levels, KeyedNoise(("none",)))


def test_a_converged_run_has_converged():
    problem = Problem(Heun(), LAW.oracle(PATH), LAW, Exact(), KARRAS(PATH, 3))
    x = problem.draw("x", 200)
    out, spent, change = converged(problem, x, problem.scale)
    errors = (out - on_rk4(problem, x, 400)).norm(dim=1) / problem.scale
    assert errors.square().mean().sqrt() < 3e-5
    assert errors.max() < criteria.SETTLED
    assert errors.square().mean().sqrt() < change < criteria.SETTLED
    assert spent >= 200 * (47 + 87)


def test_only_the_starts_that_have_not_settled_get_more_steps(monkeypatch):
    problem = Problem(Heun(), LAW.oracle(PATH), LAW, Exact(), KARRAS(PATH, 3))
    x, runs, plain = problem.draw("x", 200), [], criteria.end_of_flow
    count = lambda *a: runs.append(len(a[1])) or plain(*a)  # noqa: E731
    monkeypatch.setattr(criteria, "end_of_flow", count)
    out, spent, _ = converged(problem, x, problem.scale)
    assert runs[:2] == [200, 200]
    assert 1 <= runs[2] < 40
    assert spent == sum(n * (40 * 2**k + 7) for k, n in enumerate(runs))
    # a start does not depend on the others
    alone = torch.cat([converged(problem, one, problem.scale)[0] for one in x.split(20)])
    assert (out - alone).abs().max() < 1e-9


def test_a_converged_run_does_not_end_where_a_grid_of_few_steps_ends():
    few = Problem(Heun(), LAW.oracle(PATH), LAW, Exact(), uniform(PATH, 3))
    x = few.draw("x", 50)
    out, *_ = converged(few, x, few.scale)
    finer, *_ = converged(replace(few, levels=KARRAS(PATH, 3)), x, few.scale)
    assert (out - finer).abs().max() < 2e-3 * few.scale


def test_a_twin_is_designed_exactly():
    law = gaussian_twin(LAW)
    found = design(
        DPMSolverPP(), 6, law.oracle(PATH), Exact(), law, KARRAS, criterion="spectrum", **FEW
    )
    assert found.grid == DESIGNED
    assert found.gain.lower == found.gain.ratio == found.gain.upper > 2
    assert gain_of(found.designed, found.standard, CRITERIA["spectrum"]).ratio == found.gain.ratio
