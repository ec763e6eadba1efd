"""A density of one's own: its score, what runs on it, and what is refused."""

import math
import sys

import numpy as np
import pandas as pd
import pytest
import torch

import samplerbench as sb
from helpers import each
from samplerbench.app.config.construct import trusting
from samplerbench.app.job.build import build
from samplerbench.core.grids import Level, hold, uniform
from samplerbench.core.schedules import EDM
from samplerbench.core.starts import Moments
from samplerbench.datasets.density import Density
from samplerbench.errors import InvalidSetting
from samplerbench.identity import identity
from samplerbench.metrics.moments import Moments as MomentError

DATA = Level(0.0, 1.0, 0.0)
SMALL = {"n_samples": 100, "repetitions": 2}


def banana(x):
    """x₁ ~ N(0, 4) and x₂ + x₁²/4 − 1 ~ N(0, 1): means 0, variances 4 and 1 + 2."""
    a, b = x.unbind(-1)
    return -(a**2) / 8 - (b + a**2 / 4 - 1) ** 2 / 2


def bell(x):
    """N(0, S) with S = ((4, 1), (1, 1)): its inverse is ((1, −1), (−1, 4))/3."""
    a, b = x.unbind(-1)
    return -(a**2 - 2 * a * b + 4 * b**2) / 6


def draws(count, generator):
    a, z = 2 * generator.standard_normal(count), generator.standard_normal(count)
    return torch.from_numpy(np.stack([a, z + 1 - a**2 / 4], -1))


FACTS = {"mean": (0.0, 0.0), "variance": (4.0, 3.0)}


def test_the_score_is_the_gradient_by_hand(states):
    x = states(2, 5, 2)
    model = Density(banana, 2, log_z=0.7).exact_score(EDM())
    with torch.no_grad():  # as samplers have it
        score, log_p = model.score(x, DATA), model.log_density(x, DATA)
    a, b = x.unbind(-1)
    bend = b + a**2 / 4 - 1
    torch.testing.assert_close(score, torch.stack([-a / 4 - bend * a / 2, -bend], -1))
    torch.testing.assert_close(log_p, banana(x) - 0.7)
    assert model.score(x.float(), DATA).dtype == torch.float32
    assert model.why_incompatible(hold(EDM(), 3)) is None
    assert "without noise" in model.why_incompatible(uniform(EDM(), 3))


def test_moments_are_facts_or_those_of_draws():
    known = Density(banana, 2, **FACTS, mean_error=(0.1, 0.3), variance_error=(0.4, 0.3))
    assert known.moments().mean.tolist() == [0, 0]
    # .3/√3 of the second mean is more than the .1/2, .4/8 and .3/6 of the others
    assert known.moments().known_to == pytest.approx(0.3 / math.sqrt(3))
    drawn = Density(banana, 2, exact_draws=draws).moments()
    torch.testing.assert_close(drawn.variance, torch.tensor([4.0, 3.0]).double(), rtol=0.1, atol=0)
    # the standard error of a mean of 10 000 draws, and of a normal coordinate's variance
    assert float(drawn.mean_error[0]) == pytest.approx(2 / 100, rel=0.05)
    assert float(drawn.variance_error[0]) == pytest.approx(4 * math.sqrt(2) / 100, rel=0.1)
    assert Density(banana, 2).moments() is None


def test_errors_of_moments():
    """Largest over coordinates, in deviations of the law; the law's own error beside them."""
    x = torch.tensor([[0.0, 9.0], [2.0, 9.0], [4.0, 15.0], [6.0, 15.0]], dtype=torch.float64)
    sd = x.std(0)
    law = Density(banana, 2, mean=(1.0, 12.0), variance=(4.0, 9.0), mean_error=(0.2, 0.0))
    found = MomentError().against_law(law, seed=0)(x)
    assert found.info["mean_error"] == pytest.approx((3 - 1) / 2)
    assert found.info["sd_error"] == pytest.approx(max(float(sd[0]) / 2 - 1, float(sd[1]) / 3 - 1))
    assert found.value == max(found.info["mean_error"], found.info["sd_error"])
    assert found.info["known_to"] == pytest.approx(0.1)
    assert MomentError().against_law(law, seed=0)(x[:1]).info["sd_error"] == 1
    assert "needs dataset.mean" in MomentError().why_incompatible(Density(banana, 2))
    flat = Density(banana, 2, exact_draws=lambda n, g: torch.ones(n, 2))
    assert "varies in every coordinate" in MomentError().why_incompatible(flat)
    one = Moments.exact(torch.zeros(1), torch.ones(1))
    assert one.known_to == 0


