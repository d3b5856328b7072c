"""What hosts do to arguments and the door undoes, rule by rule; and what it leaves alone."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_sessions import InvalidArgumentError
from tests.server.conftest import Door
from tests.tools.desk import Desk


@pytest.fixture(autouse=True)
def _prepared(desk: Desk) -> None:
    desk.prepare()


@pytest.mark.parametrize(
    ("name", "sent", "meant"),
    [
        ("session_query", {"tags": '["billing"]'}, {"tags": ["billing"]}),
        ("session_query", {"limit": "5"}, {"limit": 5}),
        ("session_query", {"limit": 5.0}, {"limit": 5}),
        ("session_query", {"limit": "5.0"}, {"limit": 5}),
        ("session_query", {"has_errors": "false"}, {"has_errors": False}),
        ("session_query", {"min_cost": "1e-9"}, {"min_cost": 1e-9}),
        ("session_query", {"tags": None, "status": None, "limit": None, "text": None}, {}),
        ("session_query", {"status": "", "cursor": "", "updated_after": "", "tags": "", "limit": "", "tool": ""}, {}),
        ("session_messages", {"session_id": "a", "order": "", "cursor": ""}, {"session_id": "a"}),
        ("session_messages", {"session_id": "a", "roles": '["user"]'}, {"session_id": "a", "roles": ["user"]}),
        ("session_get", {"session_id": "a", "key": "", "messages": "2"}, {"session_id": "a", "messages": 2}),
        ("session_invocations", {"session_id": "", "tool": "", "status": ""}, {}),
        ("session_stats", {"group_by": "", "session_id": None}, {}),
    ],
)
async def test_a_host_that_means_it_gets_what_it_meant(
    door: Door, desk: Desk, name: str, sent: dict[str, Any], meant: dict[str, Any]
) -> None:
    result = await door.structured(name, **sent, toolCallId="call_1")
    if name != "session_invocations":  # its own calls are among what it lists
        assert result == desk.call(name, meant, room=40_000)
    assert desk.records(tool=name)[0].arguments == meant


async def test_writes_are_mended_too(door: Door, desk: Desk) -> None:
    created = await door.structured("session_create", session_id="", purpose="x", tags='["t"]', metadata='{"m": 1}')
    assert created["session_id"].startswith("ses_")
    assert (created["tags"], created["custom_metadata"]) == (["t"], {"m": 1})
    added = {"session_id": "a", "role": "user", "content": "x", "message_id": "", "tool_name": "", "invocation_id": ""}
    message = await door.structured("session_add_message", **added)
    assert message["message_id"].startswith("msg_")
    assert set(desk("session_messages", session_id="a", limit=1)["messages"][0]) == {
        "seq",
        "message_id",
        "role",
        "content",
        "timestamp",
    }
    await door.structured("session_record_invocation", session_id="a", tool_name="t", error="", model="", cost="0.5")
    record = desk.records("a", tool="t")[0]
    assert (record.status.value, record.model, record.cost) == ("ok", None, 0.5)
    assert (await door.structured("session_unset", session_id="a", keys='["plan"]'))["removed"] == ["plan"]
    assert (await door.structured("session_delete", session_id="a", confirm="true"))["deleted"] is True


@pytest.mark.parametrize("value", ['{"a": 1}', "[1]", "5", "true", "null", "", "5.0", 6.0, None])
async def test_a_value_is_never_taken_for_something_else(door: Door, desk: Desk, value: Any) -> None:
    await door.structured("session_set", session_id="a", key="k", value=value)
    kept = desk("session_get", session_id="a", key="k")["value"]
    assert (kept, type(kept)) == (value, type(value))


async def test_texts_stay_texts(door: Door, desk: Desk) -> None:
    await door.structured("session_add_message", session_id="a", role="user", content='{"a": 1}')
    await door.structured("session_update", session_id="a", purpose="")
    assert desk("session_messages", session_id="a", limit=1)["messages"][0]["content"] == '{"a": 1}'
    assert desk.head().purpose == ""


@pytest.mark.parametrize(
    ("name", "sent", "sentence"),
    [
        ("session_get", {"session_id": "a", "sessionId": "a"}, "Unknown argument 'sessionId': did you mean"),
        ("session_get", {"session_id": "a", "chatInput": "x"}, "Unknown argument 'chatInput'"),
        ("session_get", {"session_id": None}, "'session_id' should be a valid string, not None."),
        ("session_get", {"session_id": ""}, "'session_id' should be an id"),
        ("session_set", {"session_id": "a", "key": None, "value": 1}, "'key' should be a valid string"),
        ("session_query", {"tags": "billing"}, "'tags' should be a valid list, not 'billing'."),
        ("session_query", {"tags": '{"a": 1}'}, "'tags' should be a valid list"),
        ("session_query", {"limit": "many"}, "'limit' should be a valid integer, not 'many'."),
        ("session_query", {"limit": 2.5}, "'limit' should be a valid integer"),
        ("session_query", {"limit": True}, "'limit' should be a valid integer"),
        ("session_query", {"has_errors": 1}, "'has_errors' should be a valid boolean"),
        ("session_query", {"limit": "9" * 5000}, "'limit' should be a valid integer"),
        ("session_query", {"tags": "[" * 5000}, "'tags' should be a valid list"),
    ],
)
async def test_what_cannot_be_meant_is_refused(door: Door, name: str, sent: dict[str, Any], sentence: str) -> None:
    assert sentence in await door.refusal(name, **sent)


@pytest.mark.parametrize("sent", [{"tags": '["billing"]'}, {"limit": "5"}, {"limit": None}, {"status": ""}])
def test_programs_are_taken_at_their_word(desk: Desk, sent: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        desk.call("session_query", sent)
