"""`import sessions`: old trees, other stores and exports, copied into the store once, however often it is run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mcp_sessions.config import sqlite_url
from mcp_sessions.manager import SessionManager
from mcp_sessions.models import Alter, InvocationQuery, InvocationStatus, SessionStatus, Want
from mcp_sessions.storage import FileSystemSessionStorage, SQLiteSessionStorage
from mcp_sessions.storage.files.legacy import read_legacy
from mcp_sessions.testing.making import called, does, everything, head, read_all, said
from mcp_sessions.tools import invoke
from tests.processes import Child, until
from tests.storage.legacy_tree import contents, message, metadata, save, tree

from . import programs
from .conftest import Run
from .terminals import on_terminal

OLD = ["default", "session_20251105_100000_0a1b2c3d", "session_20251105_100001_00000000"]


@pytest.fixture
def source(tmp_path: Path) -> Iterator[SQLiteSessionStorage]:
    """Another store, with two sessions and a record that belongs to none."""
    with SQLiteSessionStorage(tmp_path / "source.db") as source:
        source.create(
            head("a", user_id="ana", tags=["t"], custom_metadata={"m": 1}),
            does(messages=(said("m1"), said("m2", payload={"x": 1})), set={"k": [1], ".internal": 2}),
        )
        source.commit("a", does(2, retract=((1, 1),), records=(called("c", 2, model="m", cost=0.5),)))
        source.commit("a", does(3, set={"l": 1}, records=(called("s", 3, kind="session", scope="user"),)))
        source.commit("a", does(4, records=(called("u", 4, kind="usage", model="m", cost=0.25),)))
        source.create(head("b", 1, parent_id="a"), does(5, alter=Alter(status=SessionStatus.FAILED, summary="no")))
        source.commit(None, does(6, records=(called("loose", 6, kind="session", scope="user"),)))
        source.commit(None, does(7, records=(called("other", 7, kind="session", scope=None),)))
        yield source


def imports(run: Run, *args: str | Path, status: int = 0) -> dict[str, Any]:
    result = run("import", "sessions", *map(str, args), "--json")
    assert result.exit_code == status, result.stderr
    return json.loads(result.stdout)


def outcomes(run: Run, *args: str | Path, status: int = 0) -> dict[str, str]:
    return {one["session_id"]: one["outcome"] for one in imports(run, *args, status=status)["sessions"]}


@pytest.mark.parametrize("by", ["url", "path"])
def test_an_old_tree_is_copied_whole_and_left_as_it_is(
    tmp_path: Path, manager: SessionManager, run: Run, by: str
) -> None:
    sessions = tree(tmp_path / "old")
    before = contents(tmp_path / "old")
    given = sessions.as_uri() if by == "url" else sessions
    assert outcomes(run, given, "--dry-run") == dict.fromkeys(OLD, "copied")
    assert outcomes(run, given) == dict.fromkeys(OLD, "copied")
    for session_id in OLD:
        view = read_legacy(sessions / session_id)
        stored = manager.view(session_id, Want(any_keys=99, messages=99, order="oldest", records=99))
        assert (stored.metadata, stored.messages, stored.data) == (view.metadata, view.messages, view.data)
        assert {one.invocation_id for one in stored.records} == {one.invocation_id for one in view.records}
    assert contents(tmp_path / "old") == before


def test_an_import_may_be_repeated(tmp_path: Path, manager: SessionManager, run: Run) -> None:
    sessions = tree(tmp_path)
    imports(run, sessions)
    before = everything(manager.storage)
    assert outcomes(run, sessions) == dict.fromkeys(OLD, "same")
    assert everything(manager.storage) == before


def test_a_dry_run_says_what_would_be_done_and_makes_no_store(tmp_path: Path, place: Path, run: Run) -> None:
    sessions = tree(tmp_path)
    result = run("import", "sessions", str(sessions), "--dry-run")
    assert result.exit_code == 0
    assert [line.split() for line in result.stdout.splitlines()[1:]] == [["copied", session_id] for session_id in OLD]
    assert result.stderr == "3 sessions would be copied.\n"
    assert not place.parent.exists()


@pytest.mark.parametrize("by", ["url", "path"])
def test_a_store_is_copied_with_everything_in_it(
    source: SQLiteSessionStorage, manager: SessionManager, run: Run, by: str
) -> None:
    words = ("m1", "m2")
    given = sqlite_url(source.path) if by == "url" else str(source.path)
    before = everything(source, *words)
    report = imports(run, given)
    assert report["records"] == 2
    assert everything(manager.storage, *words) == before == everything(source, *words)
    assert imports(run, given) == {
        "dry_run": False,
        "sessions": [{"session_id": "a", "outcome": "same"}, {"session_id": "b", "outcome": "same"}],
        "records": 0,
    }
    assert everything(manager.storage, *words) == before


def test_another_store_than_that_of_the_settings_is_copied_into(
    source: SQLiteSessionStorage, place: Path, tmp_path: Path, run: Run
) -> None:
    assert imports(run, source.path, "--to", sqlite_url(tmp_path / "to" / "s.db"))["records"] == 2
    with SQLiteSessionStorage(tmp_path / "to" / "s.db") as target:
        assert everything(target) == everything(source)
    assert not place.exists()


def test_a_store_goes_into_files_and_back_with_everything_in_it(
    source: SQLiteSessionStorage, manager: SessionManager, tmp_path: Path, run: Run
) -> None:
    folder = tmp_path / "a folder"
    assert imports(run, source.path, "--to", folder.as_uri())["records"] == 2
    save(folder, metadata("old"))
    assert outcomes(run, folder) == {"a": "copied", "b": "copied", "old": "copied"}
    manager.delete_session("old")
    assert everything(manager.storage) == everything(source)


@pytest.mark.parametrize("by", ["url", "path"])
@pytest.mark.parametrize("missing", [".index", ".store"])
def test_a_store_of_files_is_known_by_what_every_copy_of_it_has(
    tmp_path: Path, manager: SessionManager, run: Run, by: str, missing: str
) -> None:
    folder = tmp_path / "sessions"
    for session_id in "ab":  # the second time it was there already
        with FileSystemSessionStorage(folder) as source:
            source.create(head(session_id))
    shutil.rmtree(folder / missing)
    assert outcomes(run, folder.as_uri() if by == "url" else folder) == {"a": "copied", "b": "copied"}


def test_a_store_of_files_with_nothing_in_it_is_a_store(tmp_path: Path, manager: SessionManager, run: Run) -> None:
    for _ in range(2):
        FileSystemSessionStorage(tmp_path / "sessions").close()
    assert imports(run, tmp_path / "sessions")["sessions"] == []


def test_a_session_that_went_on_after_it_was_copied_is_passed_over(
    source: SQLiteSessionStorage, manager: SessionManager, run: Run
) -> None:
    imports(run, source.path)
    invoke(manager, "session_add_message", {"session_id": "a", "role": "user", "content": "more"})
    invoke(manager, "session_set", {"session_id": "a", "key": "k", "value": 2})
    invoke(manager, "session_update", {"session_id": "a", "add_tags": ["more"], "metadata": {"n": 2}})
    invoke(manager, "session_complete", {"session_id": "a", "summary": "done"})
    invoke(manager, "session_get", {"session_id": "b"})
    invoke(manager, "session_invocations", {"session_id": "b"})  # the read is on record by then
    before = read_all(manager.storage, "a")
    assert outcomes(run, source.path) == {"a": "ahead", "b": "same"}
    assert read_all(manager.storage, "a") == before


def test_a_session_with_further_calls_alone_is_passed_over(
    source: SQLiteSessionStorage, manager: SessionManager, run: Run
) -> None:
    imports(run, source.path)
    manager.storage.commit("a", does(9, records=(called("here", 9),)))
    assert outcomes(run, source.path) == {"a": "ahead", "b": "same"}


def test_another_session_of_the_same_id_is_refused(
    source: SQLiteSessionStorage, manager: SessionManager, run: Run
) -> None:
    ended = does(5, alter=Alter(status=SessionStatus.FAILED, summary="no"))
    manager.storage.create(head("b", 2, parent_id="a"), ended)
    assert outcomes(run, source.path, status=1) == {"a": "copied", "b": "diverged"}


def test_what_was_taken_away_in_the_source_alone_is_a_difference(
    source: SQLiteSessionStorage, manager: SessionManager, run: Run
) -> None:
    imports(run, source.path)
    source.commit("a", does(9, alter=Alter(remove_tags=("t",))))
    assert outcomes(run, source.path, status=1) == {"a": "diverged", "b": "same"}


CHANGES = {
    "a message": does(9, messages=(said("new"),)),
    "a key": does(9, set={"new": 1}),
    "a value": does(9, set={"k": 2}),
    "a call that failed": does(9, records=(called("new", 9, status=InvocationStatus.ERROR),)),
    "a call": does(9, records=(called("new", 9),)),
    "a purpose": does(9, alter=Alter(purpose="other")),
    "a tag": does(9, alter=Alter(add_tags=("other",))),
    "a field": does(9, alter=Alter(metadata={"other": 1})),
    "an end": does(9, alter=Alter(status=SessionStatus.COMPLETED)),
    "a removal": does(9, remove=("l",)),
    "a clearing": does(9, retract=((1, 2),)),
}


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("went_on", [False, True], ids=["here", "on both sides"])
def test_a_session_that_got_more_in_the_source_is_refused_and_the_others_are_copied(
    source: SQLiteSessionStorage, manager: SessionManager, run: Run, what: str, went_on: bool
) -> None:
    imports(run, source.path)
    manager.delete_session("b")
    source.commit("a", CHANGES[what])
    if went_on:
        for number in range(3):
            invoke(manager, "session_set", {"session_id": "a", "key": "here", "value": number})
    before = read_all(manager.storage, "a")
    report = imports(run, source.path, status=1)
    assert [(one["session_id"], one["outcome"]) for one in report["sessions"]] == [("a", "diverged"), ("b", "copied")]
    assert "--as-new" in report["sessions"][0]["error"]
    assert read_all(manager.storage, "a") == before


def test_a_session_that_differs_is_copied_beside_once(
    source: SQLiteSessionStorage, manager: SessionManager, run: Run
) -> None:
    imports(run, source.path)
    source.commit("a", does(9, messages=(said("there"),)))
    manager.add_conversation_message("a", "user", "here")
    before = read_all(manager.storage, "a")
    first, _ = imports(run, source.path, "--as-new")["sessions"]
    assert (first["session_id"], first["outcome"]) == ("a", "copied")
    view, copy = read_all(source, "a"), read_all(manager.storage, first["copy"])
    assert copy.metadata == view.metadata.model_copy(update={"session_id": first["copy"], "parent_id": "a"})
    assert (copy.messages, copy.data) == (view.messages, view.data)
    assert [one.invocation_id for one in copy.records] == [one.invocation_id for one in view.records]
    assert read_all(manager.storage, "a") == before
    again, _ = imports(run, source.path, "--as-new")["sessions"]
    assert again == {"session_id": "a", "outcome": "same", "copy": first["copy"]}


def test_a_damaged_session_is_named_and_the_others_are_copied(
    tmp_path: Path, manager: SessionManager, run: Run
) -> None:
    sessions = tree(tmp_path)
    (sessions / "default" / "data.json").write_text('{"good": 1, "bad": ', encoding="utf-8")
    save(sessions, metadata("a b"))
    result = run("import", "sessions", str(sessions))
    assert (result.exit_code, result.stdout) == (1, "")
    illegal, damaged, summary = result.stderr.splitlines()
    assert "session_id 'a b' is not legal" in illegal
    assert f"{sessions / 'default' / 'data.json'}, line 1" in damaged
    assert summary == "2 sessions copied, 2 not taken."
    assert sorted(found.session_id for found in manager.query().items) == OLD[1:]
    (sessions / "default" / "data.json").unlink()
    assert outcomes(run, sessions / "default") == {"default": "copied"}


def test_a_killed_import_goes_on_where_it_was(tmp_path: Path, place: Path, run: Run) -> None:
    count = 300
    for number in range(count):
        save(tmp_path / "old", metadata(f"s{number}"), [message("user", f"{n}") for n in range(20)])
    with Child(programs.import_sessions, str(tmp_path / "old")) as child:
        until(place.exists)
        with SQLiteSessionStorage(place) as storage:
            until(lambda: len(storage.list_sessions(limit=9)) == 9)
        child.kill()
    done = outcomes(run, tmp_path / "old")
    assert len(done) == count
    assert set(done.values()) == {"copied", "same"}
    with SQLiteSessionStorage(place) as storage:
        heads = storage.list_sessions(limit=2 * count)
        assert [one.metadata.message_count for one in heads] == [20] * count
        assert [finding for finding in storage.check() if finding.level != "ok"] == []


def test_a_running_call_is_copied_as_interrupted_and_counted(
    source: SQLiteSessionStorage, manager: SessionManager, run: Run
) -> None:
    running = called("r", status=InvocationStatus.RUNNING, owner=source.owner())
    source.commit("a", does(8, records=(running,)))
    source.commit(None, does(8, records=(running.model_copy(update={"invocation_id": "q", "scope": "user"}),)))
    imports(run, source.path)
    records = {one.invocation_id: one for one in manager.storage.invocations(InvocationQuery()).items}
    assert (records["r"].status, records["q"].status) == ("interrupted", "interrupted")
    copied, before = manager.metadata("a"), read_all(source, "a").metadata
    assert copied.failed_invocations == before.failed_invocations + 1
    assert copied.total_invocations == before.total_invocations + 1
    assert outcomes(run, source.path) == {"a": "same", "b": "same"}
    assert (read_all(source, "a").metadata, source.alive(source.owner())) == (before, True)


def test_ids_of_calls_that_stand_for_others_are_not_taken(
    source: SQLiteSessionStorage, manager: SessionManager, run: Run
) -> None:
    mine = called("loose", tool_name="mine", scope="user")
    manager.storage.create(head("mine"), does(records=(mine,)))
    source.create(head("c"), does(records=(mine.model_copy(update={"invocation_id": "c1"}),)))
    manager.storage.create(head("also"), does(records=(mine.model_copy(update={"invocation_id": "c1"}),)))
    report = imports(run, source.path, status=1)
    assert [one["outcome"] for one in report["sessions"]] == ["copied", "failed", "copied"]
    assert "c1 is taken" in report["sessions"][1]["error"]
    assert report["records"] == 2
    assert imports(run, source.path, status=1)["records"] == 0


def test_what_was_exported_is_an_equal_session_again(
    source: SQLiteSessionStorage, manager: SessionManager, tmp_path: Path, run: Run
) -> None:
    with SessionManager(source) as there:
        export = tmp_path / "export.json"
        export.write_text(invoke(there, "session_export", {"session_id": "a"})["content"], encoding="utf-8")
        assert outcomes(run, export) == {"a": "copied"}
        view, copy = read_all(source, "a"), read_all(manager.storage, "a")
        assert (copy.metadata, copy.messages, copy.data) == (view.metadata, view.messages, view.data)
        assert [one.to_dict() for one in copy.records] == [one.to_dict() for one in view.records]
        assert outcomes(run, export) == {"a": "same"}
        assert outcomes(run, tmp_path / "source.db", status=1)["a"] == "diverged"  # with records of its own tools


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("hello", "no JSON"),
        ("[]", "session_export"),
        ('{"format": "mcp-sessions/9"}', "session_export"),
        ('{"format": "mcp-sessions/1", "metadata": {}}', "session_id"),
        ('{"format": "mcp-sessions/1", "metadata": 7}', "metadata"),
    ],
)
def test_a_file_that_is_no_export_is_named(place: Path, tmp_path: Path, run: Run, text: str, fact: str) -> None:
    (tmp_path / "x.json").write_text(text, encoding="utf-8")
    (one,) = imports(run, tmp_path / "x.json", status=1)["sessions"]
    assert (one["session_id"], one["outcome"]) == (str(tmp_path / "x.json"), "failed")
    assert fact in one["error"]


@pytest.mark.parametrize(
    "given", ["nowhere", "file:///nowhere", "sqlite:///nowhere/s.db", "sqlite:relative", "ftp://ada:secret@x/y"]
)
def test_a_source_that_is_not_there_is_refused(place: Path, run: Run, given: str) -> None:
    result = run("import", "sessions", given)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "secret" not in result.stderr
    assert not Path("/nowhere").exists()
    assert not place.exists()


@pytest.mark.parametrize("by", ["url", "path"])
def test_a_folder_without_sessions_is_refused_and_left_as_it_is(place: Path, tmp_path: Path, run: Run, by: str) -> None:
    folder = tmp_path / "project"
    (folder / "runs").mkdir(parents=True)
    (folder / "runs" / "log.jsonl").write_text('{"loss": 0.1}\n', encoding="utf-8")
    before = contents(folder)
    result = run("import", "sessions", folder.as_uri() if by == "url" else str(folder))
    assert result.exit_code == 1
    assert "metadata.json" in result.stderr
    assert contents(folder) == before


def test_nothing_is_copied_into_a_store_that_ends_with_the_command(tmp_path: Path, place: Path, run: Run) -> None:
    assert run("import", "sessions", str(tree(tmp_path)), "--to", "memory:").exit_code == 2


def test_a_terminal_shows_how_far_it_is_and_a_pipe_does_not(tmp_path: Path, place: Path, run: Run) -> None:
    sessions = tree(tmp_path)
    assert "Copying" not in run("import", "sessions", str(sessions), "--dry-run").stderr
    shown = on_terminal("import", "sessions", str(sessions), columns=100)
    assert "Copying sessions" in shown
    assert "3 sessions copied." in shown
