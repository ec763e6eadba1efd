"""The library: names and objects, the same numbers as the command line, and mistakes in words."""

import re
import shutil
import subprocess
import sys
import warnings
from copy import deepcopy
from dataclasses import dataclass, replace
from io import BytesIO
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import samplerbench as sb
from samplerbench import library
from samplerbench.app.commands.score import main as score_command
from samplerbench.app.config.compose import compose_config
from samplerbench.app.job import objects
from samplerbench.app.main import main
from samplerbench.bench.cell import curve_names
from samplerbench.bench.ranking import ranking
from samplerbench.bench.statistics import summary
from samplerbench.bench.store import CLOCKS
from samplerbench.core.grids import karras, uniform
from samplerbench.core.models import Corrupted, Denoiser, Guided
from samplerbench.core.schedules import EDM, VPCosine
from samplerbench.core.starts import Exact, Start
from samplerbench.datasets.divided import Divided
from samplerbench.datasets.gaussian import gaussian
from samplerbench.datasets.grid_mixture import grid_mixture
from samplerbench.errors import InvalidSetting, RunFailed
from samplerbench.identity import VERSIONS
from samplerbench.metrics.sliced import Sliced
from samplerbench.samplers.base import Sampler, Step
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.dormand_prince import DormandPrince
from samplerbench.samplers.heun import Heun
from samplerbench.training.weights import WEIGHTS, save

FEW = {"n_samples": 50, "repetitions": 2, "floor_repetitions": 2}

# true of the nine Gaussians, whose start is part of the error, and of no interest to most tests
pytestmark = pytest.mark.filterwarnings("ignore:mismatch. the prior is")


@dataclass(frozen=True)
class Mine(Sampler):
    """Euler's method on an EDM path, as a user would write it."""

    order: ClassVar[int] = 1

    @property
    def stochastic(self):
        return False

    def steps(self, model, x, levels, noise):
        for _, now, to in levels.pairs():
            x0_hat = model.denoiser(x, now)
            x = x0_hat + to.sigma / now.sigma * (x - x0_hat)
            yield Step(x, x0_hat)


