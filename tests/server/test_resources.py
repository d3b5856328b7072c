"""Resources: what a tool's result cut can be read whole, where it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp.types import INTERNAL_ERROR, INVALID_PARAMS, TextResourceContents

from mcp_sessions import MemorySessionStorage, SessionManager, StorageError
from mcp_sessions.server.adapter import build_server
from mcp_sessions.tools import SESSION_TOOLS
from tests.server.conftest import TOOLSETS, Door
from tests.server.pipes import Pipe
from tests.tools.desk import Desk


async def read(client: Client, uri: str) -> Any:
    (content,) = (await client.read_resource(uri)).contents
    assert isinstance(content, TextResourceContents)
    assert (content.uri, content.mime_type) == (uri, "application/json")
    return json.loads(content.text)


async def test_what_was_cut_is_whole_in_the_resource_that_it_names(desk: Desk, mode: str) -> None:
    """Results named resources, and reading one was answered "Method not found"."""
    desk.prepare()
    desk("session_set", session_id="a", key="the/plan é", value="x" * 100_000)
    desk("session_add_message", session_id="a", role="user", content="é" * 100_000)
    async with Client(build_server(desk.manager, SESSION_TOOLS, TOOLSETS), mode=mode) as client:
        door = Door(client)
        value = await door.structured("session_get", session_id="a", key="the/plan é")
        assert await read(client, value["resource"]) == "x" * 100_000
        (message,) = (await door.structured("session_messages", session_id="a", limit=1))["messages"]
        messages = await read(client, message["resource"])
        assert [one["seq"] for one in messages] == [1, 2, 3, 4]
        assert messages[-1]["content"] == "é" * 100_000
        assert (await read(client, "session:///a"))["purpose"] == "Move billing"


async def test_clients_are_told_what_can_be_read(desk: Desk, mode: str) -> None:
    async with Client(build_server(desk.manager, SESSION_TOOLS, TOOLSETS), mode=mode) as client:
        assert client.server_capabilities is not None
        assert client.server_capabilities.resources is not None
        assert (await client.list_resources()).resources == []
        templates = (await client.list_resource_templates()).resource_templates
        assert [template.uri_template for template in templates] == [
            "session:///{session_id}",
            "session:///{session_id}/messages",
            "session:///{session_id}/data/{key}",
        ]


async def test_all_messages_are_read_page_by_page(door: Door, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.prepare()
    monkeypatch.setattr("mcp_sessions.server.resources.MESSAGES_AT_ONCE", 2)
    assert [one["seq"] for one in await read(door.client, "session:///a/messages")] == [1, 2, 3]


@pytest.mark.parametrize(
    "uri",
    [
        "session:///nobody",
        "session:///nobody/messages",
        "session:///nobody/data/plan",
        "session:///a/data/none",
        "session:///a/data/%FF",
        "session:///a/data/%00",
        "session:///a/data/",
        "session:///a/data/the/plan",
        "session:///a/",
        "session:///..%2Fa",
        "session:///",
        "session://a",
        "file:///etc/passwd",
        "",
    ],
)
async def test_a_uri_that_names_nothing_is_refused_with_it(door: Door, desk: Desk, uri: str) -> None:
    desk.prepare()
    with pytest.raises(MCPError) as caught:
        await door.client.read_resource(uri)
    assert (caught.value.error.code, caught.value.error.data) == (INVALID_PARAMS, {"uri": uri})
    record = desk.records()[0]
    assert (record.tool_name, record.status.value) == ("resources/read", "error")


async def test_reading_is_on_record(door: Door, desk: Desk) -> None:
    desk.prepare()
    await read(door.client, "session:///a/messages")
    record = desk.records("a")[0]
    assert (record.tool_name, record.kind, record.status.value) == ("resources/read", "session", "ok")
    assert (record.arguments, record.result) == ({"uri": "session:///a/messages"}, {"count": 3})
    assert desk.head().total_invocations == 1


async def test_a_closed_store_is_an_error_of_the_protocol(mode: str) -> None:
    manager = SessionManager(MemorySessionStorage())
    async with Client(build_server(manager, SESSION_TOOLS, TOOLSETS), mode=mode) as client:
        await client.list_tools()
        manager.storage.close()
        with pytest.raises(MCPError) as caught:
            await client.read_resource("session:///a")
        assert caught.value.error.code == INTERNAL_ERROR
    with pytest.raises(StorageError):
        manager.close()  # the record of that read can be written nowhere


def test_a_resource_is_read_over_stdio(store: Path) -> None:
    with Pipe(store, "--session", "a") as server:
        server.shake_hands()
        (content,) = server.ask("resources/read", {"uri": "session:///a"})["result"]["contents"]
        assert json.loads(content["text"])["session_id"] == "a"
