"""An engine over each kind of store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mcp_sessions import SessionManager
from tests.stores import DURABLE, open_store
from tests.workflows.desk import Log, Runs


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture(params=DURABLE)
def run(request: pytest.FixtureRequest, tmp_path: Path, log: Log) -> Iterator[Runs]:
    """Runs workflows in a store of each durable kind, one after the other."""
    with SessionManager(open_store(request.param, tmp_path)) as manager:
        yield Runs(manager, log)


@pytest.fixture
def quick(log: Log, tmp_path: Path) -> Iterator[Runs]:
    """Runs workflows in memory, where the store plays no part."""
    with SessionManager(open_store("memory", tmp_path)) as manager:
        yield Runs(manager, log)
