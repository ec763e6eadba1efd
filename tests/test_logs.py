"""Every log is read back from its files, by another way than the one that wrote it."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
import yaml
from matplotlib.image import imsave
from torch import Tensor

import samplerbench.logs
from samplerbench.errors import InvalidSetting
from samplerbench.logs import Csv, Log, Logger, NoLogger, TensorBoard, Wandb, open_log, points

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
        "value": [0.125, 0.25, 0.5, 0.375, 0.625, float("nan"), 0.75],
        "status": ["ok"] * 5 + ["diverged", "a|b"],
    }
)
CURVES = {
    "distance/learned/prior/eta=0": {4: 0.25, 9: 0.125},
    "distance/learned/prior/eta=0.5": {4: 0.5, 9: 0.5},  # two repetitions; the last cell diverged
    "distance/oracle/prior": {4: 0.75},
}
CONF = Path(__file__).parents[1] / "conf" / "logger"


class Line(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: Tensor, _: int) -> Tensor:
        loss = self.layer(batch).square().mean()
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def write(log: Log, directory: Path) -> None:
    """What the app does."""
    trainer = pl.Trainer(
        logger=log.lightning,
        max_steps=4,
        log_every_n_steps=1,
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = torch.utils.data.DataLoader(torch.ones(16, 1), batch_size=4)  # type: ignore[arg-type]
    trainer.fit(Line(), data)
    png = directory / "distance.png"
    imsave(png, np.linspace(0, 1, 4 * 6 * 3).reshape(4, 6, 3))
    log.table("cells", CELLS)
    log.figure("distance", png)
    log.curves("distance", CELLS, x="steps", y="value", by=["denoiser", "start", "eta"])


def column(run: dict[str, Any], key: str, x: str) -> dict[float, float]:
    return {row[x]: row[key] for row in run["history"] if key in row}


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
        with open_log(
            Wandb(project="p"), directory=tmp_path, name=name, group="both", config=CONFIG
        ) as log:
            write(log, tmp_path)
            assert Path(log.where).is_relative_to(tmp_path)
    assert dict(os.environ) == before

    runs = wandb_runs(tmp_path)
    assert [run["display_name"] for run in runs] == ["one", "two"]
    assert len({run["run_id"] for run in runs}) == 2
    for run in runs:
        assert (run["run_group"], run["project"], run["exit"]) == ("both", "p", 0)
        assert {key: run["config"][key] for key in CONFIG} == CONFIG
        assert sorted(column(run, "train/loss", "trainer/global_step")) == [0, 1, 2, 3]

        table = json.loads((run["files"] / value(run, "cells.path")).read_text())
        assert table["columns"] == list(CELLS)
        assert len(table["data"]) == len(CELLS)
        assert table["data"][3] == ["learned", "prior", 0.5, 9, 0.375, "ok"]
        assert table["data"][5] == ["learned", "prior", 0.5, 16, None, "diverged"]

        figure = run["files"] / value(run, "distance.path")
        assert figure.read_bytes() == (tmp_path / "distance.png").read_bytes()

        for curve, expected in CURVES.items():
            assert column(run, curve, "steps") == expected
            assert run["metrics"][curve]["step_metric"] == "steps"
        assert not any("trainer/global_step" in row for row in run["history"] if "steps" in row)


def test_an_exception_marks_the_wandb_run_failed(wandb_runs: WandbRuns, tmp_path: Path) -> None:
    def job() -> None:
        with open_log(Wandb(), directory=tmp_path, name="bad", group=None, config={}) as log:
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
    from samplerbench.logs import Wandb, open_log
    loaded = [name for name in ("wandb", "pytorch_lightning", "torch") if name in sys.modules]
    assert not loaded, loaded
    started = time.monotonic()
    settings = Wandb({settings})
    with open_log(settings, directory=Path("{run}"), name="a", group=None, config={{}}) as log:
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
    with open_log(
        Wandb(mode="disabled"), directory=tmp_path, name="a", group=None, config=CONFIG
    ) as log:
        log.table("cells", CELLS)
        log.curves("distance", CELLS, x="steps", y="value", by=[])
        assert log.where == ""
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_csv(tmp_path: Path) -> None:
    with open_log(Csv(), directory=tmp_path, name="a", group=None, config=CONFIG) as log:
        write(log, tmp_path)
        folder = Path(log.where)
    assert folder == tmp_path / "csv"
    losses = pd.read_csv(folder / "metrics.csv")
    assert losses["train/loss"].notna().sum() == 4
    pd.testing.assert_frame_equal(pd.read_csv(folder / "cells.csv"), CELLS)
    assert yaml.safe_load((folder / "hparams.yaml").read_text()) == CONFIG


def test_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with open_log(TensorBoard(), directory=tmp_path, name="a", group=None, config=CONFIG) as log:
        write(log, tmp_path)
        folder = Path(log.where)
    assert folder == tmp_path / "tensorboard"
    events = EventAccumulator(str(folder))
    events.Reload()
    assert len(events.Scalars("train/loss")) == 4
    for curve, expected in CURVES.items():
        assert {event.step: event.value for event in events.Scalars(curve)} == expected
    [image] = events.Images("distance")
    assert (image.width, image.height) == (6, 4)
    [table] = events.Tensors("cells/text_summary")
    text = table.tensor_proto.string_val[0].decode().splitlines()
    assert text[0] == "| denoiser | start | eta | steps | value | status |"
    assert len(text) == 2 + len(CELLS)
    assert text[-1] == r"| oracle | prior | nan | 4 | 0.75 | a\|b |"
    assert yaml.safe_load((folder / "hparams.yaml").read_text()) == CONFIG


def test_tensorboard_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(InvalidSetting, match=r"pip install 'samplerbench\[tensorboard\]'$"):
        TensorBoard()


def test_none(tmp_path: Path) -> None:
    with open_log(NoLogger(), directory=tmp_path, name="a", group=None, config=CONFIG) as log:
        assert (log.lightning, log.where) == (False, "")
        write(log, tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "distance.png"]


def test_points_are_sorted_averaged_and_finite() -> None:
    rows = points("distance", CELLS, "steps", "value", ["denoiser", "start", "eta"])
    assert list(rows) == [4, 9]
    for curve, expected in CURVES.items():
        assert {x: row[curve] for x, row in rows.items() if curve in row} == expected
    assert points("all", CELLS.head(2), "steps", "value", []) == {
        4: {"all": 0.25},
        9: {"all": 0.125},
    }


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
    assert module == samplerbench.logs.__name__
    member = getattr(samplerbench.logs, name)
    assert issubclass(member, Logger)
    defaults = {field.name: field.default for field in dataclasses.fields(member)}
    assert set(config) == set(defaults)
    for key, written in config.items():  # "${oc.env:NAME,default}" or a plain value
        plain = yaml.safe_load(str(written).removesuffix("}").rpartition(",")[2])
        assert plain == defaults[key]
