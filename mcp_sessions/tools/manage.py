"""The manage toolset: change, copy, write out and remove sessions."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any, Literal

from .._json import encode
from ..calls import HEAD, NOTE, REMOVED, Call
from ..errors import InvalidArgumentError
from ..models import Invocation, SessionStatus, Text, View, Want
from ..storage.cursors import pack, unpack
from ..storage.whole import EVERYTHING
from . import outputs as out
from .arguments import HIDDEN, Arg, Cursor, JsonObject, SessionId, Tags, Texts
from .fitting import FRAME, fitted
from .toolbox import Toolbox, noted

MANAGE = Toolbox()
tool = MANAGE.tool
EXPORT_FORMAT = "mcp-sessions/1"


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
    purpose: Text | None = None,
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
def session_unset(call: Call, session_id: SessionId, keys: Texts, all: Annotated[bool, HIDDEN] = False) -> Any:
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
        + noted(result)
    ),
)
def session_fork(
    call: Call,
    session_id: SessionId,
    at_seq: Annotated[int | None, Arg("last message to copy")] = None,
    new_session_id: Annotated[Text | None, Arg(blank=True)] = None,
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
    view = _everything(call, session_id)
    content = as_json(view) if format == "json" else as_markdown(view)
    call.count = len(view.messages) + len(view.data)
    question = f"session_export {session_id} {format}"
    digest = hashlib.sha256(content.encode()).hexdigest()[:16]
    place = unpack(question, cursor, (int, str))
    start, before = place if place is not None else (0, digest)
    if before != digest:
        raise InvalidArgumentError(
            f"Session {session_id} changed since the first piece was written out. Begin again without a cursor.",
            argument="cursor",
        )
    piece = content[max(start, 0) :]
    if call.room is not None:
        piece = fitted(piece, call.room - FRAME)
    end = max(start, 0) + len(piece)
    result: dict[str, Any] = {"format": format, "content": piece}
    if end < len(content):
        result["next_cursor"] = pack(question, [end, digest])
    return result


def _everything(call: Call, session_id: str) -> View:
    """All of a session as of one moment, internal keys included."""
    while True:
        want = Want(
            prefix="", messages=EVERYTHING, order="oldest", records=EVERYTHING, usage=True, as_user=call.as_user
        )
        view = call.manager.view(session_id, want)
        internal = call.manager.view(session_id, Want(prefix=".", as_user=call.as_user))
        if internal.metadata.revision == view.metadata.revision:
            return view.model_copy(update={"data": {**view.data, **internal.data}})


def as_json(view: View) -> str:
    """A session as one JSON document, from which an equal one can be made."""
    return encode(
        {
            "format": EXPORT_FORMAT,
            "metadata": view.metadata.to_dict(),
            "messages": [message.to_dict() for message in view.messages],
            "data": {key: {"value": value.value, "version": value.version} for key, value in view.data.items()},
            "invocations": [_counted_once(record) for record in view.records],
        }
    )


def _counted_once(record: Invocation) -> dict[str, Any]:
    """The record with what tells a repeated call from another one, so that where it is restored none counts twice."""
    more = {"scope": record.scope, "digest": record.digest, "cut": record.cut or None}
    return record.to_dict() | {name: value for name, value in more.items() if value is not None}


def as_markdown(view: View) -> str:
    """A session to read: what it is, what was said, what was stored, what was called."""
    head = view.metadata
    parts = [_heading(1, head.purpose or head.session_id), ""]
    facts = {
        "session": head.session_id,
        "status": head.status.value,
        "created": head.created_at.isoformat(timespec="seconds"),
        "updated": head.updated_at.isoformat(timespec="seconds"),
        "tags": ", ".join(head.tags),
        "summary": head.summary or "",
    }
    parts += [f"- {name}: {_one_line(fact)}" for name, fact in facts.items() if fact]
    for message in view.messages:
        name = f" ({message.tool_name})" if message.tool_name else ""
        when = message.timestamp.isoformat(timespec="seconds")
        parts += ["", _heading(2, f"{message.seq}. {message.role}{name}, {when}"), "", _closed(message.content)]
    if view.data:
        parts += ["", "## Data"]
        for key, value in view.data.items():
            parts += ["", _heading(3, key), "", _fenced(encode(value.value), "json")]
    if calls := [record for record in reversed(view.records) if record.kind == "work"]:
        parts += ["", "## Calls", ""]
        parts += [_called(record) for record in calls]
    return "\n".join(parts) + "\n"


def _heading(level: int, text: str) -> str:
    return f"{'#' * level} {_one_line(text)}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _fenced(text: str, language: str) -> str:
    """Text in a fence that is longer than any in it."""
    longest = max(map(len, re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _closed(text: str) -> str:
    """Text as it is, with a code fence that it leaves open closed: what follows is not part of its code."""
    fence = ""
    for line in text.splitlines():
        mark = re.match(r" {0,3}(`{3,}|~{3,})(.*)", line)
        if mark is None:
            continue
        if not fence:
            fence = mark[1]
        elif mark[1].startswith(fence) and not mark[2].strip():
            fence = ""
    return f"{text}\n{fence}" if fence else text


def _called(record: Invocation) -> str:
    took = f", {record.duration_ms:g} ms" if record.duration_ms is not None else ""
    failure = f": {_one_line(record.error.message)}" if record.error is not None else ""
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
            f"Nothing deleted. This would remove session {session_id}{purpose} for good: {head.message_count} "
            f"messages, {len(view.names)} keys, and the records of its calls. If the user wants that, call again "
            "with confirm=true.",
            argument="confirm",
        )
    call.delete()
    return {"session_id": session_id, "deleted": True}
