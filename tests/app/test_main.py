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

from samplerbench.app.folders import conf_directory
from samplerbench.app.main import main
from samplerbench.bench.store import CLOCKS

TINY = ("experiment=tiny", "logger=none")
ORACLE = (*TINY, "denoiser=oracle", "steps=4", "sampler.ddim.eta=0", "start=exact")


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Run a command line in an empty folder: (status, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def command(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["samplerbench", *words])
        try:
            main()
            status = 0
        except SystemExit as leaving:
            status = int(leaving.code or 0)
        out, err = capsys.readouterr()
        return status, out, err

    return command


def only_run(folder: Path) -> Path:
    (run,) = (folder / "multirun").glob("[!.]*")  # beside it lies the cache
    return run


def test_the_tiny_main_job_leaves_everything(run, tmp_path, wandb_runs):
    status, out, err = run("experiment=tiny")
    assert status == 0, err
    folder = only_run(tmp_path)
    table = pd.read_parquet(folder / "cells.parquet")
    # learned and oracle × prior and exact × four η × two N × two repetitions, and the floor
    assert len(table) == 2 * 2 * 4 * 2 * 2 + 4
    assert set(table["status"]) == {"ok"}
    assert (table["value"] > 0).all()
    assert set(table["experiment"]) == {"tiny"}
    assert set(table["run"]) == {folder.name}
    figure = folder / "distance_max_sliced_certified.png"
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert yaml.safe_load((folder / "config.yaml").read_text())["n_samples"] == 200
    (log,) = wandb_runs(folder)
    assert log["config"]["n_samples"] == 200
    history = {key: value for line in log["history"] for key, value in line.items()}
    assert {"train/loss", "validation/loss"} <= set(history)
    cells = json.loads((log["files"] / history["cells.path"]).read_text())
    assert len(cells["data"]) == len(table)
    drawn = log["files"] / history["distance/max_sliced_certified.path"]
    assert drawn.read_bytes() == figure.read_bytes()
    curve = {
        line["steps"]: line["max_sliced_certified/oracle/exact/ddim_eta_0_5"]
        for line in log["history"]
        if "max_sliced_certified/oracle/exact/ddim_eta_0_5" in line
    }
    of = table.query("denoiser == 'oracle' and start == 'exact' and eta == 0.5")
    assert curve == pytest.approx(dict(of.groupby("steps")["value"].mean()))
    assert "floor" in out
    assert "N=9" in out
    assert str(figure.relative_to(tmp_path)) in out.replace("\n", "")


def test_the_same_command_gives_the_same_bits(run, tmp_path):
    for cache in ("off", "refresh", "on"):
        status, out, err = run(*TINY, "steps=4", f"cache={cache}")
        assert status == 0, err
        assert ("were known" in out) == ("trained before" in out) == (cache == "on")
    first, *others = (
        pd.read_parquet(path).drop(columns=list(CLOCKS))
        for path in tmp_path.glob("multirun/*/cells.parquet")
    )
    assert len(others) == 2
    for other in others:
        pd.testing.assert_frame_equal(first, other, check_exact=True)


def test_another_seed_gives_other_bits(run, tmp_path):
    for seed in (0, 1):
        assert run(*ORACLE, f"seed={seed}")[0] == 0
    first, second = (
        set(pd.read_parquet(path)["value"]) for path in tmp_path.glob("multirun/*/cells.parquet")
    )
    assert not first & second


def test_a_multirun_is_one_folder_of_runs(run, tmp_path):
    status, _, err = run("-m", *ORACLE, "schedule=edm,vp_cosine", "grid=uniform", "seed=0,1")
    assert status == 0, err
    tables = [pd.read_parquet(path) for path in only_run(tmp_path).glob("*/cells.parquet")]
    assert len(tables) == 4
    assert {(t["schedule"].iloc[-1], t["seed"].iloc[0]) for t in tables} == {
        (schedule, seed) for schedule in ("edm", "vp_cosine") for seed in (0, 1)
    }


def test_samplers_side_by_side(run, tmp_path):
    status, _, err = run(*ORACLE[:4], "sampler=[ddim,heun,euler]", "sampler.ddim.eta=[0,1]")
    assert status == 0, err
    table = pd.read_parquet(only_run(tmp_path) / "cells.parquet")
    assert set(table["sampler"]) == {"", "ddim", "euler", "heun"}
    assert dict(table.groupby("sampler")["nfe"].max()) == {"": 0, "ddim": 4, "euler": 4, "heun": 7}


@pytest.mark.parametrize("metric", ["max_sliced", "max_sliced_refined"], ids=str)
def test_other_metrics(run, tmp_path, metric):
    status, _, err = run(*ORACLE, f"metric={metric}", f"metric.{metric}.directions=50")
    assert status == 0, err
    table = pd.read_parquet(only_run(tmp_path) / "cells.parquet")
    assert set(table["metric"]) == {metric}
    assert table["value"].notna().all()


EXPERIMENTS = [
    path.relative_to(conf_directory() / "experiment").with_suffix("").as_posix()
    for path in sorted((conf_directory() / "experiment").rglob("*.yaml"))
    if path.stem != "celebahq"  # its weights are a download: tests/training/test_pretrained.py
]


#: Those that are long even so: images, whose README command is tried below, and 27 samplers.
LONG = ("digits", "images/", "shapes/all_samplers")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * name.startswith(LONG)) for name in EXPERIMENTS],
)
def test_every_experiment_runs_from_end_to_end(run, tmp_path, name):
    few = ["n_samples=60", "block=30", "n_train=100", "n_validation=20", "n_reference=80"]
    few += ["steps=[2,3]", "repetitions=2", "floor_repetitions=2", "trainer=tiny", "logger=none"]
    few += ["trainer.steps=3"]
    if name.startswith(("shapes/samplers", "shapes/all", "shapes/heun", "shapes/corr")):
        few[5] = "nfe=[3,5]"
    if name in ("shapes/samplers", "images/budget"):
        few += ["budget.converged_steps=8"]
    if name == "budget":
        few += ["budget.converged_steps=5", "sampler.ddim.eta=[0,1]"]
    status, out, err = run(f"experiment={name}", *few)
    assert status == 0, err
    folder = only_run(tmp_path)
    said = set(out.splitlines())
    assert set((folder / "report.txt").read_text().splitlines()) <= said | {""}
    if name in ("n0/chain", "n1/inference_process", "n1/noising"):  # pictures only
        assert list(folder.glob("*.png")) + list(folder.glob("*.gif"))
        return
    table = pd.read_parquet(folder / "cells.parquet")
    chains = table["reference"] == "chain"  # three steps are too few to examine
    assert set(table["status"][~chains]) == {"ok"}
    assert set(table["status"][chains]) <= {"incompatible"}
    assert "floor" in out
    if name == "budget":
        assert (only_run(tmp_path) / "budget_max_sliced_certified.png").stat().st_size > 1000
        assert {"data", "oracle", "exact", "converged", "doubled"} == set(table["reference"])


