"""The records toolset: what was called, what it cost, and calls that were made elsewhere."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from .._json import encode
from ..calls import Call
from ..manager import checked_limit, usage_of
from ..models import Invocation, Text, Totals
from . import outputs as out
from .arguments import HIDDEN, Arg, Cursor, JsonObject, Name, RecordStatus, SessionId
from .fitting import FRAME, LONG_VALUE, cut, first, page, size
from .toolbox import Toolbox

RECORDS = Toolbox()
tool = RECORDS.tool


def _recorded(record: Invocation) -> dict[str, Any]:
    result: dict[str, Any] = {"invocation_id": record.invocation_id}
    if record.cost is not None:
        result["cost"] = record.cost
    return {**result, "cost_source": record.cost_source or "unknown"}


@tool(
    title="Record a call made elsewhere",
    toolset="records",
    kind="session",
    output=out.result({"cost": out.NUMBER}, invocation_id=out.TEXT, cost_source=out.TEXT),
    line=lambda result, _: (
        f"Recorded {result['invocation_id']}: "
        + (f"{result['cost']:.6g} USD ({result['cost_source']})." if "cost" in result else "cost unknown.")
    ),
)
def session_record_invocation(
    call: Call,
    session_id: SessionId,
    tool_name: Text,
    arguments: JsonObject | None = None,
    result: Text | None = None,
    error: Name | None = None,
    duration_ms: float | None = None,
    model: Name | None = None,
    input_tokens: Annotated[int | None, Arg("total, cached included")] = None,
    output_tokens: int | None = None,
    cache_read_tokens: Annotated[int | None, HIDDEN] = None,
    cost: Annotated[float | None, Arg("USD")] = None,
    invocation_id: Annotated[Text | None, Arg("counted once", blank=True)] = None,
) -> Any:
    """Record a call made outside this server (model or tool) with its tokens, time and cost, as reported; never
    estimate them.
    """
    usage = None
    if not (input_tokens is None and output_tokens is None and cache_read_tokens is None):
        usage = usage_of(input_tokens or 0, output_tokens or 0, cache_read_tokens or 0)
    record = call.manager.linked(
        invocation_id,
        tool_name,
        duration_ms=duration_ms,
        as_user=call.as_user,
        arguments=arguments,
        result=result,
        error=error,
        model=model,
        token_usage=usage,
        cost=cost,
        caller=call.caller,
    )
    call.draft.records.append(record)
    call.keep_once(f"invocation:{record.invocation_id}", arguments=arguments, result=result)
    call.already = _recorded
    return _recorded(record)


@tool(
    title="List recorded calls",
    toolset="records",
    reads=True,
    catches_up=True,
    kind="session",
    output=out.result({**out.MORE, "note": out.TEXT}, invocations=out.listed(out.RECORD)),
)
def session_invocations(
    call: Call,
    session_id: SessionId | None = None,
    tool: Name | None = None,
    status: RecordStatus | None = None,
    limit: int = 20,
    cursor: Cursor | None = None,
) -> Any:
    """List recorded tool calls, newest first: status, duration, cost, error."""
    manager = call.manager
    waiting = manager.reads.refused()
    rows, more = page(
        call.room,
        checked_limit(limit),
        cursor,
        lambda count, after: manager.invocations(
            session_id, tool, status, count, after, stored=True, as_user=call.as_user
        ),
        lambda record: _shortened(record.to_dict(), call.room),
    )
    call.count = len(rows)
    result: dict[str, Any] = {"invocations": rows}
    if more is not None:
        result["next_cursor"] = more
    if waiting:
        result["note"] = f"{waiting:,} records are not among them: the store takes none now. They wait."
    return result


def _shortened(record: dict[str, Any], room: int | None) -> dict[str, Any]:
    if room is None:
        return record
    for name in ("arguments", "result"):
        if name in record and size(record[name]) > LONG_VALUE:
            record[name] = cut(encode(record[name]))
    return record


@tool(
    title="Sum up",
    toolset="records",
    reads=True,
    kind="session",
    output=out.result({"groups": out.listed(out.GROUP), "more_groups": out.INTEGER}, totals=out.TOTALS),
)
def session_stats(
    call: Call,
    session_id: SessionId | None = None,
    group_by: Literal["day", "model", "tool", "tag", "user", "status"] | None = None,
    query: Annotated[Text | None, HIDDEN] = None,
) -> Any:
    """Counts, tokens, cost and time of one session, or of all, grouped by day, model, tool, tag, user or status."""
    manager = call.manager
    if session_id is not None:
        manager.metadata(session_id, as_user=call.as_user)
    ids = (session_id,) if session_id is not None else None
    wanted = manager.as_query(query or "", as_user=call.as_user, ids=ids)
    result: dict[str, Any] = {"totals": _row(manager.totals(wanted)[0])}
    call.count = 1
    if group_by is not None:
        rows = [_row(total) for total in manager.totals(wanted, group_by)]
        kept = result["groups"] = first(rows, call.room and call.room - 5 * FRAME)
        call.count = len(rows)
        if len(kept) < len(rows):
            result["more_groups"] = len(rows) - len(kept)
    return result


def _row(total: Totals) -> dict[str, Any]:
    return total.model_dump(mode="json", exclude_none=True)
