"""Views that are not what the log says: changed by hand, left by a crash, or of a session that is gone."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from mcp_sessions import FileSystemSessionStorage, SessionManager
from mcp_sessions.models import Alter, SessionStatus
from mcp_sessions.storage.files import views
from mcp_sessions.storage.files.folder import LOG
from mcp_sessions.storage.files.shown import RECORD_FILE
from mcp_sessions.testing.making import called, contents, does, head, ids, said
from tests.processes import Child, hear, say, until
from tests.storage.legacy_tree import tree
from tests.storage.test_files import RICH, faults, opened, read

CALL, OTHER = (f".history/2025-11-05_10-00-0{n}_000000_git_tool" for n in (1, 2))
"""The calls of the older layout; the folder of the other one is not there."""


def commit_and_stop(folder: str) -> None:
    """Commit a call, and wait for the end before anything is shown of it."""
    views.QUIET_S = views.MOST_S = 3600
    storage = FileSystemSessionStorage(folder, durability="process")
    storage.commit("s", does(records=(called("theirs", kind="work"),)))
    say("committed")
    hear()


def told(folder: Path) -> dict[str, bytes | Path]:
    """All that is shown of sessions, and where links lead."""
    paths = (path for path in folder.rglob("*") if not {".index", ".store"} & set(path.parts) and path.name != LOG)
    return {
        str(path.relative_to(folder)): path.readlink() if path.is_symlink() else path.read_bytes()
        for path in paths
        if path.is_symlink() or path.is_file()
    }


def _in_place(path: Path) -> None:
    stat = path.stat()
    path.write_bytes(path.read_bytes().replace(b"one", b"two").replace(b"git", b"svn"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def _elsewhere(link: Path) -> None:
    link.unlink()
    link.symlink_to(link.parent.parent, target_is_directory=True)


def _exchanged(link: Path) -> None:
    (other,) = (one for one in link.parent.iterdir() if one != link)
    target = other.readlink()
    link.unlink()
    link.symlink_to(target)


@pytest.mark.parametrize(
    ("view", "change"),
    [
        ("metadata.json", _in_place),
        ("data.json", _in_place),
        ("invocations.json", _in_place),
        ("conversation.jsonl", _in_place),
        ("conversation.jsonl", Path.unlink),
        ("invocations/c1", Path.unlink),
        ("invocations/c1", _elsewhere),
        ("invocations/c1", _exchanged),
        ("invocations/c1/record.json", _in_place),
        ("invocations/c1/record.json", Path.unlink),
    ],
)
def test_a_view_that_somebody_changed_is_found_and_written_anew(
    tmp_path: Path, view: str, change: Callable[[Path], None]
) -> None:
    """No reader trusts it, so nobody noticed."""
    folder = tmp_path / "sessions"
    with opened(tmp_path) as storage:
        for name in "st":
            calls = tuple(called(f"c{n}", tool_name="git", kind="work", scope="session") for n in (1, 2))
            everything = does(messages=(said("m", "one"), said("n", "last")), set={"k": "one"}, records=calls)
            storage.create(head(name, purpose="one"), everything)
    before, path = told(folder), folder / "s" / view
    named = path.resolve() if path.name == "record.json" else path
    change(path)
    with opened(tmp_path) as storage:
        assert faults(storage)[-1] == f"views that do not tell what their log does: 1: {named}"
        storage.repair()
        assert faults(storage) == []
    assert told(folder) == before


def test_a_view_that_cannot_be_written_is_not_told_to_be(tmp_path: Path) -> None:
    with opened(tmp_path) as storage:
        storage.create(head("s"))
    view = tmp_path / "sessions" / "s" / "data.json"
    view.unlink()
    view.mkdir()
    with opened(tmp_path) as storage:
        assert storage.repair() == []


@pytest.mark.parametrize("noticed", [True, False], ids=["noticed", "unnoticed"])
def test_views_tell_what_stood_behind_a_damaged_line_until_the_log_is_repaired(tmp_path: Path, noticed: bool) -> None:
    """They were cut to what is left, though nothing else that people can read has the rest."""
    folder = tmp_path / "sessions"
    with opened(tmp_path) as storage:
        storage.create(head("s"))
        for n in range(3):
            storage.commit("s", does(messages=(said(f"m{n}", f"word {n}"),), set={"k": n}))
    before, log = told(folder), folder / "s" / LOG
    stat = log.stat()
    log.write_bytes(log.read_bytes().replace(b"word 1", b"word 9"))
    if not noticed:
        os.utime(log, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    for _ in range(2):
        with opened(tmp_path) as storage:
            assert [fault for fault in faults(storage) if "line 3 is" in fault]
        assert told(folder) == before
    with opened(tmp_path) as storage:
        (done,) = storage.repair()
        assert done.detail.endswith(f"what followed is in {log.with_name('log.damaged-3')}")
        assert contents(storage) == ["word 0"]
    assert told(folder)["s/data.json"] == before["s/data.json"].replace(b"2", b"0")


@pytest.mark.parametrize("links", [True, False], ids=["links", "files"])
def test_where_a_call_left_its_files_is_found_from_its_session_and_its_record_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """It stood under a key alone, which no view tells."""
    if not links:
        monkeypatch.delattr(os, "symlink")
    outputs = {name: tmp_path / "outputs" / name for name in ("a", "B", "c")}
    for place in outputs.values():
        place.mkdir(parents=True)
    folder = tmp_path / "sessions"
    with SessionManager(opened(tmp_path)) as manager:
        manager.create_session("s")
        manager.link_invocation("s", "a", "git", outputs["a"])
        manager.link_invocation("s", "B", "git")
    with SessionManager(opened(tmp_path)) as manager:
        for name in "Bc":
            manager.storage.link_invocation("s", name, outputs[name])
    with opened(tmp_path) as storage:
        assert faults(storage) == []
        before = told(folder)
        for link in (folder / "s" / "invocations").iterdir():
            link.unlink()
        storage.repair()
        assert faults(storage) == []
    assert {name for name in told(folder) if "invocations" in name} == {
        name for name in before if "invocations" in name
    }

    def target(name: str) -> Path:
        link = folder / "s" / "invocations" / name
        return link.parent / (link.readlink() if links else link.read_text(encoding="utf-8").strip())

    assert [target(name) for name in ("a", "%42", "c")] == list(outputs.values())
    for name in ("a", "%42"):
        assert (target(f"{name}+record") / RECORD_FILE).is_file()
    with opened(tmp_path) as storage:
        storage.delete("s", does())
    assert list((folder / ".history").iterdir()) == []
    assert all(place.is_dir() for place in outputs.values())


def test_a_directory_to_which_no_link_can_lead_keeps_nothing_from_being_told(tmp_path: Path) -> None:
    with opened(tmp_path) as storage:
        given = {"a": "/" + "x" * 5000, "b": 7, "c": "here", "f/../g": "/nowhere"}
        storage.create(head("s"), does(set={f".invocation_dir.{name}": value for name, value in given.items()}))
    (link,) = (tmp_path / "sessions" / "s" / "invocations").iterdir()
    assert (link.name, link.readlink()) == ("f%2f..%2fg", Path("/nowhere"))
    with opened(tmp_path) as storage:
        assert faults(storage) == []


def test_a_history_by_a_relative_path_stays_where_it_was_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It went along with the process that changed its directory."""
    (tmp_path / "later").mkdir()
    monkeypatch.chdir(tmp_path)
    with opened(tmp_path, history_dir="history") as storage:
        monkeypatch.chdir("later")
        storage.create(head("s"), does(records=(called("c", kind="work"),)))
    assert (tmp_path / "sessions" / "s" / "invocations" / "c" / RECORD_FILE).is_file()
    assert list((tmp_path / "later").iterdir()) == []