BAD = [
    (["sampler.ddim.eta=-1"], "sampler.ddim.eta=-1", "at least 0"),
    (["sampler.ddim.eta=[0,-1]"], "sampler.ddim.eta=-1", "at least 0"),
    (["sampler.ddim.eta=abc"], "sampler.ddim.eta=abc", "number"),
    (["sampler.ddim.eta=[]"], "sampler.ddim.eta=[]", "at least one"),
    (["+sampler.ddim.etta=1"], "sampler.ddim.etta=1", "eta"),
    (["sampler=ddmi"], "sampler/ddmi", "ddim"),
    (["smapler=ddim"], "smapler", "sampler"),
    (["steps=0"], "steps=0", "at least 1"),
    (["steps=[4,0]"], "steps=0", "at least 1"),
    (["steps=2.5"], "steps=2.5", "integer"),
    (["steps=[]"], "steps=[]", "numbers of steps"),
    (["steps=[4,4]"], "steps=[4, 4]", "none twice"),
    (["schedule.sigma_max=-3"], "schedule.sigma_max=-3", "positive"),
    (["grid.noise_min=-0.1"], "grid.noise_min=-0.1", "positive"),
    (["grid.noise_max=100"], "grid.noise_max=100", "at most 10"),
    (["schedule=vp_cosine", "grid.noise_max=inf"], "grid.noise_max=inf", "finite"),
    (
        ["target=noise", "schedule=rectified", "grid=uniform"],
        "denoiser=learned",
        "NoiseTarget is undefined",
    ),
    (
        ["objective=ncsn", "schedule=vp_cosine", "grid=uniform"],
        "denoiser=learned",
        "ScoreTarget is undefined",
    ),
    (["seed=99999999999999999999"], "seed=99999999999999999999", "below"),
    (["sampler.ddim.eta=[0,0.0]"], "sampler.ddim.eta=", "without repetitions"),
    (["n_samples=true"], "n_samples=True", "number"),
    (["budget=true"], "budget=True", "converged_steps"),
    (["logger=wandb", "logger.mode=foo"], "logger.mode=foo", "'offline'"),
    (["logger=null"], "logger=null", "wandb"),
    (["dataset=[0]"], "dataset=[0]", "grid_mixture"),
    (["+sampler=3"], "sampler=3", "ddim"),
    (["device=meta"], "device=meta", "cpu"),
    (["graphs=true"], "graphs=True", "device=cuda"),
    (["hydra.run.dir=/proc/no/such"], "/proc", ""),
    (["schedule._target_=samplerbench.nope.X"], "schedule._target_", "samplerbench."),
    (["schedule._target_=samplerbench.app.main.os.system"], "schedule._target_", "samplerbench."),
    (
        ["schedule._target_=samplerbench.logs.wandb.shutil.rmtree"],
        "schedule._target_",
        "samplerbench.",
    ),
    (["n_samples=0"], "n_samples=0", "at least 1"),
    (["n_train=0"], "n_train=0", "at least 1"),
    (["repetitions=-1"], "repetitions=-1", "at least 1"),
    (["block=0"], "block=0", "at least 1"),
    (["seed=-1"], "seed=-1", "at least 0"),
    (["seed=one"], "seed=one", "integer"),
    (["dtype=float8"], "dtype=float8", "float64"),
    (["device=cuba"], "device=cuba", "cpu"),
    (["denoiser=orakel"], "denoiser=orakel", "oracle"),
    (["denoiser=[]"], "denoiser=[]", "oracle"),
    (["dataset=gaussian", "dataset.mean=[1,nan]"], "dataset.means", "finite"),
    (["dataset=gaussian", "dataset.covariance=[[1,0],[0,-1]]"], "dataset.covariances", "semi-def"),
    (["dataset=gaussian", "dataset.mean=[]"], "dataset.means", "dimension"),
    (
        ["dataset=gaussian", "dataset.mean=[0]", "dataset.covariance=[[1]]"],
        "metric=max_sliced_certified",
        "2",
    ),
    (["metric.max_sliced_certified.relative_tolerance=-1"], "relative_tolerance=-1", "at least 0"),
    (["trainer.lr=-1"], "trainer.lr=-1", "positive"),
    (["trainer.steps=0"], "trainer.steps=0", "at least 1"),
    (["wanted=0"], "wanted=0", "positive"),
    (["experiment=budget", "budget.tolerance=-1"], "budget.tolerance=-1", "positive"),
    (["experiment=budget", "denoiser=learned"], "denoiser", "oracle"),
    (["experiment=budget", "start=prior"], "start", "exact"),
    (["experiment=budget", "repetitions=1"], "repetitions=1", "at least 2"),
    (["dataset=file", "dataset.path=no.npy"], "dataset.path=no.npy", "must be"),
    (["dataset=pinwheel"], "denoiser=oracle", "learned"),
    (["metric=w_law_1d"], "metric=w_law_1d", "1-D"),
    (["workers=0"], "workers=0", "at least 1"),
    (["logger._target_=os.system"], "logger._target_=os.system", "samplerbench"),
    (["n_samples=???"], "n_samples", "Missing"),
    (["steps=[4"], "steps=[4", ""),
]


