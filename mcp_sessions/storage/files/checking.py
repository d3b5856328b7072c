"""What is not in order in the folder, beside the index: logs, their ends, and what belongs to no session."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal

from ...errors import InvalidArgumentError, StorageError
from ...models import Finding
from ..restoring import checked
from ..sqlite.driver import Db
from ..sqlite.rows import HeadRow
from ..sqlite.writing import SQL
from . import known
from .folder import SHARED, Folder, name_of_deleted
from .known import Known
from .legacy import has_lost_its_log, is_legacy, read_legacy
from .lines import Place, read
from .replaying import REPAIR
from .shown import RECORD_FILE, places

KEEPS = f"{REPAIR} keeps what stands before that line, and moves the rest to a file beside it"
LOST_LOG = "put log.jsonl back from a copy, or move the folder away"
STALE = "views that do not tell what their log does"
NAMED = 5
"""How many of one kind are named."""


def check(db: Db, folder: Folder, history: Path, faults: Iterable[Finding]) -> list[Finding]:
    """What is not as it must be, the faults of logs among it."""
    logs = [there for name, *_ in known.every(db) if (there := known.get(db, name)) is not None]
    found = list(faults)
    if not found:
        counts = f"{len(logs):,} with {sum(there.end.lines for there in logs):,} lines"
        found.append(Finding(level="ok", what="logs", detail=f"{counts}, as they were written"))
    entries = [entry for entry in os.scandir(folder.path) if entry.name[0] != "."]
    aside = (path for there in logs for path in folder.of(there.name).glob("log.*-*"))
    look = "look for what you miss in them, then remove them"
    found += _named("warning", "ends of logs that were moved away", map(str, aside), look)
    here = {there.name for there in logs}
    others = [entry for entry in entries if entry.name not in here]
    linked = (entry.path for entry in others if entry.is_symlink())
    found += _named("fault", "in the place of a session is a link", linked, "remove it; what it leads to is not used")
    folders = [Path(entry.path) for entry in others if entry.is_dir(follow_symlinks=False)]
    lost = {path for path in folders if has_lost_its_log(path)}
    found += _named("fault", "sessions without their log", map(str, lost), LOST_LOG)
    old = {path for path in folders if is_legacy(path)}
    found += map(_not_adopted, sorted(old))
    strange = (str(path) for path in folders if path not in lost | old)
    found += _named("warning", "folders that are no session", strange, "move them away, if they do not belong there")
    orphans = _orphans(folder, history)
    found += _named("warning", "told of calls of no session", orphans, "remove them, if no session is to be put back")
    return found


def told_otherwise(views: Mapping[str, Path]) -> Iterator[Finding]:
    """What is said of views that do not tell what their log does."""
    anew = f"{REPAIR} writes them anew; what was changed in them by hand is lost"
    return _named("warning", STALE, map(str, views.values()), anew)


def _not_adopted(path: Path) -> Finding:
    what = "a session of the old layout"
    try:
        checked(read_legacy(path))
    except (StorageError, InvalidArgumentError) as error:
        detail = f"{path} is left as it is: {error}"
        return Finding(level="warning", what=what, detail=detail, next="mend it; the next opening takes it over")
    again = "open the store again, which takes it over if no session has its id"
    return Finding(level="warning", what=what, detail=str(path), next=again)


def _named(level: Literal["warning", "fault"], what: str, names: Iterable[str], advice: str) -> Iterator[Finding]:
    all_names = sorted(names)
    if all_names:
        more = ", …" if len(all_names) > NAMED else ""
        detail = f"{len(all_names):,}: {', '.join(all_names[:NAMED])}{more}"
        yield Finding(level=level, what=what, detail=detail, next=advice)


def fault_of(db: Db, folder: Folder, name: str) -> Finding | None:
    """Where a log cannot be read whole, or is not what the index knows of it, as one that is written anew just now."""
    there = known.get(db, name)
    if there is None:
        return None
    log = folder.log(there.name)
    if there.fault is not None:
        return _fault(there.fault, KEEPS if REPAIR in there.fault else "python -m pip install --upgrade mcp-sessions")
    try:
        end, numbers = _read_again(log, there.end)
    except OSError as error:
        return _fault(f"{log}: {error}", "see to what it says, then run doctor again")
    if end != there.end:
        return _fault(f"{log}: line {end.lines + 1} is not as it was written", KEEPS)
    if there.name != SHARED and _numbers(db, there) != numbers:
        return _fault(f"{log}: the index does not tell what stands there", f"{REPAIR} brings it into the index again")
    return None


def _fault(detail: str, advice: str) -> Finding:
    return Finding(level="fault", what="a log that is not in order", detail=detail, next=advice)


def _read_again(log: Path, until: Place) -> tuple[Place, tuple[int, int]]:
    """Up to where a log is in order, and the revision and last_seq there; what was written since is passed over."""
    end, revision, last_seq = Place(), 0, 0
    with log.open("rb") as file:
        for line in read(file, Place()):
            if line.end.size > until.size:
                break
            end = line.end
            for head in (line.entry.get("session", {}), line.entry.get("head", {})):
                revision, last_seq = head.get("revision", revision), head.get("last_seq", last_seq)
    return end, (revision, last_seq)


def _numbers(db: Db, there: Known) -> tuple[int, int] | None:
    """The revision and last_seq of a session, as the index has them."""
    row = db.execute(SQL["head_by_sid"], (there.sid,)).fetchone()
    head = None if row is None else HeadRow(row)
    return None if head is None else (head["revision"], head["last_seq"])


def _orphans(folder: Folder, history: Path) -> list[str]:
    # Others write meanwhile: what is told is linked before it is there, and gone before its link is.
    told = list(history.iterdir()) if history.is_dir() else []
    sessions = [path for path in folder.path.iterdir() if path.name[0] != "."]
    linked = {place for path in sessions for place in places(path, history)}
    for path in folder.deleted():
        linked.update(places(path, history, folder.of(name_of_deleted(path))))
    return [str(path) for path in told if path not in linked and (path / RECORD_FILE).exists()]
