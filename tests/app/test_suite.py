"""`samplerbench suite`: the tasks of its versions, a run of a few of them, and what is refused."""

import json
import random
import re
import shutil
import subprocess
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf

import samplerbench as sb
from helpers import normal
from samplerbench.app.commands import suite
from samplerbench.app.commands.run import main as run_jobs
from samplerbench.app.config.compose import compose_config
from samplerbench.app.job.build import build
from samplerbench.app.job.suite import samplers_of, suite_results
from samplerbench.app.job.training import training_keys
from samplerbench.bench.suite.results import RECORDED, TARGETS

#: Tasks of seconds: with and without noise, and one that is new in version 2.
FEW = ("v1/checkerboard-edm", "v1/gaussian-edm", "v2/grid_mixture-edm-learned")
WORDS = ("logger=none", "cache=off", "workers=1")
GALLERY = Path(__file__).parents[2] / "multirun" / "gallery" / "suite"
#: How the weights of the learned tasks were trained.
RECIPE = ("weights=null", "trainer=long")


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(suite, "QUICK", FEW)
    monkeypatch.setattr(suite, "QUICK_WORDS", ("nfe=[4,8]", "n_samples=32"))


@pytest.mark.parametrize(
    ("version", "number", "expected"),
    [("v1", 36, "de84216755d10780"), ("v2", 51, "f99540be414315a2")],
)
def test_a_version_is_fixed(version, number, expected):
    """The tasks, their files of weights and the targets: any change of them needs a new version.

    Version 2 has all tasks of version 1, whose files are in the folder of version 1 alone.
    """
    digest, folder = sha256(), suite._folder(version)
    for path in sorted(folder.rglob("*.*")):
        text = path.suffix == ".yaml"
        content = path.read_text().encode() if text else path.read_bytes()
        digest.update(path.relative_to(folder).as_posix().encode() + content)
    digest.update(json.dumps({key: [*TARGETS[key]] for key in sorted(TARGETS)}).encode())
    assert digest.hexdigest()[:16] == expected
    assert len(suite.tasks(version)) == number
    assert {*suite.tasks("v1")} <= {*suite.tasks(version)}


@pytest.mark.slow
def test_the_recipe_of_the_learned_weights_is_fixed():
    """Each law and each path once: all settings on which a training depends."""
    digest = sha256()
    for name in ("checkerboard-edm", "grid_mixture-rectified", "two_moons-vp_linear"):
        config, _ = compose_config([f"experiment=suite/v1/{name}-learned", *RECIPE])
        plain = OmegaConf.to_container(config, resolve=True)
        keys = [*training_keys(config), "dataset", "data_seed", "train_seed", "threads"]
        digest.update(json.dumps({key: plain[key] for key in keys}, sort_keys=True).encode())
    assert digest.hexdigest()[:16] == "58eaa21624cbcde1"


@pytest.mark.slow
def test_the_recipe_gives_the_learned_weights(typed, tmp_path):
    """One of the nine, at random, trained again.

    Other instructions round differently, so elsewhere the bits differ, and x̂₀ by less than a
    hundredth of the error of the network.
    """
    name = random.choice([task for task in suite.tasks("v1") if task.endswith("-learned")])
    words = (f"experiment=suite/{name}", *RECIPE, "sampler=[]", "picture=[loss]")
    status, _, err = typed(*words, "logger=none", "cache=off", "hydra.run.dir=again")
    assert status == 0, (name, err)
    sweep = sb.load("again").sweep
    kept = build(*compose_config([f"experiment=suite/{name}", "cache=off"]), name).sweep
    models = [sweep.denoisers["learned"], kept.denoisers["learned"]]
    models.append(sweep.dataset.oracle(sweep.schedule))
    x0 = sweep.dataset.draws(2000, "test")
    for row in sweep.levels(8).rows[1:8:2]:
        x = row.alpha * x0 + row.sigma * normal(*x0.shape)
        again, file, exact = (model.denoiser(x, row) for model in models)
        assert (again - file).norm() < 0.01 * (file - exact).norm(), (name, row)


@pytest.mark.parametrize(
    "names",
    [
        ["v2/four_wells_noisy-edm", "v1/gaussian-rectified", "v1/two_moons-edm-learned"],
        pytest.param(suite.tasks(), marks=pytest.mark.slow),
    ],
    ids=["three", "all"],
)
def test_every_task_can_be_composed(names):
    for name in names:
        config, choices = compose_config([f"experiment=suite/{name}"])
        version, _, task = name.partition("/")
        law, path, *rest = task.split("-")
        assert version == "v1" or [*config.metric] == ["kl_law"]
        assert choices["schedule"] == path
        assert config.denoiser == ("learned" if rest else config.denoiser)
        assert list(config.nfe) == [4, 6, 8, 12, 16, 24, 32, 64, 128]
        kinds = {sampler.stochastic for _, sampler in samplers_of(config)}
        noisy, both = law == "four_wells_noisy", law == "gaussian"
        assert kinds == ({True} if noisy else {True, False} if both else {False})


