"""Sessions in SQLite keep every promise, at both levels of durability, also where the system offers less."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mcp_sessions.models import Query
from mcp_sessions.storage import SessionStorage, SQLiteSessionStorage
from mcp_sessions.testing import StorageKit
from mcp_sessions.testing.kit_handles import Handles
from mcp_sessions.testing.making import does, head, hits, joined, said, say
from tests.processes import ROOT, full_counts
from tests.storage.without import PARTS


class TestSQLite(StorageKit):
    def open(self, folder: Path) -> SessionStorage:
        return SQLiteSessionStorage(folder / "sessions.db")

    def open_quickly(self, folder: Path) -> SessionStorage:
        return SQLiteSessionStorage(folder / "sessions.db", durability="process")


class TestSQLiteThatIsNotSyncedAtEachCommit(Handles):
    def open(self, folder: Path) -> SessionStorage:
        return SQLiteSessionStorage(folder / "sessions.db", durability="process")


@pytest.mark.parametrize("part", PARTS)
def test_the_package_imports_and_passes_the_kit_where_there_is_none(part: str) -> None:
    # What holds locks is asked for everything. Of the others nothing is used here, as a few tests would tell.
    kit = TestSQLite if part == "fcntl" or full_counts() else TestSQLiteThatIsNotSyncedAtEachCommit
    tests = f"{__file__}::{kit.__name__}"
    command = [sys.executable, "-m", "tests.storage.without", part, tests, "-k", "not random"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"modules without {part}" in done.stdout


def test_a_search_before_a_deleted_session_is_removed_whole_leaves_the_index_whole(tmp_path: Path) -> None:
    """The words that waited for the index were taken from the list, and later removed from where they never were."""
    with SQLiteSessionStorage(tmp_path / "sessions.db") as storage:
        storage.create(head("gone"), say(said("m", "word")))
        storage.create(head("kept"), say(said("m", "word", second=2)))
        storage._write(lambda db: storage._writing.delete(db, "gone", does()))
        assert hits(storage, "word") == [("kept", 1)]
        while storage._write(storage._writing.purge):
            pass
        assert [finding for finding in storage.check() if finding.level != "ok"] == []
        assert hits(storage, "word") == [("kept", 1)]


def test_a_full_millisecond_goes_on_in_the_next_one(tmp_path: Path) -> None:
    messages = tuple(said(f"m{n}", "word") for n in range(5000))
    with SQLiteSessionStorage(tmp_path / "sessions.db") as storage:
        storage.create(head(), say(*messages))
        storage.commit("s", say(said("next", "word", second=1.001)))
        found = joined(lambda cursor: storage.search("word", Query(limit=1000), cursor))
        assert sorted(hit.seq for hit in found) == list(range(1, 5002))
        assert found[0].seq == 5001
