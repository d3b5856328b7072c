"""What the index knows of each log: up to where its lines stand in the rows, and what is left to do for it."""

from __future__ import annotations

from dataclasses import dataclass

from ..sqlite.driver import Db
from .lines import Place

_TABLE = """
CREATE TABLE IF NOT EXISTS logs (
    name TEXT PRIMARY KEY,
    sid INTEGER,                       -- NULL: it holds no session (yet)
    origin INTEGER,                    -- the sid in its first line
    size INTEGER NOT NULL, lines INTEGER NOT NULL, sum INTEGER NOT NULL,
    changed INTEGER NOT NULL,          -- when the file was, in ns
    erase INTEGER NOT NULL DEFAULT 0,  -- something in it is to be erased
    viewed INTEGER NOT NULL DEFAULT 0, -- up to which line its views tell it
    told INTEGER NOT NULL DEFAULT 0,   -- their mark then
    said INTEGER,                      -- the size that conversation.jsonl must have, where that is known
    fault TEXT                         -- why nothing more is written to it
) STRICT, WITHOUT ROWID
"""
_BOOT = "CREATE TABLE IF NOT EXISTS boot (id TEXT NOT NULL) STRICT"
KEPT_AFTER_NS = 600 * 10**9
"""What was written so long ago no system holds back from the disk: Linux writes it out within a minute."""
_COLUMNS = "name, sid, size, lines, sum, changed, erase, viewed, told, said, fault, origin"


@dataclass
class Known:
    """A row of `logs`."""

    name: str
    sid: int | None
    end: Place
    changed: int = 0
    erase: bool = False
    viewed: int = 0
    told: int = 0
    said: int | None = 0
    fault: str | None = None
    origin: int | None = None


def prepare(db: Db) -> None:
    """Make the tables, if there are none."""
    db.execute(_TABLE)
    db.execute(_BOOT)


def doubt_views(db: Db, boot_id: str) -> None:
    """Let the views be written anew of which the machine may have lost a part, which nobody synced: those of the
    sessions that were written last before it was started again.
    """
    if db.execute("SELECT id FROM boot").fetchall() == [(boot_id,)]:
        return
    db.execute(
        "UPDATE logs SET viewed = 0, said = NULL WHERE changed >= (SELECT max(changed) FROM logs) - ?", (KEPT_AFTER_NS,)
    )
    db.execute("DELETE FROM boot")
    db.execute("INSERT INTO boot VALUES (?)", (boot_id,))


def get(db: Db, name: str) -> Known | None:
    """One log."""
    row = db.execute(f"SELECT {_COLUMNS} FROM logs WHERE name = ?", (name,)).fetchone()
    if row is None:
        return None
    return Known(row[0], row[1], Place(*row[2:5]), row[5], bool(row[6]), *row[7:])


def every(db: Db) -> list[tuple[str, int, int, str | None]]:
    """(name, size, changed, fault) of all logs."""
    return [(row[0], row[1], row[2], row[3]) for row in db.execute("SELECT name, size, changed, fault FROM logs")]


def put(db: Db, known: Known) -> None:
    """Keep what is known of a log."""
    end = known.end
    db.execute(
        f"INSERT OR REPLACE INTO logs ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(known.name, known.sid, end.size, end.lines, end.sum, known.changed, known.erase, known.viewed),
            *(known.told, known.said, known.fault, known.origin),
        ),
    )


def moved(db: Db, known: Known) -> None:
    """Keep where a log that is known ends now."""
    end = known.end
    db.execute(
        "UPDATE logs SET size = ?, lines = ?, sum = ?, changed = ?, erase = ?, said = ?, origin = ? WHERE name = ?",
        (end.size, end.lines, end.sum, known.changed, known.erase, known.said, known.origin, known.name),
    )


def viewed(db: Db, there: Known, lines: tuple[int, int] | None, mark: int) -> bool:
    """Its views tell these lines, which have that mark; whether the session is still the one that was there then."""
    if lines is not None:
        db.execute(
            "UPDATE logs SET viewed = max(viewed, ?), told = ? WHERE name = ? AND sid = ? AND viewed >= ?",
            (lines[1], mark, there.name, there.sid, lines[0]),
        )
    return db.execute("SELECT 1 FROM logs WHERE name = ? AND sid = ?", (there.name, there.sid)).fetchone() is not None


def drop(db: Db, name: str) -> None:
    """Forget a log."""
    db.execute("DELETE FROM logs WHERE name = ?", (name,))


def to_erase(db: Db) -> list[tuple[str, int]]:
    """(name, size) of the logs in which something is to be erased."""
    sql = "SELECT name, size FROM logs WHERE erase AND fault IS NULL"
    return [(row[0], row[1]) for row in db.execute(sql)]


def views(db: Db) -> list[tuple[str, bool, int]]:
    """(name, whether its views tell all, their mark when they were written) of all sessions."""
    sql = "SELECT name, viewed = lines AND said IS NOT NULL, told FROM logs WHERE sid IS NOT NULL"
    return [(row[0], bool(row[1]), row[2]) for row in db.execute(sql)]
