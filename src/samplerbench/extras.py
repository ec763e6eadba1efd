"""Packages that only some members need, and that come with an extra of this one."""

from __future__ import annotations

from samplerbench.errors import InvalidSetting


def missing(package: str, extra: str) -> InvalidSetting:
    """The one line for a package that is not there.

    Args:
        package: as people call it.
        extra: of this package, that brings it.
    """
    return InvalidSetting("needs", package, f"installed: pip install 'samplerbench[{extra}]'")
