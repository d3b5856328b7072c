"""An MCP server for workflows to call: `python fake_server.py LOG [http PORT]`. It writes down what reaches it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

LOG = Path(sys.argv[1])
server = MCPServer("fake")


def note(**what: Any) -> None:
    with LOG.open("a", encoding="utf-8") as file:
        file.write(json.dumps(what) + "\n")


@server.tool()
def add(a: int, b: int, ctx: Context[Any]) -> dict[str, Any]:
    """Add two numbers."""
    meta = dict(ctx.request_context.meta or {})
    note(tool="add", a=a, b=b, key=meta.get("mcp-sessions/idempotencyKey"), pid=os.getpid())
    return {"sum": a + b}


@server.tool(structured_output=False)
def told(name: str) -> str:
    """What a variable of the server's environment says."""
    return f"{name} is {os.environ.get(name, 'not set')}"


@server.tool(structured_output=False)
def same(text: str) -> str:
    """Give a text back."""
    note(tool="same", text=text)
    return text


@server.tool()
def fail(why: str) -> str:
    """Fail."""
    raise ToolError(why)


@server.tool()
def die(marker: str) -> str:
    """End the server, but the first time alone."""
    if not Path(marker).exists():
        Path(marker).touch()
        sys.stderr.write("going down\n")
        sys.stderr.flush()
        os._exit(3)
    return "alive"


if __name__ == "__main__":
    if sys.argv[2:]:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[3]))
    else:
        server.run("stdio")
