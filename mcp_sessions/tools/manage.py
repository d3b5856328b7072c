"""The manage toolset: change, copy, write out and remove sessions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from ..calls import HEAD, NOTE, REMOVED, Call
from ..errors import InvalidArgumentError
from ..models import SessionStatus, Text, Want
from . import outputs as out
from .arguments import HIDDEN, Arg, Cursor, JsonObject, SessionId, Tags, Texts
from .exporting import exported
from .keys import refuse_kept
from .toolbox import Toolbox, noted

MANAGE = Toolbox()
tool = MANAGE.tool


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
    call.keep_once("metadata@revision", metadata=metadata)
    return HEAD


@tool(
    title="Remove values",
    toolset="manage",
    destructive=True,
    idempotent=True,
    kind="session",
    output=out.result({"more_removed": out.INTEGER}, session_id=out.TEXT, removed=out.TEXTS),
    line=lambda result, _: (
        f"Removed {', '.join(result['removed']) if result['removed'] else 'nothing'} from {result['session_id']}."
    ),
)
def session_unset(call: Call, session_id: SessionId, keys: Texts, all: Annotated[bool, HIDDEN] = False) -> Any:
    """Remove stored values by key. Messages stay."""
    if not keys and not all:
        raise InvalidArgumentError("keys is empty. Name the keys to remove.", argument="keys")
    refuse_kept(call, session_id, keys, everything=all)
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
    content, more = exported(call, session_id, format, cursor)
    result = {"format": format, "content": content}
    return result if more is None else {**result, "next_cursor": more}


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
