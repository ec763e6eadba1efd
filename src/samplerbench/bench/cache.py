"""The cache of trained models and values that runs share, found by identity.

    values/ab/abcd….json     a value, as in the fragment of a run
    trainings/<id>/          a trained model and its losses, or the state of an unfinished training;
                             about.json describes it
    archives/ab/abcd….zip    files made from these: figures, animations, tables, fitted grids

An identity contains everything that determines a result (see `identity`), so a stored result has
the same bits as a new one. A file is written completely or not at all. A model is trained under a
lock: if several jobs need the same model, the first one trains it and the others wait. The lock is
released when its process ends. A file that is unreadable or was changed is renamed with a warning,
and its result is computed again. If the folder cannot be written to, jobs run without a cache.
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
#: Suffixes of the files in folders named by the first two digits of their identity.
_SUFFIXES = {VALUES: ".json", ARCHIVES: ".zip"}
_LEFT = (WEIGHTS, LOSSES, STATE, ABOUT)
#: The names of a file: renamed because it is unusable, temporary, or final.
_NAMES = re.compile(r"(.+)\.unusable|\.(.+)\.[0-9a-f]+\.tmp|(.+)")

#: The status of values that are stored: a failed value may succeed next time, and an incompatible
#: one takes no time.
KEPT = ("ok", "diverged", NOT_A_DENSITY)


class Cache:
    """A folder of trained models, values, and files made from them.

    Args:
        directory: the folder; created with the first entry.
        refresh: whether stored results are ignored, computed again and replaced.
    """

    def __init__(self, directory: Path, refresh: bool = False) -> None:
        self.directory = directory
        self.refresh = refresh
        self._recalled: set[str] = set()
        self._lock = Lock()
        self._full = False

    def recall(self, cell_id: str) -> Row | None:
        """The value with this identity, or None if it is not stored."""
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
            set_aside(path, ValueError("it contains another value"))
            return None
        with self._lock:
            self._recalled.add(cell_id)
        return row

    def keep(self, row: Row) -> None:
        """Store a value, unless it was recalled from here."""
        if row.status not in KEPT or row.cell_id in self._recalled or self._full:
            return
        self._write(self._file(VALUES, row.cell_id), _signed(row))

    def recall_archive(
        self, archive_id: str, check: Callable[[Mapping[str, bytes]], None]
    ) -> dict[str, bytes] | None:
        """The files with this identity, by name, or None if they are not stored.

        `check` raises an error for unexpected files; everybody can write to a shared cache.
        """
        if self.refresh:
            return None
        path = self._file(ARCHIVES, archive_id)
        try:
            files = _unpacked(path.read_bytes(), archive_id)
            check(files)
        except FileNotFoundError:
            return None
        except Exception as error:  # the file may have any content
            set_aside(path, error)
            return None
        return files

    def keep_archive(self, archive_id: str, files: Mapping[str, bytes]) -> None:
        """Store files, by name."""
        if not self._full:
            self._write(self._file(ARCHIVES, archive_id), _packed(files, archive_id))

    @property
    def recalled(self) -> Set[str]:
        """The identities of the values that were recalled."""
        return self._recalled

    def place(self, training_id: str) -> Path:
        """The folder of a training, for reading."""
        return self.directory / TRAININGS / training_id

    @contextmanager
    def training(self, training_id: str, wait: Callable[[], None]) -> Iterator[Path | None]:
        """The folder of a training, locked for this process; None if it cannot be written to.

        If another process has the lock, `wait` is called once before waiting.
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
            folder.mkdir(exist_ok=True)  # under the lock, since pruning removes it under the lock
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
        """The files of all values or archives, including unusable and temporary ones."""
        files = (path for path in self.directory.glob(f"{kind}/??/*") if path.is_file())
        return [path for path in files if _is_kept(path, _SUFFIXES[kind])]

    def trainings(self) -> list[Path]:
        """The folders of trainings, finished or not, that have no other files in them."""
        folders = (path for path in self.directory.glob(f"{TRAININGS}/*") if path.is_dir())
        return sorted(path for path in folders if _is_training(path))

    def _file(self, kind: str, identity: str) -> Path:
        return self.directory / kind / identity[:2] / f"{identity}{_SUFFIXES[kind]}"

    def _write(self, path: Path, content: bytes) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                write_atomically(path, content)
            except FileNotFoundError:  # pruned while it was written
                write_atomically(path, content)
        except OSError as error:
            self._full = True
            message.warning("cache: %s; later results are not kept there", error)


def _final_name(path: Path) -> str:
    """The name of a file without the additions for temporary and unusable files."""
    match = _NAMES.fullmatch(path.name)
    return next(filter(None, match.groups()), "") if match else ""


def _is_kept(path: Path, suffix: str) -> bool:
    named = re.fullmatch(rf"({_ID}){re.escape(suffix)}", _final_name(path))
    return named is not None and named[1].startswith(path.parent.name)


def _is_training(folder: Path) -> bool:
    return re.fullmatch(_ID, folder.name) is not None and all(
        _final_name(path) in _LEFT and not path.is_dir() for path in folder.iterdir()
    )


def _signed(row: Row) -> bytes:
    """The content of a value's file, with a digest."""
    content = fragment(row)
    return json.dumps({**json.loads(content), "sha256": sha256(content).hexdigest()}).encode()


def _unsigned(content: bytes) -> Row:
    """The row of a file that `_signed` made."""
    record = json.loads(content)
    row = row_of(record)
    if record.get("sha256") != sha256(fragment(row)).hexdigest():
        raise ValueError("its content has changed")
    return row


def _packed(files: Mapping[str, bytes], archive_id: str) -> bytes:
    """An archive of files after a digest; programs for archives skip the digest."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:  # pictures are already compressed
        archive.comment = archive_id.encode()  # the files do not contain the identity
        for name, content in files.items():
            archive.writestr(name, content)
    return sealed(buffer.getvalue())


def _unpacked(content: bytes, archive_id: str) -> dict[str, bytes]:
    """The files of an archive that `_packed` made."""
    with zipfile.ZipFile(io.BytesIO(unsealed(content))) as archive:
        inside = archive.infolist()
        if archive.comment != archive_id.encode():
            raise ValueError("it contains other files")
        if any(info.compress_type != zipfile.ZIP_STORED for info in inside):
            raise ValueError("it is compressed")  # a small foreign file could fill the memory
        return {info.filename: archive.read(info) for info in inside}
