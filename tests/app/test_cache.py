"""`samplerbench cache`: lists the stored results, and removes old ones."""

import os
import time

from filelock import FileLock

#: The files of values and of archives, and the lock of each training.
GLOBS = ("*.json", "*.zip", "*.lock")


def test_what_a_job_keeps_is_listed_and_pruned(typed, cache, run):
    def said(*words):
        return typed("cache", *words, f"cache_dir={cache}")[1]

    kept = [cache / "values", cache / "archives", cache / "trainings"]
    values, archives, trainings = (len(list(f.rglob(g))) for f, g in zip(kept, GLOBS, strict=True))
    out = said()
    assert "grid_mixture · edm · residual_mlp · edm" in out
    assert "trained" in out
    assert (
        f"{trainings} trainings, {values} values and {archives} archives of figures and grids"
        in out
    )
    old = next((cache / "values").rglob("*.json"))
    os.utime(old, (time.time() - 10 * 86_400,) * 2)
    assert "removed 0 trainings, 1 values and 0 archives" in said("prune", "days=5")
    folders = [path for path in (cache / "trainings").iterdir() if path.is_dir()]
    with FileLock(folders[0].with_suffix(".lock")):  # as a job that trains it holds it
        (folders[0] / "model.safetensors").rename(folders[0] / "state.ckpt")
        assert "being trained" in said()
        gone = f"removed {trainings - 1} trainings, {values - 1} values and {archives} archives"
        assert gone in said("prune", "days=0")
    assert "interrupted" in said()
    assert "removed 1 trainings" in said("prune", "days=0")
    assert "0 trainings, 0 values and 0 archives" in said()


def test_what_cannot_be_removed_is_one_line(refuses, tmp_path, monkeypatch):
    (tmp_path / "cache" / "trainings" / ("0" * 16)).mkdir(parents=True)

    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("samplerbench.app.commands.cache.shutil.rmtree", refused)
    place = tmp_path / "cache" / "trainings" / f"{'0' * 16}.lock"
    place.touch()
    line = refuses(["cache", "prune", "days=0", "cache_dir=cache"])
    assert "cache_dir=cache: must be a folder that can be written to" in line
    allowed = (
        "a folder that exists: jobs make it where they run, so type this command there, or give"
    )
    refuses(["cache"], f"cache_dir=multirun/.cache: must be {allowed} cache_dir=FOLDER")
    refuses(["cache", "wipe"], "cache=wipe")
    refuses(["cache", "cache_dir=.", "prune"], "days=")
    refuses(["cache", "cache_dir=.", "prune", "days=-1"], "days=-1")


def test_only_what_has_a_name_of_the_cache_is_listed_and_pruned(typed, tmp_path):
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
    said = typed("cache", "cache_dir=.")[1]
    assert "aaaaaaaaaaaaaaaa" in said
    assert "thesis" not in said
    assert "1 trainings, 1 values and 1 archives of figures and grids, 0.0 MB" in said
    left_by_a_kill = tmp_path / f"values/01/.{some}.json.0011223344556677.tmp"
    os.utime(left_by_a_kill, (time.time() - 7200,) * 2)  # a younger one may be unfinished
    said = typed("cache", "prune", "days=0", "cache_dir=.")[1]
    assert "removed 1 trainings, 3 values and 1 archives" in said
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    young = f"archives/01/.{some}.zip.0011223344556677.tmp"
    assert left == {*theirs, young, "trainings/aaaaaaaaaaaaaaaa.lock"}
