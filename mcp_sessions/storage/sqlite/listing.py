"""Listings: SQL composed from a table of clauses, in the shape in which SQLite answers them from an index.

Sessions by time are read arm by arm, one a status, so that every arm is a range of an index that is already in
order; a rare tag is read from its own list instead, which is shorter than any range.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..._json import encode
from ...models import InvocationQuery, InvocationStatus, Query, SessionStatus
from ..heads import nanos
from ..times import micros
from ..words import fold
from .driver import Db
from .rows import HEAD_COLUMNS, RECORD

Clause = tuple[str, Sequence[Any]]
RARE = 1000
"""Up to so many sessions of a tag, or whose ids begin alike, all of them are looked at; with more, the newest sessions
are tried in turn.
"""

COLUMNS = ", ".join("s." + name for name in HEAD_COLUMNS)
ORDERS = {
    "updated": "s.updated_at",
    "created": "s.created_at",
    "cost": "s.estimated_cost",
    "calls": "s.total_invocations",
    "duration": "s.total_duration_ms",
}


def marks(values: Sequence[Any]) -> str:
    """`?, ?, ?`"""
    return ", ".join("?" * len(values))


def _range(prefix: str) -> tuple[str, str]:
    """Between which all ids lie that begin so: they are ASCII, and DEL is after all that they are made of."""
    return prefix, prefix + "\x7f"


_CLAUSES: list[tuple[str, Callable[[Any], Clause]]] = [
    ("as_user", lambda user: ("s.user_id = ?", [user])),
    ("user_id", lambda user: ("s.user_id = ?", [user])),
    ("ids", lambda ids: (f"s.session_id IN ({marks(ids)})", ids)),
    # The plus keeps the planner from reading and sorting all of these, which may be every session.
    ("id_prefix", lambda prefix: ("+s.session_id BETWEEN ? AND ?", _range(prefix))),
    ("purpose", lambda purpose: ("s.purpose = ?", [purpose])),
    ("tool", lambda tool: ("EXISTS (SELECT 1 FROM json_each(s.tools_used) WHERE value = ?)", [tool])),
    ("created_after", lambda at: ("s.created_at > ?", [micros(at)])),
    ("created_before", lambda at: ("s.created_at < ?", [micros(at)])),
    ("updated_after", lambda at: ("s.updated_at > ?", [micros(at)])),
    ("updated_before", lambda at: ("s.updated_at < ?", [micros(at)])),
    ("has_errors", lambda yes: (f"s.failed_invocations {'>' if yes else '='} 0", [])),
    ("min_cost", lambda cost: ("s.estimated_cost >= ?", [nanos(cost)])),
]


def filters(query: Query) -> list[Clause]:
    """The clauses of a query, all but status and tags."""
    clauses: list[Clause] = []
    for name, clause in _CLAUSES:
        value = getattr(query, name)
        if value is not None and value != ():
            clauses.append(clause(value))
    clauses += [("instr(s.folded, ?)", [word]) for word in fold(query.text).split()]
    return clauses


def status_filter(query: Query) -> list[Clause]:
    """The clause for the statuses of a query."""
    if not query.status:
        return []
    return [(f"s.status IN ({marks(query.status)})", [status.value for status in query.status])]


def tag_filters(query: Query) -> list[Clause]:
    """Clauses that try a session's tags, one by one."""
    tags = sorted(set(query.tags))
    probe = "EXISTS (SELECT 1 FROM tags t WHERE t.tag IN ({}) AND t.sid = s.sid)"
    if not tags:
        return []
    if query.match == "any":
        return [(probe.format(marks(tags)), tags)]
    return [(probe.format("?"), [tag]) for tag in tags]


def where(clauses: Sequence[Clause]) -> Clause:
    """One WHERE of them all."""
    text = " AND ".join(text for text, _ in clauses) or "1"
    return f"WHERE {text}", [value for _, values in clauses for value in values]


