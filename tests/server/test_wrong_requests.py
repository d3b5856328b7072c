"""Wrong requests: the same answer in either era, through a client and on the wire, and nothing of the inside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp.types import EmptyResult, Request

from mcp_sessions.server.adapter import build_server
from mcp_sessions.tools import SESSION_TOOLS
from tests.server.conftest import TOOLSETS
from tests.server.pipes import Pipe
from tests.tools.desk import Desk

INVALID = "Invalid request parameters"
COMPLETE = {"ref": {"type": "ref/prompt", "name": "resume_session"}, "argument": {"name": "session_id", "value": ""}}
WRONG: list[tuple[str, dict[str, Any] | None, int, str]] = [
    # methods
    ("nobody/knows", {}, -32601, "Method not found"),
    ("nobody/knows", None, -32601, "Method not found"),
    ("tools", {"name": "session_get"}, -32601, "Method not found"),
    ("logging/setLevel", {"level": "info"}, -32601, "Method not found"),
    # malformed
    ("tools/call", None, -32602, INVALID),
    ("tools/call", {}, -32602, INVALID),
    ("tools/call", {"name": 5}, -32602, INVALID),
    ("tools/call", {"name": "session_get", "arguments": []}, -32602, INVALID),
    ("tools/call", {"name": "session_get", "arguments": "{}"}, -32602, INVALID),
    ("tools/list", {"cursor": 5}, -32602, INVALID),
    ("prompts/get", {}, -32602, INVALID),
    ("prompts/get", {"name": {}}, -32602, INVALID),
    ("prompts/get", {"name": "resume_session", "arguments": {"session_id": 5}}, -32602, INVALID),
    ("prompts/get", {"name": "resume_session", "arguments": {"session_id": None}}, -32602, INVALID),
    ("resources/read", {}, -32602, INVALID),
    ("resources/read", {"uri": 5}, -32602, INVALID),
    ("completion/complete", {}, -32602, INVALID),
    ("completion/complete", {**COMPLETE, "ref": {"type": "ref/tool", "name": "x"}}, -32602, INVALID),
    ("completion/complete", {**COMPLETE, "ref": {"type": "ref/prompt"}}, -32602, INVALID),
    ("completion/complete", {**COMPLETE, "argument": {"name": "session_id"}}, -32602, INVALID),
    ("completion/complete", {**COMPLETE, "context": {"arguments": {"tag": 5}}}, -32602, INVALID),
    # of things that are not there
    ("tools/list", {"cursor": "x"}, -32602, "The cursor is not one that was given out. "),
    ("prompts/list", {"cursor": "x"}, -32602, "The cursor is not one that was given out. "),
    ("resources/templates/list", {"cursor": "x"}, -32602, "The cursor is not one that was given out. "),
    ("resources/list", {"cursor": "x"}, -32602, "The cursor is not one that was given out. "),
    ("prompts/get", {"name": "x"}, -32602, "Unknown prompt 'x': known: resume_session, summarize_session."),
    ("prompts/get", {"name": "summarize_session"}, -32602, "Argument 'session_id' of summarize_session is missing: "),
    ("prompts/get", {"name": "resume_session", "arguments": {"x": "y"}}, -32602, "Unknown argument of resume_session "),
    (
        "prompts/get",
        {"name": "resume_session", "arguments": {"session_id": "nobody"}},
        -32602,
        "Session nobody not found: you have no active session. ",
    ),
    ("completion/complete", {**COMPLETE, "ref": {"type": "ref/prompt", "name": "x"}}, -32602, "Unknown prompt 'x': "),
    (
        "completion/complete",
        {**COMPLETE, "ref": {"type": "ref/resource", "uri": "file:///x"}},
        -32602,
        "Unknown resource template 'file:///x': known: session:///{session_id}, ",
    ),
    ("completion/complete", {**COMPLETE, "argument": {"name": "x", "value": ""}}, -32602, "Unknown argument of "),
]
MISSING = [
    ("session:///nobody", "Session nobody not found: you have no active session. "),
    ("file:///etc/passwd", "The uri is no resource; there are session:///"),
]
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("session_forget", {}, "Unknown tool 'session_forget': "),
    ("", {}, "Unknown tool '': there are session_create, "),
    ("agent_invoke", {}, "Unknown tool 'agent_invoke': it is in toolset 'automation', which is off"),
    ("session_get", {}, "Argument 'session_id' of session_get is missing."),
    ("session_get", {"id": "a"}, "Unknown argument 'id': did you mean 'session_id'?"),
    ("session_get", {"session_id": 5}, "Argument 'session_id' "),
    ("session_get", {"session_id": "nobody"}, "Session nobody not found: you have no active session. "),
]
"""Calls whose answer is the result of a tool, for a model to mend."""
INSIDE = ("pydantic", "Traceback", "mcp_sessions", ".py", "validation error", "Error(", "sqlite")
ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "pipe", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


def named(value: Any) -> str | None:
    return value if isinstance(value, str) else json.dumps(value)


@pytest.mark.parametrize(("method", "params", "code", "message"), WRONG, ids=named)
async def test_a_client_of_either_era_gets_the_same_error(
    desk: Desk, method: str, params: dict[str, Any] | None, code: int, message: str
) -> None:
    errors: list[Any] = []
    for mode in ("auto", "legacy"):
        async with Client(build_server(desk.manager, SESSION_TOOLS, TOOLSETS), mode=mode) as client:
            with pytest.raises(MCPError) as caught:
                await client.session.send_request(Request[Any, str](method=method, params=params), EmptyResult)
            errors.append(caught.value.error)
    auto, legacy = errors
    assert auto == legacy
    assert auto.code == code
    assert auto.message.startswith(message)


@pytest.fixture(scope="module")
def eras(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pipe, Pipe]]:
    """A server for each era, over one store that stays empty."""
    store: Path = tmp_path_factory.mktemp("wrong") / "sessions.db"
    with Pipe(store) as modern, Pipe(store) as legacy:
        legacy.shake_hands()
        assert "result" in modern.listen().ask("server/discover", {"_meta": ENVELOPE})
        yield modern, legacy
        for server in (modern, legacy):
            assert server.said_only_json_rpc()
            assert "Traceback" not in server.errors()


@pytest.mark.parametrize(("method", "params", "code", "message"), WRONG, ids=named)
def test_on_the_wire_either_era_gets_the_same_error(
    eras: tuple[Pipe, Pipe], method: str, params: dict[str, Any] | None, code: int, message: str
) -> None:
    modern, legacy = eras
    told = modern.ask(method, {**(params or {}), "_meta": ENVELOPE})["error"]
    assert told == legacy.ask(method, params)["error"]
    assert told["code"] == code
    assert told["message"].startswith(message)
    assert not [word for word in INSIDE if word in json.dumps(told)]


@pytest.mark.parametrize(("uri", "message"), MISSING)
def test_for_a_resource_that_is_missing_either_era_has_its_own_code(
    eras: tuple[Pipe, Pipe], uri: str, message: str
) -> None:
    modern, legacy = eras
    told = modern.ask("resources/read", {"uri": uri, "_meta": ENVELOPE})["error"]
    same = legacy.ask("resources/read", {"uri": uri})["error"]
    assert (told.pop("code"), same.pop("code")) == (-32602, -32002)
    assert told == same
    assert told["message"].startswith(message)
    assert told["data"] == {"uri": uri}


@pytest.mark.parametrize(("name", "arguments", "sentence"), REFUSED, ids=named)
def test_a_call_that_a_model_can_mend_is_refused_in_the_same_words(
    eras: tuple[Pipe, Pipe], name: str, arguments: dict[str, Any], sentence: str
) -> None:
    modern, legacy = eras
    call = {"name": name, "arguments": arguments}
    told = modern.ask("tools/call", {**call, "_meta": ENVELOPE})["result"]
    same = legacy.ask("tools/call", call)["result"]
    assert (told["content"], told["isError"]) == (same["content"], same["isError"])
    assert told["isError"]
    assert told["content"][0]["text"].startswith(sentence)
    assert not [word for word in INSIDE if word in told["content"][0]["text"]]
