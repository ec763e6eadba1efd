"""The version of this package, a part of every identity."""

__version__ = "0.1.0"