def test_a_link_of_an_older_layout_is_left_where_it_leads(tmp_path: Path) -> None:
    sessions = tree(tmp_path)
    links = {link: link.readlink() for link in (sessions / RICH / "invocations").iterdir()}
    for _ in range(2):
        with FileSystemSessionStorage(sessions, durability="process") as storage:
            storage.repair()
            assert faults(storage) == []
    assert {link: link.readlink() for link in links} == links


@pytest.mark.parametrize("history", [".sessions/.history", ".history"])
def test_a_call_of_an_older_layout_is_found_from_either_side_and_its_own_files_outlive_its_session(
    tmp_path: Path, history: str
) -> None:
    """No link led to what was told of it; or all that it had left itself went with the session."""
    sessions = tree(tmp_path)
    (tmp_path / CALL / "output.txt").write_text("its own", encoding="utf-8")
    for _ in range(2):
        with FileSystemSessionStorage(sessions, tmp_path / history, durability="process") as storage:
            assert faults(storage) == []
        shown = [path.parent.resolve() for path in (sessions / RICH / "invocations").glob("*/record.json")]
        assert sorted(shown) == sorted(path.parent for path in (tmp_path / history).glob("*/record.json"))
        assert {read(path / "record.json")["invocation_id"] for path in shown} == {Path(CALL).name, Path(OTHER).name}
        assert {read(path / "record.json")["session_id"] for path in shown} == {RICH}
        assert all(path.name.endswith(read(path / "record.json")["invocation_id"]) for path in shown)
    with FileSystemSessionStorage(sessions, tmp_path / history, durability="process") as storage:
        storage.delete(RICH, does())
        assert faults(storage) == []
    left = [path for path in (tmp_path / ".history", tmp_path / history) for path in path.rglob("*") if path.is_file()]
    assert {str(path.relative_to(tmp_path)) for path in left} == {f"{CALL}/output.txt"}
    assert not list((tmp_path / history).glob(f"*{Path(OTHER).name}"))


