"""What a model cannot mend: a broken store, and what nobody expected."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mcp import Client, MCPError
from mcp.types import INTERNAL_ERROR, PromptReference

from mcp_sessions import SessionManager
from mcp_sessions.config import sqlite_url
from mcp_sessions.errors import StorageError
from mcp_sessions.server.adapter import build_server
from mcp_sessions.storage import SQLiteSessionStorage
from mcp_sessions.tools import SESSION_TOOLS
from tests.server.conftest import TOOLSETS, Door
from tests.server.pipes import Pipe, program
from tests.tools.desk import EXAMPLES, Desk


@pytest.mark.parametrize(
    ("name", "sent", "sentence"),
    [
        ("session_get", {"session_id": "none"}, 'Session none not found: your latest active: a "Move billing"'),
        ("session_create", {"session_id": "a"}, "Session a already exists (active, 3 messages). Resume it"),
        ("session_set", {"session_id": "a", "key": "k", "value": 1, "expected_version": 9}, "Read it again"),
        ("session_get", {"id": "a"}, "did you mean 'session_id'?"),
        ("session_forget", {}, "Unknown tool 'session_forget'"),
        ("session_delete", {"session_id": "a"}, "Nothing deleted. This would remove session a"),
        ("session_query", {"cursor": "x"}, "cursor"),
    ],
)
async def test_what_a_model_can_mend_is_told_whole_in_the_text(
    desk: Desk, mode: str, name: str, sent: dict[str, object], sentence: str
) -> None:
    desk.prepare()
    async with Client(build_server(desk.manager, SESSION_TOOLS, TOOLSETS), mode=mode) as client:
        assert sentence in await Door(client).refusal(name, **sent)


async def test_a_conflict_of_two_calls_under_one_key_is_told(door: Door, desk: Desk) -> None:
    desk.prepare()
    meta = {"mcp-sessions/idempotencyKey": "call-1"}
    first = await door.client.call_tool("session_set", EXAMPLES["session_set"], meta=meta)
    again = await door.client.call_tool("session_set", EXAMPLES["session_set"], meta=meta)
    other = await door.client.call_tool("session_unset", EXAMPLES["session_unset"], meta=meta)
    assert again.structured_content == first.structured_content
    assert again.content == first.content
    assert other.is_error
    assert desk.head().revision == 7


@pytest.mark.parametrize("key", ["a b", "", "x" * 129, 7, ["a"], {}, True])
async def test_a_key_that_is_no_id_is_refused(door: Door, desk: Desk, key: object) -> None:
    desk.prepare()
    result = await door.client.call_tool(
        "session_set", EXAMPLES["session_set"], meta={"mcp-sessions/idempotencyKey": key}
    )
    assert result.is_error
    assert desk.head().revision == 6


def test_a_store_that_is_gone_is_an_error_of_the_protocol(store: Path) -> None:
    with Pipe(store) as server:
        server.shake_hands()
        server.structured("session_create", session_id="a")
        for file in store.parent.glob(store.name + "*"):
            file.unlink()
        error = server.answer(server.begin("session_set", session_id="a", key="k", value=1))["error"]
        assert error["code"] == INTERNAL_ERROR
        assert str(store) in error["message"]
        assert error["message"] in server.errors()
        assert server.said_only_json_rpc()


async def test_a_store_that_is_closed_is_an_error_of_the_protocol(desk: Desk, mode: str) -> None:
    async with Client(build_server(desk.manager, SESSION_TOOLS, TOOLSETS), mode=mode) as client:
        await client.list_tools()
        desk.manager.close()
        with pytest.raises(MCPError) as caught:
            await client.call_tool("session_create", {})
        assert caught.value.error.code == INTERNAL_ERROR


@pytest.mark.parametrize("trusted", [True, False])
async def test_where_a_broken_store_is_is_told_to_trusted_clients_and_the_log_alone(
    store: Path, mode: str, trusted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    manager = SessionManager(SQLiteSessionStorage(store))
    async with Client(build_server(manager, SESSION_TOOLS, TOOLSETS, trusted=trusted), mode=mode) as client:
        await client.list_tools()
        manager.storage.close()
        for ask in (
            client.call_tool("session_create", {}),
            client.read_resource("session:///a"),
            client.get_prompt("resume_session"),
            client.complete(PromptReference(name="resume_session"), {"name": "session_id", "value": ""}),
        ):
            caplog.clear()
            with pytest.raises(MCPError) as caught:
                await ask
            error = caught.value.error
            assert error.code == INTERNAL_ERROR
            assert (str(store) in error.message) == trusted
            assert error.data is None
            assert f"{store} is closed" in caplog.text
            assert "closed" in error.message.lower()
    with pytest.raises(StorageError):
        manager.close()


def test_what_a_tool_does_stays_inside(store: Path, desk: Desk) -> None:
    """Its exception is logged whole and told by its record alone; nothing that it prints reaches stdout."""
    desk("session_create", session_id="a")
    with Pipe(store, command=program("serve_more", sqlite_url(store))) as server:
        result = server.shake_hands().call("broken", session_id="a")
        assert result["isError"] is True
        (content,) = result["content"]
        record = desk.records("a")[0]
        assert content["text"] == f"Internal error (invocation {record.invocation_id})"
        assert (record.tool_name, record.status.value) == ("broken", "error")
        assert record.error is not None
        assert (record.error.type, record.error.message) == ("RuntimeError", "the inside")
        assert "Traceback" in server.errors()
        assert "RuntimeError: the inside" in server.errors()
        assert b"the inside" not in b"".join(server.said)
        assert "structuredContent" not in result
        assert server.structured("noisy") == {"child": 0, "stdin": ""}
        assert server.said_only_json_rpc()
        for noise in ("a print", "on descriptor 1", "on sys.stdout", "from a shell", "child on stdout", "on 1", "''"):
            assert noise in server.errors()
            assert noise not in json.dumps([json.loads(line) for line in server.said if b'"id":2' not in line])
