"""Listings page by page: the pages join, and a cursor belongs to its question."""

from __future__ import annotations

import base64
import json
import tracemalloc
from contextlib import suppress
from typing import Any

import pytest

from mcp_sessions import InvalidArgumentError, InvalidCursorError
from tests.tools.desk import Desk

LISTINGS = {
    "session_query": ("sessions", {"tags": ["t"]}),
    "session_messages": ("messages", {"session_id": "s0"}),
    "session_search": ("hits", {"text": "word"}),
    "session_invocations": ("invocations", {"tool": "work"}),
}


@pytest.fixture
def many(desk: Desk) -> Desk:
    """Seven sessions; the first has seven messages, and each a record of work."""
    for number in range(7):
        desk("session_create", session_id=f"s{number}", tags=["t"])
        desk("session_record_invocation", session_id=f"s{number}", tool_name="work")
        desk("session_add_message", session_id="s0", role="user", content=f"word {number}")
        desk.clock.go_on(minutes=1)
    return desk


def identity(row: dict[str, Any]) -> Any:
    return row.get("invocation_id") or (row.get("session_id"), row.get("seq"))


@pytest.mark.parametrize("name", LISTINGS)
@pytest.mark.parametrize("limit", [1, 3, 7, 8])
def test_pages_join_into_the_whole_listing(many: Desk, name: str, limit: int) -> None:
    rows, asked = LISTINGS[name]
    whole = many.call(name, {**asked, "limit": 1000})[rows]
    assert len(whole) == 7
    assert many.pages(name, rows, **asked, limit=limit) == whole


@pytest.mark.parametrize("name", LISTINGS)
def test_pages_for_a_host_end_early_and_join_all_the_same(many: Desk, name: str) -> None:
    rows, asked = LISTINGS[name]
    whole = many.call(name, {**asked, "limit": 1000})[rows]
    found: list[Any] = []
    cursor: str | None = None
    pages = 0
    while pages == 0 or cursor is not None:
        page = many.call(name, {**asked, "limit": 1000, **({"cursor": cursor} if cursor else {})}, room=900)
        assert len(json.dumps(page)) <= 900
        found += page[rows]
        cursor = page.get("next_cursor")
        pages += 1
    assert [identity(row) for row in found] == [identity(row) for row in whole]
    assert pages > 1


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("session_get", {"messages": 1000}),
        ("session_messages", {"limit": 1000}),
        ("session_search", {"text": "word", "limit": 1000}),
        ("session_invocations", {"limit": 1000, "tool": "work"}),
        ("session_query", {"detail": "full", "limit": 1000}),
    ],
)
def test_an_answer_for_a_host_loads_little_more_than_has_room(desk: Desk, name: str, asked: dict[str, Any]) -> None:
    """A page of a thousand long messages was loaded whole, and then cut to the few that had room."""
    long = "word " + "x" * 200_000
    for number in range(100):
        desk.manager.create_session(f"s{number}", custom_metadata={"m": "x" * 60_000})
        desk.manager.add_conversation_message("s0", "user", long)
        desk.manager.set_value("s0", f"k{number}", long)
        with desk.manager.call("work", "s0", {}, invocation_id=f"i{number}") as call:
            call.result = long
    desk("session_search", text="word", limit=1)  # all is in the index
    asked = asked if name == "session_query" else {"session_id": "s0", **asked}
    tracemalloc.start()
    page = desk.call(name, asked, room=40_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert any(page.values())
    assert peak < 8_000_000


def test_oldest_first_joins_too(many: Desk) -> None:
    found = many.pages("session_messages", "messages", session_id="s0", order="oldest", limit=2)
    assert [message["seq"] for message in found] == [1, 2, 3, 4, 5, 6, 7]


def test_what_is_added_while_paging_does_not_shift_the_pages(many: Desk) -> None:
    page = many("session_messages", session_id="s0", limit=3)
    many("session_add_message", session_id="s0", role="user", content="word new")
    rest = many("session_messages", session_id="s0", limit=10, cursor=page["next_cursor"])
    assert [message["seq"] for message in page["messages"] + rest["messages"]] == [7, 6, 5, 4, 3, 2, 1]


def test_an_age_means_the_same_on_every_page(many: Desk) -> None:
    """A page of "the last hour", turned an hour later, goes on with the hour it began with."""
    page = many("session_query", updated_after="1h", query="created:2h", limit=3)
    many.clock.go_on(hours=5)
    rest = many("session_query", updated_after="1h", query="created:2h", limit=10, cursor=page["next_cursor"])
    assert len(page["sessions"]) + len(rest["sessions"]) == 7
    assert many("session_query", updated_after="1h")["sessions"] == []


@pytest.mark.parametrize("name", LISTINGS)
def test_a_cursor_of_another_question_is_refused(many: Desk, name: str) -> None:
    _, asked = LISTINGS[name]
    for other, (_, others) in LISTINGS.items():
        cursor = many.call(other, {**others, "limit": 2})["next_cursor"]
        if other == name:
            changed = {
                "session_query": {"tags": ["u"]},
                "session_messages": {"order": "oldest"},
                "session_search": {"text": "words"},
                "session_invocations": {"tool": "other"},
            }[name]
        else:
            changed = {}
        with pytest.raises(InvalidCursorError, match="belongs to another query"):
            many.call(name, {**asked, **changed, "cursor": cursor})


def test_a_cursor_takes_another_page_size(many: Desk) -> None:
    for name, (rows, asked) in LISTINGS.items():
        cursor = many.call(name, {**asked, "limit": 2})["next_cursor"]
        assert len(many.call(name, {**asked, "limit": 4, "cursor": cursor})[rows]) == 4


def forged(cursor: str, place: Any) -> str:
    digest = json.loads(base64.urlsafe_b64decode(cursor + "=="))[0]
    return base64.urlsafe_b64encode(json.dumps([digest, place]).encode()).decode().rstrip("=")


@pytest.mark.parametrize("name", [*LISTINGS, "session_export"])
def test_a_cursor_that_nobody_gave_out_is_refused(many: Desk, name: str) -> None:
    asked = LISTINGS[name][1] if name in LISTINGS else {"session_id": "s0"}
    room = 1_200 if name == "session_export" else None
    real = many.call(name, {**asked, **({"limit": 2} if room is None else {})}, room=room)["next_cursor"]
    place = json.loads(base64.urlsafe_b64decode(real + "=="))[1]
    shapes: list[Any] = [None, [], {}, "x", [None] * len(place), [*place, 1], place[:-1]]
    for cursor in (
        "x",
        "!",
        "é",
        "A" * 5000,
        base64.b64encode(b"[1]").decode(),
        *(forged(real, one) for one in shapes),
    ):
        with pytest.raises(InvalidArgumentError):
            many.call(name, {**asked, "cursor": cursor}, room=room)


@pytest.mark.parametrize("part", [10**30, 2**62, -(2**62), "zzz", ""])
def test_a_forged_place_is_an_error_or_an_empty_page(many: Desk, part: Any) -> None:
    for name, (_, asked) in LISTINGS.items():
        real = many.call(name, {**asked, "limit": 2})["next_cursor"]
        place = json.loads(base64.urlsafe_b64decode(real + "=="))[1]
        for index, one in enumerate(place):
            if type(one) is type(part):
                changed = [*place[:index], part, *place[index + 1 :]]
                with suppress(InvalidArgumentError):  # either answer is right, a crash is not
                    many.call(name, {**asked, "cursor": forged(real, changed)})
