"""Resources: a session's head, messages and values, whole, for what a tool's result had to cut.

A read of one is a recorded call, like any other.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

from mcp import MCPError
from mcp.types import INVALID_PARAMS, ReadResourceResult, ResourceTemplate, TextResourceContents

from .._json import encode
from ..calls import Call
from ..drafts import checked_id, checked_key
from ..errors import InvalidArgumentError, SessionsError, StorageError
from ..manager import SessionManager
from ..models import Want

JSON = "application/json"
MESSAGES_AT_ONCE = 1_000
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
        uri_template="session:///{session_id}/data/{key}",
        name="value",
        title="Value of a key",
        description="One stored value, whole.",
        mime_type=JSON,
    ),
]
_URI = re.compile(r"session:///(?P<id>[^/?#]+)(?:/(?P<messages>messages)|/data/(?P<key>[^/?#]+))?\Z")


def read(manager: SessionManager, uri: str, *, caller: str) -> ReadResourceResult:
    """What a uri names, as JSON. Raises MCPError: INVALID_PARAMS, with the uri, for one that names nothing."""
    place = _URI.match(uri)
    call = manager.call("resources/read", _session(place), {"uri": uri}, caller, kind="session", reads=True)
    try:
        with call:
            text = encode(_found(call, place))
    except StorageError:
        raise
    except SessionsError as error:
        raise MCPError(INVALID_PARAMS, str(error), {"uri": uri}) from error
    return ReadResourceResult(contents=[TextResourceContents(uri=uri, mime_type=JSON, text=text)])


def _session(place: re.Match[str] | None) -> str | None:
    try:
        return checked_id(place["id"], "session_id") if place is not None else None
    except InvalidArgumentError:
        return None


def _found(call: Call, place: re.Match[str] | None) -> Any:
    if place is None or call.session_id is None:
        known = ", ".join(template.uri_template for template in TEMPLATES)
        raise InvalidArgumentError(f"The uri is no resource; there are {known}.", argument="uri")
    if place["key"] is not None:
        return _value(call, call.session_id, place["key"])
    if place["messages"] is not None:
        return _messages(call, call.session_id)
    call.count = 1
    return call.manager.metadata(call.session_id, as_user=call.as_user).to_dict()


def _value(call: Call, session_id: str, quoted: str) -> Any:
    try:
        key = checked_key(unquote(quoted, errors="strict"), call.manager.limits)
    except UnicodeDecodeError:
        raise InvalidArgumentError("The key in the uri is not UTF-8.", argument="uri") from None
    view = call.manager.view(session_id, Want(keys=(key,), as_user=call.as_user))
    if key not in view.data:
        raise InvalidArgumentError(f"Session {session_id} has no key '{key}'.", argument="uri")
    call.count = 1
    return view.data[key].value


def _messages(call: Call, session_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = call.manager.messages(session_id, MESSAGES_AT_ONCE, cursor, "oldest", as_user=call.as_user)
        found += [message.to_dict() for message in page.items]
        cursor = page.next_cursor
        if cursor is None:
            call.count = len(found)
            return found
