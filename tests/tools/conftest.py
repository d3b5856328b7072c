"""The tools, over memory and over SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mcp_sessions import SessionManager
from tests.stores import KINDS, SetClock, open_store
from tests.tools.desk import Desk


@pytest.fixture(params=KINDS[:2])  # that the kinds do not differ is what the kit shows
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Desk]:
    clock = SetClock()
    with SessionManager(open_store(request.param, tmp_path), clock=clock) as manager:
        yield Desk(manager, clock)


@pytest.fixture
def prepared(desk: Desk) -> Desk:
    """With session "a" in it."""
    desk.prepare()
    return desk
