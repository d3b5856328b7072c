"""The guard: who may connect, how much may come, how long it may take. On real sockets, with shorter times."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Self

import pytest
import uvicorn

from mcp_sessions.web.guard import Guard, GuardedConnection, is_loopback
from tests.processes import LONG_S, until
from tests.server.ports import answer, asked, head

LIMIT = 1000
LONG_ANSWER = 64 << 20


class Impatient(GuardedConnection):
    head_s = 0.2
    read_s = 0.2


class Echo:
    """Answers with the body it got, or at /long with far more than any buffer takes."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if message["type"] != "http.request" or not message.get("more_body"):
                break
        parts = LONG_ANSWER >> 20 if scope["path"] == "/long" else 0
        length = str((parts << 20) + len(body)).encode()
        try:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
            for _ in range(parts):
                await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": True})
            await send({"type": "http.response.body", "body": body})
        finally:
            self.ended.set()


class Served:
    """The application behind the guard, in a thread of its own."""

    def __init__(
        self,
        connection: type[GuardedConnection],
        max_body: int = LIMIT,
        max_bodies: int = 4 * LIMIT,
        body_s: float = 0.2,
    ) -> None:
        self.echo = Echo()
        hosts = frozenset({"127.0.0.1", "localhost", "[::1]"})
        self.guard = Guard(self.echo, max_body=max_body, max_bodies=max_bodies, hosts=hosts, body_s=body_s)
        config = uvicorn.Config(
            self.guard, http=connection, ws="none", lifespan="off", log_config=None, access_log=False
        )
        self.server = uvicorn.Server(config)
        self.bound = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=lambda: asyncio.run(self.server.serve([self.bound])))

    def __enter__(self) -> Self:
        self._thread.start()
        until(lambda: self.server.started)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self._thread.join(LONG_S)
        assert not self._thread.is_alive()

    def connect(self) -> socket.socket:
        connection = socket.create_connection(self.bound.getsockname(), LONG_S)
        connection.settimeout(LONG_S)
        return connection

    def ask(self, request: str = "POST /", body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        with self.connect() as connection:
            return asked(connection, request, body, **headers)


@pytest.fixture
def served() -> Iterator[Served]:
    with Served(GuardedConnection) as served:
        yield served


@pytest.fixture
def impatient() -> Iterator[Served]:
    with Served(Impatient) as served:
        yield served


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8765", "localhost", "LOCALHOST:1", "[::1]", "[::1]:8765", "localhost:65535"]
)
def test_this_machine_is_known_by_its_names(served: Served, host: str) -> None:
    assert served.ask(body=b"hello", host=host) == (200, b"hello")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:8765",
        "localhost:8765:1",
        "localhost@evil.example",
        "evil.example/localhost",
        "[::1].evil.example",
        "[::1",
        "0.0.0.0",
        "127.0.0.2",
        "localhost:",
        "localhost:port",
        ":8765",
    ],
)
def test_another_host_is_refused(served: Served, host: str) -> None:
    status, body = served.ask(host=host)
    assert status == 421
    assert b"Host" in body


def test_a_request_with_two_hosts_or_none_is_refused(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
        assert answer(connection)[0] in (400, 421)
    with served.connect() as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert answer(connection)[0] == 421


@pytest.mark.parametrize("origin", ["http://localhost:6274", "http://127.0.0.1", "https://[::1]:1", "HTTP://LOCALHOST"])
def test_a_page_of_this_machine_may_ask(served: Served, origin: str) -> None:
    assert served.ask(origin=origin.replace("HTTP", "http"))[0] == 200


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "https://localhost.evil.example",
        "http://localhost@evil.example",
        "http://localhost/path",
        "null",
        "file://",
        "localhost",
        "chrome-extension://abcdef",
    ],
)
def test_a_page_from_elsewhere_may_not(served: Served, origin: str) -> None:
    status, body = served.ask(origin=origin)
    assert status == 403
    assert b"Origin" in body


def test_a_body_up_to_the_limit_is_taken_whole(served: Served) -> None:
    assert served.ask(body=b"x" * LIMIT) == (200, b"x" * LIMIT)


def test_a_longer_body_is_refused_by_what_it_says_and_by_what_it_is(served: Served) -> None:
    assert served.ask(body=b"x" * (LIMIT + 1))[0] == 413
    assert served.ask(content_length=str(1 << 40))[0] == 413
    with served.connect() as connection:
        connection.sendall(head("POST /", transfer_encoding="chunked", content_length=""))
        connection.sendall(b"3e9\r\n" + b"x" * (LIMIT + 1) + b"\r\n")
        assert answer(connection)[0] == 413


def test_a_body_that_does_not_come_to_its_end_is_given_up(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(head("POST /", content_length="10") + b"half")
        assert answer(connection)[0] == 408
    assert served.ask(body=b"next") == (200, b"next")


def test_while_long_bodies_are_held_another_one_is_refused_and_short_ones_pass() -> None:
    long, short = b"x" * (1 << 20), b"y" * (64 << 10)
    with Served(GuardedConnection, len(long), 2 * len(long), LONG_S) as served:
        with served.connect() as one, served.connect() as two:
            for connection in (one, two):
                connection.sendall(head("POST /", content_length=str(len(long))) + long[1:])
            until(lambda: served.guard._room < len(long) // 2)  # else the one that asks may come before them
            assert served.ask(body=long)[0] == 503
            for _ in range(20):
                assert served.ask(body=short) == (200, short)
            with served.connect() as refused:
                refused.sendall(head("POST /", long))
                assert b"\r\nretry-after: 1\r\n" in refused.recv(65_536)
            one.sendall(b"x")
            assert answer(one) == (200, long)
            assert served.ask(body=long) == (200, long)
        until(lambda: not served.server.server_state.connections)
        with served.connect() as one, served.connect() as two:
            for connection in (one, two):
                connection.sendall(head("POST /", long))
            assert answer(one) == answer(two) == (200, long)


@pytest.mark.parametrize("said", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\n"])
def test_a_client_that_does_not_finish_a_request_is_closed(impatient: Served, said: bytes) -> None:
    with impatient.connect() as connection:
        connection.sendall(said)
        with suppress(ConnectionResetError):  # or the end, and not that it was cut off
            assert connection.recv(1) == b""
    assert impatient.ask(body=b"next") == (200, b"next")


def test_the_second_request_of_a_connection_has_no_longer_than_the_first(impatient: Served) -> None:
    with impatient.connect() as connection:
        connection.sendall(head("POST /", b"one", connection="keep-alive"))
        said = b""
        while not said.endswith(b"one"):
            said += connection.recv(65_536)
        connection.sendall(b"GET / HT")
        with suppress(ConnectionResetError):
            assert connection.recv(1) == b""


def test_a_client_that_does_not_read_is_closed(impatient: Served) -> None:
    with impatient.connect() as connection:
        connection.sendall(head("GET /long"))
        assert impatient.echo.ended.wait(LONG_S)
        until(lambda: not impatient.server.server_state.connections)


def test_a_client_that_has_left_unseen_is_asked_for(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(head("POST /", content_length="10"))
        until(lambda: bool(served.server.server_state.connections))
        (one,) = served.server.server_state.connections
        ours = one.transport.get_extra_info("socket")
        until(lambda: ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "Localhost", "::1", "[::1]"])
def test_what_is_this_machine_alone(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.com", "", "127.0.0.1.example.com"])
def test_what_others_can_reach(host: str) -> None:
    assert not is_loopback(host)
