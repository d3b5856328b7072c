"""`backup`: the configured store, copied by a command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mcp_sessions.config import sqlite_url
from mcp_sessions.manager import SessionManager
from mcp_sessions.storage import open_storage

from .conftest import Run


def test_a_copy_is_a_store_that_other_commands_use(
    manager: SessionManager, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager.create_session("s", purpose="kept")
    copy = tmp_path / "a copy.db"
    result = run("backup", str(copy), "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {
        "path": str(copy),
        "url": sqlite_url(copy),
        "bytes": copy.stat().st_size,
    }
    with open_storage(json.loads(result.stdout)["url"]) as storage:
        assert storage.session_exists("s")
    monkeypatch.setenv("MCP_SESSIONS_STORAGE", sqlite_url(copy))
    assert "kept" in run("ls").stdout


def test_a_file_is_replaced_only_by_force(manager: SessionManager, run: Run, tmp_path: Path) -> None:
    manager.create_session("s")
    copy = tmp_path / "copy.db"
    copy.write_text("mine", encoding="utf-8")
    refused = run("backup", str(copy))
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "--force" in refused.stderr
    assert copy.read_text(encoding="utf-8") == "mine"
    done = run("backup", str(copy), "--force")
    assert (done.exit_code, done.stdout) == (0, "")
    assert str(copy) in done.stderr


def test_the_store_itself_is_not_replaced_by_its_copy(manager: SessionManager, place: Path, run: Run) -> None:
    manager.create_session("s")
    assert run("backup", str(place), "--force").exit_code == 1
    assert manager.create_session("t").session_id == "t"


def test_without_a_store_there_is_nothing_to_copy(
    place: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("backup", str(tmp_path / "copy.db")).exit_code == 1
    monkeypatch.setenv("MCP_SESSIONS_STORAGE", "memory:")
    refused = run("backup", str(tmp_path / "copy.db"))
    assert (refused.exit_code, "memory" in refused.stderr) == (1, True)
    assert list(tmp_path.iterdir()) == []