@pytest.fixture(scope="module", autouse=True)
def _composed_once():
    """The main job's config is composed once for all tests with the same words: it takes .1 s."""
    known = {}

    def compose_once(words, settings=None):
        key = repr((list(words), settings))
        if key not in known:
            known[key] = compose_config(words, settings)
        return deepcopy(known[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objects, "compose_config", compose_once)
        yield


@pytest.fixture(scope="module")
def run(finished):
    return sb.load(finished)


def bits(table):
    """The content of a table without clocks and labels, by value."""
    labels = ["experiment", "dataset", "schedule", "grid", "sampler", "start", "metric"]
    return table.drop(columns=[*CLOCKS, *labels]).sort_values("cell_id", ignore_index=True)


def test_the_import_is_light_and_the_names_are_there():
    code = "import sys, samplerbench as sb; dir(sb); print('torch' in sys.modules, sb.__version__)"
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert out.split()[0] == "False"
    for name in sb.__all__:
        assert getattr(sb, name) is getattr(library, name)
        assert name in dir(sb)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        sb.nothing  # noqa: B018


def test_members_by_name_with_settings():
    assert sb.dataset("grid_mixture", spacing=5) == grid_mixture(spacing=5.0)
    assert sb.sampler("ddim", eta=0.5) == DDIM(0.5)
    assert sb.sampler("ddim", eta=[0, 1]) == [DDIM(0.0), DDIM(1.0)]
    assert len(sb.sampler("ddim")) == 4  # as on the command line
    assert sb.schedule("edm") == EDM(10.0)  # the config's own σ_max
    assert sb.start("exact") == Exact()
    assert sb.metric("sliced", directions=20).directions == 20
    levels = sb.grid("karras", rho=7)(EDM(10.0), 5)
    assert torch.equal(levels.sigma, karras(EDM(10.0), 5, noise_min=0.02, rho=7.0).sigma)


def test_a_sweep_of_a_run_is_what_the_command_line_left(run):
    again = sb.sweep(run)
    assert list(again.columns) == list(run.table.columns)
    same = {"check_exact": True, "check_dtype": False}  # a text is an object or a string
    for name in set(again.columns) - set(CLOCKS):
        pd.testing.assert_series_equal(again[name], run.table[name], **same)


def test_a_sweep_of_a_law_has_the_command_lines_bits(finished, tmp_path, monkeypatch):
    words = ["logger=none", "denoiser=oracle", "sampler=[ddim,heun]", "sampler.ddim.eta=[0,1]"]
    words += ["steps=[3,4]", "schedule=vp_cosine", "grid=log_snr", "seed=3", "floor_free=false"]
    words += [f"{key}={value}" for key, value in FEW.items()]
    words += [f"hydra.run.dir={tmp_path}/run"]
    monkeypatch.setattr(sys, "argv", ["samplerbench", *words])
    main()
    want = pd.read_parquet(tmp_path / "run" / "cells.parquet")
    names = sb.sweep(
        sb.dataset("grid_mixture"),
        [sb.sampler("ddim", eta=[0, 1]), "heun"],
        steps=[3, 4],
        schedule="vp_cosine",
        grid="log_snr",
        seed=3,
        **FEW,
    )
    objects = sb.sweep(
        grid_mixture(),
        {"a": [DDIM(0.0), DDIM(1.0)], "c": Heun()},
        steps=np.array([3, 4]),
        schedule=VPCosine(),
        grid=sb.grid("log_snr"),
        starts={"p": sb.start("prior"), "e": Exact()},
        seed=3,
        **FEW,
    )
    for table in (names, objects):
        pd.testing.assert_frame_equal(bits(table), bits(want), check_exact=True, check_dtype=False)
    assert set(names["sampler"]) == {"", "ddim", "heun"}
    assert set(objects["sampler"]) == {"", "a", "c"}
    assert set(names["dataset"]) == {"grid_mixture"}
    assert set(objects["dataset"]) == {"GaussianMixture"}


def test_own_samplers_metrics_and_denoisers(run):
    oracle = run.dataset.oracle(run.schedule)
    table = sb.sweep(
        run,
        [Mine(), "euler"],
        steps=4,
        starts="prior",
        metrics=[Sliced(directions=20), sb.metric("exact_w2")],
        denoisers={"mine": oracle},
        **FEW,
    )
    assert set(table["status"]) == {"ok"}
    assert set(table["denoiser"]) == {"law", "mine"}
    assert set(table["metric"]) == {"Sliced", "exact_w2"}
    means = table.groupby(["metric", "sampler"])["value"].mean()
    assert means["Sliced", "Mine"] == pytest.approx(means["Sliced", "euler"], rel=1e-9)


@pytest.mark.slow
def test_data_that_do_not_fit_to_the_path_are_warned_of_before_any_work():
    unit = [[1.0, 0.0], [0.0, 1.0]]
    kelvin = sb.dataset("gaussian", mean=[293.0, 293.0], covariance=unit)
    centred = sb.dataset("gaussian", mean=[0.0, 0.0], covariance=unit)
    few = {"trainer.batch_size": 8, "n_train": 50, "n_validation": 9, "trainer.warmup": 0}
    with pytest.warns(
        UserWarning, match="mismatch: the prior is .* centre the data, or raise"
    ) as caught:
        sb.sweep(kelvin, "heun", steps=2, metrics="sliced", **FEW)
    assert {warning.filename for warning in caught} == {__file__}, "the line of the caller"
    with pytest.warns(UserWarning, match="mismatch: the prior is"):
        sb.train(kelvin, steps=1, settings=few)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sb.sweep(centred, "heun", steps=2, metrics="sliced", **FEW)


@pytest.mark.slow
def test_progress_is_shown_where_it_is_asked_for(capsys):
    few = {**FEW, "metrics": "sliced"}
    settings = {"trainer.batch_size": 8, "n_train": 50, "n_validation": 9, "trainer.warmup": 0}
    for shown in (True, False, None):  # None: no terminal and no notebook
        sb.sweep(LAW, "heun", steps=[2, 3], progress=shown, **few)
        sb.train(LAW, steps=3, settings=settings, progress=shown)
        bars = capsys.readouterr().err
        for label in ("sweep: ", "training: "):
            assert (label in bars) == (shown is True)


@pytest.mark.slow
def test_samples_are_scored_as_by_the_command(tmp_path):
    """The numbers of the command, from arrays, files, chains and a run; and pairs of sets."""
    good = LAW.draws(300, "mine", 1).numpy()
    np.save(tmp_path / "good.npy", good)
    out = tmp_path / "scores.json"
    words = ["dataset=grid_mixture", "metric=[sliced,energy]", f"out={out}", "n_reference=1000"]
    score_command([str(tmp_path / "good.npy"), *words])
    wanted = pd.read_json(out)
    sets = {"array": good, "file": tmp_path / "good.npy", "wide": torch.from_numpy(1.5 * good)}
    table = sb.score(sets, "grid_mixture", metrics=["sliced", "energy"], n_reference=1000)
    for name in ("array", "file"):
        own = table[(table["samples"] == name) & (table["kind"] == "distance")]
        assert list(own["verdict"]) == list(wanted["verdict"])
        for column in ("distance", "half_width", "floor", "floor_upper"):
            assert list(own[column]) == pytest.approx(list(wanted[column]), rel=1e-9)
    pairs = table[(table["metric"] == "sliced") & (table["kind"] == "difference")]
    verdicts = pairs.set_index(["samples", "minus"])["verdict"].to_dict()
    assert verdicts == {
        ("file", "array"): "the same values",
        ("wide", "array"): "distinguishable",
        ("wide", "file"): "distinguishable",
    }
    (line,) = sb.score(good, good[:100], metrics="sliced").to_dict("records")
    assert line["floor_sets"] == 39
    np.save(tmp_path / "data.npy", good[:100])
    for path in (tmp_path / "data.npy", str(tmp_path / "data.npy")):  # as reference=
        (of_file,) = sb.score(good, path, metrics="sliced").to_dict("records")
        assert of_file["distance"] == line["distance"]
    np.save(tmp_path / "wide.npy", good.T)
    with pytest.raises(InvalidSetting, match=r"wide\.npy: must be an array with one point per row"):
        sb.score(good, tmp_path / "wide.npy", metrics="sliced")


@pytest.mark.slow
def test_an_error_budget(run):
    few = {"n_samples": 50, "repetitions": 2, "floor_repetitions": 2, "metrics": "sliced"}
    few["starts"] = ["prior", "exact"]
    found = sb.budget(run, "heun", steps=[3], converged_steps=6, **few)
    total = found.parts.set_index(["kind", "part"])["mean"]
    assert set(found.table["denoiser"]) == {"law", "learned", "oracle"}
    pieces = total["difference"].drop("total")
    assert pieces.sum() == pytest.approx(total["difference", "total"])
    assert "sliced" in repr(found)
    assert len(found.plot().axes) > 0
    with pytest.raises(InvalidSetting, match="metric=mmd: must be one of sliced"):
        found.plot("mmd")


@pytest.mark.slow
def test_a_plot_in_axes_of_ones_own():
    figure = Figure()
    panels = figure.subplots(1, 3)
    few = {**FEW, "metrics": "sliced", "starts": ["prior", "exact"]}
    own = sb.sweep(LAW, "heun", steps=[2, 3], **few)
    assert sb.plot(own, ax=panels[:2]) is figure
    new = sb.plot(own)
    for ours, theirs in zip(panels[:2], new.axes, strict=True):
        pairs = zip(ours.lines, theirs.lines, strict=True)
        assert all(np.array_equal(one.get_ydata(), other.get_ydata()) for one, other in pairs)
    FigureCanvasAgg(figure).draw()
    legend = panels[1].get_legend().get_window_extent()
    highest = max(max(line.get_ydata(), default=0) for line in panels[1].lines)
    assert legend.y0 > panels[1].transData.transform((2, highest))[1], "it covers no curve"
    assert legend.y1 <= panels[1].get_window_extent().y1
    assert not panels[2].lines
    prior = own[own["start"].isin(["prior", ""])]
    assert sb.plot(prior, ax=panels[2]) is figure
    assert panels[2].get_title() == new.axes[0].get_title()


def test_a_value_that_cannot_be_had_is_warned_of():
    @dataclass(frozen=True)
    class Broken(Mine):
        def steps(self, model, x, levels, noise):
            raise RuntimeError("no idea")
            yield

    with pytest.warns(UserWarning, match="values: RuntimeError: no idea"):
        table = sb.sweep("grid_mixture", [Broken(), "heun"], steps=2, starts="exact", **FEW)
    assert set(table[table["sampler"] == "Broken"]["status"]) == {"failed"}
    assert set(table[table["sampler"] == "heun"]["status"]) == {"ok"}


def test_samples_are_those_of_the_sweep(run):
    sweep = replace(run.sweep, samplers=[("heun", Heun())], n_samples=60)
    cells = [c for c in sweep.cells() if (c.start, c.steps) == ("prior", 4) and c.repetition == 0]
    for cell in cells:
        want = torch.cat(list(sweep.samples(cell, sweep.denoisers[cell.denoiser]))).numpy()
        got = sb.sample(run, "heun", steps=4, n=60, denoiser=cell.denoiser)
        assert np.array_equal(got, want)
        few = sb.sample(run, Heun(), steps=4, n=5, denoiser=run.denoisers[cell.denoiser])
        assert np.array_equal(few, want[:5])
    assert len(cells) == 2
    way = sb.sample(run, "heun", steps=9, n=5, every=4)
    assert way.shape == (4, 5, 2)
    assert np.array_equal(way[-1], sb.sample(run, "heun", steps=9, n=5))


def test_a_langevin_chain_on_a_noised_law():
    x = sb.sample(
        "two_clusters",
        sb.sampler("ula", step_size=0.5),
        steps=200,
        n=500,
        grid=sb.grid("hold", noise=3.0),
        start="exact",
    )
    # N(m, 1 + 9) in each coordinate of each cluster, wider by the step: (1 − h/(2·10))⁻¹
    assert x[:, 1].var() == pytest.approx(10 / (1 - 0.5 / 20), rel=0.15)


@pytest.mark.slow
def test_training_in_memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    law = sb.dataset("two_clusters")
    few = {"trainer.batch_size": 64, "n_train": 200, "n_validation": 50, "trainer.warmup": 5}
    run = sb.train(law, network="time_mlp", steps=60, seed=1, settings=few)
    assert list(run.denoisers) == ["learned", "oracle"]
    assert list(run.losses["step"]) == [50, 60]
    assert run.table.empty
    table = sb.sweep(run, "heun", steps=3, starts="exact", **FEW)
    learned = table[table["denoiser"] == "learned"].iloc[0]
    assert (learned["network"], learned["objective"]) == ("time_mlp", "edm")
    assert learned["train_seed"] == 1
    assert learned["training_id"]
    again = sb.train(law, network="time_mlp", steps=60, seed=1, settings=few)
    other = sb.train(law, network="time_mlp", steps=60, seed=2, settings=few)
    one, same, another = (r.sweep.origins["learned"].id for r in (run, again, other))
    assert one == same != another
    assert list(tmp_path.iterdir()) == []
    assert torch.get_num_threads() == threads


def test_a_training_whose_weights_are_not_finite_is_no_run():
    few = {"trainer.batch_size": 64, "n_train": 100, "n_validation": 50}
    few |= {"trainer.warmup": 0, "trainer.lr": 1e39}
    with pytest.raises(RunFailed, match="must be smaller: the weights are not finite after step 1"):
        sb.train("two_clusters", network="time_mlp", steps=1, settings=few)


@pytest.mark.slow
def test_a_score_of_one_level_and_a_schedule_of_ones_own():
    few = {"trainer.batch_size": 64, "n_train": 100, "n_validation": 50, "objective.noise": 3.0}
    run = sb.train("two_clusters", objective="single_level", steps=3, settings=few)
    hold = sb.grid("hold", noise=3.0)
    x = sb.sample(run, "ula", steps=5, n=20, grid=hold, start=sb.start("gaussian", std=1.0))
    assert np.isfinite(x).all()
    with pytest.raises(InvalidSetting, match="sampler=ula: must be another one: the network"):
        sb.sample(run, "ula", steps=5, n=20, grid=sb.grid("hold", noise=1.0))
    del few["objective.noise"]
    assert sb.train("two_clusters", schedule=EDM(30.0), steps=1, settings=few).schedule == EDM(30.0)


@pytest.mark.slow
def test_a_plot_shows_itself_in_a_notebook(run, monkeypatch):
    assert isinstance(sb.plot(run.table), Figure)
    known = {}

    def lookup(kind):
        return known[kind]

    formatter = SimpleNamespace(lookup_by_type=lookup, for_type=known.__setitem__)
    shell = SimpleNamespace(display_formatter=SimpleNamespace(formatters={"image/png": formatter}))
    fake = SimpleNamespace(get_ipython=lambda: shell, version_info=(9, 0))
    monkeypatch.setitem(sys.modules, "IPython", fake)
    figure = sb.plot(run.table, x="nfe")
    assert known[Figure](figure).startswith(b"\x89PNG")
    known[Figure] = "somebody's own"
    sb.plot(run.table)
    assert known[Figure] == "somebody's own"
    buffer = BytesIO()
    figure.savefig(buffer, format="svg")
    assert b"NFE" in buffer.getvalue()


@dataclass
class Loose:
    """A class that is not a sampler."""


class Plain(Sampler):
    """No dataclass."""

    order: ClassVar[int] = 1
    stochastic = False

    def steps(self, model, x, levels, noise):
        return iter(())


@dataclass(frozen=True)
class Secretive(Mine):
    draws: object = None


class Scaled(Denoiser):
    """A model of a user's: a multiple of the state."""

    def __init__(self, factor):
        super().__init__()
        self.schedule, self.factor = EDM(10.0), factor

    def denoiser(self, x, level):
        return self.factor * x


@dataclass(frozen=True)
class Narrow(Start):
    """A start with fewer coordinates than the data."""

    def combine(self, x0, eps, level):
        return eps[:, :1]


LAW = grid_mixture()


def sweep(samplers="heun", **more):
    return lambda run: sb.sweep(LAW, samplers, **more)


def sample(sampler="heun", **more):
    return lambda run: sb.sample(LAW, sampler, **{"steps": 4, **more})


def train(**more):
    return lambda run: sb.train(LAW, **more)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: sb.score(np.zeros((9, 2)), LAW, metric="sliced"), "metric; did you mean metrics?"),
        (lambda: sb.sweep(LAW, "heun", start="prior"), "start; did you mean starts?"),
        (lambda: sb.load("run", seed=1), "seed; it has directory, trusted, device"),
    ],
)
def test_a_wrong_argument_is_named_with_the_nearest(call, said):
    with pytest.raises(TypeError, match=re.escape(said)):
        call()


