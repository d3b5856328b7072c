"""Sessions of the old layout are read whole, whatever stands in them, and stay as they are."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mcp_sessions.errors import StorageError
from mcp_sessions.models import SessionMetadata, SessionStatus, View, Want
from mcp_sessions.storage import MemorySessionStorage
from mcp_sessions.storage.files.legacy import LEGACY, is_legacy, legacy_sessions, read_legacy
from mcp_sessions.storage.whole import EVERYTHING, INVOCATION_DIR
from tests.storage.legacy_tree import contents, link, message, metadata, save, tree

RICH = "session_20251105_100000_0a1b2c3d"


@pytest.fixture(autouse=True)
def in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A computer nine hours before UTC, so that a local time cannot be taken for one in UTC."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def restored(directory: Path) -> View:
    """The session as it is in a store that it was restored into."""
    view = read_legacy(directory)
    with MemorySessionStorage() as storage:
        storage.restore(view)
        want = Want(any_keys=EVERYTHING, messages=EVERYTHING, order="oldest", records=EVERYTHING)
        stored = storage.read(view.metadata.session_id, want)
        assert [finding.detail for finding in storage.check() if finding.level == "fault"] == []
    assert (stored.metadata, stored.messages, stored.data) == (view.metadata, view.messages, view.data)
    return stored


def test_every_field_of_a_session_is_found(tmp_path: Path) -> None:
    directory = tree(tmp_path) / RICH
    before = contents(tmp_path)
    view = restored(directory)
    assert view.metadata == SessionMetadata(
        session_id=RICH,
        created_at=datetime(2025, 11, 5, 1, 0, 0, 1, tzinfo=UTC),
        updated_at=datetime(2025, 11, 6, 2, 30, 15, 250_000, tzinfo=UTC),
        user_id="ada",
        purpose="Näher am Ziel",
        tags=["git", "release"],
        custom_metadata={"branch": "main", "depth": {"n": [1, None]}},
        total_invocations=2,
        total_duration_ms=300.5,
        tools_used=["git_tool", "grep"],
        token_usage={"input": 1000, "output": 500, "cache_read": 0, "cache_write": 0},
        estimated_cost=0.0123,
        revision=1,
        last_seq=3,
        message_count=3,
    )
    first, second = (f"2025-11-05_10-00-0{n}_000000_git_tool" for n in (1, 2))
    assert [(one.seq, one.role, one.content, one.tool_name, one.invocation_id) for one in view.messages] == [
        (1, "user", "Which tag is the last?", None, None),
        (2, "tool", "v1.2", "git_tool", first),
        (3, "assistant", "v1.2 🎉", None, None),
    ]
    assert [one.timestamp.isoformat() for one in view.messages[:2]] == [
        "2025-11-05T01:00:01.500000+00:00",
        "2025-11-05T01:00:02.500000+00:00",
    ]
    assert [one.payload for one in view.messages] == [None] * 3
    assert {key: value.value for key, value in view.data.items()} == {
        "last_tag": "v1.2",
        "state": {"steps": [1, 2.5, None, True]},
        INVOCATION_DIR + first: str(tmp_path / ".history" / first),
        INVOCATION_DIR + second: str(tmp_path / ".history" / second),
    }
    records = [(one.invocation_id, one.tool_name, one.kind, one.status, one.user_id) for one in view.records]
    assert sorted(records) == [(first, "git_tool", "work", "ok", "ada"), (second, "unknown", "work", "ok", "ada")]
    assert contents(tmp_path) == before


def test_a_session_is_the_same_whenever_it_is_read(tmp_path: Path) -> None:
    directory = tree(tmp_path) / RICH
    assert read_legacy(directory) == read_legacy(directory)
    ids = [message.message_id for message in read_legacy(directory).messages]
    save(directory.parent, metadata("other"), [message("user", "a"), message("user", "a")])
    others = [message.message_id for message in read_legacy(directory.parent / "other").messages]
    assert len({*ids, *others}) == 5


def test_the_sessions_of_a_tree_are_found_and_nothing_else(tmp_path: Path) -> None:
    sessions = tree(tmp_path)
    save(sessions, metadata("default/below"))
    converted = save(sessions, metadata("converted"))
    (converted / "log.jsonl").touch()
    (sessions / "notes").mkdir()
    assert [str(path.relative_to(sessions)) for path in legacy_sessions(sessions)] == [
        "default",
        "default/below",
        RICH,
        "session_20251105_100001_00000000",
    ]
    assert list(legacy_sessions(sessions / "default" / "below")) == [sessions / "default" / "below"]
    assert not is_legacy(converted)


@pytest.mark.parametrize("status", ["completed", "failed", "abandoned"])
def test_a_session_that_ended_ended_when_it_was_last_updated(tmp_path: Path, status: str) -> None:
    head = restored(save(tmp_path, metadata("s", status=status))).metadata
    assert (head.status, head.ended_at) == (SessionStatus(status), head.updated_at)


def test_times_with_a_zone_are_taken_as_they_are(tmp_path: Path) -> None:
    head = read_legacy(save(tmp_path, metadata("s", created_at="2025-11-05T10:00:00+00:00"))).metadata
    assert head.created_at == datetime(2025, 11, 5, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("row", "role", "content"),
    [
        (message("banana", "hi"), "user", "hi"),
        (message({"name": "user"}, "hi"), "user", "hi"),
        (message("human", "hi"), "user", "hi"),
        (message("developer", "hi"), "system", "hi"),
        (message("user", {"text": "hä"}), "user", '{"text": "hä"}'),
        (message("user", "a\0b\ud83d"), "user", "a\\u0000b\\ud83d"),
        (message("user", "hi", score=0.5), "user", "hi"),
        (message("user", "hi", timestamp="yesterday"), "user", "hi"),
        (message("user", "hi", tool_name=["git"]), "user", "hi"),
        ({"content": "hi"}, "user", "hi"),
    ],
)
def test_a_message_that_has_no_place_here_is_read_and_kept_as_it_was(
    tmp_path: Path, row: dict[str, Any], role: str, content: str
) -> None:
    directory = save(tmp_path, metadata("s"), [message("user", "first", 9), row])
    first, second = restored(directory).messages
    assert (second.role, second.content) == (role, content)
    assert first.payload is None
    assert second.payload is not None
    kept = json.dumps(second.payload[LEGACY]).replace("\\\\u", "\\u")
    assert json.loads(kept) == row
    if row.get("timestamp") in (None, "yesterday"):
        assert second.timestamp == first.timestamp


def test_a_message_without_content_is_empty(tmp_path: Path) -> None:
    (one,) = restored(save(tmp_path, metadata("s"), [message("assistant", None)])).messages
    assert (one.content, one.payload) == ("", None)


def test_the_whole_lines_of_a_torn_conversation_are_read_and_the_rest_is_kept(tmp_path: Path) -> None:
    """The old storage could not read such a session any more."""
    directory = save(tmp_path, metadata("s"), [message("user", "whole"), message("user", "hälf")])
    path = directory / "conversation.jsonl"
    lines = path.read_bytes()
    last = lines.index(b"\n") + 1
    for end in range(last, len(lines)):
        path.write_bytes(lines[:end])
        view = restored(directory)
        torn = lines[last:end].decode()
        whole = end == len(lines) - 1  # all but the end of the line
        assert [one.content for one in view.messages] == ["whole", *(["hälf"] if whole else [])]
        assert view.metadata.custom_metadata == ({LEGACY: {"torn message": torn}} if torn and not whole else {})


def test_blank_lines_and_missing_files_are_passed_over(tmp_path: Path) -> None:
    directory = save(tmp_path, metadata("s"), [message("user", "a")])
    path = directory / "conversation.jsonl"
    path.write_bytes(b"\n  \r\n" + path.read_bytes().replace(b"\n", b"\r\n") + b"\n")
    (directory / "invocations.json").unlink()
    assert [(one.seq, one.content) for one in restored(directory).messages] == [(1, "a")]


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("data.json", '{"good": 1, "bad": ', 1),
        ("data.json", '{\n  "good": 1,\n  "bad": \n}', 4),
        ("data.json", "[]", 1),
        ("metadata.json", "", 1),
        ("metadata.json", "7", 1),
        ("invocations.json", '{"a": 1}', 1),
        ("conversation.jsonl", '{"role": "user"}\n{"role": \n{"role": "user"}\n', 2),
        ("conversation.jsonl", '{"role": "user"}\n"hi"\n', 2),
        ("conversation.jsonl", '{"role": "user"}\n\n{"role"\n', 3),
        ("conversation.jsonl", '{"role": "us\udcff"}\n', 1),
    ],
)
def test_damage_is_named_by_file_and_line_and_left_as_it_is(tmp_path: Path, name: str, text: str, line: int) -> None:
    directory = save(tmp_path, metadata("s"), [message("user", "a")], ["i"], {"k": 1})
    (directory / name).write_bytes(text.encode(errors="surrogateescape"))
    before = contents(tmp_path)
    with pytest.raises(StorageError) as refused:
        read_legacy(directory)
    assert str(refused.value).startswith(f"{directory / name}, line {line}, ")
    assert "then try again" in str(refused.value)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("fields", "fact"),
    [
        ({"session_id": "../escape"}, "the session_id '../escape' is not legal"),
        ({"session_id": "a b"}, "the session_id 'a b' is not legal"),
        ({"session_id": "s" * 129}, "is not legal"),
        ({"session_id": "s\n"}, "is not legal"),
        ({"session_id": None}, "is not legal"),
        ({"status": "paused"}, 'status is "paused"'),
        ({"status": None}, "status is null"),
        ({"created_at": "soon"}, 'created_at is "soon"'),
        ({"updated_at": None}, "updated_at is null"),
    ],
)
def test_a_head_that_no_session_can_have_is_refused(tmp_path: Path, fields: dict[str, Any], fact: str) -> None:
    directory = save(tmp_path, metadata("s"))
    (directory / "metadata.json").write_text(json.dumps({**metadata("s"), **fields}), encoding="utf-8")
    with pytest.raises(StorageError) as refused:
        read_legacy(directory)
    assert fact in str(refused.value)
    assert str(directory / "metadata.json") in str(refused.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    directory = save(tmp_path, metadata("s"))
    (directory / "data.json").mkdir()
    with pytest.raises(StorageError, match=r"data\.json: Is a directory"):
        read_legacy(directory)


def test_json_nested_too_deeply_to_be_read_is_refused(tmp_path: Path) -> None:
    directory = save(tmp_path, metadata("s"))
    (directory / "data.json").write_text('{"k": ' + "[" * 100_000 + "]" * 100_000 + "}", encoding="utf-8")
    with pytest.raises(StorageError, match="nested too deeply"):
        read_legacy(directory)


def test_values_that_no_store_takes_are_kept_as_text(tmp_path: Path) -> None:
    deep: Any = "bottom"
    for _ in range(120):
        deep = [deep]
    data = {
        "score": [float("nan"), float("-inf"), 1],
        "large": 1 << 2000,
        "half \ud83d": "half \ud83d",
        "deep": deep,
        "k" * 3000: "long",
        "": "unnamed",
        "long": "x" * (2 << 20),
    }
    found = {key: value.value for key, value in restored(save(tmp_path, metadata("s"), data=data)).data.items()}
    level: Any = found.pop("deep")
    while isinstance(level, list):
        level = level[0]
    assert level == "[" * 21 + '"bottom"' + "]" * 21
    assert found == {
        "score": ["NaN", "-Infinity", 1],
        "large": str(1 << 2000),
        "half \\ud83d": "half \\ud83d",
        "k" * 3000: "long",
        "": "unnamed",
        "long": "x" * (2 << 20),
    }


def test_what_the_old_head_says_in_its_own_way_is_kept(tmp_path: Path) -> None:
    odd = {
        "user_id": 42,
        "tags": ["a", 1],
        "token_usage": {"input": 7, "gpt-5": {"output": 3}},
        "total_duration_ms": "long",
        "estimated_cost": -1,
        "project": {"name": "x"},
    }
    empty = {"tools_used": None, "purpose": "", "colour": None}
    head = restored(save(tmp_path, metadata("s", **odd, **empty, custom_metadata={"mine": 1}))).metadata
    assert head.custom_metadata == {"mine": 1, LEGACY: odd}
    assert (head.user_id, head.tags, head.total_duration_ms, head.estimated_cost) == ("42", ["a", "1"], 0.0, 0.0)
    assert head.token_usage == {"input": 7, "output": 0, "cache_read": 0, "cache_write": 0}


def test_ids_of_calls_that_are_not_legal_here_are_replaced_and_kept_beside(tmp_path: Path) -> None:
    said = message("tool", "x", tool_name="git", invocation_id="call/1")
    view = restored(save(tmp_path, metadata("s"), [said], ["call/1", 7, "fine", "fine"]))
    records = {record.native_id: record for record in view.records}
    assert set(records) == {"call/1", "7", None}
    assert view.messages[0].invocation_id == records["call/1"].invocation_id
    assert records["call/1"].tool_name == "git"
    assert view.messages[0].payload == {LEGACY: said}
    assert view.metadata.total_invocations == 3


def test_links_are_kept_also_where_they_lead_nowhere_or_were_copied(tmp_path: Path) -> None:
    directory = save(tmp_path / "sessions", metadata("s"))
    link(directory, tmp_path / "gone")
    (directory / "invocations" / "copied").mkdir()
    kept = {key: value.value for key, value in restored(directory).data.items()}
    assert kept == {
        INVOCATION_DIR + "gone": os.path.realpath(tmp_path / "gone"),
        INVOCATION_DIR + "copied": os.path.realpath(directory / "invocations" / "copied"),
    }
