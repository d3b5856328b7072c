"""What commands say over a store of files in which a log is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcp_sessions import FileSystemSessionStorage, SessionManager

from .conftest import Program


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The log of a session of three messages, of which the second is damaged."""
    monkeypatch.setenv("MCP_SESSIONS_STORAGE", f"file://{tmp_path}/sessions")
    with SessionManager(FileSystemSessionStorage(tmp_path / "sessions")) as manager:
        manager.create_session("s")
        for content in ("one", "two", "three"):
            manager.add_conversation_message("s", "user", content)
    log = tmp_path / "sessions" / "s" / "log.jsonl"
    log.write_bytes(log.read_bytes().replace(b"two", b"tvo"))
    return log


@pytest.mark.parametrize("command", [("ls",), ("show", "s"), ("backup", "copy.db", "--force")])
def test_each_command_that_reads_tells_what_is_missing(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: Program, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        done = program(*command)
        assert done.returncode == 0
        (fault,) = (line for line in done.stderr.splitlines() if str(log) in line)
        assert fault.startswith(f"{log}: line 3 is damaged. It is read up to there, ")
        assert fault.endswith("mcp-sessions doctor --repair")


def test_a_refused_write_says_why_without_a_traceback(log: Path, program: Program) -> None:
    done = program("set", "s", "k", "1")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"Error: {log}: line 3 is damaged.")
