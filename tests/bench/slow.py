"""Slow calls beside quick ones: what a hundred calls that run on the event loop cost those that do not.

python -m tests.bench.slow STORE     the server that is measured: our tools, and one that is slow
"""

from __future__ import annotations

import itertools
import sys
import time
from typing import Any

import anyio
from mcp import Client
from mcp.client.stdio import StdioServerParameters

from tests.processes import ROOT

from .measure import Figures, Row, micros, p50
from .stores import Ground, Measure, manager_on

SLOW = Row("session_get beside 100 slow calls", "MCP", "p50 over stdio / with no other call", "<=", 2.0, "x")
CALLS = 100
LOOKS_S = 0.1
"""How often a slow call wakes up, as one does that waits for a program's output."""


def slow(ground: Ground) -> Figures:
    return anyio.run(_slow, ground)


async def _slow(ground: Ground) -> Figures:
    store = ground.path()
    with manager_on(store) as manager:
        manager.create_session("s", data={"k": 1})
    arguments = ["-m", "tests.bench.slow", str(store)]
    server = StdioServerParameters(command=sys.executable, args=arguments, env={"PYTHONPATH": str(ROOT)})
    idle: list[float] = []
    busy: list[float] = []
    async with Client(server) as client:
        await client.list_tools()
        turns = ground.scale.turns
        for _ in range(turns):
            await _get(client, ground.scale.rounds // turns, idle)
            async with anyio.create_task_group() as group:
                for _ in range(CALLS):
                    group.start_soon(client.call_tool, "wait", {"session_id": "s"})
                await _running(client, CALLS)
                await _get(client, ground.scale.rounds // turns, busy)
                group.cancel_scope.cancel()
            await _running(client, 0)
    return Figures({SLOW.name: p50(busy) / p50(idle)}, {"busy_us": micros(busy), "idle_us": micros(idle)})


async def _running(client: Client, count: int) -> None:
    """Wait until so many calls run."""
    asked = {"session_id": "s", "status": "running", "limit": CALLS}
    while True:
        result = await client.call_tool("session_invocations", asked)
        if len((result.structured_content or {})["invocations"]) == count:
            return


async def _get(client: Client, count: int, samples: list[float]) -> None:
    for number in range(-3, count):
        start = time.perf_counter()
        result = await client.call_tool("session_get", {"session_id": "s", "key": "k"})
        spent = time.perf_counter() - start
        assert not result.is_error, result
        if number >= 0:
            samples.append(spent)


def main(store: str) -> None:
    """Serve our tools and a slow one over stdio."""
    from mcp_sessions.server.descriptors import take_stdio

    source, sink = take_stdio()
    from mcp_sessions import SessionManager, SQLiteSessionStorage
    from mcp_sessions.server import stdio
    from mcp_sessions.server.adapter import build_server
    from mcp_sessions.tools import SESSION_TOOLS, Toolbox

    box = Toolbox(SESSION_TOOLS)

    @box.tool(title="Wait", toolset="core")
    async def wait(call: Any, session_id: str) -> Any:
        """Look for what never comes."""
        for _ in itertools.count():
            await anyio.sleep(LOOKS_S)

    with SessionManager(SQLiteSessionStorage(store)) as manager:
        server = build_server(manager, box, ("core", "records"))
        anyio.run(stdio.serve, server, source, sink, manager.storage.give_up)


MEASURES: list[tuple[Measure, list[Row]]] = [(slow, [SLOW])]

if __name__ == "__main__":
    main(sys.argv[1])
