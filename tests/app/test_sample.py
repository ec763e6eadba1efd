"""`samplerbench sample`: a stored run's samples on the disk, the bits of its own cells."""

import os
import shlex
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from omegaconf import OmegaConf

from samplerbench.app.commands import sample, score
from samplerbench.app.folder.runs import open_run
from samplerbench.app.job.rebuild import rebuild
from samplerbench.bench import sampling
from samplerbench.core.starts import Exact
from samplerbench.errors import InvalidSetting


@pytest.fixture
def run(finished):
    """A finished run whose cells have several blocks; nothing here changes it."""
    return finished


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def made(run, *words, out="x.npy"):
    sample.main([str(run), *words, f"out={out}"])
    return np.load(out)


def test_the_way_begins_at_the_start_and_ends_at_the_samples(run):
    words = ("sampler=heun", "steps=5", "n=1e2", "start=exact")
    last = made(run, *words)
    way = made(run, *words, "--every", "2", out="way.npy")
    assert way.shape == (4, 100, 2)  # after 0, 2, 4 and 5 steps
    assert np.array_equal(way[-1], last)
    every = made(run, *words, "--every=1", out="every.npy")
    assert np.array_equal(every[[0, 2, 4, 5]], way)
    sweep = rebuild(open_run(run)).sweep
    first = Exact().draw(sweep.dataset, 64, sweep.levels(5).rows[0], (0, 0, 0))
    assert np.array_equal(way[0, :64], first.numpy())


@pytest.mark.slow
def test_grid_start_seed_and_settings_are_heard(run):
    base = ("steps=4", "n=10")
    seen = [
        made(run, *base, *words, out=f"{i}.npy")
        for i, words in enumerate(
            [
                ("sampler=heun",),
                ("sampler=ddim",),  # the run's own η = 0.5, not the yaml's list
                ("sampler=ddim", "sampler.eta=0"),
                ("sampler=heun", "seed=7"),
                ("sampler=heun", "start=exact"),
                ("sampler=heun", "start=gaussian", "start.std=3"),
                ("sampler=heun", "grid=log_snr"),
                ("sampler=heun", "grid.rho=7"),
            ]
        )
    ]
    assert len({array.tobytes() for array in seen}) == len(seen)
    assert np.array_equal(
        made(run, *base, "sampler=ddim", "sampler.eta=0.5", out="same.npy"), seen[1]
    )


def test_it_says_what_it_did_and_how_to_score_it(run, capsys):
    made(run, "sampler=heun", "steps=4", "n=100", "denoiser=oracle", out="it is.npy")
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.startswith("heun, N=4, oracle score, prior start: 100 samples, NFE 7, ")
    assert second == "samples: it is.npy, shape (100, 2)"
    words = shlex.split(third.removeprefix("score:"))
    assert words[:2] == ["samplerbench", "score"]
    score.main(words[2:])
    assert "it is.npy" in capsys.readouterr().out


def test_samples_of_a_small_file_are_scored_against_all_its_rows():
    """The rows of its floor are too few for a verdict then."""
    data = {"path": "my data.csv", "array": None, "columns": None}
    config = OmegaConf.create({"dataset": data, "metric": {"sliced": {}}})
    stored = SimpleNamespace(choices={"dataset": "file"}, config=config)
    words = sample.scoring(stored, "x.npy", few=True)
    assert words[2:] == ["x.npy", "reference=my data.csv", "metric=sliced"]
    config.dataset.columns = "a,b"
    for few in (True, False):
        assert "dataset.path=my data.csv" in sample.scoring(stored, "x.npy", few=few)
        config.dataset.columns = None


def test_an_interrupted_or_failing_sampling_leaves_nothing(run, monkeypatch, capsys):
    def stop(*_):
        assert len(os.listdir()) == 1  # the hidden file is there
        raise KeyboardInterrupt

    monkeypatch.setattr(sampling, "_block", stop)
    with pytest.raises(SystemExit) as leaving:
        made(run, "sampler=heun", "steps=4", "n=100")
    assert leaving.value.code == 130
    assert capsys.readouterr().err == "samplerbench: interrupted; there is no x.npy\n"
    assert os.listdir() == []


