"""What the views of a session must tell, and where they do not."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from ..._json import decode
from ..._os import file_name
from ...models import Invocation, SessionMetadata
from ..sqlite.driver import Db
from ..sqlite.rows import RECORD, message_of, metadata_of_row, record_of
from ..sqlite.writing import SQL
from ..whole import INVOCATION_DIR
from . import known
from .folder import CONVERSATION, Folder
from .known import Known

HEAD, DATA, CALLS, LINKS, RECORD_FILE = "metadata.json", "data.json", "invocations.json", "invocations", "record.json"
VIEWS = (CONVERSATION, HEAD, DATA, CALLS)
BESIDE = "+record"
"""Ends the name of a link that stands beside a given one; no name made from an id ends so."""
MOST_CHARS = 255
"""Of a name, as most file systems take it."""
MOST_PATH_BYTES = 1000
"""Of where a link leads."""
SHOWN = 1000
"""Calls that invocations.json tells of, the newest; the folder beside it has all."""
_FROM = f"SELECT {RECORD} FROM records r JOIN sessions s USING (sid)"


@dataclass(frozen=True)
class Shown:
    """What the small views of a session tell, as of one moment."""

    there: Known
    head: SessionMetadata
    files: dict[str, bytes]
    given: dict[str, str]
    """Where links lead that were given with their calls, by name."""


def shown(db: Db, folder: Folder, name: str) -> Shown | None:
    """None where there is no such session, or what its views told may be more than what can be read of its log."""
    there = known.get(db, name)
    row = None if there is None else db.execute(SQL["head_by_sid"], (there.sid,)).fetchone()
    if there is None or there.fault is not None or row is None:
        return None
    head = metadata_of_row(row)
    brief = [_brief(call) for call in calls(db, there.sid, SHOWN)]
    files: dict[str, Any] = {}
    if head.total_invocations or brief or (folder.of(name) / CALLS).exists():
        files[CALLS] = brief
    files[DATA] = {key: decode(text) for key, _, text in db.execute(SQL["visible_keys"], (there.sid,))}
    files[HEAD] = head.to_dict()
    links = db.execute(SQL["live_keys"], (there.sid, INVOCATION_DIR))
    said = ((file_name(key.removeprefix(INVOCATION_DIR)), decode(text)) for key, _, text in links)
    given = {link: directory for link, directory in said if _may_be_linked(link, directory)}
    return Shown(there, head, {file: pretty(value) for file, value in files.items()}, given)


def pretty(value: Any) -> bytes:
    """JSON as people read it."""
    return to_json(value, indent=2) + b"\n"


def calls(db: Db, sid: int | None, limit: int = -1) -> Iterator[Invocation]:
    """The calls of work of a session, the newest first."""
    sql = f"{_FROM} WHERE r.sid = ? AND r.kind = 'work' ORDER BY r.id DESC LIMIT ?"
    return map(record_of, db.execute(sql, (sid, limit)))


def some_calls(db: Db, sid: int | None, ids: Iterable[int]) -> Iterator[Invocation]:
    """The calls of work in these rows; but for those that belong to another session by now, or to none."""
    sql = f"{_FROM} WHERE r.id = ? AND r.sid = ? AND r.kind = 'work'"
    rows = (db.execute(sql, (id_, sid)).fetchone() for id_ in sorted(ids))
    return (record_of(row) for row in rows if row is not None)


def mark(folder: Folder, name: str) -> int:
    """What differs once somebody else has written metadata.json, the last of the small views of a session."""
    try:
        found = os.stat(f"{folder.root}{os.sep}{name}{os.sep}{HEAD}")
    except OSError:
        return 0
    return found.st_mtime_ns + found.st_size


def size(path: Path) -> int:
    """How long a file is; 0 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


# links


def link_of(folder: Path, call: Invocation, history: Path, given: dict[str, str]) -> Path:
    """Where the link of a call stands in a session's folder: beside one that was given and leads elsewhere."""
    link = folder / LINKS / file_name(call.invocation_id)
    if _is_given(link, given) and told_at(link, call, history) is None:
        return link.with_name(link.name + BESIDE)
    return link


def not_given(folder: Path, history: Path, given: dict[str, str]) -> Iterator[Path]:
    """The links to directories that were given with calls, where there are none, or they lead to the record alone."""
    for name, directory in given.items():
        link = folder / LINKS / name
        place = place_of(link, history)
        # Of a tree that was moved the links are right as they are.
        alone = place is not None and place.name != os.path.basename(directory) and not _is_given(link, given)
        if alone or not os.path.lexists(link):
            yield link


def _is_given(link: Path, given: dict[str, str]) -> bool:
    """Whether a link leads to the directory that was given with the call."""
    return link.name in given and os.path.realpath(given[link.name]) == str(_target(link))


