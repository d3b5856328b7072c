"""Errors that a model can mend: the thing, the fact, the next step."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_sessions import InvalidArgumentError, SessionNotFoundError, SessionsError, UnknownToolError
from tests.tools.desk import EXAMPLES, Desk


def refused(desk: Desk, name: str, **arguments: Any) -> str:
    with pytest.raises(SessionsError) as caught:
        desk.call(name, arguments)
    return str(caught.value)


def test_an_unknown_session_names_the_latest_active_ones(desk: Desk) -> None:
    for number in range(5):
        desk("session_create", session_id=f"s{number}", purpose=f"Task {number}")
        desk.clock.go_on(hours=1)
    desk("session_complete", session_id="s4")
    assert refused(desk, "session_get", session_id="q") == (
        'Session q not found: your latest active: s3 "Task 3" (2 h ago); s2 "Task 2" (3 h ago); '
        's1 "Task 1" (4 h ago). Use one of these, or session_query.'
    )


def test_an_unknown_session_in_an_empty_store_points_to_create(desk: Desk) -> None:
    assert refused(desk, "session_get", session_id="q") == (
        "Session q not found: you have no active session. session_query finds ended ones, session_create makes a "
        "new one."
    )


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("session_get", {"id": "a"}, "Unknown argument 'id': did you mean 'session_id'?"),
        ("session_get", {"sesion_id": "a"}, "Unknown argument 'sesion_id': did you mean 'session_id'?"),
        ("session_set", {"val": 1}, "Unknown argument 'val': did you mean 'value'?"),
        (
            "session_unset",
            {"zzz": 1, "session_id": "a", "keys": ["x"]},
            "Unknown argument 'zzz': session_unset takes session_id, keys.",
        ),
        ("session_set", {"session_id": "a"}, "Argument 'key' of session_set is missing."),
        ("session_get", {"session_id": 7}, "Argument 'session_id' should be a valid string, not 7."),
        (
            "session_get",
            {"session_id": "a", "messages": "ten"},
            "Argument 'messages' should be a valid integer, not 'ten'.",
        ),
        ("session_get", {"session_id": "a", "messages": True}, "Argument 'messages' should be a valid integer"),
        (
            "session_query",
            {"status": "open"},
            "Argument 'status' should be 'active', 'completed', 'failed' or 'abandoned', not 'open'.",
        ),
        ("session_query", {"tags": "x"}, "Argument 'tags' should be a valid list, not 'x'."),
        ("session_query", {"tags": ["x", 5]}, "Argument 'tags'[1] should be a valid string, not 5."),
        ("session_query", {"updated_after": "yesterday"}, "'yesterday' is no time. Write an age such as 24h or 7d"),
        ("session_query", {"limit": 0}, "limit 0 is not between 1 and 1,000."),
        ("session_query", {"min_cost": float("nan")}, "min_cost nan is not between 0 and 1,000,000 USD."),
        ("session_query", {"query": "stat:failed"}, "Unknown term 'stat:failed' in the query. Did you mean 'status:"),
        ("session_query", {"text": "a\0b"}, "Argument 'text' has a NUL character, which no store keeps in text."),
        ("session_messages", {"session_id": "a", "roles": ["bot"]}, "Argument 'roles'[0] should be"),
        ("session_set", {"session_id": "a", "key": "", "value": 1}, "key is empty. Name the key."),
        ("session_set", {"session_id": "a", "key": "k", "value": float("inf")}, "has NaN or an infinity"),
        ("session_set", {"session_id": "a", "key": "k" * 257, "value": 1}, "key has 257 characters; at most 256"),
        (
            "session_add_message",
            {"session_id": "a", "role": "user", "content": "x" * (1 << 20) + "x"},
            "content has 1,048,577 bytes; at most 1,048,576 are kept. Shorten it.",
        ),
        ("session_get", {"session_id": "../a"}, "'session_id' should be an id: 1 to 128 letters, digits"),
        ("session_fork", {"session_id": "a", "new_session_id": "b/c"}, "'b/c' is not an id"),
    ],
)
def test_a_wrong_argument_is_named_with_what_would_be_right(
    prepared: Desk, name: str, arguments: dict[str, Any], sentence: str
) -> None:
    text = refused(prepared, name, **arguments)
    assert sentence in text
    assert "pydantic" not in text


def test_several_mistakes_are_told_at_once(prepared: Desk) -> None:
    assert refused(prepared, "session_set", session="a", keys="k") == (
        "Unknown argument 'session': did you mean 'session_id'? Unknown argument 'keys': did you mean 'key'? "
        "Argument 'session_id' of session_set is missing. Argument 'key' of session_set is missing. "
        "Argument 'value' of session_set is missing."
    )


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("session_creat", "did you mean 'session_create'?"),
        ("sessions_get", "did you mean 'session_get'?"),
        ("bash", "there are session_create, session_get, session_set"),
    ],
)
def test_an_unknown_tool_is_answered_with_what_there_is(prepared: Desk, name: str, hint: str) -> None:
    with pytest.raises(UnknownToolError, match=f"Unknown tool '{name}'") as caught:
        prepared.call(name, {})
    assert hint in str(caught.value)


def test_a_tool_that_is_off_names_its_toolset(prepared: Desk) -> None:
    with pytest.raises(UnknownToolError) as caught:
        prepared.call("session_delete", EXAMPLES["session_delete"], toolsets=("core",))
    assert str(caught.value) == "session_delete is in toolset 'manage', which is off (MCP_SESSIONS_TOOLSETS)."
    assert prepared.records("a")[0].tool_name == "session_delete"
    assert prepared.head().message_count == 3


def test_a_conflict_says_what_it_is_now(prepared: Desk) -> None:
    text = refused(prepared, "session_set", session_id="a", key="plan", value=1, expected_version=1)
    assert "plan" in text
    assert "5" in text
    assert "Read it again" in text


@pytest.mark.parametrize("name", ["session_set", "session_add_message", "session_unset"])
def test_a_change_of_an_ended_session_says_how_to_reopen_it(prepared: Desk, name: str) -> None:
    prepared("session_complete", session_id="a", status="abandoned")
    assert refused(prepared, name, **EXAMPLES[name]) == (
        "Session a is abandoned, so it no longer changes. Reopen it first (session_update with reopen=true), or "
        "create another."
    )


@pytest.mark.parametrize("name", [name for name in EXAMPLES if EXAMPLES[name].get("session_id") == "a"])
def test_every_tool_refuses_a_session_that_is_not_there(desk: Desk, name: str) -> None:
    with pytest.raises(SessionNotFoundError):
        desk.example(name)
    for malformed in ("a b", "", "../a", "a\n", "é", "-a", "a" * 129):
        with pytest.raises(InvalidArgumentError, match="'session_id' should be an id"):
            desk.call(name, {**EXAMPLES[name], "session_id": malformed})


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("session_query", {"text": "w " * 101}, "text: has 101 words; at most 100"),
        ("session_query", {"query": "w " * 101}, "text: has 101 words; at most 100"),
        ("session_query", {"tags": [f"t{n}" for n in range(65)]}, "tags: "),
        ("session_query", {"query": " ".join(f"tag:t{n}" for n in range(65))}, "tags: "),
        ("session_query", {"query": " ".join(f"id:s{n}" for n in range(101))}, "ids: "),
        ("session_stats", {"query": " ".join(f"id:s{n}" for n in range(101))}, "ids: "),
        ("session_search", {"text": " ".join(f"w{n}" for n in range(101))}, "text has 101 words; at most 100"),
        ("session_search", {"text": "-".join(f"w{n}" for n in range(101))}, "text has 101 words; at most 100"),
        ("session_search", {"text": "w", "tags": [f"t{n}" for n in range(65)]}, "tags: "),
    ],
)
def test_a_list_that_is_too_long_is_refused_before_the_store_is_asked(
    prepared: Desk, name: str, arguments: dict[str, Any], sentence: str
) -> None:
    """A thousand words made an expression that SQLite refuses, which was told as a broken store."""
    with pytest.raises(InvalidArgumentError) as caught:
        prepared.call(name, arguments)
    assert str(caught.value).startswith(sentence)


def test_as_much_as_may_be_asked_is_answered(prepared: Desk) -> None:
    many = {"text": " ".join(["billing"] * 100), "tags": ["billing", *(f"t{n}" for n in range(63))]}
    query = " ".join(["id:a", *(f"id:s{n}" for n in range(99))])
    assert [row["session_id"] for row in prepared("session_query", **many, query=query)["sessions"]] == ["a"]
    assert len(prepared("session_search", text=" ".join(["billing"] * 1_000))["hits"]) == 1
    assert prepared("session_search", text=" ".join(f"w{n}" for n in range(100)))["hits"] == []
    roles = ["user", "tool"] * 20_000
    assert len(prepared("session_messages", session_id="a", roles=roles)["messages"]) == 2


def test_a_fork_names_the_argument_that_is_no_id(prepared: Desk) -> None:
    said = refused(prepared, "session_fork", session_id="a", new_session_id="../x")
    assert said.startswith("new_session_id '../x' is not an id")


def test_a_tool_that_is_off_or_of_a_later_version_is_told_to_be_one(prepared: Desk) -> None:
    assert refused(prepared, "agent_invoke") == (
        "Unknown tool 'agent_invoke': it is in toolset 'automation', which is off (MCP_SESSIONS_TOOLSETS)."
    )
    assert refused(prepared, "workflow_run") == (
        "Unknown tool 'workflow_run': it is in toolset 'automation', which is off (MCP_SESSIONS_TOOLSETS)."
    )
