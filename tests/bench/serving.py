"""The server and the command line, as processes: a call over stdio, memory, and how long they take to start."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
from mcp import Client
from mcp.client.stdio import StdioServerParameters

from tests.processes import ROOT

from .measure import Figures, Row, micros, p50, ratio_in_turn, resident_mb
from .stores import CONTENT, Ground, Measure, manager_on

CALL = Row("stdio call", "MCP", "session_add_message, p50 / a bare tool that writes and syncs", "<=", 1.3, "x")
MEMORY = Row("memory at 100,000", "MCP", "of the server, at 100,000 messages / at 10", "<=", 1.2, "x")
SPAWN = Row("server start", "MCP", "spawn to first reply / a bare SDK server", "<=", 1.1, "x")
SERVE = ["-m", "mcp_sessions", "serve"]
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


def calls(ground: Ground) -> Figures:
    return anyio.run(_calls, ground)


async def _calls(ground: Ground) -> Figures:
    store = ground.path()
    with manager_on(store) as manager:
        manager.create_session("s")
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(Client(_server(ground, store, SERVE)))
        bare = await stack.enter_async_context(Client(_server(ground, store, _bare(ground))))
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
                result = await act()
                spent = time.perf_counter() - start
                assert not result.is_error, result
                if number >= 0:
                    samples[place].append(spent)
    echo, write, add = samples
    return Figures(
        {CALL.name: p50(add) / p50(write)},
        {"us": micros(add), "write_us": micros(write), "echo_us": micros(echo), "to_echo": p50(add) / p50(echo)},
    )


def memory(ground: Ground) -> Figures:
    """After the same calls on a long and on a short session."""
    used = {name: anyio.run(_used, store, ground) for name, store in (("long", ground.long), ("short", ground.short))}
    return Figures({MEMORY.name: used["long"] / used["short"]}, {name: round(mb, 1) for name, mb in used.items()})


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


def starts(ground: Ground) -> Figures:
    """Processes that say hello: from spawning to the first reply, each ended after it."""
    store = ground.path()
    manager_on(store).close()

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

    figure, detail = ratio_in_turn(lambda: spawn(SERVE), lambda: spawn(_bare(ground)), ground.scale.starts)
    return Figures({SPAWN.name: figure}, detail)


_HELLO = (
    json.dumps(
        {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "initialize",
            "params": {
                "protocolVersion": "2025-11-25",
                "capabilities": {},
                "clientInfo": {"name": "bench", "version": "1"},
            },
        }
    ).encode()
    + b"\n"
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
    (calls, [CALL]),
    (memory, [MEMORY]),
    (starts, [SPAWN]),
    (listing, [LS]),
]
