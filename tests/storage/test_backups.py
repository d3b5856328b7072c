"""Backups of a store that is at work: what is in them, and what is left where one does not come to its end."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from mcp_sessions.errors import StorageError
from mcp_sessions.models import Want
from mcp_sessions.storage.sqlite import SQLiteSessionStorage
from tests.processes import Child, Children
from tests.storage import programs
from tests.storage.disks import Disk
from tests.storage.looking import faults, holds_what_was_told, made
from tests.storage.programs import add, new_session
from tests.stores import open_store


@pytest.mark.parametrize("kind", ["sqlite", "files"])
def test_what_three_writers_were_told_before_a_backup_is_in_it(kind: str, tmp_path: Path) -> None:
    copies = [tmp_path / f"copy {number}.db" for number in range(5)]
    told: list[dict[str, Any]] = []
    with open_store(kind, tmp_path) as storage, Children() as children:
        new_session(storage, "a")
        writers = [children.start(programs.append_on_and_on, kind, tmp_path, "process", "a", name) for name in "xyz"]
        for writer in writers:
            assert writer.hear() == "ready"
            writer.tell()
        for copy in copies:
            for writer in writers:
                told += [writer.hear() for _ in range(20)]
            storage.backup(copy)
            holds_what_was_told(copy, "a", told)
        for writer in writers:
            writer.kill()
            told += writer.rest()
        storage.backup(tmp_path / "last.db")
    holds_what_was_told(tmp_path / "last.db", "a", told)
    assert [faults(copy) for copy in (*copies, tmp_path / "last.db")] == [[]] * 6


def test_a_backup_does_not_wait_for_others_to_stop_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not of one moment, SQLite begins anew after each commit of another process."""
    monkeypatch.setattr("mcp_sessions.storage.sqlite.backup.PIECE", 1)
    path = made(tmp_path / "s.db", "a", "b")
    with SQLiteSessionStorage(path, durability="process") as storage, Children() as children:
        told = [add(storage, "b", "x" * 50_000) for _ in range(400)]
        writer = children.start(programs.append, str(path), "a", "x", 1000, "process")
        assert writer.hear() == "ready"
        writer.tell()
        writer.hear()
        storage.backup(tmp_path / "copy.db")
        writer.rest()
        writer.ends_well()
    holds_what_was_told(tmp_path / "copy.db", "b", told, exactly=True)
    with SQLiteSessionStorage(tmp_path / "copy.db") as copy:
        assert copy.read("a", Want()).metadata.last_seq < 1000
    assert faults(tmp_path / "copy.db") == []


def test_a_backup_is_its_users_alone_and_nothing_stands_beside_it(tmp_path: Path) -> None:
    with SQLiteSessionStorage(made(tmp_path / "store" / "s.db", "a")) as storage:
        (tmp_path / "copies").mkdir()
        storage.backup(tmp_path / "copies" / "copy.db")
    (copy,) = (tmp_path / "copies").iterdir()
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600


def test_a_killed_backup_puts_nothing_in_its_place(tmp_path: Path) -> None:
    path = made(tmp_path / "s.db", "a")
    copy = tmp_path / "copy.db"
    with Child(programs.back_up_and_stop, str(path), str(copy)) as child:
        assert child.hear() == "copied"
        child.kill()
    assert not copy.exists()
    with SQLiteSessionStorage(path) as storage:
        storage.backup(copy)
    assert faults(copy) == []


@pytest.mark.parametrize("kind", ["sqlite", "files", "memory"])
def test_what_a_killed_backup_left_goes_with_the_next_and_nothing_else(kind: str, tmp_path: Path) -> None:
    path, copy = made(tmp_path / "s.db", "a"), tmp_path / "copies" / "copy.db"
    others = [copy.with_name(name) for name in (".copy.db.notes", ".copy.db.mine.old")]
    for other in others:
        other.mkdir(parents=True)
    with Child(programs.back_up_and_stop, str(path), str(copy)) as dead:
        assert dead.hear() == "copied"
        dead.kill()
    (left,) = set(copy.parent.iterdir()) - set(others)
    with Child(programs.back_up_and_stop, str(path), str(copy)) as alive, open_store(kind, tmp_path) as storage:
        assert alive.hear() == "copied"
        assert not left.exists()
        (at_work,) = set(copy.parent.iterdir()) - set(others)
        storage.backup(copy)
        assert set(copy.parent.iterdir()) == {*others, copy, at_work}
    assert faults(copy) == []


def test_a_backup_onto_a_full_disk_leaves_nothing_there(tmp_path: Path) -> None:
    with Disk(tmp_path / "disk") as disk, SQLiteSessionStorage(made(tmp_path / "s.db", "a")) as storage:
        told = [add(storage, "a", "x" * 100_000) for _ in range(3)]
        disk.take_all_but(200_000)
        before = list(disk.path.iterdir())
        with pytest.raises(StorageError, match=r"copy\.db: the disk"):
            storage.backup(disk.path / "copy.db")
        assert list(disk.path.iterdir()) == before
        disk.give_back()
        told.append(add(storage, "a", "after"))
        storage.backup(disk.path / "copy.db")
        holds_what_was_told(disk.path / "copy.db", "a", told, exactly=True)


def test_a_backup_that_does_not_reach_the_disk_is_none(tmp_path: Path) -> None:
    path = made(tmp_path / "s.db", "a")
    copy = tmp_path / "copies" / "copy.db"
    copy.parent.mkdir()
    with Child(programs.back_up_unsynced, str(path), str(copy)) as child:
        assert str(copy) in child.hear()
        assert child.hear() == []
        child.ends_well()
    assert faults(copy) == []


@pytest.mark.parametrize("spoilt", [b"", b"SQLite format 3\0 and no more", b"x" * 5000])
def test_a_copy_that_is_damaged_can_be_replaced(tmp_path: Path, spoilt: bytes) -> None:
    (tmp_path / "copy.db").write_bytes(spoilt)
    with SQLiteSessionStorage(made(tmp_path / "s.db", "a")) as storage:
        storage.backup(tmp_path / "copy.db", replace=True)
    assert faults(tmp_path / "copy.db") == []


def test_no_copy_is_put_beside_the_log_of_another_store(tmp_path: Path) -> None:
    """SQLite would take the log for the copy's own."""
    (tmp_path / "copy.db-wal").write_bytes(b"x")
    with SQLiteSessionStorage(made(tmp_path / "s.db", "a")) as storage:
        with pytest.raises(StorageError, match=r"copy\.db-wal is there"):
            storage.backup(tmp_path / "copy.db", replace=True)
    assert not (tmp_path / "copy.db").exists()
