"""Subscriptions: clients of both eras hear of exactly what changed, whoever changed it, while they listen."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx2
import pytest
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.sse import sse_client
from mcp.types import INVALID_PARAMS, TextResourceContents

from mcp_sessions import MemorySessionStorage, SessionManager
from mcp_sessions.models import Page, SessionChange
from mcp_sessions.server.adapter import SessionsServer, build_server
from mcp_sessions.server.http import build_app, listen, url_of
from mcp_sessions.server.http import serve as serve_http
from mcp_sessions.tools import SESSION_TOOLS
from tests.processes import LONG_S, until
from tests.tools.desk import Desk

from .conftest import TOOLSETS
from .ears import THE_LIST, listening, subscribe, unsubscribe
from .pipes import HANDSHAKE, SERVE, Pipe, environment
from .ports import Port

HEAD, MESSAGES, MESSAGE = "session:///a", "session:///a/messages", "session:///a/messages/2"
PLAN, NEXT, OTHER = "session:///a/data/plan", "session:///a/data/next_step", "session:///a/data/the%2Fother"
MARK = "session:///mark"
ALL = (HEAD, MESSAGES, MESSAGE, PLAN, NEXT, OTHER, MARK, "session:///b", "file:///etc/passwd", "")
CHANGES: dict[str, tuple[Callable[[Desk], Any], set[str]]] = {
    "a message": (lambda desk: desk.example("session_add_message"), {HEAD, MESSAGES}),
    "a key": (lambda desk: desk.example("session_set"), {HEAD, PLAN}),
    "a new key": (lambda desk: desk("session_set", session_id="a", key="the/other", value=1), {HEAD, OTHER}),
    "a removed key": (lambda desk: desk("session_unset", session_id="a", keys=["plan"]), {HEAD, PLAN}),
    "metadata": (lambda desk: desk.example("session_update"), {HEAD}),
    "its end": (lambda desk: desk.example("session_complete"), {HEAD}),
    "its deletion": (lambda desk: desk.example("session_delete"), {HEAD, MESSAGES, MESSAGE, PLAN, NEXT}),
    "a fork": (lambda desk: desk.example("session_fork"), {"session:///b"}),
    "a record": (lambda desk: desk.example("session_record_invocation"), set()),
    "a read": (lambda desk: desk.example("session_get"), set()),
}


def serve(desk: Desk) -> SessionsServer:
    return build_server(desk.manager, SESSION_TOOLS, TOOLSETS)


async def quiet(server: SessionsServer) -> None:
    """Wait until nobody listens any more."""
    await anyio.to_thread.run_sync(until, lambda: not len(server.subscriptions.watcher))


@pytest.mark.parametrize("what", CHANGES)
async def test_exactly_the_resources_that_changed_are_told(desk: Desk, mode: str, what: str) -> None:
    desk.prepare()
    desk("session_create", session_id="mark")
    change, told = CHANGES[what]
    async with listening(serve(desk), mode, *ALL) as (_, ear):
        change(desk)
        desk("session_set", session_id="mark", key="k", value=1)
        *heard, _ = await ear.until(MARK)
        assert sorted(heard) == sorted(told)


async def test_erased_messages_are_told_and_those_that_stay_are_not(desk: Desk, mode: str) -> None:
    desk.prepare()
    desk("session_create", session_id="mark")
    async with listening(serve(desk), mode, *ALL) as (_, ear):
        session = desk.manager.get_session("a")
        assert session is not None
        session.clear_conversation()
        desk.manager.save_session(session)
        desk("session_set", session_id="mark", key="k", value=1)
        assert sorted(await ear.until(MARK)) == sorted([HEAD, MESSAGES, MESSAGE, MARK])


async def test_a_session_made_anew_under_its_id_is_another_one(desk: Desk, mode: str) -> None:
    desk("session_create", session_id="a", data={"plan": 1})
    async with listening(serve(desk), mode, *ALL) as (_, ear):
        desk("session_delete", session_id="a", confirm=True)
        desk.clock.go_on(seconds=1)
        desk("session_create", session_id="a", data={"plan": 1})
        desk("session_create", session_id="mark")
        assert {HEAD, MESSAGES, PLAN} <= set(await ear.until(MARK))


async def test_the_list_changes_when_sessions_appear_or_go(desk: Desk, mode: str) -> None:
    desk.prepare()
    desk("session_create", session_id="mark")
    async with listening(serve(desk), mode, MARK, lists=True) as (client, ear):
        assert client.server_capabilities is not None
        assert client.server_capabilities.resources is not None
        assert client.server_capabilities.resources.list_changed
        assert client.server_capabilities.resources.subscribe
        for name in ("session_set", "session_complete", "session_update", "session_create", "session_fork"):
            desk.example(name) if name != "session_update" else desk("session_update", session_id="a", reopen=True)
            if name in ("session_create", "session_fork"):
                assert await ear.until(THE_LIST) == [THE_LIST]
        desk("session_delete", session_id="b", confirm=True)
        assert await ear.until(THE_LIST) == [THE_LIST]
        desk("session_set", session_id="mark", key="k", value=1)
        assert await ear.until(MARK) == [MARK]


async def test_what_a_client_does_itself_is_told_too(desk: Desk, mode: str) -> None:
    async with listening(serve(desk), mode, HEAD, lists=True) as (client, ear):
        await client.call_tool("session_create", {"session_id": "a"})
        assert set(await ear.until(HEAD)) <= {HEAD, THE_LIST}


async def test_a_store_in_memory_is_watched_alike(mode: str) -> None:
    with SessionManager(MemorySessionStorage()) as manager:
        async with listening(build_server(manager, SESSION_TOOLS, TOOLSETS), mode, PLAN, lists=True) as (_, ear):
            manager.create_session("a")
            assert await ear.until(THE_LIST) == [THE_LIST]
            manager.set_value("a", "plan", 1)
            assert await ear.until(PLAN) == [PLAN]


async def test_whoever_unsubscribes_hears_of_the_rest_alone(desk: Desk) -> None:
    desk.prepare()
    server = serve(desk)
    async with listening(server, "legacy", HEAD, MESSAGES, PLAN) as (client, ear):
        await unsubscribe(client, HEAD)
        await unsubscribe(client, "session:///never")
        desk.example("session_add_message")
        desk.example("session_set")
        assert sorted(await ear.until(PLAN)) == [PLAN, MESSAGES]
        for uri in (MESSAGES, PLAN):
            await unsubscribe(client, uri)
        assert len(server.subscriptions.watcher) == 0


async def test_clients_that_go_leave_nothing_behind(desk: Desk, mode: str) -> None:
    desk.prepare()
    server = serve(desk)
    for _ in range(3):
        async with listening(server, mode, HEAD, lists=True):
            async with listening(server, mode, PLAN):
                assert len(server.subscriptions.watcher) == 2
        await quiet(server)
        assert len(server.subscriptions) == 0


class Counting(MemorySessionStorage):
    """Counts how often it is asked what changed."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def changes(self, since: str | None, limit: int = 1000) -> Page[SessionChange]:
        self.asked += 1
        return super().changes(since, limit)


