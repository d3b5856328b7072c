"""One SQLite store, and what goes wrong around it: full disks, missing, foreign and newer files, failing syncs.

Everything is real: small file systems, limits of the kernel, files taken away. Syncs fail in a VFS that stands
between SQLite and the disk.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from mcp_sessions.errors import SchemaChangedError, SessionNotFoundError, StorageClosedError, StorageError
from mcp_sessions.models import Change, Query, Want
from mcp_sessions.storage.sqlite import SQLiteSessionStorage, connecting
from mcp_sessions.testing.making import head, joined, said, say
from tests.processes import Child
from tests.storage import programs
from tests.storage.disks import Disk
from tests.storage.looking import faults, holds_what_was_told, made, rows
from tests.storage.programs import AT, add


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk of one megabyte, or what comes nearest."""
    with Disk(tmp_path / "disk") as disk:
        yield disk


def fill(storage: SQLiteSessionStorage, told: list[dict[str, Any]]) -> StorageError:
    """Write until the disk is full; what it says then."""
    while True:
        try:
            told.append(add(storage, "a", "x" * 3000))
        except StorageError as error:
            return error


def test_a_full_disk_is_a_clear_error_and_the_store_goes_on_when_there_is_room(disk: Disk) -> None:
    path = made(disk.path / "s.db", "a")
    told: list[dict[str, Any]] = []
    with SQLiteSessionStorage(path) as storage:
        for _ in range(2):
            disk.take_all_but(200_000)
            error = fill(storage, told)
            assert "Nothing of this call was written" in str(error)
            assert isinstance(error.__cause__, apsw.Error)
            assert storage.read("a", Want()).metadata.last_seq == len(told)
            with pytest.raises(StorageError):
                add(storage, "a", "x" * 300_000)
            disk.give_back()
            told.append(add(storage, "a", "there is room again"))
        disk.take_all_but(100_000)
        fill(storage, told)
    with SQLiteSessionStorage(path) as storage:
        assert storage.read("a", Want()).metadata.last_seq == len(told)
    disk.give_back()
    with SQLiteSessionStorage(path) as storage:
        told.append(add(storage, "a", "a new handle"))
    holds_what_was_told(path, "a", told, exactly=True)
    assert faults(path) == []


def found(storage: SQLiteSessionStorage, text: str, **query: Any) -> list[tuple[str, int]]:
    """All that a search finds, page by page."""
    hits = joined(lambda cursor: storage.search(text, Query(limit=2, **query), cursor))
    return [(hit.session_id, hit.seq) for hit in hits]


def test_what_is_committed_is_found_on_a_disk_that_takes_no_index(disk: Disk) -> None:
    """A search failed, for it lets new messages into the index first."""
    with SQLiteSessionStorage(made(disk.path / "s.db", "a")) as storage:
        storage.create(head("b", user_id="bo"), say(said("1", "Word of bo"), said("2", "other", second=2)))
        add(storage, "a", "a word, indexed")
        assert len(found(storage, "word")) == 2
        storage.commit("b", say(said("3", "wörd, too late", second=3), said("4", "a wordy one"), second=4))
        add(storage, "a", "the last word")
        disk.take_all_but(100_000)
        fill(storage, [])
        asked: list[tuple[str, dict[str, Any]]] = [
            *(("word", {}), ("word", {"reverse": True}), ("WORD late", {}), ("wordy", {}), ("nothing", {})),
            *(("word", {"as_user": "bo"}), ("word", {"ids": ("a",)}), ("word", {"ids": ("none",)})),
        ]
        then = [found(storage, text, **query) for text, query in asked]
        assert sorted(then[0]) == [("a", 1), ("a", 2), ("b", 1), ("b", 3)]
        assert rows(storage, "sessions WHERE last_seq > indexed")
        disk.give_back()
        assert then == [found(storage, text, **query) for text, query in asked]
        assert not rows(storage, "sessions WHERE last_seq > indexed")


