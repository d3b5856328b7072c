"""Resources: what a tool's result cut can be read whole, where it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from mcp import Client, MCPError
from mcp.types import INTERNAL_ERROR, INVALID_PARAMS, TextResourceContents

from mcp_sessions import MemorySessionStorage, SessionManager, StorageError
from mcp_sessions.server.adapter import build_server
from mcp_sessions.server.resources import RESOURCE_NOT_FOUND
from mcp_sessions.tools import SESSION_TOOLS
from tests.processes import full_counts
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
        whole = await read(client, message["resource"])
        assert (whole["seq"], whole["content"]) == (4, "é" * 100_000)
        assert [one["seq"] for one in await read(client, "session:///a/messages")] == [1, 2, 3, 4]
        desk("session_add_message", session_id="a", role="user", content="short", payload={"openai": "x" * 1_000})
        (message,) = (await door.structured("session_messages", session_id="a", limit=1))["messages"]
        assert message["payload"]["chars"] == 1_013
        assert (await read(client, message["payload"]["resource"]))["payload"] == {"openai": "x" * 1_000}
        assert (await read(client, "session:///a"))["purpose"] == "Move billing"


async def test_clients_are_told_what_can_be_read(desk: Desk, mode: str) -> None:
    async with Client(build_server(desk.manager, SESSION_TOOLS, TOOLSETS), mode=mode) as client:
        assert client.server_capabilities is not None
        assert client.server_capabilities.resources is not None
        templates = (await client.list_resource_templates()).resource_templates
        assert [template.uri_template for template in templates] == [
            "session:///{session_id}",
            "session:///{session_id}/messages",
            "session:///{session_id}/messages/{seq}",
            "session:///{session_id}/data/{key}",
        ]


async def test_sessions_are_listed_newest_first_with_what_a_person_chooses_by(desk: Desk, mode: str) -> None:
    desk.prepare()
    desk.clock.go_on(minutes=1)
    desk("session_create", session_id="b", purpose="Find\n the " + "leak " * 100)
    desk("session_create", session_id="c")
    async with Client(build_server(desk.manager, SESSION_TOOLS, TOOLSETS), mode=mode) as client:
        c, b, a = (await client.list_resources()).resources
    assert (a.uri, a.name, a.title) == ("session:///a", "a", "Move billing")
    assert (a.description, a.mime_type) == ("active, 3 messages, tagged billing", "application/json")
    assert a.annotations is not None
    assert a.annotations.last_modified == "2026-11-22T10:00:00Z"
    assert (b.title or "").startswith("Find the leak leak")
    assert len(b.title or "") == 200
    assert (c.title, c.description) == ("c", "active, 0 messages")


@pytest.mark.parametrize("mode", ["auto"])  # the pages are the same in both eras, as others show with fewer
async def test_thousands_of_sessions_are_listed_in_pages(mode: str) -> None:
    count = 10_000 if full_counts() else 2_000
    with SessionManager(MemorySessionStorage()) as manager:
        for number in range(count):
            manager.create_session(f"s{number}")
        uris: list[str] = []
        async with Client(build_server(manager, SESSION_TOOLS, TOOLSETS), mode=mode) as client:
            page = await client.list_resources()
            while True:
                assert 0 < len(page.resources) <= 100
                assert len(page.model_dump_json()) <= 40_000
                uris += [resource.uri for resource in page.resources]
                if page.next_cursor is None:
                    break
                page = await client.list_resources(cursor=page.next_cursor)
        assert uris == [f"session:///s{number}" for number in reversed(range(count))]


@pytest.mark.parametrize("cursor", ["", "nonsense", "eyJhIjoxfQ", "é"])
async def test_a_cursor_that_was_not_given_out_is_refused(desk: Desk, mode: str, cursor: str) -> None:
    async with Client(build_server(desk.manager, SESSION_TOOLS, TOOLSETS), mode=mode) as client:
        with pytest.raises(MCPError) as caught:
            await client.list_resources(cursor=cursor)
    assert caught.value.error.code == INVALID_PARAMS
    assert "cursor" in caught.value.error.message


async def test_listing_leaves_no_record(door: Door, desk: Desk) -> None:
    """Hosts list by themselves, again at every change; a record of each would bury the others."""
    desk.prepare()
    before = desk.records()
    await door.client.list_resources()
    assert desk.records() == before


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
        "session:///a/messages/4",
        "session:///a/messages/0",
        "session:///a/messages/\u0661",
        "session:///a/messages/",
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
async def test_a_uri_that_names_nothing_is_refused_with_it(desk: Desk, mode: str, uri: str) -> None:
    desk.prepare()
    async with Client(build_server(desk.manager, SESSION_TOOLS, TOOLSETS), mode=mode) as client:
        with pytest.raises(MCPError) as caught:
            await client.read_resource(uri)
    code = RESOURCE_NOT_FOUND if mode == "legacy" else INVALID_PARAMS
    assert (caught.value.error.code, caught.value.error.data) == (code, {"uri": uri})
    record = desk.records()[0]
    assert (record.tool_name, record.status.value) == ("resources/read", "error")


async def test_an_unknown_session_is_refused_with_those_that_were_meant(door: Door, desk: Desk) -> None:
    desk.prepare()
    with pytest.raises(MCPError) as caught:
        await door.client.read_resource("session:///nobody/messages")
    assert caught.value.error.message.startswith("Session nobody not found: your latest active: a ")


async def test_more_messages_than_one_answer_takes_are_read_one_by_one(
    desk: Desk, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.prepare()
    async with Client(build_server(desk.manager, SESSION_TOOLS, TOOLSETS), mode=mode) as client:
        whole = (await client.read_resource("session:///a/messages")).contents[0]
        assert isinstance(whole, TextResourceContents)
        monkeypatch.setattr("mcp_sessions.server.resources.MOST_CHARS", len(whole.text) - 1)
        assert len(await read(client, "session:///a/messages")) == 3
        monkeypatch.setattr("mcp_sessions.server.resources.MOST_CHARS", len(whole.text) - 2)
        with pytest.raises(MCPError) as caught:
            await client.read_resource("session:///a/messages")
        assert caught.value.error.code == INVALID_PARAMS
        assert "session_messages" in caught.value.error.message
        assert (await read(client, "session:///a/messages/3"))["seq"] == 3


@pytest.mark.parametrize("key", ["the/plan", "50%", "é 😀", "a?b#c", "%2F", "..", ".hidden", "a+b&c=d", " ", "k" * 256])
async def test_any_key_is_read_by_its_uri(desk: Desk, mode: str, key: str) -> None:
    desk.prepare()
    desk("session_set", session_id="a", key=key, value="x" * 1_000)
    uri = f"session:///a/data/{quote(key, safe='')}"
    async with Client(build_server(desk.manager, SESSION_TOOLS, TOOLSETS), mode=mode) as client:
        assert await read(client, uri) == "x" * 1_000


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
