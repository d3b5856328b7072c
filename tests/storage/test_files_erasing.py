"""What was retracted leaves the logs of a store of files in time, and keeps nobody waiting."""

from __future__ import annotations

import os
import shutil
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from mcp_sessions import FileSystemSessionStorage
from mcp_sessions.storage.files import checking, erasing, views
from mcp_sessions.testing.making import contents, does, head, said, say
from tests.processes import Child, hear, until
from tests.processes import say as tell
from tests.storage.test_files import faults, lines, opened


def change_and_stop(folder: str, change: dict[str, Any]) -> None:
    """Say or retract something when told to, and wait for the end before it is shown or erased."""
    erasing.LEAST_S = erasing.MOST_S = views.QUIET_S = views.MOST_S = 3600
    storage = FileSystemSessionStorage(folder, durability="process")
    tell("ready")
    hear()
    seq = change.get("retract")
    storage.commit("s", does(retract=((seq, seq),)) if seq else say(said("x", change["say"])))
    tell("done")
    hear()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The log of a session with two secrets."""
    with opened(tmp_path) as storage:
        storage.create(head("s"), say(said("m", "first secret"), said("n", "second secret"), said("o", "kept")))
    return tmp_path / "sessions" / "s" / "log.jsonl"


def test_what_was_retracted_is_erased_also_while_others_write_on_and_on(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waited for a second in which nobody wrote."""
    monkeypatch.setattr(erasing, "LEAST_S", 0)
    numbers = count()
    with opened(tmp_path) as storage:
        storage.commit("s", does(retract=((1, 1),)))

        def erased() -> bool:
            storage.commit("s", say(said(f"n{next(numbers)}")))
            return b"first secret" not in log.read_bytes()

        until(erased)
        assert faults(storage) == []


def test_a_long_log_waits_and_is_not_written_anew_for_each_retraction(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them wrote all of it, under the gate."""
    monkeypatch.setattr(erasing, "LEAST_S", 0)
    monkeypatch.setattr(erasing, "BYTES_PER_S", 1)
    with opened(tmp_path) as storage:
        storage.create(head("short"), say(said("m", "a secret too")))
        storage.commit("s", does(retract=((1, 1),)))
        monkeypatch.undo()
        monkeypatch.setattr(erasing, "LEAST_S", 0)
        storage.commit("short", does(retract=((1, 1),)))
        until(lambda: b"a secret too" not in (tmp_path / "sessions" / "short" / "log.jsonl").read_bytes())
        assert b"first secret" in log.read_bytes()
    assert b"first secret" not in log.read_bytes()


def test_others_write_and_retract_while_a_log_is_written_anew(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They waited as long as that took: all of it was done under the gate."""
    sync, meanwhile = os.fdatasync, iter([does(retract=((2, 2),)), say(said("more"))])

    def syncing(fd: int) -> None:
        for change in meanwhile:
            other.commit("s", change)
        sync(fd)

    with opened(tmp_path, busy_timeout_s=5) as other:
        with opened(tmp_path) as storage:
            storage.commit("s", does(retract=((1, 1),)))
            monkeypatch.setattr(os, "fdatasync", syncing)
        assert b"first secret" not in log.read_bytes()
        assert contents(other) == ["kept", "more"]
    assert b"second secret" not in log.read_bytes()
    shutil.rmtree(tmp_path / "sessions" / ".index")
    with opened(tmp_path) as storage:
        assert contents(storage) == ["kept", "more"]
        assert faults(storage) == []


def test_what_a_process_that_was_killed_had_retracted_is_erased_by_the_next_opening(tmp_path: Path, log: Path) -> None:
    with Child(change_and_stop, log.parents[1], {"retract": 1}) as child:
        assert child.hear() == "ready"
        child.tell()
        assert child.hear() == "done"
        child.kill()
    assert b"first secret" in log.read_bytes()
    with opened(tmp_path):
        pass
    assert b"first secret" not in log.read_bytes()


def test_who_is_to_end_soon_leaves_it_to_the_next_opening(tmp_path: Path, log: Path) -> None:
    """A long log kept a server from ending in time."""
    with opened(tmp_path) as storage:
        storage.commit("s", does(retract=((1, 1),)))
        storage.give_up()
    assert b"first secret" in log.read_bytes()
    with opened(tmp_path):
        pass
    assert b"first secret" not in log.read_bytes()


def test_what_two_sessions_share_leaves_the_stores_own_log_in_time(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing, "LEAST_S", 0)
    shared = tmp_path / "sessions" / ".store" / "log.jsonl"
    with opened(tmp_path) as storage:
        storage.create(head("t"))
        storage.commit("s", does(messages=(said("both", "of both"),), also=(("t", say(said("both", "of both"))),)))
        until(lambda: b"of both" not in shared.read_bytes())
        assert faults(storage) == []


def test_a_log_that_is_written_anew_during_a_check_is_in_order(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was read with what the index had told of it before."""
    real = checking._read_again
    other = opened(tmp_path)
    other.commit("s", does(retract=((1, 1),)))

    def closing(*args: Any) -> Any:
        other.close()
        return real(*args)

    with opened(tmp_path) as storage:
        monkeypatch.setattr(checking, "_read_again", closing)
        assert faults(storage) == []
        assert b"first secret" not in log.read_bytes()


@pytest.mark.parametrize(
    ("change", "left"),
    [({"say": "more"}, ["second secret", "kept", "more"]), ({"retract": 2}, ["kept"])],
    ids=["said", "retracted"],
)
def test_others_write_while_a_conversation_is_told_anew(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], left: list[str]
) -> None:
    """They waited until all of it was told."""
    real = views.encode

    def encode(value: Any) -> str:
        if other.process.poll() is None:
            other.tell()
            assert other.hear() == "done"
            other.kill()
        return real(value)

    with Child(change_and_stop, log.parents[1], change) as other:
        assert other.hear() == "ready"
        with opened(tmp_path) as storage:
            storage.commit("s", does(retract=((1, 1),)))
            monkeypatch.setattr(views, "encode", encode)
    assert other.process.poll() is not None
    with opened(tmp_path) as storage:
        assert faults(storage) == []
    assert [line["content"] for line in lines(log.with_name("conversation.jsonl"))] == left
