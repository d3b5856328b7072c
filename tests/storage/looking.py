"""What these tests look at: whether a store holds just what its writers were told, and what stands in its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw

from mcp_sessions.models import Change, InvocationQuery, SessionMetadata, Want
from mcp_sessions.storage import SessionStorage
from mcp_sessions.storage.sqlite import SQLiteSessionStorage
from mcp_sessions.testing.making import joined
from tests.processes import until
from tests.storage.programs import AT


def made(path: Path, *sessions: str) -> Path:
    """A store with these sessions, closed."""
    with SQLiteSessionStorage(path) as storage:
        for session_id in sessions:
            storage.create(SessionMetadata(session_id=session_id, created_at=AT, updated_at=AT))
    return path


def faults(path: Path) -> list[str]:
    """What check() finds wrong, and SQLite itself on a connection of its own."""
    with SQLiteSessionStorage(path) as storage:
        found = [f"{finding.what}: {finding.detail}" for finding in storage.check() if finding.level != "ok"]
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return found + [line for (line,) in connection.execute("PRAGMA integrity_check") if line != "ok"]
    finally:
        connection.close()


def holds_what_was_told(path: Path, session_id: str, told: list[dict[str, Any]], *, exactly: bool = False) -> None:
    """The same as `holds`, of a SQLite file that is opened for it."""
    with SQLiteSessionStorage(path) as storage:
        holds(storage, session_id, told, exactly=exactly)


def holds(storage: SessionStorage, session_id: str, told: list[dict[str, Any]], *, exactly: bool = False) -> None:
    """Every acknowledged message is there with its seq, without gap or duplicate; messages and records belong
    together one to one, and a record's result is what its caller was told. `exactly`: and nothing else is there.
    """
    head = storage.read(session_id, Want()).metadata
    messages = storage.read(session_id, Want(messages=head.last_seq + 1, order="oldest")).messages
    query = InvocationQuery(session_id=session_id, limit=1000)
    records = joined(lambda cursor: storage.invocations(query, cursor))
    assert [message.seq for message in messages] == list(range(1, head.last_seq + 1))
    assert head.message_count == len(messages)
    by_id = {message.message_id: message for message in messages}
    assert len(by_id) == len(messages)
    results = {record.invocation_id: record.result for record in records}
    assert len(results) == len(records)
    assert {message.invocation_id for message in messages} == set(results)
    for entry in told:
        invocation_id = entry["invocation_id"]
        assert by_id[entry["message_id"]].seq == entry["seq"]
        assert results[invocation_id] == {key: value for key, value in entry.items() if key != "invocation_id"}
    if exactly:
        assert len(told) == len(messages)


def bytes_of(path: Path) -> bytes:
    """All that stands in the store's files."""
    return b"".join(file.read_bytes() for file in sorted(path.parent.iterdir()) if file.name.startswith(path.name))


def until_nothing_is_purged(storage: SQLiteSessionStorage) -> None:
    """Wait for the removal of what deleted sessions left behind."""
    until(lambda: not rows(storage, "purging"))


def rows(storage: SQLiteSessionStorage, table: str) -> int:
    with storage._here().readers.one() as db:
        return db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def deletion() -> Change:
    return Change(at=AT)
