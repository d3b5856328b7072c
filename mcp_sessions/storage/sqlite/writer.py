"""The writer: one thread, and whatever waits becomes one transaction.

Callers hand in a piece of work and wait. The thread takes all that is queued, passes the gate between processes
(a kernel lock, which is fair where SQLite's own waiting starves), and commits it with one sync; a piece that fails
takes nothing else with it. Whatever happens in the thread, each caller hears of it.
A caller who finds nobody at work does its piece itself, in the same way: that saves two changes of thread.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

import apsw

from ..._os import FileLock, has_kernel_lock, holder_of
from ...errors import StorageClosedError, StorageError
from .connecting import APPLICATION_ID, File, as_ours, check_version, prepare, writable
from .driver import Db
from .ledger import Ledger

T = TypeVar("T")
Work = Callable[[Db], T]
Chore = tuple[Work[bool], bool]
"""Work for idle moments, which tells whether there is more of it; and whether it removes what must not linger."""
MAX_BATCH = 256
POLL_S = 0.05
IDLE_S = 1.0
TIDY_PAGES = 2000
"""After so many more pages the log is moved into the file and begun anew, if no reader is in the way."""
LONG_LOG_PAGES = 4 * TIDY_PAGES
READERS_MS = 50
"""How long a long log waits for readers, and for each time that it is longer; else it would grow without bound."""
HURRY_S = 0.1
"""How long anybody waits for another process once the waiting is given up: long enough for one that is at work."""
_log = logging.getLogger(__name__)


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
    """Runs work inside write transactions. `idle` is asked for a chore when nobody has brought work for a second."""

    def __init__(self, file: File, idle: Callable[[Db], Chore | None], ledger: Ledger | None = None) -> None:
        self.path = file.path
        self._file = file
        self._idle = idle
        self._ledger = ledger
        self._gate = FileLock(file.path.with_name(file.path.name + "-gate"))
        self._queue: deque[_Job] = deque()
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._using = threading.Lock()
        """Held while the connection is at work, so that a fork can wait for it."""
        self._thread: threading.Thread | None = None
        self._busy = False
        """Somebody, the thread or a caller, is between taking work and having passed the gate back."""
        self._worked = False
        """A caller did its work itself since the thread last looked."""
        self._running_here = threading.Lock()
        self._at_gate = False
        self._patience_s = file.busy_timeout_s
        """How long SQLite's own lock is waited for, which other programs take without the gate."""
        self._waiting_since = 0.0
        self._hurried = False
        self._closing = False
        self._ended = False
        self._restless = True
        self._lingering = False
        """What was removed still stands in the log."""
        self._log_pages = 0
        self._tidy_at = TIDY_PAGES
        self._connection: Db | None = None
        self._place: tuple[int, int] | None = None
        try:
            self._connection = prepare(file, self._gate)
            self._look_after(self._connection)
            self._place = _place(self.path)
            if idle(self._connection) is not None:
                self._start()
        except BaseException:
            self._let_go()
            raise

    def run(self, work: Work[T]) -> T:
        """Do the work in a transaction; when this returns it is committed and synced.

        Raises what the work raises; StorageError when the disk refuses; StorageBusyError when the waiting time
        passed before it could begin, and then it never will.
        """
        return self._submit(_Job(work))

    def truncate_log(self) -> None:
        """Move the log into the file now, so that what was deleted stands in neither.

        Where a reader is in the way, it happens when nothing else is to do.
        """
        self._submit(_Job(None))

    def truncate_log_later(self) -> None:
        """The same, when nothing else is to do."""
        self._lingering = True

    def check_place(self) -> None:
        """Raise StorageError where the file that is open no longer stands at its path."""
        if not self._in_place():
            raise self._moved()

    def close(self) -> None:
        """Finish what is queued, move the log into the file where nobody is in the way, and let go.

        Waits for callers, none of whom waits longer than the waiting time; never for whoever holds the gate.
        """
        with self._lock:
            self._closing = True
            self._wake.notify_all()
            if self._thread is not None:
                self._wake.wait_for(self._may_leave)
            ended = self._ended
        if self._thread is None:
            self._let_go()
        elif ended:
            self._thread.join()

    def give_up(self) -> None:
        """Let nobody wait for another process any longer, neither at the gate nor for SQLite's own lock: what has not
        begun never does, and what comes later is refused if it would have to wait.
        """
        holder = holder_of(self._gate.path)
        with self._lock:
            self._hurried = True
            if not self._at_gate:
                return
            self._closing = True
            for job in self._queue:
                if job.state == "waiting":
                    job.state, job.error = "given up", self._file.given_up(holder)
                    job.done.release()

    def pause(self, timeout_s: float) -> bool:
        """Wait until the connection is not at work, close it, and let nothing begin before `resume`."""
        if not self._using.acquire(timeout=timeout_s):
            return False
        self._drop_connection()
        return True

    def resume(self) -> None:
        """Go on, with a new connection."""
        self._using.release()

    def disown(self) -> None:
        """In a forked child: let go of what the parent uses, without a trace."""
        self._gate.close()

    # the caller's side

    def _submit(self, job: _Job) -> Any:
        if job.work is None or self._busy or not self._done_alone(job):
            self._wait_for(job)
        if job.error is not None:
            raise job.error
        return job.result

    def _done_alone(self, job: _Job) -> bool:
        """Whether it was done here, by the caller itself: where nobody else waits, that saves two changes of thread.

        Only while the thread wakes up by itself, or nobody would see to the chores.
        """
        mine = gated = False
        try:  # A Ctrl-C anywhere in here must not leave anybody waiting for a turn that never ends.
            with self._lock:
                if self._restless and self._thread is not None and not (self._busy or self._due()):
                    mine = self._busy = self._worked = True
            gated = mine and self._try_gate()
            if gated:
                job.state = "running"
                self._do([job])
                job.state = "done"
            return gated
        finally:
            if mine:
                self._end_turn(gated=gated)

    def _end_turn(self, *, gated: bool) -> None:
        try:
            if gated:
                self._leave_gate()
        finally:
            self._busy = False
            with self._lock:
                if self._due():
                    self._wake.notify_all()

    def _try_gate(self) -> bool:
        try:
            return not has_kernel_lock() or self._gate.try_acquire()
        except OSError:
            return False  # the thread meets it too, and tells

    def _leave_gate(self) -> None:
        if has_kernel_lock():
            with suppress(OSError):
                self._gate.release()

    def _wait_for(self, job: _Job) -> None:
        with self._lock:
            if self._closing:
                raise StorageClosedError(str(self.path))
            alone = self._thread is None and not self._start()
            self._queue.append(job)
            self._wake.notify()
        if alone:
            self._run_here(job)
        try:
            done = job.done.acquire(timeout=self._file.busy_timeout_s)
        except BaseException:  # Ctrl-C: what has not begun does not happen behind its back, and what has is awaited
            if not self._give_up(job):
                while job.state == "running":
                    job.done.acquire(timeout=POLL_S)
            raise
        if not done:
            if self._give_up(job):
                raise self._file.busy(holder_of(self._gate.path))
            job.done.acquire()

    def _give_up(self, job: _Job) -> bool:
        with self._lock:
            if job.state != "waiting":
                return False
            job.state = "given up"
            self._wake.notify_all()
            return True

    def _may_leave(self) -> bool:
        return self._ended or (self._at_gate and not any(job.state == "waiting" for job in self._queue))

    def _in_place(self) -> bool:
        place = _place(self.path)
        return place is not None and place == self._place

    def _moved(self) -> StorageError:
        return StorageError(
            f"{self.path} was removed or replaced while it was open, so nothing was written. "
            "Put it back, or restart this process to begin with the file that is there now."
        )

    # the thread's side

    def _start(self) -> bool:
        thread = threading.Thread(target=self._serve, name="mcp-sessions-writer", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # none is to be had: Python 3.12 starts no more of them once it is ending
            return False
        self._thread = thread
        return True

    def _run_here(self, job: _Job) -> None:
        with self._running_here:
            while job.state == "waiting":
                self._batch()

    def _serve(self) -> None:
        while True:
            with self._lock:
                self._worked = False
                woken = self._wake.wait_for(self._called, IDLE_S if self._restless or self._lingering else None)
                if self._closing and not self._queue and not self._busy:
                    break
                if not woken and (self._busy or self._worked):
                    continue
                self._busy = True
            if woken:
                self._restless = True
                self._batch()
            else:
                chore = self._chore()
                if chore is not None:
                    self._batch(chore)
                self._restless = chore is not None and chore.error is None and bool(chore.result)
            self._busy = False
        self._let_go()
        with self._lock:
            self._ended = True
            self._wake.notify_all()

    def _called(self) -> bool:
        return not self._busy and self._due()

    def _due(self) -> bool:
        """Whether there is something that the thread must do."""
        return bool(self._queue) or self._closing or self._log_pages >= self._tidy_at

    def _chore(self) -> _Job | None:
        try:
            with self._using:
                chore = self._idle(self._connected())
        except Exception:  # noqa: BLE001 - the door of this thread: the next call meets the same error and tells its caller
            _log.debug("Nothing done while idle", exc_info=True)
            self._lingering = False
            return None
        if chore is not None:
            work, removes = chore
            self._lingering = self._lingering or removes
            return _Job(work)
        return _Job(None) if self._lingering else None

    def _batch(self, chore: _Job | None = None) -> None:
        broken = None
        try:
            self._pass_gate()
        except StorageError as error:
            broken = error
        except OSError as error:
            broken = error if self._in_place() else self._moved()
        jobs = [*([chore] if chore is not None else []), *self._taken()]
        if broken is None:
            self._do(jobs)
        else:
            self._fail(jobs, broken)
        if self._log_pages >= self._tidy_at:
            _tell(jobs)
            jobs = []
            self._tidy_log()
        if broken is None:
            self._leave_gate()
        _tell(jobs)

    def _pass_gate(self) -> None:
        if has_kernel_lock() and not self._gate.try_acquire():
            if self._hurried:
                if not self._gate.acquire(HURRY_S):
                    raise self._file.given_up(holder_of(self._gate.path))
                return
            with self._lock:
                self._at_gate = True
                self._wake.notify_all()
            try:
                self._gate.acquire()
            finally:
                self._at_gate = False

    def _taken(self) -> list[_Job]:
        jobs: list[_Job] = []
        with self._lock:
            while self._queue and len(jobs) < MAX_BATCH:
                job = self._queue.popleft()
                if job.state == "waiting":
                    job.state = "running"
                    jobs.append(job)
        return jobs

    def _do(self, jobs: list[_Job]) -> None:
        checkpoints = [job for job in jobs if job.work is None]
        work = [job for job in jobs if job.work is not None] if checkpoints else jobs
        if work:
            try:
                with self._using:
                    self._transact(work)
            except BaseException as error:  # noqa: BLE001 - the door between this thread and its callers: each gets it
                self._fail(work, error)
        if checkpoints:  # which fail by themselves alone: what went wrong in the work beside them is not theirs
            try:
                with self._using:
                    self._lingering = not self._checkpoint("TRUNCATE", 0)
            except BaseException as error:  # noqa: BLE001 - as above
                self._fail(checkpoints, error)

    def _transact(self, jobs: list[_Job]) -> None:
        # Most of what fails has written nothing yet, and needs no savepoint. Where one has, all begin again with them.
        if not self._transacted(jobs, savepoints=False):
            self._transacted(jobs, savepoints=True)

    def _transacted(self, jobs: list[_Job], *, savepoints: bool) -> bool:
        """Whether the work is committed; if not, one failed half done, nothing is, and it takes savepoints."""
        connection, ledger = self._connected(), self._ledger
        connection.execute("BEGIN IMMEDIATE")
        committed = False
        try:
            check_version(connection, self.path)
            if ledger is not None:
                ledger.begin(connection)
            if not self._worked_off(connection, jobs, savepoints=savepoints):
                return False
            if ledger is not None:
                ledger.seal(connection)
            connection.execute("COMMIT")
            committed = True
            return True
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if ledger is not None:
                ledger.settle() if committed else ledger.undo()

    def _worked_off(self, connection: Db, jobs: list[_Job], *, savepoints: bool) -> bool:
        """Whether each job is done, or failed and left nothing."""
        for job in jobs:
            job.error = None
            written = connection.total_changes()
            if savepoints:
                connection.execute("SAVEPOINT job")
            try:
                assert job.work is not None
                job.result = job.work(connection)
            except Exception as error:
                if len(jobs) == 1 or not connection.in_transaction:
                    # Where SQLite gave up the whole transaction, whoever came before is gone with it.
                    raise
                job.error = as_ours(self._file, error) if isinstance(error, apsw.Error) else error
                if savepoints:
                    connection.execute("ROLLBACK TO job")
                elif connection.total_changes() != written:
                    return False
            if savepoints:
                connection.execute("RELEASE job")
        return True

    def _note_log(self, _connection: object, _name: str, pages: int) -> int:
        # Called by each commit, in the place of SQLite's own checkpoints, which would keep its callers waiting.
        self._log_pages = pages
        self._tidy_at = min(self._tidy_at, pages + TIDY_PAGES)
        return 0

    def _tidy_log(self) -> None:
        patience_ms = min(self._log_pages // LONG_LOG_PAGES, 20) * READERS_MS
        with self._using:
            self._checkpoint("RESTART", patience_ms)
        self._tidy_at = self._log_pages + TIDY_PAGES

    def _checkpoint(self, how: Literal["RESTART", "TRUNCATE"], patience_ms: int) -> bool:
        """Whether the log was done with. Where it was not, a reader is in the way; it is as durable there."""
        try:
            connection = self._connected()
            self._patience_s = patience_ms / 1000
            (busy, _, _) = connection.execute(f"PRAGMA wal_checkpoint({how})").fetchall()[0]
        except (StorageError, apsw.Error):
            _log.debug("The log was left beside %s", self.path, exc_info=True)
            self._drop_connection()
            return False
        finally:
            self._patience_s = self._file.busy_timeout_s
        return not busy

    def _fail(self, jobs: list[_Job], error: BaseException) -> None:
        for job in jobs:
            if job.error is None:
                job.error = self._described(error)
        if isinstance(error, apsw.IOError):
            self._take_back()
        if isinstance(error, apsw.Error):
            self._drop_connection()

    def _described(self, error: BaseException) -> BaseException:
        if isinstance(error, apsw.BusyError) and self._hurried:
            given_up = self._file.given_up("another process")
            given_up.__cause__ = error
            return given_up
        return as_ours(self._file, error) if isinstance(error, (apsw.Error, OSError)) else error

    def _take_back(self) -> None:
        """Write over what a failed commit left in the log.

        If its sync was all that failed it stands there whole, and whoever opens the file after a crash would
        take it for committed. While the failed connection is open, a new one still begins before it.
        """
        with suppress(StorageError, apsw.Error):
            self.check_place()
            connection = writable(self._file)
            connection.set_busy_handler(self._may_wait)
            try:
                connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            finally:
                connection.close()

    def _drop_connection(self) -> None:
        # One whose write failed is not used again: a later sync could succeed without the pages that the failed
        # one lost.
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(apsw.Error):
                connection.close()

    def _connected(self) -> Db:
        self.check_place()
        if self._connection is None:
            self._connection = writable(self._file)
            self._look_after(self._connection)
        return self._connection

    def _look_after(self, connection: Db) -> None:
        connection.set_wal_hook(self._note_log)
        connection.set_busy_handler(self._may_wait)

    def _may_wait(self, tries: int) -> bool:
        """Wait a little for whoever has locked the file, and whether to try again: SQLite asks, where it is locked."""
        if tries == 0:
            self._waiting_since = time.monotonic()
        waited_s = time.monotonic() - self._waiting_since
        if waited_s >= (min(self._patience_s, HURRY_S) if self._hurried else self._patience_s):
            return False
        time.sleep(min(0.001 * 2 ** min(tries, 5), self._patience_s))
        return True

    def _let_go(self) -> None:
        with self._using:
            # A log that somebody else's file may have taken over is left alone; a gate that is held elsewhere is
            # not waited for: what stays in the log is as durable there.
            with suppress(OSError):
                if self._place is not None and self._gate.try_acquire():
                    self._checkpoint("TRUNCATE", 0)
            self._drop_connection()
            self._gate.close()


def _tell(jobs: list[_Job]) -> None:
    for job in jobs:
        job.state = "done"
        job.done.release()


def _place(path: Path) -> tuple[int, int] | None:
    try:
        stat = os.stat(path)  # noqa: PTH116 - before each commit, in half the time
    except OSError:
        return None
    return (stat.st_dev, stat.st_ino)
