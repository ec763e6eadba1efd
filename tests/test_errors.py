"""The text of an error in one line, made in one place."""

import importlib.util
import json
import re
from functools import partial
from pathlib import Path

import pytest

import samplerbench
from samplerbench.errors import choice, first_line, kind_and_line, related, require


@pytest.mark.parametrize(
    ("error", "line", "with_kind"),
    [
        (ValueError("no\nmore"), "no", "ValueError: no"),
        (ValueError("\n no \nmore"), "no", "ValueError: no"),
        (KeyError("a"), "a", "KeyError: a"),
        (KeyError(), "KeyError", "KeyError"),
        (Exception(), "Exception", "Exception"),
        (TimeoutError("  \n "), "TimeoutError", "TimeoutError"),
    ],
)
def test_an_error_is_one_line_that_is_never_empty(error, line, with_kind):
    assert first_line(error) == line
    assert kind_and_line(error) == with_kind


def test_the_nearest_names_have_its_letters_or_a_part_of_it():
    names = ["exact_w1", "exact_w2", "w2_law_gaussian", "sliced", "sliced_pca", "energy", "tv_law"]
    for word, near in (
        ("slicd", ["sliced"]),
        ("w2", ["exact_w2", "w2_law_gaussian"]),
        ("W2", ["exact_w2", "w2_law_gaussian"]),
        ("energy_distance", ["energy"]),
        ("tv", ["tv_law"]),
        ("sliced_wasserstein", ["sliced", "sliced_pca"]),
        ("exact_w3", ["exact_w2"]),
        ("exact", ["exact_w1", "exact_w2"]),
        ("wasserstein", []),
        ("w", []),
    ):
        assert related(word, names) == near, word
    assert related("eta", ["sampler.ddim.eta", "seed"]) == ["sampler.ddim.eta"]


def test_an_error_lists_few_names_or_says_where_all_are():
    names = [f"name_{letter}" for letter in "abcdefghijklm"]
    assert choice("x", names[:12], "a letter") == f"one of {', '.join(names[:12])}"
    assert choice("x", names, "a letter") == "a letter"
    assert choice("nam_b", names, "a letter") == "a letter; did you mean name_b?"


def test_the_line_of_a_users_code_is_named(tmp_path):
    (tmp_path / "theirs.py").write_text("def run(then):\n    then()\n")
    spec = importlib.util.spec_from_file_location("theirs", tmp_path / "theirs.py")
    theirs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(theirs)
    for function, line in (
        (partial(json.loads, "{"), "JSONDecodeError: .* \\(theirs.py, line 2\\)"),
        (partial(require, False, "eta", 3, "0"), "eta=3: must be 0"),
    ):
        with pytest.raises(ValueError, match=r"line|eta") as caught:
            theirs.run(function)
        assert re.fullmatch(line, kind_and_line(caught.value))


def test_only_errors_py_takes_the_first_line_of_an_error():
    """`"".splitlines()[0]` raises an IndexError, and the message of an error may be empty."""
    package = Path(samplerbench.__file__).parent
    own = package / "errors.py"
    sources = {path: path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    assert "splitlines()[0]" in sources.pop(own)
    for word in (".splitlines()[0]", '.split("\\n")[0]', '.partition("\\n")[0]'):
        assert [path for path, text in sources.items() if word in text] == []
