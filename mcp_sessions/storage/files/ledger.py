"""A transaction, as lines: what it did to each session goes to the end of that session's log, synced, before it is
committed to the index.

What concerns several logs is one line of the store's own log first; from there it is brought to those that lack it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ...errors import StorageError
from ...models import ConversationMessage, Invocation, SessionMetadata
from ..sqlite.connecting import File, as_ours
from ..sqlite.driver import Db
from ..sqlite.writing import SLOTS
from ..times import micros
from . import known
from .folder import LOG, SHARED, Folder, name_of
from .known import Known
from .legacy import is_legacy
from .lines import Entry, Place, sealed
from .replaying import Replaying
from .shown import VIEWS
from .underway import Underway

_log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass
class _Open:
    """A log that this transaction writes to."""

    known: Known
    end: Place = field(default_factory=Place)
    """Where it ends with what waits."""
    waiting: list[bytes] = field(default_factory=list[bytes])
    entries: list[Entry] = field(default_factory=list[Entry])


@dataclass
class _Job:
    """What one piece of work did."""

    own: dict[str, tuple[_Open, Entry]] = field(default_factory=dict[str, tuple[_Open, Entry]])
    shared: Entry | None = None
    deleted: str | None = None
    adopts: str | None = None
    """The folder whose files of the old layout become views."""


class NotAdoptedError(StorageError):
    """A session of the old layout stands in the folder at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(f"{path} holds a session of the old layout, which is not taken over yet. Retry.")


