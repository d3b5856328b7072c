"""A folder of sessions after what may befall it: a crash in the middle, an index that is gone or behind."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mcp_sessions import SessionManager
from mcp_sessions.errors import InvocationConflictError, SessionNotFoundError, StorageError
from mcp_sessions.models import Query
from mcp_sessions.storage import FileSystemSessionStorage
from mcp_sessions.storage.files.folder import LOG
from mcp_sessions.testing.making import contents, does, head, ids, said, say, values
from tests.processes import Child, full_counts, until
from tests.storage.disks import Disk
from tests.storage.recording import Recorder

MOVED = "ends of logs that were moved away"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with Disk(tmp_path / "disk") as disk:
        yield disk


def made(folder: Path) -> Path:
    """A store with two sessions, closed."""
    with FileSystemSessionStorage(folder) as storage:
        for name in "ab":
            storage.create(head(name), say(said("1", f"first of {name}")))
    return folder


def test_an_index_that_is_gone_is_made_anew_whatever_was_being_written(tmp_path: Path) -> None:
    """The store did not open: what was being written was looked at in an index that had no tables yet."""
    folder = made(tmp_path / "sessions")
    for file in (folder / ".index").glob("index.db*"):
        file.unlink()
    (folder / ".index" / "underway").write_text('["prc_1","a","c"]\n', encoding="utf-8")
    (folder / "c").mkdir()
    with FileSystemSessionStorage(folder) as storage:
        assert ids(storage, Query(order="created", reverse=True)) == ["a", "b"]
        assert contents(storage, "a") == ["first of a"]
        assert {finding.level for finding in storage.check()} == {"ok"}


def test_a_change_of_two_sessions_that_reached_one_log_before_a_power_cut_is_whole(tmp_path: Path) -> None:
    """The other log got its line, but it was not seen until that session was written to again."""
    before, folder = made(tmp_path / "before"), tmp_path / "after"
    shutil.copytree(before, tmp_path / "sessions")
    with FileSystemSessionStorage(tmp_path / "sessions") as storage:
        storage.commit("a", does(messages=(said("2", "of both"),), also=(("b", say(said("2", "of both"))),)))
        shutil.copytree(tmp_path / "sessions", folder)
    for name in (".index", "b"):
        shutil.rmtree(folder / name)
        (before / name).rename(folder / name)
    with FileSystemSessionStorage(folder) as storage:
        assert contents(storage, "a") == ["first of a", "of both"]
        assert contents(storage, "b") == ["first of b", "of both"]


def test_a_log_that_ends_anywhere_in_its_last_line_keeps_all_lines_before_it(tmp_path: Path) -> None:
    """And the store goes on: whatever is left of a line is not taken for one, and nothing is written behind it."""
    folder = made(tmp_path / "sessions")
    before = (folder / "a" / LOG).read_bytes()
    with FileSystemSessionStorage(folder) as storage:
        storage.commit("a", say(said("2", "cut off")))
    whole = (folder / "a" / LOG).read_bytes()
    assert whole.startswith(before)
    sizes = range(len(before), len(whole))
    for size in sizes if full_counts() else (*sizes[::17], sizes[-1]):  # where the end of the line alone is missing
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy)
        os.truncate(copy / "a" / LOG, size)
        with FileSystemSessionStorage(copy, durability="process") as storage:
            assert contents(storage, "a") == ["first of a"]
            assert storage.commit("a", say(said("3", "goes on"))).seqs == [2]
        with FileSystemSessionStorage(copy, durability="process") as storage:
            assert contents(storage, "a") == ["first of a", "goes on"]
            assert contents(storage, "b") == ["first of b"]
            assert {finding.what for finding in storage.check() if finding.level != "ok"} <= {MOVED}
        shutil.rmtree(copy)


def test_a_read_only_disk_is_a_clear_error(disk: Disk) -> None:
    folder = made(disk.path / "sessions")
    disk.read_only()
    for path in (folder, disk.path / "new", disk.path / "new" / "sessions"):
        with pytest.raises(StorageError, match=str(disk.path)):
            FileSystemSessionStorage(path)
    disk.writable()
    with FileSystemSessionStorage(folder) as storage:
        assert contents(storage, "a") == ["first of a"]
        storage.commit("a", say(said("2", "accepted")))


def test_a_file_in_the_way_of_the_folder_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file", encoding="utf-8")
    for path in (tmp_path / "file", tmp_path / "file" / "sessions"):
        with pytest.raises(StorageError, match=str(tmp_path / "file")):
            FileSystemSessionStorage(path)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "a file"


def test_a_folder_that_is_taken_away_while_open_takes_no_writes(tmp_path: Path) -> None:
    folder = made(tmp_path / "sessions")
    with FileSystemSessionStorage(folder) as storage:
        folder.rename(tmp_path / "elsewhere")
        for _ in range(2):
            with pytest.raises(StorageError):
                storage.commit("a", say(said("2", "into nothing")))
            with pytest.raises(StorageError):
                storage.create(head("c"))
    with FileSystemSessionStorage(tmp_path / "elsewhere") as storage:
        assert contents(storage, "a") == ["first of a"]


class Meddling(Recorder):
    """Does something to a session's folder in the middle of a call: before its log is opened."""

    act: Callable[[], object] | None = None

    def before(self, real: Callable[..., Any]) -> None:
        if self.act is not None and real.__name__ == "open":
            act, self.act = self.act, None
            act()


