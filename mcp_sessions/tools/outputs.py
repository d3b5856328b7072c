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


TOKENS = result(input=INTEGER, output=INTEGER, cache_read=INTEGER, cache_write=INTEGER)
HEAD = result(
    {
        "ended_at": TEXT,
        "user_id": TEXT,
        "purpose": TEXT,
        "summary": TEXT,
        "parent_id": TEXT,
        "note": TEXT,
    },
    session_id=TEXT,
    status=TEXT,
    created_at=TEXT,
    updated_at=TEXT,
    tags=TEXTS,
    custom_metadata=OBJECT,
    revision=INTEGER,
    last_seq=INTEGER,
    message_count=INTEGER,
    total_invocations=INTEGER,
    failed_invocations=INTEGER,
    total_duration_ms=NUMBER,
    tools_used=TEXTS,
    token_usage=TOKENS,
    estimated_cost=NUMBER,
    unpriced_invocations=INTEGER,
)
MESSAGE = result(
    {"tool_name": TEXT, "invocation_id": TEXT, "chars": INTEGER, "resource": TEXT},
    seq=INTEGER,
    message_id=TEXT,
    role=TEXT,
    content=TEXT,
    timestamp=TEXT,
)
BRIEF = result(
    {"purpose": TEXT},
    session_id=TEXT,
    status=TEXT,
    tags=TEXTS,
    updated_at=TEXT,
    message_count=INTEGER,
)
HIT = result({"purpose": TEXT}, session_id=TEXT, seq=INTEGER, role=TEXT, snippet=TEXT, timestamp=TEXT)
RECORD = result(
    {"duration_ms": NUMBER, "error": OBJECT, "cost": NUMBER, "model": TEXT, "session_id": TEXT},
    invocation_id=TEXT,
    tool_name=TEXT,
    kind=TEXT,
    caller=TEXT,
    status=TEXT,
    started_at=TEXT,
)
TOTALS = result(
    {"group": TEXT, "messages": INTEGER},
    sessions=INTEGER,
    invocations=INTEGER,
    failed=INTEGER,
    duration_ms=NUMBER,
    token_usage=TOKENS,
    estimated_cost=NUMBER,
    unpriced_invocations=INTEGER,
)
MORE: dict[str, Schema] = {"next_cursor": TEXT}
