"""Real servers on real ports of this machine, spoken to by sockets, so that a test can say what no client would."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.processes import LONG_S, until, written

from .pipes import SERVE, environment

SERVE_HTTP = (*SERVE, "--transport", "http", "--port", "0")
URL = re.compile(r"http://127\.0\.0\.1:(\d+)/mcp")


class Port:
    """`mcp-sessions serve --transport http` on a port that was free. Leaving the `with` block ends it."""

    def __init__(self, store: Path, *args: str, command: tuple[str, ...] = SERVE_HTTP) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self.process = subprocess.Popen(
            [sys.executable, *command, *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment(store),
        )
        until(lambda: URL.search(self.errors()) is not None or self.process.poll() is not None)
        told = URL.search(self.errors())
        assert told is not None, self.errors()
        self.number = int(told[1])
        self.url = f"http://127.0.0.1:{self.number}"

    def errors(self) -> str:
        """What it wrote to stderr."""
        return written(self._errors)

    def connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.number), LONG_S)
        connection.settimeout(LONG_S)
        return connection

    def ask(self, request: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        """The status and all that comes until the server closes."""
        with self.connect() as connection:
            return asked(connection, request, body, **headers)

    def end(self, by: int) -> int:
        """Its exit code after a signal."""
        self.process.send_signal(by)
        return self.process.wait(LONG_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(LONG_S)
        assert self.process.stdout is not None
        said = self.process.stdout.read()
        self.process.stdout.close()
        self._errors.close()
        assert said == b""


def head(request: str, body: bytes = b"", **headers: str) -> bytes:
    """The bytes of a request; `host` and others may be set, `_` stands for `-`."""
    lines = {"host": "127.0.0.1", "connection": "close", "content-length": str(len(body))}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    text = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
    return f"{request} HTTP/1.1\r\n{text}\r\n".encode() + body


def asked(connection: socket.socket, request: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
    """The status and all that comes until the other side closes."""
    connection.sendall(head(request, body, **headers))
    return answer(connection)


def answer(connection: socket.socket) -> tuple[int, bytes]:
    """The status and all that comes until the other side closes."""
    said = b""
    try:
        while data := connection.recv(65_536):
            said += data
    except ConnectionResetError:  # what it did not read of us lets the system say so
        pass
    first, _, rest = said.partition(b"\r\n")
    return int(first.split()[1]), rest.partition(b"\r\n\r\n")[2]
