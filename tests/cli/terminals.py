"""A real terminal for a command to write to."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
import termios

from .conftest import ROOT


def on_terminal(*args: str, columns: int, **env: str) -> str:
    """What a command writes to a terminal of that width."""
    controller, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (40, columns))
    child = subprocess.Popen(
        [sys.executable, "-m", "mcp_sessions", *args],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **env},
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    written = b""
    with contextlib.suppress(OSError):  # Linux tells the end of a terminal by an error.
        while part := os.read(controller, 65536):
            written += part
    os.close(controller)
    assert child.wait() == 0, written
    return written.decode()
