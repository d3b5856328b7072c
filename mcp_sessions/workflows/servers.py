"""The MCP servers that a workflow names: opened when a step first calls one, closed with the run.

A connection is opened and closed by one task of its own. One that breaks is let go of; the next call, as that of a
retry, opens another. Secrets stand in no definition: `${NAME}` in a server's env, args, headers or url is one by name.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

import anyio
import httpx2
from anyio.abc import TaskGroup, TaskStatus
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CONNECTION_CLOSED, CallToolResult, TextContent

from ..errors import StepError
from .model import Server

if TYPE_CHECKING:
    from .definition import WorkflowDefinition
    from .secrets import Secrets

IDEMPOTENCY_KEY = "mcp-sessions/idempotencyKey"
CLOSE_S = 5.0
OPEN_S = 60.0
STDERR_CHARS = 500
_TIMEOUT = httpx2.Timeout(30.0, read=300.0)


class Servers:
    """The servers of one run."""

    def __init__(self, servers: Mapping[str, Server], base: Path | None, secrets: Secrets, group: TaskGroup) -> None:
        self._servers = servers
        self._base = base
        self._secrets = secrets
        self._group = group
        self._open: dict[str, _Connection] = {}
        self._locks = {name: anyio.Lock() for name in servers}

    @classmethod
    def of(cls, definition: WorkflowDefinition, secrets: Secrets, group: TaskGroup) -> Servers:
        """Those of a definition, and of the file that it names. Raises WorkflowDefinitionError."""
        return cls(definition.servers(), definition.base, secrets, group)

    async def call(self, name: str, tool: str, arguments: Mapping[str, Any], key: str) -> Any:
        """What a tool gives: its structured content, else its text, else its blocks.

        Raises StepError where the tool fails, or the server is not there.
        """
        connection = await self._connected(name)
        try:
            result = await connection.client.call_tool(tool, dict(arguments), meta=cast("Any", {IDEMPOTENCY_KEY: key}))
        except MCPError as error:
            if error.code == CONNECTION_CLOSED:
                raise await self._broken(name, connection, error) from error
            raise StepError(self._secrets.scrubbed(f"{name}/{tool}: {error}"), "ToolError") from error
        except (anyio.ClosedResourceError, anyio.BrokenResourceError, anyio.EndOfStream, OSError) as error:
            raise await self._broken(name, connection, error) from error
        return _content(f"{name}/{tool}", result, self._secrets)

    async def close(self) -> None:
        """Let go of all."""
        with anyio.CancelScope(shield=True):
            for connection in self._open.values():
                await connection.close()

    async def _connected(self, name: str) -> _Connection:
        if name not in self._servers:
            raise StepError(f"There is no server '{name}': `servers:` or the servers file names them.")
        async with self._locks[name]:
            found = self._open.get(name)
            if found is not None and not found.ended.is_set():
                return found
            connection = _Connection(name, self._servers[name], self._base, self._secrets)
            try:
                with anyio.fail_after(OPEN_S):
                    await self._group.start(connection.serve)
            except Exception as error:
                raise StepError(
                    self._secrets.scrubbed(f"Server '{name}' cannot be reached: {_told(error)}.{connection.said()}"),
                    "ServerError",
                ) from error
            self._open[name] = connection
            return connection

    async def _broken(self, name: str, connection: _Connection, error: Exception) -> StepError:
        await connection.close()
        if self._open.get(name) is connection:
            del self._open[name]
        return StepError(
            self._secrets.scrubbed(f"Server '{name}' went away: {_told(error)}.{connection.said()}"), "ServerError"
        )


class _Connection:
    client: Client

    def __init__(self, name: str, server: Server, base: Path | None, secrets: Secrets) -> None:
        self.name = name
        self._server = server
        self._base = base
        self._secrets = secrets
        self._closing = anyio.Event()
        self._said: str | None = None
        self.ended = anyio.Event()
        self._stderr = cast("TextIO", tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace"))  # noqa: SIM115

    async def serve(self, *, task_status: TaskStatus[None]) -> None:
        """Hold the connection until it is closed."""
        is_open = False
        try:
            async with AsyncExitStack() as stack:
                self.client = await self._client(stack)
                is_open = True
                task_status.started()
                await self._closing.wait()
        except Exception:
            if not is_open:
                raise  # whoever opens it is told; later whoever calls it is
        finally:
            self._said = self._read_stderr()
            self._stderr.close()
            self.ended.set()

    async def close(self) -> None:
        self._closing.set()
        with anyio.move_on_after(CLOSE_S):
            await self.ended.wait()

    def said(self) -> str:
        """The end of what the program wrote to stderr."""
        text = self._read_stderr() if self._said is None else self._said
        return f" It said: {text}" if text else ""

    def _read_stderr(self) -> str:
        self._stderr.seek(0)
        return self._secrets.scrubbed(self._stderr.read())[-STDERR_CHARS:].strip()

    async def _client(self, stack: AsyncExitStack) -> Client:
        server = self._server
        headers = {name: self._secrets.filled(value) for name, value in server.headers.items()}
        if server.command is not None:
            where = self._base / server.cwd if self._base is not None and server.cwd else server.cwd or self._base
            program = StdioServerParameters(
                command=server.command,
                args=[self._secrets.filled(argument) for argument in server.args],
                env={name: self._secrets.filled(value) for name, value in server.env.items()},
                cwd=where,
            )
            transport = stdio_client(program, errlog=self._stderr)
        elif server.type == "sse":
            transport = sse_client(self._secrets.filled(server.url or ""), headers=headers)
        else:
            http = await stack.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=_TIMEOUT))
            transport = streamable_http_client(self._secrets.filled(server.url or ""), http_client=http)
        return await stack.enter_async_context(Client(transport))


def _content(tool: str, result: CallToolResult, secrets: Secrets) -> Any:
    texts = [block.text for block in result.content if isinstance(block, TextContent)]
    if result.is_error:
        raise StepError(secrets.scrubbed(f"{tool}: {' '.join(texts) or 'it failed, and says nothing.'}"), "ToolError")
    if result.structured_content is not None:
        return result.structured_content
    if len(texts) == len(result.content):
        return "\n".join(texts)
    return [block.model_dump(mode="json", by_alias=True, exclude_none=True) for block in result.content]


def _told(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return f"{type(error).__name__}: {error}".strip(": .")