@pytest.mark.parametrize(("words", "named", "allowed"), BAD, ids=[" ".join(b[0]) for b in BAD])
def test_bad_input_is_one_line_and_status_2(run, tmp_path, words, named, allowed):
    status, out, err = run(*TINY, *words)
    assert status == 2
    assert "Traceback" not in out + err
    assert len(err.strip().splitlines()) == 1, err
    assert named in err
    assert allowed in err
    assert not list(tmp_path.rglob("*.parquet"))
    assert not list(tmp_path.rglob("*.pt"))


def test_debug_shows_the_traceback(run):
    from samplerbench.errors import InvalidSetting

    with pytest.raises(InvalidSetting, match="eta"):
        run(*TINY, "sampler.ddim.eta=-1", "debug=true")


def test_in_a_multirun_the_other_jobs_go_on(run, tmp_path):
    status, _, err = run("-m", *ORACLE, "sampler.ddim.eta=0,-1,1")
    assert status == 2
    assert "sampler.ddim.eta=-1" in err.strip().splitlines()[-1]
    assert len(list(tmp_path.rglob("cells.parquet"))) == 2
    states = [json.loads(path.read_text()) for path in sorted(tmp_path.rglob("status.json"))]
    assert [state["state"] for state in states] == ["finished", "failed", "finished"]
    assert "sampler.ddim.eta=-1" in states[1]["message"]