MISTAKES = [
    (lambda run: sb.dataset("nope"), "dataset=nope: must be a name in `samplerbench list dataset`"),
    (lambda run: sb.sampler("ddmi"), "did you mean ddim?"),
    (lambda run: sb.sampler("edm_churn", chrun=5), "; did you mean churn?"),
    (lambda run: sb.dataset("grid_mixture", width=1), "width=1: must be left out"),
    (lambda run: sb.dataset("gaussian", mean=object()), "dataset.mean="),
    (lambda run: sb.sampler("ddim", eta=-1), "sampler.ddim.eta=-1.0: must be at least 0"),
    (sample("ddim"), "must be one of the samplers that it is, as in sb.sampler('ddim'"),
    (lambda run: sb.sampler("ddim", eta=[1, 1]), "eta=[1, 1]: must be a list without repetitions"),
    (sweep([sb.sampler("ddim", eta=[0, 1]), "heun"], steps=2, starts=[]), "start=[]: must be at"),
    (lambda run: sb.plot(run.table, ax=Figure().subplots(3)), "must be an axes for each"),
    (lambda run: sb.budget(run, "heun", steps=2, converged_steps=2), "above the largest number of"),
    (lambda run: sb.budget(run, "heun", steps=2, starts="prior"), "start=['prior']: must be with"),
    (lambda run: sb.score(np.zeros((5, 3)), run), "samples=3 columns: must be 2 columns"),
    (lambda run: sb.score(np.zeros((2, 9)), LAW), "it may be on its side; save its transpose"),
    (lambda run: sb.score(np.zeros(9), LAW), "samples: must be a finite array of numbers"),
    (lambda run: sb.score("nothing.npy", LAW), "samples=nothing.npy: must be a file that exists"),
    (lambda run: sb.score(np.zeros((9, 2)), LAW, columns="x"), "columns=x: must be left out"),
    (lambda run: sb.score(np.zeros((9, 2)), np.ones((9, 2)), n_reference=5), "n_reference=5: must"),
    (
        lambda run: sb.score(np.zeros((9, 2)), "rings", n_reference=1),
        "n_reference=1: must be at least",
    ),
    (lambda run: sb.score(np.zeros((9, 2)), LAW, metrics="w_law_1d"), "needs 1-D data"),
    (lambda run: sb.score(np.zeros((9, 4, 2)), LAW, layout="rows"), "layout=rows: must be one of"),
    (lambda run: sb.check("picture", "loss"), "check=picture: must be one of dataset"),
    (lambda run: sb.load("nowhere"), "run=nowhere"),
    (lambda run: sb.load(None), "run=None: must be the folder of a run"),
    (lambda run: sb.sweep(3, "heun"), "dataset=3: must be a name, or a Dataset"),
    (sweep("hune"), "sampler=hune: must be a name in"),
    (
        lambda run: sb.train(Divided(torch.randn(40, 2)), settings={"n_train": 90}),
        "n_train=90: must be at most the rows of these parts of the data set: n_train=20",
    ),
    (sweep(Loose()), "must be a name, or a Sampler"),
    (sweep([Loose()]), "must be a name, or a Sampler"),
    (sweep(Plain(), steps=2), "sampler=Plain: must be a frozen dataclass"),
    (sweep(Secretive(torch.Generator()), steps=4), "cannot describe a Generator"),
    (sweep([]), "at least one"),
    (sweep([Heun(), Heun()]), "none twice"),
    (sweep(starts=[Exact(), Exact()]), "none twice"),
    (sweep(steps=[2.5]), "steps=2.5: must be a whole number"),
    (sweep(steps=0), "steps=0"),
    (sweep(steps=4, nfe=8), "None where nfe is given"),
    (sweep(nfe=0), "nfe=0"),
    (sweep(nfe=10**11), "nfe=100000000000: must be at least"),
    (sweep(n_samples=0), "n_samples=0"),
    (sweep(steps=4, n_samples=10**12), "n_samples=1000000000000: must be at most"),
    (sweep(repetitions=True), "repetitions=True"),
    (sweep(steps=4, grid=3), "grid=3: must be a name, or a fun"),
    (sweep(steps=4, grid=SimpleNamespace()), "grid=namespace"),
    (sweep(denoisers="learned"), "denoiser=learned: must be one of oracle"),
    (sweep(denoisers=3), "denoiser=3: must be a name, a list of names"),
    (sweep(denoisers=["oracle"] * 2), "must be at least one, and none twice"),
    *(
        (
            sweep(denoisers={name: Scaled(0.5)}),
            f"denoiser.{name}=Scaled: must be under another name",
        )
        for name in ("law", "oracle", "learned", "empirical", "pretrained")
    ),
    (lambda run: sb.sweep("four_well", "heun", metrics="sliced"), "four_well is not known"),
    (lambda run: sb.sweep(run, "heun", schedule="edm"), "a run has the one"),
    (lambda run: sb.sweep(run, "heun", denoisers={"x": LAW.oracle(VPCosine())}), "x.schedule"),
    (lambda run: sb.sweep(run, "heun", denoisers={"x": 3}), "denoiser.x=3"),
    *(
        (door, f"{where}=Scaled: must be one that maps states (n, 2) to (n, 2), in torch: it makes")
        for door, where in (
            (sweep(denoisers={"x": Scaled(torch.ones(3, 1, 1))}), "denoiser.x"),
            (sample(denoiser=Scaled(torch.ones(3, 1, 1))), "denoiser.Scaled"),
        )
    ),
    (
        sample(denoiser=gaussian([0.0] * 3, torch.eye(3).tolist()).oracle(EDM(10.0))),
        "must be one that maps states (n, 2) to (n, 2), in torch: RuntimeError: The size of tensor",
    ),
    (sample(start=Narrow()), "start.Narrow=(2000, 1): must be states of shape (2000, 2)"),
    (sample(grid=lambda path, steps: path), "levels=EDM: must be Levels of 4 steps"),
    (sample(grid=lambda path, n: uniform(path, n + 1)), "levels=5 steps: must be Levels of 4"),
    (sweep(grid=lambda path, steps: path), "levels=EDM: must be Levels of"),
    (sweep(final="no"), "final=no: must be denoise or none"),
    (sample(final="no"), "final=no: must be denoise or none"),
    (sample(n=0), "n=0"),
    (sample(n=10**12), "n=1000000000000: must be at most"),
    (sample(steps=10**11), "steps=100000000000: must be"),
    (sample(every=0), "every=0"),
    (lambda run: sb.sample("four_well", "heun", steps=4), "the law of four_well is not known"),
    (train(objective="nope"), "objective=nope: must be one of"),
    (train(network="nope"), "network=nope: must be one of"),
    (train(network="mlp"), "network=MLP"),
    (train(settings={"trainer.lrr": 1}), "trainer.lrr=1"),
    (train(settings={"trainer.lr": -1}), "trainer.lr=-1"),
    (train(settings={"dataset.mean": 3}), "dataset.mean=3: must be left"),
    (train(settings={"budget": 3}), "budget=3: must be left out"),
    (train(schedule=EDM(), settings={"schedule.sigma_max": 3}), "sigma_max=3: must be left out"),
    (train(steps=0), "steps=0"),
    (lambda run: sb.plot(run.table, metric="mmd"), "metric=mmd: must be one of max_sliced"),
    (lambda run: sb.plot(run.table, x="time"), "x=time"),
    (lambda run: sb.plot(run.table[:0]), "a table with values"),
    (lambda run: sb.plot(5), "table=int: must be a table of sweep"),
]


