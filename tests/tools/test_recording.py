"""Every call through the door is on record: what it was asked, what it gave, in which session."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_sessions import (
    InvalidArgumentError,
    InvocationConflictError,
    SessionManager,
    SessionsError,
    UnknownToolError,
)
from mcp_sessions.models import Change, InvocationStatus
from tests.tools.desk import EXAMPLES, READS, WRITES, Desk

MUCH = {"words": ["word"] * 500}
"""JSON that no record keeps a copy of."""


@pytest.mark.parametrize("name", WRITES)
def test_the_record_of_a_change_has_the_result_that_was_returned(prepared: Desk, name: str) -> None:
    result = prepared.example(name, invocation_id="call-1", caller="mcp:Test")
    (record,) = prepared.records(invocation_id="call-1")
    assert record.result == result
    assert (record.tool_name, record.caller, record.status) == (name, "mcp:Test", InvocationStatus.OK)
    assert (record.kind, record.duration_ms is not None) == ("session", True)


@pytest.mark.parametrize("name", WRITES)
def test_a_change_and_its_record_are_one_commit(prepared: Desk, name: str) -> None:
    """The record carries the revision that its commit made, which is the session's: nothing was committed between."""
    prepared.example(name)
    record = prepared.records(tool=name)[0]
    belongs_to = {"session_create": "new", "session_fork": "b", "session_delete": None}.get(name, "a")
    assert record.session_id == belongs_to
    # Removing a session leaves none to have a revision, and a mere record does not make one.
    if name not in ("session_delete", "session_record_invocation"):
        assert record.revision == prepared.head(str(belongs_to)).revision


@pytest.mark.parametrize("name", READS)
def test_a_read_is_on_record_with_its_arguments_and_a_count(prepared: Desk, name: str) -> None:
    head = prepared.head()
    result = prepared.example(name, caller="agent:explore")
    record = prepared.records(tool=name)[0]
    assert record.arguments == EXAMPLES[name]
    assert record.caller == "agent:explore"
    assert list(record.result) == ["count"]
    rows = [value for value in result.values() if isinstance(value, list)]
    assert record.result["count"] == {"session_get": 4, "session_export": 5}.get(name, len(rows[0]) if rows else 1)
    assert prepared.head() == head


def test_what_stands_in_the_session_is_not_stored_twice(prepared: Desk) -> None:
    prepared("session_add_message", session_id="a", role="user", content="the content", payload={"openai": {}})
    prepared("session_set", session_id="a", key="k", value={"the": "value"})
    message, value = prepared.records(tool="session_add_message")[0], prepared.records(tool="session_set")[0]
    assert message.arguments == {"session_id": "a", "role": "user"}
    assert message.refs == {"arguments.content": "message:4", "arguments.payload": "message:4"}
    assert value.arguments == {"session_id": "a", "key": "k"}
    assert value.refs == {"arguments.value": f"data:k@{prepared.head().revision}"}


def test_long_json_that_stands_in_the_session_is_not_stored_twice(prepared: Desk) -> None:
    told: dict[str, Any] = {"session_id": "a", "tool_name": "grep", "arguments": MUCH, "result": "x" * 3000}
    prepared("session_record_invocation", **told, invocation_id="work-2")
    recording, work = prepared.records("a")[:2]
    at_work = "invocation:work-2"
    assert recording.refs == {"arguments.arguments": at_work, "arguments.result": at_work}
    assert recording.arguments == {"session_id": "a", "tool_name": "grep", "invocation_id": "work-2"}
    assert (work.invocation_id, work.arguments, work.result["chars"]) == ("work-2", MUCH, 3000)
    prepared("session_update", session_id="a", metadata=MUCH)
    update, head = prepared.records("a")[0], prepared.head()
    assert (update.arguments, update.refs) == ({"session_id": "a"}, {"arguments.metadata": f"metadata@{head.revision}"})
    assert head.custom_metadata == MUCH
    prepared("session_create", session_id="b", metadata=MUCH)
    create = prepared.records("b")[0]
    assert (create.arguments, create.refs) == ({"session_id": "b"}, {"arguments.metadata": "metadata@1"})