def _may_be_linked(link: str, directory: object) -> bool:
    """Whether a link of that name can be made; any value may stand under the key."""
    if not isinstance(directory, str) or "\0" in directory or not os.path.isabs(directory):
        return False
    return len(link + BESIDE) <= MOST_CHARS and len(directory.encode()) <= MOST_PATH_BYTES


def told_at(link: Path, call: Invocation, history: Path) -> Path | None:
    """The folder in the history to which a call's link leads; None where it does not lead to one of this call."""
    place = place_of(link, history)
    if place is None or told_of(place) not in (None, (call.session_id, call.invocation_id)):
        return None
    return place


def place_of(link: Path, history: Path) -> Path | None:
    """The folder in the history to which a link leads; None where it leads elsewhere."""
    return _in_history(_target(link), history)


def _in_history(target: Path | None, history: Path) -> Path | None:
    if target is None or target.parent != Path(os.path.realpath(history)):
        return None
    return history / target.name


def told_of(place: Path) -> tuple[str | None, str | None] | None:
    """Of which session and call a folder of the history tells; None where it tells of none."""
    with suppress(OSError, ValueError, AttributeError):
        record = decode((place / RECORD_FILE).read_bytes())
        return record.get("session_id"), record.get("invocation_id")
    return None


def strange(folder: Path, history: Path, session_id: str, names: set[str]) -> Iterator[Path]:
    """The links that tell of a call which a session with that id has not, and which was another one's before it."""
    with suppress(OSError):
        for entry in os.scandir(folder / LINKS):
            place = None if entry.name in names else place_of(Path(entry), history)
            told = None if place is None else told_of(place)
            if told is None or told[0] != session_id:
                continue
            if entry.name.removesuffix(BESIDE) == file_name(str(told[1])):
                yield Path(entry)


def places(folder: Path, history: Path, at: Path | None = None) -> Iterator[Path]:
    """The folders in the history to which the links of a session's folder lead; or led, while that was `at`."""
    with suppress(OSError):
        for entry in os.scandir(folder / LINKS):
            place = _in_history(_target(Path(entry), (at or folder) / LINKS), history)
            if place is not None:
                yield place


def untell(place: Path, name: str) -> None:
    """Remove what the history tells of a call of the session in a folder of that name; what else stands there stays."""
    told = told_of(place)
    if told is not None and file_name(str(told[0])) != name:
        return
    with suppress(OSError):
        for file in (RECORD_FILE, f"{RECORD_FILE}.new"):
            (place / file).unlink(missing_ok=True)
        place.rmdir()


def _target(link: Path, at: Path | None = None) -> Path | None:
    text = _text(link)
    return None if not text else Path(os.path.realpath((at or link.parent) / text))


def _text(link: Path) -> str | None:
    """What a link says, or the file that stands in its place; None where neither does."""
    with suppress(OSError, ValueError):
        return os.readlink(link) if link.is_symlink() else link.read_text(encoding="utf-8").strip()
    return None


# comparing


def differs(db: Db, folder: Folder, history: Path, name: str) -> Path | None:
    """A view that does not tell what the log of a session does; None too while they are yet to be written.

    Reads all of them, one call or message at a time.
    """
    there = known.get(db, name)
    if there is None or there.viewed != there.end.lines or there.said is None:
        return None
    view = shown(db, folder, name)
    if view is None:
        return None
    place = folder.of(name)
    for file, data in view.files.items():
        if not _has(place / file, data):
            return place / file
    if not _says(db, there, place / CONVERSATION):
        return place / CONVERSATION
    told: set[str] = set()
    otherwise: dict[str, Path] = {}
    for call in calls(db, there.sid):
        link = link_of(place, call, history, view.given)
        of = told_at(link, call, history)
        if of is not None and _has(of / RECORD_FILE, pretty(call.to_dict())):
            told.add(link.name)
        else:
            otherwise[link.name] = link if of is None else of / RECORD_FILE
    # Calls recorded under one id, which no caller chose, share a link: it tells of one of them.
    wrong = (path for name, path in otherwise.items() if name not in told)
    others = strange(place, history, view.head.session_id, {*told, *otherwise})
    return next(chain(not_given(place, history, view.given), wrong, others), None)


def _has(path: Path, data: bytes) -> bool:
    with suppress(OSError):
        return path.read_bytes() == data
    return False


def _says(db: Db, there: Known, path: Path) -> bool:
    """Whether a conversation has the messages of its session, and nothing else."""
    if size(path) != there.said:
        return False
    if not there.said:
        return True
    with suppress(OSError, ValueError), path.open("rb") as lines:
        rows = db.execute(SQL["messages_after"], (there.sid, 0))
        return all(decode(lines.readline()) == message_of(row).to_dict() for row in rows) and not lines.read(1)
    return False


def _brief(call: Invocation) -> dict[str, Any]:
    names = ("invocation_id", "tool_name", "status", "started_at", "duration_ms", "model", "cost")
    return {name: value for name, value in call.to_dict().items() if name in names}
