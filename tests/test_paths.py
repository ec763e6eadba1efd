"""Paths that a user has typed: one error for every kind of wrong path, and useful suggestions."""

import pytest

import samplerbench as sb
from samplerbench.app.commands import score
from samplerbench.errors import InvalidSetting
from samplerbench.paths import existing_file, similar_path


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("mine.csv", "samples.npy", "spectrum.npy", ".hidden.csv"):
        (tmp_path / name).touch()
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "near"),
    [
        ("mise.csv", "mine.csv"),
        ("mine", "mine.csv"),
        ("samples.csv", "samples.npy"),
        ("spectum.npy", "spectrum.npy"),
        ("sub/../mise.csv", None),  # sub is not there
        ("nope.npy", None),  # only the ending is the same
        ("loop.csv", None),
        ("folders.npy", None),
        ("hidden.csv", None),
        ("", None),
    ],
)
def test_a_similar_file_has_a_similar_name_and_not_only_the_ending(files, typed, near):
    assert similar_path(typed) == (f"; did you mean {near}?" if near else "")
    if near:
        assert similar_path(f"{files}/{typed}") == f"; did you mean {files}/{near}?"


WRONG = ["~nouser/a.npy", f"{300 * 'a'}.npy", "a\0b.npy", "loop.npy/a.npy", "none/a.npy"]


@pytest.mark.parametrize("path", WRONG)
def test_a_wrong_path_of_any_kind_is_one_line(files, path):
    for law in ("file", "gaussian_spectrum", "gaussian_mixture"):
        with pytest.raises(InvalidSetting, match=r"path=.*: must be a file that exists$"):
            sb.dataset(law, path=path)
    with pytest.raises(InvalidSetting, match=r": must be a file that exists$"):
        score.main([path, "dataset=grid_mixture"])


def test_a_folder_is_no_file(files, monkeypatch):
    with pytest.raises(InvalidSetting, match=r"^path=folder.npy: must be a file: this is a folder"):
        existing_file("folder.npy")
    monkeypatch.setenv("HOME", str(files))
    assert existing_file("~/mine.csv") == files / "mine.csv"
