"""Calls in flight: cancelled ones, slow ones beside quick ones, and how far a long one is."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.sse import sse_client
from mcp.types import ResourceTemplateReference
from pydantic import BaseModel

from mcp_sessions import MemorySessionStorage, SessionManager
from mcp_sessions.calls import Call
from mcp_sessions.config import sqlite_url
from mcp_sessions.models import Change
from mcp_sessions.server.adapter import build_server
from mcp_sessions.server.answers import ROOM
from mcp_sessions.storage.heads import Committed
from mcp_sessions.tools import SESSION_TOOLS, Toolbox
from mcp_sessions.tools.awaiting import invoke_async
from tests.processes import LONG_S, until
from tests.server.conftest import Door
from tests.server.pipes import Pipe, environment, program
from tests.server.ports import Port
from tests.stores import SetClock
from tests.tools.desk import Desk

KEY_NAME = "mcp-sessions/idempotencyKey"
KEY = {KEY_NAME: "once"}
TEMPLATE = ResourceTemplateReference(type="ref/resource", uri="session:///{session_id}")


class Turnstile:
    """Somebody comes to a place, and waits there until let through."""

    def __init__(self) -> None:
        self._here = threading.Event()
        self._go = threading.Event()

    def pass_through(self) -> None:
        self._here.set()
        assert self._go.wait(LONG_S)

    async def somebody(self) -> None:
        assert await anyio.to_thread.run_sync(self._here.wait, LONG_S)

    def open(self) -> None:
        self._go.set()


class SlowStorage(MemorySessionStorage):
    """A store whose commits of keys are answered late: they are done, and whoever made them waits."""

    def __init__(self) -> None:
        super().__init__()
        self.late = Turnstile()

    def commit(self, session_id: str | None, change: Change) -> Committed:
        committed = super().commit(session_id, change)
        if change.set:
            self.late.pass_through()
        return committed


class AskedStorage(MemorySessionStorage):
    """A store that tells when it is asked whether a running call's process lives, as who waits for that call does."""

    def __init__(self) -> None:
        super().__init__()
        self._asked = threading.Event()

    def alive(self, owner: str) -> bool:
        self._asked.set()
        return super().alive(owner)

    async def somebody(self) -> None:
        assert await anyio.to_thread.run_sync(self._asked.wait, LONG_S)


@pytest.fixture
def manager() -> Iterator[SessionManager]:
    with SessionManager(MemorySessionStorage(), clock=SetClock()) as manager:
        manager.create_session("a")
        yield manager


@pytest.fixture
def turnstile() -> Turnstile:
    return Turnstile()


@pytest.fixture
def box(turnstile: Turnstile) -> Toolbox:
    """Our tools, one that sets a key after it was let through, and slow ones that do."""
    box = Toolbox(SESSION_TOOLS)

    @box.tool(title="Hold", toolset="core")
    def hold(call: Call, session_id: str) -> Any:
        """Set a key, late."""
        call.draft.set_value("held", 1)
        turnstile.pass_through()
        return {}

    @box.tool(title="Read late", toolset="core", reads=True)
    def read(call: Call, session_id: str) -> Any:
        """Read nothing, late."""
        turnstile.pass_through()
        return {}

    @box.tool(title="Hold", toolset="core")
    async def hold_on(call: Call, session_id: str) -> Any:
        """Set a key, late."""
        call.draft.set_value("held", 1)
        await anyio.to_thread.run_sync(turnstile.pass_through, abandon_on_cancel=True)
        return {}

    @box.tool(title="Set at once", toolset="core")
    async def set_at_once(call: Call, session_id: str) -> Any:
        """Set a key."""
        call.draft.set_value("held", 1)
        return {}

    @box.tool(title="Break", toolset="core")
    async def break_late(call: Call, session_id: str | None = None) -> Any:
        """Raise what nobody expects."""
        await anyio.lowlevel.checkpoint()
        raise RuntimeError("the inside")

    return box


