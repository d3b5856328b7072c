"""What check() finds in a file that somebody else has written to: by a connection of its own, behind the store."""

from __future__ import annotations

import re
from pathlib import Path

import apsw
import pytest

from mcp_sessions.models import Alter, InvocationStatus, Query
from mcp_sessions.storage.sqlite import SQLiteSessionStorage
from mcp_sessions.storage.sqlite.checking import check
from mcp_sessions.storage.sqlite.connecting import File, read_only
from mcp_sessions.testing.making import called, does, head, read_all, said
from tests.storage.looking import faults

TAGS = "heads whose tags are not those that they are found by"
COUNTS = "heads that count less than is on record"
WORDS = "messages that search knows by other words"


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
        texts = ("Straße à l'été, 日本 and _snake_case_", "q" * 40_000 + " q", "again and AGAIN", "")
        storage.create(head("words"), does(messages=tuple(said(f"m{seq}", text) for seq, text in enumerate(texts))))
        storage.search("again", Query())  # lets all into the index
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


@pytest.mark.parametrize(
    ("columns", "values"),
    [
        ("search, rowid, words, scope", "'delete', id, '1', 's1 u61'"),
        ("search, rowid, words, scope", "'delete', id, '1', ''"),
        ("search, rowid, words, scope", "'delete', id, '', 'u61'"),
        ("rowid, words", "id, 'another'"),
    ],
)
def test_a_message_of_which_search_has_other_words_is_found_by_them(path: Path, columns: str, values: str) -> None:
    """It was enough that the index had something of a message."""
    statement = f"""
        CREATE TEMP TABLE kept AS SELECT * FROM search_docsize;
        INSERT INTO search ({columns}) SELECT {values} FROM messages WHERE sid = 1 AND seq = 1;
        REPLACE INTO search_docsize SELECT * FROM kept"""
    assert damaged(path, statement) == [f"{WORDS}: 1 or more: a"]


def test_words_that_search_has_of_another_message_are_found(path: Path) -> None:
    statement = """
        CREATE TEMP TABLE kept AS SELECT * FROM search_docsize;
        INSERT INTO search (search, rowid, words, scope)
        SELECT 'delete', id, 'again and', '' FROM messages WHERE message_id = 'm2';
        INSERT INTO search (rowid, words) SELECT id, 'again and' FROM messages WHERE message_id = 'm0';
        REPLACE INTO search_docsize SELECT * FROM kept"""
    assert damaged(path, statement) == [f"{WORDS}: 2 or more: words"]


def test_of_many_messages_of_which_search_has_other_words_a_few_sessions_are_named(path: Path) -> None:
    statement = "INSERT INTO search (rowid, words) SELECT id, 'another' FROM messages WHERE seq = 1"
    (found,) = damaged(path, statement)
    assert re.fullmatch(rf"{WORDS}: 9 or more: \w+(, \w+){{4}}", found)


def test_messages_of_a_deleted_session_may_still_be_in_the_index(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("""
        INSERT INTO purging SELECT sid, user_id, indexed FROM sessions WHERE session_id = 'a';
        DELETE FROM tags WHERE sid = 1;
        DELETE FROM sessions WHERE session_id = 'a'""").fetchall()
    connection.close()
    reader = read_only(File(path))
    found = [finding.what for finding in check(reader) if finding.level != "ok"]
    reader.close()
    assert found == ["deleted sessions whose rows are still being removed"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE search_data SET block = zeroblob(length(block)) WHERE id > 10",
        "DELETE FROM search_data",
        "DELETE FROM search_config",
    ],
)
def test_a_search_index_that_cannot_be_read_hides_nothing_else(path: Path, statement: str) -> None:
    """The check ended at it, and told the user who ran doctor to run doctor."""
    connection = apsw.Connection(str(path))
    connection.execute(f"{statement}; UPDATE sessions SET message_count = 7, indexed = 0 WHERE sid = 1").fetchall()
    connection.close()
    with SQLiteSessionStorage(path) as storage:
        found = {finding.what: finding for finding in storage.check()}
    assert found["the search index is damaged"].level == "fault"
    assert found["heads that miscount their messages"].detail == "1"
    assert found["contents"].detail.startswith("9 sessions, ")
    assert not [finding for finding in found.values() if "doctor" in finding.detail]
