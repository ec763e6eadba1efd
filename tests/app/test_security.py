"""What somebody else's files can do to whoever opens them: nothing but be refused in one line."""

import json
import os
import pickle
import shutil

import pandas as pd
import pytest
import torch
import yaml

from samplerbench.app.folder.runs import open_run
from samplerbench.app.job.rebuild import rebuild
from samplerbench.app.job.run import read_losses
from samplerbench.bench.cache import Cache
from samplerbench.bench.store import CLOCKS, Store
from samplerbench.errors import InvalidSetting

SECRET = "s3cr3tmark"
#: What people keep in their environment; wandb reads the first and the proxy itself.
SECRETS = {
    "WANDB_API_KEY": SECRET.ljust(40, "0"),
    "HTTPS_PROXY": f"http://me:{SECRET}@127.0.0.1:9",
    "HF_TOKEN": SECRET,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "SLURM_JWT": SECRET,
    "MY_PASSWORD": SECRET,
}
JOB = ("experiment=tiny", "trainer.steps=20", "denoiser=learned", "steps=[2,3]", "start=exact")
JOB += ("n_samples=60", "block=60", "sampler.ddim.eta=0", "metric=[sliced]", "workers=1")


@pytest.fixture(scope="module")
def stored(command, tmp_path_factory):
    """A finished run and its cache, made where the environment is full of secrets."""
    folder = tmp_path_factory.mktemp("secrets")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SECRETS.items():
            patch.setenv(name, value)
        assert command(*JOB, f"hydra.run.dir={folder}/run", f"cache_dir={folder}/cache") == 0
    return folder / "run"


@pytest.fixture
def run(stored, tmp_path):
    """A copy of it, to be spoilt; its cache lies beside it."""
    shutil.copytree(stored.parent / "cache", tmp_path / "cache")
    return shutil.copytree(stored, tmp_path / "run")


@pytest.fixture
def here(monkeypatch, tmp_path):
    """An empty folder to work in, in another one that holds all that may change."""
    folder = tmp_path / "home" / "work"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def change(run, **nodes):
    """The run's config with other top-level keys."""
    path = run / "config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | nodes))


def test_no_secret_is_in_any_file_of_a_run(stored):
    written = contents(stored.parent)
    names = {path.name for path in written}
    assert {"config.yaml", "run.json", "status.json", "report.txt"} <= names
    assert any(name.endswith(".wandb") for name in names)
    assert [path for path, content in written.items() if SECRET.encode() in content] == []


@pytest.mark.parametrize("write", [pickle.dumps, None], ids=["pickle", "torch"])
def test_a_checkpoint_executes_nothing(run, tmp_path, write):
    touched, weights = tmp_path / "touched", run / "checkpoints" / "model.safetensors"
    if write:
        weights.write_bytes(write(Touch(touched)))
    else:
        torch.save({"network.weight": Touch(touched)}, weights)
    with pytest.raises(InvalidSetting, match="weights of its own network") as caught:
        rebuild(open_run(run))
    assert "\n" not in str(caught.value)
    assert not touched.exists()


def test_a_cache_executes_nothing_and_is_worked_out_again(command, run, here, tmp_path):
    touched, cache = tmp_path / "touched", tmp_path / "cache"
    (place,) = (path for path in (cache / "trainings").iterdir() if path.is_dir())
    (place / "model.safetensors").write_bytes(pickle.dumps(Touch(touched)))
    torch.save({"state_dict": Touch(touched), "callbacks": {}}, place / "state.ckpt")
    for path in (cache / "values").rglob("*.json"):
        path.write_bytes(pickle.dumps(Touch(touched)))
    assert command(*JOB, "logger=none", "hydra.run.dir=again", f"cache_dir={cache}") == 0
    assert not touched.exists()
    assert (place / "model.safetensors.unusable").exists()
    assert (place / "state.ckpt.unusable").exists()
    tables = (pd.read_parquet(path / "cells.parquet") for path in (run, here / "again"))
    first, second = (table.drop(columns=list(CLOCKS)) for table in tables)
    pd.testing.assert_frame_equal(first, second, check_exact=True)


