"""Programs that agents ask, and a codebase to ask about."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is searched for programs before all others."""
    folder = tmp_path / "bin"
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one directory in which clients may let agents work."""
    folder = tmp_path / "code"
    (folder / "lib").mkdir(parents=True)
    monkeypatch.setenv("MCP_SESSIONS_AGENT_ROOTS", str(folder))
    return folder
