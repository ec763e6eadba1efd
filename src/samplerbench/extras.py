"""The error for an optional package that is not installed."""

from __future__ import annotations

from samplerbench.errors import InvalidSetting


def missing(package: str, extra: str) -> InvalidSetting:
    """The error, with the command that installs the package.

    Args:
        extra: the extra of this package that installs it.
    """
    return InvalidSetting("needs", package, f"installed: pip install 'samplerbench[{extra}]'")
