"""Looking for damage: the file's own integrity, the search index, and whether heads agree with their rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import repeat

import apsw

from ...models import Finding
from .driver import Db, Row
from .writing import indexed_scope, indexed_words

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
_INDEXED = """
    SELECT m.id, m.sid, iif(s.sid IS NULL, p.user_id, s.user_id), m.content
    FROM messages m LEFT JOIN sessions s USING (sid) LEFT JOIN purging p USING (sid)
    WHERE m.seq <= ifnull(s.indexed, p.indexed)"""
NAMED = 5
"""How many of the sessions that are not in order are named."""
SUMS = 65_521
"""Over so many sums the messages are spread that are compared with the search index, whatever their number."""
LONGEST_TERM = 32_768
"""Bytes that FTS5 keeps of a word."""


def check(db: Db) -> list[Finding]:
    """Read everything and tell what is not as it must be; what cannot be read hides nothing else."""
    findings: list[Finding] = []
    # FTS5 would find intact what this connection remembers of the index; reading all of it makes it look again.
    for look in (_versions, _search, _integrity, _counts, _named, _contents):
        try:
            findings += look(db)
        except (apsw.CorruptError, apsw.SQLError) as error:
            what = "the search index is damaged" if look is _search else "the file is damaged"
            findings.append(Finding(level="fault", what=what, detail=str(error)))
    return findings


def _versions(db: Db) -> Iterator[Finding]:
    version = apsw.sqlite_lib_version()
    number = tuple(int(part) for part in version.split("."))
    faults = [fault for first, last, fault in KNOWN_FAULTS if first <= number <= last]
    upgrade = "python -m pip install --upgrade apsw"
    for fault in faults:
        yield Finding(level="fault", what=f"SQLite {version} has {fault}", next=upgrade)
    if not faults:
        yield Finding(level="ok", what=f"SQLite {version}", detail="no known fault")
    yield Finding(level="ok", what="store version", detail=str(db.pragma("user_version")))


def _search(db: Db) -> Iterator[Finding]:
    """Each word once a message and column, as the search index has it and as the messages do: hashes that are added up
    in any order, so that each side is read once, and in little memory.
    """
    with _terms(db):
        if sum(map(hash, _held(db))) == sum(map(hash, _due(db))):
            yield Finding(level="ok", what="search index", detail="it has the words of each message")
            return
        apart = _apart(db, lambda id_: id_ % SUMS)
        some = set(sorted(apart)[:NAMED])
        ids = _apart(db, lambda id_: id_ if id_ % SUMS in some else None)
    sql = "SELECT session_id FROM messages JOIN sessions USING (sid) WHERE id = ?"
    names = sorted({name for id_ in ids for (name,) in db.execute(sql, (id_,))})[:NAMED]
    detail = f"{max(len(apart), len(ids)):,} or more" + (f": {', '.join(names)}" if names else "")
    yield Finding(level="fault", what="messages that search knows by other words", detail=detail)


@contextmanager
def _terms(db: Db) -> Generator[None]:
    """For its time there is a table of what the search index holds."""
    db.execute("PRAGMA query_only=OFF")
    try:
        db.execute("CREATE VIRTUAL TABLE temp.terms USING fts5vocab(main, search, instance)")
        yield
    finally:
        db.execute("DROP TABLE IF EXISTS temp.terms")
        db.execute("PRAGMA query_only=ON")


def _held(db: Db) -> Iterable[Row]:
    return db.execute("SELECT term, doc, col FROM temp.terms")


def _due(db: Db) -> Iterator[Row]:
    for id_, sid, user_id, content in db.execute(_INDEXED):
        for column, text in (("words", indexed_words(content)), ("scope", indexed_scope(sid, user_id))):
            terms = {term[:LONGEST_TERM] for term in text.split()}
            yield from zip(terms, repeat(id_), repeat(column))


def _apart(db: Db, sum_of: Callable[[int], int | None]) -> set[int]:
    """The sums that differ; `sum_of` says into which one the id of a message goes, if into any."""
    sums: defaultdict[int | None, int] = defaultdict(int)
    for rows, sign in ((_held(db), 1), (_due(db), -1)):
        for row in rows:
            sums[sum_of(row[1])] += sign * hash(row)
    return {number for number, rest in sums.items() if rest and number is not None}


def _integrity(db: Db) -> Iterator[Finding]:
    damage = [line for (line,) in db.execute("PRAGMA integrity_check") if line != "ok"]
    if damage:
        yield Finding(level="fault", what="the file is damaged", detail="; ".join(damage[:5]))
    else:
        yield Finding(level="ok", what="integrity", detail="every page and index agrees")


def _counts(db: Db) -> Iterator[Finding]:
    for what, sql in _QUESTIONS.items():
        count = db.execute(sql).fetchone()[0]
        if count:
            level = "warning" if "still being" in what else "fault"
            yield Finding(level=level, what=what, detail=f"{count:,}")


def _named(db: Db) -> Iterator[Finding]:
    for what, sql in _SESSIONS.items():
        rows = db.execute(f"SELECT session_id, count(*) OVER () FROM ({sql}) LIMIT {NAMED}").fetchall()
        if rows:
            names = ", ".join(session_id for session_id, _ in rows)
            yield Finding(level="fault", what=what, detail=f"{rows[0][1]:,}: {names}")


def _contents(db: Db) -> Iterator[Finding]:
    sessions, messages, records = (
        db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("sessions", "messages", "records")
    )
    detail = f"{sessions:,} sessions, {messages:,} messages, {records:,} records"
    yield Finding(level="ok", what="contents", detail=detail)