def test_where_the_index_lacks_too_much_a_search_says_so(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_sessions.storage.sqlite.storage.MOST_SCANNED", 2)
    with SQLiteSessionStorage(made(disk.path / "s.db", "a")) as storage:
        for number in range(3):
            add(storage, "a", f"word {number}")
        disk.take_all_but(100_000)
        fill(storage, [])
        with pytest.raises(StorageError, match=r"More than 2 messages are not in the search index yet: .*s\.db: "):
            storage.search("word", Query())
        disk.give_back()
        assert len(found(storage, "word")) == 3


def test_a_store_is_checked_on_a_disk_that_takes_nothing(disk: Disk) -> None:
    with SQLiteSessionStorage(made(disk.path / "s.db", "a")) as storage:
        add(storage, "a", "word")
        disk.take_all_but(100_000)
        fill(storage, [])
        findings = {finding.what: finding for finding in storage.check()}
        assert findings["integrity"].level == "ok"
        assert findings["contents"].detail.startswith("1 sessions, ")
        (fault,) = [finding for finding in findings.values() if finding.level == "fault"]
        assert fault.what == "search index not checked"
        assert f"{storage.path}: " in fault.detail
        disk.give_back()
        assert {finding.level for finding in storage.check()} == {"ok"}


def test_of_many_writers_on_a_disk_that_fills_each_is_told_the_truth(disk: Disk) -> None:
    path = made(disk.path / "s.db", *(f"s{number}" for number in range(8)))
    told: dict[str, list[dict[str, Any]]] = {f"s{number}": [] for number in range(8)}
    refused: list[str] = []

    def write(session_id: str) -> None:
        for number in range(150):
            try:
                told[session_id].append(add(storage, session_id, f"{session_id} {number} " + "x" * 2000 * (number % 4)))
            except StorageError as error:
                refused.append(str(error))

    disk.take_all_but(400_000)
    with SQLiteSessionStorage(path) as storage:
        threads = [threading.Thread(target=write, args=(session_id,)) for session_id in told]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert refused
        disk.give_back()
        for session_id, entries in told.items():
            entries.append(add(storage, session_id, "after"))
    for session_id, entries in told.items():
        holds_what_was_told(path, session_id, entries, exactly=True)
    assert faults(path) == []


def test_a_process_that_may_write_no_larger_files_gets_a_clear_error_and_then_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with Child(programs.within_file_size, str(path), 1_500_000) as child:
        said = child.hear()
        child.ends_well()
    assert len(said["refusals"]) == 3
    for refusal in said["refusals"]:
        assert refusal.startswith("StorageError: ")
        assert "Nothing of this call was written" in refusal
    assert said["told"][-1]["seq"] == len(said["told"]) > 10
    holds_what_was_told(path, "a", said["told"], exactly=True)
    assert faults(path) == []


def test_a_store_cannot_be_made_on_a_full_disk_but_is_once_there_is_room(disk: Disk) -> None:
    disk.take_all_but(20_000)
    with pytest.raises(StorageError):
        SQLiteSessionStorage(disk.path / "s.db")
    disk.give_back()
    made(disk.path / "s.db", "a")
    assert faults(disk.path / "s.db") == []


def test_a_file_that_was_removed_while_open_takes_no_more_writes(tmp_path: Path) -> None:
    path = made(tmp_path / "s.db", "a")
    with SQLiteSessionStorage(path) as storage:
        add(storage, "a", "before")
        path.unlink()
        for _ in range(2):
            with pytest.raises(StorageError, match="was removed or replaced while it was open"):
                add(storage, "a", "into nothing")
    assert not path.exists()


def test_a_file_that_was_replaced_while_open_is_left_to_itself(tmp_path: Path) -> None:
    path, other = made(tmp_path / "s.db", "a"), made(tmp_path / "other.db", "b")
    with SQLiteSessionStorage(path) as storage:
        add(storage, "a", "before")
        path.rename(tmp_path / "moved.db")
        other.rename(path)
        for ending in ("-wal", "-shm"):
            path.with_name("s.db" + ending).rename(tmp_path / ("moved.db" + ending))
        before = path.read_bytes()
        with pytest.raises(StorageError, match="was removed or replaced while it was open"):
            add(storage, "a", "into the wrong file")
        with pytest.raises(SessionNotFoundError), SQLiteSessionStorage(path) as another:
            another.read("a", Want())
        threads = [threading.Thread(target=read_quietly, args=(storage,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert path.read_bytes() == before
    assert faults(path) == []


def read_quietly(storage: SQLiteSessionStorage) -> None:
    """Read what was opened, or be refused; never what stands there now."""
    try:
        assert storage.read("a", Want()).metadata.last_seq == 1
    except StorageError as error:
        assert "removed or replaced" in str(error)  # noqa: PT017 - either is fine


def test_a_failed_write_followed_by_a_removal_makes_no_new_file(disk: Disk) -> None:
    path = made(disk.path / "s.db", "a")
    with SQLiteSessionStorage(path) as storage:
        disk.take_all_but(50_000)
        fill(storage, [])
        disk.give_back()
        path.unlink()
        with pytest.raises(StorageError, match="was removed or replaced"):
            add(storage, "a", "into nothing")
    assert not path.exists()


def test_the_folder_taken_away_while_open_is_a_clear_error(tmp_path: Path) -> None:
    path = made(tmp_path / "folder" / "s.db", "a")
    with SQLiteSessionStorage(path) as storage:
        (tmp_path / "folder").rename(tmp_path / "elsewhere")
        with pytest.raises(StorageError, match="was removed or replaced"):
            add(storage, "a", "into nothing")
        with pytest.raises(StorageError):
            storage.create(storage.read("a", Want()).metadata)


def test_a_gate_that_cannot_be_opened_is_told_to_each_caller(tmp_path: Path) -> None:
    path = made(tmp_path / "s.db", "a")
    gate = path.with_name("s.db-gate")
    gate.unlink()
    gate.mkdir()
    with SQLiteSessionStorage(path) as storage:
        for _ in range(2):
            with pytest.raises(StorageError, match="cannot be opened for writing"):
                add(storage, "a", "refused")
        gate.rmdir()
        assert add(storage, "a", "accepted")["seq"] == 1


def test_a_read_only_disk_is_a_clear_error_before_and_after_opening(disk: Disk) -> None:
    path = made(disk.path / "s.db", "a")
    disk.read_only()
    before = path.read_bytes()
    with pytest.raises(StorageError):
        SQLiteSessionStorage(path)
    with pytest.raises(StorageError):
        SQLiteSessionStorage(disk.path / "new.db")
    with pytest.raises(StorageError):
        SQLiteSessionStorage(disk.path / "new" / "new.db")
    assert path.read_bytes() == before
    disk.writable()
    with SQLiteSessionStorage(path) as storage:
        add(storage, "a", "before")
    holds_what_was_told(path, "a", [])


def test_a_file_that_cannot_be_changed_is_refused_when_it_is_opened(disk: Disk) -> None:
    path = made(disk.path / "s.db", "a")
    with disk.read_only_file(path), pytest.raises(StorageError, match=r"read-only|cannot be opened for writing"):
        SQLiteSessionStorage(path)
    assert faults(path) == []


def test_a_folder_or_a_file_in_the_way_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "s.db").mkdir()
    (tmp_path / "file").write_text("a file", encoding="utf-8")
    for path in (tmp_path / "s.db", tmp_path / "file" / "s.db", tmp_path / ("n" * 300)):
        with pytest.raises(StorageError, match="cannot be opened for writing") as caught:
            SQLiteSessionStorage(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"not a database, " * 300, b"short", b"SQLite format 3\0" + b"\xff" * 4080])
def test_a_file_that_is_not_sqlite_is_refused_and_not_touched(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "s.db"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"not a SQLite file|damaged"):
        SQLiteSessionStorage(path)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_a_sqlite_file_of_another_program_is_refused_and_not_touched(tmp_path: Path, journal: str) -> None:
    path = tmp_path / "s.db"
    connection = apsw.Connection(str(path))
    connection.execute(
        f"PRAGMA journal_mode={journal}; CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)"
    ).fetchall()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StorageError, match="of another program"):
        SQLiteSessionStorage(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_another_programs_file_that_is_in_use_keeps_its_log(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA journal_mode=wal; CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)").fetchall()
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir() if not file.name.endswith("-shm")}
    with pytest.raises(StorageError, match="of another program"):
        SQLiteSessionStorage(path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir() if not file.name.endswith("-shm")} == before
    assert connection.execute("SELECT x FROM theirs").fetchall() == [(1,)]
    connection.close()


def set_version(path: Path, version: int) -> None:
    connection = apsw.Connection(str(path))
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.execute(f"PRAGMA user_version={version}")
    connection.close()


def test_a_newer_store_is_refused_and_not_touched(tmp_path: Path) -> None:
    path = made(tmp_path / "s.db", "a")
    set_version(path, connecting.VERSION + 1)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir() if not file.name.endswith("-shm")}
    with pytest.raises(SchemaChangedError, match=f"has store version {connecting.VERSION + 1}.*Upgrade"):
        SQLiteSessionStorage(path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir() if not file.name.endswith("-shm")} == before