def sessions_page(db: Db, query: Query, after: tuple[Any, str] | None) -> Clause:
    """The statement for a page of sessions and one row more, after a place (sort value, session_id)."""
    column = ORDERS[query.order]
    way, compare = ("ASC", ">") if query.reverse else ("DESC", "<")
    order = f"ORDER BY {column} {way}, s.session_id {way} LIMIT {query.limit + 1}"
    clauses = filters(query)
    if after is not None:
        clauses.append((f"({column}, s.session_id) {compare} (?, ?)", after))
    few = _few(db, query)
    if few is not None:
        source = f"({few[0]}) t CROSS JOIN sessions s USING (sid)"
        text, values = where([*clauses, *status_filter(query), *tag_filters(query)])
        return f"SELECT {COLUMNS} FROM {source} {text} {order}", [*few[1], *values]
    if query.order != "updated" or query.ids or query.purpose is not None:
        text, values = where([*clauses, *status_filter(query), *tag_filters(query)])
        return f"SELECT {COLUMNS} FROM sessions s {text} {order}", values
    arms: list[str] = []
    everything: list[Any] = []
    for status in query.status or tuple(SessionStatus):
        text, values = where([("s.status = ?", [status.value]), *clauses, *tag_filters(query)])
        arms.append(f"SELECT * FROM (SELECT s.sid, s.updated_at, s.session_id FROM sessions s {text} {order})")
        everything += values
    union = " UNION ALL ".join(arms)
    first = f"SELECT sid, updated_at, session_id FROM ({union}) s {order}"
    return f"SELECT {COLUMNS} FROM ({first}) u CROSS JOIN sessions s USING (sid) {order}", everything


def _few(db: Db, query: Query) -> Clause | None:
    """The statement for the sessions of the query's tags (of all with `any`, of the rarest with `all`), or of those
    whose ids begin as it says, where they are few enough to look at all of them; else None.
    """
    tags = {tag: _count(db, "tags WHERE tag = ?", (tag,)) for tag in set(query.tags)}
    if tags and query.match == "all":
        rarest = min(tags, key=lambda tag: (tags[tag], tag))
        tags = {rarest: tags[rarest]}
    if tags and sum(tags.values()) <= RARE:
        return f"SELECT DISTINCT sid FROM tags WHERE tag IN ({marks(list(tags))})", sorted(tags)
    if query.id_prefix:
        source = "sessions WHERE session_id BETWEEN ? AND ?"
        if _count(db, source, _range(query.id_prefix)) <= RARE:
            return f"SELECT sid FROM {source} LIMIT {RARE}", _range(query.id_prefix)
    return None


def _count(db: Db, source: str, values: Sequence[Any]) -> int:
    """How many rows there are; of very many, one more than a few."""
    return db.execute(f"SELECT count(*) FROM (SELECT 1 FROM {source} LIMIT {RARE + 1})", values).fetchone()[0]


def records_page(query: InvocationQuery, after: int | None) -> Clause:
    """The statement for a page of records and one row more, after a row id."""
    counted = query.kind == "counted"
    clauses: list[Clause] = [("r.kind <> 'session'" if counted else "r.kind <> 'usage'", [])]
    if query.as_user is not None:
        owner = "CASE WHEN r.sid IS NULL THEN r.user_id ELSE (SELECT user_id FROM sessions WHERE sid = r.sid) END"
        clauses.append((f"{owner} = ?", [query.as_user]))
    if query.session_id is not None:
        clauses.append(("r.sid = (SELECT sid FROM sessions WHERE session_id = ?)", [query.session_id]))
    if query.scope == "session":
        clauses.append(("r.scope IS NOT NULL", []))
    elif query.scope == "user":
        clauses.append(("r.scope = 'user' AND ifnull(r.user_id, '') = ifnull(?, '')", [query.user_id]))
    for name, value in (
        ("invocation_id", query.invocation_id),
        ("tool_name", query.tool),
        ("status", query.status.value if query.status is not None else None),
        ("kind", None if counted else query.kind),
    ):
        if value is not None:
            clauses.append((f"r.{name} = ?", [value]))
    if query.status not in (None, InvocationStatus.OK):
        clauses.append(("r.status <> 'ok'", []))  # as the partial indexes say it
    # Records of a deleted session that is still being purged belong to nobody.
    clauses.append(("(r.sid IS NULL OR s.sid IS NOT NULL)", []))
    if after is not None:
        clauses.append((f"r.id {'>' if query.reverse else '<'} ?", [after]))
    text, values = where(clauses)
    sql = f"SELECT r.id, {RECORD} FROM records r LEFT JOIN sessions s USING (sid)"
    return f"{sql} {text} ORDER BY r.id {'ASC' if query.reverse else 'DESC'} LIMIT {query.limit + 1}", values


