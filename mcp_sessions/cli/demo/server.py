"""The server of the demo: `mcp-sessions serve` in a process of its own, and the official client that talks to it.

The client's own stdio transport keeps its process to itself, and this one must be killed; so the process is
started here, and the client gets its pipes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp import Client
from mcp.shared.message import SessionMessage
from mcp.types import Implementation, jsonrpc_message_adapter

from ..version import version

Incoming = MemoryObjectReceiveStream[SessionMessage | Exception]
Outgoing = MemoryObjectSendStream[SessionMessage]
LONGEST_LINE = 64 << 20
PATIENCE_S = 5.0
"""How long a server may take to end once its stdin is closed."""
_GONE = (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)


@asynccontextmanager
async def serving(url: str, folder: Path) -> AsyncGenerator[tuple[Client, Process]]:
    """A server over the store at `url`, started in `folder`, and a client of it. Afterwards there is no process."""
    # Settings of the person who watches must not change what is shown, so the demo's server has its own alone.
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(("MCP_SESSIONS_", "WORKFLOW_SESSION_"))
    }
    env["MCP_SESSIONS_STORAGE"] = url
    command = [sys.executable, "-m", "mcp_sessions", "serve"]
    process = await anyio.open_process(command, env=env, cwd=folder, stderr=None)
    try:
        client_info = Implementation(name="mcp-sessions demo", version=version())
        async with Client(_pipes(process), client_info=client_info) as client:
            yield client, process
    finally:
        with anyio.CancelScope(shield=True):
            await _end(process)


@asynccontextmanager
async def _pipes(process: Process) -> AsyncGenerator[tuple[Incoming, Outgoing]]:
    """The process's stdin and stdout as a transport. When it dies, what it had answered is read, then comes the end."""
    assert process.stdin is not None
    assert process.stdout is not None
    to_server, lines = process.stdin, BufferedByteReceiveStream(process.stdout)
    send_in, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outgoing, receive_out = anyio.create_memory_object_stream[SessionMessage](0)

    async def read() -> None:
        async with send_in:
            with suppress(*_GONE):
                while True:
                    line = await lines.receive_until(b"\n", LONGEST_LINE)
                    await send_in.send(SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False)))

    async def write() -> None:
        async with receive_out:
            with suppress(*_GONE):
                async for message in receive_out:
                    text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                    await to_server.send(text.encode() + b"\n")

    async with anyio.create_task_group() as group, incoming, outgoing:
        group.start_soon(read)
        group.start_soon(write)
        try:
            yield incoming, outgoing
        finally:
            group.cancel_scope.cancel()


async def _end(process: Process) -> None:
    """Close its stdin, at which a server ends by itself; kill it if it does not."""
    assert process.stdin is not None
    with suppress(*_GONE):
        await process.stdin.aclose()
    with anyio.move_on_after(PATIENCE_S):
        await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()
    await process.aclose()
