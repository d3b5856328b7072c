"""The server and the command line, as processes: a call over stdio, memory, and how long they take to start."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import anyio
from mcp import Client
from mcp.client.sse import sse_client
from mcp.client.stdio import StdioServerParameters

from tests.processes import ROOT

from .measure import Act, Figures, Row, micros, p50, ratio_in_turn, resident_mb
from .stores import CONTENT, Ground, Measure, manager_on

CALL = Row("stdio call", "MCP", "session_add_message, p50 / a bare tool that writes and syncs", "<=", 1.3, "x")
HTTP = Row("http call", "MCP", "the same over streamable HTTP", "<=", None, "x")
SSE = Row("sse call", "MCP", "the same over SSE", "<=", None, "x")
ECHO = Row("stdio call, to an echo", "MCP", "session_add_message, p50 / a bare tool that echoes", "<=", None, "x")
HTTP_ECHO = Row("http call, to an echo", "MCP", "the same over streamable HTTP", "<=", None, "x")
SSE_ECHO = Row("sse call, to an echo", "MCP", "the same over SSE", "<=", None, "x")
CALL_32 = Row("stdio call, 32 callers", "MCP", "calls per second / of the bare tool", ">=", None, "x")
HTTP_32 = Row("http call, 32 callers", "MCP", "the same over streamable HTTP", ">=", None, "x")
SSE_32 = Row("sse call, 32 callers", "MCP", "the same over SSE", ">=", None, "x")
GROWTH = Row("memory after 100,000 calls", "MCP", "growth of the server since the first thousand", "<=", 20, "MB")
HTTP_GROWTH = Row("memory after 5,000 calls, HTTP", "MCP", "the same over streamable HTTP", "<=", 5, "MB")
SSE_GROWTH = Row("memory after 5,000 calls, SSE", "MCP", "the same over SSE", "<=", 5, "MB")
MEMORY = Row("memory at 100,000", "MCP", "of the server, at 100,000 messages / at 10", "<=", 1.2, "x")
SPAWN = Row("server start, stdio", "MCP", "spawn to first reply / a bare SDK server", "<=", 1.1, "x")
SPAWN_HTTP = Row("server start, HTTP", "MCP", "the same over streamable HTTP", "<=", None, "x")
SERVE = ["-m", "mcp_sessions", "serve"]
CALLERS = 32
Over = Callable[[Ground, Path, AsyncExitStack], Iterator[Any]]
"""Where our server and the bare one are reached, both started."""
Spawn = Callable[[Ground, Path], tuple[Act, Act]]
"""How our server and the bare one are started, and say hello."""
_SERVE_HTTP = [*SERVE, "--transport", "http", "--port", "0"]
LS = Row("ls --json", "CLI", "mcp-sessions ls --json / python -c pass", "<=", 25, "x")


def _environment(store: Path) -> dict[str, str]:
    # Who has installed it has its bytecode too.
    ours = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "", "MCP_SESSIONS_STORAGE": f"sqlite://{store}"}
    return {**os.environ, **ours}


def _bare(ground: Ground) -> list[str]:
    return ["-m", "tests.bench.bare", str(ground.directory / "bare")]


def _server(ground: Ground, store: Path, arguments: Sequence[str]) -> StdioServerParameters:
    return StdioServerParameters(
        command=sys.executable, args=list(arguments), env=_environment(store), cwd=str(ground.directory)
    )


def calls(one: Row, to_echo: Row, many: Row, over: Over, ground: Ground) -> Figures:
    return anyio.run(_calls, one, to_echo, many, over, ground)


async def _calls(one: Row, to_echo: Row, many: Row, over: Over, ground: Ground) -> Figures:
    store = ground.path()
    with manager_on(store) as manager:
        manager.create_session("s")
    async with AsyncExitStack() as stack:
        ours, bare = [await stack.enter_async_context(Client(place)) for place in over(ground, store, stack)]
        message = {"session_id": "s", "role": "user", "content": CONTENT}
        acts = [
            functools.partial(bare.call_tool, "echo", {"text": CONTENT}),
            functools.partial(bare.call_tool, "write", {"text": CONTENT}),
            functools.partial(ours.call_tool, "session_add_message", message),
        ]
        samples: list[list[float]] = [[] for _ in acts]
        rounds = ground.scale.rounds // 2
        for number in range(-max(rounds // 10, 5), rounds):
            for place, act in enumerate(acts):
                start = time.perf_counter()
                await _done(act)
                if number >= 0:
                    samples[place].append(time.perf_counter() - start)
        rates: list[list[float]] = [[] for _ in acts]
        for _ in range(ground.scale.turns):
            for place, act in enumerate(acts):
                rates[place].append(await _rate(act, max(rounds // 100, 1)))
    echo, write, add = samples
    detail = {"us": micros(add), "write_us": micros(write), "echo_us": micros(echo)}
    detail |= dict(zip(("echo_per_s", "write_per_s", "per_s"), (round(p50(some[1:])) for some in rates), strict=True))
    return Figures(
        {
            one.name: p50(add) / p50(write),
            to_echo.name: p50(add) / p50(echo),
            many.name: p50(rates[2][1:]) / p50(rates[1][1:]),
        },
        detail,
    )


async def _done(act: Callable[[], Awaitable[Any]]) -> None:
    result = await act()
    assert not result.is_error, result


async def _rate(act: Callable[[], Awaitable[Any]], each: int) -> float:
    """Calls a second of 32 callers on one connection."""

    async def caller() -> None:
        for _ in range(each):
            await _done(act)

    start = time.perf_counter()
    async with anyio.create_task_group() as group:
        for _ in range(CALLERS):
            group.start_soon(caller)
    return CALLERS * each / (time.perf_counter() - start)


def _over_stdio(ground: Ground, store: Path, _: AsyncExitStack) -> Iterator[Any]:
    yield _server(ground, store, SERVE)
    yield _server(ground, store, _bare(ground))


def _over_http(ground: Ground, store: Path, stack: AsyncExitStack) -> Iterator[Any]:
    for arguments in (_SERVE_HTTP, [*_bare(ground), "http"]):
        yield _told(stack, ground, store, arguments)


def _over_sse(ground: Ground, store: Path, stack: AsyncExitStack) -> Iterator[Any]:
    for url in _over_http(ground, store, stack):
        yield sse_client(url.replace("/mcp", "/sse"))


def _told(stack: AsyncExitStack | ExitStack, ground: Ground, store: Path, arguments: Sequence[str]) -> str:
    """The url that a server tells when it is started; it ends with the stack."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=_environment(store),
        cwd=ground.directory,
        encoding="utf-8",
    )
    assert process.stdout is not None
    stack.callback(process.wait)
    stack.callback(process.kill)
    stack.callback(process.stdout.close)
    line = process.stdout.readline()
    told = re.search(r"http://\S+/mcp", line)
    assert told is not None, line
    return told[0]


