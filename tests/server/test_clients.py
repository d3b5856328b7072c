"""The official Python client, over every transport and in both eras of the protocol."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.sse import sse_client
from mcp.types import INVALID_PARAMS, TextResourceContents

from mcp_sessions import SessionManager, SQLiteSessionStorage
from mcp_sessions._json import encode
from mcp_sessions.server.events import ENVELOPE_BYTES, MOST_BYTES
from mcp_sessions.server.resources import RESOURCE_NOT_FOUND
from mcp_sessions.tools import SESSION_TOOLS

from .conftest import Door
from .pipes import SERVE, environment
from .ports import Port

VERSIONS = {"auto": "2026-07-28", "legacy": "2025-11-25"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for all of them."""
    return tmp_path_factory.mktemp("clients") / "sessions.db"


@pytest.fixture(scope="module")
def port(shared: Path) -> Iterator[Port]:
    with Port(shared) as port:
        yield port


@pytest.fixture(params=["stdio", "sse", "streamable-http"])
def transport(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def connected(transport: str, shared: Path, port: Port, mode: str) -> AsyncIterator[Door]:
    servers: dict[str, Any] = {
        "stdio": StdioServerParameters(command=sys.executable, args=list(SERVE), env=environment(shared)),
        "sse": sse_client(f"{port.url}/sse"),
        "streamable-http": f"{port.url}/mcp",
    }
    async with Client(servers[transport], mode=mode) as client:
        assert client.protocol_version == VERSIONS[mode]
        yield Door(client)


async def test_a_session_is_made_filled_read_and_found(connected: Door) -> None:
    listed = (await connected.client.list_tools()).tools
    assert [tool.name for tool in listed] == [tool.name for tool in SESSION_TOOLS]
    session_id = (await connected.structured("session_create", purpose="Walk through"))["session_id"]
    added = await connected.structured("session_add_message", session_id=session_id, role="user", content="Grüße, 世界")
    assert added["seq"] == 1
    value = {"steps": [1, 2.5, None, "é"]}
    await connected.structured("session_set", session_id=session_id, key="the/plan é", value=value)
    read = await connected.structured("session_get", session_id=session_id, messages=1)
    assert read["data"] == {"the/plan é": value}
    assert read["messages"][0]["content"] == "Grüße, 世界"
    found = await connected.structured("session_search", text="GRÜSSE", session_id=session_id)
    assert [hit["seq"] for hit in found["hits"]] == [1]
    resource = f"session:///{session_id}/data/the%2Fplan%20%C3%A9"
    (content,) = (await connected.client.read_resource(resource)).contents
    assert isinstance(content, TextResourceContents)
    assert json.loads(content.text) == value


async def test_what_cannot_be_is_refused_and_the_connection_goes_on(connected: Door, mode: str) -> None:
    assert "nobody not found" in await connected.refusal("session_get", session_id="nobody")
    assert "did you mean 'session_get'?" in await connected.refusal("session_gte")
    assert "'role'" in await connected.refusal("session_add_message", session_id="a", role="wizard", content="x")
    with pytest.raises(MCPError) as caught:
        await connected.client.read_resource("session:///nobody")
    code = RESOURCE_NOT_FOUND if mode == "legacy" else INVALID_PARAMS
    assert (caught.value.error.code, caught.value.error.data) == (code, {"uri": "session:///nobody"})
    assert (await connected.structured("session_create"))["status"] == "active"


@pytest.fixture(scope="module")
def long(shared: Path) -> dict[str, str]:
    """By uri what is longer than an event that this client takes, but for the last."""
    fits = MOST_BYTES - ENVELOPE_BYTES - len(json.dumps(json.dumps("")))
    with SessionManager(SQLiteSessionStorage(shared)) as manager:
        most = manager.limits.value_bytes
        manager.create_session("long")
        values = {
            "largest": "x" * (most - 2),
            "quotes": '"' * (most // 4),
            "over": "x" * (fits + 1),
            "fits": "x" * fits,
        }
        for key, value in values.items():
            manager.set_value("long", key, value)
        messages = [manager.add_conversation_message("long", "user", "é" * 50_000).to_dict() for _ in range(12)]
    stored = {f"session:///long/data/{key}": encode(value) for key, value in values.items()}
    return {"session:///long/messages": encode(messages), **stored}


async def test_what_is_long_comes_whole_or_is_refused_with_what_to_do_and_the_connection_goes_on(
    connected: Door, transport: str, long: dict[str, str]
) -> None:
    """Over SSE the client gave its connection up, and over streamable HTTP in the old era its request."""
    for uri, text in long.items():
        if transport == "sse" and not uri.endswith("/fits"):
            with pytest.raises(MCPError) as caught:
                await connected.client.read_resource(uri)
            assert (caught.value.error.code, caught.value.error.data) == (INVALID_PARAMS, {"uri": uri})
            assert "session_export" in caught.value.error.message
        else:
            (content,) = (await connected.client.read_resource(uri)).contents
            assert isinstance(content, TextResourceContents)
            assert content.text == text
    assert (await connected.structured("session_get", session_id="long"))["session"]["message_count"] == 12


async def test_an_export_tells_how_far_it_is(connected: Door) -> None:
    session_id = (await connected.structured("session_create"))["session_id"]
    for number in range(4):
        await connected.structured("session_add_message", session_id=session_id, role="user", content=f"m{number}")
    told: list[float] = []

    async def heard(done: float, total: float | None, message: str | None) -> None:
        told.append(done)

    export = await connected.client.call_tool("session_export", {"session_id": session_id}, progress_callback=heard)
    assert not export.is_error
    assert told == [1, 3, 4]


async def test_calls_at_once_are_all_answered(connected: Door) -> None:
    session_id = (await connected.structured("session_create"))["session_id"]
    seqs: list[int] = []

    async def add(number: int) -> None:
        added = await connected.structured(
            "session_add_message", session_id=session_id, role="user", content=f"m{number}"
        )
        seqs.append(added["seq"])

    async with anyio.create_task_group() as group:
        for number in range(64):
            group.start_soon(add, number)
    assert sorted(seqs) == list(range(1, 65))
