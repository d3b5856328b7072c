"""The writer: one thread, and whatever waits becomes one transaction.

Callers hand in a piece of work and wait. The thread takes all that is queued, passes the gate between processes
(a kernel lock, which is fair where SQLite's own waiting starves), and commits it with one sync; each piece has a
savepoint, so one that fails takes nothing else with it.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import apsw

from ..._os import FileLock, has_kernel_lock, holder_of
from ...errors import StorageBusyError, StorageClosedError, StorageError
from .connecting import WAIT_S, as_ours, check_version, connect, prepare
from .driver import Db

T = TypeVar("T")
Work = Callable[[Db], T]
MAX_BATCH = 256
IDLE_S = 1.0


class _Job:
    __slots__ = ("done", "error", "result", "state", "work")

    def __init__(self, work: Work[Any] | None) -> None:
        self.work = work
        """None: not work in a transaction, but a checkpoint."""
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = threading.Lock()
        self.done.acquire()
        self.state = "waiting"


class Writer:
    """Runs work inside write transactions. `idle` is asked for work when nobody has brought any for a second."""

    def __init__(self, path: Path, durability: str, idle: Callable[[], Work[bool] | None]) -> None:
        self.path = path
        self._durability = durability
        self._idle = idle
        self._gate = FileLock(path.with_name(path.name + "-gate"))
        self._queue: deque[_Job] = deque()
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._closing = False
        self._connection: Db | None = prepare(path, self._gate, durability)
        self._inode = _inode(path)
        self._restless = True

    def run(self, work: Work[T]) -> T:
        """Do the work in a transaction; when this returns it is committed and synced.

        Raises what the work raises; StorageError when the disk refuses; StorageBusyError when 30 s passed before
        it could begin, and then it never will.
        """
        return self._submit(_Job(work))

    def _submit(self, job: _Job) -> Any:
        with self._lock:
            if self._closing:
                raise StorageClosedError(str(self.path))
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="mcp-sessions-writer", daemon=True)
                self._thread.start()
            self._queue.append(job)
            self._wake.notify()
        if not job.done.acquire(timeout=WAIT_S):
            with self._lock:
                if job.state == "waiting":
                    job.state = "given up"
                    raise StorageBusyError(str(self.path), WAIT_S, holder_of(self._gate.path))
            job.done.acquire()
        if job.error is not None:
            raise job.error
        return job.result

    def close(self) -> None:
        """Finish what is queued, move the log into the file where nobody is in the way, and let go."""
        with self._lock:
            self._closing = True
            self._wake.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(WAIT_S)
            if thread.is_alive():
                raise StorageBusyError(str(self.path), WAIT_S, holder_of(self._gate.path))
        if self._connection is not None:
            # What stays in the log is as durable there; so a gate that is held elsewhere is not waited for.
            if self._gate.try_acquire():
                try:
                    self._checkpoint(self._connection)
                finally:
                    self._gate.release()
            self._connection.close()
            self._connection = None
        self._gate.close()

    def truncate_log(self) -> None:
        """Move the log into the file now, so that what was deleted stands in neither; a reader may be in the way."""
        self._submit(_Job(None))

    def _serve(self) -> None:
        while True:
            with self._lock:
                while not self._queue and not self._closing:
                    if self._restless:
                        if not self._wake.wait(IDLE_S):
                            break
                    else:
                        self._wake.wait()
                if self._closing and not self._queue:
                    return
                idle = not self._queue
            if idle:
                work = self._idle()
                job = _Job(work) if work is not None else None
                if job is not None:
                    with self._lock:
                        self._queue.append(job)
                    self._batch()
                self._restless = job is not None and job.error is None and bool(job.result)
            else:
                self._restless = True
                self._batch()

    def _batch(self) -> None:
        gated = has_kernel_lock()
        if gated and not self._gate.try_acquire():
            self._gate.acquire()
        jobs: list[_Job] = []
        try:
            with self._lock:
                while self._queue and len(jobs) < MAX_BATCH:
                    job = self._queue.popleft()
                    if job.state == "waiting":
                        job.state = "running"
                        jobs.append(job)
            work = [job for job in jobs if job.work is not None]
            if work:
                self._transact(work)
            if len(work) < len(jobs):
                self._checkpoint(self._connected())
        except Exception as error:  # the door between this thread and its callers: each gets the error
            self._fail(jobs, error)
        finally:
            if gated:
                self._gate.release()
            for job in jobs:
                job.done.release()

    def _transact(self, jobs: list[_Job]) -> None:
        connection = self._connected()
        connection.execute("BEGIN IMMEDIATE")
        try:
            check_version(connection, self.path)
            alone = len(jobs) == 1
            for job in jobs:
                if not alone:
                    connection.execute("SAVEPOINT job")
                try:
                    assert job.work is not None
                    job.result = job.work(connection)
                except Exception as error:
                    if alone or not connection.in_transaction:
                        # Where SQLite gave up the whole transaction, whoever came before is gone with it.
                        raise
                    job.error = as_ours(self.path, error) if isinstance(error, apsw.Error) else error
                    connection.execute("ROLLBACK TO job")
                if not alone:
                    connection.execute("RELEASE job")
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    @staticmethod
    def _checkpoint(connection: Db) -> None:
        connection.set_busy_timeout(0)
        try:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except apsw.Error:
            pass  # the log stays, and is as durable
        finally:
            connection.set_busy_timeout(int(WAIT_S * 1000))

    def _fail(self, jobs: list[_Job], error: Exception) -> None:
        for job in jobs:
            if job.error is None:
                job.error = as_ours(self.path, error) if isinstance(error, apsw.Error) else error
        if isinstance(error, apsw.Error) and self._connection is not None:
            # A connection whose write failed is not used again: a later sync could succeed without the pages
            # that the failed one lost.
            connection, self._connection = self._connection, None
            connection.close()

    def _connected(self) -> Db:
        if self._connection is None:
            self._connection = connect(self.path, writable=True, durability=self._durability)
            self._inode = _inode(self.path)
        elif _inode(self.path) != self._inode:
            raise StorageError(
                f"{self.path} was removed or replaced while it was open, so nothing was written. "
                "Put it back, or restart this process to begin with the file that is there now."
            )
        return self._connection


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return (stat.st_dev, stat.st_ino)
