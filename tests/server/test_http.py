"""The server over HTTP, as a real process on a real port: what it guards, whom it serves, how it ends."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, suppress
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client, MCPError
from mcp.client.sse import sse_client

from mcp_sessions.errors import ConfigError
from mcp_sessions.manager import SessionManager
from mcp_sessions.server.adapter import build_server
from mcp_sessions.server.http import build_app, listen
from mcp_sessions.storage import SQLiteSessionStorage
from mcp_sessions.tools import SESSION_TOOLS
from tests.processes import LONG_S, Child, until
from tests.storage.programs import hold_gate, hold_lock
from tests.tools.desk import Desk

from .conftest import Door
from .ears import listening
from .pipes import SERVE, environment, program
from .ports import Port, answer, head

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}},
}
MESSAGE = {"session_id": "old", "role": "user", "content": "x"}
ROUTES = ["/mcp", "/sse", "/messages/", "/healthz", "/", "/nothing"]


@pytest.fixture
def port(store: Path) -> Iterator[Port]:
    """For a test that ends it, or looks at its store from outside."""
    with Port(store) as port:
        yield port


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Port]:
    """One for all the others."""
    with Port(tmp_path_factory.mktemp("shared") / "sessions.db") as port:
        yield port
        assert "Traceback" not in port.errors()


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_is_guarded(shared: Port, route: str) -> None:
    for method in ("GET", "POST", "DELETE", "OPTIONS"):
        assert shared.ask(f"{method} {route}", host="evil.example")[0] == 421
        assert shared.ask(f"{method} {route}", origin="https://evil.example")[0] == 403
    assert shared.ask(f"POST {route}", content_length=str(1 << 30))[0] == 413


async def test_health_is_that_the_store_can_be_read(shared: Port, store: Path) -> None:
    status, body = shared.ask("GET /healthz")
    assert (status, json.loads(body)) == (200, {"status": "ok"})
    with SessionManager(SQLiteSessionStorage(store)) as manager:
        app = build_app(build_server(manager, SESSION_TOOLS, ("core",)), manager)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://localhost") as client:
        response = await client.get("/healthz")  # of a store that is closed
    assert response.status_code == 503
    assert str(store) not in response.text


async def test_health_is_told_although_all_threads_but_the_servers_are_taken(desk: Desk) -> None:
    app = build_app(build_server(desk.manager, SESSION_TOOLS, ("core",)), desk.manager)
    others = anyio.to_thread.current_default_thread_limiter()
    async with (
        AsyncExitStack() as taken,
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://localhost") as client,
    ):
        for _ in range(int(others.total_tokens)):
            holder = object()
            await others.acquire_on_behalf_of(holder)
            taken.callback(others.release_on_behalf_of, holder)
        with anyio.fail_after(LONG_S):
            assert (await client.get("/healthz")).status_code == 200


def test_what_is_not_served_is_answered_so(shared: Port) -> None:
    assert shared.ask("GET /nothing")[0] == 404
    assert shared.ask("POST /sse")[0] == 405
    assert shared.ask("POST /messages/")[0] == 400
    assert shared.ask("POST /mcp", b"{", content_type="application/json", accept="application/json, text/event-stream")[
        0
    ] in (400, 406)


async def test_an_sse_connection_that_goes_leaves_the_others_working(shared: Port) -> None:
    async with Client(sse_client(f"{shared.url}/sse")) as first, Client(sse_client(f"{shared.url}/sse")) as second:
        door = Door(first)
        created = await door.structured("session_create", session_id="a")
        assert created["session_id"] == "a"
        for _ in range(3):
            async with Client(sse_client(f"{shared.url}/sse")) as third:
                await Door(third).structured("session_add_message", session_id="a", role="user", content="third")
        await Door(second).structured("session_add_message", session_id="a", role="user", content="second")
        read = await door.structured("session_messages", session_id="a")
        assert [message["content"] for message in read["messages"]] == ["second", "third", "third", "third"]


async def test_a_large_message_goes_through_and_a_larger_one_is_refused(shared: Port) -> None:
    async with Client(f"{shared.url}/mcp") as client:
        door = Door(client)
        await door.structured("session_create", session_id="large")
        payload = {"openai": "x" * (15 << 20)}
        await door.structured("session_add_message", session_id="large", role="user", content="big", payload=payload)
        told = await door.refusal("session_add_message", session_id="large", role="user", content="x" * (2 << 20))
        assert "content" in told


async def test_in_the_old_era_too_an_answer_is_json_unless_something_comes_before_it(shared: Port) -> None:
    headers = {"accept": "application/json, text/event-stream"}
    async with httpx2.AsyncClient(base_url=shared.url, headers=headers) as client:

        async def ask(method: str, params: dict[str, Any], id: int | str = 1) -> httpx2.Response:
            return await client.post("/mcp", json={"jsonrpc": "2.0", "id": id, "method": method, "params": params})

        begun = await ask("initialize", INITIALIZE["params"])
        client.headers["mcp-session-id"] = begun.headers["mcp-session-id"]
        await client.post("/mcp", json={"jsonrpc": "2.0", "method": "notifications/initialized"})
        create = {"name": "session_create", "arguments": {"session_id": "old", "purpose": "Grüße,\r\n\r\n世界"}}
        created = await ask("tools/call", create)
        await ask("tools/call", {"name": "session_add_message", "arguments": MESSAGE})
        export = {"name": "session_export", "arguments": {"session_id": "old"}}
        quiet = await ask("tools/call", export, 'a"},\n')
        refused = await ask("nothing", {}, -1)
        for answer, number in [(begun, 1), (created, 1), (quiet, 'a"},\n'), (refused, -1)]:
            assert answer.headers["content-type"] == "application/json"
            assert int(answer.headers["content-length"]) == len(answer.content)
            assert answer.json()["id"] == number
        assert created.json()["result"]["structuredContent"]["purpose"] == "Grüße,\r\n\r\n世界"
        telling = await ask("tools/call", {**export, "_meta": {"progressToken": "t"}})
    assert telling.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line[6:]) for line in telling.text.splitlines() if line.startswith("data: ")]
    assert {event["params"]["progressToken"] for event in events[:-1]} == {"t"}
    assert events[-1]["result"] == quiet.json()["result"]


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_whoever_is_connected(port: Port, desk: Desk, ending: int) -> None:
    desk.manager.create_session("a")
    with port.connect() as silent, port.connect() as half, port.connect() as stream, stream.makefile("rb") as events:
        half.sendall(b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf")
        stream.sendall(head("GET /sse"))
        assert any(line.startswith(b"event: endpoint") for line in events)
        async with Client(f"{port.url}/mcp") as client:
            await Door(client).structured("session_get", session_id="a")
            assert await anyio.to_thread.run_sync(port.end, ending) == 0
        assert silent.recv(1) == b""
        assert b"event:" not in events.read()
    assert [record.tool_name for record in desk.manager.invocations("a").items] == ["session_get"]
    assert port.errors().count("\n") == 1, port.errors()


@pytest.mark.parametrize(("path", "ending"), [("/mcp", signal.SIGTERM), ("/sse", signal.SIGINT)])
async def test_who_listens_does_not_hold_up_the_end(store: Path, desk: Desk, path: str, mode: str, ending: int) -> None:
    desk.manager.create_session("a")
    with Port(store, command=program("serve_patiently_over_http", str(store))) as port:
        url = f"{port.url}{path}"
        async with listening(sse_client(url) if path == "/sse" else url, mode, "session:///a") as (_, ear):
            desk.manager.update_session_metadata("a", purpose="x")
            await ear.until("session:///a")
            assert await anyio.to_thread.run_sync(port.end, ending) == 0


def test_more_connections_than_there_are_files_for_are_closed_and_the_others_served(store: Path) -> None:
    """The server could not take connections any more, and wrote 300,000 lines about it."""
    with Port(store, command=program("serve_with_files", "256", "256")) as port, port.connect() as half:
        request = asking("tools/call", {"name": "session_create", "arguments": {}}, "session_create")
        half.sendall(request[:-1])
        with ExitStack() as idle:
            many = [idle.enter_context(port.connect()) for _ in range(400)]
            with suppress(ConnectionResetError):
                assert many[-1].recv(1) == b""
            half.sendall(request[-1:])
            assert answer(half)[0] == 200
        assert port.errors().count("\n") == 1, port.errors()


def test_a_server_asks_for_the_files_that_its_clients_need(store: Path) -> None:
    with Port(store, command=program("serve_with_files", "64", "4096")) as port, ExitStack() as clients:
        for _ in range(100):
            client = clients.enter_context(port.connect())
            client.sendall(head("GET /sse"))
            assert client.recv(1)


def asking(method: str, params: dict[str, Any], name: str) -> bytes:
    """The bytes of a request, as 2026-07-28 has it, after which the server closes."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}).encode()
    return head(
        "POST /mcp",
        body,
        content_type="application/json",
        accept="application/json, text/event-stream",
        mcp_protocol_version="2026-07-28",
        mcp_method=method,
        mcp_name=name,
    )


