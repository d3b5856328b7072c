"""The controls: the smallest servers that the SDK makes, which know nothing of sessions.

`echo` gives back its text; `write` writes it to a file and syncs, in a thread, as a server that keeps anything must.
"""

from __future__ import annotations

import functools
import os
import sys
from typing import Any

import anyio
import anyio.to_thread
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.types import CallToolRequestParams, CallToolResult, ListToolsResult, TextContent, Tool

# Not from .measure: the control starts with nothing but what it needs.
sync = getattr(os, "fdatasync", os.fsync)
TEXT = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}


def server(path: str) -> Server[dict[str, Any]]:
    """A server with two tools; `write` writes to the file at that path."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    async def list_tools(_: Any, params: Any) -> ListToolsResult:
        return ListToolsResult(tools=[Tool(name=name, input_schema=TEXT) for name in ("echo", "write")])

    def write(text: str) -> None:
        os.write(file, text.encode())
        sync(file)

    async def call_tool(_: Any, params: CallToolRequestParams) -> CallToolResult:
        text: str = (params.arguments or {})["text"]
        if params.name == "write":
            await anyio.to_thread.run_sync(functools.partial(write, text))
        return CallToolResult(content=[TextContent(type="text", text=text)])

    return Server("bare", on_list_tools=list_tools, on_call_tool=call_tool)


async def serve(path: str) -> None:
    """Over stdio, with the SDK's own transport."""
    bare = server(path)
    async with stdio_server() as (read, write):
        await bare.run(read, write, bare.create_initialization_options())


if __name__ == "__main__":
    anyio.run(serve, sys.argv[1])
