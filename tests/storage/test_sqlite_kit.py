"""Sessions in SQLite keep every promise, at both levels of durability, also where the system offers less."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

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


@pytest.mark.parametrize("rare", [0, 2, 1000])
def test_a_listing_is_the_same_however_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rare: int) -> None:
    """From a list of few sessions, or the newest ones tried in turn."""
    monkeypatch.setattr("mcp_sessions.storage.sqlite.listing.RARE", rare)
    names = [f"{letter}{n}" for n in range(3) for letter in "abc"]
    with SQLiteSessionStorage(tmp_path / "sessions.db") as storage:
        for second, name in enumerate(names):
            tags = [name[0].upper(), "odd" if second % 2 else "even"]
            storage.create(head(name, second=second, tags=tags))

        def found(**fields: Any) -> list[str]:
            query = Query(**fields, limit=2)
            return [head.session_id for head in joined(lambda cursor: storage.find(query, cursor))]

        assert found(id_prefix="b") == ["b2", "b1", "b0"]
        assert found(id_prefix="b", tags=("even",)) == ["b1"]
        assert found(tags=("A", "B"), reverse=True) == ["a0", "b0", "a1", "b1", "a2", "b2"]
        assert found(tags=("A", "odd"), match="all", order="created") == ["a1"]


@pytest.mark.parametrize("part", PARTS)
def test_the_package_imports_and_passes_the_kit_where_there_is_none(part: str) -> None:
    # All of it takes long, and most of it knows nothing of the system: handles, processes and closing do.
    kit = TestSQLite if full_counts() else TestSQLiteThatIsNotSyncedAtEachCommit
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