@pytest.mark.slow
def test_a_run_has_results_a_page_and_an_entry(few, typed, tmp_path):
    words = ("suite", "suite=quick", "sampler=dormand_prince", *WORDS)
    status, out, err = typed(*words)
    assert status == 0, err
    folder = tmp_path / "multirun" / "suite-v2-quick-dormand_prince"
    for name in ("results.parquet", "index.html", "suite_shares.png", "entry.parquet"):
        assert (folder / name).exists()
    results = pd.read_parquet(folder / "results.parquet")
    assert results["entrant"].str.startswith("dormand_prince ").all()
    # on the Gaussian the law of its output is not known: × with the reason; the rest is measured
    status = results.groupby("quantity")["status"].agg(set).to_dict()
    bad = {"incompatible"}
    assert status == {"paired": {"ok"}, "w2_law_gaussian": bad, "kl_law": bad}
    assert "on gaussian_spectrum edm oracle w2_law_gaussian: it chooses its steps" in out
    assert "Suite v2 quick, samplers without noise, common grid" in out

    # how the jobs ran is beside the values
    (versions,), (machines,) = (results[name].unique() for name in RECORDED)
    assert json.loads(versions)["torch"] == version("torch")
    (machine,) = json.loads(machines)
    assert machine["threads"] == 1
    assert {"model", "instructions", "system"} < {*machine}

    # again, without a cache: the same values
    again = typed(*words)
    assert again[0] == 0
    before = results.set_index("cell_id")["value"].sort_index()
    after = suite_results(folder).set_index("cell_id")["value"].sort_index()
    assert before.equals(after)

    # the page of a part of the jobs
    shutil.copytree(folder / "0", tmp_path / "part" / "0")
    status, out, err = typed("suite", "page", "part", "out=page")
    assert status == 0, err
    assert {*pd.read_parquet(tmp_path / "page" / "results.parquet")["law"]} == {"checkerboard"}


