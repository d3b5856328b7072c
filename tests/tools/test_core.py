"""The core toolset: create, read, set, add, find, page, search, complete."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_sessions import ConflictError, InvalidArgumentError, SessionEndedError, SessionExistsError
from mcp_sessions.tools import SESSION_TOOLS
from tests.tools.desk import Desk


def test_a_session_is_made_with_all_that_was_given(desk: Desk) -> None:
    head = desk(
        "session_create",
        session_id="a",
        purpose="Move billing",
        tags=["billing", "billing", "api"],
        user_id="ada",
        metadata={"ticket": 7},
        data={"plan": [1]},
    )
    assert head == desk.head().to_dict()
    assert (head["tags"], head["user_id"], head["custom_metadata"]) == (["billing", "api"], "ada", {"ticket": 7})
    assert (head["status"], head["revision"], head["message_count"]) == ("active", 1, 0)
    assert desk("session_get", session_id="a")["data"] == {"plan": [1]}


def test_a_session_without_an_id_gets_one_that_nobody_guesses(desk: Desk) -> None:
    ids = {desk("session_create")["session_id"] for _ in range(3)}
    assert len(ids) == 3
    assert all(session_id.startswith("ses_") and len(session_id) == 30 for session_id in ids)


def test_a_taken_id_says_how_to_go_on(prepared: Desk) -> None:
    with pytest.raises(SessionExistsError) as caught:
        prepared("session_create", session_id="a")
    assert str(caught.value) == (
        "Session a already exists (active, 3 messages). Resume it with session_get, or choose another id."
    )


def test_an_active_session_with_the_same_purpose_is_noted(prepared: Desk) -> None:
    prepared.clock.go_on(hours=2)
    assert prepared("session_create", session_id="b", purpose="Move billing")["note"] == (
        "Active session with this purpose: a, used 2 h ago."
    )
    prepared("session_complete", session_id="a")
    prepared("session_complete", session_id="b")
    assert "note" not in prepared("session_create", purpose="Move billing")
    assert "note" not in prepared("session_create", purpose="move billing")
    assert "note" not in prepared("session_create")


def test_a_session_is_read_with_its_data_and_last_messages(prepared: Desk) -> None:
    result = prepared("session_get", session_id="a", messages=2)
    assert result["session"] == prepared.head().to_dict()
    assert result["data"] == {"plan": {"step": 1}, "next_step": "tests"}
    assert [message["seq"] for message in result["messages"]] == [2, 3]
    assert "messages" not in prepared("session_get", session_id="a")


def test_one_key_is_read_with_its_version(prepared: Desk) -> None:
    assert prepared("session_get", session_id="a", key="plan") == {
        "session_id": "a",
        "key": "plan",
        "found": True,
        "value": {"step": 1},
        "version": 5,
    }


def test_a_key_that_is_not_there_says_which_are(prepared: Desk) -> None:
    prepared("session_set", session_id="a", key=".internal", value=1)
    result = prepared("session_get", session_id="a", key="pln")
    assert result == {"session_id": "a", "key": "pln", "found": False, "keys": ["next_step", "plan"]}
    assert prepared("session_get", session_id="a", key=".internal")["value"] == 1
    assert ".internal" not in prepared("session_get", session_id="a")["data"]


def test_several_keys_are_read_together(prepared: Desk) -> None:
    assert prepared("session_get", session_id="a", keys=["plan", "none"])["data"] == {"plan": {"step": 1}}
    both = prepared("session_get", session_id="a", key="plan", keys=["next_step"], messages=1)
    assert (both["value"], both["data"], len(both["messages"])) == ({"step": 1}, {"next_step": "tests"}, 1)


@pytest.mark.parametrize("value", [None, True, 0, 1.5, "", '{"a": 1}', [], {}, [{"a": [None]}], "é\n\u2028😀"])
def test_a_value_is_kept_exactly_as_it_came(prepared: Desk, value: Any) -> None:
    version = prepared("session_set", session_id="a", key="k", value=value)["version"]
    result = prepared("session_get", session_id="a", key="k")
    assert (result["value"], type(result["value"]), result["version"]) == (value, type(value), version)


def test_a_value_is_set_only_at_the_version_expected(prepared: Desk) -> None:
    version = prepared("session_set", session_id="a", key="k", value=1, expected_version=0)["version"]
    assert prepared("session_set", session_id="a", key="k", value=2, expected_version=version)["version"] > version
    with pytest.raises(ConflictError):
        prepared("session_set", session_id="a", key="k", value=3, expected_version=version)
    assert prepared("session_get", session_id="a", key="k")["value"] == 2


@pytest.mark.parametrize(("word", "role"), [("human", "user"), ("ai", "assistant"), ("developer", "system")])
def test_roles_are_understood_in_other_words(prepared: Desk, word: str, role: str) -> None:
    seq = prepared("session_add_message", session_id="a", role=word, content="x")["seq"]
    assert prepared("session_messages", session_id="a", limit=1)["messages"][0]["role"] == role
    assert seq == 4


def test_a_message_keeps_all_that_was_said_of_it(prepared: Desk) -> None:
    told = {
        "role": "assistant",
        "content": "x",
        "tool_name": "grep",
        "message_id": "m1",
        "invocation_id": "i1",
        "payload": {"openai": {"a": [1]}},
        "model": "gpt-4o",
    }
    result = prepared("session_add_message", session_id="a", **told, input_tokens=3, output_tokens=4)
    assert result == {"session_id": "a", "seq": 4, "message_id": "m1"}
    (message,) = prepared("session_messages", session_id="a", limit=1)["messages"]
    assert told.items() <= message.items()
    assert message["token_usage"] == {"input": 3, "output": 4, "cache_read": 0, "cache_write": 0}
    assert prepared.head().token_usage["input"] == 1000  # a message describes, it does not count


def test_a_repeated_message_id_gives_the_first_ones_seq(prepared: Desk) -> None:
    message = {"session_id": "a", "role": "user", "content": "x", "message_id": "m1"}
    assert prepared("session_add_message", **message) == prepared("session_add_message", **message)
    with pytest.raises(ConflictError, match="other content"):
        prepared("session_add_message", **{**message, "content": "y"})
    assert prepared.head().message_count == 4


def test_sessions_are_found_by_each_of_their_marks(prepared: Desk) -> None:
    prepared.clock.go_on(days=3)
    prepared("session_create", session_id="b", purpose="Write docs", tags=["docs", "api"], user_id="bob")
    prepared("session_complete", session_id="b", status="failed")

    def found(**asked: Any) -> list[str]:
        return [row["session_id"] for row in prepared("session_query", **asked)["sessions"]]

    assert found() == ["b", "a"]
    assert found(text="BILLING") == found(tags=["billing"]) == found(status="active") == ["a"]
    assert found(updated_after="24h") == found(created_after="2026-11-24") == found(status="failed") == ["b"]
    assert found(updated_before="2d") == found(created_before="2026-11-24T00:00:00Z") == ["a"]
    assert found(tags=["docs", "billing"]) == ["b", "a"]
    assert found(tags=["docs", "api"], match="all") == ["b"]
    assert found(tags=["docs", "billing"], match="all") == []
    assert found(tool="git_log") == found(min_cost=1e-9) == found(has_errors=False, status="active") == ["a"]
    assert found(user_id="bob") == found(query="user:bob") == ["b"]
    assert found(order="calls") == found(order="cost") == found(order="duration") == ["a", "b"]
    assert found(order="created") == ["b", "a"]
    assert found(limit=1) == ["b"]


def test_a_query_without_an_answer_says_how_to_widen_it(prepared: Desk) -> None:
    assert "Fewer conditions" in prepared("session_query", tags=["none"])["note"]
    assert "note" not in prepared("session_query")


def test_messages_are_read_from_either_end_and_by_role(prepared: Desk) -> None:
    def seqs(**asked: Any) -> list[int]:
        return [message["seq"] for message in prepared("session_messages", session_id="a", **asked)["messages"]]

    assert seqs() == [3, 2, 1]
    assert seqs(order="oldest", limit=2) == [1, 2]
    assert seqs(roles=["tool", "user"]) == [3, 1]


def test_words_are_found_in_messages(prepared: Desk) -> None:
    prepared.prepare("b", user_id="bob")
    hits = prepared("session_search", text="STRIPE billing")["hits"]
    assert [(hit["session_id"], hit["seq"], hit["purpose"]) for hit in hits] == [
        ("b", 1, "Move billing"),
        ("a", 1, "Move billing"),
    ]
    assert len(prepared("session_search", text="stripe", session_id="a")["hits"]) == 1
    assert len(prepared("session_search", text="stripe", user_id="bob")["hits"]) == 1
    assert prepared("session_search", text="stripe", tags=["none"])["hits"] == []
    assert "note" in prepared("session_search", text="nowhere")


@pytest.mark.parametrize("text", ["", "   ", "-*\"'()"])
def test_a_search_without_a_word_points_to_the_query(prepared: Desk, text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="session_query lists sessions"):
        prepared("session_search", text=text)


def test_search_syntax_is_plain_text(prepared: Desk) -> None:
    prepared("session_add_message", session_id="a", role="user", content='NEAR("x" y*) OR col:z -w')
    for text in ('NEAR("x"', "y*", "OR", "col:z", "-w", 'x" y'):
        assert len(prepared("session_search", text=text)["hits"]) == 1, text


def test_a_session_ends_once_and_changes_no_more(prepared: Desk) -> None:
    head = prepared("session_complete", session_id="a", summary="All moved.")
    assert (head["status"], head["summary"]) == ("completed", "All moved.")
    assert "ended_at" in head
    assert prepared("session_complete", session_id="a") == head
    with pytest.raises(SessionEndedError, match="session_update with reopen=true"):
        prepared("session_set", session_id="a", key="k", value=1)
    with pytest.raises(SessionEndedError):
        prepared("session_complete", session_id="a", status="failed")
    assert prepared("session_get", session_id="a")["session"]["summary"] == "All moved."


def test_a_summary_that_comes_after_the_end_is_said_not_to_be_taken(prepared: Desk) -> None:
    """It was passed over without a word."""
    ending = {"session_id": "a", "summary": "All moved."}
    head = prepared("session_complete", **ending)
    assert prepared("session_complete", **ending) == head
    for how in ({}, {"invocation_id": "call-1"}, {"invocation_id": "call-1"}):
        late = prepared.call("session_complete", {**ending, "summary": "Half moved."}, **how)
        assert late["note"].startswith("It had ended already, so this summary was not taken.")
        assert late == {**head, "note": late["note"]}
        assert prepared.records("a")[0].result == late
        line = SESSION_TOOLS["session_complete"].line
        assert line is not None
        assert line(late, {}).endswith(f"(0 failed). Note: {late['note']}")
    assert prepared.head().to_dict() == head
    prepared("session_update", session_id="a", reopen=True)
    mended = prepared("session_complete", session_id="a", summary="Half moved.")
    assert (mended["summary"], "note" in mended) == ("Half moved.", False)