def hits_page(query: Query, match: str, after: int | None, others: Sequence[int] = ()) -> Clause:
    """The statement for a page of messages that match, or are among `others`, and one row more, after a row id."""
    source = "search f"
    sought: list[str] = []
    clauses: list[Clause] = []
    if others:
        source = "(SELECT rowid FROM search WHERE search MATCH ? UNION ALL SELECT value FROM json_each(?)) f"
        sought = [match, encode(others)]
    else:
        clauses.append(("f.search MATCH ?", [match]))
    if after is not None:
        clauses.append((f"f.rowid {'>' if query.reverse else '<'} ?", [after]))
    clauses += [*filters(query), *status_filter(query), *tag_filters(query)]
    text, values = where(clauses)
    sql = (
        "SELECT f.rowid, s.session_id, s.purpose, m.seq, m.role, m.content, m.timestamp "
        f"FROM {source} CROSS JOIN messages m ON m.id = f.rowid CROSS JOIN sessions s ON s.sid = m.sid"
    )
    order = f"ORDER BY f.rowid {'ASC' if query.reverse else 'DESC'} LIMIT {query.limit + 1}"
    return f"{sql} {text} {order}", [*sought, *values]


_SUMS = """count(DISTINCT s.sid), {messages}, {invocations}, {failed}, {duration}, {usage},
    total({cost}), total({unpriced})"""


def _usage(table: str) -> str:
    return ", ".join(
        f"total(json_extract({table}.token_usage, '$.{name}'))"
        for name in ("input", "output", "cache_read", "cache_write")
    )


def totals(query: Query, group_by: str | None) -> Clause:
    """The statement for sums: over heads, or over the records of their calls.

    All are REAL, since a sum of integers that overflows is an error.
    """
    text, values = where([*filters(query), *status_filter(query), *tag_filters(query)])
    if group_by in ("day", "model", "tool"):
        group = {
            "day": "date(r.started_at / 1000000, 'unixepoch')",
            "model": "r.model",
            "tool": "r.tool_name",
        }[group_by]
        sums = _SUMS.format(
            messages="NULL",
            invocations="total(r.kind = 'work')",
            failed="total(r.kind = 'work' AND r.status <> 'ok')",
            duration="total(iif(r.kind = 'work', CAST(round(ifnull(r.duration_ms, 0) * 1000) AS INT), 0))",
            usage=_usage("r"),
            cost="r.cost",
            unpriced="r.unpriced",
        )
        kinds = "('work')" if group_by == "tool" else "('work', 'usage')"
        source = "sessions s JOIN records r USING (sid)"
        text += f" AND r.kind IN {kinds} AND r.status <> 'running'"
    else:
        group = {None: "NULL", "tag": "t.tag", "user": "s.user_id", "status": "s.status"}[group_by]
        sums = _SUMS.format(
            messages="total(s.message_count)",
            invocations="total(s.total_invocations)",
            failed="total(s.failed_invocations)",
            duration="total(CAST(round(s.total_duration_ms * 1000) AS INT))",
            usage=_usage("s"),
            cost="s.estimated_cost",
            unpriced="s.unpriced_invocations",
        )
        source = "sessions s LEFT JOIN tags t USING (sid)" if group_by == "tag" else "sessions s"
    grouping = f"GROUP BY {group} ORDER BY {group} NULLS FIRST" if group_by else ""
    return f"SELECT {group}, {sums} FROM {source} {text} {grouping}", values