def test_every_job_that_failed_is_named_at_the_end(run, tmp_path, monkeypatch):
    words = ("-m", *ORACLE, "hydra.sweep.dir=runs")
    status, _, err = run(*words, "sampler.ddim.eta=0,-1,-2", "n_samples=60,???")
    assert status == 2
    said = [re.search(r"samplerbench: job (\d) of runs: (.*)", line) for line in err.splitlines()]
    assert [found.groups() for found in said if found] == [
        ("1", "MissingMandatoryValue: Missing mandatory value: n_samples"),
        *(
            (str(job), f"sampler.ddim.eta={eta}: must be at least 0 and finite")
            for job, eta in enumerate((-1.0, -1.0, -2.0, -2.0), 2)
        ),
    ]
    monkeypatch.setattr("samplerbench.app.main.MOST_NAMED", 1)
    status, _, err = run(*words[:-1], "hydra.sweep.dir=more", "sampler.ddim.eta=-1,-2,-3,-4")
    assert status == 2
    first, second, rest = err.strip().splitlines()[-3:]
    assert "job 0 of more: sampler.ddim.eta=-1" in first
    assert "job 1 of more: sampler.ddim.eta=-2" in second
    assert "2 more jobs failed" in rest


def test_a_failed_cell_ends_with_status_1_and_the_other_jobs_go_on(run, tmp_path, monkeypatch):
    from samplerbench.core.models import IsotropicMixtureOracle

    def fails(self, x, level):
        raise RuntimeError("defect")

    monkeypatch.setattr(IsotropicMixtureOracle, "denoiser", fails)
    status, out, err = run(*ORACLE)
    assert status == 1
    assert len(err.strip().splitlines()) == 1
    assert "2 values failed" in err
    assert "defect" in out
    assert run("-m", *ORACLE, "seed=0,1,2")[0] == 1
    assert len(list(tmp_path.rglob("cells.parquet"))) == 1 + 3


