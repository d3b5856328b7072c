"""Reading: few connections of their own, which never wait for the writer."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from ...errors import StorageBusyError, StorageClosedError
from .connecting import WAIT_S, connect, translated
from .driver import Db

MOST = 8


class Readers:
    """A handful of read-only connections; each is used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._free: list[Db] = []
        self._all: list[Db] = []
        self._lock = threading.Condition()
        self._closed = False

    @contextmanager
    def one(self, *, snapshot: bool = False) -> Generator[Db]:
        """A connection; with `snapshot` all that is read through it is of one moment."""
        connection = self._take()
        try:
            with translated(self._path):
                if not snapshot:
                    yield connection
                    return
                connection.execute("BEGIN")
                try:
                    yield connection
                finally:
                    connection.execute("COMMIT")
        finally:
            with self._lock:
                self._free.append(connection)
                self._lock.notify()

    def close(self) -> None:
        """Wait for readers at work, then close all."""
        with self._lock:
            self._closed = True
            self._lock.wait_for(lambda: len(self._free) == len(self._all), WAIT_S)
            for connection in self._free:
                connection.close()
            self._free, self._all = [], []

    def _take(self) -> Db:
        with self._lock:
            if self._closed:
                raise StorageClosedError(str(self._path))
            if not self._free and len(self._all) < MOST:
                with translated(self._path):
                    connection = connect(self._path, writable=False, durability="full")
                self._all.append(connection)
                return connection
            if not self._lock.wait_for(lambda: bool(self._free) or self._closed, WAIT_S):
                raise StorageBusyError(str(self._path), WAIT_S, f"{MOST} readers of this process")
            if self._closed:
                raise StorageClosedError(str(self._path))
            return self._free.pop()
