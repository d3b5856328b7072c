"""Running a program: what it reads and writes, how long it may take, and that nothing of it is left."""

from __future__ import annotations

import math
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

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


@dataclass(frozen=True)
class Ran:
    """How a program ended, and what it wrote."""

    code: int
    stdout: bytes
    stderr: str


def passed(names: Sequence[str]) -> dict[str, str]:
    """Of this process's variables those that may be passed on: the usual ones and these."""
    allowed = (*PASSED, *names)
    return {name: value for name, value in os.environ.items() if any(fnmatchcase(name, one) for one in allowed)}


async def run(
    argv: Sequence[str],
    said: str,
    *,
    env: Mapping[str, str],
    cwd: Path | None,
    timeout_s: float | None,
    most_bytes: int,
    on_line: Callable[[bytes], Awaitable[None]] | None = None,
) -> Ran:
    """Run a program that reads `said` on stdin. Raises ExecutorError for one that cannot be started, takes longer, or
    writes more. However this ends, nothing that the program started goes on.
    """
    name = Path(argv[0]).name
    tree = new_id("run")
    inherited = os.environ.get(MARK)  # of an agent that was started by another one's program, and ends with that
    env = {**env, MARK: tree if inherited is None else f"{inherited},{tree}"}
    process = await _started(list(argv), env, cwd)
    try:
        with anyio.move_on_after(timeout_s) as scope:
            return await _Talk(process, name, most_bytes, on_line).hold(said.encode())
        assert scope.cancelled_caught
        raise ExecutorError(f"{name} timed out after {timeout_s:g} seconds and was ended.")
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(end_tree, process.pid, tree)
            await process.aclose()


async def _started(argv: list[str], env: Mapping[str, str], cwd: Path | None) -> Process:
    shield = anyio.CancelScope(shield=True)  # or nobody would know what was started
    with shield:
        try:
            return await anyio.open_process(argv, env=env, cwd=cwd, start_new_session=True)
        except OSError as error:
            text = f"{Path(argv[0]).name} could not be started: {error.strerror or error}."
            raise ExecutorError(text) from error
    raise AssertionError(shield)


class _Talk:
    """What a program reads and writes, all at the same time."""

    def __init__(
        self, process: Process, name: str, most_bytes: int, on_line: Callable[[bytes], Awaitable[None]] | None
    ) -> None:
        self._process = process
        self._name = name
        self._most_bytes = most_bytes
        self._on_line = on_line
        self._heard, self._lines = anyio.create_memory_object_stream[bytes](math.inf)
        self._feeding = anyio.CancelScope()
        self._stdout, self._stderr = bytearray(), bytearray()

    async def hold(self, said: bytes) -> Ran:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        with first_error(), self._heard, self._lines:
            async with anyio.create_task_group() as group:
                group.start_soon(self._feed, process.stdin, said)
                group.start_soon(self._tell)
                async with anyio.create_task_group() as readers:
                    readers.start_soon(self._listen, process.stderr)
                    readers.start_soon(self._read, process.stdout)
                    # Not `wait()`: before Python 3.12.5 it waits for whoever has the pipes, too.
                    while process.returncode is None:  # noqa: ASYNC110 - it tells nobody else
                        await anyio.sleep(POLL_S)
                    readers.cancel_scope.deadline = anyio.current_time() + LINGER_S
                self._heard.close()  # who is told may take longer than who tells
                self._feeding.cancel()
        assert process.returncode is not None
        return Ran(process.returncode, bytes(self._stdout), self._stderr.decode(errors="replace").strip())

    async def _feed(self, stdin: ByteSendStream, said: bytes) -> None:
        with self._feeding, suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):  # it reads no more of it
            await stdin.send(said)
            await stdin.aclose()

    async def _listen(self, stream: ByteReceiveStream) -> None:
        async for piece in stream:
            self._stderr.extend(piece)
            del self._stderr[:-STDERR_BYTES]

    async def _read(self, stream: ByteReceiveStream) -> None:
        begun = 0
        async for piece in stream:
            self._stdout.extend(piece)
            if len(self._stdout) > self._most_bytes:
                text = f"{self._name} wrote more than {self._most_bytes:,} bytes (max_output_bytes) and was ended."
                raise ExecutorError(text)
            while self._on_line is not None and (end := self._stdout.find(b"\n", begun)) >= 0:
                self._heard.send_nowait(bytes(self._stdout[begun:end]))
                begun = end + 1

    async def _tell(self) -> None:
        async for line in self._lines:
            if self._on_line is not None:
                await self._on_line(line)