@pytest.mark.parametrize("shown", [["metric=[]", "picture=[samples]"], []])
def test_weights_that_are_not_finite_end_the_job_in_one_line_with_status_1(run, tmp_path, shown):
    words = (*TINY, "denoiser=learned", "steps=2", "sampler.ddim.eta=0", "trainer.steps=1")
    status, _, err = run(*words, *shown, "trainer.lr=1e39", "trainer.warmup=0")
    assert (status, err.count("\n")) == (1, 1)
    said = "trainer.lr=1e+39: must be smaller: the weights are not finite after step 1"
    assert err == f"samplerbench: {said}\n"
    told = json.loads((only_run(tmp_path) / "status.json").read_text())
    assert (told["state"], told["message"]) == ("failed", said)


def test_weights_of_a_run_that_are_not_finite_are_refused(run, tmp_path):
    words = (*TINY, "denoiser=learned", "steps=2", "sampler.ddim.eta=0", "trainer.steps=1")
    assert run(*words)[0] == 0
    folder = only_run(tmp_path)
    path = folder / "checkpoints" / "model.safetensors"
    weights = safetensors.torch.load_file(path)
    weights[next(iter(weights))].fill_(float("nan"))
    safetensors.torch.save_file(weights, path)
    for command in (["sample", "sampler=heun", "steps=2", "n=3", "out=x.npy"], ["export", "out=x"]):
        status, _, err = run(*command, str(folder))
        assert (status, err.count("\n")) == (2, 1)
        assert "the weights are not all finite" in err
    assert not list(tmp_path.glob("x*"))


def test_an_interrupt_in_training_is_said(run, monkeypatch):
    from samplerbench.training.fitting import Fitting

    def interrupted(self, batch, batch_idx):
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Fitting, "training_step", interrupted)
    # a job that a shell started in the background ignores the signal
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        status, _, err = run(*TINY, "steps=4")
    finally:
        signal.signal(signal.SIGINT, before)
    assert status == 130
    assert "interrupted" in err


README = (Path(__file__).parents[2] / "README.md").read_text()
COMMANDS = [
    line.split("#")[0].strip()
    for line in README.splitlines()
    if re.match(r"samplerbench (?!score)\S+=", line)
]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_readme_s_commands_run(run, command):
    words = shlex.split(command)[1:]
    few = ["n_samples=60", "block=30", "steps=[2,3]", "trainer.steps=3", "repetitions=2"]
    if any(word.startswith("nfe=") for word in words):
        few[2] = "nfe=[3,5]"
    overlay = [] if any(word.startswith("experiment=") for word in words) else ["experiment=tiny"]
    if any("budget" in word for word in words):
        few += ["trainer=tiny", "budget.converged_steps=5"]
    kept = [word for word in words if word.split("=")[0] not in {f.split("=")[0] for f in few}]
    status, _, err = run(*overlay, *kept, *few, "logger=none")
    assert status == 0, err


def test_a_folder_that_holds_a_run_is_not_touched(run, tmp_path):
    assert run(*ORACLE, "hydra.run.dir=multirun/mine")[0] == 0
    before = {p: p.read_bytes() for p in (tmp_path / "multirun/mine").rglob("*.parquet")}
    status, _, err = run(*ORACLE, "seed=1", "hydra.run.dir=multirun/mine")
    assert status == 2
    assert "hydra.run.dir=multirun/mine" in err.replace(str(tmp_path) + "/", "")
    assert {p: p.read_bytes() for p in (tmp_path / "multirun/mine").rglob("*.parquet")} == before


def test_run_folders_never_collide():
    from samplerbench.app.main import run_name

    assert len({run_name() for _ in range(10_000)}) == 10_000


def test_help_lists_the_groups_and_what_they_hold(run):
    status, out, _ = run("--help")
    assert status == 0
    for group in Path("conf").iterdir() if Path("conf").is_dir() else []:
        assert group.name in out
    assert re.search(r"sampler: .*ddim.*euler.*heun", out)
    assert re.search(r"schedule: .*edm.*rectified.*vp_cosine", out)


