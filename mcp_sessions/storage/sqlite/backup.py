"""A copy of the whole file, taken by SQLite while others write.

It is made in a folder of its own beside its place, which nobody looks into, and moves there once it is whole and
synced. Whoever makes it holds a lock in that folder, so the next one can tell whether it was left behind.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import apsw

from ..._os import FileLock, sync_directory, sync_pragmas
from ...errors import StorageError
from .connecting import File, translated
from .driver import Db

PIECE = 4096
"""Pages copied at a time; a Ctrl-C is heard in between."""


def copy_file(source: Db, path: Path, *, replace: bool) -> None:
    """Copy what the snapshot that `source` is in shows into a new file. Raises StorageError, and leaves nothing."""
    source.execute("SELECT 1 FROM sqlite_schema").fetchone()  # from here on it is one moment
    with translated(File(path)):
        check_place(path, replace=replace)
        with unfinished(path) as folder:
            part = folder / path.name
            os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            _copy(source, part)
            check_place(path, replace=replace)
            part.replace(path)
            sync_directory(path.parent)


@contextmanager
def unfinished(path: Path) -> Generator[Path]:
    """A folder beside a place, for what is to stand there once it is whole. What others left there who were killed
    goes first.
    """
    _clear(path)
    with TemporaryDirectory(prefix=_prefix(path), dir=path.parent) as folder:
        lock = FileLock(_lock(Path(folder), path))
        with suppress(OSError):  # where the disk knows no locks nobody clears either
            lock.try_acquire()
        try:
            yield Path(folder)
        finally:
            lock.close()


def _clear(path: Path) -> None:
    for entry in list(os.scandir(path.parent)):
        random = entry.name.removeprefix(_prefix(path))
        if random == entry.name or "." in random or not entry.is_dir(follow_symlinks=False):
            continue
        lock = FileLock(_lock(Path(entry), path))
        if not lock.path.is_file():
            continue
        with suppress(OSError):
            if lock.try_acquire():
                shutil.rmtree(entry, ignore_errors=True)
        lock.close()


def _prefix(path: Path) -> str:
    return f".{path.name}."


def _lock(folder: Path, path: Path) -> Path:
    return folder / f"{path.name}.lock"


def check_place(path: Path, *, replace: bool) -> None:
    """Raise StorageError where no copy may be put. What is to be replaced takes in its own log."""
    if not replace and os.path.lexists(path):
        raise StorageError(
            f"{path} is there already, and was left as it is. Choose another path, or replace it "
            "(--force, in Python replace=True)."
        )
    if path.exists():
        _let_go_of_log(path)
    log = path.with_name(path.name + "-wal")
    if log.exists() and log.stat().st_size:
        raise StorageError(f"{log} is there, from a store that stood at {path}. Choose another path, or move it away.")


def _copy(source: Db, part: Path) -> None:
    target = _opened(part)
    try:
        # What fails is thrown away, so there is nothing to roll back. Committing syncs the file.
        for pragma in ("PRAGMA journal_mode=OFF", "PRAGMA synchronous=FULL", *sync_pragmas()):
            target.execute(pragma)
        with cast("Any", target).backup("main", source, "main") as backup:
            while not backup.done:
                backup.step(PIECE)
    finally:
        target.close()


def _let_go_of_log(path: Path) -> None:
    """Let a file that is to be replaced take in its log, which would be taken for that of the new one."""
    old = _opened(path)
    try:
        old.execute("PRAGMA journal_mode=DELETE").fetchall()  # which SQLite does only where nobody else has it open
    except (apsw.NotADBError, apsw.CorruptError):
        pass  # nobody can have it open as a store
    except apsw.BusyError as error:
        raise StorageError(f"{path} is in use as a store, and was left as it is. Choose another path.") from error
    finally:
        old.close()


def _opened(path: Path) -> Db:
    return cast("Db", apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE))
