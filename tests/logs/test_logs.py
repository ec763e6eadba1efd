"""Every log is read back from its files, by another way than the one that wrote it."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.image import imsave

from samplerbench.app.main import main
from samplerbench.errors import InvalidSetting, RunFailed
from samplerbench.files import write_atomically
from samplerbench.logs.base import Log, Logger, NoLogger, RunInfo, curve_points, run_name
from samplerbench.logs.csv import Csv
from samplerbench.logs.tensorboard import TensorBoard
from samplerbench.logs.wandb import Wandb

CheckRun = Callable[[subprocess.CompletedProcess[str]], float]
WandbRuns = Callable[[Path], list[dict[str, Any]]]
KEY = "0123456789abcdef" * 2 + "01234567"
CONFIG = {"seed": 3, "sampler": {"_target_": "samplerbench.samplers.ddim.DDIM", "eta": [0.0, 0.5]}}
CELLS = pd.DataFrame(
    {
        "denoiser": ["learned"] * 6 + ["oracle"],
        "start": "prior",
        "eta": [0.0, 0.0, 0.5, 0.5, 0.5, 0.5, None],
        "steps": [9, 4, 4, 9, 9, 16, 4],
        "nfe": [17, 7, 4, 9, 9, 16, 4],
        "value": [0.125, 0.25, 0.5, 0.375, 0.625, float("nan"), 0.75],
        "status": ["ok"] * 5 + ["diverged", "a|b"],
    }
)
# against evaluations: the first sampler needs twice as many, but one, as it has steps
CURVES = {
    "distance/learned/prior/eta=0": {7: 0.25, 17: 0.125},
    "distance/learned/prior/eta=0.5": {4: 0.5, 9: 0.5},  # two repetitions; the last cell diverged
    "distance/oracle/prior": {4: 0.75},
}
ROOT = Path(__file__).parents[2]
CONF, DOCS = ROOT / "conf" / "logger", ROOT / "docs"


LOSSES = [(2, "train", 0.1), (4, "train", 0.25), (4, "validation", 1 / 3), (6, "train", 2e-9)]


def write(log: Log, directory: Path) -> None:
    """What the app does."""
    for count in (1, 3, 3, 4, 4):  # those so far, whenever there is a new one, and at the end again
        log.losses(LOSSES[:count])
    png = directory / "distance.png"
    imsave(png, np.linspace(0, 1, 4 * 6 * 3).reshape(4, 6, 3))
    log.table("cells", CELLS)
    log.figure("distance", png)
    log.curves("distance", CELLS, ["nfe", "steps"], "value", by=["denoiser", "start", "eta"])
    (directory / "report.txt").write_text("as it was")
    log.files([directory / "report.txt"])
    write_atomically(directory / "report.txt", b"written again")


def column(run: dict[str, Any], key: str, x: str) -> dict[float, float]:
    return {row[x]: row[key] for row in run["history"] if key in row}


def losses_of(run: dict[str, Any]) -> list[tuple[int, str, float]]:
    """The losses in a wandb run, in order."""
    return [
        (row["trainer/global_step"], name, row[f"{name}/loss"])
        for row in run["history"]
        for name in ("train", "validation")
        if f"{name}/loss" in row
    ]


def value(run: dict[str, Any], key: str) -> Any:
    [found] = [row[key] for row in run["history"] if key in row]
    return found


def python(code: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a process with a home, a temporary and a current folder of its own."""
    for name in ("home", "tmp", "cwd"):
        (cwd / name).mkdir()
    clean = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    folders = {"HOME": str(cwd / "home"), "TMPDIR": str(cwd / "tmp")}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=cwd / "cwd",
        env={**clean, **folders, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(autouse=True)
def no_wandb_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        listening.setblocking(False)
        yield listening


def address(server: socket.socket) -> str:
    return f"http://127.0.0.1:{server.getsockname()[1]}"


def test_wandb_offline_holds_everything_and_two_runs_in_one_process_stay_two(
    wandb_runs: WandbRuns,
    tmp_path: Path,
) -> None:
    before = dict(os.environ)
    for name in ("one", "two"):
        directory = tmp_path / name
        directory.mkdir()
        with Wandb(project="p").open(
            RunInfo(directory, name, CONFIG, "both", ["rings", "ddim"])
        ) as log:
            write(log, directory)
            assert Path(log.where).is_relative_to(directory)
    assert dict(os.environ) == before

    assert {run["run_id"] for run in wandb_runs(tmp_path / "one")}.isdisjoint(
        run["run_id"] for run in wandb_runs(tmp_path / "two")
    )
    for name in ("one", "two"):
        [run] = wandb_runs(tmp_path / name)
        assert run["display_name"] == name
        assert (run["run_group"], run["project"], run["exit"]) == ("both", "p", 0)
        assert run["tags"] == ["rings", "ddim"]
        assert {key: run["config"][key] for key in CONFIG} == CONFIG
        assert losses_of(run) == LOSSES

        table = json.loads((run["files"] / value(run, "cells.path")).read_text())
        assert table["columns"] == list(CELLS)
        assert len(table["data"]) == len(CELLS)
        assert table["data"][3] == ["learned", "prior", 0.5, 9, 9, 0.375, "ok"]
        assert table["data"][5] == ["learned", "prior", 0.5, 16, 16, None, "diverged"]

        figure = run["files"] / value(run, "distance.path")
        assert figure.read_bytes() == (tmp_path / name / "distance.png").read_bytes()

        for curve_name, expected in CURVES.items():
            curve = curve_name.replace("=", "_").replace(".", "_")  # the app cannot sort by these
            assert column(run, curve, "nfe") == expected
            assert run["metrics"][curve]["step_metric"] == "nfe"
        assert not any("trainer/global_step" in row for row in run["history"] if "nfe" in row)
        first = column(run, "distance/learned/prior/eta_0", "steps")
        assert first == {4: 0.25, 9: 0.125}
        assert (run["files"] / "report.txt").read_text() == "as it was"


def test_names_and_tags_are_no_longer_than_wandb_takes(
    wandb_runs: WandbRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setenv("WANDB_TAGS", f"mine, {'b' * 65},,rings")
        patched.setenv("WANDB_RUN_ID", "a/b")
        patched.setenv("WANDB_RESUME", "must")
        for last in "xy":  # what differs at the end of a long text is still told apart
            tags = ["rings", "a" * 64, 70 * "t" + last]
            with Wandb().open(
                RunInfo(tmp_path / last, 300 * "n" + last, {}, 300 * "g" + last, tags)
            ):
                pass
    [one], [two] = wandb_runs(tmp_path / "x"), wandb_runs(tmp_path / "y")
    assert len(one["display_name"]) == len(one["run_group"]) == 128
    assert one["display_name"].startswith(100 * "n")
    assert one["display_name"] != two["display_name"]
    assert one["run_group"] != two["run_group"]
    assert one["tags"][:2] == ["rings", "a" * 64]
    assert one["tags"][2] != two["tags"][2]
    assert one["tags"][3] == "mine"
    assert [len(tag) for tag in one["tags"]] == [5, 64, 64, 4, 64]


def test_a_setting_of_wandb_that_it_refuses_is_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "nowhere")
    with pytest.raises(RunFailed, match="logger=wandb: WANDB_BASE_URL is refused: ") as caught:
        Wandb().open(RunInfo(tmp_path, "a", {}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("said", ["", "  ", "no server.\nTry again"])
def test_whatever_an_error_says_or_not_a_run_goes_on_offline(
    wandb_runs: WandbRuns,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    said: str,
) -> None:
    import wandb

    begin = wandb.init

    def init(**options: Any) -> Any:
        if options["settings"].mode == "online":
            raise TimeoutError(said)
        return begin(**options)

    monkeypatch.setattr(wandb, "init", init)
    with Wandb(mode="online").open(RunInfo(tmp_path, "a", {})) as log:
        log.table("cells", CELLS)
    [line] = [told.message for told in caplog.records if told.name == Wandb.__module__]
    reason = "no server" if said.strip() else "TimeoutError"
    assert line.startswith(f"wandb: {reason}. This run is logged offline, in ")
    [run] = wandb_runs(tmp_path)
    assert value(run, "cells.nrows") == len(CELLS)


def test_an_exception_marks_the_wandb_run_failed(wandb_runs: WandbRuns, tmp_path: Path) -> None:
    def job() -> None:
        with Wandb().open(RunInfo(tmp_path, "bad", {})) as log:
            log.table("cells", CELLS)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        job()
    [run] = wandb_runs(tmp_path)
    assert run["exit"] == 1
    assert value(run, "cells.nrows") == len(CELLS)


RUN = """
    import os, sys, time
    from pathlib import Path
    import pandas as pd
    from samplerbench.logs.base import RunInfo
    from samplerbench.logs.wandb import Wandb
    loaded = [name for name in ("wandb", "pytorch_lightning", "torch") if name in sys.modules]
    assert not loaded, loaded
    started = time.monotonic()
    with Wandb({settings}).open(RunInfo(Path("{run}"), "a", {{}})) as log:
        print("opened", time.monotonic() - started)
        log.table("cells", pd.DataFrame({{"value": [1.0, 2.0]}}))
    children = Path(f"/proc/self/task/{{os.getpid()}}/children")
    print("left", children.read_text() if children.exists() else "")
"""


@pytest.fixture
def check_offline_run(wandb_runs: WandbRuns, tmp_path: Path) -> CheckRun:
    """Checks that a process left one whole offline run, and gives the seconds it took to open."""

    def check(result: subprocess.CompletedProcess[str]) -> float:
        """Nothing left behind anywhere; gives the seconds that opening took."""
        assert result.returncode == 0, result.stderr
        opened, left = result.stdout.splitlines()
        assert left.split() == ["left"], "a process of wandb is still there"
        for name in ("home", "tmp", "cwd"):
            assert [p for p in (tmp_path / name).rglob("*") if p.is_file()] == [], name
        [run] = wandb_runs(tmp_path / "run")
        assert value(run, "cells.nrows") == 2
        files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
        assert files
        assert not [path for path in files if KEY.encode() in path.read_bytes()]
        return float(opened.split()[1])

    return check


def test_wandb_offline_stays_in_its_folder_and_off_the_network(
    check_offline_run: CheckRun, tmp_path: Path, server: socket.socket
) -> None:
    code = RUN.format(settings="", run=tmp_path / "run")
    result = python(code, tmp_path, WANDB_API_KEY=KEY, WANDB_BASE_URL=address(server))
    check_offline_run(result)
    assert result.stderr == ""
    with pytest.raises(BlockingIOError):  # nobody has come
        server.accept()


def test_wandb_online_with_a_dead_server_goes_on_offline(
    check_offline_run: CheckRun, tmp_path: Path, server: socket.socket
) -> None:
    code = RUN.format(settings='mode="online", init_timeout=1', run=tmp_path / "run")
    result = python(code, tmp_path, WANDB_API_KEY=KEY, WANDB_BASE_URL=address(server))
    check_offline_run(result)
    [line] = result.stderr.splitlines()
    assert line.startswith("wandb: ")
    assert "This run is logged offline, in " in line
    server.accept()


def test_wandb_online_without_a_key_goes_on_offline(
    check_offline_run: CheckRun, tmp_path: Path, server: socket.socket
) -> None:
    code = RUN.format(settings='mode="online"', run=tmp_path / "run")
    result = python(code, tmp_path, WANDB_BASE_URL=address(server))
    check_offline_run(result)
    [line] = result.stderr.splitlines()
    assert "No API key configured" in line
    with pytest.raises(BlockingIOError):
        server.accept()


@pytest.mark.slow
def test_wandb_online_without_a_network_goes_on_offline_within_20_seconds(
    check_offline_run: CheckRun, tmp_path: Path
) -> None:
    code = RUN.format(settings='mode="online"', run=tmp_path / "run")
    started = time.monotonic()
    # A name that no network resolves, so the test means the same everywhere.
    result = python(code, tmp_path, WANDB_API_KEY=KEY, WANDB_BASE_URL="https://wandb.invalid")
    assert time.monotonic() - started < 20
    assert check_offline_run(result) > 5, "it did not try"
    assert len(result.stderr.splitlines()) == 1, result.stderr


def test_wandb_disabled_writes_nothing(tmp_path: Path) -> None:
    with Wandb(mode="disabled").open(RunInfo(tmp_path, "a", CONFIG)) as log:
        log.losses(LOSSES)
        log.table("cells", CELLS)
        log.curves("distance", CELLS, ["nfe"], "value", by=[])
        assert log.where == ""
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_csv(tmp_path: Path) -> None:
    with Csv().open(RunInfo(tmp_path, "a", CONFIG)) as log:
        write(log, tmp_path)
        folder = Path(log.where)
    assert folder == tmp_path / "csv"
    losses = pd.read_csv(folder / "losses.csv", float_precision="round_trip")
    assert list(losses) == ["step", "name", "loss"]
    assert list(losses.itertuples(index=False, name=None)) == LOSSES
    pd.testing.assert_frame_equal(pd.read_csv(folder / "cells.csv"), CELLS)


def test_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with TensorBoard().open(RunInfo(tmp_path, "a", CONFIG)) as log:
        write(log, tmp_path)
        folder = Path(log.where)
    assert folder == tmp_path / "tensorboard"
    events = EventAccumulator(str(folder))
    events.Reload()
    for name in ("train", "validation"):
        found = [(event.step, name, event.value) for event in events.Scalars(f"{name}/loss")]
        assert found == [(k, of, np.float32(loss)) for k, of, loss in LOSSES if of == name]
    for curve, expected in CURVES.items():
        assert {event.step: event.value for event in events.Scalars(curve)} == expected
    [image] = events.Images("distance")
    assert (image.width, image.height) == (6, 4)
    [table] = events.Tensors("cells/text_summary")
    text = table.tensor_proto.string_val[0].decode().splitlines()
    assert text[0] == "| denoiser | start | eta | steps | nfe | value | status |"
    assert len(text) == 2 + len(CELLS)
    assert text[-1] == r"| oracle | prior | nan | 4 | 4 | 0.75 | a\|b |"
    [config] = events.Tensors("config/text_summary")
    told = config.tensor_proto.string_val[0].decode().removeprefix("```\n").removesuffix("\n```")
    assert json.loads(told) == CONFIG


def test_tensorboard_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(InvalidSetting, match=r"pip install 'samplerbench\[tensorboard\]'$"):
        TensorBoard()


def test_none(tmp_path: Path) -> None:
    with NoLogger().open(RunInfo(tmp_path, "a", CONFIG)) as log:
        assert log.where == ""
        write(log, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"distance.png", "report.txt"}


def test_points_are_sorted_averaged_and_finite() -> None:
    rows = curve_points("distance", CELLS, ["nfe", "steps"], "value", ["denoiser", "start", "eta"])
    assert list(rows) == [(4, 4), (7, 4), (9, 9), (17, 9)]
    for curve, expected in CURVES.items():
        assert {x: row[curve] for (x, _), row in rows.items() if curve in row} == expected
    assert curve_points("all", CELLS.head(2), ["steps"], "value", []) == {
        (4,): {"all": 0.25},
        (9,): {"all": 0.125},
    }


def test_a_run_is_called_by_what_it_compares() -> None:
    assert run_name(["ddim", "ddim", "heun"], "edm", "rings") == "ddim,heun · edm · rings"
    words = ["objective=ncsn", "seed=1", "trainer.steps=9"]
    assert (
        run_name(["heun"], "ncsn", "rings", words) == "heun · ncsn · rings · seed=1 trainer.steps=9"
    )
    assert run_name("abcde", "oracle", "rings") == "a,b,c +2 · oracle · rings"
    assert run_name([], "", "rings") == "rings"  # a look at the data


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"project": "a/b"}, "project"),
        ({"project": ""}, "project"),
        ({"mode": "on-line"}, "mode"),
        ({"init_timeout": 0}, "init_timeout"),
        ({"finish_timeout": float("nan")}, "finish_timeout"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        Wandb(**settings)
    assert caught.value.field == field


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_names_a_logger_and_its_defaults(path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    module, _, name = config.pop("_target_").rpartition(".")
    member = getattr(import_module(module), name)
    assert issubclass(member, Logger)
    defaults = {field.name: field.default for field in dataclasses.fields(member)}
    assert set(config) == set(defaults)
    for key, written in config.items():  # "${oc.env:NAME,default}" or a plain value
        plain = yaml.safe_load(str(written).removesuffix("}").rpartition(",")[2])
        assert plain == defaults[key]


# What docs/wandb.md promises, on the runs that its own commands leave.

FEW = ["steps=[2,3]", "n_samples=60", "block=30", "n_train=100", "n_validation=20", "workers=1"]
FEW += ["n_reference=80", "repetitions=2", "floor_repetitions=2", "trainer=tiny", "cache=off"]
FEW += ["trainer.steps=3", "trainer.log_every=1"]
METRIC = "max_sliced_certified"


def documented() -> dict[str, list[str]]:
    """The first command of each section of the page: heading ↦ words."""
    sections = (DOCS / "wandb.md").read_text().split("\n## ")[1:]
    found = {s.splitlines()[0]: re.search(r"^samplerbench (.+)$", s, re.M) for s in sections}
    return {heading: shlex.split(of[1], comments=True) for heading, of in found.items() if of}


def children() -> set[str]:
    """The processes that this one has started and that still run, by Linux's own list."""
    lists = Path("/proc/self/task").glob("*/children")
    return {child for children in lists for child in children.read_text().split()}


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Path]]:
    """Runs a command line in an empty folder, with a key in the environment: its run's folder."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)

        def run(*words: str) -> Path:
            patch.chdir(tmp_path_factory.mktemp("run"))
            patch.setenv("WANDB_API_KEY", KEY)
            patch.setattr(sys, "argv", ["samplerbench", *words])
            before = children()
            main()
            assert children() <= before, "a process is still there"
            [folder] = Path("multirun").absolute().glob("20*")
            return folder

        yield run


@pytest.fixture(scope="module")
def comparisons(command: Callable[..., Path]) -> dict[str, Path]:
    """The folders of the three comparisons, which were made one after the other."""
    names = ("Samplers on one model", "Objectives on one sampler", "Seeds")
    return {name: command(*documented()[name], *FEW) for name in names}


def curves(run: dict[str, Any], prefix: str, x: str = "nfe") -> dict[str, dict[float, float]]:
    keys = {key for row in run["history"] for key in row if key.startswith(prefix)}
    return {key.removeprefix(prefix): column(run, key, x) for key in keys}


def jobs(folder: Path, wandb_runs: WandbRuns) -> list[dict[str, Any]]:
    """The wandb runs of a multirun's jobs, in order: one a job."""
    found = [wandb_runs(job) for job in sorted(folder.glob("[0-9]*"))]
    assert {len(of) for of in found} == {1}
    return [run for [run] in found]


def test_samplers_on_one_model_are_curves_over_evaluations_in_one_run(
    comparisons: dict[str, Path], wandb_runs: WandbRuns
) -> None:
    folder = comparisons["Samplers on one model"]
    [run] = wandb_runs(folder)
    assert run["display_name"] == "ddim,heun,dpm_solver_pp · edm · grid_mixture"
    assert set(run["tags"]) == {"ddim", "heun", "dpm_solver_pp", "edm", "grid_mixture"}
    assert not run.get("run_group")
    assert run["config"]["choices"]["sampler"] == "ddim,heun,dpm_solver_pp"
    assert run["config"]["sampler"]["ddim"]["eta"] == [0, 1]
    stored = pd.read_csv(folder / "losses.csv", float_precision="round_trip")
    assert losses_of(run) == list(stored.itertuples(index=False, name=None))

    cells = pd.read_parquet(folder / "cells.parquet")
    shown = curves(run, f"{METRIC}/learned/prior/")
    assert set(shown) == {"ddim_eta_0", "ddim_eta_1", "heun", "dpm_solver_pp_points_2"}
    of = cells.query("denoiser == 'learned' and start == 'prior' and sampler == 'heun'")
    assert shown["heun"] == pytest.approx(dict(of.groupby("nfe")["value"].mean()))
    assert list(shown["heun"]) == [3, 5]
    in_steps = curves(run, f"{METRIC}/learned/prior/", "steps")["heun"]
    assert in_steps == pytest.approx(dict(of.groupby("steps")["value"].mean()))
    for key in {key for row in run["history"] for key in row if key.startswith(f"{METRIC}/")}:
        assert run["metrics"][key]["step_metric"] == "nfe"
        assert re.fullmatch("[a-zA-Z][a-zA-Z0-9_/]*", key)  # the app can sort and filter by it

    table = json.loads((run["files"] / value(run, "cells.path")).read_text())
    assert len(table["data"]) == len(cells)
    drawn = run["files"] / value(run, f"distance/{METRIC}.path")
    assert drawn.read_bytes() == (folder / f"distance_{METRIC}.png").read_bytes()
    for name in ("report.txt", "cells.parquet", "losses.csv"):
        assert (run["files"] / name).read_bytes() == (folder / name).read_bytes()


def test_objectives_share_a_group_and_differ_by_a_key_to_group_by(
    comparisons: dict[str, Path], wandb_runs: WandbRuns
) -> None:
    folder = comparisons["Objectives on one sampler"]
    runs = jobs(folder, wandb_runs)
    objectives = ["edm", "likelihood", "ncsn"]
    assert [run["config"]["choices"]["objective"] for run in runs] == objectives
    assert [run["display_name"] for run in runs] == [
        f"heun · {objective} · grid_mixture" for objective in objectives
    ]
    assert {run["run_group"] for run in runs} == {folder.name}
    learned = [curves(run, f"{METRIC}/learned/prior/")["heun"] for run in runs]
    assert [list(curve) for curve in learned] == [[3, 5]] * 3
    assert len({tuple(curve.values()) for curve in learned}) == 3
    first, *others = [curves(run, f"{METRIC}/oracle/") for run in runs]
    assert others == [first, first]  # there the objective has no say


def test_seeds_share_a_group_and_are_named(
    comparisons: dict[str, Path], wandb_runs: WandbRuns
) -> None:
    folder = comparisons["Seeds"]
    runs = jobs(folder, wandb_runs)
    assert [run["config"]["seed"] for run in runs] == [0, 1, 2]
    assert [run["display_name"] for run in runs] == [
        f"heun · edm · grid_mixture · seed={seed}" for seed in range(3)
    ]
    assert {run["run_group"] for run in runs} == {folder.name}
    shown = [curves(run, f"{METRIC}/learned/prior/")["heun"] for run in runs]
    assert [list(curve) for curve in shown] == [[3, 5]] * 3  # one panel: the same key and axis
    assert len({tuple(curve.values()) for curve in shown}) == 3


def test_an_error_budget_is_logged_as_table_figure_and_file(
    command: Callable[..., Path], wandb_runs: WandbRuns
) -> None:
    words = ["experiment=budget", "denoiser=oracle", "budget.converged_steps=8"]
    folder = command(*words, "sampler.ddim.eta=0", *FEW)
    [run] = wandb_runs(folder)
    assert run["display_name"] == "ddim · oracle · grid_mixture"
    table = json.loads((run["files"] / value(run, "budget.path")).read_text())
    assert len(table["data"]) == len(pd.read_csv(folder / "budget.csv"))
    drawn = run["files"] / value(run, f"budget/{METRIC}.path")
    assert drawn.read_bytes() == (folder / f"budget_{METRIC}.png").read_bytes()
    assert (run["files"] / "budget.csv").read_bytes() == (folder / "budget.csv").read_bytes()


def test_a_run_makes_no_more_calls_than_it_has_numbers_of_steps(
    command: Callable[..., Path], wandb_runs: WandbRuns
) -> None:
    grid = ["start=[prior,exact]", "sampler.ddim.eta=[0,0.25,0.5,1]", "repetitions=3"]
    folder = command("denoiser=oracle", *FEW, *grid)
    assert len(pd.read_parquet(folder / "cells.parquet")) == 2 * 4 * 2 * 3 + 2
    [run] = wandb_runs(folder)
    assert len(run["history"]) == 4  # the table, the figure, two numbers of steps


def test_no_file_of_a_run_holds_the_key(comparisons: dict[str, Path]) -> None:
    for folder in comparisons.values():
        files = [path for path in folder.parent.rglob("*") if path.is_file()]
        assert any(path.suffix == ".wandb" for path in files)
        assert not [path for path in files if KEY.encode() in path.read_bytes()]


def logged_losses(folder: Path, logger: str, wandb_runs: WandbRuns) -> list[tuple[Any, ...]]:
    """The losses in the log of a run, sorted."""
    if logger == "wandb":
        [run] = wandb_runs(folder)
        return sorted(losses_of(run))
    if logger == "csv":
        return sorted(rows_of(folder / "csv" / "losses.csv"))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return sorted(
        (event.step, name, event.value)
        for name in ("train", "validation")
        for event in events.Scalars(f"{name}/loss")
    )


def rows_of(path: Path) -> list[tuple[int, str, float]]:
    """The rows of a file of losses."""
    table = pd.read_csv(path, float_precision="round_trip")
    return list(table.itertuples(index=False, name=None))


ALL_OF_A_JOB = [word for word in FEW if not word.startswith(("cache", "trainer."))]
ALL_OF_A_JOB += ["denoiser=learned", "sampler.ddim.eta=0", "hydra.run.dir=run", "cache_dir=cache"]
ALL_OF_A_JOB += ["trainer.steps=30", "trainer.log_every=5", "trainer.validate_every=10"]
WRITING = ["wandb", "csv", "tensorboard"]


@pytest.mark.parametrize("logger", WRITING)
def test_a_job_that_is_begun_again_has_one_whole_log(
    logger: str,
    wandb_runs: WandbRuns,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is interrupted in its training, then runs to its end, and then again with all known."""
    folder = tmp_path / "run"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["samplerbench", *ALL_OF_A_JOB, f"logger={logger}"])

    def stop(keeper: Any, trainer: Any, *_: Any) -> None:
        if trainer.global_step == 20:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("samplerbench.training.loop.Keeper.on_validation_end", stop)
        with pytest.raises(SystemExit):
            main()
    partial = logged_losses(folder, logger, wandb_runs)
    assert [step for step, name, _ in partial if name == "train"] == [5, 10, 15, 20]
    for former in (f"{logger}.1", f"{logger}.2"):
        main()
        told = f"an earlier log of this job is now {folder / former}; the new one holds all of it"
        assert told in capsys.readouterr().err
        assert (folder / former).is_dir()
        whole = logged_losses(folder, logger, wandb_runs)
        assert [step for step, name, _ in whole if name == "train"] == [5, 10, 15, 20, 25, 30]
        assert [step for step, name, _ in whole if name == "validation"] == [10, 20, 30]
        assert set(partial) <= set(whole)
        exact = sorted(rows_of(folder / "losses.csv"))
        # TensorBoard has single precision
        assert [row[2] for row in whole] == pytest.approx([row[2] for row in exact], rel=1e-7)


@pytest.mark.parametrize("logger", WRITING)
def test_a_rank_in_the_environment_changes_no_log(
    logger: str, wandb_runs: WandbRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs that `srun` packs on a node have ranks, and are no parts of one training."""
    from pytorch_lightning.utilities import rank_zero_only

    monkeypatch.setattr(sys, "argv", ["samplerbench", *ALL_OF_A_JOB, f"logger={logger}"])

    def outcome(name: str) -> tuple[Counter[str], list[tuple[Any, ...]]]:
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        main()
        folder = tmp_path / name / "run"
        files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
        return Counter(path.parts[0] for path in files), logged_losses(folder, logger, wandb_runs)

    alone = outcome("alone")
    for variable, rank in (("SLURM_PROCID", "1"), ("RANK", "1"), ("LOCAL_RANK", "3")):
        monkeypatch.setenv(variable, rank)
    monkeypatch.setattr(rank_zero_only, "rank", 1)  # what Lightning makes of it as it is imported
    assert outcome("packed") == alone


@pytest.mark.slow
@pytest.mark.parametrize("logger", WRITING)
@pytest.mark.parametrize(
    "variable", ["RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK", "NODE_RANK"]
)
def test_a_rank_in_the_environment_of_a_new_process_changes_no_log(
    logger: str, variable: str, wandb_runs: WandbRuns, tmp_path: Path
) -> None:
    words = [sys.executable, "-m", "samplerbench", *ALL_OF_A_JOB, f"logger={logger}"]
    ranked = {**os.environ, "WANDB_MODE": "offline", variable: "1"}
    subprocess.run(words, cwd=tmp_path, env=ranked, check=True, capture_output=True)
    folder = tmp_path / "run"
    exact = sorted(rows_of(folder / "losses.csv"))
    found = [row[2] for row in logged_losses(folder, logger, wandb_runs)]
    assert len(found) == 9
    assert found == pytest.approx([row[2] for row in exact], rel=1e-7)


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="reads Linux's /proc")
def test_a_killed_run_leaves_no_process(tmp_path: Path) -> None:
    code = f"""
        from pathlib import Path
        from samplerbench.logs.base import RunInfo
        from samplerbench.logs.wandb import Wandb
        with Wandb().open(RunInfo(Path({str(tmp_path)!r}), "a", {{}})):
            print("opened", flush=True)
            input()
    """
    run = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def services() -> list[Path]:
        """wandb's service of that process, which knows whose it is."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):  # gone meanwhile
                words = path.read_bytes().split(b"\0")
                if b"--pid" in words and words[words.index(b"--pid") + 1] == b"%d" % run.pid:
                    found.append(path)
        return found

    with run:
        assert run.stdout is not None
        assert run.stdout.readline() == "opened\n"
        assert len(services()) == 1
        run.kill()
    deadline = time.monotonic() + 30
    while services() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert services() == []
