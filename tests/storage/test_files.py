"""What a person finds in the folder, and what happens where the folder is not as it was left."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from mcp_sessions import FileSystemSessionStorage, SessionExistsError, SessionNotFoundError, StorageError
from mcp_sessions._os import FileLock
from mcp_sessions.errors import SchemaChangedError
from mcp_sessions.models import Alter, InvocationQuery, Query, SessionStatus, Want
from mcp_sessions.storage.files.legacy import legacy_sessions, read_legacy
from mcp_sessions.storage.files.lines import TAIL, Place, sealed
from mcp_sessions.storage.sqlite.connecting import PAGE_BYTES
from mcp_sessions.testing.making import called, contents, does, everything, head, hits, ids, said, say, values
from tests.processes import LONG_S, Child, hear, until
from tests.processes import say as tell
from tests.storage.legacy_tree import contents as files
from tests.storage.legacy_tree import tree

WITHOUT_INDEX = shutil.ignore_patterns(".index")
RICH = "session_20251105_100000_0a1b2c3d"


def opened(folder: Path, **options: Any) -> FileSystemSessionStorage:
    return FileSystemSessionStorage(folder / "sessions", durability="process", **options)


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def faults(storage: FileSystemSessionStorage) -> list[str]:
    return [f"{finding.what}: {finding.detail}" for finding in storage.check() if finding.level != "ok"]


# what is there to read


def test_a_session_is_a_folder_that_can_be_read(tmp_path: Path) -> None:
    with opened(tmp_path) as storage:
        storage.create(head("notes", purpose="Keep notes", tags=["a"]))
        storage.commit("notes", does(messages=(said("m", "Grüße"), said("n", "two")), set={"k": {"b": [1]}, ".i": 2}))
    folder = tmp_path / "sessions" / "notes"
    assert read(folder / "metadata.json")["purpose"] == "Keep notes"
    assert read(folder / "metadata.json")["message_count"] == 2
    assert [(line["seq"], line["content"]) for line in lines(folder / "conversation.jsonl")] == [
        (1, "Grüße"),
        (2, "two"),
    ]
    assert read(folder / "data.json") == {"k": {"b": [1]}}
    assert "Grüße" in (folder / "log.jsonl").read_text(encoding="utf-8")
    assert [line["line"] for line in lines(folder / "log.jsonl")] == [1, 2]


def test_a_call_of_work_is_found_from_either_side(tmp_path: Path) -> None:
    with opened(tmp_path) as storage:
        storage.create(head("s"), does(records=(called("Call.1", tool_name="git/log", kind="work"),)))
        storage.commit("s", does(records=(called("own", tool_name="session_get", kind="session"),)))
    folder = tmp_path / "sessions" / "s"
    assert [call["invocation_id"] for call in read(folder / "invocations.json")] == ["Call.1"]
    (link,) = (folder / "invocations").iterdir()
    assert read(link / "record.json")["tool_name"] == "git/log"
    (place,) = (tmp_path / "sessions" / ".history").iterdir()
    assert link.resolve() == place
    assert place.name.endswith("_git%2flog_%43all.1")
    assert read(place / "record.json")["session_id"] == "s"


def test_where_no_links_can_be_made_a_file_tells_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "symlink")
    with opened(tmp_path) as storage:
        storage.create(head("s"), does(records=(called("c", kind="work"),)))
        link = tmp_path / "sessions" / "s" / "invocations" / "c"
        storage.commit("s", does(alter=Alter(status=SessionStatus.COMPLETED)))
    assert read(link.parent / link.read_text(encoding="utf-8").strip() / "record.json")["invocation_id"] == "c"
    with opened(tmp_path) as storage:
        storage.delete("s", does())
        assert list((tmp_path / "sessions" / ".history").iterdir()) == []


def test_the_conversation_is_told_with_each_commit(tmp_path: Path) -> None:
    told = tmp_path / "sessions" / "s" / "conversation.jsonl"
    with opened(tmp_path) as storage, opened(tmp_path) as other:
        storage.create(head("s"))
        for number in range(1, 7):
            (storage, other)[number % 2].commit("s", say(said(f"m{number}", f"word {number}")))
            assert [line["seq"] for line in lines(told)] == list(range(1, number + 1))


def test_what_was_retracted_leaves_what_people_read(tmp_path: Path) -> None:
    folder = tmp_path / "sessions" / "s"
    with opened(tmp_path) as storage:
        storage.create(head("s"), say(said("m", "secret"), said("n", "kept")))
        storage.commit("s", does(retract=((1, 1),)))
    assert [line["content"] for line in lines(folder / "conversation.jsonl")] == ["kept"]
    assert "secret" not in (folder / "log.jsonl").read_text(encoding="utf-8")
    with opened(tmp_path) as storage:
        storage.commit("s", say(said("o", "more")))
        assert [line["content"] for line in lines(folder / "conversation.jsonl")] == ["kept", "more"]
        assert faults(storage) == []


def test_what_was_retracted_leaves_what_people_read_after_a_crash_too(tmp_path: Path) -> None:
    """The conversation had the size that it had before, so nobody looked into it."""
    with opened(tmp_path / "before") as storage:
        storage.create(head("s"), say(said("m", "secret"), said("n", "kept")))
    with opened(tmp_path / "before") as storage:
        storage.commit("s", does(retract=((1, 1),)))
        shutil.copytree(tmp_path / "before", tmp_path / "after")
    with opened(tmp_path / "after"):
        pass
    told = tmp_path / "after" / "sessions" / "s" / "conversation.jsonl"
    assert [line["content"] for line in lines(told)] == ["kept"]


def test_a_deleted_session_leaves_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as storage:
        storage.create(head("s"), does(messages=(said("m", "x"),), records=(called("c", kind="work"),)))
    with opened(tmp_path) as storage:
        storage.delete("s", does(records=(called("d", kind="session"),)))
        assert not (tmp_path / "sessions" / "s").exists()
        assert list((tmp_path / "sessions" / ".history").iterdir()) == []
        assert list((tmp_path / "sessions" / ".store").iterdir()) == [tmp_path / "sessions" / ".store" / "log.jsonl"]


def test_views_that_are_behind_are_brought_up_by_the_next_opening(tmp_path: Path) -> None:
    folder = tmp_path / "sessions" / "s"
    with opened(tmp_path) as storage:
        storage.create(head("s"), does(set={"k": 1}, records=(called("c", kind="work"),)))
    shutil.copytree(tmp_path, tmp_path.parent / "before")
    with opened(tmp_path) as storage:
        storage.commit("s", does(set={"k": 2}, messages=(said("m", "x"),), records=(called("e", kind="work"),)))
    for name in ("data.json", "metadata.json", "invocations.json"):
        shutil.copy(tmp_path.parent / "before" / "sessions" / "s" / name, folder / name)
    (folder / "conversation.jsonl").unlink()
    shutil.rmtree(tmp_path / "sessions" / ".index")
    with opened(tmp_path):
        pass
    assert read(folder / "data.json") == {"k": 2}
    assert read(folder / "metadata.json")["message_count"] == 1
    assert [line["content"] for line in lines(folder / "conversation.jsonl")] == ["x"]
    assert {call["invocation_id"] for call in read(folder / "invocations.json")} == {"c", "e"}


def test_a_folder_that_somebody_removes_is_not_made_again_by_its_views(tmp_path: Path) -> None:
    """Its views looked like a session of the old layout, which the next opening adopted."""
    with opened(tmp_path) as storage:
        storage.create(head("s"), does(messages=(said("m", "x"),), records=(called("c", kind="work"),)))
        shutil.rmtree(tmp_path / "sessions" / "s")
    assert not (tmp_path / "sessions" / "s").exists()
    assert not (tmp_path / "sessions" / ".history").exists()
    with opened(tmp_path) as storage:
        assert ids(storage) == []


def test_views_that_cannot_be_written_wait_before_they_are_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They were tried thousands of times a second, with a warning each."""
    with opened(tmp_path) as storage:
        storage.create(head("s"))
        (tmp_path / "sessions" / "s" / "metadata.json").mkdir()
        until(lambda: "s is behind" in caplog.text)
        storage.create(head("t"))
        until((tmp_path / "sessions" / "t" / "metadata.json").exists)
        assert len(caplog.records) == 1