def test_a_session_whose_folder_is_removed_in_the_middle_of_a_call_takes_no_write(tmp_path: Path) -> None:
    folder = made(tmp_path / "sessions")
    with Meddling(folder) as disk, FileSystemSessionStorage(folder) as storage:
        storage.commit("b", say(said("2", "second of b")))
        disk.act = lambda: shutil.rmtree(folder / "a")
        with pytest.raises((StorageError, SessionNotFoundError)):
            storage.commit("a", say(said("2", "into nothing")))
        assert disk.act is None
        storage.commit("b", say(said("3", "third of b")))
    assert not (folder / "a").exists()
    with FileSystemSessionStorage(folder) as storage:
        assert ids(storage) == ["b"]
        assert {finding.level for finding in storage.check()} == {"ok"}


def delete_and_make(folder: str, again: bool) -> None:
    """Delete session a, and make another one of its id."""
    with FileSystemSessionStorage(folder) as storage:
        storage.delete("a", does())
        if again:
            storage.create(head("a"), say(said("1", "of another")))


@pytest.mark.parametrize("again", [False, True], ids=["gone", "another one"])
def test_a_session_that_another_process_deletes_in_the_middle_of_a_call_takes_no_write(
    tmp_path: Path, again: bool
) -> None:
    folder = made(tmp_path / "sessions")
    with SessionManager(FileSystemSessionStorage(folder)) as manager:
        refusal = InvocationConflictError if again else SessionNotFoundError
        with pytest.raises(refusal), manager.call("tool", "a", slow=True) as call:
            call.draft.set_value("k", 1)
            with Child(delete_and_make, str(folder), again) as other:
                other.ends_well()
        assert (manager.get_session("a") is not None) == again
    assert (folder / "a").exists() == again
    with FileSystemSessionStorage(folder) as storage:
        assert ids(storage) == (["a", "b"] if again else ["b"])
        assert not again or (contents(storage, "a"), values(storage, "a")) == (["of another"], {})
        assert {finding.level for finding in storage.check()} == {"ok"}


def test_a_log_that_another_program_writes_in_the_middle_of_a_call_keeps_what_it_wrote(tmp_path: Path) -> None:
    folder = made(tmp_path / "sessions")
    log = folder / "a" / LOG
    with Meddling(folder) as disk, FileSystemSessionStorage(folder) as storage:
        storage.commit("a", say(said("2", "second of a")))
        before = log.read_bytes()
        disk.act = lambda: log.write_bytes(before + b"{")
        with pytest.raises(StorageError, match="was changed by another program"):
            storage.commit("a", say(said("3", "over it")))
        assert log.read_bytes() == before + b"{"
        storage.commit("a", say(said("3", "third of a")))
        assert contents(storage, "a") == ["first of a", "second of a", "third of a"]
    assert log.with_name("log.torn-3").read_bytes() == b"{"


def test_a_log_that_becomes_a_link_in_the_middle_of_a_call_is_not_written_through(tmp_path: Path) -> None:
    folder, outside = made(tmp_path / "sessions"), tmp_path / "outside"
    log = folder / "a" / LOG

    def link() -> None:
        log.rename(outside)
        log.symlink_to(outside)

    with Meddling(folder) as disk, FileSystemSessionStorage(folder) as storage:
        storage.commit("a", say(said("2", "second of a")))
        before = log.read_bytes()
        disk.act = link
        with pytest.raises(StorageError):
            storage.commit("a", say(said("3", "through a link")))
        assert log.is_symlink()
    assert outside.read_bytes() == before


def test_a_link_that_takes_the_place_of_a_session_while_open_is_not_written_through(tmp_path: Path) -> None:
    folder, outside = made(tmp_path / "sessions"), tmp_path / "outside"
    with FileSystemSessionStorage(folder) as storage:
        (folder / "a").rename(outside)
        (folder / "a").symlink_to(outside, target_is_directory=True)
        before = (outside / LOG).read_bytes()
        with pytest.raises(StorageError):
            storage.commit("a", say(said("2", "through a link")))
        storage.commit("b", say(said("2", "second of b")))
    assert (outside / LOG).read_bytes() == before


def test_a_change_of_two_sessions_is_whole_whatever_else_its_batch_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was committed before what its batch appended to one of them, and could not follow there after a crash."""
    folder, moments, write = made(tmp_path / "sessions"), [tmp_path / "moments"], os.pwrite

    def pwrite(*args: Any) -> int:
        moments.append(moments[0] / str(len(moments)))
        shutil.copytree(folder, moments[-1])
        return write(*args)

    with FileSystemSessionStorage(folder) as storage:
        writer = storage._here().writer
        go, inside = threading.Event(), threading.Event()
        both = does(messages=(said("3", "of both"),), also=(("b", say(said("3", "of both"))),))
        works: list[Any] = [
            lambda: writer.run(lambda db: inside.set() or go.wait()),
            lambda: storage.commit("a", say(said("2", "second"))),
            lambda: storage.commit("a", both),
        ]
        threads = [threading.Thread(target=work) for work in works]
        for waiting, thread in enumerate(threads):
            thread.start()
            until(lambda waiting=waiting: inside.is_set() and len(writer._queue) == waiting)
        monkeypatch.setattr(os, "pwrite", pwrite)
        go.set()
        for thread in threads:
            thread.join()
        monkeypatch.undo()
    assert len(moments) > 3
    for moment in moments[1:]:
        with FileSystemSessionStorage(moment) as storage:
            assert ("of both" in contents(storage, "a")) == ("of both" in contents(storage, "b"))
