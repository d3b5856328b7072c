"""Running a program: what it reads and writes, how long it may take, and that nothing of it is left."""

from __future__ import annotations

import math
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Self

import anyio
import anyio.to_thread
from anyio.abc import ByteReceiveStream, ByteSendStream, Process

from ..._os import end_tree
from ...errors import ExecutorError
from ...session import new_id
from ..waiting import first_error

MARK = "AGENT_PROCESS_TREE"
"""The variable by which all that a program starts is known."""
POLL_S = 0.02
LINGER_S = 0.5
"""How long what a program started may still write where the program itself has ended."""
STDERR_BYTES = 8192
"""Of what it says on stderr, the end is kept."""
PASSED = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "TERM", "TMPDIR", "XDG_*"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy"),
    *("SYSTEMROOT", "SYSTEMDRIVE", "COMSPEC", "PATHEXT", "WINDIR", "TEMP", "TMP", "USERNAME", "USERPROFILE"),
    *("HOMEDRIVE", "HOMEPATH", "APPDATA", "LOCALAPPDATA", "PROGRAMDATA", "PROGRAMFILES", "PROGRAMFILES(X86)"),
)
"""The variables that every program gets; a `*` stands for any ending."""
OnLine = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True)
class Ran:
    """How a program ended, and what it wrote."""

    code: int | None
    """None where it was ended before it ended by itself."""
    stdout: bytes
    stderr: str
    fault: str = ""
    """Why it was ended, or not heard to its end."""
    cause: Exception | None = None
    """What was raised by who listens, where that is the fault."""


def passed(names: Sequence[str]) -> dict[str, str]:
    """Of this process's variables those that may be passed on: the usual ones and these."""
    allowed = (*PASSED, *names)
    return {name: value for name, value in os.environ.items() if any(fnmatchcase(name, one) for one in allowed)}


async def run(
    argv: Sequence[str],
    said: str,
    *,
    name: str,
    env: Mapping[str, str],
    cwd: Path | None,
    timeout_s: float | None,
    most_bytes: int,
    on_line: OnLine | None = None,
) -> Ran:
    """Run a program that reads `said` on stdin, and end it where it takes longer, writes more, or who listens fails.

    Raises ExecutorError for one that cannot be started. However this ends, nothing that the program started goes on.
    """
    tree = new_id("run")
    inherited = os.environ.get(MARK)  # of an agent that was started by another one's program, and ends with that
    env = {**env, MARK: tree if inherited is None else f"{inherited},{tree}"}
    talk = _Talk(most_bytes, on_line)
    with first_error(), talk:
        async with anyio.create_task_group() as group:
            process = await _started(name, list(argv), env, cwd)
            try:
                group.start_soon(talk.tell)
                await talk.hold(process, said.encode(), timeout_s)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(end_tree, process.pid, tree)
                    await process.aclose()
    return talk.ran()


async def _started(name: str, argv: list[str], env: Mapping[str, str], cwd: Path | None) -> Process:
    shield = anyio.CancelScope(shield=True)  # or nobody would know what was started
    with shield:
        try:
            return await anyio.open_process(argv, env=env, cwd=cwd, start_new_session=True)
        except OSError as error:
            text = f"{name} could not be started from {argv[0]}: {error.strerror or error}."
            raise ExecutorError(text, asked=False) from error
    raise AssertionError(shield)


class _Talk:
    """What a program reads and writes, all at the same time."""

    def __init__(self, most_bytes: int, on_line: OnLine | None) -> None:
        self._most_bytes = most_bytes
        self._on_line = on_line
        self._heard, self._lines = anyio.create_memory_object_stream[bytes](math.inf)
        self._holding = anyio.CancelScope()
        self._stdout, self._stderr = bytearray(), bytearray()
        self._told = 0
        self._code: int | None = None
        self._fault = ""
        self._cause: Exception | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._heard.close()
        self._lines.close()

    async def hold(self, process: Process, said: bytes, timeout_s: float | None) -> None:
        """Until it has ended, or is to be ended."""
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        with self._heard:  # who is told may take longer than who tells
            with self._holding, anyio.move_on_after(timeout_s) as scope:
                async with anyio.create_task_group() as group:
                    group.start_soon(self._feed, process.stdin, said)
                    group.start_soon(self._listen, process.stderr)
                    group.start_soon(self._read, process.stdout)
                    # Not `wait()`: before Python 3.12.5 it waits for whoever has the pipes, too.
                    while process.returncode is None:  # noqa: ASYNC110 - it tells nobody else
                        await anyio.sleep(POLL_S)
                    group.cancel_scope.deadline = anyio.current_time() + LINGER_S
            self._code = process.returncode
            if scope.cancelled_caught and self._code is None:
                self._end(f"timed out after {timeout_s:g} seconds and was ended")
            if len(self._stdout) > self._told:  # of what it wrote last, the end of the line may be missing
                self._hand_on(self._stdout[self._told :])

    async def tell(self) -> None:
        """Line after line, to who listens."""
        async for line in self._lines:
            assert self._on_line is not None
            try:
                await self._on_line(line)
            except Exception as error:  # noqa: BLE001 - whatever it is, what the program has answered by then is not lost
                self._end(f"was not heard to its end ({type(error).__name__}: {error})", error)
                return

    def ran(self) -> Ran:
        """What became of it."""
        stderr = self._stderr.decode(errors="replace").strip()
        return Ran(self._code, bytes(self._stdout), stderr, self._fault, self._cause)

    def _end(self, fault: str, cause: Exception | None = None) -> None:
        self._fault, self._cause = fault, cause
        self._holding.cancel()

    async def _feed(self, stdin: ByteSendStream, said: bytes) -> None:
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):  # it reads no more of it
            await stdin.send(said)
            await stdin.aclose()

    async def _listen(self, stream: ByteReceiveStream) -> None:
        async for piece in stream:
            self._stderr.extend(piece)
            del self._stderr[:-STDERR_BYTES]

    async def _read(self, stream: ByteReceiveStream) -> None:
        async for piece in stream:
            self._stdout.extend(piece)
            if len(self._stdout) > self._most_bytes:
                self._end(f"wrote more than {self._most_bytes:,} bytes (max_output_bytes) and was ended")
            while self._on_line is not None and (end := self._stdout.find(b"\n", self._told)) >= 0:
                self._hand_on(self._stdout[self._told : end])
                self._told = end + 1

    def _hand_on(self, line: bytearray) -> None:
        if self._on_line is not None:
            self._heard.send_nowait(bytes(line))
