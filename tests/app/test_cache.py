"""`samplerbench cache`: what is kept is listed, and what is old is removed."""

import os
import sys
import time

import pytest
from filelock import FileLock

from samplerbench.app.main import COMMANDS, main


@pytest.fixture
def command(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["samplerbench", *words])
        try:
            main()
            status = 0
        except SystemExit as leaving:
            status = int(leaving.code or 0)
        return status, *capsys.readouterr()

    return run


def test_what_a_job_keeps_is_listed_and_pruned(command, tmp_path):
    tiny = ("experiment=tiny", "logger=none", "denoiser=learned", "steps=2", "sampler.ddim.eta=0")
    assert command(*tiny, "trainer.steps=20")[0] == 0
    status, out, _ = command("cache")
    assert status == 0
    assert "grid_mixture · edm · residual_mlp · edm" in out
    assert "trained" in out
    assert "1 trainings, 8 values and 1 archives of figures" in out  # the errors of the score
    cache = tmp_path / "multirun" / ".cache"
    (values,) = {path.parent.parent for path in cache.glob("values/*/*.json")}
    old = next(values.glob("*/*.json"))
    os.utime(old, (time.time() - 10 * 86_400,) * 2)
    assert "removed 0 trainings, 1 values and 0 archives" in command("cache", "prune", "days=5")[1]
    (folder,) = (path for path in cache.glob("trainings/*") if path.is_dir())
    with FileLock(folder.with_suffix(".lock")):  # as a job that trains it holds it
        (folder / "model.safetensors").rename(folder / "state.ckpt")
        assert "being trained" in command("cache")[1]
        assert (
            "removed 0 trainings, 7 values and 1 archives" in command("cache", "prune", "days=0")[1]
        )
    assert "interrupted" in command("cache")[1]
    assert "removed 1 trainings" in command("cache", "prune", "days=0")[1]
    assert "0 trainings, 0 values and 0 archives" in command("cache")[1]


def test_what_cannot_be_removed_is_one_line(command, tmp_path, monkeypatch):
    (tmp_path / "cache" / "trainings" / ("0" * 16)).mkdir(parents=True)

    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("samplerbench.app.commands.cache.shutil.rmtree", refused)
    status, _, err = command("cache", "prune", "days=0", "cache_dir=cache")
    assert status == 2
    assert err.startswith("samplerbench: cache_dir=cache: must be a folder that can be written to")
    assert err.count("\n") == 1


def test_every_command_says_what_it_is(command):
    for name in COMMANDS:
        status, out, err = command(name, "--help")
        assert (status, err) == (0, "")
        assert f"samplerbench {name}" in out


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["cache"], "cache_dir=multirun/.cache"),
        (["cache", "wipe"], "cache=wipe"),
        (["cache", "cache_dir=.", "prune"], "days="),
        (["cache", "cache_dir=.", "prune", "days=-1"], "days=-1"),
    ],
)
def test_bad_input_is_one_line_and_status_2(command, words, named):
    status, out, err = command(*words)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert named in err


def test_only_what_has_a_name_of_the_cache_is_listed_and_pruned(command, tmp_path):
    some = "0123456789abcdef"
    theirs = [
        "trainings/thesis/data.txt",
        "trainings/data.txt",
        f"trainings/{some}/chapter/model.safetensors",
        "trainings/fedcba9876543210/losses.xlsx",
        "trainings/fedcba9876543210/losses.csv",
        "values/a/data.csv",
        "values/ab/data.json",
        f"values/ab/{some}.json",  # which would be in values/01
        f"values/01/{some}.csv",
        f"values/01/{some}.json.unusable/mine",
        f"values/01/{some}.zip",
        f"archives/01/{some}.json",
        "mine/model.safetensors",
    ]
    ours = [
        "trainings/aaaaaaaaaaaaaaaa/model.safetensors",
        "trainings/aaaaaaaaaaaaaaaa/losses.csv",
        "trainings/aaaaaaaaaaaaaaaa/about.json",
        "trainings/aaaaaaaaaaaaaaaa/state.ckpt.unusable",
        "trainings/aaaaaaaaaaaaaaaa/.state.ckpt.0011223344556677.tmp",
        f"values/01/{some}.json",
        f"values/01/.{some}.json.0011223344556677.tmp",
        "values/01/0123456789abcdee.json.unusable",
        f"archives/01/{some}.zip",
        f"archives/01/.{some}.zip.0011223344556677.tmp",
    ]
    for name in [*theirs, *ours]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x" * 1_000_000 if name in theirs else "x")
    said = command("cache", "cache_dir=.")[1]
    assert "aaaaaaaaaaaaaaaa" in said
    assert "thesis" not in said
    assert "1 trainings, 1 values and 1 archives of figures, 0.0 MB" in said
    left_by_a_kill = tmp_path / f"values/01/.{some}.json.0011223344556677.tmp"
    os.utime(left_by_a_kill, (time.time() - 7200,) * 2)  # a younger one may be being written
    said = command("cache", "prune", "days=0", "cache_dir=.")[1]
    assert "removed 1 trainings, 3 values and 1 archives" in said
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    young = f"archives/01/.{some}.zip.0011223344556677.tmp"
    assert left == {*theirs, young, "trainings/aaaaaaaaaaaaaaaa.lock"}
