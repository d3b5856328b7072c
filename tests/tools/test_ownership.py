"""Each caller sees and changes its own sessions alone: another's answers exactly as one that is not there."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_sessions import InvalidArgumentError, SessionExistsError, SessionNotFoundError, SessionsError
from tests.tools.desk import EXAMPLES, Desk

NAMES_A_SESSION = [name for name, arguments in EXAMPLES.items() if arguments.get("session_id") == "a"]


@pytest.fixture
def shared(desk: Desk) -> Desk:
    """Session "a" is Bob's, "mine" is Ada's."""
    desk.prepare("a", user_id="bob")
    desk.prepare("mine", user_id="ada")
    return desk


@pytest.mark.parametrize("name", NAMES_A_SESSION)
def test_anothers_session_answers_as_an_unknown_one(shared: Desk, name: str) -> None:
    head, records = shared.head(), shared.records("a")

    def answer(session_id: str) -> tuple[type[Exception], str]:
        with pytest.raises(SessionsError) as caught:
            shared.call(name, {**EXAMPLES[name], "session_id": session_id}, as_user="ada")
        return type(caught.value), str(caught.value).replace(f"Session {session_id} ", "Session IT ")

    assert answer("a") == answer("q")
    assert answer("a")[0] is SessionNotFoundError
    assert (shared.head(), shared.records("a")) == (head, records)


@pytest.mark.parametrize("name", NAMES_A_SESSION)
def test_a_mistake_in_anothers_session_answers_as_in_an_unknown_one(shared: Desk, name: str) -> None:
    def answer(session_id: str) -> str:
        with pytest.raises(SessionsError) as caught:
            shared.call(name, {**EXAMPLES[name], "session_id": session_id, "wrong": 1}, as_user="ada")
        return str(caught.value)

    assert answer("a") == answer("q")


def test_lists_hold_the_callers_own_alone(shared: Desk) -> None:
    def ask(name: str, **arguments: Any) -> Any:
        return shared.call(name, arguments, as_user="ada")

    assert [row["session_id"] for row in ask("session_query")["sessions"]] == ["mine"]
    assert ask("session_query", user_id="bob")["sessions"] == []
    assert ask("session_query", query="user:bob")["sessions"] == []
    assert [hit["session_id"] for hit in ask("session_search", text="stripe")["hits"]] == ["mine"]
    assert ask("session_search", text="stripe", user_id="bob")["hits"] == []
    assert ask("session_stats")["totals"]["sessions"] == 1
    assert [group.get("group") for group in ask("session_stats", group_by="user")["groups"]] == ["ada"]
    assert {record.get("session_id") for record in ask("session_invocations", limit=1000)["invocations"]} == {
        "mine",
        None,
    }


def test_a_new_session_is_its_makers(shared: Desk) -> None:
    assert shared.call("session_create", {}, as_user="ada")["user_id"] == "ada"
    assert shared.call("session_create", {"user_id": "ada"}, as_user="ada")["user_id"] == "ada"
    with pytest.raises(InvalidArgumentError, match="not yours to choose"):
        shared.call("session_create", {"user_id": "bob"}, as_user="ada")
    fork = shared.call("session_fork", {"session_id": "mine"}, as_user="ada")
    assert fork["user_id"] == "ada"


def test_the_id_of_anothers_session_is_taken_and_nothing_else_is_said(shared: Desk) -> None:
    with pytest.raises(SessionExistsError) as caught:
        shared.call("session_create", {"session_id": "a"}, as_user="ada")
    assert str(caught.value) == "Session a already exists. Choose another id."
    with pytest.raises(SessionExistsError) as caught:
        shared.call("session_fork", {"session_id": "mine", "new_session_id": "a"}, as_user="ada")
    assert str(caught.value) == "Session a already exists. Choose another id."


def test_a_purpose_that_another_has_is_not_told(shared: Desk) -> None:
    assert "note" not in shared.call("session_create", {"purpose": "Move billing"}, as_user="cleo")
    assert "mine" in shared.call("session_create", {"purpose": "Move billing"}, as_user="ada")["note"]


def test_an_unknown_session_points_to_the_callers_own(shared: Desk) -> None:
    with pytest.raises(SessionNotFoundError, match=r'your latest active: mine "Move billing" \(0 s ago\)\.'):
        shared.call("session_get", {"session_id": "none"}, as_user="ada")
    with pytest.raises(SessionNotFoundError, match="you have no active session"):
        shared.call("session_get", {"session_id": "none"}, as_user="cleo")


def test_an_idempotency_key_of_another_is_free(shared: Desk) -> None:
    mine = shared.call("session_create", {"purpose": "x"}, as_user="ada", invocation_id="call-1")
    theirs = shared.call("session_create", {"purpose": "x"}, as_user="bob", invocation_id="call-1")
    assert mine["session_id"] != theirs["session_id"]
