"""What runs share: trained models and values, by their identities.

    values/ab/abcd….json     a value, as a run's own fragment has it
    trainings/<id>/          a trained model and its losses, or how far a training has come; what
                             it is of, in about.json
    archives/ab/abcd….zip    files that were made of those: figures, animations, tables

An identity stands for everything that decides a result (see `identity`), so what is found under it
is what the work would give again, bit for bit. A file is written as a whole or not at all. A model
is trained under a lock: of several jobs that want the same one, the others wait for the first, and
a lock ends with its process. What cannot be read, or is not what was written, is named, put aside
and worked out again; where the folder cannot be written, work goes on without it.
"""

from __future__ import annotations

import io
import json
import logging
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from threading import Lock

from filelock import FileLock, Timeout

from samplerbench.bench.cell import NOT_A_DENSITY, Row
from samplerbench.bench.store import UNREADABLE, fragment, row_of
from samplerbench.files import sealed, set_aside, unsealed, write_atomically
from samplerbench.training.weights import LOSSES, STATE, WEIGHTS

message = logging.getLogger(__name__)

VALUES, TRAININGS, ARCHIVES, ABOUT = "values", "trainings", "archives", "about.json"

_ID = "[0-9a-f]{16}"
#: How files end that lie in folders by the first two digits of their identity.
_SUFFIXES = {VALUES: ".json", ARCHIVES: ".zip"}
_LEFT = (WEIGHTS, LOSSES, STATE, ABOUT)
#: What `files` makes of a name: put aside, or not yet whole.
_MADE = re.compile(r"(.+)\.unusable|\.(.+)\.[0-9a-f]+\.tmp|(.+)")

#: What is the same every time. A failed value may be well next time, and an incompatible one costs
#: nothing.
KEPT = ("ok", "diverged", NOT_A_DENSITY)


class Cache:
    """A folder of trained models, of values, and of files made of them.

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
        path = self._file(VALUES, cell_id)
        try:
            row = _unsigned(path.read_bytes())
        except FileNotFoundError:
            return None
        except UNREADABLE as error:
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
        self._write(self._file(VALUES, row.cell_id), _signed(row))

    def recall_archive(
        self, archive_id: str, check: Callable[[Mapping[str, bytes]], None]
    ) -> dict[str, bytes] | None:
        """The files with this identity, by name, or None where they are not known.

        Args:
            archive_id: their identity.
            check: raises if they are not such files; who writes a shared cache can write anything.
        """
        if self.refresh:
            return None
        path = self._file(ARCHIVES, archive_id)
        try:
            files = _unpacked(path.read_bytes(), archive_id)
            check(files)
        except FileNotFoundError:
            return None
        except Exception as error:  # whatever the file holds
            set_aside(path, error)
            return None
        return files

    def keep_archive(self, archive_id: str, files: Mapping[str, bytes]) -> None:
        """Write files down, by name."""
        if not self._full:
            self._write(self._file(ARCHIVES, archive_id), _packed(files, archive_id))

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
            folder.parent.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                wait()
                lock.acquire()
            folder.mkdir(exist_ok=True)  # under the lock: who prunes removes it under the lock
        except OSError as error:
            lock.release()
            message.warning("cache: %s; the training is not kept there", error)
            yield None
            return
        try:
            yield folder
        finally:
            lock.release()

    def files(self, kind: str) -> list[Path]:
        """The files of all values or archives, also those put aside or left half-written by a kill.

        Args:
            kind: `VALUES` or `ARCHIVES`.
        """
        found = (path for path in self.directory.glob(f"{kind}/??/*") if path.is_file())
        return [path for path in found if _is_kept(path, _SUFFIXES[kind])]

    def trainings(self) -> list[Path]:
        """The folders of trainings, done or not, with nothing in them that is somebody else's."""
        found = (path for path in self.directory.glob(f"{TRAININGS}/*") if path.is_dir())
        return sorted(path for path in found if _is_training(path))

    def _file(self, kind: str, of: str) -> Path:
        return self.directory / kind / of[:2] / f"{of}{_SUFFIXES[kind]}"

    def _write(self, path: Path, content: bytes) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                write_atomically(path, content)
            except FileNotFoundError:  # pruned while it was written
                write_atomically(path, content)
        except OSError as error:
            self._full = True
            message.warning("cache: %s; what follows is not kept there", error)


def _meant(path: Path) -> str:
    """The name of the file that this is, or was, or would have been."""
    made = _MADE.fullmatch(path.name)
    return next(filter(None, made.groups()), "") if made else ""


def _is_kept(path: Path, suffix: str) -> bool:
    named = re.fullmatch(rf"({_ID}){re.escape(suffix)}", _meant(path))
    return named is not None and named[1].startswith(path.parent.name)


def _is_training(folder: Path) -> bool:
    return re.fullmatch(_ID, folder.name) is not None and all(
        _meant(path) in _LEFT and not path.is_dir() for path in folder.iterdir()
    )


def _signed(row: Row) -> bytes:
    """A value as the content of a file, with a digest."""
    content = fragment(row)
    return json.dumps({**json.loads(content), "sha256": sha256(content).hexdigest()}).encode()


def _unsigned(content: bytes) -> Row:
    """The row that `_signed` made this of.

    Raises:
        UNREADABLE: it did not.
    """
    record = json.loads(content)
    row = row_of(record)
    if record.get("sha256") != sha256(fragment(row)).hexdigest():
        raise ValueError("it is not what was written")
    return row


def _packed(files: Mapping[str, bytes], archive_id: str) -> bytes:
    """Files as an archive, with a digest before it, which programs that unpack archives skip."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:  # not compressed: pictures are already
        archive.comment = archive_id.encode()  # files do not say what they are of
        for name, content in files.items():
            archive.writestr(name, content)
    return sealed(buffer.getvalue())


def _unpacked(content: bytes, archive_id: str) -> dict[str, bytes]:
    """The files that `_packed` made this of; an exception if it did not."""
    with zipfile.ZipFile(io.BytesIO(unsealed(content))) as archive:
        inside = archive.infolist()
        if archive.comment != archive_id.encode():
            raise ValueError("it holds other files")
        if any(info.compress_type != zipfile.ZIP_STORED for info in inside):
            raise ValueError("it is compressed")  # to fill a memory with, if it is not ours
        return {info.filename: archive.read(info) for info in inside}
