"""Every log is read back from its files, by another way than the one that wrote it."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
import textwrap
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.image import imsave

from helpers import until
from samplerbench.app.config.folders import conf_directory
from samplerbench.errors import InvalidSetting, RunFailed
from samplerbench.files import write_atomically
from samplerbench.logs.base import Logger, NoLogger, RunInfo, curve_points, run_name
from samplerbench.logs.csv import Csv
from samplerbench.logs.tensorboard import TensorBoard
from samplerbench.logs.wandb import Wandb

KEY = "0123456789abcdef" * 2 + "01234567"
CONFIG = {"seed": 3, "sampler": {"_target_": "samplerbench.samplers.ddim.DDIM", "eta": [0.0, 0.5]}}
LOSSES = [(2, "train", 0.1), (4, "train", 0.25), (4, "validation", 1 / 3), (6, "train", 2e-9)]
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
# against evaluations, of which the first sampler needs about two for each step
CURVES = {
    "distance/learned/prior/eta=0": {7: 0.25, 17: 0.125},
    "distance/learned/prior/eta=0.5": {4: 0.5, 9: 0.5},  # two repetitions; the last cell diverged
    "distance/oracle/prior": {4: 0.75},
}


def write(log, directory):
    """Log what a job logs."""
    for count in (1, 3, 3, 4, 4):  # all losses so far, after each new one, and at the end again
        log.losses(LOSSES[:count])
    png = directory / "distance.png"
    imsave(png, np.linspace(0, 1, 4 * 6 * 3).reshape(4, 6, 3))
    log.table("cells", CELLS)
    log.figure("distance", png)
    log.curves("distance", CELLS, ["nfe", "steps"], "value", by=["denoiser", "start", "eta"])
    (directory / "report.txt").write_text("as it was")
    log.files([directory / "report.txt"])
    write_atomically(directory / "report.txt", b"written again")


def column(run, key, x):
    return {row[x]: row[key] for row in run["history"] if key in row}


def files_below(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.slow
def test_wandb_offline_holds_everything_and_two_runs_in_one_process_stay_two(wandb_runs, tmp_path):
    environment = dict(os.environ)
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        info = RunInfo(folder, name, CONFIG, "both", ["rings", "ddim"])
        with Wandb(project="p").open(info) as log:
            write(log, folder)
            assert Path(log.where).is_relative_to(folder)
    assert dict(os.environ) == environment

    [one], [two] = wandb_runs(tmp_path / "one"), wandb_runs(tmp_path / "two")
    assert one["run_id"] != two["run_id"]
    for name, run in (("one", one), ("two", two)):
        assert run["display_name"] == name
        assert (run["run_group"], run["project"], run["exit"]) == ("both", "p", 0)
        assert run["tags"] == ["rings", "ddim"]
        assert {key: run["config"][key] for key in CONFIG} == CONFIG
        assert run["losses"] == LOSSES

        table = json.loads((run["files"] / run["last"]["cells.path"]).read_text())
        assert table["columns"] == list(CELLS)
        assert len(table["data"]) == len(CELLS)
        assert table["data"][3] == ["learned", "prior", 0.5, 9, 9, 0.375, "ok"]
        assert table["data"][5] == ["learned", "prior", 0.5, 16, 16, None, "diverged"]

        figure = run["files"] / run["last"]["distance.path"]
        assert figure.read_bytes() == (tmp_path / name / "distance.png").read_bytes()

        for curve_name, expected in CURVES.items():
            curve = curve_name.replace("=", "_").replace(".", "_")  # the app cannot sort by these
            assert column(run, curve, "nfe") == expected
            assert run["metrics"][curve]["step_metric"] == "nfe"
        assert not any("trainer/global_step" in row for row in run["history"] if "nfe" in row)
        first = column(run, "distance/learned/prior/eta_0", "steps")
        assert first == {4: 0.25, 9: 0.125}
        assert (run["files"] / "report.txt").read_text() == "as it was"


@pytest.mark.slow
def test_names_and_tags_are_no_longer_than_wandb_takes(wandb_runs, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setenv("WANDB_TAGS", f"mine, {'b' * 65},,rings")
        patched.setenv("WANDB_RUN_ID", "a/b")
        patched.setenv("WANDB_RESUME", "must")
        for last in "xy":  # long texts that differ only at the end stay different
            tags = ["rings", "a" * 64, 70 * "t" + last]
            info = RunInfo(tmp_path / last, 300 * "n" + last, {}, 300 * "g" + last, tags)
            with Wandb().open(info):
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


def test_a_setting_that_wandb_refuses_is_named_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", "nowhere")
    with pytest.raises(RunFailed, match="logger=wandb: WANDB_BASE_URL is refused: ") as caught:
        Wandb().open(RunInfo(tmp_path, "a", {}))
    assert "\n" not in str(caught.value)


def test_an_exception_marks_the_wandb_run_failed(wandb_runs, tmp_path):
    def job():
        with Wandb().open(RunInfo(tmp_path, "bad", {})) as log:
            log.table("cells", CELLS)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        job()
    [run] = wandb_runs(tmp_path)
    assert run["exit"] == 1
    assert run["last"]["cells.nrows"] == len(CELLS)


OPENS = """
    import os, sys, time
    from pathlib import Path
    import pandas as pd
    from samplerbench.logs.base import RunInfo
    from samplerbench.logs.wandb import Wandb
    loaded = [name for name in ("wandb", "pytorch_lightning", "torch") if name in sys.modules]
    assert not loaded, loaded
    for name, variables, settings in {runs}:
        os.environ.update(variables)
        started = time.monotonic()
        with Wandb(**settings).open(RunInfo(Path("../runs", name), "a", {{}})) as log:
            print("opened", time.monotonic() - started)
            log.table("cells", pd.DataFrame({{"value": [1.0, 2.0]}}))
    children = Path(f"/proc/self/task/{{os.getpid()}}/children")
    print("left", children.read_text() if children.exists() else "")
