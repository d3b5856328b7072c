"""The guard of every HTTP route: Host and Origin are checked, bodies are bounded, slow clients are closed.

A web page that a browser on this machine shows can send requests to this machine. What gives it away is that it
calls us by another name (DNS rebinding changes addresses, not names) or comes from another origin.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import anyio
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
HEAD_S = 5.0
"""How long a client may take to send the head of a request."""
BODY_S = 60.0
"""How long it may take to send the body."""
READ_S = 30.0
"""How long it may leave an answer unread."""
SMALL_BYTES = 64 << 10
"""A body up to this length is taken whatever else is held: so much of it uvicorn has read before anybody asks."""
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[^\s:/\[\]@]+)(?::\d{1,5})?\Z")
_ORIGIN = re.compile(r"https?://(?P<host>[^/?#]+)\Z")


def is_loopback(host: str) -> bool:
    """Whether a host to bind is this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Guard:
    """An ASGI application before another one.

    Answers 421 to a request for a host that is not one of `hosts`, 403 to one from another origin, 413 to a body of
    more than `max_body` bytes, 408 to one that does not come to its end, 503 to one with which the bodies of all
    requests that are not answered yet would have more than `max_bodies` bytes; small ones are not counted.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_body: int,
        max_bodies: int,
        hosts: frozenset[str] = LOOPBACK,
        body_s: float = BODY_S,
    ) -> None:
        self._app = app
        self._hosts = hosts
        self._max_body = max_body
        self._room = max_bodies
        self._body_s = body_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        with self._holding() as fits:
            messages: list[Message] = []
            refusal = self._refusal(headers)
            if refusal is None:
                messages, refusal = await self._received(headers, receive, fits)

            async def replay() -> Message:
                return messages.pop(0) if messages else await receive()

            if refusal is None:
                await self._app(scope, replay, send)
        if refusal is not None:
            await refusal(scope, receive, send)

    @contextmanager
    def _holding(self) -> Generator[Callable[[int], bool]]:
        """What tells whether a body that has come to some length may be held; it is until the block ends."""
        held = 0

        def fits(length: int) -> bool:
            nonlocal held
            more = max(length - SMALL_BYTES, 0) - held
            if more > self._room:
                return False
            held += more
            self._room -= more
            return True

        try:
            yield fits
        finally:
            self._room += held

    def _refusal(self, headers: Headers) -> Response | None:
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or not self._known(hosts[0]):
            return _refused(421, "This server does not answer to that Host.")
        if any((origin := _ORIGIN.match(one)) is None or not self._known(origin["host"]) for one in origins):
            return _refused(403, "Requests from that Origin are not answered.")
        return None

    def _known(self, host: str) -> bool:
        match = _HOST.match(host.lower())
        return match is not None and match["name"] in self._hosts

    async def _received(
        self, headers: Headers, receive: Receive, fits: Callable[[int], bool]
    ) -> tuple[list[Message], Response | None]:
        """The whole body, or what to answer in its place."""
        too_long = _refused(413, f"The body is longer than {self._max_body:,} bytes.")
        declared = headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared) > self._max_body:
            return [], too_long
        body = bytearray()
        with anyio.move_on_after(self._body_s):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return [message], None
                body += message.get("body", b"")
                if len(body) > self._max_body:
                    return [], too_long
                if not fits(len(body)):
                    return [], _refused(503, "The server holds as many long bodies as it can. Retry.", retry_after="1")
                if not message.get("more_body", False):
                    return [{"type": "http.request", "body": bytes(body), "more_body": False}], None
        return [], _refused(408, f"The body did not come within {self._body_s:.0f} s.")


def _refused(status: int, text: str, **headers: str) -> Response:
    # Whatever else the client has sent is not read, so nothing can follow on this connection.
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return PlainTextResponse(text + "\n", status, headers={"connection": "close", **more})


class GuardedConnection(H11Protocol):
    """A connection that is closed where the other side neither sends a request, nor reads the answer, nor is there;
    and at once where it would be one of `limit_concurrency`, so that there are always fewer, whatever they do.
    """

    head_s = HEAD_S
    read_s = READ_S
    _waiting: Any = None
    _unread: Any = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a request; let the system ask whether the other side is still there."""
        super().connection_made(transport)
        if self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
            transport.abort()
            return
        _keep_asking(transport.get_extra_info("socket"))
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """Take what came; the time for a head begins with its first byte."""
        super().data_received(data)
        cycle: Any = self.cycle  # None before the first request
        if cycle is None or cycle.response_complete:
            self._wait_for_head()
        else:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all clocks."""
        self._stop_waiting()
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Wait for the other side to read."""
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(self.read_s, self.transport.abort)

    def resume_writing(self) -> None:
        """It has read."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _wait_for_head(self) -> None:
        if self._waiting is None:
            self._waiting = self.loop.call_later(self.head_s, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None


def _keep_asking(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):  # not on every system
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
