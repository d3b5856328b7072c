"""A store, and the server over it: within this process where that shows it, else as a real one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.types import CallToolResult, TextContent

from mcp_sessions import SessionManager
from mcp_sessions.server.adapter import build_server
from mcp_sessions.storage import SQLiteSessionStorage
from mcp_sessions.tools import SESSION_TOOLS
from tests.stores import SetClock
from tests.tools.desk import Desk

TOOLSETS = ("core", "manage", "records")


class Door:
    """The server as the official client sees it: `await door("session_get", session_id="a")`."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def __call__(self, name: str, /, **arguments: Any) -> CallToolResult:
        return await self.client.call_tool(name, arguments)

    async def structured(self, name: str, /, **arguments: Any) -> dict[str, Any]:
        result = await self(name, **arguments)
        assert not result.is_error, text_of(result)
        assert result.structured_content is not None
        return result.structured_content

    async def refusal(self, name: str, /, **arguments: Any) -> str:
        result = await self(name, **arguments)
        assert result.is_error
        assert result.structured_content is None
        return text_of(result)


def text_of(result: CallToolResult) -> str:
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Where a server keeps its sessions; nothing is there yet."""
    return tmp_path / "sessions.db"


@pytest.fixture
def desk(store: Path) -> Iterator[Desk]:
    """A program that works on the same store."""
    clock = SetClock()
    with SessionManager(SQLiteSessionStorage(store, durability="process"), clock=clock) as manager:
        yield Desk(manager, clock)


@pytest.fixture(params=["auto", "legacy"])
def mode(request: pytest.FixtureRequest) -> str:
    """Both eras of the protocol."""
    return request.param


@pytest.fixture
async def door(desk: Desk) -> AsyncIterator[Door]:
    async with Client(build_server(desk.manager, SESSION_TOOLS, TOOLSETS)) as client:
        yield Door(client)
