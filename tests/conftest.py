"""What every test stands on: one async backend, stores, and none of the settings of whoever runs the tests."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from mcp_sessions.manager import SessionManager
from mcp_sessions.server.ending import ENDING
from mcp_sessions.storage import SessionStorage
from tests.stores import KINDS, SetClock, open_store


def pytest_xdist_auto_num_workers() -> int:
    """Four more than there are processors: many tests wait for a process or a clock."""
    return (os.cpu_count() or 1) + 4


def pytest_configure() -> None:
    """Under `nohup`, or in the background of a script, we ignore signals; the programs that tests start do not."""
    for one in ENDING:
        if signal.getsignal(one) is signal.SIG_IGN:
            signal.signal(one, lambda *_: None)  # as good here, and a program begins without it
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else each of the hundreds of programs would be compiled anew


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None]:
    """Collect with no look through the objects that this makes, and which stay: half of its time, in each worker."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


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
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"):  # a test that wants one says so
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "USERPROFILE", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "APPDATA", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture(params=KINDS)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SessionStorage]:
    """A store of each kind, one after the other."""
    with open_store(request.param, tmp_path) as storage:
        yield storage


@pytest.fixture
def manager(storage: SessionStorage, clock: SetClock) -> Iterator[SessionManager]:
    """A manager over each kind of store, whose time stands still; a repeated call does not wait for long."""
    with SessionManager(storage, clock=clock, wait_s=0.05) as manager:
        yield manager
