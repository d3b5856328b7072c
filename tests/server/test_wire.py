"""What hosts read of the tools: schemas that none of them stumbles over, small, always in the same order."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from mcp import Client
from mcp.server.caching import CACHEABLE_METHODS
from mcp.types import Tool

from mcp_sessions import MemorySessionStorage, SessionManager
from mcp_sessions.server.adapter import build_server
from mcp_sessions.tools import SESSION_TOOLS
from tests.server.conftest import TOOLSETS, text_of
from tests.tools.desk import EXAMPLES, READS, WRITES, Desk

REFUSED_BY_SOME_HOST = {"$ref", "$defs", "$schema", "title", "format", "pattern", "const", "default", "nullable"}
COMBINATORS = {"anyOf", "oneOf", "allOf", "not", "if"}


async def listed(mode: str = "auto", pinned: str | None = None) -> list[Tool]:
    with SessionManager(MemorySessionStorage()) as manager:
        async with Client(build_server(manager, SESSION_TOOLS, TOOLSETS, pinned), mode=mode) as client:
            return (await client.list_tools()).tools


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """Each schema within a schema; names of properties are not taken for keywords."""
    if isinstance(schema, list):
        for item in schema:
            yield from nodes(item)
    elif isinstance(schema, dict):
        yield schema
        for name, member in schema.items():
            yield from nodes(list(member.values()) if name == "properties" else member)


async def test_schemas_of_arguments_are_flat_enough_for_every_host() -> None:
    for tool in await listed():
        schema = tool.input_schema
        assert schema["type"] == "object", tool.name
        assert not COMBINATORS & set(schema), tool.name
        for node in nodes(schema):
            assert not REFUSED_BY_SOME_HOST & set(node), (tool.name, node)
            assert "additionalProperties" not in node
            assert not isinstance(node.get("type"), list)
            assert node.get("type") != "array" or "items" in node
            assert not (COMBINATORS & set(node)) or node is schema["properties"].get("value")
        assert "null" not in compact(schema).replace(compact(schema["properties"].get("value", 0)), "")


async def test_schemas_of_results_are_plain_objects() -> None:
    for tool in await listed():
        assert tool.output_schema is not None
        assert tool.output_schema["type"] == "object"
        for node in nodes(tool.output_schema):
            assert not {"$ref", "$defs", "$schema"} & set(node), tool.name
        jsonschema.Draft202012Validator.check_schema(tool.output_schema)


async def test_the_sixteen_fit_ten_kilobytes_and_each_two() -> None:
    tools = await listed()
    assert len(tools) == 16
    parts = [tool.name + (tool.description or "") + compact(tool.input_schema) for tool in tools]
    assert sum(len(part.encode()) for part in parts) <= 10_240
    for tool in tools:
        assert len(tool.name) <= 40
        assert 40 <= len(tool.description or "") <= 300
        assert len(compact(tool.model_dump(mode="json", by_alias=True, exclude_none=True)).encode()) < 2_048, tool.name


async def test_the_order_is_the_same_in_both_eras_and_each_time() -> None:
    names = [tool.name for tool in SESSION_TOOLS]
    for mode in ("auto", "legacy", "auto"):
        assert [tool.name for tool in await listed(mode)] == names


async def test_each_tool_has_a_title_and_tells_what_it_does_to_the_world() -> None:
    told = {tool.name: tool for tool in await listed()}
    for name, tool in told.items():
        hints = tool.annotations
        assert hints is not None
        assert tool.title == hints.title
        assert tool.title
        assert hints.read_only_hint == (name in READS)
        assert hints.open_world_hint is False
        assert hints.destructive_hint == (name in ("session_set", "session_unset", "session_delete"))
    again = ("session_set", "session_complete", "session_update", "session_unset", "session_delete", *READS)
    assert {name for name, tool in told.items() if tool.annotations and tool.annotations.idempotent_hint} == set(again)


async def test_both_eras_are_told_the_same_and_only_of_what_is_on(desk: Desk) -> None:
    async def told(toolsets: tuple[str, ...], mode: str) -> str:
        async with Client(build_server(desk.manager, SESSION_TOOLS, toolsets), mode=mode) as client:
            assert client.instructions is not None
            return client.instructions

    assert await told(TOOLSETS, "auto") == await told(TOOLSETS, "legacy")
    assert "session_query" in await told(TOOLSETS, "auto")
    assert "session_" not in await told(("records",), "auto")


async def test_each_answer_that_may_be_kept_says_for_how_long(desk: Desk) -> None:
    desk.prepare()
    async with Client(build_server(desk.manager, SESSION_TOOLS, TOOLSETS)) as client:
        session = client.session
        told = {
            "server/discover": await session.discover(),
            "tools/list": await client.list_tools(),
            "prompts/list": await client.list_prompts(),
            "resources/templates/list": await client.list_resource_templates(),
            "resources/list": await client.list_resources(),
            "resources/read": await client.read_resource("session:///a"),
        }
    assert set(told) == CACHEABLE_METHODS
    for method, result in told.items():
        live = method in ("resources/list", "resources/read")
        assert (result.ttl_ms, result.cache_scope) == ((0, "private") if live else (3_600_000, "public")), method


async def test_a_pinned_session_needs_no_id() -> None:
    for tool, pinned in zip(await listed(), await listed(pinned="a"), strict=True):
        assert set(pinned.input_schema["properties"]) == set(tool.input_schema["properties"])
        assert "session_id" not in pinned.input_schema.get("required", [])
        rest = [name for name in tool.input_schema.get("required", []) if name != "session_id"]
        assert pinned.input_schema.get("required", []) == rest


@pytest.mark.parametrize("name", EXAMPLES)
async def test_a_result_is_what_its_schema_says(desk: Desk, mode: str, name: str) -> None:
    desk.prepare()
    async with Client(build_server(desk.manager, SESSION_TOOLS, TOOLSETS), mode=mode) as client:
        result = await client.call_tool(name, EXAMPLES[name])
        assert not result.is_error, text_of(result)
        jsonschema.validate(result.structured_content, dict(SESSION_TOOLS[name].output))


@pytest.mark.parametrize("name", READS)
async def test_a_read_is_told_as_the_json_of_its_structure(desk: Desk, name: str) -> None:
    desk.prepare()
    async with Client(build_server(desk.manager, SESSION_TOOLS, TOOLSETS)) as client:
        result = await client.call_tool(name, EXAMPLES[name])
    assert text_of(result) == compact(result.structured_content)
    assert "null" not in text_of(result)


LINES = {
    "session_create": 'Created new "Move billing" (active). Note: Active session with this purpose: a, used 0 s ago.',
    "session_set": "Stored plan (object, 1 keys) version 7 in a.",
    "session_add_message": "Message 4 (user) stored in a as m1.",
    "session_complete": "a completed: 3 messages, 1 calls (0 failed).",
    "session_update": "a updated: active; tags billing, y.",
    "session_unset": "Removed plan from a.",
    "session_fork": "Forked a into b (2 messages).",
    "session_delete": "Deleted a.",
    "session_record_invocation": "Recorded i1: 0.25 USD (reported).",
}


@pytest.mark.parametrize("name", WRITES)
async def test_a_write_is_told_in_one_line_with_every_id_and_note(desk: Desk, name: str) -> None:
    desk.prepare()
    more = {"session_add_message": {"message_id": "m1"}, "session_create": {"purpose": "Move billing"}}.get(name, {})
    async with Client(build_server(desk.manager, SESSION_TOOLS, TOOLSETS)) as client:
        result = await client.call_tool(name, {**EXAMPLES[name], **more})
    assert text_of(result) == LINES[name]
    assert result.structured_content is not None
    for field in ("session_id", "message_id", "invocation_id", "note"):
        assert result.structured_content.get(field, "") in text_of(result)
