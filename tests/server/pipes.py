"""Real servers on real pipes, spoken to line by line, so that a test can say what no client would."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mcp_sessions.config import sqlite_url
from tests.processes import LONG_S, ROOT, written

SERVE = ("-m", "mcp_sessions", "serve")
HANDSHAKE = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "pipe", "version": "1"},
}


def environment(store: Path) -> dict[str, str]:
    """What a server over an SQLite file, or over a folder, needs to know; all of ours, because coverage of child
    processes travels there too.
    """
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "MCP_SESSIONS_STORAGE": sqlite_url(store) if store.suffix else store.as_uri(),
        "MCP_SESSIONS_DURABILITY": "process",
    }


def program(name: str, *args: str) -> tuple[str, ...]:
    """The command line of a function in `tests.server.programs`."""
    return ("-c", f"import sys; from tests.server.programs import {name}; {name}(*sys.argv[1:])", *args)


class Pipe:
    """A server process. Leaving the `with` block ends it; what it said must have been JSON-RPC, all of it."""

    def __init__(self, store: Path, *args: str, command: tuple[str, ...] = SERVE, name: str = "pipe") -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self.process = subprocess.Popen(
            [sys.executable, *command, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment(store),
        )
        self.said: list[bytes] = []
        self._answers: dict[Any, dict[str, Any]] = {}
        self._heard: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._last = 0
        self._ear: threading.Thread | None = None
        self._name = name

    def listen(self) -> Self:
        """Read what it says from now on."""
        self._ear = threading.Thread(target=self._listen, daemon=True)
        self._ear.start()
        return self

    def shake_hands(self) -> Self:
        self.listen()
        info = {**HANDSHAKE, "clientInfo": {"name": self._name, "version": "1"}}
        assert "result" in self.ask("initialize", info)
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return self

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def send(self, message: Any) -> None:
        self.write(json.dumps(message).encode() + b"\n")

    def request(self, method: str, params: Any = None) -> int:
        """Send a request; its id."""
        self._last += 1
        self.send(
            {"jsonrpc": "2.0", "id": self._last, "method": method, **({} if params is None else {"params": params})}
        )
        return self._last

    def begin(self, tool: str, **arguments: Any) -> int:
        return self.request("tools/call", {"name": tool, "arguments": arguments})

    def answer(self, number: Any) -> dict[str, Any]:
        """The answer to a request. Fails where the server ends instead."""
        while number not in self._answers:
            message = self._heard.get(timeout=LONG_S)
            assert message is not None, f"it ended instead: {self.end()}\n{self.errors()}"
            self._answers[message.get("id")] = message
        return self._answers.pop(number)

    def has_answered(self, numbers: list[int]) -> bool:
        """Whether an answer to one of these came before the last one that was waited for."""
        return any(number in self._answers for number in numbers)

    def ask(self, method: str, params: Any = None) -> dict[str, Any]:
        return self.answer(self.request(method, params))

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """The result of a tool call, an error included."""
        return self.answer(self.begin(tool, **arguments))["result"]

    def structured(self, tool: str, **arguments: Any) -> dict[str, Any]:
        result = self.call(tool, **arguments)
        assert not result.get("isError"), result
        return result["structuredContent"]

    def close_stdin(self) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone and all that it said is heard."""
        self.process.send_signal(signal.SIGKILL)
        self.end()

    def end(self) -> int:
        """Wait until it ends by itself; its exit code."""
        code = self.process.wait(LONG_S)
        if self._ear is not None:
            self._ear.join(LONG_S)
        return code

    def rest(self) -> list[dict[str, Any]]:
        """All that it says until it ends, what was heard and not asked for included."""
        self.end()
        messages = list(self._answers.values())
        while (message := self._heard.get(timeout=LONG_S)) is not None:
            messages.append(message)
        return messages

    def errors(self) -> str:
        """What it wrote to stderr."""
        return written(self._errors)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close_stdin()
        try:
            self.process.wait(LONG_S if kind is None else 5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(LONG_S)
        if self._ear is not None:
            self._ear.join(LONG_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._errors.close()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            with suppress(ValueError):  # a last line may be cut short by SIGKILL; `only_json_rpc` looks at the others
                self._heard.put(json.loads(line))
        self._heard.put(None)

    def said_only_json_rpc(self) -> bool:
        """Whether every line on stdout was a message of JSON-RPC."""
        return all(json.loads(line)["jsonrpc"] == "2.0" for line in self.said)
