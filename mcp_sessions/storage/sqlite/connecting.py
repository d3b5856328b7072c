"""Opening the file: who it belongs to, which version of it this is, and how SQLite is to treat it."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal, TypeVar, cast

import apsw

from ..._os import FileLock, make_directory, sync_pragmas
from ...errors import SchemaChangedError, StorageBusyError, StorageDamagedError, StorageError
from .driver import Db

APPLICATION_ID = 0x4D435053  # "MCPS"
MIGRATIONS = ("schema.sql",)
PAGE_BYTES = 2048
"""Of a new file. A commit of a few hundred bytes touches seven pages, each of which is written whole."""
VERSION = len(MIGRATIONS)
T = TypeVar("T")


@dataclass(frozen=True)
class File:
    """The file, and how it is to be used."""

    path: Path
    durability: Literal["full", "process"] = "full"
    busy_timeout_s: float = 30.0

    def busy(self, holder: str) -> StorageBusyError:
        """The error of one who waited in vain."""
        return StorageBusyError(str(self.path), self.busy_timeout_s, holder)

    def given_up(self, holder: str) -> StorageError:
        """The error of one who was not to wait any longer."""
        return StorageError(f"{self.path} is held by {holder}, and this process is ending. Nothing was written. Retry.")


def _sql(name: str) -> str:
    return resources.files(__name__.rpartition(".")[0]).joinpath(name).read_text(encoding="utf-8")


def statements() -> dict[str, str]:
    """The fixed statements, by name."""
    parts = re.split(r"^-- name: (\w+)\n", _sql("statements.sql"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], (text.strip() for text in parts[2::2]), strict=True))


@contextmanager
def translated(file: File) -> Generator[None]:
    """Turn whatever the driver or the system raises into a StorageError that says what to do."""
    try:
        yield
    except (apsw.Error, OSError) as error:
        raise as_ours(file, error) from error


def as_ours(file: File, error: Exception) -> StorageError:
    """The StorageError for an error of the driver or the system, which becomes its cause."""
    ours = _described(file, error)
    ours.__cause__ = error
    return ours


def _described(file: File, error: Exception) -> StorageError:
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or isinstance(error, apsw.FullError):
        fact = "the disk is full. Nothing of this call was written. Make room, then retry"
    elif isinstance(error, apsw.NotADBError):
        fact = "it is not a SQLite file. Choose another path"
    elif isinstance(error, apsw.CorruptError):
        return StorageDamagedError(str(file.path), f"{type(error).__name__}: {error}")
    elif isinstance(error, (apsw.ReadOnlyError, apsw.CantOpenError, apsw.PermissionsError, OSError)):
        fact = "it cannot be opened for writing. Check the folder, its permissions and the disk"
    elif isinstance(error, (apsw.BusyError, apsw.ProtocolError)):
        return file.busy("another process")
    elif isinstance(error, apsw.IOError):
        fact = "the disk refused. Nothing of this call was written. Check the disk and its free space, then retry"
    else:
        fact = "SQLite refused"
    return StorageError(f"{file.path}: {fact} ({type(error).__name__}: {error}).")


def read_only(file: File) -> Db:
    """A connection that reads."""
    return _connect(file, apsw.SQLITE_OPEN_READONLY, ["PRAGMA query_only=ON"])


def writable(file: File, *, create: bool = False) -> Db:
    """A connection that writes; with `create` it makes the file where there is none."""
    return _connect(
        file,
        apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if create else 0),
        [
            f"PRAGMA page_size={PAGE_BYTES}",
            "PRAGMA secure_delete=ON",
            f"PRAGMA synchronous={'FULL' if file.durability == 'full' else 'NORMAL'}",
            "PRAGMA journal_size_limit=67108864",
            *sync_pragmas(),
        ],
    )


def _connect(file: File, flags: int, pragmas: list[str]) -> Db:
    opened = apsw.Connection(str(file.path), flags=flags, statementcachesize=200)
    connection = cast("Db", opened)
    try:
        # A checkpoint on close would happen ungated.
        opened.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        # Plans are made once: else a statement that could use a partial index is planned anew for each value bound.
        opened.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        connection.set_busy_timeout(int(file.busy_timeout_s * 1000))
        for pragma in ("PRAGMA mmap_size=0", "PRAGMA temp_store=MEMORY", *pragmas):
            connection.execute(pragma)
    except BaseException:
        connection.close()
        raise
    return connection


def prepare(file: File, gate: FileLock) -> Db:
    """The writer's connection to a file that is ours and of our version, made or brought up to date as needed."""
    path = file.path
    make_directory(path.parent, durable=True)
    if not path.exists():
        _make(file, gate)
    log = path.with_name(path.name + "-wal")
    logged = log.exists()
    connection = _patient(file, lambda: writable(file, create=True))
    try:
        if _patient(file, lambda: _version_of_one_moment(connection, path)) < VERSION or _journal(connection) != "wal":
            with _gated(file, gate):
                _patient(file, lambda: connection.execute("PRAGMA journal_mode=WAL").fetchall())
                _migrate(connection, path)
        if connection.readonly("main"):
            raise StorageError(f"{path} is read-only. Make it writable, or choose another path.")
    except BaseException:
        if not logged:
            # What SQLite laid beside a file that is not ours goes again.
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
        connection.close()
        raise
    return connection


def check_version(connection: Db, path: Path) -> None:
    """Raise SchemaChangedError where another version of the program changed the file meanwhile."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != VERSION:
        raise SchemaChangedError(
            f"{path} was changed to store version {version} while this process, which knows version {VERSION}, "
            "had it open. Restart this process with the current mcp-sessions."
        )


def _make(file: File, gate: FileLock) -> None:
    # Not by SQLite, so that nobody else may open it, not even for a moment; its log takes over the same mode.
    # Who finds it empty waits at the gate before writing, so closing this descriptor breaks no lock of SQLite's.
    with _gated(file, gate), suppress(FileExistsError):
        os.close(os.open(file.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


@contextmanager
def _gated(file: File, gate: FileLock) -> Generator[None]:
    if not gate.acquire(file.busy_timeout_s):
        raise file.busy("another process that opens it")
    try:
        yield
    finally:
        gate.release()


def _version_of_one_moment(connection: Db, path: Path) -> int:
    # Another process may be making it: what was empty before its commit must not be foreign after it.
    connection.execute("BEGIN")
    try:
        return _version(connection, path)
    finally:
        connection.execute("ROLLBACK")


def _version(connection: Db, path: Path) -> int:
    version = int(connection.pragma("user_version"))
    ours = connection.pragma("application_id") == APPLICATION_ID
    empty = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)
    if not ours and not empty:
        raise StorageError(f"{path} is a SQLite file of another program. Choose another path.")
    if version > VERSION:
        raise SchemaChangedError(
            f"{path} has store version {version}; this mcp-sessions knows versions up to {VERSION}. Upgrade it."
        )
    return version


def _journal(connection: Db) -> str:
    return str(connection.pragma("journal_mode"))


def _migrate(connection: Db, path: Path) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for number in range(_version(connection, path), VERSION):
            connection.execute(_sql(MIGRATIONS[number]))
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _patient(file: File, act: Callable[[], T]) -> T:
    # Switching to WAL does not wait for other processes, whatever the busy timeout says.
    end = time.monotonic() + file.busy_timeout_s
    while True:
        try:
            return act()
        except apsw.BusyError:
            if time.monotonic() >= end:
                raise
            time.sleep(0.01)