@pytest.mark.slow
def test_a_sampler_of_one_s_own_folder_enters(few, typed, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()
    for name, text in re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", page, re.DOTALL):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    own = ("--config-dir", "conf", "trusted=lab")
    status, _, err = typed("suite", *own, "suite=quick", "sampler=mine", *WORDS)
    assert status == 0, err
    folder = "multirun/suite-v2-quick-mine"
    assert (tmp_path / folder / "entry.parquet").exists()
    assert typed("suite", "page", folder, *own, "out=page")[0] == 0
    assert "out=not given: must be a folder" in typed("suite", "page", f"{folder}/entry.parquet")[2]
    # the folder can be named with the words that its sampler needs
    status, _, err = typed("suite", *own, f"results={folder}")
    assert (status, "must be results of an earlier version than v2" in err) == (2, True), err
    # the same values twice, or the results of the gallery in their place, are refused
    status, _, err = typed("suite", "page", folder, f"{folder}/entry.parquet", *own)
    assert (status, "with each value once" in err) == (2, True)
    shutil.copytree(tmp_path / "page", tmp_path / "gallery")
    assert "stay as they are" in typed("suite", "page", "gallery")[2]


@pytest.mark.slow
def test_only_tasks_without_results_are_run(typed, tmp_path, monkeypatch):
    """With the results of version 1, whose rows stay as they are, also when the suite goes on."""
    names = ["v1/gaussian-rectified", "v1/grid_mixture-edm-learned", "v2/grid_mixture-edm-learned"]
    monkeypatch.setattr(suite, "tasks", lambda version: suite._until(version, names))
    whole = pd.read_parquet(GALLERY / "v1" / "results.parquet")
    entrants = whole.loc[~whole["noise"] & (whole["package"] == "samplerbench"), "entrant"].unique()
    whole = whole[whole["entrant"].isin(entrants)]
    (tmp_path / "v1").mkdir()
    whole.to_parquet(tmp_path / "v1" / "results.parquet", index=False)
    smaller = ["nfe=[4]", "n_samples=16"]
    jobs = "samplerbench.app.commands.run.main"
    monkeypatch.setattr(jobs, lambda words: run_jobs([*words, *smaller]))
    for more in (["results=v1"], []):
        status, out, err = typed("suite", *more, *WORDS)
        assert status == 0, err
        assert "2 jobs in multirun/suite-v2" in out  # two grid settings of the new task
        assert "Suite v2, samplers without noise, own grid" in out
    results = pd.read_parquet(tmp_path / "multirun" / "suite-v2" / "results.parquet")
    new = results["command"].str.contains("suite/v2/")
    pd.testing.assert_frame_equal(
        results[~new].reset_index(drop=True), whole.reset_index(drop=True)
    )
    assert {*results.loc[new, "quantity"]} == {"kl_law"}
    assert {*results.loc[new, "entrant"]} == {*entrants}

    # results of entrants that the new tasks do not have; results of this version; trials
    changed = whole.assign(entrant=whole["entrant"].replace("heun", "mine"))
    (tmp_path / "other").mkdir()
    changed.to_parquet(tmp_path / "other" / "results.parquet")
    for words, part in {
        ("results=other",): "results=mine: must be those of the entrants of the suite alone",
        ("results=multirun/suite-v2",): "must be results of an earlier version than v2",
        ("results=v1", "suite=v1"): "must be results of an earlier version than v1",
        ("results=v1", "suite=quick"): "must be results of an earlier version than v2 quick",
    }.items():
        status, _, err = typed("suite", *words, "hydra.sweep.dir=refused")
        assert (status, part in err) == (2, True), err
    assert not (tmp_path / "refused").exists()


@pytest.mark.slow
def test_in_wandb_the_suite_is_one_group(few, typed, tmp_path, wandb_runs):
    words = ("suite", "suite=quick", "sampler=euler", "logger=wandb", "cache=off", "workers=1")
    status, _, err = typed(*words)
    assert status == 0, err
    name = "suite-v2-quick-euler"
    runs = [run for job in "012" for run in wandb_runs(tmp_path / "multirun" / name / job)]
    assert [run["run_group"] for run in runs] == 3 * [name]
    for run, task in zip(runs, FEW, strict=True):
        assert run["display_name"].endswith(f"experiment=suite/{task}")
        assert run["config"]["choices"]["experiment"] == f"suite/{task}"


def test_what_other_processes_print_is_in_the_file_too(tmp_path, capfd):
    """The workers of joblib are processes; errors stay on the terminal."""
    path = tmp_path / "output.txt"
    with suite._printing_to(path):
        print("here")
        subprocess.run("echo there; echo wrong >&2", shell=True, check=True)
    print("after")
    assert sorted(path.read_text().split()) == ["here", "there"]
    assert capfd.readouterr() == ("after\n", "wrong\n")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["suite=large"], "suite=large: must be left out, or one of quick, v1, v1 quick, v2, v2 "),
        (["suite=v1", "suite=quick"], "suite=v1,quick: must be given once"),
        (["results=there_is_none"], "run=there_is_none"),
        (["sampler=heun", "results=x"], "results=x: must be left out with sampler="),
        (["nfe=[4]"], "suite=nfe=[4]: must be left out: the tasks of the suite are fixed"),
        (["sampler=ddim,heun"], "must be one sampler, or a list in brackets: sampler=[ddim,heun]"),
        (["sampler=heun", "seed=7"], "suite=seed=7: must be left out: the tasks of the suite"),
        (["sampler=heun", "grid.rho=3"], "suite=grid.rho=3: must be left out"),
        (["sampler=heun", "hydra.sweep.dir="], "hydra.sweep.dir=: must be the name of a folder"),
        (["page", "there_is_none", "foo=1"], "foo=1: must be left out: suite page uses out"),
        (["sampler=[heun,ancestral]"], "samplers that all draw noise, or all draw none"),
        (["sampler=heun", "verify"], "suite=verify: must be key=value, such as suite=quick; page"),
        (["quick"], "suite=quick: must be key=value, such as suite=quick; page"),
        (["sampler=heun", "workers=two"], "workers=two: must be"),
        (["sampler=heun", "cache=no"], "cache=no: must be one of on, off, refresh"),
        (["suite=quick", "cache_dir="], "cache_dir=: must be a folder"),
        (["sampler=heun", "n_sampels=5"], "n_sampels"),
        (["page"], "followed by folders of a suite"),
        (["page", "there_is_none"], "run=there_is_none"),
        (["table"], "suite=table: must be followed by folders of a suite"),
        (["table", "there_is_none"], "run=there_is_none"),
        (["verify"], "followed by the file of one entry"),
        (["verify", "there_is_none"], "entry=there_is_none: must be the file of an entry"),
        (["suite=quick", "sampler=hmc"], "sampler=hmc: must be one that can be measured"),
    ],
)
def test_bad_words_are_one_line(words, part, refuses):
    refuses(["suite", *words], part)


def test_the_packages_of_entrants_are_needed(refuses, monkeypatch):
    """Not for an entry, which has other samplers."""
    from importlib.metadata import PackageNotFoundError

    from samplerbench.samplers import peers

    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(peers, "version", absent)
    refuses(["suite"], "diffusers", "[peers]")
