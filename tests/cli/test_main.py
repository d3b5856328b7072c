"""What holds for every command: how they are found, how they end, and what they do not import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from mcp_sessions.cli import COMMANDS
from mcp_sessions.config import sqlite_url
from mcp_sessions.manager import SessionManager
from mcp_sessions.storage import SQLiteSessionStorage

from .conftest import ROOT, Program, Run

SLOW = {"mcp", "mcp_types", "rich", "genai_prices", "starlette", "uvicorn", "httpx2", "anyio", "hypothesis"}
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}


def imported(program: Program, *args: str) -> set[str]:
    """The top-level packages that a command imports."""
    result = program(*args, python=("-X", "importtime"))
    assert result.returncode == 0, result.stderr
    times = [line for line in result.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in times}


def test_help_names_every_command(program: Program) -> None:
    result = program("--help")
    assert result.returncode == 0
    assert result.stderr == ""
    for name, place in COMMANDS.items():
        assert any(line.split() == [name, *place.help.split()] for line in result.stdout.splitlines()), name


def test_help_imports_no_command(program: Program) -> None:
    packages = imported(program, "--help")
    assert "click" in packages
    assert not packages & {*SLOW, "pydantic", "apsw"}


def test_version_is_the_installed_one(program: Program) -> None:
    assert program("--version").stdout == f"mcp-sessions {version('mcp-sessions')}\n"


@pytest.mark.parametrize(
    "command",
    [
        *("ls --json", "ls", "show -", "get -", "path", "set - key 1", "doctor"),
        *("backup {place}/copy.db", "import sessions {elsewhere} --dry-run"),
    ],
)
def test_what_does_not_serve_imports_nothing_slow(
    manager: SessionManager, program: Program, tmp_path: Path, command: str
) -> None:
    manager.create_session(purpose="one")
    elsewhere = tmp_path / "elsewhere.db"
    with SessionManager(SQLiteSessionStorage(elsewhere)) as other:
        other.create_session(purpose="two")
    packages = imported(program, *command.format(place=tmp_path, elsewhere=sqlite_url(elsewhere)).split())
    assert "mcp_sessions" in packages
    assert not packages & SLOW


def test_without_a_command_and_a_terminal_it_serves_mcp(place: Path, program: Program) -> None:
    result = program(input=json.dumps(INITIALIZE) + "\n")
    assert result.returncode == 0, result.stderr
    (answer,) = map(json.loads, result.stdout.splitlines())
    assert answer["id"] == 1
    assert "tools" in answer["result"]["capabilities"]


def test_without_a_command_a_terminal_gets_help() -> None:
    controller, terminal = os.openpty()
    try:
        result = subprocess.run(
            [sys.executable, "-m", "mcp_sessions"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=terminal,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
    finally:
        os.close(controller)
        os.close(terminal)
    assert result.returncode == 0
    assert "Commands:" in result.stdout


def test_an_unknown_command_is_a_usage_mistake(run: Run) -> None:
    result = run("lst")
    assert result.exit_code == 2
    assert "lst" in result.stderr
    assert result.stdout == ""


def test_a_misspelt_setting_is_one_line_and_no_traceback(program: Program) -> None:
    result = program("ls", MCP_SESSIONS_STORGE="memory:")
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == (
        "Error: Unknown setting MCP_SESSIONS_STORGE in the environment: did you mean MCP_SESSIONS_STORAGE?\n"
    )


def test_several_settings_that_cannot_be_used_are_one_line(program: Program) -> None:
    result = program("ls", MCP_SESSIONS_PORT="x", MCP_SESSIONS_DURABILITY="y")
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert "MCP_SESSIONS_PORT" in line
    assert "MCP_SESSIONS_DURABILITY" in line


def test_a_file_of_another_program_is_one_line_and_no_traceback(place: Path, program: Program) -> None:
    place.parent.mkdir()
    place.write_text("these are notes, and by no means a database " * 100, encoding="utf-8")
    result = program("ls")
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"Error: {place}: it is not a SQLite file.")


@pytest.mark.parametrize("name", ["a folder", "n" * 300])
def test_what_the_system_refuses_is_one_line_and_no_traceback(place: Path, program: Program, name: str) -> None:
    (place / "a folder").mkdir(parents=True)
    result = program("ls", MCP_SESSIONS_STORAGE=sqlite_url(place / name))
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert str(place / name) in line


@pytest.mark.parametrize("args", [["ls"], ["ls", "--json"], ["show", "-"], ["get", "-"], ["doctor"]], ids=" ".join)
def test_a_reader_that_goes_away_ends_it_quietly(manager: SessionManager, args: list[str]) -> None:
    manager.create_session(data={"plan": 1})
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = subprocess.run(
            [sys.executable, "-m", "mcp_sessions", *args],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            check=False,
        )
    finally:
        os.close(writer)
    assert result.stderr == ""


@pytest.mark.parametrize("args", [["ls"], ["ls", "--json"], ["show", "-"], ["get", "-"], ["doctor"]], ids=" ".join)
def test_without_an_output_it_still_ends_well(manager: SessionManager, args: list[str]) -> None:
    manager.create_session(data={"plan": 1})
    closing = (
        "import os, sys; os.close(1); os.execv(sys.executable, [sys.executable, '-m', 'mcp_sessions', *sys.argv[1:]])"
    )
    result = subprocess.run(
        [sys.executable, "-c", closing, *args],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_a_pipe_that_knows_few_letters_gets_escapes(manager: SessionManager, program: Program) -> None:
    manager.create_session(purpose="żółw", data={"größe": "…ż"})
    listed = program("ls", PYTHONIOENCODING="cp1252")
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.encode("utf-8", "surrogateescape").endswith(b"\\u017c\xf3\\u0142w\n")
    assert json.loads(program("ls", "--json", PYTHONIOENCODING="cp1252").stdout)[0]["purpose"] == "żółw"
    assert program("get", "-", "größe", PYTHONIOENCODING="cp1252").stdout == '"\\u2026\\u017c"\n'


def test_arguments_in_an_error_do_not_act_on_the_terminal(manager: SessionManager, run: Run) -> None:
    manager.create_session()
    result = run("show", "x\x1b[31m\x9b\u202ey\nz")
    assert result.exit_code == 3
    (line,) = result.stderr.splitlines()
    assert "x\\x1b[31m\\x9b\\u202ey z" in line


@pytest.mark.parametrize(
    "args", [["show", b"\xff"], ["get", b"\xff"], ["get", "s", b"\xff"], ["set", "s", b"\xff", "1"], ["ls", b"\xff"]]
)
def test_an_argument_that_is_not_text_is_one_line(manager: SessionManager, args: list[str | bytes]) -> None:
    manager.create_session("s")
    result = subprocess.run(
        [sys.executable, "-m", "mcp_sessions", *args],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert result.returncode in (2, 3)
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")


def test_a_fault_of_ours_is_one_line_that_asks_for_a_report(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("the inside")

    monkeypatch.setattr("mcp_sessions.config.Settings", broken)
    result = run("ls")
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: RuntimeError: the inside. This is a fault of mcp-sessions: please report it")


def test_help_promises_nothing_that_is_not_there(run: Run) -> None:
    told = run("--help").stdout
    assert "stdio or HTTP" in told
    for later in ("page", "PostgreSQL", "token"):
        assert later not in told
