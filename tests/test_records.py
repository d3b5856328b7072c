"""What a record keeps: no secrets, nothing long, and enough to see what happened."""

from __future__ import annotations

import hashlib
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from mcp_sessions import InvalidArgumentError, SQLiteSessionStorage
from mcp_sessions.drafts import Draft
from mcp_sessions.manager import SessionManager
from mcp_sessions.models import Limits
from mcp_sessions.records import PREVIEW_CHARS, Redactor, digest, plain, preview, record_limit
from mcp_sessions.session import new_id, utc_now
from mcp_sessions.tools import invoke


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "PASSWORD",
        "db_password",
        "dbPassword",
        "passwd",
        "client-secret",
        "secretKey",
        "access_token",
        "accessToken",
        "ACCESS_TOKEN",
        "X-Auth-Token",
        "token",
        "apikey",
        "api_key",
        "apiKey",
        "APIKey",
        "OPENAI_API_KEY",
        "Authorization",
        "token2",
        "http.authorization",
    ],
)
def test_a_name_that_holds_a_secret_word_is_a_secret(name: str) -> None:
    assert Redactor().is_secret(name)


@pytest.mark.parametrize(
    "name",
    ["input_tokens", "tokens", "tokenizer", "secretary", "passwords", "key", "api", "keyboard", "key_api", "", "über"],
)
def test_a_word_that_only_resembles_one_is_none(name: str) -> None:
    assert not Redactor().is_secret(name)


def test_which_words_are_secrets_is_a_setting() -> None:
    redactor = Redactor(["pin_code", "", "!"])
    assert redactor.kept({"pinCode": 1, "pin": 2, "password": 3}) == {"pinCode": "[redacted]", "pin": 2, "password": 3}
    assert Redactor([]).kept({"password": 1}) == {"password": 1}


def test_secrets_are_blanked_at_any_depth_and_whole() -> None:
    value = {"a": [{"b": ({"token": {"deep": [1]}},)}], "token": None, "secret": "", "tokens": {"token": 0}}
    assert Redactor().kept(value) == {
        "a": [{"b": [{"token": "[redacted]"}]}],
        "token": None,
        "secret": "[redacted]",
        "tokens": {"token": "[redacted]"},
    }


@pytest.mark.parametrize(("text", "long"), [("x" * 2048, False), ("x" * 2049, True), ("é" * 1024, False)])
def test_a_text_over_two_kib_is_kept_as_its_beginning_its_length_and_its_digest(text: str, long: bool) -> None:
    kept = Redactor().kept([text])[0]
    sha = hashlib.sha256(text.encode()).hexdigest()
    assert kept == ({"preview": text[:200], "chars": len(text), "sha256": sha} if long else text)
    assert Redactor().kept(text, shorten=False) == text


@pytest.mark.parametrize("value", [None, True, 5, 2.5, "x", [], {}])
def test_what_is_small_is_kept_as_it_is(value: Any) -> None:
    assert Redactor().bounded(value, 10) == value


def test_json_that_is_too_long_is_kept_as_the_beginning_of_its_text() -> None:
    value = {"password": "hunter2", "rows": ["ü" * 100] * 1000}
    kept = Redactor().bounded(value, record_limit(Limits()))
    assert kept.keys() == {"preview", "chars", "sha256"}
    assert kept["preview"].startswith('{"password":"[redacted]","rows":["ü')
    assert len(kept["preview"]) == PREVIEW_CHARS
    assert Redactor().bounded(["x" * 100], 104) == ["x" * 100]
    assert Redactor().bounded(["x" * 100], 103) == preview('["' + "x" * 100 + '"]')


def test_equal_arguments_have_one_digest() -> None:
    assert digest({"a": 1, "b": [{"y": 1, "x": None}]}) == digest({"b": [{"x": None, "y": 1}], "a": 1})
    assert digest({"a": 1}) != digest({"a": "1"})
    assert digest({"a": [1, 2]}) != digest({"a": [2, 1]})
    assert digest({}) == hashlib.sha256(b"{}").hexdigest()


