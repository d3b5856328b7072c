"""From logs to rows: the index is brought up to date with what stands in the files, or made anew from it."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from stat import S_ISREG
from typing import Any, cast

from pydantic import ValidationError

from ..._json import encode
from ...errors import SchemaChangedError, StorageError
from ...models import Limits
from ..sqlite.connecting import File, as_ours
from ..sqlite.driver import Db
from ..sqlite.rewriting import Rewriting
from ..sqlite.rows import metadata_of_row
from ..sqlite.writing import SQL
from . import known
from .folder import SHARED, Folder, name_of
from .known import Known
from .lines import BEGINNING, FORMAT, Line, Place, head_in, intact, message_in, metadata_in, read, record_in, sealed

MOST_KEPT = 256
REPAIR = "mcp-sessions doctor --repair"
_log = logging.getLogger(__name__)
_LATER = re.compile(rb'^\{"line":\d+,(?:"with":(?P<with>\d+),)?.*,"sum":"[0-9a-f]{8}"\}$', re.MULTILINE)
"""A line that looks whole, behind one that is not."""


class Replaying:
    """Inside write transactions of the index alone."""

    def __init__(self, folder: Folder, limits: Limits) -> None:
        self._folder = folder
        self._last: dict[str, Known] = {}
        self._doubted: set[str] = set()
        self._ends: dict[str, tuple[tuple[int, int] | None, int | None, Place]] = {}
        self._told: set[str] = set()
        self._rows = Rewriting(limits)

    def up_to_date(self, db: Db, name: str) -> Known | None:
        """What is known of a log, once all its lines stand in the rows; None where there is no such log."""
        try:
            found = self._folder.stat(name)
        except OSError as error:
            raise as_ours(File(self._folder.log(name)), error) from error
        there = self._last.get(name)
        # The size of a conversation that is written anew is told to the index alone.
        if there is None or there.said is None or (there.end.size, there.changed) != found:
            there = known.get(db, name)
            if there is not None and (there.end.size, there.changed) == found and name not in self._doubted:
                self._keep(there)
            elif there is not None or found is not None:
                return self._replayed(db, name)
        return there

    def _keep(self, there: Known) -> None:
        if len(self._last) >= MOST_KEPT:
            self._last.clear()
        self._last[there.name] = there

    def doubt(self, name: str) -> None:
        """A log is another one, although its size and time do not tell: it is read before it is written to again."""
        self._doubted.add(name)
        self._last.pop(name, None)

    def let_go(self) -> None:
        """What was known is not so: the transaction came to nothing."""
        self._last.clear()

    def catch_up(self, db: Db, names: Iterable[str] | None) -> None:
        """Look at these logs; None: at all. The store's own first, since it may hold lines that others lack."""
        names = set(self.all_names(db) if names is None else names)
        if SHARED in names:
            self._put_back()
        for name in sorted(names, key=lambda name: name != SHARED):
            there = known.get(db, name)
            try:
                if there is None or self._folder.stat(name) != (there.end.size, there.changed):
                    self._replayed(db, name)
            except StorageError as error:
                if name == SHARED:
                    raise
                # The others are none the worse; who writes to this one meets it again.
                _log.warning("Session folder %s is left alone: %s", self._folder.of(name), error)

    def all_names(self, db: Db) -> list[str]:
        """The logs that there are, and those that were."""
        here = [entry.name for entry in os.scandir(self._folder.path) if _may_be_session(entry)]
        return [SHARED, *here, *(row[0] for row in known.every(db))]

    def stale(self, db: Db) -> tuple[list[str], list[Path]]:
        """The logs whose files are not as the index knows them, the store's own first; and the folders without a log
        that the index does not know.
        """
        self._put_back()
        of = {name: (size, changed) for name, size, changed, _ in known.every(db)}
        found: list[str] = []
        without: list[Path] = []
        here = [entry.name for entry in os.scandir(self._folder.path) if _may_be_session(entry)]
        for name in dict.fromkeys([SHARED, *here, *of]):
            try:
                stat = os.lstat(self._folder.log(name))
            except (FileNotFoundError, NotADirectoryError):
                if name in of:
                    found.append(name)
                else:
                    without.append(self._folder.of(name))
                continue
            if S_ISREG(stat.st_mode) and of.get(name) != (stat.st_size, stat.st_mtime_ns):
                found.append(name)
        return found, without

    def _put_back(self) -> None:
        """Undo deletions whose writer died before it wrote the line that commits them."""
        deleted = self._folder.deleted()
        lines = sum(1 for _ in self._lines(SHARED, Place())) if deleted and self._folder.size(SHARED) else 0
        for path in deleted:
            try:
                self._folder.put_back(path, lines)
            except OSError as error:
                raise as_ours(File(path), error) from error

    def mend(self, db: Db, name: str) -> Path | None:
        """Make a log one that can be written again, its rows anew; where what stood behind a damaged line is now."""
        there = self._replayed(db, name)
        if there is None:
            return None
        aside = None
        if there.fault is not None and REPAIR in there.fault and there.end.size < (self._folder.size(name) or 0):
            aside = self._folder.set_aside(name, there.end, "damaged")
        self._clear(db, there)
        known.drop(db, name)
        self._replayed(db, name)
        return aside

    def _replayed(self, db: Db, name: str) -> Known | None:
        self._doubted.discard(name)
        try:
            return self._brought(db, name)
        except OSError as error:
            raise as_ours(File(self._folder.log(name)), error) from error

    def _brought(self, db: Db, name: str) -> Known | None:
        size = None if self._folder.is_link(name) else self._folder.size(name)
        before = there = known.get(db, name)
        if size is None:
            self._forget(db, name)
            return None
        if there is None or not self._intact(there):
            if there is not None:
                self._clear(db, there)
            there = Known(name, None, Place())
        there = replace(there, fault=None, said=None)
        self._play_on(db, there)
        if there.end.size < size and there.fault is None:
            self._stop(there, size, before)
        if there.end == Place() and there.fault is None and name != SHARED:
            self._folder.log(name).unlink()
            self._forget(db, name)
            return None
        if there.fault is not None:
            self._tell(there.fault)
        there.changed = os.stat(self._folder.log(name)).st_mtime_ns
        known.put(db, there)
        return there

    def _intact(self, there: Known) -> bool:
        with open(self._folder.log(there.name), "rb") as file:
            return intact(file, there.end)

    def _lines(self, name: str, start: Place) -> Iterator[Line]:
        with open(self._folder.log(name), "rb") as file:
            yield from read(file, start)

    def _stop(self, there: Known, size: int, before: Known | None) -> None:
        """What stands behind the last good line: a torn end is moved away, and more than that is left as it is, and so
        is a line that was committed. The index knows of no more than was, so what it had `before` proves that.
        """
        cut = before is not None and there.end.lines < before.end.lines
        if before is not None and ((cut and before.end.size <= size) or (before.fault and before.end == there.end)):
            there.fault = self._refusal(there, "is damaged")
            return
        with open(self._folder.log(there.name), "rb") as file:
            file.seek(there.end.size)
            rest = file.read()
        _, _, behind = rest.partition(b"\n")
        for later in _LATER.finditer(behind):
            together = int(later["with"] or 0)
            if not 0 < together <= there.end.lines + 1:  # else it came in one write with the bad one
                there.fault = self._refusal(there, "is damaged")
                return
        if there.end == Place() and _is_foreign(rest[: len(BEGINNING)]):
            raise StorageError(f"{self._folder.log(there.name)} is no log of a session. Move it away.")
        aside = self._folder.set_aside(there.name, there.end, "torn")
        _log.warning(
            "%s ended in the middle of a line%s. Its last %d bytes were moved to %s",
            self._folder.log(there.name),
            ", which had been committed and was cut since" if cut else ", as a power cut leaves it",
            size - there.end.size,
            aside,
        )

    def _refusal(self, there: Known, fact: str) -> str:
        return (
            f"{self._folder.log(there.name)}: line {there.end.lines + 1} {fact}. It is read up to there, and nothing "
            f"is written to it. Restore it from a copy, or run: {REPAIR}"
        )

    def _tell(self, fault: str) -> None:
        """Say once that answers lack what stands in a log behind what can be read."""
        if fault not in self._told:
            self._told.add(fault)
            _log.warning("%s", fault)

    def _forget(self, db: Db, name: str) -> None:
        """A log is gone, and its session with it."""
        there = known.get(db, name)
        if there is not None:
            session_id = _session_id(db, there.sid)
            if session_id is not None:
                self._rows.deleted(db, there.sid, session_id, db.execute(SQL["position"]).fetchone()[0] + 1)
            known.drop(db, name)

    def _clear(self, db: Db, there: Known) -> None:
        """Its rows are made anew."""
        if there.name == SHARED:
            db.execute("DELETE FROM records WHERE sid IS NULL")
        elif (session_id := _session_id(db, there.sid)) is not None:
            self._rows.forget(db, session_id)

    # lines

    def _play_on(self, db: Db, there: Known) -> None:
        """Bring what follows into the rows, up to what is no good line."""
        if there.name == SHARED:
            self._ends.clear()
        for line in self._lines(there.name, there.end):
            try:
                self._play(db, there, line)
            except (ValidationError, ValueError, KeyError, TypeError) as error:
                there.fault = self._refusal(there, f"says what cannot be ({type(error).__name__}: {error})")
                return
            except SchemaChangedError as error:
                there.fault = str(error)
                return
            there.end = line.end

    def _play(self, db: Db, there: Known, line: Line) -> None:
        entry = line.entry
        if entry.get("format", FORMAT) > FORMAT:
            raise SchemaChangedError(
                f"{self._folder.log(there.name)} has format {entry['format']}; this mcp-sessions knows formats up to "
                f"{FORMAT}. Upgrade it."
            )
        if there.name == SHARED:
            self._play_shared(db, line)
            return
        if "session" in entry:
            metadata = metadata_in(entry["session"])
            if name_of(metadata.session_id) != there.name:
                raise ValueError(f"it is of session {metadata.session_id}, whose folder has another name")
            there.sid, there.origin = self._rows.created(db, entry["sid"], metadata), entry["sid"]
        row = db.execute(SQL["head_by_sid"], (there.sid,)).fetchone()
        if there.sid is None or row is None:
            raise ValueError("it belongs to no session")
        self._play_rows(db, there, row[1], entry)
        if "head" in entry:
            self._rows.altered(db, row[1], head_in(entry["head"], metadata_of_row(row)), entry.get("position"))

    def _play_rows(self, db: Db, there: Known, session_id: str, entry: Mapping[str, Any]) -> None:
        sid = there.sid
        assert sid is not None
        for seq, message_id, fingerprint in entry.get("retracted", ()):
            if self._rows.retracted(db, session_id, seq, message_id, fingerprint):
                there.erase = True
        for said in entry.get("messages", ()):
            if "erased" not in said:
                message = message_in(said)
                self._rows.said(db, sid, said.get("slot", 0), message.seq, message, said["given"], said["revision"])
        for key in entry.get("keys", ()):
            text = encode(key["value"]) if "value" in key else None
            self._rows.keyed(db, sid, key["key"], key["version"], text)
        self._play_records(db, sid, entry)

    def _play_records(self, db: Db, sid: int | None, entry: Mapping[str, Any]) -> None:
        for values in entry.get("records", ()):
            numbers = encode(values["numbers"]) if "numbers" in values else None
            self._rows.recorded(db, sid, values.get("slot", 0), record_in(values), values.get("revision"), numbers)

    def _play_shared(self, db: Db, line: Line) -> None:
        entry = line.entry
        self._play_records(db, None, entry)
        for span in entry.get("spans", ()):
            if self._brings(span, line.end):
                self._replayed(db, span["log"])  # which was as it was known until now
        gone = entry.get("deleted")
        if gone is not None:
            name = name_of(gone["session_id"])
            there = known.get(db, name)
            here = there is not None and there.origin == gone["sid"]
            sid = there.sid if there is not None and here else None
            self._rows.deleted(db, sid, gone["session_id"], gone["position"])
            if here:
                known.drop(db, name)
                self._replayed(db, name)  # its folder went before the line was written: one that is here was put back

    def _brings(self, span: Mapping[str, Any], committed: Place) -> bool:
        """Append a line that was committed in the store's own log to a log that lacks it; whether it did."""
        name = cast("str", span["log"])
        sid, end = self._ends_at(name)
        if span["line"] != end.lines + 1 or (end.lines and sid != span["sid"]):
            return False
        if not end.lines and self._deletes(span["sid"], committed):
            return False
        if (self._folder.size(name) or 0) > end.size:
            self._folder.set_aside(name, end, "torn")
        data, _ = sealed(span["text"], end)
        self._folder.append(name, data, end)
        return True

    def _deletes(self, sid: int, start: Place) -> bool:
        """Whether a session is deleted in the store's own log, from a place on."""
        return any(line.entry.get("deleted", {}).get("sid") == sid for line in self._lines(SHARED, start))

    def _ends_at(self, name: str) -> tuple[int | None, Place]:
        """The sid in the first line of a log, and where the last good one ends; read once."""
        found = self._folder.stat(name)
        there = self._ends.get(name)
        if there is None or there[0] != found:
            sid, end = None, Place()
            for line in self._lines(name, Place()) if found is not None else ():
                sid, end = sid if end.lines else line.entry.get("sid"), line.end
            there = self._ends[name] = found, sid, end
        return there[1:]


def _may_be_session(entry: os.DirEntry[str]) -> bool:
    return entry.name[0] != "." and entry.is_dir(follow_symlinks=False)


def _is_foreign(start: bytes) -> bool:
    """Whether no log begins so, whatever a power cut has left of it."""
    return bool(start.strip(b"\0")) and not BEGINNING.startswith(start)


def _session_id(db: Db, sid: int | None) -> str | None:
    row = db.execute(SQL["head_by_sid"], (sid,)).fetchone()
    return None if row is None else row[1]