def called(port: Port, name: str, **arguments: Any) -> dict[str, Any] | None:
    """The result of a call; None where the connection was cut off."""
    try:
        with port.connect() as connection:
            connection.sendall(asking("tools/call", {"name": name, "arguments": arguments}, name))
            status, said = answer(connection)
    except (OSError, IndexError):
        return None
    assert status == 200, said
    return json.loads(said)["result"]


def test_who_does_not_read_an_answer_does_not_hold_up_the_end(store: Path, desk: Desk) -> None:
    desk.manager.create_session("a")
    for _ in range(16):
        desk.manager.add_conversation_message("a", "user", "x" * 1_000_000)
    with Port(store, command=program("serve_patiently_over_http", str(store))) as port, port.connect() as connection:
        connection.sendall(asking("resources/read", {"uri": "session:///a/messages"}, "session:///a/messages"))
        assert connection.recv(1)  # as much as the system takes is on its way
        assert port.end(signal.SIGTERM) == 0


def test_calls_that_were_accepted_are_finished_and_on_record(port: Port, desk: Desk) -> None:
    desk.manager.create_session("a")
    message = {"session_id": "a", "role": "user", "content": "x"}
    assert called(port, "session_add_message", **message) is not None
    with ThreadPoolExecutor(20) as threads:
        calls = [threads.submit(called, port, "session_add_message", **message) for _ in range(200)]
        until(lambda: sum(call.done() for call in calls) > 20)
        assert port.end(signal.SIGTERM) == 0
    told = [call.result()["structuredContent"]["seq"] for call in calls if call.result() is not None]
    there = {message.seq for message in desk.manager.messages("a", limit=1000).items}
    assert len(told) > 20
    assert set(told) <= there
    assert there == set(range(1, len(there) + 1))
    records = desk.manager.invocations("a", "session_add_message", "ok", limit=1000).items
    assert len(records) == len(there)


