"""Resources: sessions listed newest first; a session's head, messages and values, whole, for what a result had to cut.

A read of one is a recorded call, like any other. A listing is none: hosts ask for it by themselves, again and again.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from typing import Any
from urllib.parse import unquote

from mcp import MCPError
from mcp.types import (
    INVALID_PARAMS,
    Annotations,
    ListResourcesResult,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    TextResourceContents,
)
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

from .._json import encode
from ..calls import Call
from ..drafts import checked_id, checked_key
from ..errors import InvalidArgumentError, InvalidCursorError, SessionNotFoundError, SessionsError, StorageError
from ..manager import SessionManager
from ..models import ConversationMessage, Limits, SessionMetadata, Want
from ..tools.fitting import LONG_PURPOSE, data_uri, message_uri, session_uri, shortened
from ..tools.toolbox import latest_active

JSON = "application/json"
RESOURCE_NOT_FOUND = -32002
"""In the old era: the new one has INVALID_PARAMS for it."""
SESSIONS_AT_ONCE = 100
MESSAGES_AT_ONCE = 100
MOST_CHARS = 32 << 20
"""Of JSON, in one answer with all messages; a message by itself may be longer."""
TEMPLATES = [
    ResourceTemplate(
        uri_template="session:///{session_id}",
        name="session",
        title="Session",
        description="What a session is: status, purpose, tags, counts.",
        mime_type=JSON,
    ),
    ResourceTemplate(
        uri_template="session:///{session_id}/messages",
        name="messages",
        title="Messages of a session",
        description="All messages of a session, oldest first.",
        mime_type=JSON,
    ),
    ResourceTemplate(
        uri_template="session:///{session_id}/messages/{seq}",
        name="message",
        title="Message of a session",
        description="One message, whole, by its number.",
        mime_type=JSON,
    ),
    ResourceTemplate(
        uri_template="session:///{session_id}/data/{key}",
        name="value",
        title="Value of a key",
        description="One stored value, whole.",
        mime_type=JSON,
    ),
]
_URI = re.compile(
    r"session:///(?P<id>[^/?#]+)(?:/messages/(?P<seq>[1-9]\d{0,17})|/(?P<messages>messages)|/data/(?P<key>[^/?#]+))?\Z",
    re.ASCII,
)


def listed(manager: SessionManager, cursor: str | None, *, as_user: str | None = None) -> ListResourcesResult:
    """A page of sessions, newest first. Raises MCPError, INVALID_PARAMS, for a cursor that was not given out."""
    try:
        page = manager.query(cursor=cursor, limit=SESSIONS_AT_ONCE, as_user=as_user)
    except InvalidCursorError as error:
        raise MCPError(INVALID_PARAMS, str(error)) from error
    return ListResourcesResult(resources=[_resource(head) for head in page.items], next_cursor=page.next_cursor)


def _resource(head: SessionMetadata) -> Resource:
    about = f"{head.status}, {head.message_count:,} message{'' if head.message_count == 1 else 's'}"
    if head.tags:
        about += f", tagged {', '.join(head.tags)}"
    return Resource(
        uri=session_uri(head.session_id),
        name=head.session_id,
        title=shortened(" ".join((head.purpose or "").split()), LONG_PURPOSE) or head.session_id,
        description=shortened(about, LONG_PURPOSE),
        mime_type=JSON,
        annotations=Annotations(last_modified=head.model_dump(mode="json")["updated_at"]),
    )


class TooLongError(InvalidArgumentError):
    """It is there, and more than one answer takes."""


def read(
    manager: SessionManager,
    uri: str,
    *,
    revision: str,
    caller: str,
    most_bytes: int | None = None,
    as_user: str | None = None,
) -> ReadResourceResult:
    """What a uri names, as JSON. Raises MCPError, with the uri: INVALID_PARAMS for what takes too much, as more than
    `most_bytes` within an answer; for a uri that names nothing the code that this revision of the protocol has for it.
    """
    place = _URI.match(uri)
    session_id = _session(place)
    call = manager.call("resources/read", session_id, {"uri": uri}, caller, kind="session", reads=True, as_user=as_user)
    try:
        with call:
            text = _found(call, place)
            if most_bytes is not None:
                _check_length(text, uri, most_bytes)
    except StorageError:
        raise
    except SessionsError as error:
        old = revision in HANDSHAKE_PROTOCOL_VERSIONS
        code = RESOURCE_NOT_FOUND if old and not isinstance(error, TooLongError) else INVALID_PARAMS
        if isinstance(error, SessionNotFoundError):
            error = SessionNotFoundError(error.session_id, hint=latest_active(manager, as_user))
        raise MCPError(code, str(error), {"uri": shortened(uri, longest_uri(manager.limits))}) from error
    return ReadResourceResult(contents=[TextResourceContents(uri=uri, mime_type=JSON, text=text)])


def _check_length(text: str, uri: str, most_bytes: int) -> None:
    taken = len(encode(text).encode())
    if taken > most_bytes:
        raise TooLongError(
            f"{uri} takes {taken:,} bytes, and over SSE clients take no more than {most_bytes:,} at once. Read it in "
            "pieces with session_export, messages one by one as session:///{session_id}/messages/{seq}, or connect to "
            "/mcp, where it comes whole.",
            argument="uri",
        )


def longest_uri(limits: Limits) -> int:
    """How many characters the uri of a resource may have."""
    return len(data_uri("a" * limits.id_chars, "\U0010ffff" * limits.key_chars))


def session_of(uri: str) -> str | None:
    """The id of the session that a resource belongs to; None where the uri is none."""
    return _session(_URI.match(uri))


def state(manager: SessionManager, uri: str, *, as_user: str | None = None) -> Hashable:
    """What differs once a resource has changed; None while it is not there. O(1), whatever the resource holds."""
    place = _URI.match(uri)
    session_id = _session(place)
    if place is None or session_id is None:
        return None
    try:
        key = None if place["key"] is None else _key(manager, place["key"])
        seq = None if place["seq"] is None else int(place["seq"])
        view = manager.view(session_id, _want(key, seq, as_user))
    except (SessionNotFoundError, InvalidArgumentError):
        return None
    head = view.metadata
    if key is not None:
        return (head.created_at, view.data[key].version) if key in view.data else None
    if seq is not None:
        return head.created_at if [message.seq for message in view.messages] == [seq] else None
    if place["messages"] is not None:
        return head.created_at, head.last_seq, head.message_count
    return head.created_at, head.revision


def _want(key: str | None, seq: int | None, as_user: str | None) -> Want:
    if key is not None:
        return Want(keys=(key,), as_user=as_user)
    if seq is not None:
        return Want(messages=1, after=seq - 1, order="oldest", as_user=as_user)
    return Want(as_user=as_user)


def _session(place: re.Match[str] | None) -> str | None:
    try:
        return checked_id(place["id"], "session_id") if place is not None else None
    except InvalidArgumentError:
        return None


def _found(call: Call, place: re.Match[str] | None) -> str:
    if place is None or call.session_id is None:
        known = ", ".join(template.uri_template for template in TEMPLATES)
        raise InvalidArgumentError(f"The uri is no resource; there are {known}.", argument="uri")
    if place["messages"] is not None:
        return _messages(call, call.session_id)
    call.count = 1
    if place["key"] is not None:
        return encode(_value(call, call.session_id, place["key"]))
    if place["seq"] is not None:
        return encode(_message(call, call.session_id, int(place["seq"])).to_dict())
    return encode(call.manager.metadata(call.session_id, as_user=call.as_user).to_dict())


def _value(call: Call, session_id: str, quoted: str) -> Any:
    key = _key(call.manager, quoted)
    view = call.manager.view(session_id, _want(key, None, call.as_user))
    if key not in view.data:
        raise InvalidArgumentError(f"Session {session_id} has no key '{key}'.", argument="uri")
    return view.data[key].value


def _key(manager: SessionManager, quoted: str) -> str:
    try:
        return checked_key(unquote(quoted, errors="strict"), manager.limits)
    except UnicodeDecodeError:
        raise InvalidArgumentError("The key in the uri is not UTF-8.", argument="uri") from None


def _message(call: Call, session_id: str, seq: int) -> ConversationMessage:
    for message in call.manager.view(session_id, _want(None, seq, call.as_user)).messages:
        if message.seq == seq:
            return message
    raise InvalidArgumentError(f"Session {session_id} has no message {seq}.", argument="uri")


def _messages(call: Call, session_id: str) -> str:
    found: list[str] = []
    chars = 0
    for message in _each_message(call, session_id):
        found.append(encode(message.to_dict()))
        chars += len(found[-1]) + 1
        if chars > MOST_CHARS:
            raise TooLongError(
                f"The messages of session {session_id} have more than {MOST_CHARS:,} characters, too many for one "
                f"answer. Page through them with session_messages; {message_uri(session_id, 1)} is the first one.",
                argument="uri",
            )
    call.count = len(found)
    return f"[{','.join(found)}]"


def _each_message(call: Call, session_id: str) -> Iterator[ConversationMessage]:
    cursor = None
    while True:
        page = call.manager.messages(session_id, MESSAGES_AT_ONCE, cursor, "oldest", as_user=call.as_user)
        yield from page.items
        cursor = page.next_cursor
        if cursor is None:
            return
