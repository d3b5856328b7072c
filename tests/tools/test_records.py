"""The records toolset: calls made elsewhere, the list of recorded calls, and what they sum up to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mcp_sessions import InvalidArgumentError, SessionManager, StorageError
from mcp_sessions.storage import SQLiteSessionStorage
from tests.storage.disks import Disk
from tests.stores import SetClock
from tests.tools.desk import MODEL, Desk


def test_a_call_made_elsewhere_is_priced_and_counted(prepared: Desk) -> None:
    before = prepared.head()
    result = prepared(
        "session_record_invocation",
        session_id="a",
        tool_name="ask",
        model=MODEL,
        input_tokens=1_000_000,
        output_tokens=0,
        cache_read_tokens=10,
    )
    assert result["cost_source"] == "estimated"
    assert result["invocation_id"].startswith("inv_")
    head = prepared.head()
    assert head.estimated_cost == pytest.approx(before.estimated_cost + result["cost"])
    assert head.token_usage["input"] == before.token_usage["input"] + 1_000_000
    assert head.token_usage["cache_read"] == 10
    assert head.total_invocations == before.total_invocations + 1
    assert "ask" in head.tools_used


@pytest.mark.parametrize(
    ("told", "answered"),
    [
        ({"cost": 0.5, "model": MODEL, "input_tokens": 1}, {"cost": 0.5, "cost_source": "reported"}),
        ({"cost": 0.0}, {"cost": 0.0, "cost_source": "reported"}),
        ({"model": "nobody-knows-it", "input_tokens": 1}, {"cost_source": "unknown"}),
        ({"model": MODEL}, {"cost_source": "unknown"}),
        ({}, {"cost_source": "unknown"}),
    ],
)
def test_a_cost_is_reported_estimated_or_unknown(
    prepared: Desk, told: dict[str, Any], answered: dict[str, Any]
) -> None:
    result = prepared("session_record_invocation", session_id="a", tool_name="x", invocation_id="i1", **told)
    assert result == {"invocation_id": "i1", **answered}


def test_a_call_of_one_id_is_counted_once(prepared: Desk) -> None:
    told = {"session_id": "a", "tool_name": "x", "invocation_id": "i1"}
    first = prepared("session_record_invocation", **told, cost=0.5)
    head = prepared.head()
    assert prepared("session_record_invocation", **told, cost=0.9) == first
    assert (prepared.head().total_invocations, prepared.head().estimated_cost) == (
        head.total_invocations,
        head.estimated_cost,
    )


def test_on_a_full_disk_all_that_is_stored_is_listed_and_found(tmp_path: Path) -> None:
    """Both failed: the records of reads were to be written first, and new messages to get into the index."""
    with Disk(tmp_path / "disk") as disk, SessionManager(SQLiteSessionStorage(disk.path / "s.db")) as manager:
        desk = Desk(manager, SetClock())
        desk.prepare()
        disk.take_all_but(100_000)
        with pytest.raises(StorageError):
            while True:
                desk("session_add_message", session_id="a", role="user", content="x" * 3000)
        asked = {"session_id": "a", "limit": 1000}
        while "note" not in (result := desk("session_invocations", **asked)):
            desk("session_get", session_id="a")
        waiting = manager.reads.waiting[0]
        assert result["note"].startswith(f"{waiting - 1} records are not among them: ")
        assert "git_log" in [record["tool_name"] for record in result["invocations"]]
        assert desk("session_search", text="stripe")["hits"][0]["seq"] == 1
        disk.give_back()
        after = desk("session_invocations", **asked)
        assert "note" not in after
        assert len(after["invocations"]) > len(result["invocations"])


def test_a_failed_call_is_listed_with_what_it_was(prepared: Desk) -> None:
    prepared.clock.go_on(minutes=1)
    prepared(
        "session_record_invocation",
        session_id="a",
        tool_name="git_push",
        arguments={"branch": "main", "token": "abc"},
        result="half",
        error="rejected",
        duration_ms=250,
        invocation_id="i1",
    )
    (record,) = prepared("session_invocations", session_id="a", status="error")["invocations"]
    assert (record["tool_name"], record["kind"], record["status"]) == ("git_push", "work", "error")
    assert record["error"] == {"type": "Error", "message": "rejected"}
    assert record["arguments"] == {"branch": "main", "token": "[redacted]"}
    assert (record["result"], record["duration_ms"], record["caller"]) == ("half", 250, "python")
    assert prepared.head().failed_invocations == 1


@pytest.mark.parametrize(
    "told",
    [
        {"duration_ms": -1.0},
        {"duration_ms": float("nan")},
        {"duration_ms": float("inf")},
        {"cost": -0.1},
        {"cost": float("nan")},
        {"cost": float("inf")},
        {"input_tokens": -1},
        {"input_tokens": 1 << 60},
        {"invocation_id": "../x"},
        {"tool_name": "a\0b"},
    ],
)
def test_what_is_no_measure_is_refused_and_nothing_is_counted(prepared: Desk, told: dict[str, Any]) -> None:
    head = prepared.head()
    with pytest.raises(InvalidArgumentError):
        prepared("session_record_invocation", **{"session_id": "a", "tool_name": "x", **told})
    assert prepared.head() == head


def test_recorded_calls_are_listed_newest_first_by_tool_and_status(prepared: Desk) -> None:
    prepared("session_get", session_id="a")

    def tools(**asked: Any) -> list[str]:
        return [record["tool_name"] for record in prepared("session_invocations", **asked)["invocations"]]

    assert tools(session_id="a", limit=2) == ["session_get", "session_record_invocation"]
    assert tools(session_id="a", tool="git_log") == ["git_log"]
    assert tools(tool="session_create", status="ok") == ["session_create"]
    assert tools(status="interrupted") == []


def test_totals_are_those_of_all_sessions_or_of_one(prepared: Desk) -> None:
    prepared.prepare("b", user_id="bob")
    one = prepared("session_stats", session_id="a")["totals"]
    assert (one["sessions"], one["messages"], one["invocations"], one["failed"]) == (1, 3, 1, 0)
    both = prepared("session_stats")["totals"]
    assert (both["sessions"], both["messages"], both["invocations"]) == (2, 6, 2)
    assert both["estimated_cost"] == pytest.approx(2 * one["estimated_cost"])
    assert prepared("session_stats", query="user:bob")["totals"]["sessions"] == 1


@pytest.mark.parametrize(
    ("group_by", "names"),
    [
        ("day", ["2026-11-22"]),
        ("model", [MODEL]),
        ("tool", ["git_log"]),
        ("tag", ["billing", "docs"]),
        ("user", [None, "bob"]),
        ("status", ["active", "completed"]),
    ],
)
def test_totals_are_grouped_by_each_mark(prepared: Desk, group_by: str, names: list[str | None]) -> None:
    prepared("session_create", session_id="b", tags=["docs"], user_id="bob")
    prepared("session_complete", session_id="b")
    result = prepared("session_stats", group_by=group_by)
    assert [group.get("group") for group in result["groups"]] == names
    assert sum(group["invocations"] for group in result["groups"]) == result["totals"]["invocations"] == 1