def test_who_holds_up_the_views_of_many_sessions_holds_up_the_end_once(tmp_path: Path) -> None:
    """The end waited for each of them."""
    storage = opened(tmp_path)
    for number in range(40):
        storage.create(head(f"s{number}"))
    lock = FileLock(tmp_path / "sessions" / ".index" / "views")
    assert lock.acquire(LONG_S)
    closing = threading.Thread(target=storage.close, daemon=True)
    closing.start()
    closing.join(LONG_S)
    lock.close()
    assert not closing.is_alive()


@pytest.mark.parametrize("target", [b"", b"..", b"/", b"\xff"])
def test_a_link_that_names_no_call_takes_nothing_else_with_it(tmp_path: Path, target: bytes) -> None:
    """With its session went all that was told of other calls, or the whole folder."""
    with opened(tmp_path) as storage:
        for name in "st":
            storage.create(head(name), does(records=(called(f"of-{name}", kind="work"),)))
    (tmp_path / "sessions" / "s" / "invocations" / "torn").write_bytes(target)
    with opened(tmp_path) as storage:
        storage.delete("s", does())
        assert ids(storage) == ["t"]
    assert read(tmp_path / "sessions" / "t" / "invocations" / "of-t" / "record.json")["session_id"] == "t"
    assert len(list((tmp_path / "sessions" / ".history").iterdir())) == 1


def test_calls_of_long_names_are_told_too(tmp_path: Path) -> None:
    with opened(tmp_path) as storage:
        storage.create(head("s"), does(records=(called("A" * 66, tool_name="t" * 100, kind="work"),)))
    (link,) = (tmp_path / "sessions" / "s" / "invocations").iterdir()
    assert read(link / "record.json")["invocation_id"] == "A" * 66


def test_no_two_ids_share_a_folder_whatever_the_file_system_thinks_of_case(tmp_path: Path) -> None:
    names = ["abc", "ABC", "Abc", "con", "CON", "nul.txt", "a.", "A" * 128, "a" * 128, "A" * 127 + "B"]
    with opened(tmp_path) as storage:
        for name in names:
            storage.create(head(name), say(said("m", name)))
    folders = [path.name for path in (tmp_path / "sessions").iterdir() if path.name[0] != "."]
    assert len({name.lower() for name in folders}) == len(names)
    assert not any(name.endswith(".") or name.partition(".")[0] in ("con", "nul") for name in folders)
    shutil.rmtree(tmp_path / "sessions" / ".index")
    with opened(tmp_path) as storage:
        assert sorted(ids(storage)) == sorted(names)
        assert all(contents(storage, name) == [name] for name in names)


def test_what_is_told_of_a_call_that_no_session_has_is_found(tmp_path: Path) -> None:
    with opened(tmp_path) as storage:
        storage.create(head("s"), does(records=(called("c", kind="work"),)))
    stray = tmp_path / "sessions" / ".history" / "20260301_120001_grep_other"
    shutil.copytree(tmp_path / "sessions" / "s" / "invocations" / "c", stray)
    with opened(tmp_path) as storage:
        assert faults(storage) == [f"told of calls of no session: 1: {stray}"]