def test_any_text_can_be_made_plain() -> None:
    assert plain("a\0b\ud800c" + "d" * 100, 6) == "a\ufffdb?cd"


def test_a_head_in_a_record_shows_no_secret_and_nothing_long_again(manager: SessionManager) -> None:
    arguments = {"purpose": "p" * 60_000, "metadata": {"password": "hunter2", "big": "x" * 60_000}}
    for again in (None, "make"):
        made = invoke(manager, "session_create", arguments, invocation_id=again)
        assert made["custom_metadata"] == arguments["metadata"]
        (record,) = manager.invocations(made["session_id"]).items
        text = record.model_dump_json()
        assert "hunter2" not in text
        assert len(text) < (65_536 if again else 4_096)  # what can be replayed keeps what it gave
    assert invoke(manager, "session_create", arguments, invocation_id="make") == made


def test_a_replay_gives_what_the_head_was_then(manager: SessionManager) -> None:
    """Long fields of the head came from the head of today."""
    arguments = {"session_id": "s", "purpose": "p" * 3_000, "tags": [f"{number}-{'t' * 60}" for number in range(40)]}
    made = invoke(manager, "session_create", arguments, invocation_id="make")
    manager.update_session_metadata("s", purpose="another", tags=[])
    assert invoke(manager, "session_create", arguments, invocation_id="make") == made


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("session_record_invocation", {"tool_name": "login", "result": {"password": "hunter2"}}),
        ("session_record_invocation", {"tool_name": "login", "arguments": [{"password": "hunter2"}]}),
        ("session_record_invocation", {"tool_name": "login", "arguments": '{"password": "hunter2"'}),
        ("session_record_invocation", {"tool_name": "login", "error": {"password": "hunter2"}}),
        ("session_add_message", {"role": "user", "content": {"password": "hunter2"}}),
        ("session_set", {"key": {"password": "hunter2"}, "value": 1}),
        ("session_get", {"password": "hunter2"}),
    ],
)
def test_what_was_wrong_is_told_without_the_secrets_in_it(
    manager: SessionManager, tool: str, arguments: dict[str, Any]
) -> None:
    """The error quoted the argument, and the record kept it beside the one that it had blanked."""
    manager.create_session("s")
    with pytest.raises(InvalidArgumentError) as refused:
        invoke(manager, tool, {"session_id": "s", **arguments})
    (record,) = manager.invocations("s").items
    assert "hunter2" not in f"{refused.value} {record.error}"


def test_an_error_that_quotes_a_secret_stands_in_the_record_without_it(manager: SessionManager) -> None:
    manager.create_session("s")
    with pytest.raises(ValueError, match="hunter2"), manager.call("login", "s", {"password": "hunter2", "pin": 7}):
        raise ValueError("'hunter2' is no password; the pin was 7")
    (record,) = manager.invocations("s").items
    assert record.error is not None
    assert record.error.message == "'[redacted]' is no password; the pin was 7"


def test_names_that_may_be_of_any_length_do_not_fill_memory() -> None:
    """Each name of any length was remembered: 4,096 of a megabyte each."""
    redactor = Redactor()
    long = [f"password_{number}_" + "x" * 100_000 for number in range(100)]
    tracemalloc.start()
    assert all(redactor.is_secret(name + "y") for name in long)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 1_000_000


def test_a_record_of_checked_parts_has_every_field_that_a_checked_record_has(tmp_path: Path) -> None:
    """What is not validated again must be what validation would have made of it."""
    with SessionManager(SQLiteSessionStorage(tmp_path / "s.db")) as own:
        own.create_session("s")
        invoke(own, "session_add_message", {"session_id": "s", "role": "user", "content": "hi"})
        for value in (own.invocations("s").items[0], own.messages("s").items[0]):
            assert type(value).model_validate(value.model_dump()) == value
    draft = Draft(Limits(), utc_now, new_id)
    message = draft.add_message("user", "hi", tool_name="t")
    change = draft.change(utc_now())
    assert type(message).model_validate(message.model_dump()) == message
    assert type(change).model_validate(change.model_dump()) == change
