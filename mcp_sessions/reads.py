"""Reads, recorded in the background: a queue that is written within a second, and never dropped silently.

A read does not wait for a disk. When 10,000 records wait, readers wait too; what could not be written stays
queued and is tried again, and once it is written the delay is on record as well, for `doctor` to show.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Sequence
from datetime import datetime
from itertools import groupby

from .errors import SessionNotFoundError, StorageError
from .models import Change, Failure, Invocation, InvocationStatus
from .session import Clock, new_id
from .storage import SessionStorage

log = logging.getLogger(__name__)
CAPACITY = 10_000
DELAY_S = 0.25
RETRY_S = 1.0
LATE = "record_reads"
"""The tool name under which a delayed flush stands on record."""


class ReadLog:
    """Records of reads on their way to the store."""

    def __init__(self, storage: SessionStorage, clock: Clock) -> None:
        self._storage = storage
        self._clock = clock
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._queue: deque[Invocation] = deque()
        self._lock = threading.Condition()
        self._flushing = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._failed_since: datetime | None = None
        self._error = ""

    def add(self, record: Invocation) -> None:
        """Queue a record; waits while the queue is full."""
        if self._pid != os.getpid():
            self._begin()  # a forked child: what was queued is the parent's to write
        with self._lock:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._serve, name="mcp-sessions-reads", daemon=True)
                self._thread.start()
            while len(self._queue) >= CAPACITY and not self._closed:
                self._lock.wait()
            self._queue.append(record)
            if len(self._queue) == 1:
                self._lock.notify_all()
        if self._closed:
            self.flush()

    def flush(self) -> None:
        """Write all that is queued now. Raises StorageError, and then it is all still queued."""
        if self._pid != os.getpid() or not self._queue:
            return
        with self._flushing:
            with self._lock:
                batch = list(self._queue)
            if not batch:
                return
            try:
                self._write(batch)
            except StorageError as error:
                self._failed_since = self._failed_since or self._clock()
                self._error = str(error)
                log.error("%d records of reads could not be written, and stay queued: %s", len(batch), error)
                raise
            with self._lock:
                for _ in batch:
                    self._queue.popleft()
                self._lock.notify_all()
            self._tell_delay(len(batch))

    def close(self) -> None:
        """Write what is queued and end. Raises StorageError where it could not be written."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread() and self._pid == os.getpid():
            thread.join()
        self.flush()

    @property
    def waiting(self) -> tuple[int, str]:
        """How many records are queued, and why the last flush failed, if it did."""
        return len(self._queue), self._error if self._failed_since is not None else ""

    def _serve(self) -> None:
        while True:
            with self._lock:
                while not self._queue and not self._closed:
                    self._lock.wait()
                if self._closed:
                    return
                self._lock.wait_for(lambda: self._closed, DELAY_S)
                if self._closed:
                    return
            try:
                self.flush()
            except StorageError:
                with self._lock:
                    self._lock.wait_for(lambda: self._closed, RETRY_S)

    def _write(self, batch: Sequence[Invocation]) -> None:
        def session_of(record: Invocation) -> str:
            return record.session_id or ""

        changes: list[tuple[str | None, Change]] = []
        for session_id, records in groupby(sorted(batch, key=session_of), key=session_of):
            of_session = tuple(records)
            changes.append((session_id or None, Change(at=of_session[-1].started_at, records=of_session)))
        first_id, first = changes[0]
        also = tuple((session_id, change) for session_id, change in changes[1:] if session_id is not None)
        try:
            self._storage.commit(first_id, first.model_copy(update={"also": also}))
        except SessionNotFoundError:
            # One was deleted meanwhile: its reads are on record all the same, without a session.
            for session_id, change in changes:
                try:
                    self._storage.commit(session_id, change)
                except SessionNotFoundError:
                    self._storage.commit(None, change)

    def _tell_delay(self, count: int) -> None:
        since, error = self._failed_since, self._error
        if since is None:
            return
        self._failed_since, self._error = None, ""
        now = self._clock()
        record = Invocation(
            invocation_id=new_id("inv"),
            tool_name=LATE,
            kind="session",
            caller="mcp-sessions",
            status=InvocationStatus.ERROR,
            started_at=since,
            duration_ms=round((now - since).total_seconds() * 1000, 3),
            result={"count": count},
            error=Failure(type="StorageError", message=error),
        )
        self._storage.commit(None, Change(at=now, records=(record,)))
