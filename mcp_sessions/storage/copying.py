"""Copying sessions from one store into another, through what every store can do.

A session goes over whole, as of one moment. What a store keeps of the past alone (older versions of keys, the ids of
retracted messages) stays behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from ..errors import SessionNotFoundError
from ..models import (
    Change,
    Failure,
    Invocation,
    InvocationQuery,
    InvocationStatus,
    Limits,
    Query,
    SessionMetadata,
    View,
    Want,
)
from .base import SessionStorage
from .heads import Effect, apply
from .sqlite import SQLiteSessionStorage
from .sqlite.backup import check_place
from .sqlite.connecting import File, translated
from .whole import EVERYTHING

BATCH = 1000
_OVER = Failure(type="Interrupted", message="It was still running when its session was copied.")


def every_session(storage: SessionStorage) -> Iterator[SessionMetadata]:
    """The heads of all sessions, the first made first."""
    query = Query(order="created", reverse=True, limit=BATCH)
    cursor = None
    while True:
        page = storage.find(query, cursor)
        yield from page.items
        cursor = page.next_cursor
        if cursor is None:
            return


def whole(storage: SessionStorage, session_id: str) -> View:
    """Everything in a session, as `restore` takes it. Raises SessionNotFoundError."""
    want = Want(any_keys=EVERYTHING, messages=EVERYTHING, order="oldest", records=EVERYTHING, usage=True)
    view = storage.read(session_id, want)
    ours = _records(storage, InvocationQuery(session_id=session_id, kind="session", limit=BATCH))
    return settled(view.model_copy(update={"records": [*view.records, *ours]}))


def settled(view: View) -> View:
    """A view without running calls: in a copy nobody is at work, so there they are interrupted, and counted."""
    over = [(record, _ended(record)) for record in view.records if record.status is InvocationStatus.RUNNING]
    if not over:
        return view
    head = view.metadata
    counts = apply(dict(head), Change(at=head.updated_at), Effect(records=[*over]), Limits())
    records = [_ended(record) for record in view.records]
    return view.model_copy(update={"metadata": head.model_copy(update=counts), "records": records})


def loose_records(storage: SessionStorage) -> Iterator[Invocation]:
    """The records of calls that belong to no session, the oldest first."""
    query = InvocationQuery(reverse=True, limit=BATCH)
    loose = (_ended(record) for record in _records(storage, query) if record.session_id is None)
    return (record.model_copy(update={"owner": None}) for record in loose)


def back_up(storage: SessionStorage, path: Path, *, replace: bool) -> None:
    """Copy a store of any kind into a SQLite file. Raises StorageError."""
    with translated(File(path)):
        check_place(path, replace=replace)
        with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            _copy(storage, path, Path(folder), replace=replace)


def _copy(storage: SessionStorage, path: Path, folder: Path, *, replace: bool) -> None:
    with SQLiteSessionStorage(folder / path.name, durability="process") as copy:
        for head in every_session(storage):
            with suppress(SessionNotFoundError):  # deleted meanwhile
                copy.restore(whole(storage, head.session_id))
        for record in loose_records(storage):
            copy.commit(None, Change(at=record.started_at, records=(record,)))
        copy.backup(path, replace=replace)


def _records(storage: SessionStorage, query: InvocationQuery) -> Iterator[Invocation]:
    cursor = None
    while True:
        page = storage.invocations(query, cursor)
        yield from page.items
        cursor = page.next_cursor
        if cursor is None:
            return


def _ended(record: Invocation) -> Invocation:
    if record.status is not InvocationStatus.RUNNING:
        return record
    return record.model_copy(update={"owner": None, "status": InvocationStatus.INTERRUPTED, "error": _OVER})