async def test_nobody_looks_while_nobody_listens(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_sessions.server.watching.LOOK_S", 0.001)
    storage = Counting()
    with SessionManager(storage) as manager:
        server = build_server(manager, SESSION_TOOLS, TOOLSETS)
        async with Client(server, mode=mode) as client:
            await client.call_tool("session_create", {"session_id": "a"})
            await client.read_resource(HEAD)
            assert storage.asked == 0
        async with listening(server, mode, HEAD):
            asked = storage.asked
            await anyio.to_thread.run_sync(until, lambda: storage.asked > asked + 3)
        await quiet(server)
        await anyio.to_thread.run_sync(until, lambda: server.subscriptions.watcher.resting)
        asked = storage.asked
        async with Client(server, mode=mode) as client:
            await client.call_tool("session_create", {"session_id": "b"})
            await anyio.sleep(0.05)
        assert storage.asked == asked


async def test_a_client_may_watch_many_resources_but_not_any_number(desk: Desk, mode: str) -> None:
    many = [f"session:///a/data/{number}" for number in range(1_000)]
    desk.prepare()
    async with listening(serve(desk), mode, *many) as (client, ear):
        if mode == "legacy":
            with pytest.raises(MCPError) as caught:
                await subscribe(client, HEAD)
        else:
            with pytest.raises(MCPError) as caught:
                async with client.listen(resource_subscriptions=[*many, HEAD]):
                    pass
        assert caught.value.error.code == INVALID_PARAMS
        assert "1,000" in caught.value.error.message
        desk("session_set", session_id="a", key="999", value=1)
        assert await ear.until(many[-1]) == [many[-1]]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for two servers."""
    return tmp_path_factory.mktemp("two") / "sessions.db"


@pytest.fixture(scope="module")
def port(shared: Path) -> Iterator[Port]:
    with Port(shared) as port:
        yield port


@pytest.fixture(scope="module")
def writer(shared: Path) -> Iterator[Pipe]:
    """Another server of that store, with a client of its own."""
    with Pipe(shared) as server:
        yield server.shake_hands()


def over_stdio(store: Path) -> StdioServerParameters:
    return StdioServerParameters(command=sys.executable, args=list(SERVE), env=environment(store))


async def hear_of(writer: Pipe, server: Any, mode: str, session_id: str) -> None:
    """Listen to a server, and let another one write."""
    head, key = f"session:///{session_id}", f"session:///{session_id}/data/k"
    async with listening(server, mode, key, head, lists=True) as (client, ear):
        writer.structured("session_create", session_id=session_id)
        assert set(await ear.until(head)) <= {head, THE_LIST}
        await ear.until(THE_LIST)
        took: list[float] = []
        for number in range(5):
            writer.structured("session_set", session_id=session_id, key="k", value=number)
            since = time.monotonic()
            await ear.until(key)
            took.append(time.monotonic() - since)
            (content,) = (await client.read_resource(key)).contents
            assert isinstance(content, TextResourceContents)
            assert content.text == str(number)
        assert sorted(took)[2] < 1, took
        ear.heard.clear()
        writer.structured("session_delete", session_id=session_id, confirm=True)
        assert set(await ear.until(THE_LIST)) == {head, key, THE_LIST}


@pytest.mark.parametrize("transport", ["stdio", "sse", "streamable-http"])
async def test_what_another_server_writes_is_told_within_a_second(
    shared: Path, port: Port, writer: Pipe, transport: str, mode: str
) -> None:
    servers: dict[str, Any] = {
        "stdio": over_stdio(shared),
        "sse": sse_client(f"{port.url}/sse"),
        "streamable-http": f"{port.url}/mcp",
    }
    await hear_of(writer, servers[transport], mode, f"{transport}-{mode}")


async def test_what_another_server_writes_into_a_store_of_files_is_told_so_too(tmp_path: Path, mode: str) -> None:
    folder = tmp_path / "sessions"
    with Pipe(folder) as writer:
        await hear_of(writer.shake_hands(), over_stdio(folder), mode, "a")
        writer.structured("session_create", session_id="b")
    assert (folder / "b" / "log.jsonl").exists()


class Served:
    """A server on a port, in this process, so that a test can see what it remembers."""

    def __init__(self, server: SessionsServer, url: str) -> None:
        self.server = server
        self.url = url

    async def count(self, listeners: int, clients: int) -> None:
        """Wait until so many listen, and so many of the old era are known."""
        known = self.server.subscriptions
        await anyio.to_thread.run_sync(until, lambda: (len(known.watcher), len(known)) == (listeners, clients))


@pytest.fixture
async def served(desk: Desk) -> AsyncIterator[Served]:
    server = serve(desk)
    with listen("127.0.0.1", 0) as bound:
        async with anyio.create_task_group() as group:
            group.start_soon(serve_http, build_app(server, desk.manager), bound, desk.manager.storage.give_up)
            yield Served(server, url_of(bound))
            group.cancel_scope.cancel()


@pytest.mark.parametrize("path", ["/sse", "/mcp"])
async def test_clients_that_go_from_a_port_leave_nothing_behind(
    served: Served, desk: Desk, path: str, mode: str
) -> None:
    desk.prepare()

    def server() -> Any:
        return sse_client(f"{served.url}/sse") if path == "/sse" else f"{served.url}/mcp"

    legacy = mode == "legacy"
    for _ in range(2):
        async with listening(server(), mode, HEAD, PLAN) as (_, first):
            async with listening(server(), mode, HEAD, lists=True) as (_, second):
                await served.count(2, 2 * legacy)
                desk.example("session_set")
                assert sorted(await first.until(PLAN)) == [HEAD, PLAN]
                assert await second.until(HEAD) == [HEAD]
            await served.count(1, 1 * legacy)
        await served.count(0, 0)


class Raw:
    """A client of the old era over HTTP that says by itself when it keeps a GET open."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client

    async def begin(self) -> None:
        self._client.headers["accept"] = "application/json, text/event-stream"
        answer = await self._post("initialize", HANDSHAKE, id=1)
        self._client.headers["mcp-session-id"] = answer.headers["mcp-session-id"]
        await self._post("notifications/initialized", {})

    async def subscribe(self, uri: str) -> None:
        assert '"result"' in (await self._post("resources/subscribe", {"uri": uri}, id=2)).text

    async def delete(self) -> None:
        assert (await self._client.delete("/mcp")).status_code == 200

    def open(self) -> AbstractAsyncContextManager[httpx2.Response]:
        return self._client.stream("GET", "/mcp", timeout=LONG_S)

    async def _post(self, method: str, params: dict[str, Any], **id: int) -> httpx2.Response:
        return await self._client.post("/mcp", json={"jsonrpc": "2.0", "method": method, "params": params, **id})


async def notices(stream: httpx2.Response, count: int) -> set[str]:
    """The uris in the first notices of a stream."""
    uris: set[str] = set()
    with anyio.fail_after(LONG_S):
        async for line in stream.aiter_lines():
            if line.startswith("data: {"):
                uris.add(json.loads(line.removeprefix("data: "))["params"]["uri"])
            if len(uris) == count:
                break
    return uris


@pytest.fixture
async def raw(served: Served) -> AsyncIterator[Raw]:
    async with httpx2.AsyncClient(base_url=served.url) as client:
        raw = Raw(client)
        await raw.begin()
        yield raw


async def test_what_changed_while_a_stream_was_closed_is_told_on_the_next(served: Served, raw: Raw, desk: Desk) -> None:
    desk.prepare()
    await raw.subscribe(PLAN)
    await raw.subscribe(HEAD)
    await served.count(0, 1)  # nobody looks for whom nothing reaches
    async with raw.open() as stream:
        await served.count(1, 1)
        desk("session_update", session_id="a", purpose="x")
        assert await notices(stream, 1) == {HEAD}
    await served.count(0, 1)
    desk.example("session_set")
    async with raw.open() as stream:
        assert await notices(stream, 2) == {PLAN, HEAD}


async def test_a_client_over_http_is_forgotten_with_its_delete(served: Served, raw: Raw, desk: Desk) -> None:
    desk.prepare()
    await raw.subscribe(HEAD)
    async with raw.open():
        await served.count(1, 1)
        await raw.delete()
        await served.count(0, 0)


async def test_a_client_over_http_that_stays_away_is_forgotten(
    served: Served, raw: Raw, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcp_sessions.server.subscriptions.DEFAULT_SESSION_IDLE_TIMEOUT", 0)
    desk.prepare()
    async with raw.open():
        await raw.subscribe(HEAD)
        await served.count(1, 1)
    await served.count(0, 0)
