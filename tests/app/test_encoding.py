"""Output in an encoding that lacks our letters, and files that have one encoding everywhere."""

from __future__ import annotations

import ast
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import samplerbench
from samplerbench.app.commands.complaints import no_text

TINY = ("experiment=tiny", "logger=none", "steps=4", "trainer.steps=3", "cache=off")


@pytest.fixture
def in_ascii(command, monkeypatch):
    """Runs a command whose standard output is ASCII; its status and what was printed."""

    def run(*words: object) -> tuple[int, str]:
        stream = io.TextIOWrapper(io.BytesIO(), "ascii")
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            status = command(*words)
        stream.seek(0)
        return status, stream.read()

    return run


def test_a_job_is_printed_with_replacements_and_its_files_are_whole(
    command, in_ascii, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    words = (*TINY, "start=exact", "denoiser=oracle", "metric=sliced", "sampler.ddim.eta=[0.5,1]")
    assert command(*words, "hydra.run.dir=utf") == 0
    status, out = in_ascii(*words, "hydra.run.dir=ascii")
    assert status == 0
    # the exact names of what is compared: ddim η=0.5, mean ± interval
    assert "ddim ?=0.5" in out
    texts = [Path(run, "report.txt").read_text(encoding="utf-8") for run in ("utf", "ascii")]
    plain = [[line for line in text.splitlines() if "trained in" not in line] for text in texts]
    assert plain[0] == [line.replace("ascii/", "utf/") for line in plain[1]]
    assert "η=0.5" in texts[1]


@pytest.mark.slow
def test_a_name_that_is_no_text_is_replaced_in_a_report_and_refused_of_a_job(typed, run, tmp_path):
    name = os.fsdecode(b"\xe4")
    os.rename(run, tmp_path / name)
    status, out, err = typed("report", name, "out=page", "panels=false")
    assert status == 0, err
    assert "?: finished" in out
    Path("page", "report.html").read_text(encoding="utf-8")
    assert no_text([*TINY, f"hydra.run.dir={name}"]).startswith(f"hydra.run.dir={name}: must be")
    assert no_text([*TINY, "hydra.run.dir=ä"]) == ""


@pytest.mark.slow
def test_a_command_is_printed_with_replacements(in_ascii, typed, run):
    for words in ("list metrics", "--help", "score --help"):
        status, out = in_ascii(*words.split())
        assert status == 0, words
        assert out
    usual, (status, out) = typed("cite", run)[1], in_ascii("cite", run)
    assert status == 0
    assert usual[usual.index("@") :] == out[out.index("@") :], "BibTeX is in TeX's own encoding"


LOCALES = {
    "ascii": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "iso8859-1": {"LC_ALL": "de_DE.ISO-8859-1"},
}


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "iso8859-1"])
def test_a_locale_changes_no_file(tmp_path, encoding):
    """No file of a run and no file that is read has the encoding of the locale."""
    settings = {**os.environ, **LOCALES[encoding], "LOCPATH": str(tmp_path)}
    settings.pop("PYTHONIOENCODING", None)
    if encoding != "ascii":
        if shutil.which("localedef") is None or not Path("/usr/share/i18n/locales/de_DE").exists():
            pytest.skip("needs localedef and the source of a locale (Debian: locales)")
        make = ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", tmp_path / "de_DE.ISO-8859-1"]
        subprocess.run(make, check=True)

    def run(*words: str, code: str = "") -> subprocess.CompletedProcess[bytes]:
        start = ["-c", code] if code else ["-m", "samplerbench"]
        command = [sys.executable, *start, *words]
        return subprocess.run(command, cwd=tmp_path, env=settings, capture_output=True, check=False)

    named = run(code="import sys; print(sys.stdout.encoding, sys.getfilesystemencoding())")
    assert named.stdout.decode().split() == [encoding] * 2
    words = ("cache_dir='η ≠ 1'", "metric=exact_w2", "denoiser=learned", "hydra.run.dir=run")
    if encoding == "ascii":  # words are in the locale's encoding, and that has no η
        done = run(*TINY, *words)
        assert done.returncode == 2
        assert done.stderr.endswith(b"must be text in ascii, the encoding here\n")
        words = words[1:]
    else:
        words = ("cache_dir='ä ± 1'", *words[1:])
        words = tuple(word.encode(encoding) for word in words)
    done = run(*TINY, *words)
    assert done.returncode == 0, done.stderr
    for path in (tmp_path / "run").rglob("*"):
        if path.suffix in (".yaml", ".json", ".csv", ".txt"):
            path.read_text(encoding="utf-8")
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text(encoding="utf-8"))
    assert config["cache_dir"] == ("multirun/.cache" if encoding == "ascii" else "ä ± 1")
    for command in (["list", "samplers"], ["report", "run", "out=page", "panels=false"]):
        done = run(*command)
        assert done.returncode == 0, done.stderr
    text = (tmp_path / "page" / "report.html").read_text(encoding="utf-8")
    assert "±" in text
    assert "?" not in text[: text.index("</title>")]


def test_no_file_is_opened_in_the_encoding_of_the_locale():
    """Every text that is read or written names its encoding."""
    found = []
    for path in Path(samplerbench.__file__).parent.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        if not re.search(r"\b(open|read_text|write_text)\(", source):
            continue
        for node in ast.walk(ast.parse(source)):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            first = node.args[0].value if [*node.args, None][0].__class__ is ast.Constant else None
            text = name in ("read_text", "write_text") or (
                # Path.open; an open with other arguments is not that of Path
                name == "open" and (not node.args or (isinstance(first, str) and "b" not in first))
            )
            if text and "encoding" not in [keyword.arg for keyword in node.keywords]:
                found.append(f"{path.name}:{node.lineno}")
    assert found == []


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_launcher_s_job_is_printed_with_replacements_too(tmp_path, launcher):
    words = (*TINY, "denoiser=oracle", "workers=1", "seed=0,1", "hydra.sweep.dir=runs")
    done = subprocess.run(
        [sys.executable, "-m", "samplerbench", "-m", f"hydra/launcher={launcher}", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("runs/*/cells.parquet"))) == 2