def test_short_json_stands_in_the_record_too(prepared: Desk) -> None:
    prepared("session_update", session_id="a", metadata={"pr": 7})
    prepared("session_record_invocation", session_id="a", tool_name="grep", arguments={"n": 1}, result="2")
    recording, _, update = prepared.records("a")[:3]
    assert (recording.arguments["arguments"], recording.arguments["result"], recording.refs) == ({"n": 1}, "2", None)
    assert (update.arguments["metadata"], update.refs) == ({"pr": 7}, None)


def test_what_is_told_of_a_call_that_is_on_record_already_stands_where_it_is_told(prepared: Desk) -> None:
    told: dict[str, Any] = {"session_id": "a", "tool_name": "grep", "invocation_id": "work-2"}
    prepared("session_record_invocation", **told, arguments={"n": 1})
    prepared("session_record_invocation", **told, arguments=MUCH)
    record = prepared.records("a")[0]
    assert (record.arguments["arguments"], record.refs) == (MUCH, None)


def test_a_secret_is_stored_where_the_user_asked_and_nowhere_else(prepared: Desk) -> None:
    prepared("session_set", session_id="a", key="access_token", value="abc-secret")
    record = prepared.records(tool="session_set")[0]
    assert record.arguments == {"session_id": "a", "key": "access_token", "value": "[redacted]"}
    assert record.refs is None
    assert prepared("session_get", session_id="a", key="access_token")["value"] == "abc-secret"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("session_set", {"session_id": "a", "key": "k"}),
        ("session_set", {"session_id": "a", "key": 5, "value": 1}),
        ("session_get", {"session_id": "a", "id": 1}),
        ("session_forget", {"session_id": "a"}),
        ("", {"session_id": "a"}),
        ("x" * 1000, {"session_id": "a"}),
    ],
)
def test_a_call_that_is_refused_is_on_record_in_its_session(
    prepared: Desk, name: str, arguments: dict[str, Any]
) -> None:
    head = prepared.head()
    with pytest.raises((InvalidArgumentError, UnknownToolError)) as caught:
        prepared.call(name, arguments)
    record = prepared.records("a")[0]
    assert (record.tool_name, record.status) == (name[:256], InvocationStatus.ERROR)
    assert record.error is not None
    assert (record.error.type, record.error.message) == (type(caught.value).__name__, str(caught.value))
    assert prepared.head() == head


@pytest.mark.parametrize(
    "arguments", [{}, {"session_id": "none"}, {"session_id": 7}, {"session_id": "../a"}, {"session_id": "b"}]
)
def test_a_call_whose_session_is_not_the_callers_is_on_record_without_one(
    prepared: Desk, arguments: dict[str, Any]
) -> None:
    prepared("session_create", session_id="b", user_id="bob")
    with pytest.raises(SessionsError):
        prepared.call("session_set", {**arguments, "key": "k", "value": 1}, as_user="ada")
    with pytest.raises(UnknownToolError):
        prepared.call("session_forget", arguments, as_user="ada")
    assert [record.session_id for record in prepared.records(status="error")] == [None, None]
    assert [record.tool_name for record in prepared.records("b")] == ["session_create"]


def test_a_refused_change_leaves_its_record_alone(prepared: Desk) -> None:
    head = prepared.head()
    with pytest.raises(SessionsError):
        prepared("session_set", session_id="a", key="plan", value="x", expected_version=99)
    assert prepared.head() == head
    record = prepared.records("a")[0]
    assert (record.status, record.error and record.error.type) == (InvocationStatus.ERROR, "ConflictError")
    assert prepared("session_get", session_id="a", key="plan")["value"] == {"step": 1}


# retries


