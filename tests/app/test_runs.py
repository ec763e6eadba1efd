"""Runs on disk: read and built again, and refused if they cannot be trusted."""

import errno
import json
import os

import pandas as pd
import pytest

from helpers import refused_in_one_line
from samplerbench.app.folder.lock import hold, is_held, release
from samplerbench.app.folder.runs import find_runs, open_run
from samplerbench.app.job.rebuild import rebuild
from samplerbench.bench.store import CLOCKS
from samplerbench.errors import InvalidSetting


def values(folder):
    return open_run(folder).table().drop(columns=list(CLOCKS))


@pytest.fixture
def again(typed, tiny, run):
    """Begins the command that made the run again in its folder: its status and standard error."""

    def begin(*words):
        status, _, err = typed(*tiny, f'hydra.run.dir="{run}"', *words)
        return status, err.replace("\n", "")

    return begin


def running(folder, **changes):
    """The folder of a run that is begun, as a killed process leaves it."""
    status = json.loads((folder / "status.json").read_text())
    status |= {"state": "running", "message": "", "lock": True} | changes
    (folder / "status.json").write_text(json.dumps(status))


def test_a_finished_run_is_read_and_gives_its_own_samples_again(finished):
    run = open_run(finished)
    assert (run.state, run.message) == ("finished", "")
    assert run.values == len(run.table())
    assert run.choices["dataset"] == "grid_mixture"
    rows = {row.cell_id: row.value for row in rebuild(run).sweep.run()}
    table = run.table()
    assert dict(zip(table["cell_id"], table["value"], strict=True)) == rows


def test_what_is_no_run_is_refused_in_one_line(run, tmp_path):
    with pytest.raises(InvalidSetting, match=r"its config\.yaml"):
        open_run(tmp_path)
    with pytest.raises(InvalidSetting, match="a folder that a job"):
        find_runs(tmp_path / "nothing")
    assert find_runs(tmp_path) == [run]
    for name in ("config.yaml", "run.json", "status.json"):
        whole = (run / name).read_bytes()
        (run / name).write_bytes(whole[: len(whole) // 2] + b"\x00{")
        with refused_in_one_line("a complete run"):
            open_run(run)
        (run / name).write_bytes(whole)


def test_a_run_that_was_killed_as_it_began_is_interrupted(run):
    for name in ("status.json", "run.json"):
        (run / name).unlink()
        assert (open_run(run).state, open_run(run).values) == ("interrupted", 0)
    (run / "config.yaml").write_bytes(b"")
    assert open_run(run).state == "interrupted"


@pytest.mark.slow
def test_the_command_of_a_run_whose_process_is_gone_goes_on(run, again):
    before = values(run)
    running(run, host="a node that died", process=1)
    assert (open_run(run).state, open_run(run).message) == ("interrupted", "its process has ended")
    assert again()[0] == 0
    assert open_run(run).state == "finished"
    pd.testing.assert_frame_equal(values(run), before)


def test_a_run_that_is_worked_on_is_left_alone(run, again):
    assert hold(run)
    running(run, host="elsewhere")
    try:
        assert open_run(run).state == "running"
        status, err = again()
        assert status == 2
        assert "it still runs" in err
    finally:
        release(run)
    assert open_run(run).state == "interrupted"
    (run / ".lock").unlink()
    assert open_run(run).state == "interrupted"
    running(run, lock=False)  # without locks this is not known
    assert open_run(run).state == "running"
    status, err = again()
    assert status == 2
    assert "it still runs, by status.json: process" in err


def test_a_lock_ends_with_its_process(run):
    child = os.fork()
    if child == 0:
        os._exit(0 if hold(run) and is_held(run) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert hold(run)
    release(run)


@pytest.mark.slow
def test_a_file_system_without_locks_stops_no_run(run, again, monkeypatch):
    def refuses(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuses)
    assert again()[0] == 0
    assert json.loads((run / "status.json").read_text())["lock"] is False


@pytest.mark.parametrize("name", ["status.json", pytest.param("run.json", marks=pytest.mark.slow)])
def test_what_cannot_be_read_of_a_run_is_named_and_it_goes_on(run, again, name):
    before = values(run)
    (run / name).write_text("{")
    status, err = again("seed=1")  # another run's: nothing of it is touched
    assert status == 2
    assert (run / name).read_text() == "{"
    assert "its config.yaml belongs to another run" in err
    status, err = again()
    assert status == 0
    assert f"{name} is not usable" in err
    assert (run / f"{name}.unusable").read_text() == "{"
    assert open_run(run).state == "finished"
    pd.testing.assert_frame_equal(values(run), before)


def test_a_run_of_other_versions_is_not_mixed_with_these(run, again):
    about = json.loads((run / "run.json").read_text())
    about["versions"]["torch"] = "1.0"
    (run / "run.json").write_text(json.dumps(about))
    status, err = again()
    assert status == 2
    assert "with other versions: torch 1.0, now " in err
    assert hold(run)  # the refused one gave it back
    release(run)


def test_a_run_that_continues_elsewhere_names_both_machines(run, again):
    about = json.loads((run / "run.json").read_text())
    (here,) = about["machines"]
    elsewhere = here | {"model": "another processor"}
    for before in ([elsewhere], []):  # an earlier build recorded none
        (run / "run.json").write_text(json.dumps({**about, "machines": before}))
        assert again()[0] == 0
        assert open_run(run).machines == [*before, here]


def test_a_job_does_not_take_a_folder_of_others(typed, tiny, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "report.txt").write_text("my own report")
    status, _, err = typed(*tiny, "denoiser=oracle", "hydra.run.dir=mine")
    assert status == 2
    assert "hydra.run.dir=" in err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["report.txt"]
    assert (tmp_path / "mine" / "report.txt").read_text() == "my own report"