@pytest.mark.slow  # quick: test_mcmc.py
def test_five_lines_of_python():
    """Every sampler of one level, with ESS, R̂ and the errors of known moments."""
    law = sb.dataset("density", log_p=bell, dimension=2, mean=[0, 0], variance=[4, 1])
    samplers = {
        "ula": sb.sampler("ula", step_size=0.2),
        "mala": sb.sampler("mala", step_size=0.5),
        "underdamped": sb.sampler("underdamped", step_size=0.4),
    }
    table = sb.sweep(law, samplers, steps=[2, 600], chains=20, n_samples=1000, repetitions=2)
    assert (table["status"] == "ok").all()
    chains = table[table["reference"] == "chain"]
    values = chains.pivot_table(index="metric", columns="sampler", values="value")
    assert (values.loc["split_r_hat"] < 1.2).all()
    assert (values.loc["effective_sample_size"] > 100).all()
    assert (values.loc["mean_error"] < 0.2).all()
    assert values["ula"].isna()["acceptance"]
    cells = table[table["metric"] == "moments"].groupby(["sampler", "steps"])["value"].mean()
    for name in samplers:  # from wide starts, with so many evaluations
        assert cells[name, 2] > 0.5
        assert cells[name, 600] < 0.15
    nfe = chains.groupby("sampler")["nfe"].first()
    assert nfe.to_dict() == {"ula": 600, "mala": 1202, "underdamped": 601}
    assert set(table["grid"]) == {"hold"}
    assert sb.sample(law, "mala", steps=5, n=7).shape == (7, 2)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"samplers": "heun"}, "sampler=heun: .* needs a denoiser"),
        ({"samplers": "annealed_langevin"}, "sampler=annealed_langevin: .* needs a denoiser"),
        ({"metrics": "sliced"}, "metric=sliced: .* compares with draws of the law.* see moments"),
        ({"starts": "exact"}, "start=exact: .* there are no data"),
        ({"grid": sb.grid("hold", noise=1.0)}, "without noise"),
    ],
)
def test_what_needs_draws_or_noised_data_is_refused(asked, words):
    law = Density(banana, 2, **FACTS)
    with pytest.raises(InvalidSetting, match=words):
        sb.sweep(law, **{"samplers": "ula", "steps": 5, **SMALL, **asked})
    with pytest.raises(InvalidSetting, match="exact_draws=None: must be given, because draws"):
        law.draws(5, "train", 0)


@pytest.mark.slow
def test_draws_give_floor_start_and_distances():
    law = Density(banana, 2, exact_draws=draws)
    table = sb.sweep(law, "ula", steps=5, metrics=["sliced", "moments"], starts="exact", **SMALL)
    assert {"law", "oracle"} == set(table["denoiser"])
    assert (table["status"] == "ok").all()


def test_log_p_is_called_with_points_and_with_batches_of_them():
    """A column only for points would make a table of all pairs in a Metropolis test."""
    with pytest.raises(InvalidSetting, match=r"log_p=.*column: .* it gives \(3, 1\) for \(3, 2\)"):
        Density(column, 2)


def column(x):
    return -x.square().sum(-1, keepdim=x.ndim == 2)


def test_no_facts_no_overdispersed_start():
    law = Density(banana, 2)
    asked = {"samplers": "ula", "steps": 5, **SMALL}
    with pytest.raises(InvalidSetting, match=r"needs dataset\.mean and dataset\.variance"):
        sb.sweep(law, **asked, starts=sb.start("gaussian"))


