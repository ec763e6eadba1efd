"""The one error a user's setting can cause, and the one that a finished run can end with.

A class checks its own settings when it is built and raises `InvalidSetting`; the app puts the
config group in front of the field ("sampler.eta=-1: must be at least 0") and ends with status 2.
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


class CellsFailed(RuntimeError):
    """Some cells of a finished run have the status failed; all others are there."""


def require(condition: bool, field: str, value: object, allowed: str) -> None:
    """Raise `InvalidSetting` unless `condition` holds."""
    if not condition:
        raise InvalidSetting(field, value, allowed)