def test_mistakes_are_refused_in_one_line_before_any_work(run):
    for mistake, message in MISTAKES:
        with pytest.raises(InvalidSetting) as refused:
            mistake(run)
        assert message in str(refused.value)
        assert "\n" not in str(refused.value)


def test_a_run_is_read_without_being_written_to(finished):
    before = sorted(path.relative_to(finished) for path in finished.rglob("*"))
    sb.load(str(finished))
    assert sorted(path.relative_to(finished) for path in finished.rglob("*")) == before


@pytest.mark.slow
def test_tables_of_two_laws_are_two_curves():
    """Means of 0.5 and 1.6: one mean of both would be neither, with an interval."""
    laws = [sb.dataset("grid_mixture", spacing=spacing) for spacing in (4.0, 8.0)]
    tables = [sb.sweep(law, "heun", steps=[4, 8], starts="exact", **FEW) for law in laws]
    pooled = pd.concat(tables)
    lines = summary(pooled[pooled["denoiser"] != "law"])
    assert set(lines["count"]) == {2}
    for table in tables:
        for steps, rows in table[table["denoiser"] != "law"].groupby("steps"):
            own = lines[(lines["steps"] == steps) & (lines["mean"] == rows["value"].mean())]
            assert len(own) == 1
    (legend,) = sb.plot(pooled).legends
    names = [text.get_text() for text in legend.get_texts()]
    curves = [name for name in names if name.startswith("heun")]
    assert len(curves) == 2
    assert all("(measure " in name for name in curves)
    assert not any("floor" in name for name in names)  # there are two, and none is of both
    with pytest.raises(
        InvalidSetting,
        match="metric=max_sliced_certified: must be one setting against one law, not 2",
    ):
        ranking(pd.concat([tables[0], tables[1].assign(sampler="other")]), steps=4)


