"""What people read: views of each session beside its log. Nothing is ever read back from them.

conversation.jsonl        a message a line, with each commit
metadata.json, data.json, invocations.json, invocations/<id> -> HISTORY_DIR/<time>_<tool>_<id>, where record.json is, or
the directory that was given with the call; then another link beside it leads to the record
after a second of quiet, at most every ten, and at once when a session ends or the store
is closed
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice, takewhile
from pathlib import Path

from ..._json import encode
from ..._os import FileLock, file_name, make_directory, write_at
from ...errors import StorageBusyError, StorageError
from ...models import Invocation
from ..sqlite.driver import Db
from ..sqlite.readers import Readers
from ..sqlite.rows import message_of, metadata_of_row
from ..sqlite.writer import Writer
from ..sqlite.writing import SQL
from . import known
from .folder import CONVERSATION, Folder, name_of_deleted
from .known import Known
from .lines import Entry
from .shown import (
    BESIDE,
    MOST_CHARS,
    RECORD_FILE,
    Shown,
    calls,
    differs,
    link_of,
    mark,
    not_given,
    place_of,
    places,
    pretty,
    shown,
    size,
    some_calls,
    strange,
    told_at,
    told_of,
    untell,
)

QUIET_S = 1.0
MOST_S = 10.0
AT_ONCE = 64
"""Sessions that are brought up to date before it is asked again which are to be."""
CLOSING_S = 2.0
"""How long what was behind already may keep somebody who closes the store, also in the middle of a session; the rest is
for the next opening."""
PATIENCE_S = 5.0
"""How long is waited for another process that writes views."""
_log = logging.getLogger(__name__)


@dataclass
class _Behind:
    """What the views of a session do not tell yet."""

    since: float
    last: float
    lines: tuple[int, int] | None = None
    """The lines of its log that brought this: from behind one up to another; None where others lie between."""
    calls: set[int] = field(default_factory=set[int])
    """The rows of calls that were recorded."""
    whole: bool = False
    """Everything is looked at: nobody knows what is missing."""
    conversation: bool = False
    now: bool = False
    own: bool = False
    """This process wrote the session."""
    not_before: float = 0.0
    """When it is tried again, where it could not be written."""


class Views:
    """The views of one folder, kept up by a thread of each process for what that process wrote."""

    def __init__(
        self, folder: Folder, history_dir: Path, writer: Writer, readers: Readers, anew: Callable[[], None]
    ) -> None:
        self._folder = folder
        self._history = history_dir
        self._writer = writer
        self._readers = readers
        self._anew = anew
        """To be called where what is known of a log changes while its size does not."""
        self._lock = FileLock(folder.index / "views")
        self._behind: dict[str, _Behind] = {}
        self._wake = threading.Condition()
        self._one = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closing: float | None = None

    def seen(self, there: Known, entries: list[Entry]) -> None:
        """A session was written: its conversation follows at once, the rest soon."""
        retracted = any(entry.retracted for entry in entries)
        whole = not retracted and self._said(there, [text for entry in entries for text in entry.said])
        with self._wake:
            idle = not self._behind
            before = there.end.lines - len(entries)
            behind = self._of(there.name, (before, before))
            follows = behind.lines is not None and behind.lines[1] == before
            behind.lines = (behind.lines[0], there.end.lines) if behind.lines is not None and follows else None
            for entry in entries:
                behind.calls.update(entry.calls)
                behind.now = behind.now or "ended_at" in entry.head
            behind.conversation = behind.conversation or not whole
            behind.own = True
            if idle or behind.now:  # else the thread wakes up by itself
                self._start()
                self._wake.notify()

    def repair(self, names: Iterable[str]) -> None:
        """These are behind, and nobody knows how far."""
        with self._wake:
            for name in names:
                self._of(name).whole = True
            if self._behind:
                self._start()

    def behind(self, db: Db) -> list[str]:
        """The sessions whose views do not tell all, or were written by somebody else as far as a look at one tells."""
        return [name for name, whole, told in known.views(db) if not whole or mark(self._folder, name) != told]

    def stale(self) -> dict[str, Path]:
        """Of each session whose views do not tell what its log does, one that does not. Reads all there is."""
        found: dict[str, Path] = {}
        with self._readers.one() as db:
            names = [name for name, *_ in known.views(db)]
        for name in names:
            with self._readers.one(snapshot=True) as db:
                wrong = differs(db, self._folder, self._history, name)
            if wrong is not None:  # or somebody is writing, which nobody does here
                wrong = self._writer.run(lambda db, name=name: differs(db, self._folder, self._history, name))
            if wrong is not None:
                found[name] = wrong
        return found

    def written_anew(self, names: Iterable[str]) -> list[str]:
        """Write the views of these sessions, whatever stands there; those where that could be done."""
        now = time.monotonic()
        return [name for name in names if self._bring(name, _Behind(now, now, whole=True, conversation=True))]

    def sweep(self) -> None:
        """Remove what was deleted, and what is told of its calls."""
        with self._one:
            try:
                if not self._lock.acquire(PATIENCE_S):
                    return  # whoever opens the store next does it
            except OSError as error:
                _log.warning("What was deleted from %s still lies there, out of sight: %s", self._folder.path, error)
                return
            try:
                for gone in self._writer.run(lambda _: self._folder.deleted()):  # where none is being taken back
                    name = name_of_deleted(gone)
                    for place in places(gone, self._history, self._folder.of(name)):
                        untell(place, name)
                    shutil.rmtree(gone, ignore_errors=True)
            finally:
                self._lock.release()

    def close(self) -> None:
        """Bring all up to date, and end."""
        with self._wake:
            self._closing = time.monotonic() + CLOSING_S
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()
        self._lock.close()

    def _of(self, name: str, lines: tuple[int, int] | None = None) -> _Behind:
        now = time.monotonic()
        behind = self._behind.get(name)
        if behind is None:
            behind = self._behind[name] = _Behind(now, now, lines)
        behind.last = now
        return behind

    def _said(self, there: Known, said: list[str]) -> bool:
        """Whether the conversation has these messages too now."""
        if not said:
            return True
        data = "".join(f"{text}\n" for text in said).encode()
        try:
            fd = os.open(self._folder.conversation(there.name), os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                start = -1 if there.said is None else there.said - len(data)
                if os.fstat(fd).st_size != start:
                    return False
                write_at(fd, data, start)
                return True
            finally:
                os.close(fd)
        except OSError:
            return False

    # the thread

    def _start(self) -> None:
        if self._thread is None and self._closing is None:
            thread = threading.Thread(target=self._serve, name="mcp-sessions-views", daemon=True)
            with suppress(RuntimeError):  # the interpreter is ending: the next opening brings them up to date
                thread.start()
                self._thread = thread

    def _serve(self) -> None:
        while True:
            with self._wake:
                while self._closing is None and self._due() > 0:
                    self._wake.wait(self._due_in())
                closing = self._closing is not None
                names = list(islice(self._next(), 1 if closing else AT_ONCE))
                work = [(name, self._behind.pop(name)) for name in names]
            for name, behind in work:
                self._bring(name, behind, last=closing)
            if closing and not work:
                return  # what was behind before is left to the next opening

    def _next(self) -> Iterator[str]:
        """What is to be written now; at the end what this process wrote, and of the rest what there is time for."""
        if self._closing is None:
            yield from (name for name, behind in self._behind.items() if _due(behind) <= 0)
            return
        yield from (name for name, behind in self._behind.items() if behind.own)
        if not self._late():
            yield from self._behind

    def _late(self) -> bool:
        return self._closing is not None and time.monotonic() >= self._closing

    def _due(self) -> float:
        return min(map(_due, self._behind.values()), default=MOST_S)

    def _due_in(self) -> float | None:
        # What comes meanwhile tells nobody, and is not due before.
        return min(max(self._due(), 0.01), QUIET_S) if self._behind else None

    def _bring(self, name: str, behind: _Behind, *, last: bool = False) -> bool:
        """Whether it is done; where not, it is tried again later, but for a `last` time."""
        try:
            with self._one:
                end = self._closing  # which all that is written at the end has together
                patience_s = PATIENCE_S if end is None else min(max(end - time.monotonic(), 0.0), PATIENCE_S)
                done = self._lock.acquire(patience_s)
                if done:
                    try:
                        self._view(name, behind)
                    finally:
                        self._lock.release()
        except StorageBusyError:
            done = False
            with self._wake:  # nobody who closes the store waits for that again and again
                self._behind = {} if last else self._behind
        except (OSError, StorageError) as error:
            done = not self._folder.of(name).is_dir()  # then somebody removed it meanwhile
            if not done:
                _log.warning("What people read of %s is behind: %s", self._folder.of(name), error)
        if not done and not last:
            with self._wake:
                behind = self._of(name)
                behind.whole, behind.not_before = True, time.monotonic() + MOST_S
        return done

    # one session

    def _view(self, name: str, behind: _Behind) -> None:
        with self._readers.one(snapshot=True) as db:
            view = shown(db, self._folder, name)
            if view is None:
                return  # it was deleted meanwhile
            there = view.there
            told = list(some_calls(db, there.sid, behind.calls))
            every = list(takewhile(lambda _: not self._late(), calls(db, there.sid))) if behind.whole else []
        folder = self._folder.of(name)
        if behind.conversation or (behind.whole and size(folder / CONVERSATION) != there.said):
            self._say_anew(name)
        self._give(folder, view.given)
        for call in told:
            self._tell(folder, call, view.given)
        whole = not behind.whole or self._told_every(folder, every, view)
        for file, data in view.files.items():
            _put(folder / file, data)
        if not whole:
            return
        lines = (0, there.end.lines) if behind.whole else behind.lines
        if not self._writer.run(lambda db: known.viewed(db, there, lines, mark(self._folder, name))):
            self.repair([name])  # it was deleted and made again meanwhile, and is told of the one before

    def _told_every(self, folder: Path, every: list[Invocation], view: Shown) -> bool:
        """Tell all calls of a session, and of no others; whether there was time for it."""
        for call in every:
            if self._late():
                break
            self._tell(folder, call, view.given)
        if self._late():
            return False
        names = {link_of(folder, call, self._history, view.given).name for call in every}
        for link in strange(folder, self._history, view.head.session_id, names):
            place = place_of(link, self._history)
            if place is not None:
                untell(place, folder.name)
            link.unlink()
        return True

    def _give(self, folder: Path, given: dict[str, str]) -> None:
        """Links to the directories that were given with calls; one to the record makes room."""
        for link in list(not_given(folder, self._history, given)):
            link.parent.mkdir(mode=0o700, exist_ok=True)
            if os.path.lexists(link):
                os.replace(link, link.with_name(link.name + BESIDE))
            _link(link, given[link.name])

    def _tell(self, folder: Path, call: Invocation, given: dict[str, str]) -> None:
        """The record of a call, and a link to it."""
        link = link_of(folder, call, self._history, given)
        place = told_at(link, call, self._history)  # also where a later attempt began at another time
        if place is None:
            stamp = call.started_at.strftime("%Y%m%d_%H%M%S")
            name = file_name(call.invocation_id)
            tool = file_name(call.tool_name)[: min(64, MOST_CHARS - len(f"{stamp}__{name}"))]
            place = self._free(f"{stamp}_{tool}_{name}", call)
            # The link comes first, and in a folder that is there: what is told is found again when it is to go.
            link.parent.mkdir(mode=0o700, exist_ok=True)
            link.unlink(missing_ok=True)
            _link(link, os.path.relpath(place, link.parent))
        if not place.is_dir():
            make_directory(place)
        _put(place / RECORD_FILE, pretty(call.to_dict()))

    def _free(self, name: str, call: Invocation) -> Path:
        """The folder of a call, which it shares with none of another session whose caller chose the same id."""
        place, number = self._history / name, 1
        while told_of(place) not in (None, (call.session_id, call.invocation_id)):
            number += 1
            place = self._history / f"{name}-{number}"
        return place

    def _say_anew(self, name: str) -> None:
        """Write the conversation anew, as after a retraction; only what is said meanwhile keeps others waiting."""
        place = self._folder.of(name) / CONVERSATION
        new = place.with_name(f"{CONVERSATION}.new")
        with self._readers.one(snapshot=True) as db:
            view = shown(db, self._folder, name)
            if view is None:
                return
            with open(new, "wb") as file:
                file.writelines(_said_after(db, view.there, 0))

        def put(db: Db) -> None:
            there, now = known.get(db, name), db.execute(SQL["head_by_sid"], (view.there.sid,)).fetchone()
            if there is None or now is None:
                return
            more = list(_said_after(db, there, view.head.last_seq))
            if metadata_of_row(now).message_count != view.head.message_count + len(more):
                return  # more was retracted meanwhile, and it is to be written anew again
            with open(new, "ab") as file:
                file.writelines(more)
                there.said = file.tell()
            os.replace(new, place)
            known.put(db, there)
            self._anew()

        try:
            self._writer.run(put)
        finally:
            new.unlink(missing_ok=True)


def _said_after(db: Db, there: Known, seq: int) -> Iterator[bytes]:
    """The messages of a session behind one, as lines."""
    for row in db.execute(SQL["messages_after"], (there.sid, seq)):
        yield encode(message_of(row).to_dict()).encode() + b"\n"


def _due(behind: _Behind) -> float:
    """Seconds until it is to be written."""
    at_once = behind.now or behind.whole
    due = 0.0 if at_once else min(behind.last + QUIET_S, behind.since + MOST_S)
    return max(due, behind.not_before) - time.monotonic()


def _link(link: Path, target: str) -> None:
    try:
        os.symlink(target, link)
    except (OSError, NotImplementedError, AttributeError):  # Windows asks for a privilege
        link.write_text(f"{target}\n", encoding="utf-8")


def _put(path: Path, data: bytes) -> None:
    """Write a view in one step, unless it is there already."""
    with suppress(OSError):
        if path.read_bytes() == data:
            return
    new = path.with_name(path.name + ".new")
    new.write_bytes(data)
    os.replace(new, path)