"""


@pytest.fixture
def open_logs(wandb_runs, tmp_path):
    """Opens logs in one process with its own home; checks that each is a whole offline run.

    Nothing else may be left: no file outside of the runs, no process and no key. The logs are given
    as (name, environment variables, settings). Returns stderr's lines and the seconds of opening.
    """

    def run(*runs):
        for name in ("home", "tmp", "cwd"):
            (tmp_path / name).mkdir()
        folders = {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp")}
        result = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(OPENS.format(runs=runs))],
            cwd=tmp_path / "cwd",
            env=os.environ | folders,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
        *opened, left = result.stdout.splitlines()
        assert left.split() == ["left"], "a process of wandb is still there"
        assert [files_below(tmp_path / name) for name in ("home", "tmp", "cwd")] == [[]] * 3
        for name, *_ in runs:
            [log] = wandb_runs(tmp_path / "runs" / name)
            assert log["last"]["cells.nrows"] == 2
        files = files_below(tmp_path / "runs")
        assert not [path for path in files if KEY.encode() in path.read_bytes()]
        return result.stderr.splitlines(), [float(line.split()[1]) for line in opened]

    return run


@pytest.mark.slow  # quick: the reason of an error, below
def test_wandb_offline_uses_no_network_and_online_goes_on_offline(open_logs):
    """Online without a key, and online with a server that accepts connections and never answers."""
    with (
        socket.create_server(("127.0.0.1", 0)) as unused,
        socket.create_server(("127.0.0.1", 0)) as dead,
    ):
        unused_url, dead_url = (
            {"WANDB_BASE_URL": f"http://127.0.0.1:{server.getsockname()[1]}"}
            for server in (unused, dead)
        )
        with_key = {"WANDB_API_KEY": KEY}
        without_key, timeout = open_logs(
            ("without_key", unused_url, {"mode": "online"}),
            ("offline", unused_url | with_key, {}),
            ("dead", dead_url, {"mode": "online", "init_timeout": 1}),
        )[0]
        assert "No API key configured" in without_key
        for line in (without_key, timeout):
            assert line.startswith("wandb: ")
            assert "This run is logged offline, in " in line
        unused.setblocking(False)
        with pytest.raises(BlockingIOError):  # there was no connection
            unused.accept()
        dead.accept()


@pytest.mark.slow
def test_wandb_online_without_a_network_goes_on_offline_within_20_seconds(open_logs):
    # a name that no network resolves, so the test is the same everywhere
    variables = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": "https://wandb.invalid"}
    lines, [seconds] = open_logs(("run", variables, {"mode": "online"}))
    assert len(lines) == 1, lines
    assert 5 < seconds < 20


def test_an_error_without_words_has_a_reason(wandb_runs, tmp_path, monkeypatch, caplog):
    import wandb

    init = wandb.init

    def without_network(**options):
        if options["settings"].mode == "online":
            raise TimeoutError
        return init(**options)

    monkeypatch.setattr(wandb, "init", without_network)
    with Wandb(mode="online").open(RunInfo(tmp_path, "a", {})):
        pass
    [line] = [record.message for record in caplog.records if record.name == Wandb.__module__]
    assert line.startswith("wandb: TimeoutError. This run is logged offline, in ")
    assert len(wandb_runs(tmp_path)) == 1


def test_wandb_disabled_writes_nothing(tmp_path):
    with Wandb(mode="disabled").open(RunInfo(tmp_path, "a", CONFIG)) as log:
        log.losses(LOSSES)
        log.table("cells", CELLS)
        log.curves("distance", CELLS, ["nfe"], "value", by=[])
        assert log.where == ""
    assert files_below(tmp_path) == []


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="reads Linux's /proc")
def test_a_killed_run_leaves_no_process(tmp_path):
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

    def services():
        """The services of wandb that belong to that process, by the word after --pid."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):  # the process has ended
                words = path.read_bytes().split(b"\0")
                if b"--pid" in words and words[words.index(b"--pid") + 1] == b"%d" % run.pid:
                    found.append(path)
        return found

    with run:
        assert run.stdout.readline() == "opened\n"
        assert len(services()) == 1
        run.kill()
    until(lambda: services() == [], 30)


