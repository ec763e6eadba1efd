"""Picard iteration: the rule's own states, ParaDiGMS by diffusers, rounds beside evaluations."""

from __future__ import annotations

import pytest
import torch

from helpers import mostly_slow, sweep_of
from samplerbench.bench.line_densities import StartLaw, law_of_output
from samplerbench.bench.transitions import Refused
from samplerbench.core.grids import Levels, karras, uniform
from samplerbench.core.models import Counted
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import EDM, Rectified, VPLinear
from samplerbench.core.starts import Prior
from samplerbench.datasets.gaussian import gaussian
from samplerbench.metrics.energy import Energy
from samplerbench.samplers.base import final_state
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.euler import Euler
from samplerbench.samplers.picard import Picard

NOISE = KeyedNoise((0, "picard"))
#: The rule and the η of Picard's iteration, and the sampler of single steps.
RULES = {
    ("ddim", 0.0): DDIM(0.0),
    ("ddim", 0.5): DDIM(0.5),
    ("ddim", 1.0): DDIM(1.0),
    ("euler", 0.0): Euler(),
}


@pytest.mark.parametrize("window", mostly_slow([1, 7, 100], 1))
@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("schedule", [EDM(10.0), VPLinear(), Rectified()], ids=repr)
def test_it_converges_to_the_rule(mixture_law, states, schedule, rule, window):
    """All states and all x̂₀, of each step, with its noise, up to rounding; in at most N rounds."""
    levels, model = uniform(schedule, 24), Counted(mixture_law.oracle(schedule))
    x = levels.rows[0].sigma * states(16, 2)
    ours = list(Picard(rule[0], window, 0.0, rule[1]).steps(model, x, levels, NOISE))
    rule_states = RULES[rule].steps(mixture_law.oracle(schedule), x, levels, NOISE)
    for one, other in zip(ours, rule_states, strict=True):
        torch.testing.assert_close(one.x, other.x, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(one.x0_hat, other.x0_hat, rtol=1e-11, atol=1e-11)
    assert model.rounds <= 24
    expected = sum(min(window, 24 - done) for done in range(model.rounds))
    assert model.evaluations == expected


@pytest.mark.parametrize("eta", mostly_slow([0.0, 1.0], 0))
def test_the_tolerance_bounds_the_error(mixture_law, states, eta):
    """More exact runs take more rounds, and far fewer than steps."""
    schedule = EDM(10.0)
    levels = karras(schedule, 100, noise_min=0.05)
    x = 10 * states(64, 2)
    exact = final_state(DDIM(eta), mixture_law.oracle(schedule), x, levels, NOISE)
    rounds = []
    for tolerance in (1e-1, 1e-2, 1e-4):
        model = Counted(mixture_law.oracle(schedule))
        out = final_state(Picard(tolerance=tolerance, eta=eta), model, x, levels, NOISE)
        assert 0 < (out - exact).abs().max() < 10 * tolerance
        rounds.append(model.rounds)
    assert rounds == sorted(set(rounds))
    assert rounds[-1] < 40


@pytest.mark.parametrize("eta", mostly_slow([0.0, 1.0], 0))
def test_it_is_paradigms_by_diffusers(mixture_law, states, eta):
    """Algorithm 1 for each sample alone, its steps by the parallel schedulers of diffusers."""
    diffusers = pytest.importorskip("diffusers")
    given = {"clip_sample": False, "timestep_spacing": "leading"}
    if eta == 0:
        theirs = diffusers.DDIMParallelScheduler(1000, set_alpha_to_one=True, **given)
        theirs.final_alpha_cumprod = theirs.final_alpha_cumprod.double()
    else:
        theirs = diffusers.DDPMParallelScheduler(1000, **given)
    theirs.alphas_cumprod = theirs.alphas_cumprod.double()  # float32 costs 1e-6
    theirs.set_timesteps(40)
    kept = torch.cat([theirs.alphas_cumprod[theirs.timesteps], torch.ones(1).double()])
    t = torch.cat([(theirs.timesteps + 1) / 1000, torch.zeros(1)]).double()
    levels, oracle = Levels(t, kept.sqrt(), (1 - kept).sqrt()), mixture_law.oracle(VPLinear())
    window, tolerance = 9, 0.05
    sigma = torch.cat([levels.sigma[1:-1], levels.sigma[-2:-1]])
    for x in states(6, 2):
        drawn = torch.zeros(40, 2).double()
        if eta == 1:  # their noise, drawn beforehand
            scales = [theirs._get_variance(t) ** 0.5 for t in theirs.timesteps[:-1]]
            for step, scale in enumerate(scales):
                drawn[step] = scale * NOISE.normal(x[None], step)[0]
        path, begin, rounds = x.expand(41, 2).clone(), 0, 0
        while begin < 40:
            end = min(begin + window, 40)
            rows, block = levels.rows[begin:end], path[begin:end]
            eps = torch.stack(
                [
                    (y - level.alpha * oracle.denoiser(y, level)) / level.sigma
                    for y, level in zip(block, rows, strict=True)
                ]
            )
            # their samples are images
            moved = theirs.batch_step_no_noise(
                eps[..., None, None], theirs.timesteps[begin:end], block[..., None, None]
            )[..., 0, 0]
            new = path[begin] + (moved + drawn[begin:end] - block).cumsum(0)
            change = (new - path[begin + 1 : end + 1]).square().mean(-1).sqrt()
            late = (change > tolerance * sigma[begin:end]).nonzero()
            path[begin + 1 : end + 1] = new
            begin = min(begin + 1 + int(late[0]), end) if len(late) else end
            path[end + 1 :] = path[end]
            rounds += 1
        model = Counted(oracle)
        ours = list(Picard("ddim", window, tolerance, eta).steps(model, x[None], levels, NOISE))
        assert model.rounds == rounds < 40
        torch.testing.assert_close(ours[-2].x[0], path[-2], rtol=1e-10, atol=1e-10)
        # the sum of ParaDiGMS ends within the tolerance of x̂₀, which is our last state
        torch.testing.assert_close(ours[-1].x[0], path[-1], rtol=0, atol=2 * tolerance)


def test_its_law_on_a_line_is_not_claimed():
    """The quadrature follows one state at a time."""
    law, schedule = gaussian((0.7,), ((0.3,),)), EDM(10.0)
    oracle, levels = law.oracle(schedule), uniform(schedule, 4)

    def start(x):
        return oracle.log_density(x, levels.rows[0])

    x = torch.ones(4, 1, dtype=torch.float64)
    with pytest.raises(Refused, match="several states of a sample at once"):
        law_of_output(Picard(), oracle, levels, StartLaw(start, x))


def test_a_table_has_the_rounds(mixture_law):
    """Rounds are evaluations, except of a sampler with parallel ones."""
    samplers = [("picard", Picard(window=20)), ("ddim", DDIM(0.0))]
    settings = {"grid": uniform, "starts": {"prior": Prior()}, "metrics": {"energy": Energy()}}
    sweep = sweep_of(mixture_law, samplers, [30], n_samples=60, block=40, **settings)
    rows = {row.sampler: row for row in sweep.run()}
    assert (rows["ddim"].nfe, rows["ddim"].rounds) == (30, 30)
    assert 4 < rows["picard"].rounds < 30 < rows["picard"].nfe
    assert rows["picard"].value == pytest.approx(rows["ddim"].value, rel=0.01)
