"""The core toolset: make a session, write it down, find it again, end it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, cast

from .._json import canonical
from ..calls import HEAD, NOTE, REVISION, Call, Number
from ..errors import InvalidArgumentError, InvalidCursorError
from ..manager import checked_limit, ending, usage_of
from ..models import (
    MOST_USD,
    ConversationMessage,
    Hit,
    Json,
    Page,
    Query,
    SessionMetadata,
    SessionStatus,
    Text,
    Value,
    View,
    Want,
)
from ..querying import parse_query, parse_time
from ..storage.cursors import pack, unpack
from ..storage.words import words
from . import outputs as out
from .arguments import (
    HIDDEN,
    Arg,
    Cursor,
    Ending,
    FirstFault,
    JsonObject,
    Name,
    Role,
    SessionId,
    Status,
    Tags,
    Texts,
    Time,
)
from .fitting import FRAME, LONG_PURPOSE, STEP, bounded, data, first, message, page, shortened, size, value
from .keys import refuse_inner, refuse_kept
from .toolbox import Toolbox, ago, noted

CORE = Toolbox()
tool = CORE.tool
Roles = Annotated[list[Literal["user", "assistant", "system", "tool"]], FirstFault()]
HEADS = 100
"""Heads that are read at once: they are bounded, and some orders sort all of them for each page."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@tool(
    title="Create a session",
    toolset="core",
    output=out.HEAD,
    new_session=True,
    kind="session",
    line=lambda result, _: (
        f"Created {result['session_id']}"
        + (f' "{shortened(result["purpose"], LONG_PURPOSE)}"' if "purpose" in result else "")
        + f" ({result['status']})."
        + noted(result)
    ),
)
def session_create(
    call: Call,
    purpose: Text | None = None,
    tags: Tags | None = None,
    session_id: SessionId | None = None,
    user_id: Annotated[Text | None, Arg(hidden=True, blank=True)] = None,
    metadata: Annotated[JsonObject | None, HIDDEN] = None,
    data: Annotated[JsonObject | None, HIDDEN] = None,
) -> Any:
    """Start a durable session for a task and get its session_id, which every other session tool needs. Call once per
    task, after session_query found none to resume; give purpose and tags. Sessions are kept until deleted.
    """
    manager = call.manager
    if call.as_user is not None and user_id not in (None, call.as_user):
        raise InvalidArgumentError(
            "user_id is not yours to choose: you are known already. Leave it out.", argument="user_id"
        )
    owner = call.as_user if call.as_user is not None else user_id
    head = manager.new_metadata(session_id, purpose, owner, tags, metadata)
    for key, one in (data or {}).items():
        refuse_inner([key])
        call.draft.set_value(key, one)
        call.refs[f"data.{key}"] = f"data:{key}@revision"
    call.keep_once("metadata@revision", metadata=metadata)
    call.create(head)
    result: dict[str, Any] = {"*": HEAD}
    twin = _active_twin(call, head)
    if twin is not None:
        result["note"] = (
            f"Active session with this purpose: {twin.session_id}, used {ago(manager.clock(), twin.updated_at)}."
        )
    return result


def _active_twin(call: Call, head: SessionMetadata) -> SessionMetadata | None:
    if not head.purpose:
        return None
    query = Query(
        purpose=head.purpose, status=(SessionStatus.ACTIVE,), user_id=head.user_id, as_user=call.as_user, limit=1
    )
    found = call.manager.query(query).items
    return found[0] if found else None