def test_a_file_that_was_made_meanwhile_is_kept(run, monkeypatch):
    def slow(array, *_):
        with open("x.npy", "w") as other:
            other.write("somebody's")
        return sampling.SamplingCost(1, 1, 0.0, 0)

    monkeypatch.setattr(sampling, "sample_into", slow)
    with pytest.raises(InvalidSetting, match="created meanwhile"):
        made(run, "sampler=heun", "steps=4", "n=100")
    assert os.listdir() == ["x.npy"]
    with open("x.npy") as other:
        assert other.read() == "somebody's"


def test_samples_that_are_not_finite_are_said(run, monkeypatch, capsys):
    monkeypatch.setattr(sampling, "_block", lambda *_: ((4, 4), 3))
    with pytest.raises(SystemExit) as leaving:
        made(run, "sampler=heun", "steps=4", "n=100")
    said = "6 of 100 samples are not finite; score refuses x.npy until their rows are removed"
    assert leaving.value.code == f"samplerbench: {said}"
    assert "score:" not in capsys.readouterr().out
    assert os.listdir() == ["x.npy"]
    np.save("x.npy", np.full((100, 2), np.nan))
    with pytest.raises(InvalidSetting, match="finite"):
        score.main(["x.npy", "dataset=grid_mixture"])


GOOD = {"sampler": "heun", "steps": "4", "n": "10", "out": "x.npy"}


def test_mistakes_are_one_line_and_leave_nothing(run, refuses, tmp_path):
    (tmp_path / "there.npy").write_text("kept")
    for changed, message in (
        ({"n": "0"}, "n=0: must be a whole number, at least 1"),
        ({"n": "-5"}, "n=-5: must be"),
        ({"steps": "2.5"}, "steps=2.5: must be"),
        ({"steps": "[4,8]"}, "steps="),
        ({"sampler": "heun,ddim"}, "sampler=sampler=heun,ddim: must be one value"),
        ({"out": "x.csv"}, "ends in .npy"),
        ({"out": "no/where/x.npy"}, "in a folder that exists"),
        ({"out": "there.npy"}, "the existing one is kept"),
        ({"foo": "1"}, "foo=1: must be left out: sample uses sampler"),
        ({"metric.p": "1"}, "metric.p=1: must be left out"),
        ({"sampler": "hune"}, "sampler=hune: must be a name in"),
        ({"sampler.eta": "1"}, "sampler.eta=1: must be left out"),
        ({"sampler": "ula"}, "this denoiser has no score without noise"),
        ({"sampler": "os.system"}, "a member of samplerbench"),
        ({"grid": "hold"}, "Heun goes from level to level"),
        ({"denoiser": "empirical"}, "one of learned, oracle"),
        ({"seed": "-1"}, "seed=-1: must be at least 0"),
        ({"n": "10000000000"}, "where 160,000 MB are free"),
        ({"device": "cuba"}, "device=cuba"),
    ):
        words = (f"{key}={value}" for key, value in (GOOD | changed).items())
        refuses(["sample", run, *words], message)


def test_a_folder_that_is_no_run_or_half_of_one(run, refuses, tmp_path):
    words = [f"{key}={value}" for key, value in GOOD.items()]
    refuses(["sample", *words], "sample: must be followed by one folder of a run, such as")
    refuses(["sample", "nowhere", *words], "run=nowhere")
    refuses(["sample", "a", "b", *words], "sample a b: must be followed by one folder of a run")
    half = shutil.copytree(run, tmp_path / "half")
    (half / "checkpoints" / "model.safetensors").unlink()
    refuses(["sample", half, *words], f"run={half}/checkpoints/model.safetensors")
    (half / "config.yaml").write_text("{half")
    refuses(["sample", half, *words], f"run={half}: ")


def test_a_run_without_a_learned_model_says_so(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "oracle")
    config = OmegaConf.load(folder / "config.yaml")
    config.denoiser = "oracle"
    OmegaConf.save(config, folder / "config.yaml")
    words = [f"{key}={value}" for key, value in GOOD.items()]
    with pytest.raises(InvalidSetting, match="denoiser=learned: must be one of oracle"):
        sample.main([str(folder), *words])
    sample.main([str(folder), *words, "denoiser=oracle"])
    assert np.isfinite(np.load("x.npy")).all()