@dataclass(frozen=True)
class Worded(Mine):
    """Settings that are words and lists."""

    solver_type: str = "midpoint"
    weights: tuple[float, ...] = (1, 2.5)
    eta: str = "none"
    on: bool = True


def test_settings_may_be_words_and_lists():
    table = sb.sweep("grid_mixture", Worded(), steps=[4, 8], starts="exact", **FEW)
    cells = table[table["denoiser"] != "law"]
    assert set(cells["status"]) == {"ok"}
    assert cells["eta"].isna().all()
    assert set(summary(cells)["sampler"]) == {"Worded"}
    figure = sb.plot(table)
    (legend,) = figure.legends
    assert "Worded" in [text.get_text() for text in legend.get_texts()]
    (caption,) = (text.get_text() for text in figure.texts if "Worded" in text.get_text())
    assert "Worded: η=none on=true solver_type=midpoint weights=[1,2.5]" in " ".join(
        caption.split()
    )


def test_settings_may_be_arrays_and_paths(tmp_path):
    means = np.arange(6.0).reshape(3, 2)
    law = sb.dataset("gaussian_mixture", means=means, covariances=np.float64(0.5))
    assert law == sb.dataset("gaussian_mixture", means=means.tolist(), covariances=0.5)
    assert law == sb.dataset("gaussian_mixture", means=torch.from_numpy(means), covariances=0.5)
    assert sb.dataset("gaussian_spectrum", dim=np.int64(7)).dim == 7
    np.save(tmp_path / "a.npy", [3.0, 2.0])
    assert sb.dataset("gaussian_spectrum", path=tmp_path / "a.npy").dim == 2


