"""Running a program: what it reads and writes, how long it may take, and that nothing of it is left."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import anyio
import anyio.to_thread
from anyio.abc import ByteReceiveStream, Process

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
    mark = f"{MARK}={new_id('run')}"
    try:
        process = await anyio.open_process(
            list(argv), env={**env, MARK: mark.partition("=")[2]}, cwd=cwd, start_new_session=True
        )
    except OSError as error:
        raise ExecutorError(f"{name} could not be started: {error.strerror or error}.") from error
    try:
        with anyio.fail_after(timeout_s):
            return await _talk(process, name, said.encode(), most_bytes, on_line)
    except TimeoutError as error:
        raise ExecutorError(f"{name} timed out after {timeout_s:g} seconds and was ended.") from error
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(end_tree, process.pid, mark)
            await process.aclose()


async def _talk(
    process: Process, name: str, said: bytes, most_bytes: int, on_line: Callable[[bytes], Awaitable[None]] | None
) -> Ran:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    stdin, told = process.stdin, bytearray()
    stdout = bytearray()

    async def feed() -> None:
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):  # it reads no more of it
            await stdin.send(said)
            await stdin.aclose()

    async def listen(stream: ByteReceiveStream) -> None:
        async for piece in stream:
            told.extend(piece)
            del told[:-STDERR_BYTES]

    async def read(stream: ByteReceiveStream) -> None:
        begun = 0
        async for piece in stream:
            stdout.extend(piece)
            if len(stdout) > most_bytes:
                raise ExecutorError(f"{name} wrote more than {most_bytes:,} bytes (max_output_bytes) and was ended.")
            while on_line is not None and (end := stdout.find(b"\n", begun)) >= 0:
                line = bytes(stdout[begun:end])
                begun = end + 1
                await on_line(line)

    with first_error():
        async with anyio.create_task_group() as group:
            group.start_soon(feed)
            async with anyio.create_task_group() as readers:
                readers.start_soon(listen, process.stderr)
                readers.start_soon(read, process.stdout)
                # Not `wait()`: before Python 3.12.5 it waits for whoever has the pipes, too.
                while process.returncode is None:  # noqa: ASYNC110 - it tells nobody else
                    await anyio.sleep(POLL_S)
                readers.cancel_scope.deadline = anyio.current_time() + LINGER_S
            group.cancel_scope.cancel()
    assert process.returncode is not None
    return Ran(process.returncode, bytes(stdout), told.decode(errors="replace").strip())
