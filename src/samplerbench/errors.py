"""Errors of settings and of runs, and their text in one line.

A class checks its settings in its constructor and raises `InvalidSetting`. The command puts the
config group in front of the field ("sampler.eta=-1: must be at least 0") and exits with status 2.
After `RunFailed` it exits with status 1.
"""

from __future__ import annotations

import re
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

#: The folders of the standard library and of installed packages.
INSTALLED = tuple(
    Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")
)


#: An error lists all names that exist if there are at most so many.
FEW = 12

#: The note on an error in a sampler's step starts with this; see `samplers.base.iterate`.
IN_STEP = " in step "


class InvalidSetting(ValueError):
    """A setting whose value is not allowed.

    Args:
        field: name of the setting, as the user writes it; empty if the value has no name.
        value: its value.
        allowed: the allowed values, as the end of the sentence "must be …".
    """

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__(f"{field}={value}: must be {allowed}".removeprefix("="))
        self.field = field
        self.value = value
        self.allowed = allowed

    def __reduce__(self) -> tuple[type[InvalidSetting], tuple[str, str, str]]:
        # the value may be an object that cannot be sent to another process; its text can
        return type(self), (self.field, str(self.value), self.allowed)


class RunFailed(RuntimeError):
    """A run that has started cannot finish; its finished parts are stored."""


def require(condition: bool, field: str, value: object, allowed: str) -> None:
    """Raise `InvalidSetting` unless `condition` holds."""
    if not condition:
        raise InvalidSetting(field, value, allowed)


def require_compatible(reason: str | None, field: str, value: object) -> None:
    """Raise `InvalidSetting` if there is a reason why the value is not possible."""
    require(reason is None, field, value, f"another one: {reason}")


@contextmanager
def refusing(field: str, value: object, allowed: str) -> Iterator[None]:
    """Turn any error in the block into `InvalidSetting`: the value is not `allowed`."""
    try:
        yield
    except Exception as error:  # files and a user's code may raise anything
        raise InvalidSetting(field, value, f"{allowed} ({kind_and_line(error)})") from error


def missing(package: str, extra: str) -> InvalidSetting:
    """The error for an optional package: the extra of samplerbench with this name installs it."""
    return InvalidSetting("needs", package, f"installed: pip install 'samplerbench[{extra}]'")


@contextmanager
def needs(package: str, extra: str) -> Iterator[None]:
    """Refuse an optional package that the block cannot import."""
    try:
        yield
    except ImportError as error:
        raise missing(package, extra) from error


def warn(text: str) -> None:
    """Warn of a doubtful result, at the user's line that called samplerbench."""
    ours, level, frame = Path(__file__).parent, 2, sys._getframe(1)
    while frame.f_back is not None and Path(frame.f_code.co_filename).is_relative_to(ours):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, stacklevel=level)


def nearest(word: str, known: Iterable[str]) -> list[str]:
    """A few known words that begin or end as a word does, or one that is similar to it."""
    last = word.rpartition(".")[2]
    # without _target_, which hardly anybody wants to type, and without the parents of the word
    others = (name for name in dict.fromkeys(known) if not name.rpartition(".")[2].startswith("_"))
    names = [name for name in others if not word.startswith(f"{name}.")]
    begun = [name for name in names if len(last) > 2 and name.startswith(word)]
    same = [name for name in names if name.rpartition(".")[2] == last]
    return begun[:5] or same[:3] or get_close_matches(word, names, n=1, cutoff=0.75)


def related(word: str, known: Iterable[str]) -> list[str]:
    """As `nearest`, or else at most three known names that share a part with a word.

    For example "w2" has a part of "exact_w2", and "energy_distance" one of "energy".
    """
    names = list(known)
    parts, shares = _parts(word.rpartition(".")[2]), dict[str, float]()
    for name in names:
        others = _parts(name.rpartition(".")[2])
        shared = sum(any(_alike(one, other) for one in parts) for other in others)
        if shared:
            shares[name] = shared / len(others)
    return nearest(word, names) or sorted(shares, key=lambda name: -shares[name])[:3]


def _parts(name: str) -> list[str]:
    """The parts of a name, in small letters, without single ones: exact and w2 of "exact_w2"."""
    return [part for part in re.split(r"[\W_]+", name.lower()) if len(part) > 1]


def _alike(one: str, other: str) -> bool:
    """Whether two parts are equal, or one is the first three or more letters of the other."""
    shorter = min(len(one), len(other))
    return one == other or (shorter > 2 and one[:shorter] == other[:shorter])


def did_you_mean(names: Sequence[str]) -> str:
    """The end of a message that suggests these names; empty if there are none."""
    return f"; did you mean {' or '.join(names)}?" if names else ""


def similar(word: str, known: Iterable[str]) -> str:
    """The text "; did you mean …?" with known words similar to a word; empty if there are none."""
    return did_you_mean(nearest(word, known))


def choice(word: object, known: Iterable[str], several: str) -> str:
    """The end of "must be …" for an unknown name: the nearest names, or all if there are few.

    Args:
        word: the name.
        known: the names that exist.
        several: what they are, and where a user finds them: "a name in `samplerbench list grid`".
    """
    names = list(known)
    near = did_you_mean(related(str(word), names))
    return f"one of {', '.join(names)}" if len(names) <= FEW and not near else several + near


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its class if the message is empty."""
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error).strip()
    return (text or type(error).__name__).splitlines()[0].rstrip()


def kind_and_line(error: BaseException) -> str:
    """The name of an error's class, unless it is one of ours, and the first line of its message.

    If a user's code raised it, the line of that code and the step of the sampler follow:
    "… (sampler.py, line 18) in step 1, from t=1, α=0, σ=1".
    """
    kind, line = type(error).__name__, first_line(error)
    if isinstance(error, InvalidSetting | RunFailed):
        return line
    text = line if line == kind else f"{kind}: {line}"
    step = "".join(note for note in getattr(error, "__notes__", ()) if note.startswith(IN_STEP))
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path, not_users = Path(frame.filename), (*INSTALLED, Path(__file__).parent)
        if path.suffix == ".py" and not any(path.is_relative_to(place) for place in not_users):
            return f"{text} ({path.name}, line {frame.lineno}){step}"
    return text + step