@pytest.mark.parametrize("name", WRITES)
def test_a_retried_change_is_made_once_and_answered_twice(prepared: Desk, name: str) -> None:
    first = prepared.example(name, invocation_id="call-1")
    after = [head.to_dict() for head in prepared.manager.query().items]
    prepared.clock.go_on(minutes=5)
    assert prepared.example(name, invocation_id="call-1") == first
    assert [head.to_dict() for head in prepared.manager.query().items] == after
    assert len(prepared.records(tool=name, invocation_id="call-1")) == 1


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("session_create", {"metadata": MUCH}),
        ("session_update", {"metadata": MUCH}),
        ("session_record_invocation", {"arguments": MUCH, "result": "x" * 3000}),
    ],
)
def test_a_change_whose_record_keeps_no_copy_is_answered_again_all_the_same(
    prepared: Desk, name: str, more: dict[str, Any]
) -> None:
    arguments = {**EXAMPLES[name], **more}
    first = prepared.call(name, arguments, invocation_id="call-1")
    assert prepared.records(tool=name, invocation_id="call-1")[0].refs
    assert prepared.call(name, arguments, invocation_id="call-1") == first
    other = {**arguments, **{argument: {"words": ["other"] * 500} for argument in more if argument != "result"}}
    with pytest.raises(InvocationConflictError):
        prepared.call(name, other, invocation_id="call-1")


def test_a_retried_create_without_an_id_makes_one_session(desk: Desk) -> None:
    first = desk.call("session_create", {"purpose": "x"}, invocation_id="call-1")
    assert desk.call("session_create", {"purpose": "x"}, invocation_id="call-1") == first
    assert len(desk("session_query")["sessions"]) == 1


def test_one_id_is_not_for_two_calls(prepared: Desk) -> None:
    prepared.example("session_set", invocation_id="call-1")
    head = prepared.head()
    for name, arguments in (
        ("session_set", {**EXAMPLES["session_set"], "value": "other"}),
        ("session_add_message", EXAMPLES["session_add_message"]),
    ):
        with pytest.raises(InvocationConflictError, match="Use a new id for a new call"):
            prepared.call(name, arguments, invocation_id="call-1")
    assert prepared.head() == head
    conflicts = prepared.records("a", status="error")
    assert [record.native_id for record in conflicts] == ["call-1", "call-1"]


def test_a_call_that_failed_runs_again_under_its_id(prepared: Desk) -> None:
    arguments = {"session_id": "a", "key": "k", "value": 1}
    prepared("session_complete", session_id="a")
    with pytest.raises(SessionsError):
        prepared.call("session_set", arguments, invocation_id="call-1")
    prepared("session_update", session_id="a", reopen=True)
    prepared.call("session_set", arguments, invocation_id="call-1")
    (record,) = prepared.records(invocation_id="call-1")
    assert (record.status, record.attempt) == (InvocationStatus.OK, 2)


def test_a_read_is_made_again_under_any_id(prepared: Desk) -> None:
    first = prepared.call("session_get", {"session_id": "a"}, invocation_id="call-1")
    prepared("session_set", session_id="a", key="k", value=1)
    assert prepared.call("session_get", {"session_id": "a"}, invocation_id="call-1") != first
    assert {record.native_id for record in prepared.records(tool="session_get")} == {"call-1"}


@pytest.mark.parametrize("invocation_id", ["", "a b", "../x", "x" * 129, "a\0"])
def test_an_id_that_is_none_is_refused_and_on_record(prepared: Desk, invocation_id: str) -> None:
    with pytest.raises(InvalidArgumentError, match="invocation_id"):
        prepared.example("session_set", invocation_id=invocation_id)
    assert prepared.records("a")[0].status is InvocationStatus.ERROR


def test_reads_are_written_although_their_session_is_gone(prepared: Desk) -> None:
    prepared("session_get", session_id="a")
    manager: SessionManager = prepared.manager
    manager.storage.delete("a", Change(at=prepared.clock()))
    assert prepared.records(tool="session_get")[0].session_id is None
