"""An MCP server whose one tool, `wrong`, gives the text it is given where its schema says that a number stands."""

from __future__ import annotations

from typing import Any

import anyio
import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


async def list_tools(_context: Any, _params: Any) -> types.ListToolsResult:
    return types.ListToolsResult(
        tools=[types.Tool(name="wrong", input_schema={"type": "object"}, output_schema=NUMBER)]
    )


async def call_tool(_context: Any, params: Any) -> types.CallToolResult:
    return types.CallToolResult(content=[], structured_content={"n": f"given {(params.arguments or {}).get('text')}"})


async def main() -> None:
    server = Server("odd", on_list_tools=list_tools, on_call_tool=call_tool)
    async with stdio_server() as (source, sink):
        await server.run(source, sink, server.create_initialization_options())


if __name__ == "__main__":
    anyio.run(main)
