"""What runs share: trained models and values, by their identities.

    values/ab/abcd….json     a value, as a run's own fragment has it
    trainings/<id>/          a trained model and its losses, or how far a training has come; what
                             it is of, in about.json

An identity stands for everything that decides a result (see `identity`), so what is found under it
is what the work would give again, bit for bit. A value is written as a whole or not at all. A model
is trained under a lock: of several jobs that want the same one, the others wait for the first, and
a lock ends with its process. What cannot be read is named, put aside and worked out again; where
the folder cannot be written, work goes on without it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from filelock import FileLock, Timeout

from samplerbench.evaluation.store import (
    Row,
    fragment,
    read_fragment,
)
from samplerbench.files import set_aside, write_atomically

message = logging.getLogger(__name__)

VALUES, TRAININGS, ABOUT = "values", "trainings", "about.json"

#: What is the same every time. A failed value may be well next time, and an incompatible one costs
#: nothing.
KEPT = ("ok", "diverged")


class Cache:
    """A folder of trained models and values.

    Args:
        directory: the folder; made when something is kept.
        refresh: whether what is there is worked out again, and replaced.
    """

    def __init__(self, directory: Path, refresh: bool = False) -> None:
        self.directory = directory
        self.refresh = refresh
        self._recalled: set[str] = set()
        self._lock = Lock()
        self._full = False

    def recall(self, cell_id: str) -> Row | None:
        """The value with this identity, or None where it is not known."""
        if self.refresh:
            return None
        path = self._value(cell_id)
        try:
            row = read_fragment(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            set_aside(path, error)
            return None
        if row.cell_id != cell_id or row.status not in KEPT:
            set_aside(path, ValueError("it holds another value"))
            return None
        with self._lock:
            self._recalled.add(cell_id)
        return row

    def keep(self, row: Row) -> None:
        """Write a value down, unless it came from here."""
        if row.status not in KEPT or row.cell_id in self._recalled or self._full:
            return
        path = self._value(row.cell_id)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, fragment(row))
        except OSError as error:
            self._full = True
            message.warning("cache: %s; what follows is not kept there", error)

    @property
    def recalled(self) -> Set[str]:
        """The identities of the values that were found."""
        return self._recalled

    def place(self, training_id: str) -> Path:
        """The folder of a training, to read from."""
        return self.directory / TRAININGS / training_id

    @contextmanager
    def training(self, training_id: str, wait: Callable[[], None]) -> Iterator[Path | None]:
        """The folder of a training, for this process alone; None where nothing can be written.

        Args:
            training_id: its identity.
            wait: called once if another process has it, before waiting for that.
        """
        folder = self.place(training_id)
        lock = FileLock(folder.with_suffix(".lock"))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            wait()
            lock.acquire()
        except OSError as error:
            message.warning("cache: %s; the training is not kept there", error)
            yield None
            return
        try:
            yield folder
        finally:
            lock.release()

    def _value(self, cell_id: str) -> Path:
        return self.directory / VALUES / cell_id[:2] / f"{cell_id}.json"
