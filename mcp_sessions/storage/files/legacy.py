"""The layout of sessions before there was a log: a directory each, of JSON files. It is read here, and never written.

What can be read is kept. Where something has no place in a session of today, or is no value that stores take, it
stands there in the nearest form, and as it was under a name of its own: of a message in its payload, of the head in its
custom_metadata. Reading a directory twice gives the same session, ids included.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

from ..._json import MAX_DEPTH, MAX_INT_BITS
from ...errors import StorageError
from ...models import (
    ID_PATTERN,
    MOST_NANO_USD,
    MOST_TOKENS,
    OTHER_ROLES,
    ConversationMessage,
    Invocation,
    Role,
    SessionMetadata,
    SessionStatus,
    TokenUsage,
    Value,
    View,
    tokens,
)
from ...session import derived_id
from ..heads import NANO, nanos
from ..whole import INVOCATION_DIR
from .folder import LOG

METADATA = "metadata.json"
LEGACY = "mcp-sessions/legacy"
"""Where a message's payload or a session's custom_metadata keeps what was different before."""
UNKNOWN_TOOL = "unknown"
_NOTHING: tuple[Any, ...] = (None, "", [], {})
_NOT_TEXT = re.compile("[\0\ud800-\udfff]")
T = TypeVar("T")


def is_legacy(directory: Path) -> bool:
    """Whether a session of the old layout stands in a directory."""
    return _has_no_log(directory) and not _has_revision(directory)


def has_lost_its_log(directory: Path) -> bool:
    """Whether views of a session stand in a directory, and not the log that they tell of."""
    return _has_no_log(directory) and _has_revision(directory)


def legacy_sessions(tree: Path) -> Iterator[Path]:
    """The directories with a session of the old layout, in a directory and below it; links are not followed.

    Raises OSError for a directory that cannot be looked into.
    """

    def refuse(error: OSError) -> None:
        raise error

    for place, below, _ in os.walk(tree, onerror=refuse):
        below.sort()
        if is_legacy(Path(place)):
            yield Path(place)


def read_legacy(directory: Path) -> View:
    """The session in a directory of the old layout, whole, as `restore` takes it.

    A last line that was not written to its end is no message. Raises StorageError, which says where and what to do,
    for a file that cannot be read or holds no JSON, and for a head without legal id, known status or times.
    """
    try:
        return _read(directory)
    except OSError as error:
        raise StorageError(f"{error.filename or directory}: {error.strerror}. See to it, then try again.") from error
    except RecursionError as error:
        raise StorageError(
            f"{directory}: its JSON is nested too deeply to be read. Mend it, then try again."
        ) from error


def _read(directory: Path) -> View:
    old = _object(directory / METADATA)
    head = _head(directory / METADATA, old)
    messages, torn = _conversation(directory, head)
    records = _records(directory, head, messages)
    counts: dict[str, Any] = {
        "last_seq": len(messages),
        "message_count": len(messages),
        "total_invocations": max(head.total_invocations, len(records)),
    }
    if torn:
        left = head.custom_metadata.get(LEGACY, {})
        counts["custom_metadata"] = {**head.custom_metadata, LEGACY: {**left, "torn message": _text(torn)}}
    data = {**_links(directory), **_kept(_object(directory / "data.json", {}))}
    return View(
        metadata=head.model_copy(update=counts),
        data={key: Value(value=value, version=1) for key, value in data.items()},
        messages=messages,
        records=records,
    )


# the head


def _head(path: Path, old: dict[str, Any]) -> SessionMetadata:
    fields = {name: form(old.get(name)) for name, form in _FORMS.items()}
    left = {name: value for name, value in old.items() if not _stands(name, value, fields)}
    if left:
        fields["custom_metadata"] = {**fields["custom_metadata"], LEGACY: left}
    status = _required(path, old, "status", SessionStatus)
    updated_at = _required(path, old, "updated_at", _moment)
    return SessionMetadata(
        session_id=_session_id(path, old),
        status=status,
        created_at=_required(path, old, "created_at", _moment),
        updated_at=updated_at,
        ended_at=None if status is SessionStatus.ACTIVE else updated_at,
        revision=1,
        **{**fields, "custom_metadata": _kept(fields["custom_metadata"])},
    )


def _stands(name: str, old: Any, fields: dict[str, Any]) -> bool:
    """Whether a field of the old head stands in the new one, or says nothing."""
    if old in _NOTHING or (name in _KNOWN and name not in fields):
        return True
    new = fields.get(name)
    return new == old or (isinstance(new, dict) and isinstance(old, dict) and new | old == new)


def _session_id(path: Path, old: dict[str, Any]) -> str:
    session_id = old.get("session_id")
    if isinstance(session_id, str) and re.fullmatch(ID_PATTERN, session_id):
        return session_id
    raise StorageError(
        f"{path}: the session_id {str(session_id)[:130]!r} is not legal: an id is up to 128 letters, "
        "digits, '.', '_' and '-', of which the first is a letter or digit. Change it there, then try again."
    )


def _required(path: Path, old: dict[str, Any], name: str, form: Callable[[Any], T | None]) -> T:
    found = None
    with suppress(ValueError):
        found = form(old.get(name))
    if found is None:
        fact = f"{name} is {json.dumps(old.get(name))[:80]}, which it cannot be"
        raise StorageError(f"{path}: {fact}. Mend it there, then try again.")
    return found


def _moment(text: Any) -> datetime | None:
    """A time; one without a zone was the local time of this computer."""
    with suppress(TypeError, ValueError, OverflowError, OSError):
        return datetime.fromisoformat(text).astimezone(UTC)
    return None


def _count(value: Any) -> int:
    return value if isinstance(value, int) and 0 <= value < 1 << 62 else 0


def _amount(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and 0 <= value < 1 << 62 else 0.0


def _cost(value: Any) -> float:
    return min(nanos(_amount(value)), MOST_NANO_USD) / NANO


def _usage(value: Any) -> TokenUsage:
    named = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    return tokens(**{name: min(_count(named.get(name)), MOST_TOKENS) for name in tokens()})


def _texts(value: Any) -> list[str]:
    return [_text(one) for one in cast("list[Any]", value)] if isinstance(value, list) else []


def _optional_text(value: Any) -> str | None:
    return None if value is None else _text(value)


def _members(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


_FORMS: dict[str, Callable[[Any], Any]] = {
    "user_id": _optional_text,
    "purpose": _optional_text,
    "tags": _texts,
    "total_invocations": _count,
    "total_duration_ms": _amount,
    "tools_used": _texts,
    "estimated_cost": _cost,
    "token_usage": _usage,
    "custom_metadata": _members,
}
_KNOWN = {"session_id", "status", "created_at", "updated_at", *_FORMS}


# the parts


def _conversation(directory: Path, head: SessionMetadata) -> tuple[list[ConversationMessage], str]:
    """The messages, and the last line where it is torn."""
    path = directory / "conversation.jsonl"
    messages: list[ConversationMessage] = []
    earlier = head.created_at
    with suppress(FileNotFoundError), path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = _parsed(path, line.strip(), number)
            except StorageError:
                if line.endswith(b"\n"):
                    raise
                return messages, line.decode(errors="backslashreplace")
            if not isinstance(row, dict):
                raise _damaged(path, number, "is not an object")
            messages.append(_message(head.session_id, len(messages) + 1, cast("dict[str, Any]", row), earlier))
            earlier = messages[-1].timestamp
    return messages, ""


def _message(session_id: str, seq: int, row: dict[str, Any], earlier: datetime) -> ConversationMessage:
    timestamp = _moment(row.get("timestamp"))
    fields: dict[str, Any] = {
        "role": _role(row.get("role")),
        "content": _text(row.get("content")),
        "tool_name": _optional_text(row.get("tool_name")),
        "invocation_id": None if row.get("invocation_id") is None else _call_id(session_id, row["invocation_id"]),
    }
    seen = fields if timestamp is None else {**fields, "timestamp": row["timestamp"]}
    same = all(seen.get(name) == value for name, value in row.items() if value not in _NOTHING)
    whole = same and bool(row.get("role") and row.get("timestamp"))
    return ConversationMessage(
        seq=seq,
        message_id=derived_id("msg", session_id, str(seq)),
        timestamp=timestamp or earlier,
        payload=None if whole else {LEGACY: _kept(row)},
        **fields,
    )


def _role(role: Any) -> Role:
    """A role that nobody knows becomes the one that is trusted least."""
    known = OTHER_ROLES.get(role, role) if isinstance(role, str) else role
    return cast("Role", known) if known in get_args(Role) else "user"


def _call_id(session_id: str, old: Any) -> str:
    if isinstance(old, str) and re.fullmatch(ID_PATTERN, old):
        return old
    return derived_id("inv", session_id, _text(old))


def _records(directory: Path, head: SessionMetadata, messages: list[ConversationMessage]) -> list[Invocation]:
    """The calls, the last one first. Of most of them nothing is known but the id; of some a message tells the tool."""
    path = directory / "invocations.json"
    listed: object = _parsed(path, raw) if (raw := _raw(path)) is not None else []
    if not isinstance(listed, list):
        raise _damaged(path, 1, "is not a list")
    told = {message.invocation_id: message for message in reversed(messages)}
    records: dict[str, Invocation] = {}
    for old in cast("list[Any]", listed):
        invocation_id = _call_id(head.session_id, old)
        message = told.get(invocation_id)
        records[invocation_id] = Invocation(
            invocation_id=invocation_id,
            session_id=head.session_id,
            user_id=head.user_id,
            tool_name=(message and message.tool_name) or UNKNOWN_TOOL,
            started_at=message.timestamp if message else head.created_at,
            native_id=None if invocation_id == old else _text(old),
            scope="session",
        )
    return [*reversed(records.values())]


def _links(directory: Path) -> dict[str, str]:
    """Where the calls left their files, as `link_invocation` keeps it; also where nothing stands there any more."""
    place = directory / "invocations"
    links = sorted(place.iterdir()) if place.is_dir() else []
    return {INVOCATION_DIR + _text(link.name): _text(os.path.realpath(link)) for link in links}


# JSON


def _has_no_log(directory: Path) -> bool:
    return (directory / METADATA).is_file() and not (directory / LOG).exists()


def _has_revision(directory: Path) -> bool:
    """Whether the head that stands there is a view: in the old layout none had a revision."""
    with suppress(OSError, RecursionError, StorageError):
        return "revision" in _object(directory / METADATA)
    return False


def _object(path: Path, absent: dict[str, Any] | None = None) -> dict[str, Any]:
    raw = _raw(path)
    if raw is None and absent is not None:
        return absent
    if raw is None:
        raise StorageError(f"{path} is not there, so there is no session. Put it back, then try again.")
    found = _parsed(path, raw)
    if not isinstance(found, dict):
        raise _damaged(path, 1, "is not an object")
    return cast("dict[str, Any]", found)


def _raw(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _parsed(path: Path, raw: bytes, line: int = 1) -> Any:
    try:
        return json.loads(raw.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise _damaged(path, line + error.lineno - 1, f"is not JSON ({error.msg})") from error
    except ValueError as error:
        raise _damaged(path, line, f"cannot be read ({error})") from error


def _damaged(path: Path, line: int, fact: str) -> StorageError:
    return StorageError(f"{path}, line {line}, {fact}. Nothing was changed. Mend or remove it, then try again.")


def _kept(value: Any, depth: int = 0) -> Any:
    """A value that every store takes, alike wherever it can be; what JSON or a store does not know becomes text."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, (dict, list)):
        if depth >= MAX_DEPTH:
            return _text(json.dumps(value))
        if isinstance(value, list):
            return [_kept(item, depth + 1) for item in cast("list[Any]", value)]
        return {_text(name): _kept(item, depth + 1) for name, item in cast("dict[str, Any]", value).items()}
    large = isinstance(value, int) and value.bit_length() > MAX_INT_BITS
    endless = isinstance(value, float) and not math.isfinite(value)
    return json.dumps(value) if large or endless else value


def _text(value: Any) -> str:
    """Text: as it is, but for characters that no store takes, which become escapes; of all else its JSON."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return _NOT_TEXT.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
