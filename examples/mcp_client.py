"""The official MCP client and the server over stdio: what Claude Desktop does, by hand.

Run it: python examples/mcp_client.py
"""

import os
import sys

import anyio
from mcp import Client, StdioServerParameters

SERVER = StdioServerParameters(command=sys.executable, args=["-m", "mcp_sessions", "serve"], env=dict(os.environ))


async def main() -> None:
    async with Client(SERVER) as client:
        tools = await client.list_tools()
        print(len(tools.tools), "tools")

        created = await client.call_tool("session_create", {"purpose": "Fix the login", "tags": ["example"]})
        session_id = created.structured_content["session_id"]

        # A call sent again with the same key, after a lost connection say, is stored once.
        message = {"session_id": session_id, "role": "user", "content": "Nobody can log in since Monday."}
        key = {"mcp-sessions/idempotencyKey": "report-1"}
        first = await client.call_tool("session_add_message", message, meta=key)
        again = await client.call_tool("session_add_message", message, meta=key)
        print("stored once:", again.structured_content == first.structured_content)

        plan = {"session_id": session_id, "key": "plan", "value": ["read the log", "fix it"]}
        print((await client.call_tool("session_set", plan)).content[0].text)

        found = await client.call_tool("session_search", {"text": "log in monday"})
        print("found:", found.structured_content["hits"][0]["snippet"])

        # What a model gets to read when a call cannot be done.
        wrong = await client.call_tool("session_get", {"session_id": "ses_wrong"})
        print("error:", wrong.is_error, wrong.content[0].text)

        await client.call_tool("session_complete", {"session_id": session_id, "summary": "A certificate had expired."})


if __name__ == "__main__":
    anyio.run(main)
