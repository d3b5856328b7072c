"""What check() finds in a file that somebody else has written to: by a connection of its own, behind the store."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from mcp_sessions.models import Alter, InvocationStatus
from mcp_sessions.storage.sqlite import SQLiteSessionStorage
from mcp_sessions.testing.making import called, does, head, read_all, said
from tests.storage.looking import faults

TAGS = "heads whose tags are not those that they are found by"
COUNTS = "heads that count less than is on record"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Seven sessions, with all that makes a head differ from its rows in a sound store."""
    path = tmp_path / "s.db"
    with SQLiteSessionStorage(path) as storage:
        for name in "abcdefg":
            work = called("w", kind="work", cost=0.3, model="m")
            failed = called("f", status=InvocationStatus.ERROR, scope="user", user_id=name)
            running = called("r", status=InvocationStatus.RUNNING, owner="nobody")
            usage = called("u", kind="usage", model="m", cost=0.1)
            ours = called("s", kind="session", cost=9.0, status=InvocationStatus.ERROR)
            storage.create(
                head(name, user_id=name, tags=["x", "y", "y", "é\u2028"]),
                does(messages=(said("1"), said("2")), records=(work, failed, running, usage, ours)),
            )
            storage.commit(name, does(retract=((2, 2),), alter=Alter(add_tags=("z",), remove_tags=("y",))))
        storage.fork("d", None, head("child", tags=["x"]), does())
        again = called("f", scope="user", user_id="a", attempt=2, second=5)
        storage.commit("child", does(records=(again,)))  # what failed in one session went well in another
        view = read_all(storage, "c")
        done = [record for record in view.records if record.status is not InvocationStatus.RUNNING]
        storage.delete("c", does())
        storage.restore(view.model_copy(update={"records": done[1:]}))
    return path


def damaged(path: Path, statement: str) -> list[str]:
    """What is found after a statement that no store would run."""
    connection = apsw.Connection(str(path))
    connection.execute(statement).fetchall()
    connection.close()
    return faults(path)


def test_what_a_sound_store_may_hold_is_no_fault(path: Path) -> None:
    assert faults(path) == []


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("DELETE FROM tags WHERE tag = 'x'", f"{TAGS}: 8: a, b, c, child, d"),
        ("DELETE FROM tags WHERE tag = 'z' AND sid = 1", f"{TAGS}: 1: a"),
        ("INSERT INTO tags SELECT 'more', sid FROM sessions WHERE session_id IN ('a', 'b')", f"{TAGS}: 2: a, b"),
        ("UPDATE sessions SET tags = '[\"other\"]' WHERE session_id = 'g'", f"{TAGS}: 1: g"),
        ("UPDATE sessions SET tags = '[]' WHERE session_id = 'child'", f"{TAGS}: 1: child"),
        ("UPDATE sessions SET total_invocations = 1 WHERE session_id = 'd'", f"{COUNTS}: 1: d"),
        ("UPDATE sessions SET failed_invocations = 0 WHERE session_id IN ('e', 'g')", f"{COUNTS}: 2: e, g"),
        ("UPDATE sessions SET estimated_cost = 399999999 WHERE session_id = 'f'", f"{COUNTS}: 1: f"),
    ],
)
def test_a_head_that_disagrees_with_its_rows_is_named(path: Path, statement: str, found: str) -> None:
    assert damaged(path, statement) == [found]
