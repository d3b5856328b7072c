"""A real store, and the commands over it: inside this process where that shows it, else as a real program."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mcp_sessions.cli import main
from mcp_sessions.config import sqlite_url
from mcp_sessions.manager import SessionManager
from mcp_sessions.storage import SQLiteSessionStorage

ROOT = Path(__file__).parents[2]
Run = Callable[..., Result]
Program = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the settings say that sessions are kept; nothing is there yet."""
    file = tmp_path / "store" / "sessions.db"
    monkeypatch.setenv("MCP_SESSIONS_STORAGE", sqlite_url(file))
    return file


@pytest.fixture
def manager(place: Path) -> Iterator[SessionManager]:
    """A manager of another caller, on the same store."""
    with SessionManager(SQLiteSessionStorage(place)) as manager:
        yield manager


@pytest.fixture
def run() -> Run:
    """The command line, called in this process."""

    def run(*args: str) -> Result:
        result = CliRunner().invoke(main, args)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


@pytest.fixture
def program() -> Program:
    """The command line as a process of its own: `python -m mcp_sessions`."""

    def program(
        *args: str, python: tuple[str, ...] = (), input: str = "", **env: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *python, "-m", "mcp_sessions", *args],
            env={**os.environ, "PYTHONPATH": str(ROOT), **env},
            input=input,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            check=False,
        )

    return program
