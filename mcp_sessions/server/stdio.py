"""Stdio: JSON-RPC on descriptors of our own, which no print and no child process can reach.

Reading has a thread that is never waited for, so a signal ends the server at once although nobody closed stdin.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import AsyncIterator
from typing import Any, BinaryIO, cast

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server


class Lines:
    """The lines of stdin; what is not UTF-8 arrives with replacement characters, and is then not JSON."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source

    async def __aiter__(self) -> AsyncIterator[str]:
        send, receive = anyio.create_memory_object_stream[str](32)
        token = anyio.lowlevel.current_token()

        def pump() -> None:
            try:
                for line in self._source:
                    anyio.from_thread.run(send.send, line.decode("utf-8", "replace"), token=token)
                anyio.from_thread.run_sync(send.close, token=token)
            except (RuntimeError, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
                pass  # the server has ended

        threading.Thread(target=pump, name="mcp-sessions-stdin", daemon=True).start()
        async with receive:
            async for line in receive:
                yield line


class Wire:
    """Stdout: whole lines, in order."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink
        self._waiting: list[bytes] = []

    async def write(self, text: str) -> None:
        self._waiting.append(text.encode())

    async def flush(self) -> None:
        data, self._waiting = b"".join(self._waiting), []
        await anyio.to_thread.run_sync(self._write, data, abandon_on_cancel=True)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._sink.fileno(), view) :]


async def serve(server: Server[dict[str, Any]], source: BinaryIO, sink: BinaryIO) -> None:
    """Serve until stdin ends, or SIGTERM or SIGINT comes; calls that were accepted are finished."""

    async def end_on_signal(scope: anyio.CancelScope) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                scope.cancel()
                return

    async with anyio.create_task_group() as group:
        group.start_soon(end_on_signal, group.cancel_scope)
        lines, wire = cast("anyio.AsyncFile[str]", Lines(source)), cast("anyio.AsyncFile[str]", Wire(sink))
        async with stdio_server(lines, wire) as (read, write):
            await server.run(read, write, server.create_initialization_options())
        group.cancel_scope.cancel()