# the index


@pytest.mark.parametrize("damage", ["gone", "emptied", "not SQLite", "older", "of another version"])
def test_an_index_that_cannot_be_used_is_made_again(tmp_path: Path, damage: str) -> None:
    index = tmp_path / "sessions" / ".index" / "index.db"
    with opened(tmp_path) as storage:
        storage.create(head("s", tags=["t"]), does(messages=(said("m", "word"),), set={"k": 1}))
        before = index.read_bytes()
    with opened(tmp_path) as storage:
        storage.commit("s", does(set={"k": 2}, messages=(said("n", "word"),), records=(called("c"),)))
        storage.create(head("t"))
        there = everything(storage, "word", "t")
    if damage == "gone":
        index.unlink()
    elif damage == "of another version":
        with closing(apsw.Connection(str(index))) as db:
            db.execute("ALTER TABLE logs DROP COLUMN told")
    else:
        index.write_bytes({"emptied": b"", "not SQLite": b"x" * 9000, "older": before}[damage])
    with opened(tmp_path) as storage:
        assert everything(storage, "word", "t") == there
        assert faults(storage) == []


def test_an_index_of_a_newer_version_is_left_to_it_and_the_error_says_how_to_go_on_without(tmp_path: Path) -> None:
    folder = tmp_path / "sessions" / ".index"
    with opened(tmp_path) as storage:
        storage.create(head("s"), say(said("m", "word")))
        there = everything(storage, "word")
    with closing(apsw.Connection(str(folder / "index.db"))) as db:
        db.execute("PRAGMA user_version = 99")
    before = (folder / "index.db").read_bytes()
    with pytest.raises(SchemaChangedError, match=rf"version 99.*Upgrade it\. Or .*remove {folder}, "):
        opened(tmp_path)
    assert (folder / "index.db").read_bytes() == before
    shutil.rmtree(folder)
    with opened(tmp_path) as storage:
        assert everything(storage, "word") == there


def test_an_empty_folder_of_somebody_else_stays(tmp_path: Path) -> None:
    """Each opening removed it."""
    with opened(tmp_path) as storage:
        storage.create(head("s"))
    (tmp_path / "sessions" / "mine").mkdir()
    for _ in range(2):
        with opened(tmp_path) as storage, pytest.raises(SessionNotFoundError):
            storage.commit("mine", does(set={"k": 1}))
        assert (tmp_path / "sessions" / "mine").is_dir()
        shutil.rmtree(tmp_path / "sessions" / ".index")


def test_folders_that_come_and_go_by_other_means_are_noticed_when_the_store_is_opened(tmp_path: Path) -> None:
    folder = tmp_path / "sessions"
    with opened(tmp_path) as storage:
        for name in "abc":
            storage.create(head(name), say(said("m", f"word {name}")))
        position = storage.changes(None).next_cursor
    shutil.move(folder / "a", tmp_path / "a")
    shutil.rmtree(folder / "b")
    with opened(tmp_path) as storage:
        assert ids(storage) == ["c"]
        assert hits(storage, "word") == [("c", 1)]
        assert {change.session_id for change in storage.changes(position).items} == {"a", "b"}
        storage.create(head("b"))
    shutil.move(tmp_path / "a", folder / "a")
    with opened(tmp_path) as storage:
        assert sorted(ids(storage)) == ["a", "b", "c"]
        assert contents(storage, "a") == ["word a"]
        assert contents(storage, "b") == []


def test_folders_of_two_stores_can_be_put_together(tmp_path: Path) -> None:
    for number in "12":
        with opened(tmp_path / number) as storage:
            for name in "ab":
                storage.create(head(name + number), does(messages=(said("m", f"word {name}"),), set={"k": number}))
    for name in "ab":
        shutil.copytree(tmp_path / "2" / "sessions" / f"{name}2", tmp_path / "1" / "sessions" / f"{name}2")
    with opened(tmp_path / "1") as storage:
        assert sorted(ids(storage)) == ["a1", "a2", "b1", "b2"]
        assert values(storage, "b2") == {"k": "2"}
        storage.commit("b2", does(set={"k": 3}))
        assert faults(storage) == []


def test_a_deleted_session_that_somebody_puts_back_stays_when_the_index_is_made_again(tmp_path: Path) -> None:
    """Its deletion, long done, was done again."""
    with opened(tmp_path) as storage:
        storage.create(head("s"), say(said("m", "one")))
    shutil.copytree(tmp_path / "sessions" / "s", tmp_path / "copy")
    with opened(tmp_path) as storage:
        storage.delete("s", does(records=(called("d", kind="session"),)))
        storage.commit(None, does(records=(called("l", kind="session"),)))
    shutil.move(tmp_path / "copy", tmp_path / "sessions" / "s")
    with opened(tmp_path) as storage:
        storage.commit("s", say(said("n", "two")))
    shutil.rmtree(tmp_path / "sessions" / ".index")
    with opened(tmp_path) as storage:
        assert contents(storage) == ["one", "two"]


# damage


def test_a_torn_end_is_moved_away_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with opened(tmp_path) as storage:
        storage.create(head("s"), say(said("m", "one")))
    log = tmp_path / "sessions" / "s" / "log.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole + b'{"line":2,"head":{"rev')
    with opened(tmp_path) as storage:
        assert contents(storage) == ["one"]
        assert [finding.what for finding in storage.check() if finding.level == "warning"] == [
            "ends of logs that were moved away"
        ]
    assert log.read_bytes() == whole
    assert (log.parent / "log.torn-2").read_bytes() == b'{"line":2,"head":{"rev'
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "22 bytes" in caplog.text