@each(
    ("settings", "words"),
    [
        ({"dimension": 3}, "log_p=banana: .* shape .*3.*too many values"),
        ({"log_p": lambda x: x}, r"log_p=.*: it gives \(2, 3, 2\)"),
        ({"log_p": lambda x: x.detach().sum(-1)}, "log_p=.*does not require grad"),
        ({"log_p": lambda x: 1.0}, "log_p=.*no attribute 'shape'"),
        ({"dimension": 0}, "dimension=0"),
        ({"mean": (0.0,), "variance": (1.0,)}, "mean=.*2 numbers"),
        ({"mean": (0.0, 0.0)}, "if and only if variance"),
        ({**FACTS, "variance": (4.0, 0.0)}, "variance=.*positive"),
        ({**FACTS, "mean_error": (-1.0, 0.0)}, "mean_error=.*none negative"),
        ({**FACTS, "mean": (math.nan, 0.0)}, "mean="),
        ({"log_z": math.inf}, "log_z=inf"),
        ({"exact_draws": lambda n, g: torch.ones(n)}, r"exact_draws=draws of shape \(3,\)"),
    ],
)
def test_mistakes_are_said_before_any_work(settings, words):
    with pytest.raises(InvalidSetting, match=words):
        Density(**{"log_p": banana, "dimension": 2, **settings})


def test_an_identity_sees_the_function():
    assert identity(Density(banana, 2)) == identity(Density(banana, 2))
    assert identity(Density(banana, 2)) != identity(Density(lambda x: -x.square().sum(-1), 2))
    assert identity(Density(banana, 2)) != identity(Density(banana, 2, log_z=1.0))


def test_a_function_as_a_setting_of_the_library():
    with pytest.raises(InvalidSetting, match=r"dataset\.width=.*left out: gaussian has mean"):
        sb.dataset("gaussian", width=banana)


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A user's folder with a module of densities."""
    source = "def log_p(x):\n    return -x.square().sum(-1) / 2\n"
    (tmp_path / "lab_of_densities.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("lab_of_densities", None)


JOB = [
    *("dataset=density", "dataset.log_p=lab_of_densities.log_p", "dataset.dimension=2"),
    *("denoiser=oracle", "sampler=[ula,mala]", "sampler.ula.step_size=0.2", "start=prior"),
    *("sampler.mala.step_size=0.4", "steps=[20,100]", "n_samples=50", "logger=none", "cache=off"),
]
KNOWN = ["dataset.mean=[0,0]", "dataset.variance=[1,1]", "metric=moments", "chains=20"]


@pytest.mark.slow
def test_without_facts_a_job_has_acceptance_ess_and_r_hat_alone(lab, command):
    plain = ["metric=[]", "steps=[20]", "start=gaussian", "start.gaussian.std=3", "chains=5"]
    assert command(*JOB, *plain, "trusted=lab_of_densities") == 0
    (table,) = map(pd.read_parquet, (lab / "multirun").glob("2*/cells.parquet"))
    assert set(table["metric"]) == {"acceptance", "effective_sample_size", "split_r_hat"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "add trusted=lab_of_densities if you trust its code"),
        (["trusted=lab_of_densities", "metric=sliced"], "exact_draws=None"),
        (["trusted=lab_of_densities", "denoiser=learned"], "exact_draws=None"),
        (["trusted=lab_of_densities", "picture=[samples]"], "picture=samples"),
        (["dataset.log_p=os.system"], "add trusted=os"),
        (["dataset.log_p=samplerbench.files.write_atomically"], "conf/dataset/"),
        (
            ["trusted=lab_of_densities", "dataset.mean=null", "dataset.variance=null", "metric=[]"],
            "start=overdispersed: must be another one: the mean and variance",
        ),
    ],
)
def test_what_the_command_refuses(lab, composed, words, message):
    config = composed(*JOB, *KNOWN, *words)
    with trusting(config.trusted), pytest.raises(InvalidSetting) as refused:
        build(config, {}, "test")
    assert message in str(refused.value)


def test_what_is_asked_of_chains_depends_on_what_is_known():
    table = sb.sweep(Density(banana, 2, **FACTS), "ula", steps=20, chains=4, **SMALL)
    chains = table[table["reference"] == "chain"]
    known = ["effective_sample_size", "evaluations_to_moments", "mean_error", "sd_error"]
    known.append("split_r_hat")
    assert sorted(chains["metric"]) == known
