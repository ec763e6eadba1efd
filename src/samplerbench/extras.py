"""Optional packages, which extras of this package install."""

from __future__ import annotations

from samplerbench.errors import InvalidSetting


def missing(package: str, extra: str) -> InvalidSetting:
    """The error for an optional package that is not installed.

    Args:
        package: its name.
        extra: the extra of this package that installs it.
    """
    return InvalidSetting("needs", package, f"installed: pip install 'samplerbench[{extra}]'")
