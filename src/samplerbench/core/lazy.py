"""Values that are computed when they are first needed."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class Lazy(Generic[T]):
    """A value that is computed once, by the first thread that needs it; other threads wait."""

    def __init__(self, compute: Callable[[], T]) -> None:
        self._compute = compute
        self._values: list[T] = []
        self._lock = Lock()

    def __call__(self) -> T:
        """The value."""
        with self._lock:
            if not self._values:
                self._values.append(self._compute())
                del self._compute  # it may hold large tensors
            return self._values[0]
