"""One SQLite store, many real processes: started at once, suspended, forked, and left without a goodbye."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import apsw
import pytest

from mcp_sessions._os import FileLock
from mcp_sessions.errors import StorageBusyError, StorageError
from mcp_sessions.models import Change, Query, Want
from mcp_sessions.storage.sqlite import SQLiteSessionStorage
from tests.processes import Child, Children, full_counts, until
from tests.storage import programs
from tests.storage.looking import deletion, faults, holds_what_was_told, made, until_nothing_is_purged
from tests.storage.programs import AT, add, new_session, saying


def test_eight_processes_that_open_a_new_file_at_the_same_moment_all_succeed(tmp_path: Path) -> None:
    with Children() as children:
        writers = {name: children.start(programs.open_and_write, name, 5) for name in "abcdefgh"}
        for writer in writers.values():
            assert writer.hear() == "ready"
        for number in range(60 if full_counts() else 6):
            path = tmp_path / f"round {number}" / "s.db"
            for writer in writers.values():
                writer.tell(str(path))
            told = {name: writer.hear() for name, writer in writers.items()}
            assert all([entry["seq"] for entry in entries] == [1, 2, 3, 4, 5] for entries in told.values())
            with SQLiteSessionStorage(path) as storage:
                assert {head.session_id: head.last_seq for head in storage.find(Query()).items} == dict.fromkeys(
                    told, 5
                )
        for name, entries in told.items():
            holds_what_was_told(path, name, entries, exactly=True)
        assert faults(path) == []
        for writer in writers.values():
            writer.tell()
            writer.ends_well()


@pytest.mark.parametrize("without", [None, "fcntl"])
def test_of_four_processes_with_a_hundred_appends_each_none_is_lost_or_refused(
    tmp_path: Path, without: str | None
) -> None:
    path = made(tmp_path / "s.db", "a")
    told: list[dict[str, Any]] = []
    with Children() as children:
        writers = [
            children.start(programs.without, without, "append", str(path), "a", name, 100)
            if without
            else children.start(programs.append, str(path), "a", name, 100)
            for name in "wxyz"
        ]
        for writer in writers:
            assert writer.hear() == "ready"
        for writer in writers:
            writer.tell()
        for writer in writers:
            told += writer.rest()
            writer.ends_well()
    assert sorted(entry["seq"] for entry in told) == list(range(1, 401))
    holds_what_was_told(path, "a", told, exactly=True)
    assert faults(path) == []


def test_while_a_suspended_process_holds_the_gate_others_are_refused_by_its_name_and_read_on(tmp_path: Path) -> None:
    path = made(tmp_path / "s.db", "a")
    storage = SQLiteSessionStorage(path, busy_timeout_s=1.0)
    told = [add(storage, "a", "before")]
    refused: list[StorageBusyError] = []

    def try_to_write() -> None:
        with pytest.raises(StorageBusyError) as caught:
            add(storage, "a", "given up")
        refused.append(caught.value)

    with Child(programs.hold_gate, str(path)) as holder:
        assert holder.hear() == "inside"
        holder.suspend()
        threads = [threading.Thread(target=try_to_write) for _ in range(3)]
        for thread in threads:
            thread.start()
        assert storage.read("a", Want(messages=5)).messages[0].content == "before"
        assert storage.find(Query()).items[0].last_seq == 1
        for thread in threads:
            thread.join()
        assert len(refused) == 3
        for error in refused:
            assert error.holder.startswith(f"process {holder.pid} (")
            assert f"held by process {holder.pid}" in str(error)
        assert storage.read("a", Want()).metadata.last_seq == 1
        holder.go_on()
        holder.tell()
        told.append(holder.hear())
        told.append(add(storage, "a", "after"))
        holder.ends_well()
    storage.close()
    holds_what_was_told(path, "a", told, exactly=True)


@pytest.mark.parametrize("without", [None, "fcntl"])
def test_close_and_open_do_not_hang_while_a_suspended_process_holds_the_gate(
    tmp_path: Path, without: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made(tmp_path / "s.db", "a")
    if without:
        monkeypatch.setattr(f"mcp_sessions._os.{without}", None)
    written = SQLiteSessionStorage(path, busy_timeout_s=1.0)
    told = [add(written, "a", "before")]
    untouched = SQLiteSessionStorage(path, busy_timeout_s=1.0)
    started = threading.active_count()
    with Child(programs.hold_gate, str(path)) as holder:
        assert holder.hear() == "inside"
        holder.suspend()
        with pytest.raises(StorageBusyError):
            add(written, "a", "given up")
        written.close()
        untouched.close()
        with SQLiteSessionStorage(path, busy_timeout_s=1.0) as another:
            assert another.read("a", Want()).metadata.last_seq == 1
        holder.go_on()
        holder.tell()
        told.append(holder.hear())
        holder.ends_well()
    for thread in threading.enumerate():
        if thread.name == "mcp-sessions-writer":
            thread.join()
    assert threading.active_count() <= started
    holds_what_was_told(path, "a", told, exactly=True)


def test_closing_leaves_the_log_alone_while_another_holds_the_gate(tmp_path: Path) -> None:
    path = made(tmp_path / "s.db", "a")
    storage = SQLiteSessionStorage(path)
    told = [add(storage, "a", f"{number}") for number in range(20)]
    log = path.with_name("s.db-wal")
    gate = FileLock(path.with_name("s.db-gate"))
    assert gate.try_acquire()
    size = log.stat().st_size
    storage.close()
    assert log.stat().st_size == size > 0
    gate.close()
    SQLiteSessionStorage(path).close()
    assert not log.exists() or log.stat().st_size == 0
    holds_what_was_told(path, "a", told, exactly=True)


def test_callers_at_a_gate_that_another_holds_can_be_given_up(tmp_path: Path) -> None:
    path = made(tmp_path / "s.db", "a")
    with SQLiteSessionStorage(path) as storage, Child(programs.hold_gate, str(path)) as holder:
        assert holder.hear() == "inside"
        with ThreadPoolExecutor(5) as pool:
            waiting = [pool.submit(add, storage, "a", "given up") for _ in range(5)]
            writer = storage._here().writer
            until(lambda: writer._at_gate and len(writer._queue) == 5)
            storage.give_up()
            for call in waiting:
                with pytest.raises(StorageError, match=f"is held by process {holder.pid} .* Nothing was written"):
                    call.result()
        with pytest.raises(StorageError):
            add(storage, "a", "too late")
        assert storage.read("a", Want()).metadata.last_seq == 0
        holder.tell()
        told = [holder.hear()]
        holder.ends_well()
    holds_what_was_told(path, "a", told, exactly=True)


def test_callers_at_a_lock_of_a_foreign_program_can_be_given_up(tmp_path: Path) -> None:
    path = made(tmp_path / "s.db", "a")
    with SQLiteSessionStorage(path) as storage, Child(programs.hold_lock, str(path)) as holder:
        assert holder.hear() == "locked"
        with ThreadPoolExecutor(5) as pool:
            waiting = [pool.submit(add, storage, "a", "given up") for _ in range(5)]
            writer = storage._here().writer
            until(lambda: writer._waiting_since > 0)
            storage.give_up()
            for call in [*waiting, pool.submit(add, storage, "a", "too late")]:
                with pytest.raises(StorageError, match=r"is held by another process, and .* Nothing was written"):
                    call.result()
        assert storage.read("a", Want()).metadata.last_seq == 0
        holder.tell()
        holder.ends_well()
        told = [add(storage, "a", "nobody is in the way")]
    holds_what_was_told(path, "a", told, exactly=True)


def test_who_comes_to_the_gate_once_waiting_is_given_up_is_refused_at_once(tmp_path: Path) -> None:
    path = made(tmp_path / "s.db", "a")
    with SQLiteSessionStorage(path) as storage:
        storage.give_up()
        with Child(programs.hold_gate, str(path)) as holder:
            assert holder.hear() == "inside"
            with pytest.raises(StorageError, match=f"is held by process {holder.pid} .* Nothing was written"):
                add(storage, "a", "given up")
            holder.tell()
            told = [holder.hear()]
            holder.ends_well()
        told.append(add(storage, "a", "nobody is in the way"))
    holds_what_was_told(path, "a", told, exactly=True)


def test_close_waits_for_callers_that_may_still_get_through(tmp_path: Path) -> None:
    path = made(tmp_path / "s.db", "a")
    storage = SQLiteSessionStorage(path)
    told: list[dict[str, Any]] = [add(storage, "a", "before")]
    with Child(programs.hold_gate, str(path)) as holder:
        assert holder.hear() == "inside"
        caller = threading.Thread(target=lambda: told.append(add(storage, "a", "waiting")))
        caller.start()
        writer = storage._here().writer
        with writer._lock:
            writer._wake.wait_for(lambda: bool(writer._queue))
        closer = threading.Thread(target=storage.close)
        closer.start()
        holder.tell()
        told.append(holder.hear())
        closer.join()
        caller.join()
        holder.ends_well()
    holds_what_was_told(path, "a", told, exactly=True)


def test_the_waiting_time_is_half_a_minute_unless_said_otherwise(tmp_path: Path) -> None:
    path = made(tmp_path / "s.db", "a")
    with SQLiteSessionStorage(path) as storage:
        assert storage._file.busy_timeout_s == 30.0
        if full_counts():
            with Child(programs.hold_gate, str(path)) as holder:
                assert holder.hear() == "inside"
                holder.suspend()
                with pytest.raises(StorageBusyError, match="for 30 s"):
                    add(storage, "a", "given up")


def test_a_foreign_lock_on_the_file_is_waited_for_and_then_named(tmp_path: Path) -> None:
    path = made(tmp_path / "s.db", "a")
    with SQLiteSessionStorage(path, busy_timeout_s=0.2) as storage:
        told = [add(storage, "a", "before")]
        with Child(programs.hold_lock, str(path)) as holder:
            assert holder.hear() == "locked"
            with pytest.raises(StorageBusyError):
                add(storage, "a", "refused")
            holder.tell()
            holder.ends_well()
        told.append(add(storage, "a", "after"))
    holds_what_was_told(path, "a", told, exactly=True)


def test_parent_and_forked_children_go_on_with_the_same_storage(tmp_path: Path) -> None:
    path = made(tmp_path / "s.db", "a")
    told_by_children: list[str] = []
    with Child(programs.fork_and_go_on, f"sqlite://{path}", 12 if full_counts() else 6) as parent:
        lines = parent.rest()
        parent.ends_well()
    for line in lines[:-1]:
        assert line["status"] == 0
        told_by_children += line["child"].strip("[]").replace("'", "").split(", ")
    told = lines[-1]["told"]
    assert told[-1]["seq"] == len(told) + len(told_by_children)
    holds_what_was_told(path, "a", told)
    with SQLiteSessionStorage(path) as storage:
        messages = storage.read("a", Want(messages=100_000)).messages
    assert {message.message_id for message in messages} >= set(told_by_children)
    assert faults(path) == []


def test_a_pool_of_forks_writes_through_the_storage_of_its_parent(tmp_path: Path) -> None:
    path = made(tmp_path / "s.db", "a")
    with Child(programs.use_in_pool, str(path)) as parent:
        told = parent.hear()
        parent.ends_well()
    assert len(told) == 52
    holds_what_was_told(path, "a", told, exactly=True)
    assert faults(path) == []


def test_a_fork_that_outlives_its_parent_keeps_neither_its_locks_nor_its_owner(tmp_path: Path) -> None:
    path = made(tmp_path / "s.db", "a")
    with Child(programs.fork_and_wait, str(path)) as parent:
        owner, forked = parent.hear()
        try:
            with SQLiteSessionStorage(path) as storage:
                assert storage.alive(owner)
                parent.kill()
                assert not storage.alive(owner)
                add(storage, "a", "the gate is free")
        finally:
            os.kill(forked, 9)


def test_a_fork_that_outlives_its_parent_goes_on_beside_others_who_open_and_close(tmp_path: Path) -> None:
    path = made(tmp_path / "s.db", "a")
    told: list[dict[str, Any]] = []
    with Child(programs.fork_and_outlive, str(path)) as parent:
        assert parent.hear() == "forked"
        parent.tell("first")
        told.append(parent.hear())
        parent.kill()
        for _ in range(5):
            # Whoever opens the file first makes its shared memory anew: that must never be he who is not alone.
            with SQLiteSessionStorage(path) as storage:
                told.append(add(storage, "a", "another process"))
                parent.tell("next")
                told.append(parent.hear())
                told.append(add(storage, "a", "another process"))
            parent.tell("next")
            told.append(parent.hear())
        parent.tell()
        assert parent.hear() == "closed"
    assert [entry["seq"] for entry in told] == list(range(2, 23))
    holds_what_was_told(path, "a", told)
    assert faults(path) == []


def test_a_fork_in_the_middle_of_a_transaction_leaves_the_child_a_clear_error(tmp_path: Path) -> None:
    path = made(tmp_path / "s.db", "a")
    with Child(programs.fork_inside, str(path)) as parent:
        assert "was at work when this process was forked" in parent.hear()
        told = parent.hear()
        parent.ends_well()
    holds_what_was_told(path, "a", told, exactly=True)
    assert faults(path) == []


def test_an_owner_whose_file_is_taken_away_while_it_is_locked_gets_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without locks of the kernel the file stands unlocked for a moment, in which another process may clear it away."""
    taken: list[Path] = []

    class Slow(apsw.Connection):
        def execute(self, *what: Any, **how: Any) -> Any:
            if not taken and "own_" in self.filename:
                taken.append(Path(self.filename))
                taken[0].unlink()
            return super().execute(*what, **how)

    with SQLiteSessionStorage(tmp_path / "s.db") as storage:
        monkeypatch.setattr("mcp_sessions._os.fcntl", None)
        monkeypatch.setattr("mcp_sessions._os.apsw.Connection", Slow)
        owner = storage.owner()
        assert [file.name for file in taken] != [owner]
        assert storage.alive(owner)


