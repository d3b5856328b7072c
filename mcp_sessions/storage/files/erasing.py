"""Logs without what was retracted: each is written anew beside its place while others go on, and put there under the
gate with what came meanwhile.

A log waits a second, and one more for each MiB that it has, so that a long one is not written anew for each
retraction; never more than a minute, and no longer than until the store is closed. What a process that is killed
leaves is for the next opening.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from ..._json import encode
from ..._os import FileLock, sync_file
from ...errors import StorageError
from ..sqlite.driver import Db
from ..sqlite.readers import Readers
from ..sqlite.writer import Writer
from ..sqlite.writing import SQL
from . import known
from .folder import LOG, Folder
from .known import Known
from .ledger import FileLedger
from .lines import TAIL, Line, Place, read, sealed
from .replaying import Replaying

LEAST_S = 1.0
MOST_S = 60.0
BYTES_PER_S = 1 << 20
"""Of a log, for each of which it waits a second more."""
_log = logging.getLogger(__name__)


@dataclass
class _Copy:
    """A log that is written anew."""

    of: Known
    path: Path
    gone: set[int]
    """The seq of each message that is to be erased."""
    read_to: Place = field(default_factory=Place)
    end: Place = field(default_factory=Place)
    again: bool = False
    """More was retracted since it was asked what is to be erased."""


class Erasing:
    """What is to be erased from the logs of one folder, by a thread that lives while there is something."""

    def __init__(
        self, folder: Folder, replaying: Replaying, ledger: FileLedger, writer: Writer, readers: Readers
    ) -> None:
        self._folder = folder
        self._replaying = replaying
        self._ledger = ledger
        self._writer = writer
        self._readers = readers
        self._lock = FileLock(folder.index / "erasing")
        """Whoever has it writes logs anew; the others leave it to that process."""
        self._due: dict[str, float] = {}
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = self._hurried = False

    def wanted(self, logs: Iterable[tuple[str, int]]) -> None:
        """Something in these logs, of which the size is told, is to be erased in time."""
        for name, size in logs:
            self._wait(name, min(LEAST_S + size / BYTES_PER_S, MOST_S))

    def give_up(self) -> None:
        """Leave to the next opening what is not done yet."""
        self._hurried = True

    def close(self) -> None:
        """Erase all that waits for it, and end."""
        with self._wake:
            self._closing = True
            thread = self._thread
            self._wake.notify()
        if thread is not None:
            thread.join()
        self._lock.close()

    # the thread

    def _wait(self, name: str, wait_s: float) -> None:
        with self._wake:
            if self._closing:
                return
            self._due.setdefault(name, time.monotonic() + wait_s)
            if self._thread is None:
                thread = threading.Thread(target=self._serve, name="mcp-sessions-erasing", daemon=True)
                with suppress(RuntimeError):  # the interpreter is ending: it is for the next opening
                    thread.start()
                    self._thread = thread
            self._wake.notify()

    def _serve(self) -> None:
        while (name := self._next()) is not None:
            try:
                if self._lock.try_acquire():
                    try:
                        self._erase(name)
                    finally:
                        self._lock.release()
                else:
                    self._wait(name, LEAST_S)
            except (OSError, StorageError) as error:
                if self._folder.of(name).is_dir():  # else somebody removed it meanwhile
                    _log.warning("What was retracted still stands in %s: %s", self._folder.log(name), error)
                    self._wait(name, MOST_S)

    def _next(self) -> str | None:
        """The log whose turn it is, once it is; None where there is none."""
        with self._wake:
            while self._due and not self._hurried:
                name, due = min(self._due.items(), key=lambda item: item[1])
                wait_s = due - time.monotonic()
                if wait_s <= 0 or self._closing:
                    del self._due[name]
                    return name
                self._wake.wait(wait_s)
            self._thread = None
            return None

    def _erase(self, name: str) -> None:
        with self._readers.one(snapshot=True) as db:
            there = known.get(db, name)
            if there is None or there.fault is not None or not there.erase:
                return
            gone = {row[0] for row in db.execute(SQL["all_retracted"], (there.sid,))}
        copy = _Copy(there, self._folder.of(name) / f"{LOG}.new", gone)
        try:
            with open(copy.path, "wb") as file:
                self._go_on(copy, file)
                file.flush()
                sync_file(file.fileno())
            self._writer.run(lambda db: self._put(db, copy))
            self._writer.truncate_log_later()
        finally:
            copy.path.unlink(missing_ok=True)

    def _go_on(self, copy: _Copy, file: BinaryIO) -> None:
        """Write what the log has behind what the copy has."""
        with open(self._folder.log(copy.of.name), "rb") as log:
            for line in read(log, copy.read_to):
                if self._hurried:
                    return
                copy.read_to = line.end
                copy.again = copy.again or (line.end.lines > copy.of.end.lines and "retracted" in line.entry)
                data, copy.end = sealed(_without(line, copy.gone), copy.end)
                file.write(data)

    def _put(self, db: Db, copy: _Copy) -> None:
        name, copy = copy.of.name, replace(copy)
        there = None if self._replaying.up_to_date(db, name) is None else known.get(db, name)
        # Where a batch begins again, the copy may have been put there already.
        if self._hurried or there is None or there.fault is not None or not copy.path.exists():
            return
        with open(copy.path, "r+b") as file:
            file.seek(copy.end.size)
            self._go_on(copy, file)
        if copy.read_to != there.end:  # it was damaged since: what stands behind is not thrown away with the rest
            self._replaying.doubt(name)
            self._replaying.up_to_date(db, name)
            return
        there.changed = self._folder.replace(name, copy.path)
        there.end, there.erase = copy.end, copy.again
        known.moved(db, there)
        self._ledger.written_anew(there)


def _without(line: Line, gone: set[int]) -> str:
    """The text of a line, but for its end, with retracted messages and brought spans taken out."""
    entry = line.entry
    if not ("spans" in entry or any(said["seq"] in gone for said in entry.get("messages", ()))):
        return line.raw[:-TAIL].decode()
    entry = {name: value for name, value in entry.items() if name not in ("sum", "spans")}
    if "messages" in entry:
        entry["messages"] = [
            {"seq": said["seq"], "message_id": said["message_id"], "erased": True} if said["seq"] in gone else said
            for said in entry["messages"]
        ]
    return encode(entry)[:-1]