@pytest.mark.parametrize("hold", [hold_gate, hold_lock])
async def test_who_holds_the_store_does_not_hold_up_the_end(
    port: Port, store: Path, desk: Desk, hold: Callable[[str], None]
) -> None:
    desk.manager.create_session("a")
    async with Client(f"{port.url}/mcp") as client:
        await Door(client).structured("session_query")
        with Child(hold, str(store)) as holder:
            assert holder.hear()

            async def add() -> None:
                with pytest.raises((MCPError, httpx2.HTTPError, AssertionError)):  # refused, or cut off
                    await Door(client).structured("session_add_message", session_id="a", role="user", content="late")

            async with anyio.create_task_group() as group:
                group.start_soon(add)
                await anyio.sleep(0.3)
                with anyio.fail_after(10):  # thirty seconds is how long a call waits
                    await anyio.to_thread.run_sync(port.end, signal.SIGTERM)
    assert desk.manager.messages("a").items == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7"])
def test_an_address_that_others_can_reach_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match=f"{re.escape(host)}: other machines could reach it.* needs tokens"):
        listen(host, 0).close()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--session", "a"), "is for stdio"),
        (("--port", "70000"), "70000"),
        (("--toolsets", "[]"), "no tool is on"),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_reason(store: Path, arguments: tuple[str, ...], told: str) -> None:
    code, _, errors = run(store, "--transport", "http", "--port", "0", *arguments)
    assert code == 2
    assert told in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("setting", "value", "arguments", "told"),
    [
        ("HOST", "0.0.0.0", (), "MCP_SESSIONS_HOST 0.0.0.0: other machines"),
        ("HOST", "0.0.0.0", ("--host", "::"), "--host ::: other machines"),
        ("PORT", "TAKEN", (), r"MCP_SESSIONS_PORT TAKEN of 127\.0\.0\.1: .*Choose another one"),
        ("PORT", "1", ("--port", "TAKEN"), r"--port TAKEN of 127\.0\.0\.1: .*Choose another one"),
    ],
)
def test_an_address_that_cannot_be_is_told_by_the_name_it_was_given_under(
    shared: Port,
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    value: str,
    arguments: tuple[str, ...],
    told: str,
) -> None:
    taken = str(shared.number)
    monkeypatch.setenv(f"MCP_SESSIONS_{setting}", value.replace("TAKEN", taken))
    code, _, errors = run(store, "--transport", "http", *(one.replace("TAKEN", taken) for one in arguments))
    assert code == 2
    assert re.search(told.replace("TAKEN", taken), errors)
    assert "Traceback" not in errors


