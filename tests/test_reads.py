"""Reads are recorded in the background: soon, in order, and never dropped in silence."""

from __future__ import annotations

import gc
import logging
import shutil
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from mcp_sessions import SessionManager, SessionNotFoundError, SQLiteSessionStorage, StorageError
from mcp_sessions.models import Change, Invocation, InvocationQuery
from mcp_sessions.reads import CAPACITY, PIECE, ReadLog
from mcp_sessions.storage import MemorySessionStorage, SessionStorage
from mcp_sessions.storage.heads import Committed
from tests.processes import LONG_S, Child, until
from tests.programs import (
    end_on_a_full_disk,
    fork_and_leave,
    fork_while_reads_wait,
    opened,
    read_and_exit,
    read_and_wait,
    read_at_the_very_end,
    read_forget_and_wait,
    read_on_a_full_disk,
    read_without_a_thread,
)
from tests.stores import SetClock


@pytest.fixture
def manager(storage: SessionStorage, clock: SetClock) -> Iterator[SessionManager]:
    with SessionManager(storage, clock=clock) as manager:
        manager.create_session("a")
        yield manager


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = str(tmp_path / "sessions.db")
    with opened(path) as manager:
        manager.create_session("a")
    return path


class Gated(MemorySessionStorage):
    """Holds commits of records back until told, or refuses them: a disk that is slow, or full."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()
        self.asked = threading.Event()
        self.refusing = False
        self.attempts = 0
        self.sizes: list[int] = []

    def commit(self, session_id: str | None, change: Change) -> Committed:
        if session_id is None:
            self.attempts += 1
            self.asked.set()
            if not self.open.wait(LONG_S):
                raise AssertionError("nobody opened it")
            if self.refusing:
                raise StorageError("the disk is full")
            self.sizes.append(len(change.records) + sum(len(other.records) for _, other in change.also))
        return super().commit(session_id, change)


def _read(manager: SessionManager, session_id: str | None = "a", tool: str = "look", user: str | None = None) -> None:
    with manager.call(tool, session_id, reads=True, as_user=user):
        pass


def _tools(manager: SessionManager, session_id: str | None = "a") -> list[str]:
    """What stands in the store, oldest first; nothing that waits is written for it."""
    query = InvocationQuery(session_id=session_id, reverse=True, limit=1000)
    return [record.tool_name for record in manager.storage.invocations(query).items]


# seen


def test_a_read_is_visible_to_the_next_look_of_the_same_process(manager: SessionManager) -> None:
    for number in range(3):
        _read(manager, tool=f"look{number}")
    assert [record.tool_name for record in manager.invocations("a").items] == ["look2", "look1", "look0"]


def test_a_read_leaves_the_state_alone_and_counts_as_a_call(manager: SessionManager) -> None:
    _read(manager)
    with manager.call("session_get", "a", reads=True, kind="session"):
        pass
    manager.reads.flush()
    head = manager.metadata("a")
    assert (head.revision, head.total_invocations) == (1, 1)


def test_reads_are_written_without_being_asked_for(path: str) -> None:
    with Child(read_and_wait, path) as child, opened(path) as manager:
        assert child.hear() == "read"
        until(lambda: bool(_tools(manager)))
        child.tell()
        child.ends_well()
        assert _tools(manager) == ["look"]


def test_closing_writes_what_waits(storage: SessionStorage, clock: SetClock) -> None:
    with SessionManager(storage, clock=clock) as first:
        first.create_session("a")
        with SessionManager(_Shared(storage), clock=clock) as manager:
            _read(manager)
        assert _tools(first) == ["look"]


class _Shared(MemorySessionStorage):
    """Another handle of a store: closing it closes nothing."""

    def __init__(self, storage: SessionStorage) -> None:
        super().__init__()
        self.commit = storage.commit
        self.read = storage.read


def test_a_read_after_closing_is_refused_and_not_kept_for_ever(clock: SetClock) -> None:
    manager = SessionManager(MemorySessionStorage(), clock=clock)
    manager.close()
    with pytest.raises(StorageError, match="is closed"):
        _read(manager, None)


@pytest.mark.parametrize(("how", "code"), [("return", 0), ("sys.exit", 0), ("error", 1)])
def test_what_waits_is_written_when_the_interpreter_ends(path: str, how: str, code: int) -> None:
    with Child(read_and_exit, path, how) as child:
        assert child.end() == code, child.errors()
    with opened(path) as manager:
        assert _tools(manager) == ["look"] * 3


def test_a_read_made_while_the_interpreter_ends_is_written(path: str) -> None:
    with Child(read_at_the_very_end, path) as child:
        child.ends_well()
    with opened(path) as manager:
        assert _tools(manager) == ["look"]


def test_where_no_thread_can_be_started_reads_are_written_at_once(path: str) -> None:
    """Python 3.12 starts no threads once it is ending: what was read at the end was lost there."""
    with Child(read_without_a_thread, path) as child:
        assert child.hear() == ["MainThread"]
        child.ends_well()
    with opened(path) as manager:
        assert _tools(manager) == ["look", "work"]


def test_a_manager_that_nobody_closed_writes_its_reads_when_it_is_forgotten(path: str) -> None:
    with Child(read_forget_and_wait, path) as child, opened(path) as manager:
        assert child.hear() == "read"
        until(lambda: bool(_tools(manager)))
        child.tell()
        child.ends_well()
        assert _tools(manager) == ["look"]


def test_the_thread_of_a_forgotten_manager_ends(clock: SetClock) -> None:
    before = set(threading.enumerate())
    manager = SessionManager(MemorySessionStorage(), clock=clock)
    _read(manager, None)
    (thread,) = set(threading.enumerate()) - before
    del manager
    gc.collect()
    thread.join(LONG_S)
    assert not thread.is_alive()


def test_parent_and_forked_child_write_their_own_reads_once(path: str) -> None:
    with Child(fork_while_reads_wait, path) as child:
        child.ends_well()
    with opened(path) as manager:
        assert sorted(_tools(manager)) == ["child", "parent"]


def test_a_forked_child_ends_without_writing_its_parents_reads(path: str) -> None:
    with Child(fork_and_leave, path) as child:
        assert child.hear() == 0
        child.ends_well()
    with opened(path) as manager:
        assert _tools(manager) == ["parent"]


# where


def test_reads_of_a_session_deleted_meanwhile_are_kept_without_one(clock: SetClock) -> None:
    storage = Gated()
    with SessionManager(storage, clock=clock) as manager:
        for name in ("a", "b"):
            manager.create_session(name)
        _read(manager, None, "first")  # keeps the thread busy
        assert storage.asked.wait(LONG_S)
        for name in ("a", "b"):
            _read(manager, name, f"look at {name}")
        storage.delete("a", Change(at=clock.now))
        storage.open.set()
        records = manager.invocations().items
        assert {record.tool_name: record.session_id for record in records} == {
            "first": None,
            "look at a": None,
            "look at b": "b",
        }


@pytest.mark.parametrize("meanwhile", ["committed", "deleted", "made anew"])
def test_the_end_of_a_slow_call_that_comes_too_late_holds_up_no_read(clock: SetClock, meanwhile: str) -> None:
    """The store refused it: but the call's commit went through, or its session is gone, or its id is another call's."""

    class Full(Gated):
        def commit(self, session_id: str | None, change: Change) -> Committed:
            if session_id is not None and self.refusing:
                if change.messages and meanwhile == "committed":
                    super().commit(session_id, change)
                raise StorageError("the disk is full")
            return super().commit(session_id, change)

    storage = Full()
    manager = SessionManager(storage, clock=clock)
    manager.create_session("a")
    call = partial(manager.call, "agent", "a", {}, invocation_id="i1", slow=True)
    with pytest.raises(StorageError), call() as refused:
        refused.draft.add_message("user", "x")
        storage.refusing = True
    _read(manager, None)
    storage.refusing = False
    if meanwhile != "committed":
        manager.delete_session("a")
    if meanwhile == "made anew":
        manager.create_session("a")
        with suppress(RuntimeError), call():
            raise RuntimeError
        call().start()
    storage.open.set()
    manager.reads.flush()
    statuses = {record.tool_name: record.status for record in manager.invocations().items}
    of_the_call = {"committed": {"agent": "ok"}, "deleted": {}, "made anew": {"agent": "running"}}
    assert statuses == {"look": "ok", **of_the_call[meanwhile]}


def test_a_failed_read_of_another_users_session_is_not_put_into_it(manager: SessionManager) -> None:
    manager.create_session("anns", user_id="ann")
    _read(manager, "anns", "anns look", "ann")
    with pytest.raises(SessionNotFoundError), manager.call("bobs look", "anns", reads=True, as_user="bob"):
        manager.metadata("anns", as_user="bob")
    assert [record.tool_name for record in manager.invocations("anns").items] == ["anns look"]
    (other,) = manager.invocations(as_user="bob").items
    assert (other.tool_name, other.session_id, other.status) == ("bobs look", None, "error")


# many


def test_when_the_queue_is_full_readers_wait_and_nothing_is_dropped(clock: SetClock) -> None:
    storage = Gated()
    with SessionManager(storage, clock=clock) as manager:
        manager.create_session("a")
        record = _record_of(manager, clock)
        for _ in range(CAPACITY):
            manager.reads.add(record)
        with ThreadPoolExecutor(4) as pool:
            waiting = [pool.submit(manager.reads.add, record) for _ in range(4)]
            assert storage.asked.wait(LONG_S)
            assert not any(reader.done() for reader in waiting)
            assert manager.reads.waiting == (CAPACITY, "")
            storage.open.set()
            for reader in waiting:
                reader.result(LONG_S)
        manager.reads.flush()
        assert sum(storage.sizes) == CAPACITY + 4
        assert max(storage.sizes) <= PIECE


def _record_of(manager: SessionManager, clock: SetClock) -> Invocation:
    return Invocation(invocation_id=manager.make_id("inv"), tool_name="look", started_at=clock.now)


def test_readers_who_wait_are_let_go_when_the_manager_closes(clock: SetClock) -> None:
    storage = Gated()
    manager = SessionManager(storage, clock=clock)
    record = _record_of(manager, clock)
    for _ in range(CAPACITY):
        manager.reads.add(record)
    assert storage.asked.wait(LONG_S)
    with ThreadPoolExecutor(2) as pool:
        reader = pool.submit(manager.reads.add, record)
        closing = pool.submit(manager.close)
        storage.open.set()
        closing.result(LONG_S)
        error = reader.exception(LONG_S)
    # Either it came in before the end, or it was told that it came too late.
    assert error is None or isinstance(error, StorageError)
    assert sum(storage.sizes) == CAPACITY + (error is None)


def test_reads_of_many_threads_are_all_there_once(manager: SessionManager) -> None:
    with ThreadPoolExecutor(16) as pool:
        for worker in [pool.submit(lambda: [_read(manager) for _ in range(25)]) for _ in range(16)]:
            worker.result(LONG_S)
    manager.reads.flush()
    assert len(_tools(manager)) == 400
    assert manager.metadata("a").total_invocations == 400


# failing


def test_what_could_not_be_written_stays_queued_and_its_delay_is_on_record(
    clock: SetClock, caplog: pytest.LogCaptureFixture
) -> None:
    storage = Gated()
    storage.refusing = True
    storage.open.set()
    with SessionManager(storage, clock=clock) as manager:
        manager.create_session("a")
        began = clock.now
        _read(manager)
        with pytest.raises(StorageError, match="the disk is full"):
            manager.invocations("a")
        assert "records could not be written, and stay queued: the disk is full" in caplog.text
        fault = manager.check()[-1]
        assert (fault.level, fault.what, fault.detail) == ("fault", "1 records wait", "the disk is full")
        clock.go_on(minutes=5)
        storage.refusing = False
        assert [record.tool_name for record in manager.invocations("a").items] == ["look"]
        (late,) = manager.invocations(tool="record_reads").items
        assert (late.session_id, late.kind, late.status) == (None, "session", "error")
        assert (late.started_at, late.duration_ms, late.result) == (began, 300_000.0, {"count": 1})
        assert late.error is not None
        assert (late.error.type, late.error.message) == ("StorageError", "The store did not work.")
        assert manager.reads.waiting == (0, "")
        assert all(finding.level == "ok" for finding in manager.check())


def _waiting_to_flush() -> int:
    """How many threads wait for the flush of another one: they know how many have failed before."""
    frames = sys._current_frames().values()
    inner = [frame for frame in frames if frame.f_code is ReadLog.flush.__code__]
    return sum("failures" in frame.f_locals for frame in inner)


def test_who_waits_for_a_flush_that_fails_fails_with_it(clock: SetClock) -> None:
    """Each made a flush of its own, one after the other: at a held gate the eighth waited eight times as long."""
    storage = Gated()
    storage.refusing = True
    with SessionManager(storage, clock=clock) as manager, ThreadPoolExecutor(8) as threads:
        manager.create_session("a")
        _read(manager)
        assert storage.asked.wait(LONG_S)  # the thread that writes reads is at it
        refused = [threads.submit(manager.invocations, "a") for _ in range(8)]
        until(lambda: _waiting_to_flush() == 8)
        storage.open.set()
        errors = [one.exception(LONG_S) for one in refused]
        assert [str(error) for error in errors] == ["the disk is full"] * 8
        assert len(set(map(id, errors))) == 8  # each may add notes to its own
        assert storage.attempts < 8
        storage.refusing = False


def test_a_failed_flush_is_tried_again_without_being_asked(clock: SetClock) -> None:
    storage = Gated()
    storage.refusing = True
    storage.open.set()
    with SessionManager(storage, clock=clock) as manager:
        _read(manager, None)
        until(lambda: bool(manager.reads.waiting[1]))
        storage.refusing = False
        until(lambda: manager.reads.waiting == (0, ""))
        assert sorted(_tools(manager, None)) == ["look", "record_reads"]


def test_closing_says_when_reads_could_not_be_written_and_lets_go_of_the_store(clock: SetClock) -> None:
    storage = Gated()
    storage.refusing = True
    storage.open.set()
    manager = SessionManager(storage, clock=clock)
    _read(manager, None)
    with pytest.raises(StorageError, match="the disk is full"):
        manager.close()
    with pytest.raises(StorageError, match="is closed"):
        manager.create_session()


def test_a_store_that_was_removed_is_said_so_and_goes_on_when_it_is_back(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(path) as manager:
        _read(manager, tool="before")
        manager.reads.flush()
        shutil.move(path, path + ".gone")
        _read(manager)
        with pytest.raises(StorageError, match="was removed or replaced"):
            manager.reads.flush()
        shutil.move(path + ".gone", path)
        manager.reads.flush()
        assert [record.tool_name for record in manager.invocations("a").items] == ["look", "before"]
    assert any(entry.levelno == logging.ERROR for entry in caplog.records)


def test_reads_that_are_lost_at_exit_are_not_lost_in_silence(path: str) -> None:
    with Child(end_on_a_full_disk, path) as child:
        assert child.end() == 0
        assert "1 records were lost at exit" in child.errors()
    with opened(path) as manager:
        assert _tools(manager) == []


def test_reads_on_a_full_disk_are_written_when_there_is_room(path: str) -> None:
    with Child(read_on_a_full_disk, path) as child:
        outcome, text, waiting = child.hear()
        assert (outcome, waiting) == ("failed", [1, text])
        assert "Nothing of this call was written" in text
        assert [record["tool_name"] for record in child.hear()] == ["look"]
        (late,) = child.hear()
        assert late["result"] == {"count": 1}
        assert child.end() == 0, child.errors()
        assert "could not be written, and stay queued" in child.errors()
    with SessionManager(SQLiteSessionStorage(path)) as manager:
        assert _tools(manager) == ["look"]