def test_samples_that_do_not_arrive_are_no_value():
    """Two attempts at a tolerance of 1e-8: some samples are lost between the levels."""
    lossy = DormandPrince(1e-8, 1e-8, attempts=2)
    with pytest.warns(UserWarning, match="4 of 6 values: 50 of 50 samples are not finite"):
        table = sb.sweep("grid_mixture", lossy, steps=[4, 8], starts="exact", **FEW)
    cells = table[table["denoiser"] != "law"]
    assert set(cells["status"]) == {"diverged"}
    assert cells["value"].isna().all()


def test_a_model_that_was_changed_is_another_one(finished):
    few = {"samplers": "heun", "steps": 4, "starts": "prior", "denoisers": "learned", **FEW}
    run = sb.load(finished)
    before = sb.sweep(run, **few)
    with torch.no_grad():
        next(run.denoisers["learned"].parameters()).mul_(2)
    after = sb.sweep(run, **few)
    ids = [set(t.loc[t["denoiser"] == "learned", "setting_id"]) for t in (before, after)]
    assert ids[0].isdisjoint(ids[1])


def test_weights_keep_the_identity_of_the_training_that_made_them(finished, tmp_path, monkeypatch):
    """If code or data have changed since, a training of now would be another one."""
    few = {"samplers": "heun", "steps": 4, "starts": "prior", "denoisers": "learned", **FEW}
    run = sb.load(finished)
    made_by = set(run.table.query("denoiser == 'learned'")["training_id"])
    assert len(made_by) == 1
    assert set(sb.sweep(run, **few).query("denoiser == 'learned'")["training_id"]) == made_by
    monkeypatch.setitem(VERSIONS, "samplerbench", "a later one")
    assert set(
        sb.sweep(sb.load(finished), **few).query("denoiser == 'learned'")["training_id"]
    ) == (made_by)
    # weights from elsewhere are known by their content
    other = shutil.copytree(finished, tmp_path / "other")
    save(run.denoisers["learned"], other / "checkpoints" / WEIGHTS)
    found = set(sb.sweep(sb.load(other), **few).query("denoiser == 'learned'")["training_id"])
    assert len(found - made_by) == 1


