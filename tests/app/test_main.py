"""The command line: what a user types, and what a user sees."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest
import safetensors.torch
import yaml

from samplerbench.app.config.compose import require_different_jobs
from samplerbench.app.config.folders import conf_directory, groups, run_name
from samplerbench.app.job.build import build
from samplerbench.app.main import COMMANDS
from samplerbench.bench.cell import NOT_A_DENSITY
from samplerbench.core.models import IsotropicMixtureOracle
from samplerbench.errors import InvalidSetting
from samplerbench.training.fitting import Fitting

TINY = ("experiment=tiny", "logger=none")
ORACLE = (*TINY, "denoiser=oracle", "steps=4", "sampler.ddim.eta=0", "start=exact")
LEARNED = (*TINY, "denoiser=learned", "steps=2", "sampler.ddim.eta=0", "trainer.steps=1")


def only_run(folder: Path) -> Path:
    (run,) = (folder / "multirun").glob("[!.]*")  # beside it lies the cache
    return run


def test_the_tiny_main_job_leaves_everything(typed, tmp_path, wandb_runs):
    status, out, err = typed("experiment=tiny", "floor_free=true", "sampler.ddim.eta=[0,0.5]")
    assert status == 0, err
    folder = only_run(tmp_path)
    table = pd.read_parquet(folder / "cells.parquet")
    # learned and oracle × prior and exact × two η × two N × two repetitions, and the floor
    in_samples = table["reference"] == "data"
    assert in_samples.sum() == 2 * 2 * 2 * 2 * 2 + 4
    # without a floor: a divergence at η = 0, a paired distance of the exact score at η = 0.5
    assert (table["metric"] == "kl_law").sum() == 2 * 2 * 2
    assert (table["reference"] == "converged").sum() == 2
    assert set(table.loc[table["metric"] != "kl_law", "status"]) == {"ok"}
    assert "to the same run with 27 steps" in " ".join(out.split())
    whole, table = table, table[in_samples]
    assert (table["value"] > 0).all()
    assert set(table["experiment"]) == {"tiny"}
    assert set(table["run"]) == {folder.name}
    figure = folder / "distance_max_sliced_certified.png"
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert yaml.safe_load((folder / "config.yaml").read_text())["n_samples"] == 200
    (log,) = wandb_runs(folder)
    assert log["config"]["n_samples"] == 200
    assert log["display_name"] == "ddim · edm · grid_mixture"
    assert set(log["tags"]) == {"ddim", "edm", "grid_mixture"}
    assert (log["files"] / "report.txt").read_bytes() == (folder / "report.txt").read_bytes()
    history = {key: value for line in log["history"] for key, value in line.items()}
    assert {"train/loss", "validation/loss"} <= set(history)
    cells = json.loads((log["files"] / history["cells.path"]).read_text())
    assert len(cells["data"]) == len(whole)
    drawn = log["files"] / history["distance/max_sliced_certified.path"]
    assert drawn.read_bytes() == figure.read_bytes()
    name = "max_sliced_certified/oracle/exact/ddim_eta_0_5"
    curve = {line["steps"]: line[name] for line in log["history"] if name in line}
    cell = table.query("denoiser == 'oracle' and start == 'exact' and eta == 0.5")
    assert curve == pytest.approx(dict(cell.groupby("steps")["value"].mean()))
    assert "floor" in out
    assert "N=9" in out
    assert str(figure.relative_to(tmp_path)) in out.replace("\n", "")


EXPERIMENTS = [
    path.relative_to(conf_directory() / "experiment").with_suffix("").as_posix()
    for path in sorted((conf_directory() / "experiment").rglob("*.yaml"))
    # the weights of celebahq are a download: tests/training/test_pretrained.py; the tasks of the
    # suite run in test_suite.py
    if path.stem != "celebahq" and "suite" not in path.parts
]
#: The slow suite builds (test_configs.py) and runs all of them.
QUICK = ("n0/chain",)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in EXPERIMENTS],
)
def test_every_experiment_runs_from_end_to_end(typed, tmp_path, name):
    few = ["n_samples=60", "block=30", "n_train=100", "n_validation=20", "n_reference=80"]
    few += ["steps=[2,3]", "repetitions=2", "floor_repetitions=2", "trainer=tiny", "logger=none"]
    few += ["trainer.steps=3"]
    if name.startswith(
        ("shapes/samplers", "shapes/all", "shapes/heun", "shapes/corr", "shapes/gaussian_heun")
    ):
        few[5] = "nfe=[3,5]"
    if name == "shapes/restart":  # ten restarts of two steps of two evaluations
        few[5] = "nfe=[41,43]"
    if name == "shapes/many_well":  # one step of four replicas, or of eight particles
        few[5] = "nfe=[40,41]"
    if name in ("shapes/samplers", "images/budget"):
        few += ["budget.converged_steps=8"]
    if name == "shapes/restart":
        few += ["picture.contraction.points=50"]
    if name == "budget":
        few += ["budget.converged_steps=5", "sampler.ddim.eta=[0,1]"]
    status, out, err = typed(f"experiment={name}", *few)
    assert status == 0, err
    folder = only_run(tmp_path)
    assert {*(folder / "report.txt").read_text().splitlines()} <= {*out.splitlines(), ""}
    if name in ("n0/chain", "n1/inference_process", "n1/noising", "shapes/clones"):  # pictures only
        assert list(folder.glob("*.png")) + list(folder.glob("*.gif"))
        return
    table = pd.read_parquet(folder / "cells.parquet")
    chains = table["reference"] == "chain"  # three steps are too few to examine
    # a network of three steps has no density, nor have two steps with noise near the data
    without = ("main", "shapes/grids_kl", "shapes/ode_or_sde")
    without += ("shapes/autoguidance", "shapes/entropic")
    allowed = {"ok", NOT_A_DENSITY} if name in without else {"ok"}
    allowed |= {"incompatible"} if name == "shapes/many_well" else set()  # ln Z of chains
    assert {"ok"} <= set(table["status"][~chains]) <= allowed
    assert set(table["status"][chains]) <= {"incompatible"}
    of_laws = table["metric"].str.contains("law_gaussian|kl_law|w_output").all()
    assert ("floor" in out) != of_laws  # they have none
    if name == "budget":
        assert (folder / "budget_max_sliced_certified.png").stat().st_size > 1000
        assert {"data", "oracle", "exact", "converged", "doubled"} == set(table["reference"])


#: Mistakes that Hydra, OmegaConf or the parser notice, and one of each later stage.
MISTAKES = [
    ("sampler=ddmi", "must be a name in `samplerbench list sampler`; did you mean ddim?"),
    ("dataset=moons_2", "must be a name in `samplerbench list dataset`; did you mean two_moons?"),
    ("smapler=ddim", "smapler=ddim", "no such key; did you mean sampler"),
    ("experimnt=tiny", "experimnt=tiny", "no such key; did you mean experiment?"),
    ("sampler=ddim,heun", "must be one value", "brackets, 'sampler=[ddim,heun]'"),
    ("dataset=file", "dataset.path=: must be given"),
    ("+n_sample=5", "n_sample=5", "no part of a job uses it; did you mean n_samples?"),
    ("eta=1", "eta=1", "did you mean sampler.ddim.eta?"),
    ("+eta=0.5", "eta=0.5", "no part of a job uses it; did you mean sampler.ddim.eta?"),
    ("dataset=two_moons dataset.nois=1", "dataset.nois=1", "did you mean dataset.noise?"),
    ("sampler=[ddim,huen]", "sampler=huen", "did you mean heun?"),
    ("sampler=[ddim,heun,ddim]", "must be a list", "each name occurs once"),
    ("trainer=[long,tiny]", "trainer=[long,tiny]: must be one name: a job has one trainer"),
    ("dataset=rings,[rings,tree] -m", "[rings,tree]: must be one name: a job has one dataset"),
    ("sampler=heun,[ddim,ddim] -m", "must be a list in which each name occurs once"),
    *(
        (f"{group}=[{name},{name}]", f"{group}=[{name},{name}]: must be a list in which each name")
        for group, name in (("metric", "sliced"), ("start", "exact"), ("picture", "samples"))
    ),
    *(
        (f"{word} -m", f"{word}: must be values for a multirun, each once")
        for word in (
            *("sampler=heun,heun", "seed=1,1", "seed=0,2,0", "nfe=8,8", "nfe=[4,8],[4,8]"),
            *("nfe=8,[8]", "sampler=heun,[heun]", "sampler=ddim,'ddim'", "grid.rho=7,7.0"),
            *("seed=choice(1,1)", "dataset={a:1,b:2},{b:2,a:1}"),
        )
    ),
    ("reports", "reports: must be a command", "did you mean report?"),
    ("two_moon", "two_moon: must be a command", "did you mean dataset=two_moons?"),
    ("train", "train: must be a command", "see samplerbench --help"),
    ("experiment=n1/nonsense", "did you mean n1/ddim or n1/"),
    ("+sampler=3", "sampler=3", "ddim"),
    ("logger=null", "logger=null", "wandb"),
    ("guidance=3", "guidance=3", "only denoiser=guided or autoguided uses it"),
    ("corruption.amplitude=.3", "corruption=", "only denoiser=corrupted uses it"),
    ("hydra.run.dir=/proc/no/such", "/proc"),
    ("n_samples=???", "n_samples", "Missing"),
    ("steps=[4", "steps=[4", "a bracket or a quote is missing"),
    ("seed=1 -m steps=4", "steps=4: must be next to the other words"),
    ("--nothing", "--nothing: no such option"),
    ("--cfg nothing", "invalid choice: 'nothing'"),
    ("seed=one", "seed=one", "integer"),
    ("sampler.ddim.eta=-1", "sampler.ddim.eta=-1", "at least 0"),
    ("logger._target_=os.system", "logger._target_=os.system", "samplerbench"),
]


def test_a_mistake_is_one_line_and_status_2(refuses):
    for words, *parts in MISTAKES:
        refuses([*TINY, *words.split()], *parts)
    for word, extra in (("hydra/launcher=ray", "ray"), ("hydra/sweeper=optuna", "optuna")):
        if find_spec(f"hydra_plugins.hydra_{extra}_{word.split('/')[1].split('=')[0]}") is None:
            line = refuses(["-m", word, "seed=0,1"])
            assert line.endswith(f"(it comes with pip install 'samplerbench[{extra}]')")


def test_values_of_a_multirun_that_only_look_alike_are_different():
    """1 and true, the order of a list, a range, and one value of two keys."""
    words = ["seed=1,true", "nfe=[4,8],[8,4]", "n_samples=range(1,3)", "repetitions=1"]
    require_different_jobs([*words, "sampler=heun,ddim", "sampler.ddim.eta=0,1"])


def test_equal_jobs_in_a_config_are_refused_before_any_work(typed, tmp_path):
    own = tmp_path / "conf" / "experiment"
    own.mkdir(parents=True)
    text = "# @package _global_\nhydra: {sweeper: {params: {seed: '3,3'}}}\n"
    (own / "mine.yaml").write_text(text)
    words = ("-m", "--config-dir", "conf", *ORACLE, "experiment=mine", "hydra.sweep.dir=runs")
    status, _, err = typed(*words)
    assert status == 2
    assert "job 0 of runs: seed=3,3: must be values for a multirun, each once" in err
    assert not list(tmp_path.rglob("cells.parquet"))


def test_debug_shows_the_traceback(typed):
    with pytest.raises(InvalidSetting, match="eta"):
        typed(*TINY, "sampler.ddim.eta=-1", "debug=true")


@pytest.mark.slow
def test_every_job_that_failed_is_named_at_the_end_and_the_others_go_on(
    typed, tmp_path, monkeypatch
):
    words = ("-m", *ORACLE, "hydra.sweep.dir=runs", "sampler.ddim.eta=0,-1")
    status, _, err = typed(*words, "n_samples=60,???")
    assert status == 2
    said = [re.search(r"samplerbench: job (\d) of runs: (.*)", line) for line in err.splitlines()]
    assert [match.groups() for match in said if match] == [
        ("1", "MissingMandatoryValue: Missing mandatory value: n_samples"),
        *(
            (str(job), f"sampler.ddim.eta={eta}: must be at least 0 and finite")
            for job, eta in enumerate((-1.0, -1.0), 2)
        ),
    ]
    assert len(list(tmp_path.rglob("cells.parquet"))) == 1
    states = [json.loads((tmp_path / "runs" / job / "status.json").read_text()) for job in "02"]
    assert [state["state"] for state in states] == ["finished", "failed"]
    assert "sampler.ddim.eta=-1" in states[1]["message"]
    monkeypatch.setattr("samplerbench.app.commands.run.MOST_NAMED", 1)
    status, _, err = typed("-m", *ORACLE, "hydra.sweep.dir=more", "sampler.ddim.eta=-1,-2,-3")
    assert status == 2
    first, second, rest = err.strip().splitlines()[-3:]
    assert "job 0 of more: sampler.ddim.eta=-1" in first
    assert "job 1 of more: sampler.ddim.eta=-2" in second
    assert "1 more job" in rest


def test_a_failed_cell_ends_with_status_1_and_the_other_jobs_go_on(typed, tmp_path, monkeypatch):
    def fails(self, x, level):
        raise RuntimeError("defect")

    monkeypatch.setattr(IsotropicMixtureOracle, "denoiser", fails)
    status, out, err = typed("-m", *ORACLE, "seed=0,1")
    assert status == 1
    assert err.count("2 values failed") == 2
    assert "defect" in out
    assert len(list(tmp_path.rglob("cells.parquet"))) == 2


@pytest.mark.parametrize("shown", [["metric=[]", "picture=[samples]"], []])
def test_weights_that_are_not_finite_end_the_job_in_one_line_with_status_1(typed, tmp_path, shown):
    status, _, err = typed(*LEARNED, *shown, "trainer.lr=1e39", "trainer.warmup=0")
    said = "trainer.lr=1e+39: must be smaller: the weights are not finite after step 1"
    assert (status, err) == (1, f"samplerbench: {said}\n")
    status = json.loads((only_run(tmp_path) / "status.json").read_text())
    assert (status["state"], status["message"]) == ("failed", said)


def test_weights_of_a_run_that_are_not_finite_are_refused(run, refuses):
    path = run / "checkpoints" / "model.safetensors"
    weights = safetensors.torch.load_file(path)
    weights[next(iter(weights))].fill_(float("nan"))
    safetensors.torch.save_file(weights, path)
    for words in (["sample", "sampler=heun", "steps=2", "n=3", "out=x.npy"], ["export", "out=x"]):
        refuses([*words, run], "the weights are not all finite")


def test_an_interrupt_in_training_is_said(typed, monkeypatch):
    def interrupted(self, batch, batch_idx):
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Fitting, "training_step", interrupted)
    # a job that a shell started in the background ignores the signal
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        status, _, err = typed(*LEARNED)
    finally:
        signal.signal(signal.SIGINT, before)
    assert status == 130
    assert "interrupted" in err


START = (Path(__file__).parents[2] / "docs" / "start.md").read_text().replace("\\\n", "")
START_COMMANDS = [
    line.split("#")[0].strip()
    for line in START.splitlines()
    if re.match(r"samplerbench (?!score|design)\S+=", line)
    and not re.search(r"RUN|scaled\.csv", line)  # of a run, or of a file of the reader's
]


@pytest.mark.slow
@pytest.mark.parametrize("built", [False, True])
def test_the_commands_of_the_docs_can_run(composed, built):
    assert len(START_COMMANDS) > 5
    for line in START_COMMANDS:
        config = composed(*shlex.split(line)[1:])
        assert build(config, {}, "test") if built else config.n_samples, line


def test_run_folders_never_collide():
    assert len({run_name() for _ in range(10_000)}) == 10_000


def test_help_lists_the_groups_and_what_they_hold(typed):
    status, out, _ = typed("--help")
    assert all(f"samplerbench {name} " in out for name in COMMANDS)
    assert status == 0
    assert all(f"{group}: " in out for group in groups())
    assert re.search(r"sampler: .*ddim.*euler.*heun", out)
    assert re.search(r"schedule: .*edm.*rectified.*vp_cosine", out)


def test_every_command_says_what_it_is(typed):
    for name in COMMANDS:
        status, out, err = typed(name, "--help")
        assert (status, err) == (0, "")
        assert f"samplerbench {name}" in out


def test_nobody_to_read_the_output_is_no_defect(tmp_path):
    """The reader of the output has left (status 1), or the output was closed from the beginning."""
    pipes = {"cwd": tmp_path, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-m", "samplerbench", "list", "datasets"]
    left = subprocess.Popen(command, **pipes)
    left.stdout.close()
    assert left.stderr.read() == b""
    assert left.wait() == 1
    closed = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
    done = subprocess.run(closed, cwd=tmp_path, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_what_needs_no_work_imports_no_torch(tmp_path):
    """One process for all: a module that one of them imports stays for the next."""
    commands = ["--help", "list metrics", "sampler=nobody", "seed=1 -m steps=4", "n_samples=-3"]
    commands += ["steps=[4,0]", "score", "score nothing.npy dataset=grid_mixture", "report nowhere"]
    commands += [
        "cite nowhere",
        "check heun nobody",
        "check heun dataset=nothing",
        "sample nowhere",
        "cache cache_dir=.",
    ]
    code = (
        "import sys; from samplerbench.app.main import main\n"
        f"for line in {commands}:\n"
        "    sys.argv = ['samplerbench', *line.split()]\n"
        "    try: main()\n"
        "    except SystemExit: pass\n"
        "    heavy = {'torch', 'pytorch_lightning', 'wandb'} & set(sys.modules)\n"
        "    assert not heavy, (line, heavy)\n"
        "import samplerbench.report.page; assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)


@pytest.mark.slow
def test_a_job_imports_only_what_every_job_needs():
    """Half a second for scipy.stats, and seconds for the others, also if all is in the cache."""
    slow = {"scipy.stats", "pytorch_lightning", "wandb", "matplotlib"}
    code = f"import sys, samplerbench.app.job.run; print(*{slow} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []
