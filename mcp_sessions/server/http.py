"""HTTP: streamable HTTP at /mcp, SSE at /sse and /messages/, /healthz, on one port and over one store."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable, Generator

import anyio
import uvicorn
from mcp.server.sse import SseServerTransport
from mcp.server.streamable_http import MCP_SESSION_ID_HEADER
from mcp.server.transport_security import TransportSecuritySettings
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from .._os import open_files
from ..errors import ConfigError, StorageError
from ..manager import SessionManager
from ..web.guard import LOOPBACK, Guard, GuardedConnection, is_loopback
from .adapter import SessionsServer
from .ending import InFlight, on_signal, soon
from .events import SSE_MESSAGES, AsJson
from .subscriptions import Subscriptions

log = logging.getLogger(__name__)
GRACE_S = 1.0
"""How long calls may go on at the end."""
ANSWER_S = 0.25
"""How long the answers to them may take then."""
END_S = 2
"""After this, whatever did not end is left behind."""
MOST_CONNECTIONS = 2_000
"""Or half of the files that the process may have open, where that is less: the store needs some too."""
ENVELOPE_BYTES = 4 << 20
"""What a request may have beside the largest payload."""
LONGEST_BODIES = 4
"""How many bodies of the greatest length the server holds at once."""
_UNGUARDED = TransportSecuritySettings(enable_dns_rebinding_protection=False)


def build_app(server: SessionsServer, manager: SessionManager, host: str = "127.0.0.1") -> Ending:
    """The ASGI application that serves `server` at all its addresses; every route of it is guarded."""
    max_body = manager.limits.payload_bytes + ENVELOPE_BYTES
    sse = SseServerTransport(SSE_MESSAGES, _UNGUARDED, max_body)

    async def healthz(_: Request) -> Response:
        try:
            await server.threads.read(lambda: manager.query(limit=1))
        except StorageError as error:
            log.error("%s", error)  # noqa: TRY400 - where it was raised says nothing that its text does not
            return JSONResponse({"status": "the store does not answer"}, 503)
        return JSONResponse({"status": "ok"})

    app = server.streamable_http_app(
        streamable_http_path="/mcp",
        max_request_body_size=max_body,
        transport_security=_UNGUARDED,  # the guard looks at every route, in one place
        custom_starlette_routes=[
            Route("/sse", endpoint=_Sse(server, sse)),
            Mount(SSE_MESSAGES, app=sse.handle_post_message),  # pyright: ignore[reportArgumentType] - the SDK asks for Routes, and joins them to a list of both
            Route("/healthz", endpoint=healthz),
        ],
    )
    app = _Reaching(AsJson(app), server.subscriptions)
    guard = Guard(
        app, max_body=max_body, max_bodies=LONGEST_BODIES * max_body, hosts=LOOPBACK | {_in_url(host.lower())}
    )
    return Ending(guard, server.calls)


class Ending:
    """An application that can end: calls first, and then the streams, which else go on."""

    def __init__(self, app: ASGIApp, calls: InFlight) -> None:
        self._app = app
        self._calls = calls
        self._requests = InFlight()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        with self._requests.one():
            await self._app(scope, receive, send)

    async def end(self) -> None:
        """Cancel calls that do not finish within the grace, let all be answered, and end every request."""
        with anyio.move_on_after(GRACE_S):
            await self._calls.nothing()
        self._calls.cancel()
        with anyio.move_on_after(ANSWER_S):
            await self._requests.nothing()
        self._requests.cancel()


class _Reaching:
    """Says which clients of the old era are told of changes: those that keep a GET open, until their DELETE."""

    def __init__(self, app: ASGIApp, subscriptions: Subscriptions) -> None:
        self._app = app
        self._subscriptions = subscriptions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = Headers(scope=scope).get(MCP_SESSION_ID_HEADER) if scope["type"] == "http" else None
        if key is None or scope["method"] not in ("GET", "DELETE"):
            await self._app(scope, receive, send)
        elif scope["method"] == "GET":
            with self._subscriptions.reached(key):
                await self._app(scope, receive, send)
        else:
            await self._app(scope, receive, send)
            self._subscriptions.forget(key)


class _Sse:
    """Each GET is a connection of its own; they share the server and the store."""

    def __init__(self, server: SessionsServer, transport: SseServerTransport) -> None:
        self._server = server
        self._transport = transport

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "GET":
            await PlainTextResponse("GET it.\n", 405, headers={"allow": "GET"})(scope, receive, send)
            return
        async with self._transport.connect_sse(scope, receive, send) as (reading, writing):
            await self._server.run(reading, writing, self._server.create_initialization_options())


def listen(host: str, port: int, named: tuple[str, str] = ("--host", "--port")) -> socket.socket:
    """A socket that listens; port 0 is any that is free. Raises ConfigError for one that cannot be served, with the
    names by which the user gave them.
    """
    of_host, of_port = named
    if not is_loopback(host):
        raise ConfigError(
            f"{of_host} {host}: other machines could reach it, and then it needs tokens, so that each caller sees its "
            "own sessions alone. This version knows none: bind 127.0.0.1, and let others come through a tunnel or a "
            "proxy that asks who they are."
        )
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"{of_host} {host}: {error.strerror}. Try 127.0.0.1.") from error
    try:
        # On Windows, reusing an address means sharing it with whoever is there.
        option = getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR)
        bound.setsockopt(socket.SOL_SOCKET, option, 1)
        bound.bind(address)
        bound.listen()  # who comes before the server is ready waits
    except OSError as error:
        bound.close()
        raise ConfigError(f"{of_port} {port} of {host}: {error.strerror}. Choose another one, or 0 for any.") from error
    return bound


def url_of(bound: socket.socket) -> str:
    """Where a socket is reached: http://127.0.0.1:8765"""
    host, port = bound.getsockname()[:2]
    return f"http://{_in_url(host)}:{port}"


def _in_url(host: str) -> str:
    """A host as urls and Host headers have it."""
    return f"[{host.strip('[]')}]" if ":" in host else host


async def serve(app: Ending, bound: socket.socket, give_up: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT: done in two seconds, whoever is connected. Calls that were accepted may finish
    within one of them, and are cancelled else; soon after the end begins, `give_up` is called from a thread.
    """
    connections = min(MOST_CONNECTIONS, open_files(2 * MOST_CONNECTIONS) // 2)
    config = uvicorn.Config(
        app,
        http=GuardedConnection,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=connections,
        backlog=connections // 4,  # that many are taken at once, before any of them is counted
        timeout_graceful_shutdown=END_S,
    )
    server = _Uvicorn(config, app, give_up)
    async with anyio.create_task_group() as group:
        group.start_soon(on_signal, server.end)
        await server.serve([bound])
        group.cancel_scope.cancel()


class _Uvicorn(uvicorn.Server):
    """Leaves signals to us: its own way is to raise them again at the end, when the store is not closed yet."""

    def __init__(self, config: uvicorn.Config, app: Ending, give_up: Callable[[], None]) -> None:
        super().__init__(config)
        self._app = app
        self._give_up = give_up

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    def end(self, _caught: int) -> None:
        # That streams are cut off is no error.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        # Not by `handle_exit`, which the SDK's streams listen to: they would end before what is due on them is sent.
        self.force_exit = self.should_exit  # a second one ends it at once
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        soon(self._give_up)
        async with anyio.create_task_group() as group:
            group.start_soon(self._end)
            await super().shutdown(sockets)
            group.cancel_scope.cancel()

    async def _end(self) -> None:
        await self._app.end()
        for connection in self.server_state.connections:
            if connection.transport.get_write_buffer_size():  # by now it would have read them
                connection.transport.abort()