def test_help_is_what_hydra_would_say(run):
    status, ours, _ = run("--help")
    assert status == 0
    # with a word more it is Hydra's own
    assert run("--help", "seed=0") == (0, ours, "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["seed=1", "-m", "steps=4"], "steps=4: must stand beside the other words"),
        (["--nothing"], "--nothing: no such option"),
        (["--cfg", "nothing"], "invalid choice: 'nothing'"),
    ],
)
def test_words_that_no_parser_takes_are_said_in_one_line(run, words, said):
    status, out, err = run(*words)
    assert (status, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert said in err


def test_python_m_is_the_same_command(tmp_path):
    module = subprocess.run(
        [sys.executable, "-m", "samplerbench", "--help"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert "sampler: adams_bashforth, ancestral" in module.stdout.replace("\n", " ")
    assert not list(tmp_path.iterdir())


def test_the_process_ends_as_python_ends_one(tmp_path):
    """Its status, what was printed, threads that still work and what was to run at the exit."""
    code = (
        "import atexit, threading, time\n"
        "from samplerbench.app import main\n"
        "atexit.register(print, 'at the exit')\n"
        "done, leave = threading.Event(), main.leave\n"
        "def leaving(status): done.set(); leave(status)\n"
        "def late(): done.wait(); time.sleep(0.2); print('in a thread')\n"
        "main.leave = leaving\n"
        "threading.Thread(target=late).start()\n"
        "main.entry()"
    )
    for words, status in ((["list", "metric"], 0), (["sampler=nobody"], 2)):
        done = subprocess.run(
            [sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == status
        assert done.stdout.splitlines()[-2:] == ["in a thread", "at the exit"]


def test_what_hydra_does_not_find_is_told_where_it_is(run):
    _, _, err = run("experiment=n1/nonsense")
    assert "tiny" in err
    assert "n1/ddim" in err
    assert err.count("\n") == 1
    for word, extra in (("hydra/launcher=ray", "ray"), ("hydra/sweeper=optuna", "optuna")):
        if find_spec(f"hydra_plugins.hydra_{extra}_{word.split('/')[1].split('=')[0]}") is None:
            status, _, err = run("-m", word, "seed=0,1")
            assert status == 2
            assert err.endswith(f"(it comes with pip install 'samplerbench[{extra}]')\n")


def imported(folder: Path, command: str, of: list[str]) -> list[str]:
    """Which of some modules a command imports."""
    code = (
        "import sys; from samplerbench.app.main import main\n"
        "of, sys.argv = sys.argv[1].split(), ['samplerbench', *sys.argv[2:]]\n"
        "try:\n    main()\n"
        "except SystemExit: pass\n"
        "finally: print('imported:', *(m for m in of if m in sys.modules))"
    )
    words = [sys.executable, "-c", code, " ".join(of), *shlex.split(command)]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()[1:]


@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "list samplers",
        "sampler=nobody",
        "nothing=1",
        "seed=1 -m steps=4",
        "n_samples=-3",
        "steps=[4,0]",
        "seed=one",
        "score",
        "score nothing.npy dataset=grid_mixture",
        "report nowhere",
        "cite nowhere",
        "check nobody",
        "sample nowhere",
        "cache",
        "cache cache_dir=.",
    ],
)
def test_what_needs_no_work_imports_nothing_heavy(tmp_path, command):
    heavy = ["torch", "pytorch_lightning", "wandb", "matplotlib", "plotly", "scipy"]
    assert imported(tmp_path, command, heavy) == []


def test_a_job_whose_values_are_known_imports_only_what_it_shows(tmp_path):
    command = shlex.join([*TINY, "trainer.steps=3", "steps=4", "sampler.ddim.eta=0"])
    slow = ["pytorch_lightning", "torch._dynamo", "sympy", "scipy.stats", "scipy.optimize", "ot"]
    assert imported(tmp_path, command, slow[:1]) == slow[:1]
    assert imported(tmp_path, command, slow) == []
    assert len(list(tmp_path.glob("multirun/*/cells.parquet"))) == 2
