"""Reads, recorded in the background: a queue that is written within a second, and never dropped silently.

A read does not wait for a disk. When 10,000 records wait, readers wait too; what could not be written stays
queued and is tried again, and once it is written the delay is on record as well, for `doctor` to show. The end of a
slow call that the store refused is queued here too.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import islice

from .errors import InvocationConflictError, InvocationRecordedError, SessionNotFoundError, StorageError
from .models import Change, Failure, Invocation, InvocationStatus, Want
from .session import Clock
from .storage import SessionStorage

log = logging.getLogger(__name__)
CAPACITY = 10_000
PIECE = 500
"""Records a commit takes at most, so that no other one waits for long behind it."""
DELAY_S = 0.25
RETRY_S = 1.0
LATE = "record_reads"
"""The tool name under which a delayed flush stands on record."""


class _Queue:
    """What belongs to one process: a forked child begins with an empty one, for what was queued is the parent's."""

    def __init__(self) -> None:
        self.records: deque[Invocation] = deque()
        self.lock = threading.Condition()
        self.flushing = threading.Lock()
        self.thread: threading.Thread | None = None
        self.closed = False
        self.failed_since: datetime | None = None
        self.failures = 0
        self.failure: StorageError | None = None
        """Why the last flush failed, if it did."""


class ReadLog:
    """Records on their way to the store."""

    def __init__(self, storage: SessionStorage, clock: Clock, make_id: Callable[[str], str]) -> None:
        self._storage = storage
        self._clock = clock
        self._make_id = make_id
        self._queues = {os.getpid(): _Queue()}
        # What still waits when the interpreter ends is written then: after whatever is registered later than this.
        atexit.register(self._write_at_exit)

    def _here(self) -> _Queue:
        return self._queues.get(os.getpid()) or self._queues.setdefault(os.getpid(), _Queue())

    def add(self, record: Invocation) -> None:
        """Queue a record; waits while the queue is full. Raises StorageError once it is closed, for nobody else will
        write it then.
        """
        here = self._here()
        with here.lock:
            while len(here.records) >= CAPACITY and not here.closed:
                here.lock.wait()
            here.records.append(record)
            if here.thread is None and not here.closed:
                here.closed = not self._start(here)
            here.lock.notify_all()
        if here.closed:
            self.flush()

    def flush(self) -> None:
        """Write all that is queued now. Raises StorageError, and then what was not written is still queued.

        Who waits for somebody else's flush shares its failure: where that one waited in vain for the store, a queue
        of them would wait many times as long.
        """
        here = self._here()
        due = len(here.records)
        while due > 0:
            failures = here.failures
            with here.flushing:
                if here.failure is not None and here.failures != failures:
                    raise _own(here.failure)
                with here.lock:
                    batch = list(islice(here.records, min(due, PIECE)))
                if not batch:
                    return
                self._flush(here, batch)
                due -= len(batch)

    def refused(self) -> int:
        """Write all that is queued now; how many records wait all the same, for the store refuses them."""
        return 0 if self._tried() else len(self._here().records)

    def close(self) -> None:
        """Write what is queued and end. Raises StorageError where it could not be written."""
        here = self._here()
        self.end()
        if here.thread is not None:
            here.thread.join()
        self.flush()

    def end(self) -> None:
        """Have what is queued written, and the thread end, without waiting for it: may be called from any thread, by
        the garbage collector too.
        """
        here = self._here()
        with here.lock:
            here.closed = True
            here.lock.notify_all()
        if here.thread is None:
            atexit.unregister(self._write_at_exit)

    @property
    def waiting(self) -> tuple[int, str]:
        """How many records are queued, and why the last flush failed, if it did."""
        here = self._here()
        return len(here.records), _text(here.failure)

    def _start(self, here: _Queue) -> bool:
        thread = threading.Thread(target=self._serve, args=(here,), name="mcp-sessions-reads", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is ending, and starts no more threads
            return False
        here.thread = thread
        return True

    def _serve(self, here: _Queue) -> None:
        wait_s, closed = DELAY_S, False
        while not closed:
            with here.lock:
                here.lock.wait_for(lambda: here.records or here.closed)
                here.lock.wait_for(lambda: here.closed, wait_s)
                closed = here.closed
            wait_s = DELAY_S if self._tried() else RETRY_S
        atexit.unregister(self._write_at_exit)

    def _tried(self) -> bool:
        try:
            self.flush()
        except StorageError:
            return False
        return True

    def _write_at_exit(self) -> None:
        try:
            self.close()
        except StorageError:
            log.exception("%d records were lost at exit", self.waiting[0])

    def _flush(self, here: _Queue, batch: Sequence[Invocation]) -> None:
        late = [] if here.failed_since is None else [self._delay(here, here.failed_since, len(here.records))]
        try:
            self._write([*batch, *late])
        except StorageError as error:
            here.failed_since = here.failed_since or self._clock()
            here.failure = _own(error)
            here.failures += 1
            # No traceback: a full disk brings one such line a second.
            log.error("%d records could not be written, and stay queued: %s", len(here.records), error)  # noqa: TRY400 - where it was raised says nothing more
            raise
        here.failed_since = here.failure = None
        with here.lock:
            for _ in batch:
                here.records.popleft()
            here.lock.notify_all()

    def _write(self, batch: Sequence[Invocation]) -> None:
        """One commit: each record in its session, if that is there and the caller's, else without one. Left out is the
        end of a call that is not on record as running any more.
        """
        gone: set[tuple[str, str | None]] = set()
        while batch:
            loose: list[Invocation] = []
            placed: dict[tuple[str, str | None], list[Invocation]] = {}
            for record in batch:
                place = None if record.session_id is None else (record.session_id, record.user_id)
                if place is None or place in gone:
                    loose.append(record)
                else:
                    placed.setdefault(place, []).append(record)
            at = batch[-1].started_at
            also = tuple(
                (session_id, Change(at=at, records=tuple(records), as_user=user))
                for (session_id, user), records in placed.items()
            )
            try:
                self._storage.commit(None, Change(at=at, records=tuple(loose), also=also))
            except SessionNotFoundError as error:
                gone |= {place for place in placed if place[0] == error.session_id and not self._is_there(*place)}
            except (InvocationConflictError, InvocationRecordedError) as error:
                batch = [record for record in batch if record.invocation_id != error.invocation_id]
            else:
                return

    def _is_there(self, session_id: str, user: str | None) -> bool:
        try:
            self._storage.read(session_id, Want(as_user=user))
        except SessionNotFoundError:
            return False
        return True

    def _delay(self, here: _Queue, since: datetime, count: int) -> Invocation:
        return Invocation(
            invocation_id=self._make_id("inv"),
            tool_name=LATE,
            kind="session",
            caller="mcp-sessions",
            status=InvocationStatus.ERROR,
            started_at=since,
            duration_ms=round((self._clock() - since).total_seconds() * 1000, 3),
            result={"count": count},
            error=Failure.of(StorageError(), _text(here.failure)),
        )


def _own(error: StorageError) -> StorageError:
    """The same error for another caller, who may add notes to it."""
    own = type(error).__new__(type(error), *error.args)
    vars(own).update({name: value for name, value in vars(error).items() if name != "__notes__"})
    return own


def _text(error: StorageError | None) -> str:
    return "" if error is None else str(error)
