"""What a user's setting and a run that has begun can end with, and the lines for it.

A class checks its own settings when it is built and raises `InvalidSetting`; the app puts the
config group in front of the field ("sampler.eta=-1: must be at least 0") and ends with status 2.
After `RunFailed` it ends with status 1.
"""

from __future__ import annotations


class InvalidSetting(ValueError):
    """A setting with a value that is not allowed.

    Args:
        field: name of the setting, as the user writes it.
        value: what was given.
        allowed: what is allowed, as the end of the sentence "must be …".
    """

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__(f"{field}={value}: must be {allowed}")
        self.field = field
        self.value = value
        self.allowed = allowed

    def __reduce__(self) -> tuple[type[InvalidSetting], tuple[str, str, str]]:
        # to another process goes the text: the value may be anything
        return type(self), (self.field, str(self.value), self.allowed)


class RunFailed(RuntimeError):
    """A run that has begun cannot have all that it is for; whatever was finished is there."""


def require(condition: bool, field: str, value: object, allowed: str) -> None:
    """Raise `InvalidSetting` unless `condition` holds."""
    if not condition:
        raise InvalidSetting(field, value, allowed)


def first_line(error: BaseException) -> str:
    """What an error says, in one line; its kind where it says nothing."""
    said = str(error.args[0] if isinstance(error, KeyError) and error.args else error).strip()
    return (said or type(error).__name__).splitlines()[0].rstrip()


def kind_and_line(error: BaseException) -> str:
    """What kind of error it is, and what it says, in one line."""
    kind, line = type(error).__name__, first_line(error)
    return line if line == kind else f"{kind}: {line}"