@pytest.mark.parametrize("content", ["", "step,name,l\n", "step,name,loss\n"])
def test_losses_are_whole_or_no_losses(tmp_path, content):
    (tmp_path / "losses.csv").write_text(content)
    with pytest.raises(ValueError, match=r"no losses|No columns"):
        read_losses(tmp_path / "losses.csv")


@pytest.mark.parametrize("spoilt", ["step,name,l\n", "step,name,loss\n1,train,2.5\n", None])
def test_weights_whose_losses_cannot_be_read_are_trained_again(
    command, run, here, tmp_path, spoilt
):
    cache = tmp_path / "cache"
    (place,) = (path for path in (cache / "trainings").iterdir() if path.is_dir())
    losses = (place / "losses.csv").read_bytes()
    (place / "losses.csv").unlink()
    if spoilt is not None:
        (place / "losses.csv").write_text(spoilt)
    shutil.rmtree(cache / "values")  # or the weights would not be asked
    assert command(*JOB, "logger=none", "hydra.run.dir=again", f"cache_dir={cache}") == 0
    assert (place / "losses.csv").read_bytes() == losses
    assert not (place / "model.safetensors.unusable").exists()
    assert (place / "losses.csv.unusable").exists() == (spoilt is not None)
    tables = (pd.read_parquet(path / "cells.parquet") for path in (run, here / "again"))
    first, second = (table.drop(columns=list(CLOCKS)) for table in tables)
    pd.testing.assert_frame_equal(first, second, check_exact=True)


def tricks(tmp_path):
    """Nodes that would do something if they were called."""
    touched = str(tmp_path / "touched")
    yield {"_target_": "os.system", "command": f"touch {touched}"}
    yield {"_target_": "posix.system", "command": f"touch {touched}"}
    yield {"_target_": "builtins.exec", "source": f"open({touched!r}, 'w')"}
    yield {"_target_": "builtins.open", "file": touched, "mode": "w"}
    yield {"_target_": "subprocess.Popen", "args": ["touch", touched]}
    yield {"_target_": "functools.partial", "_args_": ["os.system", f"touch {touched}"]}
    yield {"_target_": "hydra.utils.instantiate", "config": {"_target_": "os.system"}}
    yield {"_target_": "samplerbench.app.main.os.system", "command": f"touch {touched}"}
    yield {"_target_": "samplerbench.app.main.main"}
    # ours, and yet nothing that a config has any business with
    write = "samplerbench.files.write_atomically"
    yield {"_target_": write, "path": touched, "content": "evil"}
    yield {"_target_": write, "path": touched, "content": "evil", "_partial_": True}
    yield {
        "_target_": "samplerbench.app.commands.cache.prune",
        "directory": str(tmp_path),
        "before": 9e9,
    }
    yield {"_target_": "samplerbench.app.commands.check.main", "words": ["subprocess.Popen"]}
    yield {
        "_target_": "samplerbench.app.commands.report.main",
        "words": [str(tmp_path), f"out={touched}"],
    }
    yield {"_target_": "samplerbench.library.load", "directory": ".", "trusted": "subprocess"}
    yield {"_target_": "samplerbench.logs.csv.CsvLog", "run": {"directory": touched, "config": {}}}
    yield {"_target_": "samplerbench.samplers.euler.Euler"}  # where it does not belong
    yield {"_target_": None}
    yield {"_target_": ["os", "system"]}
    yield {"_target_": "samplerbench...os"}


def one(group, node):
    """A group's part of a config, of that node."""
    return {group: {"x": node} if group in ("start", "metric", "picture", "sampler") else node}


GROUPS = ("dataset", "schedule", "grid", "network", "target", "objective", "trainer")
GROUPS += ("start", "metric", "picture", "sampler")


@pytest.mark.parametrize("group", GROUPS)
def test_a_stored_config_cannot_choose_what_runs(run, tmp_path, group):
    whole = (run / "config.yaml").read_bytes()
    for node in tricks(tmp_path):
        if group == "sampler" and node["_target_"] == "samplerbench.samplers.euler.Euler":
            continue
        change(run, trusted=["subprocess", "os", "posix", "builtins"], **one(group, node))
        before = files(tmp_path)
        with pytest.raises(InvalidSetting, match="_target_") as caught:
            rebuild(open_run(run))
        assert "\n" not in str(caught.value)
        assert files(tmp_path) == before, node
        (run / "config.yaml").write_bytes(whole)


def test_a_target_within_a_value_is_a_value(run, tmp_path):
    touched = tmp_path / "touched"
    inner = {"_target_": "pathlib.Path.touch", "self": str(touched)}
    for changed in (
        {
            "dataset": yaml.safe_load((run / "config.yaml").read_text())["dataset"]
            | {"extra": inner}
        },
        {"seed": inner},
        {"steps": [inner]},
        {"denoiser": inner},
    ):
        whole = (run / "config.yaml").read_bytes()
        change(run, **changed)
        with pytest.raises((InvalidSetting, TypeError)):
            rebuild(open_run(run))
        assert not touched.exists()
        (run / "config.yaml").write_bytes(whole)


@pytest.mark.parametrize(
    "interpolation",
    [
        "${oc.env:MY_PASSWORD}",
        "a ${oc.env:MY_PASSWORD} b",
        "${oc.decode:'${oc.env:MY_PASSWORD}'}",
        "\\${x}${oc.env:MY_PASSWORD}",
    ],
)
def test_a_stored_config_cannot_read_the_environment(
    command, run, here, tmp_path, capfd, monkeypatch, interpolation
):
    monkeypatch.setenv("MY_PASSWORD", SECRET)
    for changed in (
        {"note": interpolation},
        {interpolation: 1},
        {"n_samples": interpolation},
        {"dataset": {"_target_": "samplerbench.datasets.file.from_file", "path": interpolation}},
    ):
        whole = (run / "config.yaml").read_bytes()
        change(run, **changed)
        with pytest.raises(InvalidSetting, match="values only"):
            open_run(run)
        assert command("cite", run) == 2
        assert command("sample", run, "sampler=ddim", "steps=2", "n=5", "out=a.npy") == 2
        (run / "config.yaml").write_bytes(whole)
    change(run, **changed)
    command("report", run, "out=page", "panels=false")  # it shows what can be shown
    out = "".join(capfd.readouterr())
    assert SECRET not in out
    assert not [path for path, text in contents(tmp_path).items() if SECRET.encode() in text]


def test_a_stored_config_is_values_and_of_its_own_size(run):
    doubled = "\n".join(f"a{k}: &a{k} [*a{k - 1}, *a{k - 1}]" for k in range(1, 60))
    for text in (
        f"a0: &a0 [x]\n{doubled}\n",
        "a: !!python/object/apply:os.system ['true']\n",
        "a: !!python/name:os.system\n",
        "[" * 3000,
        "{a: " * 3000,
        "a: 1\na: 2\n",
        "- 1\n",
        "\x00",
    ):
        (run / "config.yaml").write_text(text)
        with pytest.raises(InvalidSetting, match="a whole run") as caught:
            open_run(run)
        assert "\n" not in str(caught.value)


#: A path as a member's name, in a folder of yaml files that somebody got from somebody.
NAMES = ["../../x", "/x", "..", ".hidden", "a/b", "a\\b", "a\0b", "a" * 300, "", "a\nb", "[/x]"]


@pytest.mark.parametrize("group", ["sampler", "metric", "start", "picture"])
def test_a_member_s_name_cannot_leave_the_run_s_folder(run, tmp_path, group):
    config = yaml.safe_load((run / "config.yaml").read_text())
    nodes = config.get(group) or {"loss": {"_target_": "samplerbench.figures.loss.Loss"}}
    for name in NAMES:
        change(run, **{group: {name: next(iter(nodes.values()))}})
        before = files(tmp_path)
        with pytest.raises(InvalidSetting, match=f"(?s)^{group}=.*must be a name of letters"):
            rebuild(open_run(run))
        assert files(tmp_path) == before


def test_a_job_writes_into_its_own_folder_and_the_cache_only(command, here, tmp_path):
    evil = tmp_path / "conf" / "experiment"
    evil.mkdir(parents=True)
    node = {"_target_": "samplerbench.metrics.sliced.Sliced"}
    (evil / "evil.yaml").write_text(
        "# @package _global_\n" + yaml.safe_dump({"metric": {"../../x": node}})
    )
    (evil / "fine.yaml").write_text(
        "# @package _global_\n" + yaml.safe_dump({"metric": {"x": node}})
    )
    before = files(tmp_path)
    words = ("--config-dir", evil.parent, *JOB[:3], "denoiser=oracle", *JOB[3:-2], "logger=none")
    assert command(*words, "experiment=evil") == 2
    made = set(files(tmp_path)) - set(before)
    assert all((here / "multirun") in path.parents for path in made), made
    assert not list(here.rglob("cells*"))
    assert command(*words, "experiment=fine", "n_reference=100", "block=60") == 0
    made = set(files(tmp_path)) - set(before)
    assert all((here / "multirun") in path.parents for path in made), made
    assert list(here.rglob("distance_x.png"))


def test_a_fragment_s_id_is_no_path(command, run, here, tmp_path):
    path = next((run / "cells").glob("*.json"))
    record = json.loads(path.read_text()) | {"cell_id": "../../x", "samples_id": "../y"}
    path.write_text(json.dumps(record))
    before = set(files(tmp_path))
    assert "../../x" in set(Store(run).compact()["cell_id"])
    os.utime(run / "cells")
    assert "../../x" in set(Store(run).readable()[0]["cell_id"])
    assert set(files(tmp_path)) == before
    assert command("report", run, "out=page", "panels=false") == 0
    new = set(files(tmp_path)) - before
    assert all(here / "page" in path.parents for path in new)
    # in the cache it is another value than the one that is asked for
    kept = list((tmp_path / "cache" / "values").rglob("*.json"))
    for path in kept:
        path.write_text(json.dumps(json.loads(path.read_text()) | {"cell_id": "../../x"}))
    before = set(files(tmp_path))
    cache = f"cache_dir={tmp_path}/cache"
    assert command(*JOB, "logger=none", "hydra.run.dir=again", cache) == 0
    for path in set(files(tmp_path)) - before:
        assert here / "again" in path.parents or path.name.endswith(".unusable")
    assert {path.with_name(f"{path.name}.unusable").exists() for path in kept} == {True}


@pytest.mark.parametrize("info", ["x", "[1]", "7", "[" * 10**5])
def test_a_kept_value_is_not_used_where_its_info_is_none(run, tmp_path, info):
    cache = Cache(tmp_path / "cache")
    path = next((tmp_path / "cache" / "values").rglob("*.json"))
    assert cache.recall(path.stem) is not None
    path.write_text(json.dumps(json.loads(path.read_text()) | {"info": info}))
    assert cache.recall(path.stem) is None
    assert path.with_name(f"{path.name}.unusable").exists()


def test_a_stored_run_s_data_file_is_read_as_numbers_or_refused(run, tmp_path):
    target = "samplerbench.datasets.file.from_file"
    private = tmp_path / "private.csv"
    private.write_text("password\nhunter2\n")
    pickled = tmp_path / "data.npy"
    pickled.write_bytes(pickle.dumps(Touch(tmp_path / "touched")))
    for path in ("/etc/passwd", private, pickled, "/dev/stdin", tmp_path, "", "a\0b"):
        change(run, dataset={"_target_": target, "path": str(path)})
        with pytest.raises(InvalidSetting, match=r"dataset\.path=") as caught:
            rebuild(open_run(run))
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "touched").exists()


def test_a_run_does_not_take_a_folder_of_others(command, here):
    (here / "mine").mkdir()
    (here / "mine" / "report.txt").write_text("my own report")
    words = (*JOB[:2], "denoiser=oracle", *JOB[3:], "logger=none")
    assert command(*words, "hydra.run.dir=mine") == 2
    assert contents(here / "mine") == {here / "mine" / "report.txt": b"my own report"}