@pytest.mark.parametrize("without", [None, "fcntl"])
def test_an_owner_is_alive_until_its_process_ends_however_it_ends(
    tmp_path: Path, without: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made(tmp_path / "s.db")
    if without:
        monkeypatch.setattr(f"mcp_sessions._os.{without}", None)
    with Children() as children, SQLiteSessionStorage(path) as storage:
        program, first = (programs.without, (without, "own")) if without else (programs.own, ())
        killed, suspended, leaving = (children.start(program, *first, str(path)) for _ in range(3))
        owners = {child: child.hear() for child in (killed, suspended, leaving)}
        suspended.suspend()
        assert all(storage.alive(owner) for owner in owners.values())
        killed.kill()
        leaving.tell()
        leaving.ends_well()
        assert not storage.alive(owners[killed])
        assert not storage.alive(owners[leaving])
        assert storage.alive(owners[suspended])
        assert storage.alive(storage.owner())
        assert not storage.alive("own_that_never_was")
        suspended.go_on()
        suspended.tell()
        suspended.ends_well()
        mine = storage.owner()
    with SQLiteSessionStorage(path) as storage:
        assert not storage.alive(mine)
    assert not path.with_name("s.db-owners").exists()


def test_what_killed_owners_left_beside_the_file_is_cleared_by_the_next_one(tmp_path: Path) -> None:
    path = made(tmp_path / "s.db")
    with Child(programs.own, str(path)) as killed:
        killed.hear()
        killed.kill()
    with SQLiteSessionStorage(path) as storage:
        owner = storage.owner()
        assert [file.name for file in path.with_name("s.db-owners").iterdir()] == [owner]


def test_owners_that_come_and_go_at_the_same_time_are_told_apart(tmp_path: Path) -> None:
    path = made(tmp_path / "s.db")
    with Children() as children:
        owners = [children.start(programs.own_over_and_over, str(path), 200 if full_counts() else 15) for _ in range(4)]
        for owner in owners:
            assert owner.hear() == "ready"
        for owner in owners:
            owner.tell()
        for owner in owners:
            assert all(line == [True, False] for line in owner.rest())
            owner.ends_well()
    assert not path.with_name("s.db-owners").exists()


@pytest.mark.parametrize("how", ["idle", "busy", "blocked"])
def test_an_interpreter_may_exit_without_closing_whatever_the_writer_is_at(tmp_path: Path, how: str) -> None:
    told: list[dict[str, Any]] = []
    for number in range((20 if full_counts() else 4) if how == "busy" else 1):
        path = made(tmp_path / f"{number}.db", "a")
        with Children() as children:
            leaver = children.start(programs.leave_without_closing, str(path), how)
            if how == "blocked":
                assert leaver.hear() == "ready"
                holder = children.start(programs.hold_gate, str(path))
                assert holder.hear() == "inside"
                leaver.tell()
                assert f"held by process {holder.pid}" in leaver.hear()
            told = leaver.hear()
            leaver.ends_well()
        holds_what_was_told(path, "a", told, exactly=how != "busy")
        assert faults(path) == []


def test_a_deletion_killed_between_its_pieces_is_over_for_readers_and_finished_by_the_next_opening(
    tmp_path: Path,
) -> None:
    path = made(tmp_path / "s.db", "a", "b")
    with SQLiteSessionStorage(path, durability="process") as storage:
        for number in range(700):
            storage.commit("a", saying(f"topsecret word{number}"))
            if number == 300:
                storage.search("topsecret", Query())
        kept = [add(storage, "b", f"kept {number}") for number in range(3)]
    with Child(programs.delete_and_stop, str(path), "a", 1) as deleter:
        assert deleter.hear() == "in the middle"
        with SQLiteSessionStorage(path, busy_timeout_s=0.1) as reader:
            assert not reader.session_exists("a")
            assert [one.session_id for one in reader.find(Query()).items] == ["b"]
        deleter.kill()
    with SQLiteSessionStorage(path) as storage:
        assert storage.search("topsecret", Query()).items == []
        assert [hit.seq for hit in storage.search("kept", Query()).items] == [3, 2, 1]
        findings = [finding for finding in storage.check() if finding.level != "ok"]
        assert all(finding.level == "warning" and "still being removed" in finding.what for finding in findings)
    with SQLiteSessionStorage(path) as storage:
        # Nobody writes: the opening alone has begun what was left to do.
        until_nothing_is_purged(storage)
    assert faults(path) == []
    assert b"topsecret" not in b"".join(file.read_bytes() for file in path.parent.iterdir() if file.is_file())
    holds_what_was_told(path, "b", kept, exactly=True)


def search_until(stop: threading.Event, storage: SQLiteSessionStorage) -> None:
    while not stop.is_set():
        storage.search("common", Query())


def test_a_session_can_be_deleted_while_others_write_search_and_index(tmp_path: Path) -> None:
    path = made(tmp_path / "s.db", "a", "b")
    with (
        SQLiteSessionStorage(path, durability="process") as storage,
        Child(programs.append, str(path), "b", "x", 0, "process") as writer,
    ):
        assert writer.hear() == "ready"
        writer.tell()
        for _ in range(3):
            for number in range(600):
                storage.commit("a", saying(f"word{number} common"))
            stop = threading.Event()
            indexer = threading.Thread(target=search_until, args=(stop, storage))
            indexer.start()
            storage.delete("a", deletion())
            stop.set()
            indexer.join()
            new_session(storage, "a")
        writer.kill()
        told = writer.rest()
    holds_what_was_told(path, "b", told)
    assert faults(path) == []


def test_a_long_reader_does_not_keep_writers_waiting(tmp_path: Path) -> None:
    path = made(tmp_path / "s.db", "a")
    with SQLiteSessionStorage(path, busy_timeout_s=1.0) as storage:
        add(storage, "a", "before")
        with Child(programs.read_for_long, str(path)) as reader:
            assert reader.hear() == 1
            told = [add(storage, "a", f"meanwhile {number}") for number in range(200)]
            storage.commit("a", Change(at=AT, retract=((1, 1),)))
            reader.tell()
            assert reader.hear() == 1, "its snapshot is as it was"
            reader.ends_well()
    assert [entry["seq"] for entry in told] == list(range(2, 202))
    assert faults(path) == []


def test_the_log_stays_short_while_readers_come_and_go(tmp_path: Path) -> None:
    path = str(tmp_path / "s.db")
    with Children() as children:
        count, size = (20_000, 4) if full_counts() else (1_000, 20_000)
        writer = children.start(programs.write_many, path, count, size)
        assert writer.hear() == "ready"
        for _ in range(2):
            assert children.start(programs.read_on_and_on, path).hear() == "ready"
        writer.tell()
        most = writer.hear()
        writer.ends_well()
    assert most < 48 << 20, "without waiting for readers it is 90 MB"
