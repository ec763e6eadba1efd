"""Figures of a job: drawn once, then found by everything that determines them."""

import sys
from dataclasses import replace

import pytest
import torch

from samplerbench.app.job.build import build
from samplerbench.app.job.scenes import scene_description
from samplerbench.app.job.show import SCORE_ERRORS, check_figures, check_score_errors
from samplerbench.bench.cell import Origin
from samplerbench.core.grids import uniform
from samplerbench.core.schedules import VPLinear
from samplerbench.datasets.two_moons import TwoMoons
from samplerbench.figures import base
from samplerbench.identity import identity

JOB = ("experiment=tiny", "logger=none", "trainer.steps=20", "start=exact", "steps=[2,4]")
JOB += ("sampler.ddim.eta=0", "picture=[samples]", "picture.samples.chains=20")
SHOWN = ("*.png", "*.gif", "score_errors.csv")


@pytest.fixture
def writes(monkeypatch):
    """The names of figures that are drawn, not found in the cache."""
    names = []
    write = base.write

    def named(drawn, directory):
        names.extend(drawn)
        return write(drawn, directory)

    monkeypatch.setattr(base, "write", named)
    return names


@pytest.fixture
def run(typed, tmp_path):
    """Runs words in an empty folder: the files that the run shows, and the names it prints."""

    def shown(*words: str) -> tuple[dict[str, bytes], list[str]]:
        before = set(tmp_path.glob("multirun/[!.]*"))
        status, out, err = typed(*words)
        assert status == 0, err
        (folder,) = set(tmp_path.glob("multirun/[!.]*")) - before
        printed = [line.split("/")[-1] for line in out.splitlines() if "figure:" in line]
        return {p.name: p.read_bytes() for glob in SHOWN for p in folder.glob(glob)}, printed

    return shown


@pytest.mark.slow
def test_what_was_drawn_is_not_drawn_again(run, writes, monkeypatch):
    first, printed = run(*JOB)
    assert set(first) == {*printed, SCORE_ERRORS}
    assert len(writes) == len(printed) == 2
    writes.clear()
    with monkeypatch.context() as patch:
        patch.setattr("samplerbench.app.job.show.score_errors", None)  # it is not called
        assert run(*JOB) == (first, printed)
    assert not writes
    assert run(*JOB, "picture.samples.points=50")[0].keys() == first.keys()
    assert writes == ["samples"]


def test_what_pictures_see_decides_them_and_nothing_else(composed, monkeypatch):
    few = ("experiment=tiny", "n_train=50", "n_validation=10", "sampler=[ddim,heun]")
    sweep = build(composed(*few), {}, "test").sweep

    def seen(**changes):
        return identity(scene_description(replace(sweep, **changes)))

    for change in (
        {"dataset": TwoMoons()},
        {"schedule": VPLinear()},
        {"grid": uniform},
        {"denoisers": {"oracle": sweep.denoisers["oracle"]}},
        {"denoisers": dict(reversed(sweep.denoisers.items()))},  # the order of panels
        {"origins": {**sweep.origins, "learned": Origin("learned", "other", "other")}},
        {"starts": {"exact": sweep.starts["exact"]}},
        {"samplers": sweep.samplers[::-1]},
        {"samplers": sweep.samplers[1:]},
        {"steps": [4, 10]},
        {"seed": 1},
        {"dtype": torch.float32},
    ):
        assert seen(**change) != seen(), change
    for change in ({"metrics": {}}, {"n_samples": 300}, {"repetitions": 3}, {"workers": 1}):
        assert seen(**change) == seen(), change
    one = seen()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert seen() != one


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


@pytest.mark.slow
def test_a_picture_of_somebody_else_s_is_drawn_each_time(run, theirs, tmp_path):
    """It may read a file or another package, so it is not known what determines it."""
    first, _ = run(*PLAIN, *theirs)
    own, other = "distance_max_sliced_certified.png", "mine_distance_max_sliced_certified.png"
    assert {own, other} <= first.keys()
    (tmp_path / "words.txt").write_text("two")
    second, _ = run(*PLAIN, *theirs)
    assert second[other] != first[other]
    assert second[own] == first[own]


@pytest.mark.slow
def test_pictures_and_settings_that_differ_have_files_of_their_own(run):
    samples = "_target_: samplerbench.figures.samples.Samples, chains: 5"
    words = ("sampler.ddim.eta=[0.1,0.1000001]", "picture=[samples,quiver]", "steps=[2]")
    words += ("picture.quiver.frames=2", "picture.quiver.chains=3")
    shown, _ = run(*PLAIN[:-1], *words, f"+picture.more={{{samples}}}")
    names = {"quiver_oracle_ddim_eta0.1.gif", "quiver_oracle_ddim_eta0.1000001.gif"}
    assert {"samples.png", "more_samples.png", *names} <= shown.keys()
    assert shown["samples.png"] != shown["more_samples.png"]


@pytest.mark.slow
def test_a_picture_that_cannot_be_drawn_costs_nothing_else(typed, tmp_path, theirs):
    (tmp_path / "words.txt").write_bytes(b"\xff")
    words = (*PLAIN, "steps=[4]", "picture=[samples]", *theirs[1:], "hydra.run.dir=a")
    status, out, err = typed(*words)
    assert status == 1
    line = "picture=mine: not drawn: UnicodeDecodeError: "
    assert err.startswith(f"samplerbench: {line}")
    assert err.count("\n") == 1
    assert line in out
    assert (tmp_path / "a" / "samples.png").exists()
    assert "samples.png" in (tmp_path / "a" / "report.txt").read_text()
    (tmp_path / "words.txt").write_text("one")
    assert typed(*words)[0] == 0


def test_an_archive_holds_figures_or_the_errors_of_scores():
    check_figures({"distance_max_sliced.png": b"", "quiver_oracle_ddim_eta0.1.gif": b""})
    names = ["../a.png", "/a.png", "b/a.png", ".a.png", "a.parquet", "losses.csv", "a\n.png"]
    for name in (*names, f"{'a' * 300}.png"):
        with pytest.raises(ValueError, match="which is not a figure"):
            check_figures({"a.png": b"", name: b""})
    table = b"denoiser,sigma,noise_to_signal,repetition,error,size,moving\n"
    check_score_errors({SCORE_ERRORS: table + b"learned,1,1,0,.1,2,.1\n"})
    for files in ({}, {SCORE_ERRORS: b""}, {SCORE_ERRORS: b"a,b\n"}, {"a.png": b""}):
        with pytest.raises(ValueError, match=r"columns|other files"):
            check_score_errors(files)


def test_a_picture_too_large_is_refused_before_any_work(refuses):
    for word in ("picture.samples.half_width=[1e308,1e308]", "picture.samples.chains=1000000000"):
        refuses([*PLAIN, "picture=[samples]", word], word.partition("=")[0])


@pytest.mark.slow
def test_a_corrupted_score_says_which_part_moves_the_law(typed):
    words = ("steps=[4]", "denoiser=corrupted", "corruption.amplitude=0.3")
    status, out, _ = typed(*PLAIN, *words)
    assert status == 0
    assert "score error E‖s − s*‖², corrupted: " in " ".join(out.split())
    assert "move the law" in " ".join(out.split())