def test_a_damaged_line_is_read_up_to_and_nothing_is_written_after_it(tmp_path: Path) -> None:
    with opened(tmp_path) as storage:
        storage.create(head("s"), say(said("m", "one")))
        for n in range(3):
            storage.commit("s", say(said(f"n{n}", f"two {n}")))
        storage.create(head("t"))
    log = tmp_path / "sessions" / "s" / "log.jsonl"
    data = log.read_bytes().replace(b"two 1", b"two 9")
    log.write_bytes(data)
    with opened(tmp_path) as storage:
        assert contents(storage) == ["one", "two 0"]
        with pytest.raises(StorageError, match=r"s/log\.jsonl: line 3 is damaged.*mcp-sessions doctor --repair"):
            storage.commit("s", say(said("o", "more")))
        assert storage.commit("t", say(said("o", "more"))).seqs == [1]
        assert [fault for fault in faults(storage) if "line 3 is damaged" in fault]
    assert log.read_bytes() == data
    with opened(tmp_path) as storage:
        with pytest.raises(StorageError, match="line 3"):
            storage.commit("s", does(set={"k": 1}))


def test_a_committed_last_line_that_is_damaged_is_not_taken_for_a_torn_one(tmp_path: Path) -> None:
    """It was moved aside as one that nobody had been told of, and the session went on without it."""
    with opened(tmp_path) as storage:
        storage.create(head("s"), say(said("m", "one")))
        storage.commit("s", say(said("n", "two")))
    log = tmp_path / "sessions" / "s" / "log.jsonl"
    data = log.read_bytes().replace(b"two", b"tvo")
    log.write_bytes(data)
    for _ in range(2):
        with opened(tmp_path) as storage:
            assert contents(storage) == ["one"]
            with pytest.raises(StorageError, match=r"s/log\.jsonl: line 2 is damaged.*mcp-sessions doctor --repair"):
                storage.commit("s", say(said("o", "more")))
            assert [fault for fault in faults(storage) if "line 2 is damaged" in fault]
        log.touch()
    assert log.read_bytes() == data
    with opened(tmp_path) as storage:
        storage.repair()
        assert storage.commit("s", say(said("o", "more"))).seqs == [2]
        assert contents(storage) == ["one", "more"]
    assert data.endswith(log.with_name("log.damaged-2").read_bytes())


