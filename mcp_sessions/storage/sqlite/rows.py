"""Rows to values and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter
from typing import Any

from ..._json import decode, encode
from ...models import (
    ConversationMessage,
    Failure,
    Invocation,
    InvocationStatus,
    SessionMetadata,
    SessionStatus,
)
from ..heads import NANO, joined, nanos
from ..times import micros, moment
from ..words import fold
from .driver import Row

_STATUS = {status.value: status for status in SessionStatus}
_RECORD_STATUS = {status.value: status for status in InvocationStatus}
_DECODE: dict[str, Callable[[Any], Any]] = {
    "status": _STATUS.__getitem__,
    "created_at": moment,
    "updated_at": moment,
    "ended_at": moment,
    "tags": decode,
    "custom_metadata": decode,
    "tools_used": decode,
    "token_usage": decode,
    "estimated_cost": lambda cost: cost / NANO,
}
_ENCODE: dict[str, Callable[[Any], Any]] = {
    "status": lambda status: status.value,
    "created_at": micros,
    "updated_at": micros,
    "ended_at": micros,
    "tags": encode,
    "custom_metadata": encode,
    "tools_used": encode,
    "token_usage": encode,
    "estimated_cost": nanos,
}
HEAD_COLUMNS = (
    *("sid", "session_id", "user_id", "status", "created_at", "updated_at", "ended_at", "purpose", "summary"),
    *("parent_id", "tags", "custom_metadata", "revision", "last_seq", "message_count", "total_invocations"),
    *("failed_invocations", "total_duration_ms", "tools_used", "token_usage", "estimated_cost"),
    "unpriced_invocations",
)
_PLACE = {name: (place, _DECODE.get(name)) for place, name in enumerate(HEAD_COLUMNS)}
_FIELDS = [(name, *_PLACE[name]) for name in SessionMetadata.model_fields]
MORE = ("tool_name", "invocation_id", "tool_calls", "tool_call_id", "payload", "model", "token_usage")
_NO_MORE = dict.fromkeys(MORE)
_NOTHING = (None,) * len(MORE)
_more = attrgetter(*MORE)
RECORD = (
    "r.invocation_id, r.user_id, r.tool_name, r.kind, r.status, r.started_at, r.duration_ms, r.model, r.token_usage, "
    "r.scope, r.body, s.session_id, r.revision, r.numbers"
)
"""The columns of `record_of`, from `records r LEFT JOIN sessions s`."""
_BODY = (
    *("caller", "attempt", "parent_id", "native_id", "arguments", "result", "error", "refs", "cost", "cost_source"),
    *("digest", "fills", "cut", "owner"),
)
"""The fields of a record that have no column."""
_NO_BODY = dict.fromkeys(_BODY)


class HeadRow(Mapping[str, Any]):
    """A row of `sessions` whose columns are decoded when they are looked at, under what a change made of them."""

    __slots__ = ("_new", "_row")

    def __init__(self, row: Row, new: Mapping[str, Any] | None = None) -> None:
        self._row = row
        self._new: Mapping[str, Any] = new or {}

    def __getitem__(self, name: str) -> Any:
        if name in self._new:
            return self._new[name]
        place, decoder = _PLACE[name]
        value = self._row[place]
        return value if decoder is None or value is None else decoder(value)

    def __iter__(self) -> Iterator[str]:
        return iter(HEAD_COLUMNS)

    def __len__(self) -> int:
        return len(HEAD_COLUMNS)

    @property
    def sid(self) -> int:
        return self._row[0]

    @property
    def indexed(self) -> int:
        """The seq up to which its messages are in the search index."""
        return self._row[-1]

    def altered(self, new: Mapping[str, Any]) -> HeadRow:
        """The head after `new`."""
        return HeadRow(self._row, new)


def metadata_of_row(row: Row) -> SessionMetadata:
    """The head in a row of `sessions`."""
    values: dict[str, Any] = {}
    for name, place, decoder in _FIELDS:
        value = row[place]
        values[name] = value if decoder is None or value is None else decoder(value)
    return SessionMetadata.known(values)


def column(name: str, value: Any) -> Any:
    """A field of the head as its column holds it."""
    if name in _ENCODE and value is not None:
        return _ENCODE[name](value)
    return value


def row_of_metadata(metadata: SessionMetadata) -> list[Any]:
    """The columns of a head, from session_id on."""
    return [column(name, getattr(metadata, name)) for name in HEAD_COLUMNS[1:]]


def folded(session_id: str, purpose: str | None, tags: list[str]) -> str:
    """What text filters look at."""
    return fold(" ".join([session_id, purpose or "", *tags]))


def more_of(message: ConversationMessage) -> str | None:
    """The fields that most messages lack, as JSON; None where this one lacks them too."""
    if _more(message) == _NOTHING:
        return None
    return message.model_dump_json(include=set(MORE), exclude_none=True)


def message_of(row: Row) -> ConversationMessage:
    """From (seq, message_id, role, content, timestamp, more)."""
    seq, message_id, role, content, timestamp, more = row
    fields: dict[str, Any] = {
        "seq": seq,
        "message_id": message_id,
        "role": role,
        "content": content,
        "timestamp": moment(timestamp),
    }
    if more:
        return ConversationMessage.model_validate(fields | decode(more))
    return ConversationMessage.known(fields | _NO_MORE)


def body_of(record: Invocation) -> str:
    """The fields of a record that have no column, as JSON."""
    values = vars(record)
    return encode({name: values[name] for name in _BODY if values[name] is not None})


def record_of(row: Row) -> Invocation:
    """From the columns RECORD."""
    id_, user_id, tool_name, kind, status, started_at, duration_ms, model, usage, scope, body, *place = row
    session_id, revision, numbers = place
    fields: dict[str, Any] = decode(body)
    if "error" in fields:
        fields["error"] = Failure.known(fields["error"])
    record = Invocation.known(
        {
            **_NO_BODY,
            **fields,
            "invocation_id": id_,
            "session_id": session_id,
            "user_id": user_id,
            "tool_name": tool_name,
            "kind": kind,
            "status": _RECORD_STATUS[status],
            "started_at": moment(started_at),
            "duration_ms": duration_ms,
            "revision": revision,
            "model": model,
            "token_usage": decode(usage) if usage else None,
            "scope": scope,
        }
    )
    return joined(record, session_id, revision, decode(numbers)) if numbers else record