@asynccontextmanager
async def given_up(
    client: Client, name: str, has_come: Callable[[], Any], meta: Any = None, **more: Any
) -> AsyncIterator[None]:
    """A call that its client has cancelled, once `has_come`; the server knows."""
    async with anyio.create_task_group() as group:
        scope = anyio.CancelScope()

        async def call() -> None:
            with scope:
                await client.call_tool(name, {"session_id": "a", **more}, meta=meta)

        group.start_soon(call)
        await has_come()
        scope.cancel()
        await client.list_tools(cache_mode="bypass")  # what was sent before this has arrived
        yield


def stands(manager: SessionManager, tool: str) -> list[str]:
    """How the calls of a tool ended, the first one first."""
    records = [one for one in manager.invocations("a", limit=100).items if one.tool_name == tool]
    return [record.status.value for record in reversed(records)]


# cancelled


@pytest.mark.parametrize("name", ["hold", "read", "hold_on"])
async def test_a_call_cancelled_before_its_commit_changes_nothing(
    manager: SessionManager, box: Toolbox, turnstile: Turnstile, mode: str, name: str
) -> None:
    async with Client(build_server(manager, box, ("core",)), mode=mode) as client:
        await client.list_tools()
        async with given_up(client, name, turnstile.somebody):
            turnstile.open()
    assert stands(manager, name) == ["cancelled"]
    assert manager.get_value("a", "held") is None


@asynccontextmanager
async def connected(store: Path, transport: str, mode: str) -> AsyncIterator[Client]:
    """A client of a server of more tools, in a process of its own."""
    url = sqlite_url(store)
    if transport == "stdio":
        command = program("serve_more", url)
        server = StdioServerParameters(command=sys.executable, args=list(command), env=environment(store))
        async with Client(server, mode=mode) as client:
            yield client
        return
    with Port(store, command=program("serve_more_over_http", url)) as port:
        async with Client(
            sse_client(f"{port.url}/sse") if transport == "sse" else f"{port.url}/mcp", mode=mode
        ) as client:
            yield client


@pytest.mark.parametrize("transport", ["stdio", "sse", "streamable-http"])
async def test_a_client_of_any_transport_cancels_a_call(store: Path, desk: Desk, transport: str, mode: str) -> None:
    """Over streamable HTTP in the new era it hangs up, and else it says so."""
    desk("session_create", session_id="a")

    async def stands_as(status: str) -> None:
        await anyio.to_thread.run_sync(until, lambda: stands(desk.manager, "waiting") == [status])

    async with connected(store, transport, mode) as client:
        await client.list_tools()
        async with given_up(client, "waiting", lambda: stands_as("running")):
            await stands_as("cancelled")
        assert not (await client.call_tool("release")).is_error
    assert stands(desk.manager, "waiting") == ["cancelled"]
    assert desk.head("a").message_count == 0


@pytest.mark.parametrize("name", ["hold", "set_at_once"])
async def test_a_call_cancelled_after_its_commit_stands(
    box: Toolbox, turnstile: Turnstile, mode: str, name: str
) -> None:
    turnstile.open()
    storage = SlowStorage()
    with SessionManager(storage, clock=SetClock()) as manager:
        manager.create_session("a")
        async with Client(build_server(manager, box, ("core",)), mode=mode) as client:
            await client.list_tools()
            async with given_up(client, name, storage.late.somebody):
                storage.late.open()
        assert stands(manager, name) == ["ok"]
        assert manager.get_value("a", "held") == 1


