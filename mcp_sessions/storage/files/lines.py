"""One commit as one line of JSON, which ends in a checksum of it and of all lines before it.

    {"line":3,"head":{"revision":3,…},"messages":[{"seq":2,…}],"keys":[…],"records":[…],"sum":"0f3a99c1"}

So the length of a log and the checksum of its last line tell everything that stands in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple, cast
from zlib import crc32

from ..._json import decode, encode
from ...models import ConversationMessage, Invocation, SessionMetadata

FORMAT = 1
BEGINNING = b'{"line":1,"format":'
"""Of every log."""
TAIL = len(',"sum":"01234567"}\n')
_COLUMNS = (
    *("invocation_id", "user_id", "tool_name", "kind", "status", "started_at", "duration_ms", "model"),
    *("token_usage", "scope"),
)
"""The fields of a record that are not in its body."""


class Place(NamedTuple):
    """Where a log ends, or a line of it: bytes, lines, and the checksum there."""

    size: int = 0
    lines: int = 0
    sum: int = 0


@dataclass(slots=True)
class Entry:
    """What one commit did to one log's rows, told row by row."""

    sid: int | None = None
    session: Mapping[str, Any] | None = None
    """Of one that was made: its head."""
    head: dict[str, Any] = field(default_factory=dict[str, Any])
    position: int | None = None
    messages: list[str] = field(default_factory=list[str])
    retracted: list[tuple[int, str, str | None]] = field(default_factory=list[tuple[int, str, "str | None"]])
    keys: list[str] = field(default_factory=list[str])
    records: list[str] = field(default_factory=list[str])
    more: dict[str, Any] = field(default_factory=dict[str, Any])
    """What only the store's own log holds."""
    said: list[str] = field(default_factory=list[str])
    """Its messages as readers see them."""
    calls: list[int] = field(default_factory=list[int])
    """The rows of its calls of work."""

    def text(self, line: int, first: int | None = None) -> str:
        """It as a line, but for the end; `first` is the line that it is written together with."""
        parts = [f'{{"line":{line}']
        if first is not None:
            parts.append(f'"with":{first}')
        if line == 1:
            parts.append(f'"format":{FORMAT}')
        if self.session is not None:
            parts.append(f'"sid":{self.sid},"session":{encode(self.session)}')
        if self.head:
            parts.append(f'"head":{encode(self.head)}')
        if self.position is not None:
            parts.append(f'"position":{self.position}')
        if self.retracted:
            parts.append(f'"retracted":{encode(self.retracted)}')
        for name, rows in (("messages", self.messages), ("keys", self.keys), ("records", self.records)):
            if rows:
                parts.append(f'"{name}":[{",".join(rows)}]')
        parts += [f'"{name}":{encode(value)}' for name, value in self.more.items()]
        return ",".join(parts)

    def say(
        self, slot: int, seq: int, message: ConversationMessage, more: str | None, given: bool, revision: int
    ) -> None:
        """Add a message, of which `more` tells some fields."""
        text = (
            f'{{"seq":{seq},"message_id":"{message.message_id}","role":"{message.role}",'
            f'"content":{encode(message.content)},"timestamp":"{message.timestamp.isoformat()[:-6]}Z"'
        )
        if more is not None:
            text = f"{text},{more[1:-1]}"
        self.said.append(text + "}")
        place = f',"slot":{slot}' if slot else ""
        self.messages.append(f'{text},"revision":{revision},"given":{"true" if given else "false"}{place}}}')

    def key(self, key: str, version: int, text: str | None) -> None:
        """Add a version of a key; no text for one that was removed."""
        value = "" if text is None else f',"value":{text}'
        self.keys.append(f'{{"key":{encode(key)},"version":{version}{value}}}')

    def record(self, slot: int, record: Invocation, revision: int | None, numbers: str | None, body: str) -> None:
        """Add a record, of which `body` tells some fields."""
        values = {name: value for name in _COLUMNS if (value := getattr(record, name)) is not None}
        parts = [encode(values)[:-1]]
        if body != "{}":
            parts.append(body[1:-1])
        if revision is not None:
            parts.append(f'"revision":{revision}')
        if slot:
            parts.append(f'"slot":{slot}')
        if numbers:
            parts.append(f'"numbers":{numbers}')
        self.records.append(",".join(parts) + "}")


def sealed(text: str, before: Place) -> tuple[bytes, Place]:
    """The line, and where the log ends with it."""
    body = text.encode()
    sum_ = crc32(body, before.sum)
    end = Place(before.size + len(body) + TAIL, before.lines + 1, sum_)
    return body + tail(end), end


def tail(end: Place) -> bytes:
    """What a log that ends there ends with."""
    return b',"sum":"%08x"}\n' % end.sum


def sum_at_end(tail: bytes) -> int | None:
    """The checksum in the last bytes of a line; None where there is none."""
    if len(tail) < TAIL or not (tail.startswith(b',"sum":"', -TAIL) and tail.endswith(b'"}\n')):
        return None
    try:
        return int(tail[-11:-3], 16)
    except ValueError:
        return None


class Line(NamedTuple):
    """A line that was read: what it says, and where it ends."""

    raw: bytes
    entry: dict[str, Any]
    end: Place


def read(file: BinaryIO, start: Place) -> Iterator[Line]:
    """The lines from a place on, up to the first that is not as it was written."""
    file.seek(start.size)
    place = start
    for raw in file:
        line = _line(raw, place)
        if line is None:
            return
        place = line.end
        yield line


def intact(file: BinaryIO, end: Place) -> bool:
    """Whether all that a log has up to a place is what was written there."""
    file.seek(0)
    place = Place()
    while place.size < end.size:
        raw = file.readline()
        sum_ = sum_at_end(raw)
        if sum_ is None or crc32(raw[:-TAIL], place.sum) != sum_:
            return False
        place = Place(place.size + len(raw), place.lines + 1, sum_)
    return place == end


def _line(raw: bytes, before: Place) -> Line | None:
    sum_ = sum_at_end(raw)
    if sum_ is None or crc32(raw[:-TAIL], before.sum) != sum_:
        return None
    try:
        entry = cast("dict[str, Any]", decode(raw))
    except ValueError:
        return None
    if entry.get("line") != before.lines + 1:
        return None
    return Line(raw, entry, Place(before.size + len(raw), before.lines + 1, sum_))


def message_in(values: Mapping[str, Any]) -> ConversationMessage:
    """A message of an entry."""
    return ConversationMessage.model_validate(
        {name: values[name] for name in ConversationMessage.model_fields if name in values}
    )


def record_in(values: Mapping[str, Any]) -> Invocation:
    """A record of an entry."""
    return Invocation.model_validate({name: values[name] for name in Invocation.model_fields if name in values})


def metadata_in(values: Mapping[str, Any]) -> SessionMetadata:
    """The head of a session that an entry makes."""
    return SessionMetadata.from_dict(values)


def head_in(values: Mapping[str, Any], known: SessionMetadata) -> dict[str, Any]:
    """The fields of a head that an entry alters, as values."""
    whole = SessionMetadata.from_dict({**known.to_dict(), **values})
    return {name: getattr(whole, name) for name in values}
