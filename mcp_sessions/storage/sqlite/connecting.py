"""Opening the file: who it belongs to, which version of it this is, and how SQLite is to treat it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TypeVar, cast

import apsw

from ..._os import FileLock, sync_pragmas
from ...errors import SchemaChangedError, StorageBusyError, StorageError
from .driver import Db

APPLICATION_ID = 0x4D435053  # "MCPS"
WAIT_S = 30.0
MIGRATIONS = ("schema.sql",)
VERSION = len(MIGRATIONS)
T = TypeVar("T")


def _sql(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def statements() -> dict[str, str]:
    """The fixed statements, by name."""
    parts = re.split(r"^-- name: (\w+)\n", _sql("statements.sql"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], (text.strip() for text in parts[2::2]), strict=True))


@contextmanager
def translated(path: Path) -> Generator[None]:
    """Turn whatever the driver raises into a StorageError that says what to do."""
    try:
        yield
    except apsw.Error as error:
        raise as_ours(path, error) from error


def as_ours(path: Path, error: Exception) -> StorageError:
    """The StorageError for a driver's error, which becomes its cause."""
    ours = _described(path, error)
    ours.__cause__ = error
    return ours


def _described(path: Path, error: Exception) -> StorageError:
    if isinstance(error, apsw.FullError):
        fact = "the disk is full. Nothing of this call was written. Make room, then retry"
    elif isinstance(error, apsw.NotADBError):
        fact = "it is not a SQLite file. Choose another path"
    elif isinstance(error, apsw.CorruptError):
        fact = "it is damaged. Keep a copy, then run: mcp-sessions doctor"
    elif isinstance(error, (apsw.ReadOnlyError, apsw.CantOpenError, apsw.PermissionsError)):
        fact = "it cannot be opened for writing. Check the folder, its permissions and the disk"
    elif isinstance(error, apsw.BusyError):
        return StorageBusyError(str(path), WAIT_S, "another process")
    elif isinstance(error, apsw.IOError):
        fact = "the disk refused. Nothing of this call was written. Check the disk and its free space, then retry"
    else:
        fact = "SQLite refused"
    return StorageError(f"{path}: {fact} ({type(error).__name__}: {error}).")


def connect(path: Path, *, writable: bool, durability: str) -> Db:
    """A connection as all of ours are: WAL, no mmap, and no checkpoint on close, which would happen ungated."""
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE if writable else apsw.SQLITE_OPEN_READONLY
    opened = apsw.Connection(str(path), flags=flags, statementcachesize=200)
    opened.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection = cast("Db", opened)
    connection.set_busy_timeout(int(WAIT_S * 1000))
    connection.execute("PRAGMA mmap_size=0")
    connection.execute("PRAGMA temp_store=MEMORY")
    if writable:
        connection.execute("PRAGMA secure_delete=ON")
        connection.execute(f"PRAGMA synchronous={'FULL' if durability == 'full' else 'NORMAL'}")
        connection.execute("PRAGMA wal_autocheckpoint=1000")
        connection.execute("PRAGMA journal_size_limit=67108864")
        for pragma in sync_pragmas():
            connection.execute(pragma)
    else:
        connection.execute("PRAGMA query_only=ON")
    return connection


def prepare(path: Path, gate: FileLock, durability: str) -> Db:
    """The writer's connection to a file that is ours and of our version, made or brought up to date as needed."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = not path.exists()
    connection = _patient(lambda: connect(path, writable=True, durability=durability))
    try:
        if fresh:
            os.chmod(path, 0o600)
        if _version(connection, path) < VERSION or _journal(connection) != "wal":
            if not gate.acquire(WAIT_S):
                raise StorageBusyError(str(path), WAIT_S, "another process that opens it")
            try:
                _patient(lambda: connection.execute("PRAGMA journal_mode=WAL").fetchall())
                _migrate(connection, path)
            finally:
                gate.release()
    except BaseException:
        connection.close()
        raise
    return connection


def check_version(connection: Db, path: Path) -> None:
    """Raise SchemaChangedError where another version of the program changed the file meanwhile."""
    version = connection.pragma("user_version")
    if version != VERSION:
        raise SchemaChangedError(
            f"{path} was changed to store version {version} while this process, which knows version {VERSION}, "
            "had it open. Restart this process with the current mcp-sessions."
        )


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


def _patient(act: Callable[[], T]) -> T:
    # Switching to WAL does not wait for other processes, whatever the busy timeout says.
    end = time.monotonic() + WAIT_S
    while True:
        try:
            return act()
        except apsw.BusyError:
            if time.monotonic() >= end:
                raise
            time.sleep(0.01)