@pytest.mark.parametrize(
    ("name", "before"), [("session_set", "hold"), ("session_get", "read"), ("set_at_once", "hold")]
)
async def test_a_call_cancelled_while_it_waits_for_a_thread_is_on_record(
    manager: SessionManager,
    box: Toolbox,
    turnstile: Turnstile,
    mode: str,
    name: str,
    before: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mcp_sessions.server.threads.THREADS", 1)
    given: dict[str, Any] = {"key": "k", "value": 1} if name == "session_set" else {}
    async with Client(build_server(manager, box, ("core",)), mode=mode) as client:
        await client.list_tools()
        async with anyio.create_task_group() as group:
            group.start_soon(client.call_tool, before, {"session_id": "a"})
            await turnstile.somebody()
            async with given_up(client, name, client.list_tools, KEY, **given):
                assert stands(manager, name) == []
                turnstile.open()
        again = await client.call_tool(name, {"session_id": "a", **given}, meta=KEY)
        assert not again.is_error
    assert stands(manager, before) == ["ok"]
    assert stands(manager, name) == ["cancelled", "ok"]


async def test_a_retry_cancelled_while_it_waits_for_the_first_call_leaves_that_alone(
    box: Toolbox, turnstile: Turnstile, mode: str
) -> None:
    storage = AskedStorage()
    with SessionManager(storage, clock=SetClock()) as manager:
        manager.create_session("a")
        async with Client(build_server(manager, box, ("core",)), mode=mode) as client:
            await client.list_tools()
            async with anyio.create_task_group() as group:
                group.start_soon(lambda: client.call_tool("hold_on", {"session_id": "a"}, meta=KEY))
                await turnstile.somebody()
                async with given_up(client, "hold_on", storage.somebody, KEY):
                    pass
                while sorted(stands(manager, "hold_on")) != ["cancelled", "running"]:
                    await anyio.lowlevel.checkpoint()
                turnstile.open()
            replayed = await client.call_tool("hold_on", {"session_id": "a"}, meta=KEY)
            assert not replayed.is_error
        assert sorted(stands(manager, "hold_on")) == ["cancelled", "ok"]
        assert manager.metadata("a").revision == 2


async def test_reads_do_not_wait_behind_writes_that_wait(
    manager: SessionManager, box: Toolbox, turnstile: Turnstile, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixty-four writes that waited for another process took every thread: for 30 s nobody was answered."""
    monkeypatch.setattr("mcp_sessions.server.threads.THREADS", 1)
    async with Client(build_server(manager, box, ("core",)), mode=mode) as client, anyio.create_task_group() as group:
        await client.list_tools()
        group.start_soon(client.call_tool, "hold", {"session_id": "a"})
        await turnstile.somebody()
        with anyio.fail_after(LONG_S):
            assert not (await client.call_tool("session_get", {"session_id": "a"})).is_error
            assert (await client.list_resources()).resources
            assert (await client.read_resource("session:///a")).contents
            assert (await client.get_prompt("resume_session")).messages
        turnstile.open()


# slow ones


async def test_slow_calls_go_on_although_others_wait_for_one_of_them(
    box: Toolbox, turnstile: Turnstile, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each retry of a running call had a thread, and where there were none left, no other slow call could begin."""
    monkeypatch.setattr("mcp_sessions.server.threads.THREADS", 1)
    storage = AskedStorage()
    with SessionManager(storage, clock=SetClock()) as manager:
        manager.create_session("a")
        async with Client(build_server(manager, box, ("core",)), mode=mode) as client:
            await client.list_tools()
            answers: list[bool | None] = []

            async def call() -> None:
                answers.append((await client.call_tool("hold_on", {"session_id": "a"}, meta=KEY)).is_error)

            async with anyio.create_task_group() as group:
                group.start_soon(call)
                await turnstile.somebody()
                group.start_soon(call)
                await storage.somebody()
                assert not (await client.call_tool("set_at_once", {"session_id": "a"})).is_error
                assert answers == []
                turnstile.open()
        assert answers == [False, False]
        assert stands(manager, "hold_on") == ["ok"]


def test_quick_calls_are_made_while_a_hundred_slow_ones_run(store: Path, desk: Desk) -> None:
    desk("session_create", session_id="a")
    with Pipe(store, command=program("serve_more", sqlite_url(store))) as server:
        server.shake_hands()
        slow = [server.begin("waiting", session_id="a") for _ in range(100)]
        for number in range(20):
            server.structured("session_set", session_id="a", key="k", value=number)
            assert server.structured("session_get", session_id="a", key="k")["value"] == number
        until(lambda: len(desk.records("a", tool="waiting")) == 100)
        running = desk.records("a", tool="waiting")
        assert {record.status.value for record in running} == {"running"}
        assert desk.head("a").message_count == 0
        server.structured("release")
        answers = [server.answer(number)["result"] for number in slow]
    assert all(answer["structuredContent"] == {"session_id": "a"} for answer in answers)
    assert desk.head("a").message_count == 100
    assert desk.head("a").total_invocations == 100
    records = desk.records("a")
    assert len(records) == 141
    assert {record.status.value for record in records} == {"ok"}
    assert {record.kind for record in records if record.tool_name == "waiting"} == {"work"}


def test_slow_calls_are_cancelled_where_the_server_ends(store: Path, desk: Desk) -> None:
    desk("session_create", session_id="a")
    with Pipe(store, command=program("serve_more", sqlite_url(store))) as server:
        server.shake_hands()
        for _ in range(10):
            server.begin("waiting", session_id="a")
        until(lambda: len(desk.records("a", tool="waiting")) == 10)
        server.close_stdin()
        assert server.end() == 0
        assert "Traceback" not in server.errors()
    assert {record.status.value for record in desk.records("a", tool="waiting")} == {"cancelled"}
    assert desk.head("a").message_count == 0


@pytest.mark.parametrize(
    ("how", "ending"), [("auto", signal.SIGTERM), ("legacy", signal.SIGINT), ("sse", signal.SIGTERM)]
)
async def test_at_the_end_of_a_server_over_http_short_calls_finish_and_slow_ones_are_cancelled(
    store: Path, desk: Desk, how: str, ending: int
) -> None:
    desk("session_create", session_id="a")
    with Port(store, command=program("serve_more_over_http", sqlite_url(store))) as port:
        client = Client(sse_client(f"{port.url}/sse")) if how == "sse" else Client(f"{port.url}/mcp", mode=how)
        refusals: list[str] = []

        async def wait() -> None:
            with pytest.raises(MCPError) as refused:
                await client.call_tool("waiting", {"session_id": "a"})
            refusals.append(refused.value.message)

        async def outlast() -> None:
            assert not (await client.call_tool("outlasting", {"session_id": "a"})).is_error

        async with client:
            await client.list_tools()
            async with anyio.create_task_group() as group:
                for _ in range(10):
                    group.start_soon(wait)
                group.start_soon(outlast)
                while len(desk.records("a", tool="waiting")) < 10 or desk.head("a").revision < 2:
                    await anyio.lowlevel.checkpoint()
                assert await anyio.to_thread.run_sync(port.end, ending) == 0
        assert port.errors().count("\n") == 1, port.errors()
    assert refusals == ["The server ended before the call did, which was cancelled. Call again."] * 10
    slow = desk.records("a", tool="waiting")
    assert {record.status.value for record in slow} == {"cancelled"}
    assert not any(desk.manager.storage.alive(str(record.owner)) for record in slow)
    assert [record.status.value for record in desk.records("a", tool="outlasting")] == ["ok"]
    assert [message.content for message in desk.manager.messages("a").items] == ["done at the end"]


@pytest.mark.parametrize(
    ("how", "ask"),
    [
        ("auto", lambda client: client.read_resource("session:///late")),
        ("legacy", lambda client: client.get_prompt("resume_session", {"session_id": "late"})),
        ("sse", lambda client: client.list_resources()),
        ("auto", lambda client: client.complete(TEMPLATE, {"name": "session_id", "value": "l"})),
    ],
    ids=["read", "prompt", "list", "completion"],
)
async def test_at_the_end_of_a_server_over_http_reads_finish_too(
    store: Path, desk: Desk, how: str, ask: Callable[[Client], Awaitable[BaseModel]]
) -> None:
    """A resource that was being read was answered "Internal Server Error"."""
    desk("session_create", session_id="late", purpose="Read late")
    answers: list[str] = []

    async def be_answered() -> None:
        answers.append((await ask(client)).model_dump_json())

    with Port(store, command=program("serve_patiently_over_http", str(store))) as port:
        client = Client(sse_client(f"{port.url}/sse")) if how == "sse" else Client(f"{port.url}/mcp", mode=how)
        async with client, anyio.create_task_group() as group:
            group.start_soon(be_answered)
            await anyio.to_thread.run_sync(until, lambda: "asked" in port.errors())
            assert await anyio.to_thread.run_sync(port.end, signal.SIGTERM) == 0
    (answer,) = answers
    assert "late" in answer


async def test_a_slow_call_is_made_once_under_its_key(manager: SessionManager, box: Toolbox, mode: str) -> None:
    async with Client(build_server(manager, box, ("core",)), mode=mode) as client:
        first = await client.call_tool("set_at_once", {"session_id": "a"}, meta=KEY)
        again = await client.call_tool("set_at_once", {"session_id": "a"}, meta=KEY)
    assert first.structured_content == again.structured_content
    assert stands(manager, "set_at_once") == ["ok"]
    assert manager.metadata("a").revision == 2


@pytest.mark.parametrize(
    ("name", "given", "sentence"),
    [
        ("break_late", {"session_id": "a"}, "Internal error (invocation inv_"),
        ("set_at_once", {"session_id": "b"}, "Session b not found: your latest active: a ("),
        ("set_at_once", {"id": "a"}, "Unknown argument 'id': did you mean 'session_id'?"),
        ("set_at_once", {}, "Argument 'session_id' of set_at_once is missing."),
    ],
)
async def test_a_slow_call_that_fails_says_why_as_a_quick_one_does(
    manager: SessionManager, box: Toolbox, mode: str, name: str, given: dict[str, Any], sentence: str
) -> None:
    async with Client(build_server(manager, box, ("core",)), mode=mode) as client:
        assert (await Door(client).refusal(name, **given)).startswith(sentence)
    record = manager.invocations().items[0]
    assert (record.tool_name, record.status.value) == (name, "error")


def test_a_slow_tool_is_not_called_where_nobody_awaits_it(manager: SessionManager, box: Toolbox) -> None:
    with pytest.raises(TypeError, match="await invoke_async"):
        box.invoke(manager, "set_at_once", {"session_id": "a"})


# how far


async def test_an_export_tells_how_far_it_is(door: Door, desk: Desk, mode: str) -> None:
    desk("session_create", session_id="a")
    for number in range(60):
        desk("session_add_message", session_id="a", role="user", content=f"{number}" * 500)
    desk("session_set", session_id="a", key="k", value=1)
    desk("session_set", session_id="a", key="l", value=2)
    for _ in range(12):
        desk("session_record_invocation", session_id="a", tool_name="x")
    told: list[tuple[float, float | None]] = []

    async def heard(done: float, total: float | None, message: str | None) -> None:
        told.append((done, total))

    async with Client(build_server(desk.manager, SESSION_TOOLS, ("core", "manage")), mode=mode) as client:
        cursor = ""
        while cursor is not None:
            arguments = {"session_id": "a", "cursor": cursor}
            result = await client.call_tool("session_export", arguments, progress_callback=heard)
            assert result.structured_content is not None
            cursor = result.structured_content.get("next_cursor")
    assert len(told) > 5
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert told[-1] == (74, None)  # with two keys and twelve records


async def test_an_export_that_begins_anew_tells_no_less_than_before(manager: SessionManager) -> None:
    for number in range(60):
        manager.add_conversation_message("a", "user", f"{number}")
    told: list[float] = []

    async def heard(done: float, total: float | None) -> None:
        told.append(done)
        if told == [1, 3, 7]:
            manager.set_value("a", "changed", value=True)

    limiter, arguments = anyio.CapacityLimiter(1), {"session_id": "a"}
    how: dict[str, Any] = {"limiter": limiter, "progress": heard, "room": ROOM}
    document = await invoke_async(SESSION_TOOLS, manager, "session_export", arguments, **how)
    assert '"changed"' in document["content"]
    assert told == sorted(set(told))
    assert told[-1] == 61


def test_who_does_not_ask_how_far_it_is_is_not_told(store: Path, desk: Desk) -> None:
    desk.prepare()
    call = {"name": "session_export", "arguments": {"session_id": "a"}}
    with Pipe(store) as server:
        server.shake_hands()
        assert "result" in server.ask("tools/call", call)
        assert not [line for line in server.said if b"notifications/progress" in line]
        assert "result" in server.ask("tools/call", {**call, "_meta": {"progressToken": "t"}})
        assert [line for line in server.said if b'"notifications/progress","params":{"progressToken":"t"' in line]