def test_a_committed_last_line_that_changes_behind_the_back_of_the_store_is_repaired_as_damage(tmp_path: Path) -> None:
    """As on a disk that lies: when the file was changed last does not tell."""
    with opened(tmp_path) as storage:
        storage.create(head("s"), say(said("m", "one")))
        storage.commit("s", say(said("n", "two")))
    log = tmp_path / "sessions" / "s" / "log.jsonl"
    stat = log.stat()
    log.write_bytes(log.read_bytes().replace(b"two", b"tvo"))
    os.utime(log, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with opened(tmp_path) as storage:
        assert [fault for fault in faults(storage) if "line 2 is not as it was written" in fault]
        (done, *_) = storage.repair()
        assert f"what followed is in {log.with_name('log.damaged-2')}" in done.detail
        assert contents(storage) == ["one"]


def test_a_committed_last_line_that_was_cut_is_moved_away_and_told_as_such(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(tmp_path) as storage:
        storage.create(head("s"), say(said("m", "one")))
        storage.commit("s", say(said("n", "two")))
    log = tmp_path / "sessions" / "s" / "log.jsonl"
    os.truncate(log, log.stat().st_size - 9)
    with opened(tmp_path) as storage:
        assert contents(storage) == ["one"]
        assert storage.commit("s", say(said("o", "more"))).seqs == [2]
    assert log.with_name("log.torn-2").exists()
    assert "which had been committed and was cut since" in caplog.text


def test_erasing_throws_nothing_away_that_stands_behind_a_damaged_line(tmp_path: Path) -> None:
    """The log was written anew up to that line, and no more."""
    log = tmp_path / "sessions" / "s" / "log.jsonl"
    with opened(tmp_path) as storage:
        storage.create(head("s"), say(said("m", "one")))
        for n in range(3):
            storage.commit("s", say(said(f"n{n}", f"two {n}")))
        storage.commit("s", does(retract=((1, 1),)))
        data = log.read_bytes().replace(b"two 1", b"two 9")
        log.write_bytes(data)
    assert log.read_bytes() == data
    with opened(tmp_path) as storage:
        assert [fault for fault in faults(storage) if "line 3 is damaged" in fault]


def test_a_link_in_the_place_of_a_session_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    with opened(tmp_path) as storage:
        storage.create(head("mine"))
        (tmp_path / "sessions" / "s").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(StorageError, match="link"):
            storage.create(head("s"))
        with pytest.raises(SessionNotFoundError):
            storage.read("s", Want())
        (tmp_path / "sessions" / "theirs").symlink_to(tmp_path / "sessions" / "mine")
    with opened(tmp_path) as storage:
        assert ids(storage) == ["mine"]
        assert [fault for fault in faults(storage) if "is a link: 2: " in fault]
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_copy_of_a_folder_under_another_name_is_no_session(tmp_path: Path) -> None:
    with opened(tmp_path) as storage:
        storage.create(head("s"))
    shutil.copytree(tmp_path / "sessions" / "s", tmp_path / "sessions" / "copy")
    with opened(tmp_path) as storage:
        assert ids(storage) == ["s"]
        assert [fault for fault in faults(storage) if "it is of session s" in fault]
        assert storage.find(Query()).next_cursor is None


def test_a_damaged_log_is_put_in_order_and_the_rest_kept_beside_it(tmp_path: Path) -> None:
    with opened(tmp_path) as storage:
        storage.create(head("s"), say(said("m", "one")))
        for n in range(3):
            storage.commit("s", say(said(f"n{n}", f"two {n}")))
    log = tmp_path / "sessions" / "s" / "log.jsonl"
    data = log.read_bytes().replace(b"two 1", b"two 9")
    log.write_bytes(data)
    with opened(tmp_path) as storage:
        (done,) = storage.repair()
        assert "log.damaged-3" in done.detail
        assert faults(storage) == [f"ends of logs that were moved away: 1: {log.with_name('log.damaged-3')}"]
        assert storage.commit("s", say(said("o", "more"))).seqs == [3]
        assert contents(storage) == ["one", "two 0", "more"]
        assert storage.repair() == []
    assert log.read_bytes().startswith(data[: data.index(b'{"line":3')])
    assert log.with_name("log.damaged-3").read_bytes() == data[data.index(b'{"line":3') :]


def test_rows_that_do_not_tell_what_a_log_says_are_found_and_made_again(tmp_path: Path) -> None:
    with opened(tmp_path) as storage:
        storage.create(head("s"), say(said("m", "one")))
        storage._here().writer.run(lambda db: db.execute("UPDATE sessions SET revision = 9").fetchall())
        assert [fault for fault in faults(storage) if "does not tell what stands there" in fault]
        assert len(storage.repair()) == 1
        assert faults(storage) == []
        assert storage.commit("s", does(set={"k": 1})).revision == 2


def test_a_log_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    with opened(tmp_path) as storage:
        storage.create(head("s"))
    log = tmp_path / "sessions" / "s" / "log.jsonl"
    text, _ = sealed(log.read_text(encoding="utf-8").replace('"format":1', '"format":2')[:-TAIL], Place())
    log.write_bytes(text)
    with opened(tmp_path) as storage:
        with pytest.raises(StorageError, match=r"has format 2.*Upgrade it"):
            storage.create(head("s"))
        assert storage.repair() == []
        assert [one.next for one in storage.check() if one.level == "fault"] == [
            "python -m pip install --upgrade mcp-sessions"
        ]
    assert log.read_bytes() == text


# the old layout


def test_sessions_of_the_old_layout_are_adopted_and_nothing_of_them_is_lost(tmp_path: Path) -> None:
    sessions = tree(tmp_path)
    (sessions / RICH / "notes.txt").write_text("mine", encoding="utf-8")
    views = {view.metadata.session_id: view for view in map(read_legacy, legacy_sessions(sessions))}
    for _ in range(2):
        with FileSystemSessionStorage(sessions, durability="process") as storage:
            assert sorted(ids(storage)) == sorted(views)
            for name, view in views.items():
                want = Want(any_keys=1000, messages=1000, order="oldest", records=1000)
                now = storage.read(name, want)
                assert (now.metadata, now.messages, now.data) == (view.metadata, view.messages, view.data)
                assert {one.invocation_id for one in now.records} == {one.invocation_id for one in view.records}
            assert [fault for fault in faults(storage) if "old layout" in fault] == []
        shutil.rmtree(sessions / ".index")
    assert (sessions / RICH / "notes.txt").read_text(encoding="utf-8") == "mine"
    assert read(sessions / RICH / "metadata.json")["revision"] == 1


def test_an_old_session_that_cannot_be_read_is_left_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sessions = tree(tmp_path)
    (sessions / "bad").mkdir()
    (sessions / "bad" / "metadata.json").write_text("{", encoding="utf-8")
    with FileSystemSessionStorage(sessions, durability="process") as storage:
        assert RICH in ids(storage)
        assert "bad" not in ids(storage)
        (fault,) = faults(storage)
        assert fault.startswith(f"a session of the old layout: {sessions / 'bad'} is left as it is: ")
        assert "is not JSON" in fault
    assert "bad" in caplog.text
    assert [path.name for path in (sessions / "bad").iterdir()] == ["metadata.json"]


def test_nothing_is_written_over_an_old_session_that_cannot_be_read(tmp_path: Path) -> None:
    """Its id looked free, and the views of a new session of that id took the place of its files."""
    old = tree(tmp_path) / "default"
    with (old / "conversation.jsonl").open("a", encoding="utf-8") as told:
        told.write("{}}\n")
    before = files(old)
    for _ in range(2):
        with FileSystemSessionStorage(old.parent, durability="process") as storage:
            with pytest.raises(
                StorageError, match=r"default/conversation\.jsonl, line 2, is not JSON.* then try again"
            ):
                storage.create(head("default"), say(said("m", "new")))
        assert files(old) == before
    with (old / "conversation.jsonl").open("r+", encoding="utf-8") as told:
        told.truncate(old.joinpath("conversation.jsonl").stat().st_size - len("{}}\n"))
    with FileSystemSessionStorage(old.parent, durability="process") as storage:
        assert contents(storage, "default") == ["hi"]


def test_an_old_session_that_arrives_while_the_store_is_open_is_adopted_when_it_is_written_to(tmp_path: Path) -> None:
    sessions = tree(tmp_path / "old")
    with opened(tmp_path) as storage:
        for name in ("default", RICH):
            shutil.move(sessions / name, tmp_path / "sessions" / name)
        with pytest.raises(SessionExistsError):
            storage.create(head("default"), say(said("m", "new")))
        assert contents(storage, "default") == ["hi"]
        assert storage.commit(RICH, say(said("m", "new"))).seqs == [4]
        assert contents(storage, RICH) == ["Which tag is the last?", "v1.2", "v1.2 🎉", "new"]
        assert values(storage, RICH)["last_tag"] == "v1.2"


def test_a_session_whose_log_is_gone_is_told_and_not_taken_for_one_of_the_old_layout(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It was made again from its views, its calls with a new id and an unknown tool."""
    folder = tmp_path / "sessions" / "s"
    with opened(tmp_path) as storage:
        storage.create(head("s"), does(messages=(said("m", "one"),), records=(called("c", kind="work"),)))
    log = (folder / "log.jsonl").rename(tmp_path / "log.jsonl")
    before = files(folder)
    for _ in range(2):
        caplog.clear()
        with opened(tmp_path) as storage:
            assert f"{folder} is left as it is: its log is not there" in caplog.text
            assert ids(storage) == []
            assert f"sessions without their log: 1: {folder}" in faults(storage)
            with pytest.raises(StorageError, match=r"without the log of its session.*Put log\.jsonl back"):
                storage.create(head("s"), say(said("m", "new")))
        assert files(folder) == before
    log.rename(folder / "log.jsonl")
    with opened(tmp_path) as storage:
        assert contents(storage) == ["one"]
        assert faults(storage) == []


@pytest.mark.parametrize("name", ["conversation.jsonl", "data.json", "invocations.json"])
def test_nothing_is_written_over_a_file_that_is_named_like_a_view(tmp_path: Path, name: str) -> None:
    with opened(tmp_path) as storage:
        (tmp_path / "sessions" / "s").mkdir()
        (tmp_path / "sessions" / "s" / name).write_text("mine", encoding="utf-8")
        with pytest.raises(StorageError, match=rf"s/{name} stands there"):
            storage.create(head("s"), does(messages=(said("m", "x"),), records=(called("c", kind="work"),)))
    assert files(tmp_path / "sessions" / "s") == {name: b"mine"}


def test_after_a_retraction_the_conversation_is_told_with_each_commit_again(tmp_path: Path) -> None:
    told = tmp_path / "sessions" / "s" / "conversation.jsonl"
    with opened(tmp_path) as storage:
        storage.create(head("s"), say(said("m", "one"), said("n", "two")))
        storage.commit("s", does(retract=((1, 1),)))
        until(lambda: [line["seq"] for line in lines(told)] == [2])
        for number in range(3, 6):
            storage.commit("s", say(said(f"m{number}", "word")))
            assert [line["seq"] for line in lines(told)] == list(range(2, number + 1))


def test_a_change_of_several_sessions_is_whole_wherever_its_writer_died(tmp_path: Path) -> None:
    """The line in the store's own log commits it; what the others lack is brought to them."""
    with opened(tmp_path) as storage:
        for name in "ab":
            storage.create(head(name))
    before = {name: (tmp_path / "sessions" / name / "log.jsonl").read_bytes() for name in "ab"}
    with opened(tmp_path) as storage:
        storage.commit("a", does(set={"k": 1}, also=(("b", does(set={"k": 2}, messages=(said("m", "x"),))),)))
        there = everything(storage, "x")
        shared = tmp_path / "sessions" / ".store" / "log.jsonl"
        committed = shared.read_bytes()
    for missing in ("a", "b", "ab"):
        shutil.rmtree(tmp_path / "sessions" / ".index")
        shared.write_bytes(committed)
        for name in missing:
            (tmp_path / "sessions" / name / "log.jsonl").write_bytes(before[name])
        with opened(tmp_path) as storage:
            assert everything(storage, "x") == there
            assert faults(storage) == []


def test_a_session_that_is_put_back_stays_although_its_deletion_was_the_last_of_all(tmp_path: Path) -> None:
    folder = tmp_path / "sessions" / "s"
    with opened(tmp_path) as storage:
        storage.create(head("s"), say(said("m", "one")))
    shutil.copytree(folder, tmp_path / "kept")
    with opened(tmp_path) as storage:
        storage.delete("s", does())
    shutil.copytree(tmp_path / "kept", folder)
    with opened(tmp_path) as storage:
        storage.commit("s", say(said("n", "two")))
    shutil.rmtree(tmp_path / "sessions" / ".index")
    with opened(tmp_path) as storage:
        assert contents(storage) == ["one", "two"]


def test_a_session_that_is_put_back_from_an_older_copy_of_the_store_stays(tmp_path: Path) -> None:
    """Its deletion was taken for one that was cut off, and was finished."""
    with opened(tmp_path) as storage:
        for name in ("keep", "other"):
            storage.create(head(name), say(said("m", name)))
    shutil.copytree(tmp_path / "sessions", tmp_path / "monday", ignore=WITHOUT_INDEX)
    with opened(tmp_path) as storage:
        storage.delete("keep", does())
    shutil.copytree(tmp_path / "sessions", tmp_path / "restored" / "sessions", ignore=WITHOUT_INDEX)
    shutil.move(tmp_path / "monday" / "keep", tmp_path / "restored" / "sessions" / "keep")
    with opened(tmp_path / "restored") as storage:
        assert sorted(ids(storage)) == ["keep", "other"]
        assert contents(storage, "keep") == ["keep"]
        assert faults(storage) == []


def test_a_session_that_is_put_back_stays_when_the_log_that_deletes_it_is_repaired(tmp_path: Path) -> None:
    shared = tmp_path / "sessions" / ".store" / "log.jsonl"
    with opened(tmp_path) as storage:
        storage.create(head("s"), say(said("m", "one")))
    shutil.copytree(tmp_path / "sessions" / "s", tmp_path / "kept")
    with opened(tmp_path) as storage:
        storage.delete("s", does())
        storage.commit(None, does(records=(called("l", kind="session"),)))
    shutil.move(tmp_path / "kept", tmp_path / "sessions" / "s")
    with opened(tmp_path) as storage:
        assert contents(storage) == ["one"]
    shared.write_bytes(shared.read_bytes().replace(b'"l"', b'"?"'))
    with opened(tmp_path) as storage:
        assert [fault for fault in faults(storage) if f"{shared}: line 2 is damaged" in fault]
        storage.repair()
        assert contents(storage) == ["one"]
        assert storage.commit("s", say(said("n", "two"))).seqs == [2]


def test_a_session_that_was_made_together_with_a_change_of_another_and_deleted_stays_away(tmp_path: Path) -> None:
    """Its first line, which stands in the store's own log too, was brought to it again."""
    with opened(tmp_path) as storage:
        storage.create(head("a"))
        storage.create(head("s"), does(messages=(said("m", "gone"),), also=(("a", does(set={"k": 1})),)))
        storage.delete("s", does(also=(("s", does(set={"k": 1})),)))
        shutil.copytree(
            tmp_path / "sessions", tmp_path / "killed" / "sessions", ignore=shutil.ignore_patterns(".index")
        )
    with opened(tmp_path / "killed") as storage:
        assert ids(storage) == ["a"]
    assert not (tmp_path / "killed" / "sessions" / "s").exists()


def test_a_log_that_was_exchanged_for_one_of_its_size_is_read_before_it_is_written(tmp_path: Path) -> None:
    for name, text in (("1", "aaaa"), ("2", "bbbb")):
        with opened(tmp_path / name) as storage:
            storage.create(head("s"), say(said("m", text)))
    log, other = (tmp_path / name / "sessions" / "s" / "log.jsonl" for name in "12")
    assert log.stat().st_size == other.stat().st_size
    with opened(tmp_path / "1") as storage:
        log.write_bytes(other.read_bytes())
        storage.commit("s", say(said("n", "cccc")))
        assert contents(storage) == ["bbbb", "cccc"]
    shutil.rmtree(tmp_path / "1" / "sessions" / ".index")
    with opened(tmp_path / "1") as storage:
        assert contents(storage) == ["bbbb", "cccc"]
        assert faults(storage) == []


def test_a_log_that_was_exchanged_so_that_no_time_tells_is_not_written_behind(tmp_path: Path) -> None:
    """What was committed behind it was lost with the index: no log went on like that."""
    for name, text in (("1", "aaaa"), ("2", "bbbb")):
        with opened(tmp_path / name) as storage:
            storage.create(head("s"), say(said("m", text)))
    log, other = (tmp_path / name / "sessions" / "s" / "log.jsonl" for name in "12")
    stat = log.stat()
    with opened(tmp_path / "1") as storage:
        log.write_bytes(other.read_bytes())
        os.utime(log, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        with pytest.raises(StorageError, match=r"s/log\.jsonl was changed by another program just now\. Retry\."):
            storage.commit("s", say(said("n", "cccc")))
        storage.commit("s", say(said("n", "cccc")))
        assert contents(storage, "s") == ["bbbb", "cccc"]
        assert faults(storage) == []


def test_a_session_that_came_from_another_store_is_deleted_whole_wherever_its_writer_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "12":
        with opened(tmp_path / name) as storage:
            storage.create(head(name), does(messages=(said("m", name),), records=(called("c", kind="work"),)))
    shutil.copytree(tmp_path / "2" / "sessions" / "2", tmp_path / "1" / "sessions" / "2", symlinks=True)
    with opened(tmp_path / "1"):
        pass
    moments: list[Path] = []

    def dying(act: Callable[..., Any]) -> Callable[..., Any]:
        def before(*args: Any, **options: Any) -> Any:
            moments.append(tmp_path / "moments" / str(len(moments)))
            shutil.copytree(tmp_path / "1", moments[-1], symlinks=True)
            return act(*args, **options)

        return before

    with opened(tmp_path / "1") as storage:
        for name in ("rename", "pwrite", "unlink"):
            monkeypatch.setattr(os, name, dying(getattr(os, name)))
        storage.delete("2", does(records=(called("d", tool_name="session_delete", kind="session"),)))
        monkeypatch.undo()
    seen: list[bool] = []
    for moment in moments:
        without = shutil.copytree(moment, f"{moment}-", symlinks=True, ignore=WITHOUT_INDEX)
        for folder in (moment, Path(without)):
            with opened(folder) as storage:
                deleted = "2" not in ids(storage)
                assert deleted == bool(storage.invocations(InvocationQuery(tool="session_delete")).items)
                assert contents(storage, "1") == ["1"]
                assert deleted or contents(storage, "2") == ["2"]
                assert faults(storage) == []
            assert deleted or read(folder / "sessions" / "2" / "invocations" / "c" / "record.json")["session_id"] == "2"
            assert deleted != (folder / "sessions" / "2").exists()
            seen.append(deleted)
    assert set(seen) == {False, True}


def delete_and_stop(folder: str) -> None:
    """Take a session out of sight, and wait for the end before its deletion is committed."""
    rename = os.rename

    def renaming(*args: Any, **options: Any) -> None:
        rename(*args, **options)
        tell("renamed")
        hear()

    storage = FileSystemSessionStorage(folder, durability="process")
    os.rename = renaming
    storage.delete("s", does())


def test_a_deletion_whose_writer_died_before_it_was_committed_is_undone_by_whoever_writes_next(tmp_path: Path) -> None:
    with opened(tmp_path) as storage:
        storage.create(head("s"), say(said("m", "one")))
        with Child(delete_and_stop, str(tmp_path / "sessions")) as other:
            assert other.hear() == "renamed"
            other.kill()
        assert storage.commit("s", say(said("n", "two"))).seqs == [2]
        assert contents(storage) == ["one", "two"]
        assert faults(storage) == []


def test_what_is_no_log_keeps_nobody_from_the_other_sessions(tmp_path: Path) -> None:
    with opened(tmp_path) as storage:
        storage.create(head("s"))
        (tmp_path / "sessions" / "bad" / "log.jsonl").mkdir(parents=True)
        (tmp_path / "sessions" / "worse").mkdir()
        (tmp_path / "sessions" / "worse" / "log.jsonl").symlink_to(tmp_path / "nowhere")
    shutil.rmtree(tmp_path / "sessions" / ".index")
    with opened(tmp_path) as storage:
        assert ids(storage) == ["s"]
        for name in ("bad", "worse"):
            with pytest.raises(StorageError, match="is not a file"):
                storage.create(head(name))
        assert [fault for fault in faults(storage) if "no session: 2: " in fault]


def test_a_log_of_another_program_is_left_as_it_is(tmp_path: Path) -> None:
    """It was taken for the torn beginning of ours, and moved."""
    log = tmp_path / "sessions" / "build" / "log.jsonl"
    text = b'{"level":"info","event":"started"}\n{"level":"info","event":"ended"}\n'
    with opened(tmp_path) as storage:
        storage.create(head("s"))
    log.parent.mkdir()
    log.write_bytes(text)
    with opened(tmp_path) as storage:
        with pytest.raises(StorageError, match=f"{log} is no log of a session"):
            storage.create(head("build"))
        assert [fault for fault in faults(storage) if f"no session: 1: {log.parent}" in fault]
        assert ids(storage) == ["s"]
    assert {path.name: path.read_bytes() for path in log.parent.iterdir()} == {log.name: text}


def test_a_folder_put_back_where_its_deletion_is_to_be_undone_is_told_and_neither_is_lost(tmp_path: Path) -> None:
    folder = tmp_path / "sessions" / "s"
    with opened(tmp_path) as storage:
        storage.create(head("s"), say(said("m", "one")))
    shutil.copytree(folder, tmp_path / "monday")
    with opened(tmp_path), Child(delete_and_stop, str(folder.parent)) as other:
        assert other.hear() == "renamed"
        other.kill()
    shutil.move(tmp_path / "monday", folder)
    with pytest.raises(
        StorageError, match=r"s was put back, and .*/deleted-1-s is what stood there.* Move one"
    ) as told:
        opened(tmp_path)
    (gone,) = folder.parent.glob(".store/deleted-*")
    assert str(gone) in str(told.value)
    shutil.move(folder, tmp_path / "monday")
    with opened(tmp_path) as storage:
        assert contents(storage) == ["one"]
        assert faults(storage) == []


def test_an_index_that_is_damaged_is_made_anew_by_repair(tmp_path: Path) -> None:
    with opened(tmp_path) as storage:
        for number in range(50):
            storage.create(head(f"s{number}"), say(said("m", f"word {number}" * 50)))
        there = everything(storage, "word")
        storage._here().writer.run(lambda db: db.execute("DELETE FROM messages WHERE seq = 1").fetchall())
    index = tmp_path / "sessions" / ".index" / "index.db"
    with opened(tmp_path) as storage:
        assert [fault for fault in faults(storage) if "miscount" in fault]
        done = storage.repair()
        assert [finding.what for finding in done] == ["the index was made anew from the logs"]
        assert faults(storage) == []
        assert everything(storage, "word") == there
    data = bytearray(index.read_bytes())
    third = len(data) // 3
    data[third : 2 * third] = bytes(third)
    index.write_bytes(data)
    with opened(tmp_path) as storage:
        storage.repair()
        assert faults(storage) == []
        assert everything(storage, "word") == there


def test_an_index_with_a_page_that_is_lost_is_told_to_be_made_anew_and_is(tmp_path: Path) -> None:
    with opened(tmp_path) as storage:
        for number in range(50):
            storage.create(head(f"s{number}"), say(said("m", f"word {number}" * 50)))
        there = everything(storage, "word")
    index, told = tmp_path / "sessions" / ".index" / "index.db", set[str]()
    for sixth in range(1, 6):
        data = bytearray(index.read_bytes())
        start = len(data) * sixth // 6 // PAGE_BYTES * PAGE_BYTES
        data[start : start + PAGE_BYTES] = bytes(PAGE_BYTES)
        index.write_bytes(data)
        with opened(tmp_path) as storage:
            for fault in storage.check():
                if fault.level == "fault":
                    told.add(fault.what)
                    assert fault.next == "mcp-sessions doctor --repair makes the index anew from the logs"
            storage.repair()
            assert faults(storage) == []
            assert everything(storage, "word") == there
    assert "the index cannot be read" in told


def test_calls_of_one_id_in_two_sessions_are_told_apart(tmp_path: Path) -> None:
    sessions = tmp_path / "sessions"
    with opened(tmp_path) as storage:
        for name in "ab":
            storage.create(
                head(name), does(records=(called("1", kind="work", scope="session", arguments={"of": name}),))
            )
    for name in "ab":
        assert read(sessions / name / "invocations" / "1" / "record.json")["session_id"] == name
    with opened(tmp_path) as storage:
        storage.delete("a", does())
    assert read(sessions / "b" / "invocations" / "1" / "record.json")["session_id"] == "b"


def test_a_later_attempt_is_told_where_the_first_one_was(tmp_path: Path) -> None:
    sessions = tmp_path / "sessions"
    for attempt, status, second in ((1, "error", 1), (2, "ok", 7)):
        with opened(tmp_path) as storage:
            record = called("1", second, kind="work", scope="session", attempt=attempt, status=status)
            if attempt == 1:
                storage.create(head("s"))
            storage.commit("s", does(second, records=(record,)))
        assert read(sessions / "s" / "invocations" / "1" / "record.json")["status"] == status
    assert len(list((sessions / ".history").iterdir())) == 1
