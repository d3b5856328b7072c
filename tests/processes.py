"""Real child processes for tests: started, heard, suspended and ended by id, without a sleep.

A program is a function at the top of an importable module; it is called with the JSON values it was started with,
and talks to the test by lines.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

ROOT = Path(__file__).parents[1]
LONG_S = 120.0
"""After this a test that waits gives up: a guard against hanging, which nothing is measured against."""


def full_counts() -> bool:
    """Whether random tests run as often as they should before a release, and not as often as there is time for."""
    return os.environ.get("SESSIONS_TEST_COUNTS") == "full"


def say(*values: Any) -> None:
    """In a program: one line to the test."""
    sys.stdout.write(json.dumps(values[0] if len(values) == 1 else values) + "\n")
    sys.stdout.flush()


def hear() -> str:
    """In a program: wait for a line from the test."""
    return sys.stdin.readline().strip()


def until(condition: Callable[[], bool]) -> None:
    """Look until it is so, and leave the processor to what makes it so."""
    end = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < end, f"not so after {LONG_S:g} s"
        time.sleep(0.005)


def written(file: IO[bytes]) -> str:
    """What a child wrote to a file that it shares with us: its place in it is ours too, so we must not move it."""
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode(errors="replace")


class Child:
    """A process that runs a program. Leaving the `with` block ends it, whatever state it is in."""

    def __init__(self, program: Callable[..., Any], *args: Any) -> None:
        name = f"from {program.__module__} import {program.__name__} as program"
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"import json, sys; {name}; program(*json.loads(sys.argv[1]))",
                json.dumps(args, default=str),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            encoding="utf-8",
        )
        self.pid = self.process.pid
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._ear = threading.Thread(target=self._listen, daemon=True)
        self._ear.start()

    def hear(self) -> Any:
        """The next line it says. Fails where it ends instead."""
        line = self._lines.get(timeout=LONG_S)
        assert line is not None, f"it ended instead: {self.end()}\n{self.errors()}"
        return json.loads(line)

    def rest(self) -> list[Any]:
        """All that it says until it ends; a last line that was cut short by its end is none."""
        lines: list[Any] = []
        while (line := self._lines.get(timeout=LONG_S)) is not None:
            if line.endswith("\n"):
                lines.append(json.loads(line))
        return lines

    def tell(self, line: str = "") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end(self) -> int:
        """Wait until it ends by itself; its exit code."""
        return self.process.wait(LONG_S)

    def ends_well(self) -> None:
        assert self.end() == 0, self.errors()
        assert self.errors() == ""

    def errors(self) -> str:
        """What it wrote to stderr."""
        return written(self._errors)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.wait(LONG_S)

    def suspend(self) -> None:
        """SIGSTOP, and wait until it has stopped."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.kill()
        self._ear.join(LONG_S)
        for stream in (self.process.stdin, self.process.stdout, self._errors):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)


class Children:
    """Several children, ended together."""

    def __init__(self) -> None:
        self._all: list[Child] = []

    def start(self, program: Callable[..., Any], *args: Any) -> Child:
        child = Child(program, *args)
        self._all.append(child)
        return child

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self._all:
            child.__exit__(kind, error, trace)
