"""The manage toolset: change, copy, write out and remove sessions."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from .._json import encode
from ..calls import HEAD, NOTE, REMOVED, Call
from ..errors import InvalidArgumentError
from ..models import Invocation, SessionStatus, View, Want
from ..storage.cursors import pack, unpack
from ..storage.whole import EVERYTHING
from . import outputs as out
from .arguments import HIDDEN, Arg, Cursor, JsonObject, SessionId, Tags
from .fitting import FRAME
from .toolbox import Toolbox

MANAGE = Toolbox()
tool = MANAGE.tool
EXPORT_FORMAT = "mcp-sessions/1"
EXPORTED_RECORDS = 1000


@tool(
    title="Change a session",
    toolset="manage",
    idempotent=True,
    kind="session",
    output=out.HEAD,
    line=lambda result, arguments: (
        f"{result['session_id']} {'reopened' if arguments.get('reopen') else 'updated'}: {result['status']}"
        + (f"; tags {', '.join(result['tags'])}." if result["tags"] else ".")
    ),
)
def session_update(
    call: Call,
    session_id: SessionId,
    purpose: str | None = None,
    add_tags: Tags | None = None,
    remove_tags: Tags | None = None,
    reopen: bool | None = None,
    tags: Annotated[Tags | None, HIDDEN] = None,
    metadata: Annotated[JsonObject | None, HIDDEN] = None,
) -> Any:
    """Change a session's purpose or tags, or reopen an ended one. What is left out stays."""
    given = {
        "purpose": purpose,
        "add_tags": add_tags,
        "remove_tags": remove_tags,
        "tags": tags,
        "metadata": metadata,
        "status": SessionStatus.ACTIVE if reopen else None,
    }
    if all(value is None for value in given.values()):
        raise InvalidArgumentError(
            "Nothing to change: give purpose, add_tags, remove_tags or reopen=true. session_set stores values."
        )
    call.draft.alter(**given)
    return HEAD


@tool(
    title="Remove values",
    toolset="manage",
    destructive=True,
    idempotent=True,
    kind="session",
    output=out.result(session_id=out.TEXT, removed=out.TEXTS),
    line=lambda result, _: (
        f"Removed {', '.join(result['removed']) if result['removed'] else 'nothing'} from {result['session_id']}."
    ),
)
def session_unset(call: Call, session_id: SessionId, keys: list[str], all: Annotated[bool, HIDDEN] = False) -> Any:
    """Remove stored values by key. Messages stay."""
    if not keys and not all:
        raise InvalidArgumentError("keys is empty. Name the keys to remove.", argument="keys")
    call.draft.unset(keys, everything=all)
    return {"session_id": session_id, "removed": REMOVED}


@tool(
    title="Fork a session",
    toolset="manage",
    new_session=True,
    kind="session",
    output=out.HEAD,
    line=lambda result, arguments: (
        f"Forked {arguments.get('session_id')} into {result['session_id']} ({result['message_count']} messages)."
        + (f" Note: {result['note']}" if "note" in result else "")
    ),
)
def session_fork(
    call: Call,
    session_id: SessionId,
    at_seq: Annotated[int | None, Arg("last message to copy")] = None,
    new_session_id: Annotated[str | None, Arg(blank=True)] = None,
) -> Any:
    """Copy messages 1..at_seq and the data as of then, without tool records, into a new session, to try another way
    without touching the first.
    """
    call.fork(at_seq, call.manager.forked_metadata(session_id, new_session_id, as_user=call.as_user))
    return {"*": HEAD, "note": NOTE}


