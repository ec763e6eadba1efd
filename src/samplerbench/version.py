"""The version of this package, which is a part of every identity."""

__version__ = "0.1.0"
