"""The controls: the smallest servers that the SDK makes, which know nothing of sessions.

`echo` gives back its text; `write` writes it to a file and syncs, in a thread, as a server that keeps anything must.
"""

from __future__ import annotations

import functools
import os
import socket
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


def serve_http(path: str) -> None:
    """Over streamable HTTP and SSE, with the SDK's own applications; the port is told on stdout."""
    import uvicorn
    from mcp.server.sse import SseServerTransport
    from starlette.routing import Mount, Route

    bare, sse = server(path), SseServerTransport("/messages/")

    class Sse:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async with sse.connect_sse(scope, receive, send) as (read, write):
                await bare.run(read, write, bare.create_initialization_options())

    routes: list[Any] = [Route("/sse", endpoint=Sse()), Mount("/messages/", app=sse.handle_post_message)]
    app = bare.streamable_http_app(custom_starlette_routes=routes)
    # Named TCP, or asyncio would leave small packets waiting for company: 40 ms a call.
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.bind(("127.0.0.1", 0))
    bound.listen()
    print(f"http://127.0.0.1:{bound.getsockname()[1]}/mcp", flush=True)
    config = uvicorn.Config(app, log_level="critical", access_log=False)
    anyio.run(uvicorn.Server(config).serve, [bound])


if __name__ == "__main__":
    if len(sys.argv) > 2:
        serve_http(sys.argv[1])
    else:
        anyio.run(serve, sys.argv[1])
