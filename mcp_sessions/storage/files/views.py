"""What people read: views of each session beside its log. Nothing is ever read back from them.

conversation.jsonl        a message a line, with each commit
metadata.json, data.json, invocations.json, invocations/<id> -> HISTORY_DIR/<time>_<tool>_<id>/record.json
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
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from ..._json import decode, encode
from ..._os import FileLock, file_name, make_directory, write_at
from ...errors import StorageBusyError, StorageError
from ...models import Invocation
from ..sqlite.driver import Db
from ..sqlite.readers import Readers
from ..sqlite.rows import RECORD, message_of, metadata_of_row, record_of
from ..sqlite.writer import Writer
from ..sqlite.writing import SQL
from . import known
from .folder import CONVERSATION, Folder
from .known import Known
from .lines import Entry

QUIET_S = 1.0
MOST_S = 10.0
AT_ONCE = 64
"""Sessions that are brought up to date before it is asked again which are to be."""
CLOSING_S = 2.0
"""How long what was behind already may keep somebody who closes the store; the rest is for the next opening."""
PATIENCE_S = 5.0
"""How long is waited for another process that writes views."""
SHOWN = 1000
"""Calls that invocations.json tells of, the newest; the folder beside it has all."""
MOST_CHARS = 255
"""Of a name, as most file systems take it."""
_log = logging.getLogger(__name__)


@dataclass
class _Behind:
    """What the views of a session do not tell yet."""

    since: float
    last: float
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
            behind = self._of(there.name)
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
                    for name in links(gone).values():
                        shutil.rmtree(self._history / name, ignore_errors=True)
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

    def _of(self, name: str) -> _Behind:
        now = time.monotonic()
        behind = self._behind.get(name)
        if behind is None:
            behind = self._behind[name] = _Behind(now, now)
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
        if time.monotonic() < self._closing:
            yield from self._behind

    def _due(self) -> float:
        return min(map(_due, self._behind.values()), default=MOST_S)

    def _due_in(self) -> float | None:
        # What comes meanwhile tells nobody, and is not due before.
        return min(max(self._due(), 0.01), QUIET_S) if self._behind else None

    def _bring(self, name: str, behind: _Behind, *, last: bool) -> None:
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

    # one session

    def _view(self, name: str, behind: _Behind) -> None:
        with self._readers.one(snapshot=True) as db:
            there = known.get(db, name)
            row = None if there is None else db.execute(SQL["head_by_sid"], (there.sid,)).fetchone()
            if there is None or row is None:
                return  # it was deleted meanwhile
            head = metadata_of_row(row)
            data = {key: decode(text) for key, _, text in db.execute(SQL["visible_keys"], (there.sid,))}
            shown = _calls(db, there.sid, SHOWN)
            calls = _calls(db, there.sid) if behind.whole else _some_calls(db, behind.calls)
        folder = self._folder.of(name)
        if behind.conversation or (behind.whole and _size(folder / CONVERSATION) != there.said):
            self._say_anew(name)
        for call in calls:
            self._tell(folder, call)
        if head.total_invocations or shown:
            _put(folder / "invocations.json", [_brief(call) for call in shown])
        _put(folder / "data.json", data)
        _put(folder / "metadata.json", head.to_dict())
        self._writer.run(lambda db: known.viewed(db, there))

    def _tell(self, folder: Path, call: Invocation) -> None:
        """The record of a call, and a link to it."""
        stamp = call.started_at.strftime("%Y%m%d_%H%M%S")
        name = file_name(call.invocation_id)
        tool = file_name(call.tool_name)[: min(64, MOST_CHARS - len(f"{stamp}__{name}"))]
        link = folder / "invocations" / name
        told = links(folder).get(name) if os.path.lexists(link) else None
        if told is not None:
            place = self._history / told  # also where a later attempt began at another time
        else:
            place = self._free(f"{stamp}_{tool}_{name}", call.session_id)
            # The link comes first, and in a folder that is there: what is told is found again when it is to go.
            link.parent.mkdir(mode=0o700, exist_ok=True)
            target = os.path.relpath(place, link.parent)
            try:
                os.symlink(target, link)
            except (OSError, NotImplementedError, AttributeError):  # Windows asks for a privilege
                link.write_text(f"{target}\n", encoding="utf-8")
        if not place.is_dir():
            make_directory(place)
        _put(place / "record.json", call.to_dict())

    def _free(self, name: str, session_id: str | None) -> Path:
        """The folder of a call, which it shares with none of another session whose caller chose the same id."""
        place, number = self._history / name, 1
        while _session_of(place) not in (None, session_id):
            number += 1
            place = self._history / f"{name}-{number}"
        return place

    def _say_anew(self, name: str) -> None:
        """Write the conversation anew, as after a retraction; nobody says anything meanwhile."""
        folder = self._folder.of(name)
        new = folder / f"{CONVERSATION}.new"

        def say(db: Db) -> None:
            there = known.get(db, name)
            if there is None or there.sid is None:
                return
            with open(new, "wb") as file:
                file.writelines(
                    encode(message_of(row).to_dict()).encode() + b"\n"
                    for row in db.execute(SQL["all_messages"], (there.sid,))
                )
                there.said = file.tell()
            os.replace(new, folder / CONVERSATION)
            known.put(db, there)
            self._anew()

        self._writer.run(say)


def _due(behind: _Behind) -> float:
    """Seconds until it is to be written."""
    at_once = behind.now or behind.whole
    due = 0.0 if at_once else min(behind.last + QUIET_S, behind.since + MOST_S)
    return max(due, behind.not_before) - time.monotonic()


def _calls(db: Db, sid: int | None, limit: int = -1) -> list[Invocation]:
    """The newest calls of work first."""
    sql = f"SELECT {RECORD} FROM records r JOIN sessions s USING (sid) WHERE r.sid = ? AND r.kind = 'work'"
    return [record_of(row) for row in db.execute(f"{sql} ORDER BY r.id DESC LIMIT ?", (sid, limit))]


def _some_calls(db: Db, ids: Iterable[int]) -> list[Invocation]:
    sql = f"SELECT {RECORD} FROM records r JOIN sessions s USING (sid) WHERE r.id = ?"
    rows = [db.execute(sql, (id_,)).fetchone() for id_ in sorted(ids)]
    return [record_of(row) for row in rows if row is not None]


def _brief(call: Invocation) -> dict[str, Any]:
    names = ("invocation_id", "tool_name", "status", "started_at", "duration_ms", "model", "cost")
    return {name: value for name, value in call.to_dict().items() if name in names}


def _put(path: Path, value: Any) -> None:
    """Write a view in one step, unless it is there already."""
    data = to_json(value, indent=2) + b"\n"
    with suppress(OSError):
        if path.read_bytes() == data:
            return
    new = path.with_name(path.name + ".new")
    new.write_bytes(data)
    os.replace(new, path)


def _session_of(place: Path) -> str | None:
    with suppress(OSError, ValueError):
        return decode((place / "record.json").read_bytes()).get("session_id")
    return None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def links(folder: Path) -> dict[str, str]:
    """The calls of a session's folder: the name of each, and of its folder in the history."""
    found: dict[str, str] = {}
    with suppress(OSError):
        for entry in os.scandir(folder / "invocations"):
            with suppress(OSError, ValueError):
                target = os.readlink(entry) if entry.is_symlink() else Path(entry).read_text(encoding="utf-8").strip()
                name = Path(target).name
                if name not in ("", ".."):  # which are no folder of a call's own
                    found[entry.name] = name
    return found
