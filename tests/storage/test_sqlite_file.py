"""The SQLite file itself: its name, its permissions, its settings, its syncs, and what is left of what was deleted."""

from __future__ import annotations

import os
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal

import apsw
import pytest

from mcp_sessions.models import Alter, Change, InvocationQuery, InvocationStatus, Query, Want
from mcp_sessions.storage import open_storage
from mcp_sessions.storage.sqlite import SQLiteSessionStorage
from mcp_sessions.storage.sqlite.driver import Db
from mcp_sessions.storage.sqlite.writer import _Job
from mcp_sessions.storage.sqlite.writing import PIECE
from mcp_sessions.testing.making import called, does
from tests.processes import Child, full_counts, until
from tests.storage import programs
from tests.storage.looking import bytes_of, deletion, faults, holds_what_was_told, made, rows
from tests.storage.programs import AT, add, new_session, saying


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_made_belongs_to_the_user_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path = tmp_path / "new" / "folder" / "s.db"
        with SQLiteSessionStorage(path) as storage:
            new_session(storage, "a")
            storage.owner()
            storage.read("a", Want(messages=1))
            found = {file.name: mode(file) for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert found == {"s.db": 0o600, "s.db-wal": 0o600, "s.db-shm": 0o600, "s.db-gate": 0o600, "s.db-owners": 0o700}
    assert mode(tmp_path / "new") == mode(tmp_path / "new" / "folder") == 0o700


def test_a_folder_that_is_there_keeps_its_permissions(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir(mode=0o755)
    made(tmp_path / "shared" / "s.db")
    assert mode(tmp_path / "shared") == 0o755


@pytest.mark.parametrize("name", ["with spaces", "a#b", "what?", "100%", "%41", "ü日本🙂", "a'b\"c", "-dash", "file:x"])
def test_any_name_that_the_system_takes_is_a_path(tmp_path: Path, name: str) -> None:
    path = made(tmp_path / name / f"{name}.db", "a")
    with SQLiteSessionStorage(str(path)) as storage:
        told = [add(storage, "a", "one"), add(storage, "a", "two")]
        storage.owner()
    holds_what_was_told(path, "a", told, exactly=True)
    assert sorted(file.name for file in path.parent.iterdir()) == sorted(
        f"{name}.db{ending}" for ending in ("", "-wal", "-shm", "-gate")
    )


def test_a_link_leads_to_the_same_gate_and_the_same_owners(tmp_path: Path) -> None:
    path = made(tmp_path / "real" / "s.db", "a")
    (tmp_path / "link").symlink_to(path.parent)
    (tmp_path / "linked.db").symlink_to(path)
    with SQLiteSessionStorage(path) as storage:
        owner = storage.owner()
        for link in (tmp_path / "link" / "s.db", tmp_path / "linked.db"):
            with SQLiteSessionStorage(link) as another:
                assert another.alive(owner)
                assert another.path == path


def test_a_relative_path_stays_the_same_file_when_the_process_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with SQLiteSessionStorage("s.db") as storage:
        monkeypatch.chdir("/")
        new_session(storage, "a")
        assert storage.path == tmp_path / "s.db"
    assert not Path("/s.db").exists()


@pytest.mark.parametrize(("durability", "synchronous"), [("full", 2), ("process", 1)])
def test_the_settings_of_the_writer_are_in_force_and_a_commit_syncs_as_often_as_promised(
    tmp_path: Path, durability: Literal["full", "process"], synchronous: int
) -> None:
    with Child(programs.count_syncs, str(tmp_path / "s.db"), durability, 50) as child:
        said = child.hear()
        child.ends_well()
    assert said == {
        "syncs": ["wal"] * 50 if durability == "full" else [],
        "journal_mode": "wal",
        "synchronous": synchronous,
        "secure_delete": 1,
        "mmap_size": 0,
        "temp_store": 2,
    }


def test_commits_that_wait_together_become_one_with_one_sync(tmp_path: Path) -> None:
    with Child(programs.count_syncs_of_commits_at_the_gate, str(tmp_path / "s.db"), 20) as child:
        assert child.hear() == ["wal"]
        child.ends_well()


def test_sqlite_takes_as_many_steps_whatever_the_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []

    def watch(connection: apsw.Connection) -> None:
        connection.trace_v2(
            apsw.SQLITE_TRACE_PROFILE, lambda event: steps.append(event["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"])
        )

    monkeypatch.setattr(apsw, "connection_hooks", [watch])
    with SQLiteSessionStorage(tmp_path / "s.db", durability="process") as storage:
        new_session(storage, "a")
        new_session(storage, "another")
        bad = set(InvocationStatus) - {InvocationStatus.OK}
        storage.commit("a", does(records=tuple(called(status, status=status) for status in bad)))
        mine = InvocationQuery(session_id="a", limit=20)
        acts: dict[str, Callable[[], object]] = {
            "a commit": lambda: add(storage, "a", "one more"),
            "a key written": lambda: storage.commit("a", Change(at=AT, set={"key": 1})),
            "the head": lambda: storage.read("a", Want()),
            "one key": lambda: storage.read("a", Want(keys=("key",))),
            "the last page": lambda: storage.read("a", Want(messages=20)),
            "an older page": lambda: storage.read("a", Want(messages=20, before=30)),
            "a page of records": lambda: storage.invocations(mine),
        }
        for status in bad:
            those = InvocationQuery(status=status, limit=20)
            acts[f"a page of {status}"] = partial(storage.invocations, those)
            acts[f"a session's page of {status}"] = partial(
                storage.invocations, those.model_copy(update={"session_id": "a"})
            )

        def taken() -> dict[str, int]:
            taken: dict[str, int] = {}
            for name, act in acts.items():
                steps.clear()
                act()
                taken[name] = sum(steps)
            return taken

        for _ in range(60):  # more than versions of a key are kept, and than a page has rows
            taken()
        short = taken()
        for number in range(2_000):
            add(storage, "a" if number < 1_000 else "another", f"message {number}")
        long = taken()
    assert min(short.values()) > 0
    for name, count in short.items():
        assert long[name] <= count * 1.05, name


def test_a_storage_opened_by_url_has_the_durability_that_was_asked_for(tmp_path: Path) -> None:
    for durability, synchronous in (("full", 2), ("process", 1)):
        storage = open_storage(f"sqlite://{tmp_path}/s.db", durability=durability)
        assert isinstance(storage, SQLiteSessionStorage)
        assert storage._here().writer.run(lambda db: db.pragma("synchronous")) == synchronous
        storage.close()


@pytest.mark.parametrize("indexed", [True, False])
def test_nothing_of_a_deleted_session_is_left_in_any_file(tmp_path: Path, indexed: bool) -> None:
    path = made(tmp_path / "s.db", "kept")
    with SQLiteSessionStorage(path) as storage:
        new_session(storage, "a")
        for number in range(300):
            storage.commit("a", saying(f"swordfish in message {number} " + "swordfish" * (number * 7 % 900)))
        for number in range(60):
            storage.commit(
                "a", Change(at=AT, set={"swordfishkey": {"nested": ["swordfish", number, "swordfish" * 99]}})
            )
        storage.commit("a", Change(at=AT, set={"other": "swordfish" * 20_000}, remove=("swordfishkey",)))
        storage.commit(
            "a", Change(at=AT, alter=Alter(purpose="swordfish", add_tags=("swordfish",), summary="swordfish"))
        )
        storage.commit("a", Change(at=AT, retract=((5, 15),)))
        add(storage, "kept", "kept")
        if indexed:
            assert storage.search("swordfish", Query(limit=1)).items
        assert bytes_of(path).count(b"swordfish") > 300
        storage.delete("a", deletion())
        assert b"swordfish" not in bytes_of(path)
        assert storage.search("swordfish", Query()).items == []
        assert storage.read("kept", Want()).metadata.last_seq == 1
    assert b"swordfish" not in bytes_of(path)
    assert faults(path) == []


def test_a_reader_in_the_way_only_delays_that_nothing_is_left(tmp_path: Path) -> None:
    path = made(tmp_path / "s.db", "a", "kept")
    with SQLiteSessionStorage(path) as storage:
        for number in range(20):
            storage.commit("a", saying(f"swordfish {number}"))
        with Child(programs.read_for_long, str(path)) as reader:
            reader.hear()
            storage.delete("a", deletion())
            assert b"swordfish" in bytes_of(path)
            reader.kill()
        wait_for_empty_log(path)
        assert b"swordfish" not in bytes_of(path)


def test_what_was_retracted_is_erased_in_a_quiet_moment(tmp_path: Path) -> None:
    path = made(tmp_path / "s.db", "a")
    with SQLiteSessionStorage(path) as storage:
        for number in range(20):
            storage.commit("a", saying(f"message {number}", message_id=f"m{number}"))
        storage.commit("a", Change(at=AT, messages=saying("swordfish").messages))
        storage.commit("a", Change(at=AT, retract=((21, 21),)))
        wait_for_empty_log(path)
        assert b"swordfish" not in bytes_of(path)


def wait_for_empty_log(path: Path) -> None:
    log = path.with_name(path.name + "-wal")
    until(lambda: log.stat().st_size == 0)


def test_what_was_written_is_indexed_in_a_quiet_moment(tmp_path: Path) -> None:
    path = made(tmp_path / "s.db", "a")
    with SQLiteSessionStorage(path) as storage:
        for number in range(10):
            add(storage, "a", f"word {number}")
        until(lambda: rows(storage, "search_docsize") == 10)
        assert len(storage.search("word", Query()).items) == 10


def test_a_long_session_and_many_short_ones_are_indexed_in_pieces(tmp_path: Path) -> None:
    path = made(tmp_path / "s.db", "a", *(f"s{number}" for number in range(PIECE + 10)))
    with SQLiteSessionStorage(path, durability="process") as storage:
        for _ in range(PIECE + 10):
            add(storage, "a", "long")
        for number in range(PIECE + 10):
            add(storage, f"s{number}", "short")
        assert len(storage.search("long", Query(limit=1000)).items) == PIECE + 10
        assert len(storage.search("short", Query(limit=1000)).items) == PIECE + 10
        assert not [finding for finding in storage.check() if finding.level != "ok"]


def test_sixty_four_threads_of_one_process_all_get_through(tmp_path: Path) -> None:
    path = made(tmp_path / "s.db", "a", *(f"s{number}" for number in range(64)))
    told: list[dict[str, Any]] = []

    def work(number: int) -> None:
        for _ in range(10):
            told.append(add(storage, "a", f"thread {number}"))
            add(storage, f"s{number}", "its own")
            storage.read("a", Want(messages=3))
            storage.find(Query(limit=3))

    with SQLiteSessionStorage(path) as storage, ThreadPoolExecutor(64) as pool:
        list(pool.map(work, range(64)))
        assert all(storage.read(f"s{number}", Want()).metadata.last_seq == 10 for number in range(64))
    assert sorted(entry["seq"] for entry in told) == list(range(1, 641))
    holds_what_was_told(path, "a", told, exactly=True)


def test_two_storages_of_one_process_share_a_file_like_two_processes(tmp_path: Path) -> None:
    path = made(tmp_path / "s.db", "a")
    told: list[dict[str, Any]] = []

    def work(storage: SQLiteSessionStorage) -> None:
        told.extend(add(storage, "a", "one of many") for _ in range(100))

    storages = [SQLiteSessionStorage(path) for _ in range(3)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, storages * 2))
    assert storages[0].alive(storages[1].owner())
    storages[1].close()
    told.append(add(storages[0], "a", "after one has closed"))
    for storage in storages:
        storage.close()
    assert [entry["seq"] for entry in sorted(told, key=lambda entry: entry["seq"])] == list(range(1, 602))
    holds_what_was_told(path, "a", told, exactly=True)


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A folder in memory where there is one: what is counted here does not depend on a disk, only the time does."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


def test_two_hundred_stores_leave_no_descriptor_thread_memory_or_garbage(memory_path: Path) -> None:
    with Child(programs.open_use_and_close, str(memory_path), 200) as child:
        before, after = child.hear(), child.hear()
        child.ends_well()
    assert after["descriptors"] == before["descriptors"]
    assert after["threads"] == before["threads"]
    assert after["memory"] - before["memory"] < 8 << 20
    assert {file.name.removeprefix("9.db") for file in memory_path.glob("9.db*")} == {"", "-wal", "-shm", "-gate"}
    assert (memory_path / "9.db-wal").stat().st_size == 0


def test_thousands_of_calls_on_one_store_keep_descriptors_threads_and_memory(memory_path: Path) -> None:
    with Child(programs.commit_and_read, str(memory_path / "s.db"), 5_000 if full_counts() else 1_500) as child:
        before, after = child.hear(), child.hear()
        child.ends_well()
    assert after["descriptors"] == before["descriptors"]
    assert after["threads"] == before["threads"]
    assert after["memory"] - before["memory"] < 16 << 20


def test_an_opening_that_fails_leaves_no_descriptor_and_no_thread(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = in_use()
    for _ in range(20):
        with pytest.raises(Exception, match="of another program"):
            SQLiteSessionStorage(path)
    assert in_use() == before


def in_use() -> tuple[int, int]:
    """Descriptors and threads of this process."""
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


def test_a_checkpoint_does_not_get_the_error_of_the_work_beside_it(tmp_path: Path) -> None:
    """A deletion failed as "not found" when the record of a late read of that session was refused in the same turn."""
    with SQLiteSessionStorage(tmp_path / "s.db") as storage:
        writer = storage._opened.writer

        def fails(_: object) -> None:
            raise LookupError("not found")

        work, checkpoint = _Job(fails), _Job(None)
        writer._do([work, checkpoint])
        assert isinstance(work.error, LookupError)
        assert checkpoint.error is None


def test_work_that_fails_takes_nothing_with_it_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with SQLiteSessionStorage(made(tmp_path / "s.db", "a")) as storage:
        writer = storage._opened.writer

        def fails_at_once(_: object) -> None:
            raise LookupError("not found")

        def fails_half_done(db: Db) -> None:
            db.execute("UPDATE sessions SET purpose = 'half'")
            raise LookupError("half done")

        def says(text: str) -> _Job:
            return _Job(lambda db: storage._writing.commit(db, "a", saying(text)))

        for failing in ([fails_at_once], [fails_half_done], [fails_at_once, fails_half_done]):
            jobs = [says("before"), *map(_Job, failing), says("after")]
            writer._do(jobs)
            assert [type(job.error) for job in jobs] == [type(None), *[LookupError] * len(failing), type(None)]
        view = storage.read("a", Want(messages=20, order="oldest"))
        assert [message.content for message in view.messages] == ["before", "after"] * 3
        assert [message.seq for message in view.messages] == [1, 2, 3, 4, 5, 6]
        assert view.metadata.purpose is None