class FileLedger:
    """The ledger of the files backend; `seen` is told which logs were written, and what, and `dead` in which, of what
    size, something is to be erased.
    """

    def __init__(self, folder: Folder, replaying: Replaying, underway: Underway) -> None:
        self._folder = folder
        self._replaying = replaying
        self._underway = underway
        self.ready = False
        """The index has what this needs."""
        self.seen: Callable[[Known, list[Entry]], None] = lambda _known, _entries: None
        self.dead: Callable[[list[tuple[str, int]]], None] = lambda _logs: None
        self._logs: dict[str, _Open] = {}
        self._of: dict[int, _Open] = {}
        self._waiting: list[_Open] = []
        self._staged: list[_Job] = []
        self._job = _Job()
        self._others: list[str] | None = []
        """What another process wrote last, and this transaction looked at."""

    def together(self, work: Callable[[Db], T], db: Db, *, adopts: str | None = None) -> T:
        """Do a piece of work, all of which is one commit."""
        job = self._job = _Job(adopts=adopts)
        result = work(db)
        self._staged.append(job)
        return result

    def close(self) -> None:
        """Let go of its file."""
        self._underway.close()

    def written_anew(self, there: Known) -> None:
        """A log has another end, from which this transaction goes on."""
        log = self._logs.get(there.name)
        if log is not None:
            log.known, log.end = there, there.end

    # the transaction

    def begin(self, db: Db) -> None:
        self._logs, self._of, self._waiting, self._staged, self._job = {}, {}, [], [], _Job()
        self._folder.begin()
        self._others = self._underway.others() if self.ready else []
        if self._others != []:
            known.prepare(db)  # the index may be new
            self._replaying.catch_up(db, self._others)
            for name in self._others or ():
                self._folder.drop_empty(name)

    def seal(self, db: Db) -> None:
        jobs = [job for job in self._staged if job.own or job.shared is not None]
        if not jobs:
            return
        names = (name for job in jobs for name in _names(job))
        self._underway.begin(dict.fromkeys([*(self._others or ()), *names]))
        for job in jobs:
            if job.deleted is not None or _spans(job):
                self._write(db)  # what its lines follow must be there before the line that commits them
            if job.deleted is not None:
                self._remove(db, job.deleted)
            self._line(db, job)
        self._write(db)

    def settle(self) -> None:
        self._folder.begin()
        if self._others != [] and not self._staged:
            self._underway.begin([])
        written = {id(log): log for job in self._staged for log, _ in job.own.values()}
        for log in written.values():
            self.seen(log.known, log.entries)
        dead = [(name, log.known.end.size) for name, log in self._logs.items() if log.known.erase]
        if dead:
            self.dead(dead)

    def undo(self) -> None:
        self._replaying.let_go()
        if not self._folder.undo():
            self._underway.leave(None)
        elif self._others != []:
            self._underway.leave(self._others)

    # the rows

    def touch(self, db: Db, session_id: str) -> None:
        name = name_of(session_id)
        if name in self._logs:
            return
        if self._folder.is_link(name):
            raise StorageError(f"{self._folder.of(name)} is a link, and no session is kept behind one. Remove it.")
        there = self._replaying.up_to_date(db, name)
        if there is not None:
            if there.fault is not None:
                raise StorageError(there.fault)
            self._opened(there)
        elif name != self._job.adopts:
            self._refuse_others(self._folder.of(name))

    def created(self, sid: int, metadata: SessionMetadata) -> None:
        self._opened(Known(name_of(metadata.session_id), sid, Place(), origin=sid))
        entry = self._entry(sid)
        entry.sid, entry.session = sid, metadata.to_dict()

    def altered(self, sid: int, fields: Mapping[str, Any], position: int | None) -> None:
        entry = self._entry(sid)
        entry.head.update(fields)
        if position is not None:
            entry.position = position

    def said(
        self,
        sid: int,
        slot: int,
        seq: int,
        message: ConversationMessage,
        more: str | None,
        given: bool,
        revision: int,
    ) -> None:
        self._entry(sid).say(slot, seq, message, more, given, revision)

    def retracted(self, sid: int, seq: int, message_id: str, fingerprint: str | None) -> None:
        self._entry(sid).retracted.append((seq, message_id, fingerprint))

    def keyed(self, sid: int, key: str, version: int, text: str | None) -> None:
        self._entry(sid).key(key, version, text)

    def recorded(
        self, sid: int | None, slot: int, record: Invocation, revision: int | None, numbers: str | None, body: str
    ) -> None:
        entry = self._entry(sid)
        entry.record(slot, record, revision, numbers, body)
        if record.kind == "work":
            entry.calls.append(micros(record.started_at) // 1000 * SLOTS + slot)

    def deleted(self, sid: int, session_id: str, position: int) -> None:
        log = self._of[sid]
        self._job.deleted = log.known.name
        self._job.own.pop(log.known.name, None)  # which goes with it
        gone = {"session_id": session_id, "sid": log.known.origin, "position": position}
        self._entry(None).more["deleted"] = gone

    # parts

    def _refuse_others(self, path: Path) -> None:
        """Raise StorageError where views of a new session would be written over what stands in its folder."""
        if is_legacy(path):
            raise NotAdoptedError(path)
        for name in VIEWS:
            if os.path.lexists(path / name):
                raise StorageError(
                    f"{path / name} stands there without the log of its session, and would be overwritten. Put {LOG} "
                    f"back from a copy, or move the folder away."
                )

    def _entry(self, sid: int | None) -> Entry:
        if sid is None:
            self._job.shared = self._job.shared or Entry()
            return self._job.shared
        log = self._of[sid]
        there = self._job.own.get(log.known.name)
        if there is None:
            there = self._job.own[log.known.name] = (log, Entry())
        return there[1]

    def _opened(self, there: Known) -> _Open:
        log = self._logs[there.name] = _Open(there, end=there.end)
        if there.sid is not None:
            self._of[there.sid] = log
        return log

    def _shared_log(self, db: Db) -> _Open:
        log = self._logs.get(SHARED)
        if log is None:
            there = self._replaying.up_to_date(db, SHARED)
            if there is not None and there.fault is not None:
                raise StorageError(there.fault)
            log = self._opened(there or Known(SHARED, None, Place()))
        return log

    def _line(self, db: Db, job: _Job) -> None:
        """Number its lines, and let them wait to be written."""
        shared, spans = job.shared, _spans(job)
        if spans:
            shared = shared or Entry()
            shared.more["spans"] = [
                {"log": name, "sid": log.known.origin, "line": log.end.lines + 1, "text": entry.text(log.end.lines + 1)}
                for name, (log, entry) in job.own.items()
            ]
            self._shared_log(db).known.erase = True
        if shared is not None:
            own = self._shared_log(db)
            self._wait(own, shared)
        for log, entry in job.own.values():
            self._wait(log, entry, alone=spans)
            if entry.retracted:
                log.known.erase, log.known.said = True, None  # its conversation is not what people may read

    def _wait(self, log: _Open, entry: Entry, *, alone: bool = False) -> None:
        first = log.known.end.lines + 1
        number = log.end.lines + 1
        line, log.end = sealed(entry.text(number, first if number > first and not alone else None), log.end)
        if not log.waiting:
            self._waiting.append(log)
        log.waiting.append(line)
        log.entries.append(entry)
        if log.known.said is not None:
            log.known.said += sum(len(text.encode()) + 1 for text in entry.said)

    def _write(self, db: Db) -> None:
        """Write what waits; the store's own log first, since its line is what commits the others'."""
        if len(self._waiting) > 1:
            self._waiting.sort(key=lambda log: log.known.name != SHARED)
        for log in self._waiting:
            there = log.known
            try:
                there.changed = self._folder.append(there.name, b"".join(log.waiting), there.end)
            except OSError as error:
                raise as_ours(File(self._folder.log(there.name)), error) from error
            except StorageError:
                self._replaying.doubt(there.name)
                raise
            keep = known.moved if there.end.lines else known.put
            there.end, log.waiting = log.end, []
            keep(db, there)
        self._waiting = []

    def _remove(self, db: Db, name: str) -> None:
        line = self._shared_log(db).end.lines + 1
        try:
            self._folder.remove(name, line)
        except OSError as error:
            raise as_ours(File(self._folder.of(name)), error) from error
        known.drop(db, name)


def _spans(job: _Job) -> bool:
    """Whether it concerns several logs."""
    return len(job.own) + (job.shared is not None) > 1


def _names(job: _Job) -> list[str]:
    shared = [SHARED] if job.shared is not None or _spans(job) else []
    return [*shared, *job.own, *([job.deleted] if job.deleted is not None else [])]
