"""The words after a command's name: each is used, or refused in one line before any work."""

import os
import shutil

import numpy as np
import pytest

from samplerbench.app.commands.words import read_words, split_member_words
from samplerbench.app.config.compose import value_not_a_name
from samplerbench.app.folder.runs import open_run
from samplerbench.errors import InvalidSetting
from samplerbench.library import load

RUN = "grid/seed=0"


@pytest.fixture
def here(run, tmp_path, monkeypatch):
    """The current folder, with the run in `grid/seed=0` and a file of samples."""
    monkeypatch.chdir(tmp_path)
    np.save("samples.npy", np.random.default_rng(0).standard_normal((100, 2)))
    return tmp_path


@pytest.mark.slow
def test_a_word_that_names_a_folder_or_a_file_is_that(here, typed, refuses):
    for words, status, said in (
        (["sample", RUN, "sampler=heun", "steps=4", "n=10", "out=x.npy"], 0, "samples: x.npy"),
        # the folder was read: only a U-Net can be exported
        (["export", RUN, "out=new"], 2, "network=ResidualMLP: must be unet"),
        (["report", RUN, "out=new", "panels=false"], 0, "seed=0: finished"),
        (["cite", RUN], 0, "% sampler ddim: song2021denoising"),
    ):
        found, out, err = typed(*words)
        assert found == status, err
        assert said in out + err
        missing = [w.replace("seed=0", "seed=9").replace("out=new", "out=other") for w in words]
        line = refuses(missing, "no folder has this name")
        assert line.startswith("samplerbench: grid/seed=9: must be left out: ")
    os.rename("samples.npy", "eta=1.npy")
    status, out, _ = typed("score", "eta=1.npy", "metric=sliced", "reference=eta=1.npy")
    assert status == 0
    assert "eta=1.npy" in out.splitlines()[-1]


USELESS = """
    score samples.npy data_seed=5
    score samples.npy metric_seed=5
    score samples.npy steps=4
    score samples.npy experiment=tiny
    score samples.npy seed.x=4
    score samples.npy n_reference=100 metric=max_sliced_law
    score samples.npy n_reference=100 reference=samples.npy
    score samples.npy dataset.spacing=100 reference=samples.npy
    score samples.npy metric=sliced metric.exact_w2.p=1
    score samples.npy metric=[]
    score samples.npy seed=1 seed=2
    sample RUN sampler=heun steps=4 n=10 out=x.npy data_seed=1
    sample RUN sampler=heun steps=4 n=10 n=20 out=x.npy
    export RUN out=new out=newer
    report RUN out=new seed=0
    report RUN out=new --comparee
    cite RUN out=new
    cite RUN trusted=a trusted=b
    cache cache_dir=. days=30
    cache cache_dir=. list prune days=3
    cache cache_dir=. trusted=my_package
    cache cache_dir=. --config-dir .
    list samplers seed=0
    check heun seed=0
"""


def test_a_word_without_a_use_is_refused(here, refuses):
    for line in USELESS.strip().splitlines():
        refuses([RUN if word == "RUN" else word for word in line.split()])


def test_a_word_of_a_job_without_a_use_is_refused(tiny, refuses):
    words = [*tiny, "denoiser=oracle", "hydra.sweep.dir=multirun/runs"]
    refuses([*words, "nfe=8"], "steps=[2, 4]: must be left out beside nfe")
    named = "sweeper_metric=max_sliced_certified"
    refuses([*words, named], f"samplerbench: {named}: must be null")
    refuses(["-m", *words, named], f"samplerbench: job 0 of multirun/runs: {named}")


def test_the_names_of_a_multirun_are_names():
    """An error of another cause, such as no process to run the jobs, was told as one of these."""
    good = ["experiment=main,tiny", "sampler=[heun,ddim],euler", "sampler='heun',ddim"]
    assert value_not_a_name(good) is None
    for word in ("sampler=heun,2", "sampler=[heun,2],heun", "dataset=1", "sampler=[1]"):
        error = value_not_a_name([*good, word])
        assert str(error).startswith(f"{word}: must be a name, or for some groups a list of names")


def test_words_in_their_three_spellings():
    words = ["a", "--one", "1", "--two=2=2", "three.x=3", "--flag", "b"]
    places, values = read_words("this", words, ["one", "two"], groups=["three"], options=["--flag"])
    assert places == ["a", "b"]
    assert values == {"one": "1", "two": "2=2", "three.x": "3", "--flag": ""}
    for wrong, message in {
        ("--four=4",): "four=4: must be left out: this uses one, two",
        ("-x",): "this=-x: must be left out",
        ("one.x=1",): "one.x=1: must be left out",
        ("--one",): "one=: must be followed by its value",
        ("one=1", "--one", "2"): "one=2: must be given once",
    }.items():
        with pytest.raises(InvalidSetting, match=message):
            read_words("this", wrong, ["one", "two"], groups=["three"])


def test_a_folder_that_is_called_like_a_package_to_trust(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.makedirs("trusted=lab/seed=0")
    words = ["trusted=lab/seed=0", "trusted=[lab,other]", "-cd", "conf"]
    folders, packages, others = split_member_words(words)
    assert [str(folder) for folder in folders] == ["conf"]
    assert packages == ["lab", "other"]
    assert others == ["trusted=lab/seed=0"]


@pytest.mark.slow
def test_reading_never_writes(typed, here, run, cache, files, tmp_path_factory):
    """The command changes neither the folder of a run nor a cache."""
    shutil.rmtree(run / "cells")
    (run / "cells").mkdir()
    (run / "cells" / "cut.json").write_text("{")
    empty = shutil.copytree(run, here / "empty")
    shutil.rmtree(empty / "cells")
    (empty / "cells.parquet").unlink()
    training = next(path for path in cache.glob("trainings/*") if path.is_dir())
    (training / "model.safetensors").unlink()
    training.with_suffix(".lock").unlink()  # it was copied from elsewhere
    pages, before = tmp_path_factory.mktemp("pages"), files()
    for folder in (run, empty):
        open_run(folder).table()
        load(folder)
        assert typed("cite", folder)[0] == 0
        assert typed("report", folder, f"out={pages}/{folder.name}", "panels=false")[0] == 0
    assert typed("cache", f"cache_dir={cache}")[0] == 0
    assert files() == before
