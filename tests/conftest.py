"""What every test stands on: one async backend, and none of the settings of whoever runs the tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """asyncio, unless a test asks for trio by a parameter of its own."""
    return "asyncio"


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting or `.env` of this machine, and a home of its own: no test touches the user's sessions."""
    for name in os.environ:
        if name.upper().startswith(("MCP_SESSIONS_", "WORKFLOW_SESSION_")):
            monkeypatch.delenv(name)
    for name in ("HOME", "USERPROFILE", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "APPDATA", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
