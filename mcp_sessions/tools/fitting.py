"""Fitting: how a result is kept within the room that a host gives it, and says what was left out.

Only the MCP door gives a room; programs get everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

from .._json import encode
from ..models import Page

T = TypeVar("T")
LONG_VALUE = 500
LONG_MESSAGE = 8_000
FRAME = 400
"""Room for what stands around a list."""


def size(value: Any) -> int:
    """Characters of JSON."""
    return len(encode(value))


def cut(text: str, chars: int) -> dict[str, Any]:
    """A long text as its beginning and its length."""
    return {"preview": text[:chars], "chars": len(text)}


def page(
    room: int | None, limit: int, fetch: Callable[[int], Page[T]], row: Callable[[T], Any]
) -> tuple[list[Any], str | None]:
    """Rows and the next cursor: a page that ends early where the room does, but has one row at least."""
    while True:
        found = fetch(limit)
        rows = [row(item) for item in found.items]
        fitting = len(rows) if room is None else _fitting(rows, room - FRAME)
        if fitting >= len(rows):
            return rows, found.next_cursor
        limit = max(fitting, 1)
        if limit >= len(rows):
            return rows, found.next_cursor


def _fitting(rows: Iterable[Any], room: int) -> int:
    used = 0
    for count, row in enumerate(rows):
        used += size(row) + 1
        if used > room:
            return count
    return 1 << 30


def message(message: dict[str, Any], session_id: str, room: int | None) -> dict[str, Any]:
    """A message; a long one is cut, with its length and where the rest is."""
    if room is None:
        return message
    for name in ("payload", "tool_calls"):
        if name in message and size(message[name]) > LONG_VALUE:
            message = {**message, name: cut(encode(message[name]), LONG_VALUE)}
    content = message["content"]
    most = min(LONG_MESSAGE, room // 4)
    if len(content) > most or size(content) > 2 * most:
        kept = content[:most]
        while size(kept) > 2 * most:
            kept = kept[: len(kept) // 2]
        message = {**message, "content": kept, "chars": len(content), "resource": messages_uri(session_id)}
    return message


def value(value: Any, session_id: str, key: str, room: int | None, chars: int) -> Any:
    """A key's value; one over so many characters as preview, length, and where it is whole."""
    if room is None:
        return value
    text = value if isinstance(value, str) else encode(value)
    if size(value) <= chars:
        return value
    return {**cut(text, min(chars, LONG_VALUE)), "resource": data_uri(session_id, key)}


def data(values: Mapping[str, Any], session_id: str, room: int | None) -> tuple[dict[str, Any], int]:
    """Keys and their values within the room, and how many keys were left out."""
    kept: dict[str, Any] = {}
    used = 0
    for key, one in values.items():
        shown = value(one, session_id, key, room, LONG_VALUE)
        used += size({key: shown})
        if room is not None and used > room:
            break
        kept[key] = shown
    return kept, len(values) - len(kept)


def messages_uri(session_id: str) -> str:
    """The resource of a session's messages."""
    return f"session:///{session_id}/messages"


def data_uri(session_id: str, key: str) -> str:
    """The resource of one key."""
    return f"session:///{session_id}/data/{quote(key, safe='')}"