def growth(ground: Ground) -> Figures:
    """Of a server over stdio, whose calls come 32 at a time."""
    store = ground.path()
    with manager_on(store) as manager:
        manager.create_session("s")
    with subprocess.Popen(
        [sys.executable, *SERVE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=_environment(store),
        cwd=ground.directory,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(_HELLO + _line("notifications/initialized"))
        process.stdin.flush()
        process.stdout.readline()
        message = {"session_id": "s", "role": "user", "content": CONTENT}
        used: list[float] = []
        for done in range(0, ground.scale.calls, CALLERS):
            calls = [
                _line("tools/call", number, name="session_get", arguments={"session_id": "s", "messages": 5})
                if number % 2
                else _line("tools/call", number, name="session_add_message", arguments=message)
                for number in range(done + 2, done + 2 + CALLERS)
            ]
            process.stdin.write(b"".join(calls))
            process.stdin.flush()
            for _ in calls:
                assert b'"isError":true' not in process.stdout.readline()
            if done >= min(1000, ground.scale.calls // 2):
                used.append(resident_mb(process.pid))
        process.kill()
    return Figures({GROWTH.name: used[-1] - used[0]}, {"first_mb": round(used[0], 1), "last_mb": round(used[-1], 1)})


def growth_over(row: Row, over: Over, ground: Ground) -> Figures:
    """The same through a client, which takes longer: a twentieth of the calls."""
    return anyio.run(_growth_over, row, over, ground)


async def _growth_over(row: Row, over: Over, ground: Ground) -> Figures:
    store = ground.path()
    with manager_on(store) as manager:
        manager.create_session("s")
    message = {"session_id": "s", "role": "user", "content": CONTENT}
    before = _children()
    used: list[float] = []
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(Client(next(over(ground, store, stack))))
        (server,) = _children() - before
        acts = [
            functools.partial(client.call_tool, "session_add_message", message),
            functools.partial(client.call_tool, "session_get", {"session_id": "s", "messages": 5}),
        ]
        count = ground.scale.calls // 20
        for done in range(CALLERS, count + CALLERS, CALLERS):
            async with anyio.create_task_group() as group:
                for number in range(CALLERS):
                    group.start_soon(_done, acts[number % 2])
            if done >= min(1000, count // 2):
                used.append(resident_mb(server))
    return Figures({row.name: used[-1] - used[0]}, {"first_mb": round(used[0], 1), "last_mb": round(used[-1], 1)})


def memory(ground: Ground) -> Figures:
    """After the same calls on a long and on a short session."""
    long, short = (anyio.run(_used, ground.long(messages), ground) for messages in (ground.scale.messages, 10))
    return Figures({MEMORY.name: long / short}, {"long": round(long, 1), "short": round(short, 1)})


async def _used(store: Path, ground: Ground) -> float:
    before = _children()
    async with Client(_server(ground, store, SERVE)) as client:
        (server,) = _children() - before
        for _ in range(ground.scale.slow_rounds):
            await client.call_tool("session_add_message", {"session_id": "long", "role": "user", "content": CONTENT})
            await client.call_tool("session_get", {"session_id": "long", "messages": 20})
            await client.call_tool("session_messages", {"session_id": "long", "limit": 50})
        return resident_mb(server)


def _children() -> set[int]:
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="utf-8").split()}


def starts(row: Row, how: Spawn, ground: Ground) -> Figures:
    """Processes that say hello: from spawning to the first reply, each ended after it."""
    store = ground.path()
    manager_on(store).close()
    ours, bare = how(ground, store)
    figure, detail = ratio_in_turn(ours, bare, ground.scale.starts)
    return Figures({row.name: figure}, detail)


def _spawn(ground: Ground, store: Path) -> tuple[Act, Act]:
    def spawn(arguments: list[str]) -> None:
        with subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(store),
            cwd=ground.directory,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(_HELLO)
            process.stdin.flush()
            reply = json.loads(process.stdout.readline())
            assert "result" in reply, reply
            process.kill()

    return functools.partial(spawn, SERVE), functools.partial(spawn, _bare(ground))


def _spawn_http(ground: Ground, store: Path) -> tuple[Act, Act]:
    def spawn(arguments: list[str]) -> None:
        with ExitStack() as stack:
            url = _told(stack, ground, store, arguments)
            headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
            with urlopen(Request(url, _HELLO, headers)) as reply:
                assert b'"result"' in reply.read()

    return functools.partial(spawn, _SERVE_HTTP), functools.partial(spawn, [*_bare(ground), "http"])


def _line(method: str, id: int | None = None, **params: Any) -> bytes:
    """A JSON-RPC message, as stdio has it."""
    message = {"jsonrpc": "2.0", "method": method, "params": params}
    return json.dumps(message if id is None else {**message, "id": id}).encode() + b"\n"


_HELLO = _line(
    "initialize",
    1,
    protocolVersion="2025-11-25",
    capabilities={},
    clientInfo={"name": "bench", "version": "1"},
)


def listing(ground: Ground) -> Figures:
    store = ground.path()
    with manager_on(store) as manager:
        for number in range(10):
            manager.create_session(purpose=f"Task {number}")

    environment = _environment(store)

    def run(*arguments: str) -> None:
        command = [sys.executable, *arguments]
        subprocess.run(command, env=environment, cwd=ground.directory, stdout=subprocess.PIPE, check=True)

    def python() -> None:
        run("-c", "pass")

    figure, detail = ratio_in_turn(lambda: run("-m", "mcp_sessions", "ls", "--json"), python, ground.scale.starts * 2)
    return Figures({LS.name: figure}, detail)


MEASURES: list[tuple[Measure, list[Row]]] = [
    (functools.partial(calls, CALL, ECHO, CALL_32, _over_stdio), [CALL, ECHO, CALL_32]),
    (functools.partial(calls, HTTP, HTTP_ECHO, HTTP_32, _over_http), [HTTP, HTTP_ECHO, HTTP_32]),
    (functools.partial(calls, SSE, SSE_ECHO, SSE_32, _over_sse), [SSE, SSE_ECHO, SSE_32]),
    (growth, [GROWTH]),
    (functools.partial(growth_over, HTTP_GROWTH, _over_http), [HTTP_GROWTH]),
    (functools.partial(growth_over, SSE_GROWTH, _over_sse), [SSE_GROWTH]),
    (memory, [MEMORY]),
    (functools.partial(starts, SPAWN, _spawn), [SPAWN]),
    (functools.partial(starts, SPAWN_HTTP, _spawn_http), [SPAWN_HTTP]),
    (listing, [LS]),
]
