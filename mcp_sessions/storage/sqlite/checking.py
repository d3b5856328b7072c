"""Looking for damage: the file's own integrity, the search index, and whether heads agree with their rows."""

from __future__ import annotations

import apsw

from ...models import Finding
from .driver import Db

KNOWN_FAULTS = (((3, 7, 0), (3, 51, 2), "the WAL-reset bug (sqlite.org/wal.html#walresetbug)"),)

_QUESTIONS = {
    "heads that miscount their messages": """
        SELECT count(*) FROM sessions s
        WHERE message_count <> (SELECT count(*) FROM messages m WHERE m.sid = s.sid)
        OR last_seq < (SELECT ifnull(max(seq), 0) FROM messages m WHERE m.sid = s.sid)""",
    "rows that belong to no session": """
        SELECT (SELECT count(*) FROM messages m WHERE sid NOT IN (SELECT sid FROM sessions)
                AND sid NOT IN (SELECT sid FROM purging))
            + (SELECT count(*) FROM keys WHERE sid NOT IN (SELECT sid FROM sessions)
                AND sid NOT IN (SELECT sid FROM purging))
            + (SELECT count(*) FROM old_keys WHERE sid NOT IN (SELECT sid FROM sessions)
                AND sid NOT IN (SELECT sid FROM purging))
            + (SELECT count(*) FROM retracted WHERE sid NOT IN (SELECT sid FROM sessions)
                AND sid NOT IN (SELECT sid FROM purging))
            + (SELECT count(*) FROM records WHERE sid IS NOT NULL AND sid NOT IN (SELECT sid FROM sessions)
                AND sid NOT IN (SELECT sid FROM purging))
            + (SELECT count(*) FROM tags WHERE sid NOT IN (SELECT sid FROM sessions))""",
    "messages that search cannot find": """
        SELECT count(*) FROM messages m LEFT JOIN sessions s USING (sid) LEFT JOIN purging p USING (sid)
        WHERE m.seq <= ifnull(s.indexed, p.indexed) AND m.id NOT IN (SELECT id FROM search_docsize)""",
    "search rows without a message": """
        SELECT count(*) FROM search_docsize WHERE id NOT IN (SELECT id FROM messages)""",
    "deleted sessions whose rows are still being removed": "SELECT count(*) FROM purging",
}
_SESSIONS = {
    "heads whose tags are not those that they are found by": """
        SELECT session_id FROM sessions s WHERE EXISTS (
            SELECT 1 FROM json_each(s.tags) j
            WHERE NOT EXISTS (SELECT 1 FROM tags t WHERE t.tag = j.value AND t.sid = s.sid))
        UNION SELECT session_id FROM tags t JOIN sessions s USING (sid)
        WHERE NOT EXISTS (SELECT 1 FROM json_each(s.tags) WHERE value = t.tag)""",
    # A head may count more: calls that were tried again in another session, or were not restored with it.
    "heads that count less than is on record": """
        SELECT session_id FROM sessions JOIN (
            SELECT sid, total(kind = 'work') AS calls, total(kind = 'work' AND status <> 'ok') AS failed,
                total(cost) AS cost
            FROM records WHERE sid IS NOT NULL AND kind <> 'session' AND status <> 'running' GROUP BY sid
        ) USING (sid)
        WHERE total_invocations < calls OR failed_invocations < failed OR estimated_cost < cost * (1 - 1e-12)""",
}
NAMED = 5
"""How many of the sessions that are not in order are named."""


def check(db: Db) -> list[Finding]:
    """Read everything and tell what is not as it must be."""
    findings: list[Finding] = []
    version = apsw.sqlite_lib_version()
    number = tuple(int(part) for part in version.split("."))
    for first, last, fault in KNOWN_FAULTS:
        if first <= number <= last:
            upgrade = "python -m pip install --upgrade apsw"
            findings.append(Finding(level="fault", what=f"SQLite {version} has {fault}", next=upgrade))
    if not findings:
        findings.append(Finding(level="ok", what=f"SQLite {version}", detail="no known fault"))
    findings.append(Finding(level="ok", what="store version", detail=str(db.pragma("user_version"))))
    # FTS5 would compare the index with what this connection remembers of it; a query makes it look again.
    db.execute("SELECT 1 FROM search WHERE search MATCH 'x' LIMIT 1").fetchall()
    damage = [line for (line,) in db.execute("PRAGMA integrity_check") if line != "ok"]
    if damage:
        findings.append(Finding(level="fault", what="the file is damaged", detail="; ".join(damage[:5])))
    else:
        findings.append(Finding(level="ok", what="integrity", detail="every page and index agrees"))
    for what, sql in _QUESTIONS.items():
        count = db.execute(sql).fetchone()[0]
        if count:
            level = "warning" if "still being" in what else "fault"
            findings.append(Finding(level=level, what=what, detail=f"{count:,}"))
    for what, sql in _SESSIONS.items():
        rows = db.execute(f"SELECT session_id, count(*) OVER () FROM ({sql}) LIMIT {NAMED}").fetchall()
        if rows:
            names = ", ".join(session_id for session_id, _ in rows)
            findings.append(Finding(level="fault", what=what, detail=f"{rows[0][1]:,}: {names}"))
    sessions, messages, records = (
        db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("sessions", "messages", "records")
    )
    findings.append(
        Finding(
            level="ok", what="contents", detail=f"{sessions:,} sessions, {messages:,} messages, {records:,} records"
        )
    )
    return findings
