"""What the kit's tests are made of: moments, heads, messages, calls, each said in a word.

No clock and no random ids: a test that fails fails again.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar, cast

from pydantic import BaseModel

from ..models import (
    Change,
    ConversationMessage,
    Invocation,
    InvocationQuery,
    NewMessage,
    Page,
    Query,
    SessionMetadata,
    View,
    Want,
)
from ..storage.base import SessionStorage

T = TypeVar("T")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ALL = 1 << 40


def at(seconds: float = 0) -> datetime:
    """So many seconds after noon."""
    return NOON + timedelta(seconds=seconds)


def head(session_id: str = "s", second: float = 0, **fields: Any) -> SessionMetadata:
    """The head of a session made at `second`."""
    given = {"session_id": session_id, "created_at": at(second), "updated_at": at(second), **fields}
    return SessionMetadata.model_validate(given)


def said(message_id: str, content: str | None = None, second: float = 1, **fields: Any) -> NewMessage:
    """A message with an id of the caller's; its content is its id where none is given."""
    given: dict[str, Any] = {
        "role": "user",
        "content": message_id if content is None else content,
        "timestamp": at(second),
        **fields,
    }
    return NewMessage(message=ConversationMessage(message_id=message_id, **given))


def called(invocation_id: str, second: float = 1, **fields: Any) -> Invocation:
    """The record of a call of work with an id of the caller's, unique in its session."""
    given: dict[str, Any] = {"tool_name": "grep", "started_at": at(second), "scope": "session", **fields}
    return Invocation(invocation_id=invocation_id, **given)


def does(second: float = 1, **fields: Any) -> Change:
    """A change made at `second`."""
    return Change(at=at(second), **fields)


def say(*messages: NewMessage, second: float = 1) -> Change:
    """A change that appends."""
    return does(second, messages=messages)


def read_all(storage: SessionStorage, session_id: str = "s", *, internal: bool = False) -> View:
    """Everything in a session, oldest message first; with `internal` the keys of that kind alone."""
    prefix = "." if internal else ""
    want = Want(prefix=prefix, names=True, messages=ALL, order="oldest", records=ALL, usage=True)
    return storage.read(session_id, want)


def values(storage: SessionStorage, session_id: str = "s") -> dict[str, Any]:
    """The keys that are not internal, and their values."""
    return {key: value.value for key, value in read_all(storage, session_id).data.items()}


def contents(storage: SessionStorage, session_id: str = "s") -> list[str]:
    """What was said, oldest first."""
    return [message.content for message in read_all(storage, session_id).messages]


def ids(storage: SessionStorage, query: Query | None = None) -> list[str]:
    """The sessions that a query finds, in its order."""
    return [found.session_id for found in storage.find(query or Query()).items]


def hits(storage: SessionStorage, sought: str, /, **query: Any) -> list[tuple[str, int]]:
    """(session, seq) of the messages that a search finds, in its order."""
    return [(hit.session_id, hit.seq) for hit in storage.search(sought, Query(**query)).items]


def calls(storage: SessionStorage, **query: Any) -> list[str]:
    """The ids of the records that a query finds, in its order."""
    return [record.invocation_id for record in storage.invocations(InvocationQuery(**query)).items]


def joined(page_after: Callable[[str | None], Page[T]]) -> list[T]:
    """All pages of a listing, one after the other."""
    items: list[T] = []
    cursor: str | None = None
    while True:
        page = page_after(cursor)
        items += page.items
        assert page.next_cursor is None or page.next_cursor != cursor, "the listing turns in a circle"
        cursor = page.next_cursor
        if cursor is None:
            return items


def everything(storage: SessionStorage, *words: str) -> list[object]:
    """All that can be seen of a small store, to be compared before and after."""
    heads = storage.find(Query(limit=1000)).items
    groups: tuple[Literal["day", "model", "tool", "tag", "user", "status"] | None, ...]
    groups = (None, "day", "model", "tool", "tag", "user", "status")
    seen: list[object] = [
        heads,
        [read_all(storage, one.session_id) for one in heads],
        [read_all(storage, one.session_id, internal=True) for one in heads],
        storage.invocations(InvocationQuery(limit=1000)).items,
        [storage.search(word, Query(limit=1000)).items for word in words],
        [storage.totals(Query(), group) for group in groups],
    ]
    return _plain(seen)


def _plain(seen: Any) -> Any:
    # Of its own, so that nothing that happens to the store later can reach it.
    if isinstance(seen, list):
        return [_plain(one) for one in cast("list[Any]", seen)]
    return cast("BaseModel", seen).model_dump(mode="json")
