"""The text of an error in one line, made in one place."""

from pathlib import Path

import pytest

import samplerbench
from samplerbench.errors import first_line, kind_and_line


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


def test_only_errors_py_takes_the_first_line_of_an_error():
    """`"".splitlines()[0]` raises an IndexError, and the message of an error may be empty."""
    package = Path(samplerbench.__file__).parent
    own = package / "errors.py"
    sources = {path: path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    assert "splitlines()[0]" in sources.pop(own)
    for word in (".splitlines()[0]", '.split("\\n")[0]', '.partition("\\n")[0]'):
        assert [path for path, text in sources.items() if word in text] == []
