"""Each limit: what is just within it is taken, one more is refused in words, and nothing is left behind."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mcp_sessions import InvalidArgumentError, LimitError, SessionManager
from mcp_sessions.models import Limits, tokens
from mcp_sessions.storage import SessionStorage, SQLiteSessionStorage
from tests.stores import SetClock, open_store

Act = Callable[[SessionManager, int], object]


@pytest.fixture
def manager(storage: SessionStorage, clock: SetClock) -> Iterator[SessionManager]:
    with SessionManager(storage, clock=clock) as manager:
        manager.create_session("a")
        yield manager


KIB64, MIB = 64 << 10, 1 << 20
# What is limited, the limit in its unit, and an act that takes that much of it.
LIMITED: dict[str, tuple[int, str, Act]] = {
    "message": (MIB, "content has 1,048,577 bytes", lambda m, n: m.add_conversation_message("a", "user", "x" * n)),
    "message in bytes": (
        MIB // 2,
        "content has 1,048,578 bytes",
        lambda m, n: m.add_conversation_message("a", "user", "é" * n),
    ),
    "payload": (
        (16 << 20) - len('{"x":""}'),
        "payload has 16,777,217 bytes of JSON",
        lambda m, n: m.add_conversation_message("a", "user", "", payload={"x": "x" * n}),
    ),
    "tool_calls": (
        MIB - len('[{"id":"1","name":""}]'),
        "tool_calls has 1,048,577 bytes of JSON",
        lambda m, n: m.add_conversation_message("a", "assistant", "", tool_calls=[{"id": "1", "name": "x" * n}]),
    ),
    "tool_name": (
        1024,
        "tool_name has 1,025 bytes",
        lambda m, n: m.add_conversation_message("a", "tool", "", tool_name="x" * n),
    ),
    "message_id": (
        128,
        "message_id 'x{60}…' is not an id",
        lambda m, n: m.add_conversation_message("a", "user", "", message_id="x" * n),
    ),
    "value": (MIB - 2, "value has 1,048,577 bytes of JSON", lambda m, n: m.set_value("a", "k", "x" * n)),
    "key": (256, "key has 257 characters", lambda m, n: m.set_value("a", "ü" * n, 1)),
    "tags": (64, "tags has 65 tags", lambda m, n: m.update_session_metadata("a", tags=[str(i) for i in range(n)])),
    "tag": (64, r"the tag 'üüüüüüüüüüüüüüüüüüüü…' has 65 char", lambda m, n: m.create_session(tags=["ü" * n])),
    "session_id": (128, "session_id 'x{60}…' is not an id", lambda m, n: m.create_session("x" * n)),
    "user_id": (256, "user_id has 257 bytes", lambda m, n: m.create_session(user_id="x" * n)),
    "purpose": (KIB64, "purpose has 65,537 bytes", lambda m, n: m.update_session_metadata("a", "x" * n)),
    "summary": (KIB64, "summary has 65,537 bytes", lambda m, n: m.complete_session("a", summary="x" * n)),
    "metadata": (
        KIB64 - len('{"m":""}'),
        "metadata has 65,537 bytes of JSON",
        lambda m, n: m.create_session(custom_metadata={"m": "x" * n}),
    ),
    "a call's result elsewhere": (
        MIB - 2,
        "result has 1,048,577 bytes of JSON",
        lambda m, n: m.link_invocation("a", "i", "tool", result="x" * n),
    ),
    "a call's tool": (1024, "tool_name has 1,025 bytes", lambda m, n: m.link_invocation("a", "i", "x" * n)),
    "a caller": (1024, "caller has 1,025 bytes", lambda m, n: m.link_invocation("a", "i", "t", caller="x" * n)),
    "a model": (1024, "model has 1,025 bytes", lambda m, n: m.record_usage("a", "x" * n)),
}


@pytest.mark.parametrize(("limit", "words", "act"), LIMITED.values(), ids=LIMITED)
def test_a_limit_holds_at_its_number(manager: SessionManager, limit: int, words: str, act: Act) -> None:
    before = manager.metadata("a")
    with pytest.raises(InvalidArgumentError, match=words):
        act(manager, limit + 1)
    assert manager.metadata("a") == before
    assert len(manager.list_sessions()) == 1
    act(manager, limit)


def test_a_limit_says_what_to_do_and_carries_its_numbers(manager: SessionManager) -> None:
    with pytest.raises(LimitError) as caught:
        manager.set_value("a", "k" * 300, 1)
    assert str(caught.value) == "key has 300 characters; at most 256 are kept. Shorten it."
    assert (caught.value.argument, caught.value.actual, caught.value.limit) == ("key", 300, 256)


def test_limits_are_settings(storage: SessionStorage) -> None:
    manager = SessionManager(storage, limits=Limits(message_bytes=3, id_chars=5))
    manager.create_session("short")
    manager.add_conversation_message("short", "user", "abc")
    with pytest.raises(LimitError, match="content has 4 bytes"):
        manager.add_conversation_message("short", "user", "abcd")
    with pytest.raises(LimitError, match="session_id has 6 characters; at most 5"):
        manager.create_session("longer")


def test_tags_that_are_added_count_with_those_that_are_there(manager: SessionManager) -> None:
    """Each of two writers stays within the limit: only the commit knows that together they do not."""
    most = manager.limits.tags

    def add(*tags: str, remove: tuple[str, ...] = ()) -> None:
        with manager.call("tag", "a") as call:
            call.draft.alter(add_tags=tags, remove_tags=remove)

    add(*(f"t{number}" for number in range(most - 1)))
    add("t0", "last")
    before = manager.metadata("a")
    with pytest.raises(LimitError, match="tags has 65 tags; at most 64 are kept"):
        add("one more")
    assert manager.metadata("a").tags == before.tags
    add("another", remove=("t0",))
    assert len(manager.metadata("a").tags) == most


def test_metadata_that_merges_counts_with_what_is_there(manager: SessionManager) -> None:
    half = "x" * (manager.limits.metadata_bytes // 2)
    manager.update_session_metadata("a", custom_metadata={"one": half})
    with pytest.raises(LimitError, match=r"metadata has 65,[0-9]{3} bytes of JSON; at most 65,536 are kept"):
        manager.update_session_metadata("a", custom_metadata={"two": half})
    assert list(manager.metadata("a").custom_metadata) == ["one"]
    manager.update_session_metadata("a", custom_metadata={"one": half + half[:1000]})


def test_what_is_over_a_lowered_limit_may_still_be_made_smaller(tmp_path: Path) -> None:
    with SessionManager(open_store("sqlite", tmp_path)) as before:
        before.create_session("a", tags=[str(number) for number in range(10)], custom_metadata={"m": "x" * 100})
    lower = SQLiteSessionStorage(tmp_path / "sessions.db", limits=Limits(tags=4, metadata_bytes=50))
    with SessionManager(lower) as manager:
        with manager.call("tag", "a") as call:
            call.draft.alter(remove_tags=["0"], metadata={"m": "x" * 60})
        assert len(manager.metadata("a").tags) == 9
        with pytest.raises(LimitError, match="tags has 10 tags; at most 4"), manager.call("tag", "a") as call:
            call.draft.alter(add_tags=["new"])


def test_two_hundred_and_fifty_six_tools_are_named(manager: SessionManager) -> None:
    for number in range(258):
        with manager.call(f"tool{number}", "a"):
            pass
    head = manager.metadata("a")
    assert (len(head.tools_used), head.total_invocations) == (256, 258)


# what cannot be taken at all

SURROGATE = "\ud800"
BAD_JSON: dict[str, tuple[Any, str]] = {
    "NaN": (math.nan, "has NaN or an infinity"),
    "infinity": ([math.inf], "has NaN or an infinity"),
    "an object": ({"x": object()}, "has a object, which is not a JSON value"),
    "bytes": (b"x", "has a bytes"),
    "a set": ({1}, "has a set"),
    "a key that is no text": ({1: 2}, "has the object key 1, which is not a string"),
    "NUL": ("a\0b", "has a NUL character"),
    "half a surrogate": (SURROGATE, "has half of a surrogate pair"),
    "a huge integer": (1 << 2000, "has an integer of 2001 bits"),
}


@pytest.mark.parametrize(("value", "words"), BAD_JSON.values(), ids=BAD_JSON)
def test_only_json_is_stored(manager: SessionManager, value: Any, words: str) -> None:
    session = manager.get_session("a")
    assert session is not None
    for store in (
        lambda: manager.set_value("a", "k", value),
        lambda: manager.create_session(data={"k": value}),
        lambda: manager.create_session(custom_metadata={"k": value}),
        lambda: manager.update_session_metadata("a", custom_metadata={"k": value}),
        lambda: manager.add_conversation_message("a", "user", "x", payload={"k": value}),
        lambda: manager.link_invocation("a", "i", "tool", arguments={"k": value}),
        lambda: session.set("k", value),
    ):
        with pytest.raises(InvalidArgumentError, match=words):
            store()
    assert len(manager.list_sessions()) == 1


def test_a_value_of_a_hundred_levels_is_the_deepest(manager: SessionManager) -> None:
    deep: Any = 1
    for _ in range(99):
        deep = [deep]
    manager.set_value("a", "k", [deep])
    with pytest.raises(InvalidArgumentError, match="nested more than 100 levels deep"):
        manager.set_value("a", "k", [[deep]])
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(InvalidArgumentError, match="nested more than 100 levels deep"):
        manager.set_value("a", "k", endless)


@pytest.mark.parametrize("some_id", ["", ".", "..", "../x", "a/b", "a b", "-a", "a\n", "ü", "a\0", 7, None, "x" * 999])
def test_an_id_is_letters_digits_dots_dashes(manager: SessionManager, some_id: Any) -> None:
    if some_id is not None:
        with pytest.raises(InvalidArgumentError, match=r"session_id .* is not an id: 1 to 128 letters, digits"):
            manager.create_session(some_id)
        with pytest.raises(InvalidArgumentError, match=r"message_id .* is not an id"):
            manager.add_conversation_message("a", "user", "x", message_id=some_id)
    with pytest.raises((InvalidArgumentError, TypeError)):
        manager.link_invocation("a", some_id or "", "tool")


BAD: dict[str, tuple[Callable[[SessionManager], object], str]] = {
    "role": (lambda m: m.add_conversation_message("a", "banana", "x"), "role 'banana' is not one of system, user"),
    "role, nearly": (lambda m: m.add_conversation_message("a", "asistant", "x"), "Did you mean 'assistant'"),
    "role, nearly an alias": (lambda m: m.add_conversation_message("a", "humans", "x"), "Did you mean 'user'"),
    "role of another type": (lambda m: m.add_conversation_message("a", 5, "x"), "role '5' is not one of"),
    "content": (lambda m: m.add_conversation_message("a", "user", {"x": 1}), "content is dict, not text"),
    "payload": (lambda m: m.add_conversation_message("a", "user", "x", payload=[1]), "payload is not an object"),
    "invocation_id": (lambda m: m.add_conversation_message("a", "user", "x", invocation_id="a b"), "is not an id"),
    "tool_calls": (lambda m: m.add_conversation_message("a", "user", "x", tool_calls=[{"x": 1}]), "tool_calls.0.id"),
    "timestamp": (
        lambda m: m.add_conversation_message("a", "user", "x", timestamp=m.clock().replace(tzinfo=None)),
        "timestamp: has no time zone; give an aware time",
    ),
    "field": (lambda m: m.add_conversation_message("a", "user", "x", banana=1), "banana"),
    "empty key": (lambda m: m.set_value("a", "", 1), "key is empty. Name the key."),
    "key": (lambda m: m.set_value("a", "\0", 1), "key has a NUL character"),
    "version": (lambda m: m.set_value("a", "k", 1, expected_version=-1), "expected_version is below 0"),
    "tags as text": (lambda m: m.create_session(tags="abc"), "tags is text, not a list of texts"),
    "tag of another type": (lambda m: m.create_session(tags=[["a"]]), "tags is list, not text"),
    "blank tag": (lambda m: m.create_session(tags=[" "]), "tags has an empty tag. Leave it out"),
    "metadata": (lambda m: m.create_session(custom_metadata=[1]), "metadata is not an object"),
    "metadata, later": (lambda m: m.update_session_metadata("a", custom_metadata=[1]), "metadata is not an object"),
    "parent": (lambda m: m.create_session(parent_id="a/b"), "parent_id 'a/b' is not an id"),
    "duration": (
        lambda m: m.link_invocation("a", "i", "t", duration_ms=-1),
        "duration_ms -1 is not between 0 and 31,622,400,000 milli",
    ),
    "endless duration": (
        lambda m: m.link_invocation("a", "i", "t", duration_ms=math.nan),
        "duration_ms nan is not between",
    ),
    "cost": (lambda m: m.record_usage("a", "gpt-4o", cost=-1), "cost -1 is not between 0 and 1,000,000 USD"),
    "tokens": (lambda m: m.record_usage("a", "gpt-4o", -5), "input tokens -5 is not a count"),
    "tokens as bool": (lambda m: m.record_usage("a", "gpt-4o", True), "input tokens True is not a count"),
    "record's field": (lambda m: m.link_invocation("a", "i", "t", banana=1), "The record: banana"),
    "error": (lambda m: m.link_invocation("a", "i", "t", error="\0"), "error has a NUL character"),
}


@pytest.mark.parametrize(("act", "words"), BAD.values(), ids=BAD)
def test_what_cannot_be_taken_is_said_in_words(
    manager: SessionManager, act: Callable[[SessionManager], object], words: str
) -> None:
    before = manager.metadata("a")
    with pytest.raises(InvalidArgumentError, match=words):
        act(manager)
    assert manager.metadata("a") == before
    assert manager.invocations().items == []


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (
            lambda m: m.link_invocation("a", "i", "t", duration_ms=4e10),
            "duration_ms 40000000000.0 is not between 0 and",
        ),
        (lambda m: m.link_invocation("a", "i", "t", duration_ms="long"), "duration_ms long is not between 0 and"),
        (lambda m: m.record_usage("a", cost=2e6), r"cost 2000000.0 is not between 0 and 1,000,000 USD\."),
        (lambda m: m.record_usage("a", "m", 10**12 + 1), "a whole number from 0 to 1,000,000,000,000"),
        (lambda m: m.query(min_cost=2e6), "min_cost"),
        (lambda m: m.query("cost>2e6"), "cost>2e6"),
        (lambda m: m.metadata("\ud800"), "session_id has half of a surrogate pair"),
        (lambda m: m.get_session("\ud800"), "session_id has half"),
        (lambda m: m.get_session(5), "session_id is int, not text"),
        (lambda m: m.get_value("a", "a\0b"), "NUL"),
        (lambda m: m.set_value("a", "k", 1, expected_version=1.5), "expected_version is not a whole number"),
        (lambda m: m.list_sessions(user_id=5), "user_id"),
        (lambda m: m.totals(group_by="bogus"), "group_by 'bogus' is not one of day, model"),
        (lambda m: m.fork("a", "1"), "at_seq '1' is not a number of a message"),
        (lambda m: m.cleanup_old_sessions(1e9), "max_age_days 1000000000.0 is not a number of days"),
    ],
)
def test_what_no_store_can_take_is_an_invalid_argument(
    manager: SessionManager, act: Callable[[SessionManager], object], words: str
) -> None:
    before = manager.metadata("a")
    with pytest.raises(InvalidArgumentError, match=words):
        act(manager)
    assert manager.metadata("a") == before


def test_the_most_that_is_taken_is_summed(manager: SessionManager) -> None:
    for name in ("i", "j"):
        manager.link_invocation("a", name, "t", duration_ms=366 * 86_400_000, cost=1e6, token_usage=tokens(10**12))
    (row,) = manager.totals()
    assert (row.duration_ms, row.estimated_cost, row.token_usage["input"]) == (2 * 366 * 86_400_000, 2e6, 2 * 10**12)
    assert manager.query(min_cost=1e6).items[0].session_id == "a"