@tool(
    title="Read a session",
    toolset="core",
    reads=True,
    kind="session",
    output=out.result(
        {
            "session": out.SESSION,
            "data": out.OBJECT,
            "more_keys": out.INTEGER,
            "messages": out.listed(out.MESSAGE),
            "key": out.TEXT,
            "found": out.YES,
            "value": out.ANYTHING,
            "version": out.INTEGER,
            "keys": out.TEXTS,
            "chars": out.INTEGER,
            "resource": out.TEXT,
        },
        session_id=out.TEXT,
    ),
)
def session_get(
    call: Call,
    session_id: SessionId,
    key: Annotated[Text | None, Arg(blank=True)] = None,
    keys: Annotated[Texts | None, HIDDEN] = None,
    messages: Annotated[int, Arg("how many last messages")] = 0,
) -> Any:
    """Read a session: its status, data and last messages (messages=N); or one stored value (key). Call this first when
    resuming.
    """
    if not 0 <= messages <= 1000:
        raise InvalidArgumentError(f"messages {messages} is not between 0 and 1,000.", argument="messages")
    wanted: dict[str, None] = dict.fromkeys([*(keys or ()), *([key] if key is not None else [])])
    room = call.room
    want = Want(
        keys=tuple(wanted),
        prefix=None if wanted else "",
        prefix_chars=room,
        names=True,
        messages=messages if room is None else min(messages, STEP),
        as_user=call.as_user,
    )
    view = call.manager.view(session_id, want)
    result: dict[str, Any] = {"session_id": session_id}
    if key is not None:
        alone = not (keys or messages)
        result |= _one(view, session_id, key, room and (room - 10 * FRAME if alone else room // 2))
    else:
        result["session"] = bounded(view.metadata.to_dict(), room and room // 3)
    if key is None or keys:
        named = {name: one for name, one in view.data.items() if name != key}
        names, values = (named, named.items()) if wanted or room is None else (view.names, _values(call, view))
        part = room and room // 2 if key is None else room and room // 4
        result["data"] = data(((name, one.value) for name, one in values), session_id, part)
        if more := len(names) - len(result["data"]):
            result["more_keys"] = more
    if messages:
        left = room and room - size(result)
        rows, _ = page(
            left,
            messages,
            None,
            lambda count, before: _said(call, view, count, before),
            lambda one: message(one.to_dict(), session_id, left),
        )
        result["messages"] = rows[::-1]
    call.count = len(result.get("data", ())) + len(result.get("messages", ())) + bool(result.get("found"))
    return result


def _values(call: Call, view: View) -> Iterator[tuple[str, Value]]:
    """All keys and their values: the first of them are in the view, the others are read a few at a time."""
    yield from view.data.items()
    for start in range(len(view.data), len(view.names), STEP):
        want = Want(keys=tuple(view.names[start : start + STEP]), as_user=call.as_user)
        yield from call.manager.view(view.metadata.session_id, want).data.items()


def _said(call: Call, view: View, count: int, before: str | None) -> Page[ConversationMessage]:
    """The last messages, or those before a seq; the first few of them are in the view."""
    if before is not None:
        want = Want(messages=count, before=int(before), as_user=call.as_user)
        view = call.manager.view(view.metadata.session_id, want)
    some = view.messages[:count]
    more = view.more_messages or len(some) < len(view.messages)
    return Page[ConversationMessage].model_construct(items=some, next_cursor=str(some[-1].seq) if more else None)


def _one(view: View, session_id: str, key: str, room: int | None) -> dict[str, Any]:
    """One key: its value, a long one cut; or the keys that there are."""
    found = view.data.get(key)
    if found is None:
        names = first(view.names, room)
        result: dict[str, Any] = {"key": key, "found": False, "keys": names}
        return result if len(names) == len(view.names) else {**result, "more_keys": len(view.names) - len(names)}
    return {"key": key, "found": True, "version": found.version, **value(found.value, session_id, key, room)}


@tool(
    title="Store a value",
    toolset="core",
    destructive=True,
    idempotent=True,
    kind="session",
    output=out.result(session_id=out.TEXT, key=out.TEXT, version=out.INTEGER),
    line=lambda result, arguments: (
        f"Stored {result['key']} ({_kind(arguments.get('value'))}) version {result['version']} "
        f"in {result['session_id']}."
    ),
)
def session_set(
    call: Call,
    session_id: SessionId,
    key: Text,
    value: Json,
    expected_version: Annotated[int | None, HIDDEN] = None,
) -> Any:
    """Store one JSON value under a key, replacing what was there. For facts that change: plan, next_step, decisions.
    Never secrets.
    """
    refuse_kept(call, session_id, [key])
    call.draft.set_value(key, value, expected_version)
    call.refs["value"] = f"data:{key}@revision"
    return {"session_id": session_id, "key": key, "version": REVISION}


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return f"text, {len(value):,} characters"
        case dict():
            return f"object, {len(cast('dict[str, Any]', value)):,} keys"
        case _:
            return f"array, {len(value):,} items"


@tool(
    title="Add a message",
    toolset="core",
    kind="session",
    output=out.result(session_id=out.TEXT, seq=out.INTEGER, message_id=out.TEXT),
    line=lambda result, arguments: (
        f"Message {result['seq']} ({arguments.get('role')}) stored in {result['session_id']} as {result['message_id']}."
    ),
)
def session_add_message(
    call: Call,
    session_id: SessionId,
    role: Role,
    content: str,
    tool_name: Name | None = None,
    message_id: Annotated[Text | None, Arg("to make a retry safe", blank=True)] = None,
    invocation_id: Annotated[Text | None, Arg(hidden=True, blank=True)] = None,
    payload: Annotated[JsonObject | None, HIDDEN] = None,
    model: Annotated[Text | None, Arg(hidden=True, blank=True)] = None,
    input_tokens: Annotated[int | None, HIDDEN] = None,
    output_tokens: Annotated[int | None, HIDDEN] = None,
) -> Any:
    """Append one message to the session's log, kept for good. Log each user request, decision and outcome in a few
    sentences, not every step; tool calls on this server are recorded already.
    """
    usage = None
    if input_tokens is not None or output_tokens is not None:
        usage = usage_of(input_tokens or 0, output_tokens or 0)
    added = call.draft.add_message(
        role,
        content,
        message_id=message_id,
        tool_name=tool_name,
        invocation_id=invocation_id,
        payload=payload,
        model=model,
        token_usage=usage,
    )
    call.refs["content"] = "message:seq.0"
    if payload is not None:
        call.refs["payload"] = "message:seq.0"
    return {"session_id": session_id, "seq": Number("seq.0"), "message_id": added.message_id}


@tool(
    title="Find sessions",
    toolset="core",
    reads=True,
    kind="session",
    output=out.result({**out.MORE, "note": out.TEXT}, sessions=out.listed(out.BRIEF)),
)
def session_query(
    call: Call,
    text: Annotated[Text | None, Arg("words in id, purpose or tags")] = None,
    status: Status | None = None,
    tags: Tags | None = None,
    updated_after: Annotated[Time | None, Arg("a date, or an age: 24h, 7d")] = None,
    limit: int = 10,
    cursor: Cursor | None = None,
    query: Annotated[Text | None, HIDDEN] = None,
    user_id: Annotated[Text | None, Arg(hidden=True, blank=True)] = None,
    match: Annotated[Literal["any", "all"] | None, HIDDEN] = None,
    tool: Annotated[Text | None, Arg(hidden=True, blank=True)] = None,
    created_after: Annotated[Time | None, HIDDEN] = None,
    created_before: Annotated[Time | None, HIDDEN] = None,
    updated_before: Annotated[Time | None, HIDDEN] = None,
    has_errors: Annotated[bool | None, HIDDEN] = None,
    min_cost: Annotated[float | None, HIDDEN] = None,
    order: Annotated[Literal["updated", "created", "cost", "calls", "duration"] | None, HIDDEN] = None,
    detail: Annotated[Literal["brief", "full"] | None, HIDDEN] = None,
) -> Any:
    """Find sessions by status, tags, words or date, last used first. Call before session_create, to resume earlier work
    or when you no longer know the session_id.
    """
    manager = call.manager
    if min_cost is not None and not 0 <= min_cost <= MOST_USD:
        raise InvalidArgumentError(f"min_cost {min_cost:g} is not between 0 and {MOST_USD:,} USD.", argument="min_cost")
    # An age means the same on every page, so the time of the first one travels in the cursor.
    asked = {name: value for name, value in call.arguments.items() if name not in ("cursor", "limit")}
    question = f"session_query {canonical(asked)}"
    place = unpack(question, cursor, (int, str))
    now = manager.clock() if place is None else _moment(place[0])
    times = {
        "updated_after": updated_after,
        "created_after": created_after,
        "created_before": created_before,
        "updated_before": updated_before,
    }
    given: dict[str, Any] = {name: parse_time(time, now, argument=name) for name, time in times.items() if time}
    given |= {
        "text": text,
        "status": (SessionStatus(status),) if status else None,
        "tags": tuple(tags) if tags else None,
        "user_id": user_id,
        "match": match,
        "tool": tool,
        "has_errors": has_errors,
        "min_cost": min_cost,
        "order": order,
    }
    given = {name: one for name, one in given.items() if one is not None}
    given |= {"as_user": call.as_user, "limit": checked_limit(limit)}
    wanted = manager.as_query(**{**parse_query(query or "", now), **given})
    full = detail == "full"

    rows, more = page(
        call.room,
        limit,
        place[1] if place is not None else None,
        lambda count, after: manager.query(wanted.model_copy(update={"limit": count}), after),
        lambda head: head.to_dict() if full else _brief(head, call.room),
        STEP if full else HEADS,
    )
    call.count = len(rows)
    result: dict[str, Any] = {"sessions": rows}
    if more is not None:
        result["next_cursor"] = pack(question, [(now - _EPOCH) // _MICROSECOND, more])
    if not rows and cursor is None and (tags or text or status or query):
        result["note"] = "No session matches. Fewer conditions find more: leave out status, tags or text."
    return result


def _moment(microseconds: int) -> datetime:
    try:
        return _EPOCH + microseconds * _MICROSECOND
    except OverflowError:
        raise InvalidCursorError("is not one that was given out") from None


def _brief(head: SessionMetadata, room: int | None) -> dict[str, Any]:
    brief: dict[str, Any] = {"session_id": head.session_id}
    if head.purpose is not None:
        brief["purpose"] = head.purpose if room is None else shortened(head.purpose, LONG_PURPOSE)
    whole = head.to_dict()
    for name in ("status", "tags", "updated_at", "message_count"):
        brief[name] = whole[name]
    return brief


@tool(
    title="Read messages",
    toolset="core",
    reads=True,
    kind="session",
    output=out.result(out.MORE, messages=out.listed(out.MESSAGE)),
)
def session_messages(
    call: Call,
    session_id: SessionId,
    limit: int = 20,
    cursor: Cursor | None = None,
    order: Literal["newest", "oldest"] = "newest",
    roles: Annotated[Roles | None, HIDDEN] = None,
) -> Any:
    """Read the session's messages a page at a time, newest first; pass next_cursor back for older ones."""
    rows, more = page(
        call.room,
        checked_limit(limit),
        cursor,
        lambda count, after: call.manager.messages(session_id, count, after, order, roles, as_user=call.as_user),
        lambda one: message(one.to_dict(), session_id, call.room),
    )
    call.count = len(rows)
    return {"messages": rows} if more is None else {"messages": rows, "next_cursor": more}


@tool(
    title="Search messages",
    toolset="core",
    reads=True,
    catches_up=True,
    kind="session",
    output=out.result({**out.MORE, "note": out.TEXT}, hits=out.listed(out.HIT)),
)
def session_search(
    call: Call,
    text: Annotated[Text, Arg("words; all must occur")],
    session_id: SessionId | None = None,
    limit: int = 20,
    cursor: Cursor | None = None,
    user_id: Annotated[Text | None, Arg(hidden=True, blank=True)] = None,
    tags: Annotated[Tags | None, HIDDEN] = None,
) -> Any:
    """Search the words of all messages, over all sessions or in one. For "when did we decide X"."""
    manager = call.manager
    if not words(text):
        raise InvalidArgumentError(
            "text has no word to search for. session_query lists sessions without one.", argument="text"
        )
    if session_id is not None:
        manager.metadata(session_id, as_user=call.as_user)
    query = manager.as_query(
        as_user=call.as_user,
        user_id=user_id,
        ids=(session_id,) if session_id is not None else (),
        tags=tuple(tags or ()),
    )
    rows, more = page(
        call.room,
        checked_limit(limit),
        cursor,
        lambda count, after: manager.search(text, query, after, count),
        lambda hit: _shown(hit, call.room),
    )
    call.count = len(rows)
    result: dict[str, Any] = {"hits": rows}
    if more is not None:
        result["next_cursor"] = more
    if not rows and cursor is None:
        result["note"] = "No message has all these words. session_query lists sessions."
    return result


def _shown(hit: Hit, room: int | None) -> dict[str, Any]:
    shown = hit.model_dump(mode="json", exclude_none=True)
    if room is not None and hit.purpose is not None:
        shown["purpose"] = shortened(hit.purpose, LONG_PURPOSE)
    return shown


@tool(
    title="End a session",
    toolset="core",
    idempotent=True,
    kind="session",
    output=out.HEAD,
    line=lambda result, _: (
        f"{result['session_id']} {result['status']}: {result['message_count']} messages, "
        f"{result['total_invocations']} calls ({result['failed_invocations']} failed)." + noted(result)
    ),
)
def session_complete(
    call: Call, session_id: SessionId, status: Ending = "completed", summary: Text | None = None
) -> Any:
    """End a session as completed, failed or abandoned, with a summary that the next session can read."""
    call.draft.alter(status=ending(status), summary=summary)
    return {"*": HEAD, "note": NOTE}
