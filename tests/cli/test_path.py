"""`mcp-sessions path`: where the sessions are kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Run

SECRET = "postgresql://ada:pass/w@rd@db.example/sessions?sslpassword=more"


def test_path_prints_the_file_and_makes_none(place: Path, run: Run) -> None:
    assert run("path").stdout == f"{place}\n"
    assert json.loads(run("path", "--json").stdout)["exists"] is False
    assert not place.parent.exists()


def test_path_json_says_whether_it_exists(place: Path, run: Run) -> None:
    place.parent.mkdir()
    place.touch()
    answer = json.loads(run("path", "--json").stdout)
    assert answer == {"url": f"sqlite://{place}", "path": str(place), "exists": True}


def test_a_store_that_is_no_file_is_its_url_without_the_password(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCP_SESSIONS_STORAGE", SECRET)
    shown = "postgresql://ada:***@db.example/sessions?sslpassword=***"
    assert run("path").stdout == f"{shown}\n"
    assert json.loads(run("path", "--json").stdout) == {"url": shown, "path": None, "exists": None}


def test_a_path_that_is_not_absolute_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCP_SESSIONS_STORAGE", "sqlite:notes.db")
    result = run("path")
    assert result.exit_code == 2
    assert result.stderr == "Error: 'sqlite:notes.db' has no absolute path; write sqlite:///abs/path.db.\n"


@pytest.mark.parametrize("command", ["ls", "doctor"])
def test_no_message_shows_a_password(run: Run, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("MCP_SESSIONS_STORAGE", SECRET.replace("postgresql", "nosuch"))
    result = run(command)
    assert result.exit_code != 0
    assert "nosuch:…" in result.output
    assert "w@rd" not in result.output
    assert "more" not in result.output.replace("once more", "")
