"""A folder of sessions after what may befall it: a crash in the middle, an index that is gone or behind."""

from __future__ import annotations

import shutil
from pathlib import Path

from mcp_sessions.models import Query
from mcp_sessions.storage import FileSystemSessionStorage
from mcp_sessions.testing.making import contents, does, head, ids, said, say


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
    (folder / ".index" / "underway").write_text('1["a","c"]\n', encoding="utf-8")
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