def test_a_run_is_one_short_line_and_its_cells_are_summed_up(run):
    assert repr(run) == f"Run(grid_mixture: learned, oracle; {len(run.table)} values)"
    lines, same = sb.summary(run.table), ["start", "denoiser", "sampler_settings", "steps"]
    cells = run.table[run.table["denoiser"] != "law"]
    assert len(lines) == cells.groupby(same).ngroups + 1  # and the floor
    first = lines[lines["denoiser"] == "learned"].iloc[0]
    own = cells[(cells[same] == first[same]).all(axis=1)]["value"]
    assert first["mean"] == pytest.approx(own.mean())
    with pytest.raises(InvalidSetting, match="table=dict"):
        sb.summary({})
    with pytest.raises(InvalidSetting, match="level=1"):
        sb.summary(run.table, level=1)


def test_samples_that_no_metric_takes_are_named():
    with pytest.warns(UserWarning, match="50 of 50 samples are not finite"):
        sb.sample("grid_mixture", "heun", steps=4, n=50, denoiser=Scaled(1e20))


def test_runs_that_end_above_the_data():
    few = {"steps": 4, "starts": "exact", "metrics": "moments", **FEW}
    table = sb.sweep(LAW, "heun", final="none", **few)
    cells = table[table["denoiser"] != "law"]
    assert set(cells["final"]) == {"none"}
    assert set(cells["nfe"]) == {8}
    both = pd.concat([cells, sb.sweep(LAW, "heun", **few).query("denoiser != 'law'")])
    assert both["setting_id"].nunique() == 2
    assert set(curve_names(both)) == {"heun (final=none)", "heun (final=denoise)"}
    # the same levels, and then x̂₀
    noisy = sb.sample(LAW, "heun", steps=4, n=50, start="exact", final="none")
    level = sb.grid("karras")(sb.schedule("edm", sigma_max=10.0), 5).rows[-2]
    ends = LAW.oracle(EDM(10.0)).denoiser(torch.from_numpy(noisy), level)
    same = sb.sample(LAW, "heun", steps=5, n=50, start="exact", final="denoise")
    np.testing.assert_allclose(ends.numpy(), same, rtol=1e-12)


