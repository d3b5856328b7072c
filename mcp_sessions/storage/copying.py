"""Copying sessions from one store into another, through what every store can do.

A session goes over whole, as of one moment. What a store keeps of the past alone (older versions of keys, the ids of
retracted messages) stays behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, cast

from .._json import canonical
from ..errors import InvocationConflictError, InvocationRecordedError, SessionNotFoundError
from ..models import (
    Change,
    Failure,
    Invocation,
    InvocationQuery,
    InvocationStatus,
    Limits,
    Query,
    SessionMetadata,
    SessionStatus,
    View,
    Want,
)
from ..session import derived_id
from .base import SessionStorage
from .heads import Effect, apply
from .sqlite import SQLiteSessionStorage
from .sqlite.backup import check_place, unfinished
from .sqlite.connecting import File, translated
from .whole import EVERYTHING

BATCH = 1000
Relation = Literal["same", "ahead", "diverged"]
_STATED = ("status", "ended_at", "user_id", "purpose", "summary", "tags", "custom_metadata", "parent_id")
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


def add_loose(storage: SessionStorage, record: Invocation) -> None:
    """Keep a record of a call that belongs to no session; where its id stands for another call, without its claim to
    that id.
    """
    change = Change(at=record.started_at, records=(record,))
    try:
        storage.commit(None, change)
    except (InvocationRecordedError, InvocationConflictError):
        free = record.model_copy(update={"scope": None})
        storage.commit(None, change.model_copy(update={"records": (free,)}))


def relation(there: View, view: View) -> Relation:
    """How a session that is there stands to a view of the same one from elsewhere.

    `same`: nothing differs but records that it has in addition. `ahead`: it holds all of the view, and went on from
    there. `diverged`: the view has something that it lacks. What left no record and was overwritten there later is
    not seen.
    """
    recorded = {record.invocation_id: _facts(record) for record in there.records}
    if any(recorded.get(record.invocation_id) != _facts(record) for record in view.records):
        return "diverged"
    head, seen = there.metadata, view.metadata
    if (head, there.messages, there.data) == (seen, view.messages, view.data):
        return "same"
    if head.created_at != seen.created_at:
        return "diverged"
    if head.revision == seen.revision:
        return "ahead" if _state(there) == _state(view) else "diverged"
    return "ahead" if head.revision > seen.revision and _holds(there, view) else "diverged"


def beside(view: View) -> View:
    """The session of a view as another one, whose parent it is; its id is the same whenever the content is."""
    state = canonical(view.model_dump(mode="json", exclude={"records"}))
    came_from = view.metadata.session_id
    other = {"session_id": derived_id("ses", state), "parent_id": came_from}
    # An id that was unique for its user stays with the calls of the first session.
    records = [
        record.model_copy(update={"scope": None if record.scope == "user" else record.scope}) for record in view.records
    ]
    return view.model_copy(update={"metadata": view.metadata.model_copy(update=other), "records": records})


def back_up(storage: SessionStorage, path: Path, *, replace: bool) -> None:
    """Copy a store of any kind into a SQLite file. Raises StorageError."""
    with translated(File(path)):
        check_place(path, replace=replace)
        with unfinished(path) as folder:
            _copy(storage, path, folder, replace=replace)


def _copy(storage: SessionStorage, path: Path, folder: Path, *, replace: bool) -> None:
    with SQLiteSessionStorage(folder / path.name, durability="process") as copy:
        for head in every_session(storage):
            with suppress(SessionNotFoundError):  # deleted meanwhile
                copy.restore(whole(storage, head.session_id))
        for record in loose_records(storage):
            add_loose(copy, record)
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


def _facts(record: Invocation) -> dict[str, Any]:
    return record.to_dict() | {"session_id": None}


def _state(view: View) -> object:
    """A session without what records alone alter."""
    return [getattr(view.metadata, name) for name in _STATED], view.messages, view.data


def _holds(there: View, view: View) -> bool:
    """Whether a session can have become what it is there from what it is in the view."""
    head, seen = there.metadata, view.metadata
    if not all(_still(getattr(seen, name), getattr(head, name)) for name in _STATED):
        return False
    earlier = [message for message in there.messages if message.seq <= seen.last_seq]
    kept = {key: value for key, value in there.data.items() if value.version <= seen.revision}
    overwritten = there.data.keys() - kept.keys()
    left = {key: value for key, value in view.data.items() if key not in overwritten}
    return (earlier, kept) == (view.messages, left)


def _still(said: Any, now: Any) -> bool:
    """Whether what a head said is in what it says later; what it did not say yet may be anything."""
    if isinstance(said, list):
        return all(one in now for one in cast("list[Any]", said))
    if isinstance(said, dict):
        return all(now.get(name) == value for name, value in cast("dict[str, Any]", said).items())
    return said in (None, SessionStatus.ACTIVE) or said == now