def test_a_link_to_a_call_of_another_session_does_not_take_its_record_with_it(tmp_path: Path) -> None:
    sessions = tmp_path / "sessions"
    with opened(tmp_path) as storage:
        for name in "st":
            storage.create(head(name), does(records=(called(f"of-{name}", kind="work"),)))
    link = sessions / "s" / "invocations" / "of-s"
    link.unlink()
    link.symlink_to((sessions / "t" / "invocations" / "of-t").readlink())
    with opened(tmp_path) as storage:
        storage.delete("s", does())
    assert read(sessions / "t" / "invocations" / "of-t" / "record.json")["session_id"] == "t"


def test_an_opening_writes_views_anew_that_a_look_at_one_shows_to_be_others(tmp_path: Path) -> None:
    """A power cut may keep that they were written and lose what was written."""
    folder = tmp_path / "sessions" / "s"
    with opened(tmp_path) as storage:
        storage.create(head("s"), does(set={"k": 1}))
    before = told(folder)
    for name in ("metadata.json", "data.json"):
        (folder / name).write_bytes(b"")
    with opened(tmp_path):
        pass
    assert told(folder) == before


@pytest.mark.parametrize("view", ["conversation.jsonl", "data.json", "invocations.json", "invocations/c/record.json"])
def test_views_that_the_machine_lost_are_written_anew_by_the_first_opening_after_its_start(
    view: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut may leave a file as long as it was, and empty."""
    boot, folder = tmp_path / "boot_id", tmp_path / "sessions" / "s"
    boot.write_text("first\n", encoding="ascii")
    monkeypatch.setattr("mcp_sessions._os.BOOT_ID", boot)
    with opened(tmp_path) as storage:
        storage.create(head("s"), does(set={"k": 1}, messages=(said("m"),), records=(called("c", kind="work"),)))
    whole = (folder / view).read_bytes()
    lost = bytes(len(whole))
    (folder / view).write_bytes(lost)
    with opened(tmp_path):
        pass
    assert (folder / view).read_bytes() == lost  # nobody reads all of them at each opening
    boot.write_text("second\n", encoding="ascii")
    with opened(tmp_path):
        pass
    assert (folder / view).read_bytes() == whole


def test_who_wrote_last_does_not_vouch_for_what_another_process_was_yet_to_show(tmp_path: Path) -> None:
    """The call of a process that was killed stayed without its record for good."""
    folder = tmp_path / "sessions" / "s"
    with opened(tmp_path) as storage:
        storage.create(head("s"))
    with opened(tmp_path) as storage, Child(commit_and_stop, str(folder.parent)) as other:
        assert other.hear() == "committed"
        storage.commit("s", does(records=(called("mine", kind="work"),)))
        other.kill()
    with opened(tmp_path):
        pass
    assert {link.name for link in (folder / "invocations").iterdir()} == {"mine", "theirs"}


def test_who_closes_a_store_does_not_wait_for_all_calls_of_a_session_that_was_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server whose index had been lost took as long to end as it took to show each call that there ever was."""
    links = tmp_path / "sessions" / "s" / "invocations"
    names = {f"c{number}" for number in range(9)}
    with opened(tmp_path) as storage:
        storage.create(head("s"), does(records=tuple(called(name, kind="work") for name in sorted(names))))
    shutil.rmtree(tmp_path / "sessions" / ".index")
    shutil.rmtree(links)
    monkeypatch.setattr(views, "CLOSING_S", 0)
    stores: list[FileSystemSessionStorage] = []
    symlink, ends = os.symlink, threading.Thread(target=lambda: [store.close() for store in stores])

    def closing(*args: Any) -> None:
        if ends.ident is None:
            until(lambda: bool(stores))
            ends.start()
            until(lambda: stores[0]._views._closing is not None)
        symlink(*args)

    monkeypatch.setattr(os, "symlink", closing)
    stores.append(opened(tmp_path))
    until(lambda: ends.ident is not None)
    ends.join()
    monkeypatch.undo()
    assert len(list(links.iterdir())) == 1
    with opened(tmp_path):
        pass
    assert {link.name for link in links.iterdir()} == names


@pytest.fixture
def never_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Views do not follow because nobody writes."""
    monkeypatch.setattr(views, "QUIET_S", 3600)


@pytest.mark.usefixtures("never_quiet")
def test_the_end_of_a_session_is_shown_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "MOST_S", 3600)
    view = tmp_path / "sessions" / "s" / "metadata.json"
    with opened(tmp_path) as storage:
        storage.create(head("s"))
        storage.commit("s", does(alter=Alter(status=SessionStatus.COMPLETED)))
        until(lambda: view.exists() and read(view)["status"] == "completed")


@pytest.mark.usefixtures("never_quiet")
def test_a_session_that_is_written_to_on_and_on_is_shown_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "MOST_S", 0)
    view, numbers = tmp_path / "sessions" / "s" / "metadata.json", count()

    def written() -> bool:
        storage.commit("s", does(messages=(said(f"m{next(numbers)}"),)))
        return view.exists()

    with opened(tmp_path) as storage:
        storage.create(head("s"))
        until(written)


def test_nothing_of_a_deleted_session_is_shown_in_one_of_its_id_that_was_made_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its call stayed there for good, and all that was told of it."""
    folder, mkdir = tmp_path / "sessions", os.mkdir
    made: list[str] = []
    monkeypatch.setattr(views, "PATIENCE_S", 0)

    def deleting(path: Any, *args: Any, **kwargs: Any) -> None:
        if Path(path).name == "invocations" and not made:
            made.append("again")
            other.delete("s", does())
            other.create(head("s", purpose="new"))
        mkdir(path, *args, **kwargs)

    with opened(tmp_path) as other:
        with opened(tmp_path) as storage:
            storage.create(head("s"), does(messages=(said("m", "x"),), records=(called("c", kind="work"),)))
            monkeypatch.setattr(os, "mkdir", deleting)
        assert made
        assert ids(other) == ["s"]
    with opened(tmp_path) as storage:
        assert faults(storage) == []
    assert list((folder / "s" / "invocations").iterdir()) == []
    assert list((folder / ".history").iterdir()) == []
    assert b'"c"' not in (folder / "s" / "invocations.json").read_bytes()


def test_a_call_in_the_place_of_one_that_is_gone_is_not_shown_in_the_session_of_that_one(tmp_path: Path) -> None:
    """A session that was made again within a second showed a call of another one."""
    folder = tmp_path / "sessions"
    with opened(tmp_path) as storage:
        storage.create(head("s"), does(records=(called("c", kind="work"),)))
        storage.delete("s", does())
        storage.create(head("s"), does())
        storage.create(head("t"), does(records=(called("secret", kind="work"),)))
    assert not (folder / "s" / "invocations").exists()
    assert [link.name for link in (folder / "t" / "invocations").iterdir()] == ["secret"]
    with opened(tmp_path) as storage:
        assert faults(storage) == []


def test_calls_recorded_under_one_id_share_a_view_that_tells_of_one_of_them(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    with FileSystemSessionStorage(folder) as storage:
        storage.create(head("s"))
        for second in (5, 1, 9):
            storage.commit("s", does(records=(called("c", second, scope=None),)))
    with FileSystemSessionStorage(folder) as storage:
        assert faults(storage) == []
    (told,) = (folder / ".history").glob("*/record.json")
    told.write_bytes(told.read_bytes().replace(b"grep", b"grip"))
    with FileSystemSessionStorage(folder) as storage:
        assert faults(storage) == [f"views that do not tell what their log does: 1: {told}"]