@pytest.mark.slow
def test_rows_that_depend_on_the_rows_before_them_are_warned_of():
    walk = np.random.default_rng(0).normal(size=(500, 2)).cumsum(0)
    law = sb.dataset("gaussian", mean=[0.0, 0.0], covariance=[[1.0, 0.0], [0.0, 1.0]])
    with pytest.warns(UserWarning, match="samples: its rows depend .* layout='draw'") as caught:
        sb.score(walk, law, metrics="sliced")
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="data: its rows depend .* thin them"):
        sb.score(np.random.default_rng(0).normal(size=(500, 2)), walk, metrics="sliced")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sb.score(np.random.default_rng(0).normal(size=(500, 2)), law, metrics="sliced")


def test_the_parts_of_a_training_have_names():
    """A recipe by its name, then changed; a wrong name is one line."""
    law = sb.dataset("two_clusters")
    settings = {"trainer": "long", "trainer.batch_size": 64, "n_train": 200, "n_validation": 50}
    run = sb.train(law, steps=2, settings={**settings, "level_law": "log_uniform"})
    assert run.denoisers["learned"].trained_noise > 0
    with pytest.raises(InvalidSetting, match="trainer=slow"):
        sb.train(law, steps=2, settings={"trainer": "slow"})
    with pytest.raises(InvalidSetting, match="trainer=3: must be the name of a member"):
        sb.train(law, steps=2, settings={"trainer": 3})


@pytest.mark.slow
def test_denoisers_that_alter_the_exact_one_have_names():
    few = {"steps": 3, "n_samples": 50, "repetitions": 1, "floor_repetitions": 0}
    law = sb.dataset("grid_mixture")
    named = sb.sweep(law, "heun", denoisers=["corrupted", "autoguided"], metrics="sliced", **few)
    oracle = law.oracle(sb.schedule("edm"))
    worse = law.noised(0.1).oracle(sb.schedule("edm"))
    own = {"c": Corrupted(oracle, 0.1), "a": Guided(oracle, worse, 2.0)}
    objects = sb.sweep(law, "heun", denoisers=own, metrics="sliced", **few)
    values = [list(table.sort_values("denoiser")["value"]) for table in (named, objects)]
    assert values[0] == values[1]
    for wrong, known in ((law, "corrupted, autoguided"), ("pinwheel", "none here")):
        with pytest.raises(InvalidSetting, match=f"denoiser=guided: must be one of .*{known}"):
            sb.sweep(wrong, "heun", denoisers=["guided"], **few)