@pytest.mark.parametrize("arguments", [("--host", "127.0.0.1"), ("--port", "1234")])
def test_an_address_is_for_http_alone(store: Path, arguments: tuple[str, ...]) -> None:
    code, _, errors = run(store, *arguments)
    assert code == 2
    assert "--transport http" in errors


@pytest.mark.parametrize("name", ["TOKENS", "OAUTH_ISSUER"])
def test_tokens_are_refused_while_nobody_asks_for_them(store: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"MCP_SESSIONS_{name}", "ada=0123456789abcdef0123456789abcdef")
    code, _, errors = run(store, "--transport", "http", "--port", "0")
    assert code == 2
    assert "TOKENS" in errors
    assert "0123456789abcdef" not in errors


@pytest.mark.parametrize("name", ["sse", "streamable-http"])
async def test_other_names_of_the_transport_are_the_same_server(store: Path, name: str) -> None:
    with Port(store, "--transport", name) as port:
        async with Client(f"{port.url}/mcp") as one, Client(sse_client(f"{port.url}/sse")) as other:
            assert len((await one.list_tools()).tools) == len((await other.list_tools()).tools) == 16


def test_a_slow_head_is_closed_by_the_real_server_too(shared: Port) -> None:
    with shared.connect() as slow:
        slow.sendall(b"GET /healthz HT")
        with pytest.raises(ConnectionResetError):
            assert slow.recv(1) == b""
            raise ConnectionResetError
    assert shared.ask("GET /healthz")[0] == 200


def test_a_client_that_speaks_no_http_does_no_harm(shared: Port) -> None:
    with shared.connect() as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00\x01" + bytes(1000))
        assert answer(connection)[0] == 400
    assert shared.ask("GET /healthz")[0] == 200


def test_the_store_is_as_it_must_be_after_a_kill(store: Path) -> None:
    with Port(store) as port:
        body = json.dumps(INITIALIZE).encode()
        accept = "application/json, text/event-stream"
        assert port.ask("POST /mcp", body, content_type="application/json", accept=accept)[0] == 200
        port.process.kill()
        port.process.wait(LONG_S)
    with SQLiteSessionStorage(store) as storage:
        assert {finding.level for finding in storage.check()} == {"ok"}


def run(store: Path, *args: str) -> tuple[int, str, str]:
    """`serve` where it should end by itself: exit code, stdout, stderr."""
    done = subprocess.run(
        [sys.executable, *SERVE, *args],
        env=environment(store),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=LONG_S,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr
