"""Files of another person cannot harm a user who opens them: they are refused in one line."""

import json
import os
import pickle
import shutil

import pandas as pd
import pytest
import torch
import yaml
from omegaconf import OmegaConf

from helpers import Touch, refused_in_one_line
from samplerbench.app.config.construct import construct
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
    **dict.fromkeys(["HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "SLURM_JWT", "MY_PASSWORD"], SECRET),
}


@pytest.fixture
def again(typed, tiny, run, cache, tmp_path):
    """Runs the command of the stored run again with the copy of its cache: the same values."""

    def repeat():
        assert typed(*tiny[:-1], "hydra.run.dir=again", f"cache_dir={cache}")[0] == 0
        tables = (pd.read_parquet(path / "cells.parquet") for path in (run, tmp_path / "again"))
        first, second = (table.drop(columns=list(CLOCKS)) for table in tables)
        pd.testing.assert_frame_equal(first, second, check_exact=True)

    return repeat


@pytest.fixture
def training(run, cache):
    """The folder of the trained model in the cache."""
    (name,) = set(open_run(run).table()["training_id"]) - {""}
    return cache / "trainings" / name


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def change(run, **nodes):
    """The run's config with other top-level keys."""
    path = run / "config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | nodes))


def test_no_secret_is_in_any_file_of_a_run(typed, tiny, tmp_path, monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    words = ("logger=wandb", "denoiser=oracle", "steps=2", "cache_dir=cache", "hydra.run.dir=run")
    assert typed(*tiny, *words)[0] == 0
    written = contents(tmp_path)
    names = {path.name for path in written}
    assert {"config.yaml", "run.json", "status.json", "report.txt"} <= names
    assert any(name.endswith(".wandb") for name in names)
    assert [path for path, content in written.items() if SECRET.encode() in content] == []


def test_weights_execute_nothing_and_are_of_their_own_network(run, tmp_path):
    touched, weights = tmp_path / "touched", run / "checkpoints" / "model.safetensors"
    whole = weights.read_bytes()
    for content in (pickle.dumps(Touch(touched)), whole[:100], b""):
        weights.write_bytes(content)
        with refused_in_one_line("weights of its own network"):
            rebuild(open_run(run))
    torch.save({"network.weight": Touch(touched)}, weights)
    with pytest.raises(InvalidSetting, match="weights of its own network"):
        rebuild(open_run(run))
    assert not touched.exists()


def test_a_cache_executes_nothing_and_is_worked_out_again(again, training, cache, tmp_path):
    touched = tmp_path / "touched"
    (training / "model.safetensors").write_bytes(pickle.dumps(Touch(touched)))
    torch.save({"state_dict": Touch(touched), "callbacks": {}}, training / "state.ckpt")
    for path in (cache / "values").rglob("*.json"):
        path.write_bytes(pickle.dumps(Touch(touched)))
    again()
    assert not touched.exists()
    assert (training / "model.safetensors.unusable").exists()
    assert (training / "state.ckpt.unusable").exists()


def test_losses_are_whole_or_no_losses(tmp_path):
    for content in ("", "step,name,l\n", "step,name,loss\n"):
        (tmp_path / "losses.csv").write_text(content)
        with pytest.raises(ValueError, match=r"no losses|No columns"):
            read_losses(tmp_path / "losses.csv")


@pytest.mark.slow
@pytest.mark.parametrize("spoilt", ["step,name,loss\n1,train,2.5\n", None])
def test_weights_whose_losses_cannot_be_read_are_trained_again(again, training, cache, spoilt):
    losses = (training / "losses.csv").read_bytes()
    (training / "losses.csv").unlink()
    if spoilt is not None:
        (training / "losses.csv").write_text(spoilt)
    shutil.rmtree(cache / "values")  # or the weights would not be read
    again()
    assert (training / "losses.csv").read_bytes() == losses
    assert not (training / "model.safetensors.unusable").exists()
    assert (training / "losses.csv.unusable").exists() == (spoilt is not None)


def tricks(tmp_path):
    """Nodes whose targets would have an effect if they were called."""
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
    # ours, but not a member that a config may name
    write = "samplerbench.files.write_atomically"
    yield {"_target_": write, "path": touched, "content": "evil"}
    yield {"_target_": write, "path": touched, "content": "evil", "_partial_": True}
    commands, folder = "samplerbench.app.commands", str(tmp_path)
    yield {"_target_": f"{commands}.cache.prune", "directory": folder, "before": 9e9}
    yield {"_target_": f"{commands}.check.main", "words": ["subprocess.Popen"]}
    yield {"_target_": f"{commands}.report.main", "words": [folder, f"out={touched}"]}
    yield {"_target_": "samplerbench.library.load", "directory": ".", "trusted": "subprocess"}
    yield {"_target_": "samplerbench.logs.csv.CsvLog", "run": {"directory": touched, "config": {}}}
    yield {"_target_": None}
    yield {"_target_": ["os", "system"]}
    yield {"_target_": "samplerbench...os"}


SEVERAL = ("start", "metric", "picture", "sampler")
GROUPS = ("dataset", "schedule", "grid", "network", "target", "objective", "trainer", *SEVERAL)


def test_a_config_cannot_choose_what_runs(run, tmp_path, files):
    before = files()
    for node in tricks(tmp_path):
        for group in GROUPS:
            with refused_in_one_line("_target_"):
                construct(OmegaConf.create(node), group)
    assert files() == before
    whole = (run / "config.yaml").read_bytes()
    for group in GROUPS:
        euler = {"_target_": "samplerbench.samplers.euler.Euler"}  # where it does not belong
        node = {"_target_": "os.system", "command": "false"} if group == "sampler" else euler
        trusted = ["subprocess", "os", "posix", "builtins"]  # which nobody believes
        change(run, trusted=trusted, **{group: {"x": node} if group in SEVERAL else node})
        with pytest.raises(InvalidSetting, match="_target_"):
            rebuild(open_run(run))
        (run / "config.yaml").write_bytes(whole)


def test_a_target_within_a_value_is_a_value(run, tmp_path):
    inner = {"_target_": "pathlib.Path.touch", "self": str(tmp_path / "touched")}
    whole = (run / "config.yaml").read_bytes()
    dataset = yaml.safe_load(whole)["dataset"] | {"extra": inner}
    nodes = ({"dataset": dataset}, {"seed": inner}, {"steps": [inner]}, {"denoiser": inner})
    for changed in nodes:
        change(run, **changed)
        with pytest.raises((InvalidSetting, TypeError)):
            rebuild(open_run(run))
        (run / "config.yaml").write_bytes(whole)
    assert not (tmp_path / "touched").exists()


def test_a_stored_config_cannot_read_the_environment(run, typed, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_PASSWORD", SECRET)
    whole = (run / "config.yaml").read_bytes()
    for interpolation in (
        "${oc.env:MY_PASSWORD}",
        "a ${oc.env:MY_PASSWORD} b",
        "${oc.decode:'${oc.env:MY_PASSWORD}'}",
        "\\${x}${oc.env:MY_PASSWORD}",
    ):
        target = "samplerbench.datasets.file.from_file"
        for changed in (
            {"note": interpolation},
            {interpolation: 1},
            {"n_samples": interpolation},
            {"dataset": {"_target_": target, "path": interpolation}},
        ):
            (run / "config.yaml").write_bytes(whole)
            change(run, **changed)
            with pytest.raises(InvalidSetting, match="only values"):
                open_run(run)
    assert typed("cite", run)[0] == 2
    assert typed("sample", run, "sampler=ddim", "steps=2", "n=5", "out=a.npy")[0] == 2
    # it shows what can be shown
    said = "".join(map(str, typed("report", run, "out=page", "panels=false")))
    assert SECRET not in said
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
        with refused_in_one_line("a complete run"):
            open_run(run)


#: A path as a member's name, in a folder of yaml files that somebody got from somebody.
NAMES = ["../../x", "/x", "..", ".hidden", "a/b", "a\\b", "a\0b", "a" * 300, "", "a\nb", "[/x]"]


def test_a_member_s_name_cannot_leave_the_run_s_folder(run):
    config = yaml.safe_load((run / "config.yaml").read_text())
    for group in SEVERAL:
        nodes = config.get(group) or {"loss": {"_target_": "samplerbench.figures.loss.Loss"}}
        # how a name is read does not depend on the group
        for name in NAMES if group == "metric" else NAMES[:1]:
            node = {name: next(iter(nodes.values()))}
            (run / "config.yaml").write_text(yaml.safe_dump(config | {group: node}))
            with pytest.raises(InvalidSetting, match=f"(?s)^{group}=.*must be a name of letters"):
                rebuild(open_run(run))


@pytest.mark.slow  # quick: the name of a member
def test_a_job_writes_into_its_own_folder_and_the_cache_only(typed, tiny, tmp_path, files):
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    node = {"_target_": "samplerbench.metrics.sliced.Sliced"}
    for name, key in (("evil", "../../x"), ("fine", "x")):
        text = yaml.safe_dump({"metric": {key: node}})
        (folder / f"{name}.yaml").write_text(f"# @package _global_\n{text}")
    before = set(files())
    words = ("--config-dir", "conf", *tiny[1:], "denoiser=oracle")
    assert typed(*words, "experiment=evil")[0] == 2
    assert typed(*words, "experiment=fine", "repetitions=1", "figure.format=png")[0] == 0
    own = tmp_path / "multirun"
    assert all(path == own or own in path.parents for path in set(files()) - before)
    assert len(list(own.rglob("distance_x.png"))) == len(list(own.rglob("cells.parquet"))) == 1


def test_a_fragment_s_id_is_no_path(run, again, cache, typed, files, tmp_path):
    path = next((run / "cells").glob("*.json"))
    record = json.loads(path.read_text()) | {"cell_id": "../../x", "samples_id": "../y"}
    whole = {path: path.read_bytes(), run / "cells.parquet": (run / "cells.parquet").read_bytes()}
    path.write_text(json.dumps(record))
    before = set(files())
    assert "../../x" in set(Store(run).compact()["cell_id"])
    os.utime(run / "cells")
    assert "../../x" in set(Store(run).readable()[0]["cell_id"])
    assert set(files()) == before
    assert typed("report", run, "out=page", "panels=false")[0] == 0
    page = tmp_path / "page"
    assert all(path == page or page in path.parents for path in set(files()) - before)
    for path, content in whole.items():
        path.write_bytes(content)
    # in the cache it is another value than the one that is wanted
    ids = set(Store(run).readable()[0]["cell_id"])
    kept = [path for path in (cache / "values").rglob("*.json") if path.stem in ids]
    for path in kept:
        path.write_text(json.dumps(json.loads(path.read_text()) | {"cell_id": "../../x"}))
    before = set(files())
    again()
    for path in set(files()) - before:
        assert "again" in path.parts or path.name.endswith(".unusable")
    assert {path.with_name(f"{path.name}.unusable").exists() for path in kept} == {True}


def test_a_kept_value_is_not_used_where_its_info_is_none(cache):
    path = next((cache / "values").rglob("*.json"))
    whole = path.read_text()
    for info in ("x", "[1]", "7", "[" * 10**5):
        path.write_text(whole)
        assert Cache(cache).recall(path.stem) is not None
        path.write_text(json.dumps(json.loads(whole) | {"info": info}))
        assert Cache(cache).recall(path.stem) is None
        assert path.with_name(f"{path.name}.unusable").exists()


def test_a_stored_run_s_data_file_is_read_as_numbers_or_refused(run, tmp_path):
    target = "samplerbench.datasets.file.from_file"
    private = tmp_path / "private.csv"
    private.write_text("password\nhunter2\n")
    pickled = tmp_path / "data.npy"
    pickled.write_bytes(pickle.dumps(Touch(tmp_path / "touched")))
    for path in ("/etc/passwd", private, pickled, "/dev/stdin", tmp_path, "", "a\0b"):
        change(run, dataset={"_target_": target, "path": str(path)})
        with refused_in_one_line(r"dataset\.path="):
            rebuild(open_run(run))
    assert not (tmp_path / "touched").exists()
