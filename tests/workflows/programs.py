"""Programs that run workflows in processes of their own: killed, suspended, started twice."""

from __future__ import annotations

import resource
import signal
import time
from pathlib import Path
from typing import Any

import anyio

from mcp_sessions import SessionManager, open_storage
from mcp_sessions.errors import SessionsError, StorageError
from mcp_sessions.tools import SESSION_TOOLS, Toolbox
from mcp_sessions.workflows import WorkflowDefinition, WorkflowEngine, claims
from tests.processes import say

FIVE = (
    "name: five\nsteps:\n"
    + "".join(f"  - {{id: s{n}, tool: act, with: {{n: {n}}}}}\n" for n in range(1, 6))
    + "outputs: {last: '{{ steps.s5.result }}'}"
)
"""Five steps, one after the other; each writes down that it begins and ends."""


def toolbox(log: str, blocks_in: int = 0) -> Toolbox:
    """With the tool `act`, which writes its beginning and its end into a file, and in one step waits for a file."""
    box = Toolbox(SESSION_TOOLS)

    @box.tool(title="Act")
    def act(call: Any, n: int) -> int:
        """Write down that it begins and ends."""
        note(log, f"begin-{n}")
        while n == blocks_in and not Path(log + ".go").exists():
            time.sleep(0.01)
        note(log, f"end-{n}")
        return n * 10

    return box


def note(log: str, line: str) -> None:
    with Path(log).open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def run(url: str, log: str, text: str = FIVE, blocks_in: int = 0, session_id: str = "r1") -> None:
    """Run it; say its status, or what it raised."""
    with SessionManager(open_storage(url)) as manager:
        engine = WorkflowEngine(manager, toolbox=toolbox(log, blocks_in))
        try:
            result = anyio.run(engine.execute, WorkflowDefinition.from_yaml(text), None, session_id)
        except SessionsError as error:
            say([type(error).__name__, None])
        else:
            say([result.status.value, result.outputs])


def run_on_a_full_disk(path: str) -> None:
    """Run it while nothing can be written, and again when there is room, as a process that lives on."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    box = Toolbox(SESSION_TOOLS)

    @box.tool(title="Fill")
    def fill(call: Any) -> int:
        """Leave no room on the disk, once."""
        if resource.getrlimit(resource.RLIMIT_FSIZE)[0] == soft and not filled:
            filled.append(1)
            resource.setrlimit(resource.RLIMIT_FSIZE, (Path(path + "-wal").stat().st_size, hard))
        return len(filled)

    filled: list[int] = []
    claims.SILENT_S = 3600
    definition = WorkflowDefinition.from_yaml(
        "name: w\nsteps: [{id: a, tool: fill}]\noutputs: {a: '{{ steps.a.result }}'}"
    )
    with SessionManager(open_storage("sqlite://" + path)) as manager:
        engine = WorkflowEngine(manager, toolbox=box)
        try:
            anyio.run(engine.execute, definition, None, "r1")
        except StorageError as error:
            say(type(error).__name__)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        say(anyio.run(engine.execute, definition, None, "r1").outputs)


def respond(url: str, log: str, step: str, approved: bool) -> None:
    with SessionManager(open_storage(url)) as manager:
        engine = WorkflowEngine(manager, toolbox=toolbox(log))
        result = anyio.run(engine.respond, "r1", step, approved)
        say([result.status.value, result.outputs])
