"""What is not in order in the folder, beside the index: logs, their ends, and what belongs to no session."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ...models import Finding
from ..sqlite.driver import Db
from ..sqlite.rows import HeadRow
from ..sqlite.writing import SQL
from . import known
from .folder import SHARED, Folder
from .known import Known
from .legacy import has_lost_its_log, is_legacy
from .lines import Place, read
from .shown import links

NOT_IN_ORDER = "a log that is not in order"
STALE = "views that do not tell what their log does"
WITHOUT_LOG = "sessions without their log"
LOST_LOG = "Put log.jsonl back from a copy, or move the folder away."
NAMED = 5
"""How many of one kind are named."""


def check(db: Db, folder: Folder, history: Path) -> list[Finding]:
    """Read every log, and tell what is not as it must be."""
    logs = [there for name, *_ in known.every(db) if (there := known.get(db, name)) is not None]
    faults = [fault for there in logs if (fault := there.fault or differs(db, folder, there)) is not None]
    found = [Finding(level="fault", what=NOT_IN_ORDER, detail=fault) for fault in faults]
    if not faults:
        counts = f"{len(logs):,} with {sum(there.end.lines for there in logs):,} lines"
        found.append(Finding(level="ok", what="logs", detail=f"{counts}, as they were written"))
    entries = [entry for entry in os.scandir(folder.path) if entry.name[0] != "."]
    aside = (path for there in logs for path in folder.of(there.name).glob("log.*-*"))
    found += _named("warning", "ends of logs that were moved away", map(str, aside))
    here = {there.name for there in logs}
    others = [entry for entry in entries if entry.name not in here]
    found += _named("fault", "in the place of a session is a link", (e.path for e in others if e.is_symlink()))
    folders = [Path(entry.path) for entry in others if entry.is_dir(follow_symlinks=False)]
    lost = {path for path in folders if has_lost_its_log(path)}
    found += _named("fault", WITHOUT_LOG, map(str, lost))
    old = {path for path in folders if is_legacy(path)}
    found += _named("warning", "sessions of the old layout", map(str, old))
    found += _named("warning", "folders that are no session", (str(path) for path in folders if path not in lost | old))
    found += _named("warning", "told of calls of no session", _orphans(folder, history))
    return found


def told_otherwise(views: Mapping[str, Path]) -> Iterator[Finding]:
    """What is said of views that do not tell what their log does."""
    return _named("warning", STALE, map(str, views.values()))


def _named(level: str, what: str, names: Iterable[str]) -> Iterator[Finding]:
    all_names = sorted(names)
    if all_names:
        more = ", …" if len(all_names) > NAMED else ""
        detail = f"{len(all_names):,}: {', '.join(all_names[:NAMED])}{more}"
        yield Finding.model_validate({"level": level, "what": what, "detail": detail})


def differs(db: Db, folder: Folder, there: Known) -> str | None:
    """Where a log is not what the index knows of it."""
    end, revision, last_seq = Place(), 0, 0
    try:
        with open(folder.log(there.name), "rb") as file:
            for line in read(file, Place()):
                if line.end.size > there.end.size:
                    break  # written since
                end = line.end
                for head in (line.entry.get("session", {}), line.entry.get("head", {})):
                    revision, last_seq = head.get("revision", revision), head.get("last_seq", last_seq)
    except OSError as error:
        return f"{folder.log(there.name)}: {error}"
    if end != there.end:
        return f"{folder.log(there.name)}: line {end.lines + 1} is not as it was written"
    if there.name == SHARED:
        return None
    row = db.execute(SQL["head_by_sid"], (there.sid,)).fetchone()
    head = None if row is None else HeadRow(row)
    if head is None or (head["revision"], head["last_seq"]) != (revision, last_seq):
        return f"{folder.log(there.name)}: the index does not tell what stands there"
    return None


def _orphans(folder: Folder, history: Path) -> list[str]:
    # Others write meanwhile: what is told is linked before it is there, and gone before its link is.
    told = list(history.iterdir()) if history.is_dir() else []
    sessions = [path for path in folder.path.iterdir() if path.name[0] != "."]
    linked = {name for path in (*sessions, *folder.deleted()) for name in links(path).values()}
    return [str(path) for path in told if path.name not in linked and path.exists()]
