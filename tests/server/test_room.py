"""Nothing over 40,000 characters leaves the door, whatever is stored; and what was cut says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from mcp.types import CallToolResult

from mcp_sessions.server.answers import ROOM
from tests.server.conftest import Door, text_of
from tests.tools.desk import EXAMPLES, READS, Desk

Fill = Callable[[Desk], None]


def long_purpose(desk: Desk) -> None:
    desk("session_update", session_id="a", purpose="p" * 60_000)
    desk("session_complete", session_id="a", summary="s" * 60_000)
    desk("session_update", session_id="a", reopen=True, metadata={"m": "m" * 60_000})


def control_characters(desk: Desk) -> None:
    for _ in range(4):
        desk("session_add_message", session_id="a", role="user", content="\x01" * 60_000, tool_name="\x01" * 200)
    desk("session_set", session_id="a", key="\x01" * 256, value="\x01" * 60_000)
    desk("session_update", session_id="a", purpose="\x01" * 60_000, tags=["\x01" * 62 + str(n) for n in range(10, 70)])


def emoji(desk: Desk) -> None:
    for _ in range(10):
        desk("session_add_message", session_id="a", role="user", content="😀stripe " * 10_000)
    desk("session_set", session_id="a", key="😀", value=["😀" * 10] * 10_000)


def many_keys(desk: Desk) -> None:
    desk("session_create", session_id="wide", data={f"{number:04}{'k' * 200}": number for number in range(2_000)})
    for _ in range(2):
        desk("session_add_message", session_id="wide", role="user", content="stripe")
    desk("session_delete", session_id="a", confirm=True)
    desk("session_fork", session_id="wide", new_session_id="a")


def many_tools(desk: Desk) -> None:
    for number in range(300):
        desk("session_record_invocation", session_id="a", tool_name=f"{number:03}" + "t" * 250, model=f"m{number}" * 40)


def long_messages(desk: Desk) -> None:
    for _ in range(8):
        payload = {"openai": {"a": ["x" * 50] * 500}}
        desk("session_add_message", session_id="a", role="assistant", content="stripe " * 5_000, payload=payload)


def long_records(desk: Desk) -> None:
    for _ in range(60):
        arguments = {"a": ["x" * 1000] * 20}
        desk(
            "session_record_invocation",
            session_id="a",
            tool_name="grep",
            arguments=arguments,
            result="r" * 30_000,
            error="\x01" * 5_000,
        )


def deep_values(desk: Desk) -> None:
    value: Any = "x" * 900_000
    for _ in range(99):
        value = [value]
    desk("session_set", session_id="a", key="plan", value=value)


FILLS = [
    long_purpose,
    control_characters,
    emoji,
    many_keys,
    many_tools,
    long_messages,
    long_records,
    deep_values,
]
ASKED: dict[str, list[dict[str, Any]]] = {
    "session_get": [
        {"session_id": "a"},
        {"session_id": "a", "messages": 100},
        {"session_id": "a", "key": "plan", "messages": 100},
        {"session_id": "a", "key": "\x01" * 256},
        {"session_id": "a", "key": "none"},
        {"session_id": "a", "key": "plan", "keys": ["next_step", "😀"], "messages": 10},
    ],
    "session_query": [{"limit": 1000}, {"detail": "full", "limit": 1000}],
    "session_messages": [{"session_id": "a", "limit": 1000}, {"session_id": "a", "limit": 1}],
    "session_search": [{"text": "stripe", "limit": 1000}],
    "session_export": [{"session_id": "a"}, {"session_id": "a", "format": "markdown"}],
    "session_invocations": [{"session_id": "a", "limit": 1000}],
    "session_stats": [{"group_by": "tool"}, {"group_by": "tag"}, {"group_by": "model"}],
}


def within(result: CallToolResult) -> bool:
    """Whether neither the text nor the structure is over the room, and every id in it is whole."""
    structured = json.dumps(result.structured_content, ensure_ascii=False, separators=(",", ":"))
    return len(text_of(result)) <= ROOM and len(structured) <= ROOM


@pytest.mark.parametrize("fill", FILLS, ids=lambda fill: fill.__name__)
async def test_every_answer_is_within_the_room(door: Door, desk: Desk, fill: Fill) -> None:
    desk.prepare()
    fill(desk)
    for name in READS:
        for arguments in ASKED[name]:
            result = await door(name, **arguments)
            assert not result.is_error, text_of(result)
            assert within(result), (name, arguments)
    writes = {name: EXAMPLES[name] for name in EXAMPLES if name not in READS}
    writes["session_complete"] = writes.pop("session_complete")  # the end of what can be changed
    writes["session_delete"] = writes.pop("session_delete")
    writes["session_create"] = {"purpose": "\x01" * 60_000, "metadata": {"m": "x" * 60_000}}
    writes["session_unset"] = {"session_id": "a", "keys": [], "all": True}
    writes["session_set"] = {"session_id": "a", "key": "\x01" * 256, "value": "x"}
    for name, arguments in writes.items():
        result = await door(name, **arguments)
        assert not result.is_error, text_of(result)
        assert within(result), name


@pytest.mark.parametrize("fill", [control_characters, emoji, long_messages], ids=lambda fill: fill.__name__)
async def test_pages_that_end_early_join_into_all_messages(door: Door, desk: Desk, fill: Fill) -> None:
    desk.prepare()
    fill(desk)
    seqs: list[int] = []
    cursor = ""
    while cursor is not None:
        page = await door.structured("session_messages", session_id="a", limit=1000, cursor=cursor)
        seqs += [message["seq"] for message in page["messages"]]
        cursor = page.get("next_cursor")
    assert seqs == list(range(desk.head().last_seq, 0, -1))


async def test_early_pages_of_records_and_hits_join_too(door: Door, desk: Desk) -> None:
    desk.prepare()
    long_records(desk)
    long_messages(desk)
    for name, rows, asked in (
        ("session_invocations", "invocations", {"session_id": "a", "tool": "grep"}),
        ("session_search", "hits", {"text": "stripe"}),
    ):
        found = 0
        cursor = ""
        while cursor is not None:
            page = await door.structured(name, **asked, limit=1000, cursor=cursor)
            found += len(page[rows])
            cursor = page.get("next_cursor")
        assert found == {"invocations": 60, "hits": 9}[rows]


async def test_an_export_in_pieces_is_the_whole_document(door: Door, desk: Desk) -> None:
    desk.prepare()
    emoji(desk)
    content, cursor = "", ""
    while cursor is not None:
        piece = await door.structured("session_export", session_id="a", cursor=cursor)
        content += piece["content"]
        cursor = piece.get("next_cursor")
    document = json.loads(content)
    assert len(document["messages"]) == 13
    assert document["data"]["😀"]["value"] == ["😀" * 10] * 10_000


async def test_a_long_message_says_how_long_it_is_and_where_the_rest_is(door: Door, desk: Desk) -> None:
    desk.prepare()
    desk("session_add_message", session_id="a", role="user", content="é" * 100_000)
    for name, asked in (("session_messages", {"limit": 1}), ("session_get", {"messages": 1})):
        (message,) = (await door.structured(name, session_id="a", **asked))["messages"]
        assert message["content"] == "é" * len(message["content"])
        assert 6_000 <= len(message["content"]) <= 8_000
        assert (message["chars"], message["resource"]) == (100_000, "session:///a/messages/4")


async def test_a_long_value_says_how_long_it_is_and_where_it_is_whole(door: Door, desk: Desk) -> None:
    desk.prepare()
    desk("session_set", session_id="a", key="the/plan é", value="x" * 100_000)
    resource = "session:///a/data/the%2Fplan%20%C3%A9"
    desk("session_set", session_id="a", key="short", value="\x01" * 500)
    data = (await door.structured("session_get", session_id="a"))["data"]
    assert data["short"] == "\x01" * 500
    assert data["the/plan é"] == {"preview": "x" * 500, "chars": 100_000, "resource": resource}
    assert data["plan"] == {"step": 1}
    one = await door.structured("session_get", session_id="a", key="the/plan é")
    assert (one["chars"], one["resource"], one["found"]) == (100_000, resource, True)
    assert one["value"] == "x" * len(one["value"])
    assert len(one["value"]) > 15_000


@pytest.mark.parametrize("value", ["x" * 30_000, list(range(6_000)), {"k": "v" * 30_000}])
async def test_a_value_that_has_room_is_whole_when_it_is_asked_for(door: Door, desk: Desk, value: Any) -> None:
    desk.prepare()
    desk("session_set", session_id="a", key="k", value=value)
    result = await door.structured("session_get", session_id="a", key="k")
    assert result["value"] == value
    assert "chars" not in result


async def test_keys_that_had_no_room_are_counted(door: Door, desk: Desk) -> None:
    desk("session_create", session_id="a", data={f"{number:04}{'k' * 200}": number for number in range(1_000)})
    whole = await door.structured("session_get", session_id="a")
    assert len(whole["data"]) + whole["more_keys"] == 1_000
    missing = await door.structured("session_get", session_id="a", key="none")
    assert len(missing["keys"]) + missing["more_keys"] == 1_000
    removed = await door.structured("session_unset", session_id="a", keys=[], all=True)
    assert len(removed["removed"]) + removed["more_removed"] == 1_000


async def test_ids_are_whole_however_little_room_there_is(door: Door, desk: Desk) -> None:
    session_id = "s" * 128
    desk("session_create", session_id=session_id)
    many = ["\x01" * 60 + f"{number:03}" for number in range(64)]
    desk("session_update", session_id=session_id, tags=many, purpose="\x01" * 60_000, metadata={"m": "\x01" * 10_000})
    for number in range(100):
        desk("session_record_invocation", session_id=session_id, tool_name=f"{number:03}" + "\x01" * 250)
    result = await door("session_update", session_id=session_id, reopen=True)
    assert within(result)
    assert result.structured_content is not None
    assert result.structured_content["session_id"] == session_id
    assert session_id in text_of(result)