@tool(
    title="Export a session",
    toolset="manage",
    reads=True,
    kind="session",
    output=out.result(out.MORE, format=out.TEXT, content=out.TEXT),
)
def session_export(
    call: Call,
    session_id: SessionId,
    format: Literal["json", "markdown"] = "json",
    cursor: Cursor | None = None,
) -> Any:
    """Write out a whole session as JSON, which can be imported again, or as Markdown to read. Long ones come in pieces:
    pass next_cursor back and join the content.
    """
    want = Want(prefix="", messages=EVERYTHING, order="oldest", records=EXPORTED_RECORDS, as_user=call.as_user)
    view = call.manager.view(session_id, want)
    content = as_json(view) if format == "json" else as_markdown(view)
    call.count = len(view.messages) + len(view.data)
    question = f"session_export {session_id} {format}"
    place = unpack(question, cursor, (int, int))
    start, revision = place if place is not None else (0, view.metadata.revision)
    if revision != view.metadata.revision:
        raise InvalidArgumentError(
            f"Session {session_id} changed since the first piece was written out. Begin again without a cursor.",
            argument="cursor",
        )
    piece = content[start:] if call.room is None else _piece(content, start, call.room - FRAME)
    end = start + len(piece)
    result: dict[str, Any] = {"format": format, "content": piece}
    if end < len(content):
        result["next_cursor"] = pack(question, [end, revision])
    return result


def _piece(content: str, start: int, room: int) -> str:
    # Escapes make JSON of a text longer than the text, six times at the most.
    length = room
    while len(encode(content[start : start + length])) > room:
        length = length * 3 // 4
    return content[start : start + length]


def as_json(view: View) -> str:
    """A session as one JSON document, from which an equal one can be made."""
    return encode(
        {
            "format": EXPORT_FORMAT,
            "metadata": view.metadata.to_dict(),
            "messages": [message.to_dict() for message in view.messages],
            "data": {key: {"value": value.value, "version": value.version} for key, value in view.data.items()},
            "invocations": [record.to_dict() for record in view.records],
        }
    )


def as_markdown(view: View) -> str:
    """A session to read: what it is, what was said, what was stored, what was called."""
    head = view.metadata
    parts = [f"# {head.purpose or head.session_id}", ""]
    facts = {
        "session": head.session_id,
        "status": head.status.value,
        "created": head.created_at.isoformat(timespec="seconds"),
        "updated": head.updated_at.isoformat(timespec="seconds"),
        "tags": ", ".join(head.tags),
        "summary": head.summary or "",
    }
    parts += [f"- {name}: {fact}" for name, fact in facts.items() if fact]
    for message in view.messages:
        name = f" ({message.tool_name})" if message.tool_name else ""
        when = message.timestamp.isoformat(timespec="seconds")
        parts += ["", f"## {message.seq}. {message.role}{name}, {when}", "", message.content]
    if view.data:
        parts += ["", "## Data"]
        for key, value in view.data.items():
            parts += ["", f"### {key}", "", _fenced(encode(value.value), "json")]
    if view.records:
        parts += ["", "## Calls", ""]
        parts += [_called(record) for record in reversed(view.records)]
    return "\n".join(parts) + "\n"


def _fenced(text: str, language: str) -> str:
    """Text in a fence that is longer than any in it."""
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall(r"`+", text)), 3)
    return f"{fence}{language}\n{text}\n{fence}"


def _called(record: Invocation) -> str:
    took = f", {record.duration_ms:g} ms" if record.duration_ms is not None else ""
    failure = f": {record.error.message}" if record.error is not None else ""
    return f"- {record.tool_name} {record.status.value}{took}{failure}"


@tool(
    title="Delete a session",
    toolset="manage",
    destructive=True,
    idempotent=True,
    new_session=True,
    kind="session",
    output=out.result(session_id=out.TEXT, deleted=out.YES),
    line=lambda result, _: f"Deleted {result['session_id']}.",
)
def session_delete(call: Call, session_id: SessionId, confirm: bool = False) -> Any:
    """Delete a session for good, with all messages, data and records. Only when the user asks."""
    if not confirm:
        view = call.manager.view(session_id, Want(names=True, as_user=call.as_user))
        head = view.metadata
        purpose = f' "{head.purpose[:60]}"' if head.purpose else ""
        raise InvalidArgumentError(
            f"Nothing deleted. This would remove session {session_id}{purpose} for good: {head.message_count} messages, "
            f"{len(view.names)} keys, and the records of its calls. If the user wants that, call again with "
            "confirm=true.",
            argument="confirm",
        )
    call.delete()
    return {"session_id": session_id, "deleted": True}