def test_csv(tmp_path):
    with Csv().open(RunInfo(tmp_path, "a", CONFIG)) as log:
        write(log, tmp_path)
        assert log.where == str(tmp_path / "csv")
    losses = pd.read_csv(tmp_path / "csv" / "losses.csv", float_precision="round_trip")
    assert list(losses) == ["step", "name", "loss"]
    assert list(losses.itertuples(index=False, name=None)) == LOSSES
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "csv" / "cells.csv"), CELLS)


def test_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with TensorBoard().open(RunInfo(tmp_path, "a", CONFIG)) as log:
        write(log, tmp_path)
        assert log.where == str(tmp_path / "tensorboard")
    events = EventAccumulator(log.where)
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
    written = config.tensor_proto.string_val[0].decode()
    assert json.loads(written.removeprefix("```\n").removesuffix("\n```")) == CONFIG


def test_tensorboard_missing_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(InvalidSetting, match=r"pip install 'samplerbench\[tensorboard\]'$"):
        TensorBoard()


def test_none(tmp_path):
    with NoLogger().open(RunInfo(tmp_path, "a", CONFIG)) as log:
        assert log.where == ""
        write(log, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"distance.png", "report.txt"}


@pytest.mark.parametrize(
    "logger", [Wandb(), Csv(), TensorBoard()], ids=lambda of: type(of).__name__
)
def test_an_earlier_log_is_kept_under_a_name_with_a_number(logger, tmp_path, caplog):
    for _ in range(3):
        with logger.open(RunInfo(tmp_path, "a", {})) as log:
            log.losses(LOSSES)
    folder = type(logger).__name__.lower()
    assert {path.name for path in tmp_path.iterdir()} == {folder, f"{folder}.1", f"{folder}.2"}
    assert all(files_below(path) for path in tmp_path.iterdir())
    kept = f"an earlier log of this job is now {tmp_path / folder}.2; the new log is complete"
    assert kept in caplog.text


def test_points_are_sorted_averaged_and_finite():
    rows = curve_points("distance", CELLS, ["nfe", "steps"], "value", ["denoiser", "start", "eta"])
    assert list(rows) == [(4, 4), (7, 4), (9, 9), (17, 9)]
    for curve, expected in CURVES.items():
        assert {x: row[curve] for (x, _), row in rows.items() if curve in row} == expected
    assert curve_points("all", CELLS.head(2), ["steps"], "value", []) == {
        (4,): {"all": 0.25},
        (9,): {"all": 0.125},
    }


def test_the_name_of_a_run():
    assert run_name(["ddim", "ddim", "heun"], "edm", "rings") == "ddim,heun · edm · rings"
    words = ["objective=ncsn", "seed=1", "trainer.steps=9"]
    assert (
        run_name(["heun"], "ncsn", "rings", words) == "heun · ncsn · rings · seed=1 trainer.steps=9"
    )
    assert run_name("abcde", "oracle", "rings") == "a,b,c +2 · oracle · rings"
    assert run_name([], "", "rings") == "rings"


def test_bad_settings_are_named():
    for settings in (
        {"project": "a/b"},
        {"project": ""},
        {"mode": "on-line"},
        {"init_timeout": 0},
        {"finish_timeout": float("nan")},
    ):
        with pytest.raises(InvalidSetting) as caught:
            Wandb(**settings)
        assert [caught.value.field] == list(settings)


def test_every_config_names_a_logger_and_its_defaults():
    for path in (conf_directory() / "logger").glob("*.yaml"):
        config = yaml.safe_load(path.read_text())
        module, _, name = config.pop("_target_").rpartition(".")
        member = getattr(import_module(module), name)
        assert issubclass(member, Logger)
        defaults = {field.name: field.default for field in dataclasses.fields(member)}
        assert set(config) == set(defaults)
        for key, written in config.items():  # "${oc.env:NAME,default}" or a plain value
            plain = yaml.safe_load(str(written).removesuffix("}").rpartition(",")[2])
            assert plain == defaults[key]
