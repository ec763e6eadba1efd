"""Fixtures of the tests of commands: run a command, copy the finished run."""

import re
import shutil

import pytest


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the finished run, to be changed."""
    return shutil.copytree(finished, tmp_path / "grid" / "seed=0")


@pytest.fixture
def cache(finished, tiny, tmp_path):
    """A copy of its cache."""
    return shutil.copytree(tiny[-1].partition("=")[2], tmp_path / "cache")


@pytest.fixture
def typed(command, monkeypatch, tmp_path, capsys):
    """Runs a command line in an empty folder: (status, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        capsys.readouterr()
        status = command(*words)
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def files(tmp_path):
    """Folders and files below the test's folder, and when each file was written."""
    return lambda: {p: p.is_file() and p.stat().st_mtime_ns for p in tmp_path.rglob("*")}


@pytest.fixture
def refuses(typed, files):
    """Checks that a command is refused in one line with these parts, and makes and changes nothing.

    A multirun keeps the folder of a refused job, with the reason; no other command keeps one.
    """

    def check(words, *parts):
        kept = {"multirun", "outputs"} if "-m" in words else set()
        before = files()
        status, out, err = typed(*words)
        lines = [line for line in err.splitlines() if line.startswith("samplerbench: ")]
        assert (status, len(lines)) == (2, 1), (words, err)
        assert "Traceback" not in out + err, words
        assert all(part in lines[0] for part in parts), (words, parts, lines[0])
        after = {p: t for p, t in files().items() if p in before or not kept & set(p.parts)}
        assert after == before, words
        assert not re.search("^run:", out, re.M), words
        return lines[0]

    return check
