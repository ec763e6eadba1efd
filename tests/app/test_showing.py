"""What a job shows: drawn once, and then known by all that decides it."""

import sys

import pytest
import torch

from samplerbench.app.job.build import build, what_pictures_see
from samplerbench.app.job.show import SCORE_ERRORS, check_figures, check_score_errors
from samplerbench.figures import base
from samplerbench.identity import identity

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


def named(out: str) -> list[str]:
    """The files of figures that a command has named."""
    return [line.split("/")[-1] for line in out.splitlines() if "figure:" in line]


def test_what_was_drawn_is_not_drawn_again(run, writes, monkeypatch, capsys):
    first = run(*JOB)
    said = named(capsys.readouterr().out)
    assert set(first) == {*said, "score_errors.csv"}
    assert len(writes) == len(said) > 2
    writes.clear()
    monkeypatch.setattr("samplerbench.app.job.show.score_errors", None)  # nobody asks it
    assert run(*JOB) == first
    again = named(capsys.readouterr().out)
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


@pytest.fixture
def seen(composed):
    """What stands for the scene of the job that words ask for."""
    few = ("experiment=tiny", "n_train=50", "n_validation=10", "sampler=[ddim,heun]")

    def of(*words: str) -> str:
        return identity(what_pictures_see(build(composed(*few, *words), {}, "test").sweep))

    return of


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
    ],
)
def test_a_picture_of_another_scene_is_another_one(seen, word):
    assert seen(word) != seen()


def test_a_picture_of_another_number_of_threads_is_another_one(seen, monkeypatch):
    """Asked, not used: a process that has used two threads cannot be forked by later tests."""
    one = seen()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert seen() != one


@pytest.mark.parametrize(
    "word", ["metric=[sliced]", "n_samples=300", "repetitions=3", "workers=1", "picture=[samples]"]
)
def test_what_no_picture_sees_does_not_decide_it(seen, word):
    assert seen(word) == seen()


PLAIN = ("experiment=tiny", "logger=none", "denoiser=oracle", "start=exact", "sampler.ddim.eta=0")
THEIRS = """
from dataclasses import dataclass
from pathlib import Path
from matplotlib.figure import Figure
from samplerbench.figures.base import Picture
@dataclass(frozen=True)
class Words(Picture):
    file: Path = Path("words.txt")
    def why_incompatible(self, scene): return None
    def draw(self, scene):
        figure = Figure(figsize=(3, 1))
        figure.suptitle(self.file.read_text())
        return {"distance_max_sliced_certified": figure}
"""


@pytest.fixture
def theirs(tmp_path):
    """A user's package with a picture that says what a file says; the words that ask for it."""
    (tmp_path / "lab_words.py").write_text(THEIRS)
    (tmp_path / "words.txt").write_text("one")
    yield ("picture=[]", "trusted=lab_words", "+picture.mine={_target_: lab_words.Words}")
    sys.modules.pop("lab_words", None)


def test_a_picture_of_somebody_else_s_is_drawn_each_time(run, theirs, tmp_path):
    """It may look at a file, or at another package: nobody knows what decides it."""
    first = run(*PLAIN, *theirs)
    own, other = "distance_max_sliced_certified.png", "mine_distance_max_sliced_certified.png"
    assert {own, other} <= first.keys()
    assert run(*PLAIN, *theirs) == first
    (tmp_path / "words.txt").write_text("two")
    second = run(*PLAIN, *theirs)
    assert second[other] != first[other]
    assert second[own] == first[own]


def test_two_pictures_of_one_kind_are_two_files(run):
    samples = "_target_: samplerbench.figures.samples.Samples, chains: 5"
    shown = run(*PLAIN, "picture=[samples]", f"+picture.more={{{samples}}}")
    assert {"samples.png", "more_samples.png"} <= shown.keys()
    assert shown["samples.png"] != shown["more_samples.png"]


def test_settings_that_differ_little_are_told_apart(run):
    small = ("picture.quiver.frames=2", "picture.quiver.chains=3")
    shown = run(*PLAIN[:-1], "sampler.ddim.eta=[0.1,0.1000001]", "picture=[quiver]", *small)
    names = {"quiver_oracle_ddim_eta0.1.gif", "quiver_oracle_ddim_eta0.1000001.gif"}
    assert names <= shown.keys()


def test_a_picture_that_cannot_be_drawn_costs_nothing_else(
    command, monkeypatch, tmp_path, capsys, theirs
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.txt").unlink()
    (tmp_path / "words.txt").write_bytes(b"\xff")
    words = (*PLAIN, "picture=[samples]", *theirs[1:], "hydra.run.dir=a")
    assert command(*words) == 1
    out, err = capsys.readouterr()
    line = "picture=mine: not drawn: UnicodeDecodeError: "
    assert err.startswith(f"samplerbench: {line}")
    assert err.count("\n") == 1
    assert line in out
    assert (tmp_path / "a" / "samples.png").exists()
    assert "samples.png" in (tmp_path / "a" / "report.txt").read_text()
    (tmp_path / "words.txt").write_text("one")
    assert command(*words) == 0


@pytest.mark.parametrize(
    "name", ["../a.png", "/a.png", "b/a.png", ".a.png", "a.parquet", "losses.csv", "a\n.png"]
)
def test_an_archive_leaves_the_folder_of_the_run_to_the_run(name):
    check_figures({"distance_max_sliced.png": b"", "quiver_oracle_ddim_eta0.1.gif": b""})
    with pytest.raises(ValueError, match="which is no figure"):
        check_figures({"a.png": b"", name: b""})
    with pytest.raises(ValueError, match="which is no figure"):
        check_figures({f"{'a' * 300}.png": b""})


def test_errors_of_scores_have_their_columns():
    check_score_errors({SCORE_ERRORS: b"denoiser,sigma,repetition,error,size\nlearned,1,0,.1,2\n"})
    for files in ({}, {SCORE_ERRORS: b""}, {SCORE_ERRORS: b"a,b\n"}, {"a.png": b""}):
        with pytest.raises(ValueError, match=r"columns|other files"):
            check_score_errors(files)


@pytest.mark.parametrize(
    "word",
    [
        "picture.samples.half_width=[1e308,1e308]",
        "picture.samples.half_width=[1,100]",
        "picture.samples.chains=1000000000",
        "picture.samples.points=0",
    ],
)
def test_a_picture_too_large_is_refused_before_any_work(
    command, monkeypatch, tmp_path, capsys, word
):
    monkeypatch.chdir(tmp_path)
    assert command(*PLAIN, "picture=[samples]", word) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert word.partition("=")[0] in err
