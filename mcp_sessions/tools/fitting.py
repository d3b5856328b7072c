"""Fitting: how a result is kept within the room that a host gives it, and says what was left out.

Only the MCP door gives a room, in characters of JSON; programs get everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast
from urllib.parse import quote

from .._json import encode
from ..models import Page

T = TypeVar("T")
LONG_VALUE = 500
LONG_MESSAGE = 8_000
LONG_PURPOSE = 200
FRAME = 400
"""Room for what stands around a list."""
STEP = 10
"""Rows that are read at once: half a usual page, of which each may be a megabyte."""
SHORTEST = 256
"""No text is cut below this, so that every id stays whole."""


def size(value: Any) -> int:
    """Characters of JSON."""
    return len(encode(value))


def fitted(text: str, room: int) -> str:
    """A text, or as much of its beginning as the room takes: escapes make its JSON up to six times as long."""
    kept = text[:room]
    while kept and (chars := size(kept)) > room:
        kept = kept[: min(len(kept) - 1, len(kept) * room // chars)]
    return kept


def cut(text: str) -> dict[str, Any]:
    """A long text as its beginning and its length."""
    return {"preview": text[:LONG_VALUE], "chars": len(text)}


def shortened(text: str, chars: int) -> str:
    """A text of at most so many characters; an ellipsis says that there is more of it."""
    return text if len(text) <= chars else text[: chars - 1] + "…"


def page(
    room: int | None,
    limit: int,
    cursor: str | None,
    fetch: Callable[[int, str | None], Page[T]],
    row: Callable[[T], Any],
    step: int = STEP,
) -> tuple[list[Any], str | None]:
    """Rows and the next cursor: a page that ends early where the room does, but has one row at least.

    With a room at most `step` rows are read at once, whatever the limit: no more is loaded than has room, but for
    the last of them.
    """
    rows: list[Any] = []
    left, step = (None, limit) if room is None else (room - FRAME, step)
    while True:
        found = fetch(min(step, limit - len(rows)), cursor)
        some = [row(item) for item in found.items]
        kept = first(some, left)
        if len(kept) == len(some) or len(some) == 1 > len(rows):
            rows += some
            cursor = found.next_cursor
            left = left and left - sum(size(one) + 1 for one in some)
            if cursor is None or len(rows) == limit:
                return rows, cursor
        elif rows and not kept:
            return rows, cursor
        else:
            step = max(1, len(kept))  # read again: only the end of a page has a cursor


def first(items: Iterable[T], room: int | None) -> list[T]:
    """As many of the first items as the room takes; of the others one is looked at."""
    if room is None:
        return list(items)
    kept: list[T] = []
    for item in items:
        room -= size(item) + 1
        if room < 0:
            break
        kept.append(item)
    return kept


def message(message: dict[str, Any], session_id: str, room: int | None) -> dict[str, Any]:
    """A message; a long one is cut, with its length and where the rest is."""
    if room is None:
        return message
    whole = message_uri(session_id, message["seq"])
    for name in ("payload", "tool_calls"):
        if name in message and size(message[name]) > LONG_VALUE:
            message = {**message, name: {**cut(encode(message[name])), "resource": whole}}
    content = message["content"]
    most = min(LONG_MESSAGE, room // 4)
    kept = fitted(content[:most], 2 * most)
    if len(kept) < len(content):
        message = {**message, "content": kept, "chars": len(content), "resource": whole}
    return message


def value(value: Any, session_id: str, key: str, room: int | None) -> dict[str, Any]:
    """A key's value; one that is over the room as its beginning, its length, and where it is whole."""
    if room is None or size(value) <= room:
        return {"value": value}
    text = _as_text(value)
    return {"value": fitted(text, room), "chars": len(text), "resource": data_uri(session_id, key)}


def data(values: Iterable[tuple[str, Any]], session_id: str, room: int | None) -> dict[str, Any]:
    """Keys and their values, as many as the room takes, long ones as previews."""
    if room is None:
        return dict(values)
    return dict(first(((key, _previewed(one, session_id, key)) for key, one in values), room))


def _previewed(value: Any, session_id: str, key: str) -> Any:
    text = _as_text(value)
    return value if len(text) <= LONG_VALUE else {**cut(text), "resource": data_uri(session_id, key)}


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else encode(value)


def bounded(result: Mapping[str, Any], room: int | None) -> dict[str, Any]:
    """An object of ours within the room: where it is over, long texts, lists and objects of users in it are cut."""
    kept, longest = dict(result), (room or 0) // 4
    while room is not None and size(kept) > room and longest >= SHORTEST:
        kept = _cut(kept, longest)
        longest //= 2
    return kept


def _cut(ours: Mapping[str, Any], longest: int) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, member in ours.items():
        kept[name] = member
        if size(member) <= longest:
            continue
        match member:
            case str():
                kept[name] = f"{fitted(member, longest)}… ({len(member):,} characters)"
            case [dict(), *_]:
                kept[name] = [_cut(row, longest) for row in cast("list[dict[str, Any]]", member)]
            case list():
                some = first(cast("list[Any]", member), longest)
                kept |= {name: some, f"more_{name}": len(cast("list[Any]", member)) - len(some)}
            case {"session_id": _}:
                kept[name] = _cut(cast("dict[str, Any]", member), longest)
            case _:
                kept[name] = {"preview": fitted(encode(member), longest), "chars": size(member)}
    return kept


def session_uri(session_id: str) -> str:
    """The resource of a session."""
    return f"session:///{session_id}"


def message_uri(session_id: str, seq: int) -> str:
    """The resource of one message."""
    return f"{session_uri(session_id)}/messages/{seq}"


def data_uri(session_id: str, key: str) -> str:
    """The resource of one key."""
    return f"{session_uri(session_id)}/data/{quote(key, safe='')}"
