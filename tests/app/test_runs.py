"""Runs on disk: read again, built again, and refused where they cannot be trusted."""

import json
import shutil
import socket
import sys

import pytest
import torch
import yaml

from samplerbench.app.main import main
from samplerbench.app.runs import find_runs, open_run
from samplerbench.errors import InvalidSetting
from samplerbench.evaluation.store import CLOCKS


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """One finished tiny run, which the tests copy before they spoil it."""
    folder = tmp_path_factory.mktemp("stored") / "run"
    words = ["experiment=tiny", "logger=none", f"hydra.run.dir={folder}"]
    before, sys.argv = sys.argv, ["samplerbench", *words]
    try:
        main()
    finally:
        sys.argv = before
    return folder


@pytest.fixture
def copy(stored, tmp_path):
    return shutil.copytree(stored, tmp_path / "copy")


def test_a_finished_run_is_read_and_gives_its_own_samples_again(stored):
    run = open_run(stored)
    assert (run.state, run.message) == ("finished", "")
    assert run.values == len(run.table())
    assert run.choices["dataset"] == "grid_mixture"
    job = run.job()
    rows = {row.cell_id: row for row in job.sweep.run()}
    table = run.table().drop(columns=list(CLOCKS))
    assert set(table["cell_id"]) == set(rows)
    for line in table.itertuples():
        assert rows[line.cell_id].value == line.value


def test_a_run_whose_process_is_gone_was_interrupted(copy):
    status = {"state": "running", "message": "", "host": socket.gethostname(), "process": 2**22 + 1}
    (copy / "status.json").write_text(json.dumps(status))
    run = open_run(copy)
    assert (run.state, run.message) == ("interrupted", "its process is gone")
    (copy / "status.json").write_text(json.dumps(status | {"host": "elsewhere"}))
    assert open_run(copy).state == "running"


def test_what_is_no_run_is_refused_in_one_line(copy, tmp_path):
    with pytest.raises(InvalidSetting, match=r"its config\.yaml"):
        open_run(tmp_path)
    with pytest.raises(InvalidSetting, match="a folder that a job"):
        find_runs(tmp_path / "nothing")
    assert find_runs(tmp_path) == [copy]
    for name in ("config.yaml", "run.json", "status.json"):
        whole = (copy / name).read_bytes()
        (copy / name).write_bytes(whole[: len(whole) // 2] + b"\x00{")
        with pytest.raises(InvalidSetting, match="a whole run") as caught:
            open_run(copy)
        assert "\n" not in str(caught.value)
        (copy / name).write_bytes(whole)


def test_a_run_that_was_killed_as_it_began_is_interrupted(copy):
    for name in ("status.json", "run.json"):
        (copy / name).unlink()
        assert (open_run(copy).state, open_run(copy).values) == ("interrupted", 0)
    (copy / "config.yaml").write_bytes(b"")
    assert open_run(copy).state == "interrupted"


def test_weights_of_another_network_or_none_are_refused(copy):
    weights = copy / "checkpoints" / "model.safetensors"
    whole = weights.read_bytes()
    for content in (whole[:100], b"", b"\x80\x04pickle"):
        weights.write_bytes(content)
        with pytest.raises(InvalidSetting, match="weights of its own network") as caught:
            open_run(copy).job()
        assert "\n" not in str(caught.value)
    torch.save({"a": 1}, weights)  # a pickle, which is never opened as one
    with pytest.raises(InvalidSetting, match="weights of its own network"):
        open_run(copy).job()


def test_a_stored_config_cannot_choose_what_runs(copy, tmp_path):
    path = copy / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["dataset"] = {"_target_": "pathlib.Path.touch", "self": str(tmp_path / "touched")}
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(InvalidSetting, match="a member of samplerbench"):
        open_run(copy).job()
    assert not (tmp_path / "touched").exists()
