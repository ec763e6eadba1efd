"""Runs on disk: read again, built again, and refused where they cannot be trusted."""

import errno
import json
import os
import shutil
import sys

import pytest
import torch
import yaml

from samplerbench.app.folder.lock import hold, is_held, release
from samplerbench.app.folder.runs import find_runs, open_run
from samplerbench.app.job.rebuild import rebuild
from samplerbench.app.main import main
from samplerbench.bench.store import CLOCKS
from samplerbench.errors import InvalidSetting


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
    job = rebuild(run)
    rows = {row.cell_id: row for row in job.sweep.run()}
    table = run.table().drop(columns=list(CLOCKS))
    assert set(table["cell_id"]) == set(rows)
    for line in table.itertuples():
        assert rows[line.cell_id].value == line.value


def test_a_run_whose_process_is_gone_was_interrupted(copy):
    running(copy, lock=True)
    run = open_run(copy)
    assert (run.state, run.message) == ("interrupted", "its process is gone")
    (copy / ".lock").unlink()
    assert open_run(copy).state == "interrupted"
    running(copy, lock=False)  # where there are no locks nobody knows
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
            rebuild(open_run(copy))
        assert "\n" not in str(caught.value)
    torch.save({"a": 1}, weights)  # a pickle, which is never opened as one
    with pytest.raises(InvalidSetting, match="weights of its own network"):
        rebuild(open_run(copy))


def test_a_stored_config_cannot_choose_what_runs(copy, tmp_path):
    path = copy / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["dataset"] = {"_target_": "pathlib.Path.touch", "self": str(tmp_path / "touched")}
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(InvalidSetting, match="a member of samplerbench"):
        rebuild(open_run(copy))
    assert not (tmp_path / "touched").exists()


def again(folder, *words):
    """The status of the command that made the run, begun again in its folder."""
    command = ["samplerbench", "experiment=tiny", "logger=none", f"hydra.run.dir={folder}", *words]
    before, sys.argv = sys.argv, command
    try:
        main()
    except SystemExit as leaving:
        return leaving.code or 0
    finally:
        sys.argv = before
    return 0


def running(folder, **changes):
    """The status of a run that is begun, and its folder as a killed process leaves it."""
    status = json.loads((folder / "status.json").read_text())
    status |= {"state": "running", "message": ""} | changes
    (folder / "status.json").write_text(json.dumps(status))


@pytest.mark.parametrize("changes", [{"host": "a node that died"}, {"process": 1}])
def test_the_command_of_a_run_whose_process_is_gone_goes_on(copy, changes):
    before = open_run(copy).table().drop(columns=list(CLOCKS))
    running(copy, lock=True, **changes)
    assert (open_run(copy).state, open_run(copy).message) == ("interrupted", "its process is gone")
    assert again(copy) == 0
    assert open_run(copy).state == "finished"
    assert open_run(copy).table().drop(columns=list(CLOCKS)).equals(before)


def test_a_run_that_is_worked_on_is_left_alone(copy, capsys):
    assert hold(copy)
    running(copy, lock=True, host="elsewhere")
    try:
        assert open_run(copy).state == "running"
        assert again(copy) == 2
        assert "it still runs" in capsys.readouterr().err
    finally:
        release(copy)
    assert open_run(copy).state == "interrupted"
    running(copy, lock=False)
    assert again(copy) == 2
    assert "it still runs, says status.json: process" in capsys.readouterr().err


def test_a_lock_ends_with_its_process(copy):
    child = os.fork()
    if child == 0:
        os._exit(0 if hold(copy) and is_held(copy) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert hold(copy)
    release(copy)


@pytest.mark.slow
def test_a_file_system_without_locks_stops_no_run(copy, monkeypatch):
    def refuses(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuses)
    assert again(copy) == 0
    assert json.loads((copy / "status.json").read_text())["lock"] is False
    running(copy)
    assert open_run(copy).state == "running"


@pytest.mark.parametrize("name", ["status.json", "run.json"])
def test_what_cannot_be_read_of_a_run_is_named_and_it_goes_on(copy, capfd, name):
    before = open_run(copy).table().drop(columns=list(CLOCKS))
    (copy / name).write_text("{")
    assert again(copy, "seed=1") == 2  # another run's: nothing of it is touched
    assert (copy / name).read_text() == "{"
    assert "its config.yaml is another run's" in capfd.readouterr().err
    assert again(copy) == 0
    assert f"{name} is not usable" in capfd.readouterr().err.replace("\n", "")
    assert (copy / f"{name}.unusable").read_text() == "{"
    assert open_run(copy).state == "finished"
    assert open_run(copy).table().drop(columns=list(CLOCKS)).equals(before)


def test_a_run_of_other_versions_is_not_mixed_with_these(copy, capsys):
    about = json.loads((copy / "run.json").read_text())
    about["versions"]["torch"] = "1.0"
    (copy / "run.json").write_text(json.dumps(about))
    assert again(copy) == 2
    assert "of other versions: torch 1.0, now " in capsys.readouterr().err
    assert hold(copy)  # the refused one gave it back
    release(copy)
