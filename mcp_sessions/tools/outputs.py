"""The schemas of results: flat, and only of what is always or often there."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]
TEXT: Schema = {"type": "string"}
INTEGER: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
YES: Schema = {"type": "boolean"}
ANYTHING: Schema = {}
OBJECT: Schema = {"type": "object"}
TEXTS: Schema = {"type": "array", "items": TEXT}


def result(optional: dict[str, Schema] | None = None, /, **needed: Schema) -> Schema:
    """An object with these fields, and perhaps those."""
    return {"type": "object", "properties": {**needed, **(optional or {})}, "required": list(needed)}


def listed(item: Schema) -> Schema:
    """An array of these."""
    return {"type": "array", "items": item}


def some(*needed: str, **fields: Schema) -> Schema:
    """An object of many fields, of which these are needed to make sense of it."""
    return {"type": "object", "properties": fields, **({"required": list(needed)} if needed else {})}


HEAD = some(
    "session_id",
    "status",
    session_id=TEXT,
    status=TEXT,
    purpose=TEXT,
    summary=TEXT,
    tags=TEXTS,
    note=TEXT,
    created_at=TEXT,
    updated_at=TEXT,
    ended_at=TEXT,
    user_id=TEXT,
    parent_id=TEXT,
    custom_metadata=OBJECT,
    revision=INTEGER,
    last_seq=INTEGER,
    message_count=INTEGER,
    total_invocations=INTEGER,
    failed_invocations=INTEGER,
    total_duration_ms=NUMBER,
    tools_used=TEXTS,
    token_usage=OBJECT,
    estimated_cost=NUMBER,
    unpriced_invocations=INTEGER,
)
MESSAGE = some(
    "seq",
    "role",
    "content",
    seq=INTEGER,
    message_id=TEXT,
    role=TEXT,
    content=TEXT,
    timestamp=TEXT,
    tool_name=TEXT,
    invocation_id=TEXT,
    chars=INTEGER,
    resource=TEXT,
)
BRIEF = some(
    "session_id",
    session_id=TEXT,
    purpose=TEXT,
    status=TEXT,
    tags=TEXTS,
    updated_at=TEXT,
    message_count=INTEGER,
)
HIT = some("session_id", "seq", session_id=TEXT, purpose=TEXT, seq=INTEGER, role=TEXT, snippet=TEXT, timestamp=TEXT)
RECORD = some(
    "invocation_id",
    invocation_id=TEXT,
    session_id=TEXT,
    tool_name=TEXT,
    kind=TEXT,
    caller=TEXT,
    status=TEXT,
    started_at=TEXT,
    duration_ms=NUMBER,
    error=OBJECT,
    cost=NUMBER,
    model=TEXT,
)
TOTALS = some(
    sessions=INTEGER,
    messages=INTEGER,
    invocations=INTEGER,
    failed=INTEGER,
    duration_ms=NUMBER,
    token_usage=OBJECT,
    estimated_cost=NUMBER,
    unpriced_invocations=INTEGER,
)
SESSION: Schema = {"type": "object", "description": "as session_create returns it"}
GROUP: Schema = {"type": "object", "description": "as totals, and the name of the group", "properties": {"group": TEXT}}
MORE: dict[str, Schema] = {"next_cursor": TEXT}
