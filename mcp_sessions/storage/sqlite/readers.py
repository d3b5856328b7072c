"""Reading: few connections of their own, which never wait for the writer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

import apsw

from ...errors import StorageClosedError
from .connecting import File, read_only, translated
from .driver import Db

MOST = 8


class Readers:
    """A handful of read-only connections; each is used by one thread at a time.

    `check_place` raises where the file is no longer the one that was opened.
    """

    def __init__(self, file: File, check_place: Callable[[], None]) -> None:
        self._file = file
        self._check_place = check_place
        self._free: list[Db] = []
        self._used = 0
        self._lock = threading.Condition()
        self._pausing = False
        self._closed = False

    @contextmanager
    def one(self, *, snapshot: bool = False) -> Generator[Db]:
        """A connection; with `snapshot` all that is read through it is of one moment."""
        connection = self._take()
        sound = True
        try:
            with translated(self._file):
                try:
                    if snapshot:
                        connection.execute("BEGIN")
                    yield connection
                    if snapshot:
                        connection.execute("COMMIT")
                except apsw.Error:
                    sound = False
                    raise
                finally:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
        finally:
            self._give_back(connection, sound=sound)

    def pause(self, timeout_s: float) -> bool:
        """Wait until nobody reads, close all connections, and let nobody begin before `resume`."""
        if not self._lock.acquire(timeout=timeout_s):
            return False
        self._pausing = True
        if self._lock.wait_for(lambda: not self._used, timeout_s):
            self._close_free()
            return True
        self.resume()
        return False

    def resume(self) -> None:
        """Let readers begin again."""
        self._pausing = False
        self._lock.notify_all()
        self._lock.release()

    def close(self) -> None:
        """Close all; those that are still in use, as soon as they no longer are."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()
            self._close_free()

    def _take(self) -> Db:
        with self._lock:
            if not self._lock.wait_for(self._may_begin, self._file.busy_timeout_s):
                raise self._file.busy(f"{MOST} readers of this process")
            if self._closed:
                raise StorageClosedError(str(self._file.path))
            connection = self._free.pop() if self._free else self._connect()
            self._used += 1
            return connection

    def _may_begin(self) -> bool:
        return self._closed or (not self._pausing and self._used < MOST)

    def _connect(self) -> Db:
        with translated(self._file):
            connection = read_only(self._file)
        try:
            self._check_place()
        except BaseException:
            connection.close()
            raise
        return connection

    def _give_back(self, connection: Db, *, sound: bool) -> None:
        with self._lock:
            self._used -= 1
            if self._closed or not sound:
                connection.close()
            else:
                self._free.append(connection)
            if self._pausing:
                self._lock.notify_all()
            else:
                self._lock.notify()

    def _close_free(self) -> None:
        for connection in self._free:
            connection.close()
        self._free = []
