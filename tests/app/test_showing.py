"""What a job shows: drawn once, and then known by all that decides it."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from samplerbench.app.build import build, what_pictures_see
from samplerbench.app.folders import conf_directory
from samplerbench.evaluation.identity import identity
from samplerbench.figures import base

JOB = (
    "experiment=tiny",
    "logger=none",
    "trainer.steps=20",
    "denoiser=[learned,oracle]",
    "start=exact",
    "sampler.ddim.eta=[0,1]",
    "picture=[samples,side_by_side]",
    "picture.side_by_side.frames=3",
    "picture.side_by_side.chains=20",
    "picture.samples.chains=20",
)
SHOWN = ("*.png", "*.gif", "score_errors.csv")


@pytest.fixture
def writes(monkeypatch):
    """The names of what is drawn and not found."""
    names = []
    write = base.write

    def told(drawn, directory):
        names.extend(drawn)
        return write(drawn, directory)

    monkeypatch.setattr(base, "write", told)
    return names


@pytest.fixture
def run(monkeypatch, tmp_path, command):
    """Runs words in an empty folder; what the run shows, by the names of its files."""
    monkeypatch.chdir(tmp_path)

    def shown(*words: str) -> dict[str, bytes]:
        before = set(tmp_path.glob("multirun/[!.]*"))
        assert command(*words) == 0
        (folder,) = set(tmp_path.glob("multirun/[!.]*")) - before
        return {path.name: path.read_bytes() for glob in SHOWN for path in folder.glob(glob)}

    return shown


def test_what_was_drawn_is_not_drawn_again(run, writes, monkeypatch, capsys):
    first = run(*JOB)
    said = [
        line.split("/")[-1] for line in capsys.readouterr().out.splitlines() if "figure:" in line
    ]
    assert set(first) == {*said, "score_errors.csv"}
    assert len(writes) == len(said) > 2
    writes.clear()
    monkeypatch.setattr("samplerbench.app.showing.score_errors", None)  # nobody asks it
    assert run(*JOB) == first
    again = [
        line.split("/")[-1] for line in capsys.readouterr().out.splitlines() if "figure:" in line
    ]
    assert again == said
    assert writes == []
    assert run(*JOB, "picture.samples.points=50").keys() == first.keys()
    assert writes == ["samples"]


@pytest.mark.parametrize("mode", ["off", "refresh"])
def test_who_wants_it_worked_out_again_gets_the_same_bits(run, writes, mode):
    words = ("denoiser=oracle", "picture=[samples]", "picture.samples.chains=20")
    job = ("experiment=tiny", "logger=none", "start=exact", "sampler.ddim.eta=0", *words)
    first = run(*job)
    names = list(writes)
    writes.clear()
    assert run(*job, f"cache={mode}") == first
    assert writes == names


def test_where_all_figures_are_known_matplotlib_is_not_imported(run, tmp_path):
    job = ("experiment=tiny", "logger=none", "denoiser=oracle", "start=exact")
    run(*job)
    program = f"""
        import sys
        from samplerbench.app.main import main
        sys.argv = ["samplerbench", *{job!r}]
        main()
        assert "torch" in sys.modules and "matplotlib" not in sys.modules
    """
    again = [sys.executable, "-c", textwrap.dedent(program)]
    assert subprocess.run(again, cwd=tmp_path, check=False).returncode == 0
    assert len(list(Path(tmp_path).glob("multirun/*/distance_*.png"))) == 2


@pytest.fixture
def seen():
    """Composes words and gives what stands for the scene of their job."""
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):

        def of(*words):
            words = [
                "experiment=tiny",
                "n_train=50",
                "n_validation=10",
                "sampler=[ddim,heun]",
                *words,
            ]
            HydraConfig.instance().set_config(compose("config", words, return_hydra_config=True))
            return identity(what_pictures_see(build(compose("config", words), {}, "test").sweep))

        yield of
    HydraConfig.instance().cfg = None


@pytest.mark.parametrize(
    "word",
    [
        "dataset=two_moons",
        "schedule.sigma_max=20",
        "grid=uniform",
        "denoiser=oracle",
        "denoiser=[oracle,learned]",  # in another order
        "start=[exact,prior]",
        "sampler=[heun,ddim]",
        "sampler.ddim.eta=0.25",
        "steps=[4,10]",
        "n_train=51",
        "trainer.steps=7",
        "train_seed=1",
        "data_seed=1",
        "seed=1",
        "dtype=float32",
        "threads=2",
    ],
)
def test_a_picture_of_another_scene_is_another_one(seen, word):
    assert seen(word) != seen()


@pytest.mark.parametrize(
    "word", ["metric=[sliced]", "n_samples=300", "repetitions=3", "workers=1", "picture=[samples]"]
)
def test_what_no_picture_sees_does_not_decide_it(seen, word):
    assert seen(word) == seen()