def test_a_store_that_becomes_newer_while_open_takes_no_more_writes(tmp_path: Path) -> None:
    path = made(tmp_path / "s.db", "a")
    with SQLiteSessionStorage(path) as storage:
        told = [add(storage, "a", "before")]
        set_version(path, connecting.VERSION + 1)
        for _ in range(2):
            with pytest.raises(SchemaChangedError, match="Restart this process"):
                add(storage, "a", "refused")
        assert storage.read("a", Want()).metadata.last_seq == 1
        set_version(path, connecting.VERSION)
        told.append(add(storage, "a", "after"))
    holds_what_was_told(path, "a", told, exactly=True)


def test_a_commit_whose_sync_fails_is_refused_and_is_not_there_later(tmp_path: Path) -> None:
    path = made(tmp_path / "s.db", "a")
    with Child(programs.with_failing_syncs, str(path)) as child:
        said = child.hear()
        child.ends_well()
    assert len(said["refusals"]) == 3
    assert all("the disk refused" in refusal for refusal in said["refusals"])
    holds_what_was_told(path, "a", said["told"], exactly=True)
    assert faults(path) == []


def test_what_fails_in_a_group_takes_nothing_else_with_it(tmp_path: Path) -> None:
    path = made(tmp_path / "s.db", "a")
    told: list[dict[str, Any]] = []
    missing: list[SessionNotFoundError] = []
    with SQLiteSessionStorage(path) as storage, Child(programs.hold_gate, str(path)) as holder:
        assert holder.hear() == "inside"

        def write(number: int) -> None:
            if number % 2:
                with pytest.raises(SessionNotFoundError) as caught:
                    add(storage, "missing", "refused")
                missing.append(caught.value)
            else:
                told.append(add(storage, "a", f"kept {number}"))

        threads = [threading.Thread(target=write, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        writer = storage._here().writer
        with writer._lock:
            writer._wake.wait_for(lambda: len(writer._queue) == 20)
        holder.tell()
        told.append(holder.hear())
        for thread in threads:
            thread.join()
        holder.ends_well()
    assert len(missing) == 10
    holds_what_was_told(path, "a", told, exactly=True)


@pytest.mark.parametrize(
    "error", [MemoryError(), SystemExit(3), KeyboardInterrupt(), OSError("odd"), ValueError("odd")]
)
def test_whatever_a_piece_of_work_raises_reaches_its_caller_and_the_writer_goes_on(
    tmp_path: Path, error: BaseException
) -> None:
    path = made(tmp_path / "s.db", "a")

    def work(_: Any) -> None:
        raise error

    with SQLiteSessionStorage(path) as storage:
        with pytest.raises((type(error), StorageError)):
            storage._here().writer.run(work)
        assert add(storage, "a", "after")["seq"] == 1
    assert faults(path) == []


def test_a_closed_storage_says_so_and_closes_twice(tmp_path: Path) -> None:
    path = made(tmp_path / "s.db", "a")
    storage = SQLiteSessionStorage(path)
    add(storage, "a", "before")
    storage.close()
    storage.close()
    for act in (
        lambda: add(storage, "a", "refused"),
        lambda: storage.read("a", Want()),
        lambda: storage.find(Query()),
        lambda: storage.delete("a", Change(at=AT)),
        storage.owner,
        storage.check,
    ):
        with pytest.raises(StorageClosedError):
            act()


def test_calls_that_meet_a_close_are_done_or_refused(tmp_path: Path) -> None:
    for number in range(10):
        path = made(tmp_path / f"{number}.db", "a")
        storage = SQLiteSessionStorage(path, durability="process")
        told: list[dict[str, Any]] = []
        begun = threading.Barrier(9)
        threads = [threading.Thread(target=write_until_closed, args=(storage, begun, told)) for _ in range(8)]
        for thread in threads:
            thread.start()
        begun.wait()
        storage.close()
        for thread in threads:
            thread.join()
        holds_what_was_told(path, "a", told, exactly=True)


def write_until_closed(storage: SQLiteSessionStorage, begun: threading.Barrier, told: list[dict[str, Any]]) -> None:
    told.append(add(storage, "a", "before"))
    begun.wait()
    try:
        while True:
            told.append(add(storage, "a", "on and on"))
            storage.read("a", Want(messages=3))
    except StorageClosedError:
        pass
