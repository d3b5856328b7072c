"""The sixteen tools as they are promised: names, arguments, defaults, toolsets and fields of their results."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_sessions.models import SessionMetadata
from mcp_sessions.tools import SESSION_TOOLS
from mcp_sessions.tools.arguments import schema_of
from tests.tools.desk import EXAMPLES, Desk

# tool | toolset | arguments: * required, + taken but not shown, = default | fields of the result: ? not always there
TABLE = """
session_create | core | purpose, tags, session_id, user_id+, metadata+, data+ | HEAD, note?
session_get | core | session_id*, key, keys+, messages=0 | session_id, session?, data?, messages?, key?, found?, value?, version?, keys?
session_set | core | session_id*, key*, value*, expected_version+ | session_id, key, version
session_add_message | core | session_id*, role*, content*, tool_name, message_id, invocation_id+, payload+, model+, input_tokens+, output_tokens+ | session_id, seq, message_id
session_query | core | text, status, tags, updated_after, limit=10, cursor, query+, user_id+, match+, tool+, created_after+, created_before+, updated_before+, has_errors+, min_cost+, order+, detail+ | sessions, next_cursor?, note?
session_messages | core | session_id*, limit=20, cursor, order=newest, roles+ | messages, next_cursor?
session_search | core | text*, session_id, limit=20, cursor, user_id+, tags+ | hits, next_cursor?, note?
session_complete | core | session_id*, status=completed, summary | HEAD, note?
session_update | manage | session_id*, purpose, add_tags, remove_tags, reopen, tags+, metadata+ | HEAD
session_unset | manage | session_id*, keys*, all+=False | session_id, removed
session_fork | manage | session_id*, at_seq, new_session_id | HEAD, note?
session_export | manage | session_id*, format=json, cursor | format, content, next_cursor?
session_delete | manage | session_id*, confirm=False | session_id, deleted
session_record_invocation | records | session_id*, tool_name*, arguments, result, error, duration_ms, model, input_tokens, output_tokens, cache_read_tokens+, cost, invocation_id | invocation_id, cost?, cost_source
session_invocations | records | session_id, tool, status, limit=20, cursor | invocations, next_cursor?
session_stats | records | session_id, group_by, query+ | totals, groups?
"""  # noqa: E501 - a table
ROWS = [[cell.strip() for cell in line.split("|")] for line in TABLE.strip().splitlines()]
HEAD = set(SessionMetadata.model_fields)
OPTIONAL_IN_HEAD = {"ended_at", "user_id", "purpose", "summary", "parent_id"}
ENUMS = {
    ("session_add_message", "role"): ["user", "assistant", "system", "tool"],
    ("session_query", "status"): ["active", "completed", "failed", "abandoned"],
    ("session_query", "match"): ["any", "all"],
    ("session_query", "order"): ["updated", "created", "cost", "calls", "duration"],
    ("session_query", "detail"): ["brief", "full"],
    ("session_messages", "order"): ["newest", "oldest"],
    ("session_complete", "status"): ["completed", "failed", "abandoned"],
    ("session_export", "format"): ["json", "markdown"],
    ("session_invocations", "status"): ["running", "ok", "error", "cancelled", "interrupted"],
    ("session_stats", "group_by"): ["day", "model", "tool", "tag", "user", "status"],
}


def cells(text: str) -> list[tuple[str, str]]:
    """`limit=10` -> ("limit", "=10")."""
    parts = [part.strip() for part in text.split(",")]
    names = [part.rstrip("?").split("=")[0].rstrip("*+") for part in parts]
    return [(name, part.removeprefix(name)) for name, part in zip(names, parts, strict=True)]


def test_the_sixteen_tools_stand_in_their_order() -> None:
    assert [tool.name for tool in SESSION_TOOLS] == [row[0] for row in ROWS]
    assert list(EXAMPLES) == [row[0] for row in ROWS]


@pytest.mark.parametrize(("name", "toolset", "arguments"), [row[:3] for row in ROWS])
def test_a_tool_takes_what_the_table_says(name: str, toolset: str, arguments: str) -> None:
    tool = SESSION_TOOLS[name]
    fields = tool.arguments.model_fields
    assert tool.toolset == toolset
    assert list(fields) == [argument for argument, _ in cells(arguments)]
    assert tool.advertised == tuple(argument for argument, marks in cells(arguments) if "+" not in marks)
    for argument, marks in cells(arguments):
        default = marks.rpartition("=")[2] if "=" in marks else None
        assert fields[argument].is_required() == ("*" in marks)
        assert "*" in marks or str(fields[argument].default) == str(default)


@pytest.mark.parametrize(("name", "argument"), ENUMS)
def test_words_that_can_be_chosen_are_shown(name: str, argument: str) -> None:
    schema = schema_of(SESSION_TOOLS[name].annotations[argument])
    assert schema["enum"] == ENUMS[name, argument]


@pytest.mark.parametrize(("name", "fields"), [(row[0], row[3]) for row in ROWS])
def test_a_result_has_the_fields_of_the_table(prepared: Desk, name: str, fields: str) -> None:
    result = prepared.example(name)
    promised = dict(cells(fields))
    may = set(promised) - {"HEAD"} | (HEAD if "HEAD" in promised else set())
    must = {field for field in may if "?" not in promised.get(field, "")} - OPTIONAL_IN_HEAD
    assert must <= set(result) <= may
    assert may <= set(SESSION_TOOLS[name].output["properties"])
    assert set(SESSION_TOOLS[name].output.get("required", [])) <= must | OPTIONAL_IN_HEAD


def rows_of(result: dict[str, Any], name: str) -> list[Any]:
    assert result[name]
    return result[name]


def test_rows_have_the_fields_of_the_table(prepared: Desk) -> None:
    brief = rows_of(prepared("session_query"), "sessions")[0]
    assert set(brief) == {"session_id", "purpose", "status", "tags", "updated_at", "message_count"}
    hit = rows_of(prepared("session_search", text="stripe"), "hits")[0]
    assert set(hit) == {"session_id", "purpose", "seq", "role", "snippet", "timestamp"}
    full = rows_of(prepared("session_query", detail="full"), "sessions")[0]
    assert set(full) == HEAD - OPTIONAL_IN_HEAD | {"purpose"}
