"""A call: what it stages and its record are one commit, and however it ends, the record says so."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import anyio
import pytest

from mcp_sessions import (
    ConflictError,
    InvalidArgumentError,
    LimitError,
    SessionEndedError,
    SessionExistsError,
    SessionManager,
    SessionNotFoundError,
    SessionStatus,
    StorageError,
)
from mcp_sessions.calls import HEAD, NOTE, REMOVED, REVISION, Call, Number
from mcp_sessions.errors import StorageBusyError
from mcp_sessions.models import Change, Failure, Invocation, Want, tokens
from mcp_sessions.storage import MemorySessionStorage, SessionStorage
from mcp_sessions.storage.heads import Committed
from tests.stores import SetClock


@pytest.fixture
def manager(storage: SessionStorage, clock: SetClock) -> Iterator[SessionManager]:
    with SessionManager(storage, clock=clock, wait_s=0.05) as manager:
        manager.create_session("a", data={"k": 0})
        yield manager


def _only(manager: SessionManager, session_id: str | None = "a") -> Invocation:
    (record,) = manager.invocations(session_id).items
    return record


class Broken(BaseException):
    """Ends a call from outside, as cancelling does."""


# what goes well


def test_state_and_record_are_one_commit(manager: SessionManager, clock: SetClock) -> None:
    with manager.call("tidy", "a", {"how": "well"}, "agent:explore", parent_id="inv-0") as call:
        message = call.draft.add_message("user", "hello")
        call.draft.set_value("k", 1)
        call.draft.unset(["gone"])
        call.draft.alter(purpose="tidy", add_tags=["done"])
        call.model, call.token_usage, call.cost = "gpt-4o", tokens(10, 5), 0.25
        call.result = {"message_id": message.message_id, "seq": Number("seq.0"), "version": REVISION}
    head = manager.metadata("a")
    assert call.result == {"message_id": message.message_id, "seq": 1, "version": 2}
    record = _only(manager)
    assert record.result == call.result
    assert (record.invocation_id, record.revision, head.revision) == (call.invocation_id, 2, 2)
    assert (record.tool_name, record.caller, record.kind, record.status) == ("tidy", "agent:explore", "work", "ok")
    assert (record.arguments, record.parent_id, record.attempt) == ({"how": "well"}, "inv-0", 1)
    assert (record.model, record.token_usage, record.cost, record.cost_source) == (
        "gpt-4o",
        tokens(10, 5),
        0.25,
        "reported",
    )
    assert (record.started_at, record.error, record.digest, record.owner) == (clock.now, None, None, None)
    assert record.duration_ms is not None
    assert record.duration_ms >= 0
    assert (head.total_invocations, head.tools_used, head.estimated_cost) == (1, ["tidy"], 0.25)
    assert (head.purpose, head.tags) == ("tidy", ["done"])


def test_our_own_tools_stand_in_the_records_only(manager: SessionManager) -> None:
    with manager.call("session_set", "a", kind="session") as call:
        call.draft.set_value("k", 1)
    assert manager.metadata("a").total_invocations == 0
    assert _only(manager).kind == "session"


def test_a_result_may_be_what_the_commit_made_of_the_head(manager: SessionManager) -> None:
    with manager.call("end", "a") as call:
        call.draft.alter(status=SessionStatus.COMPLETED)
        call.result = HEAD
    assert call.result == manager.metadata("a").to_dict() == _only(manager).result


def test_a_result_says_which_keys_went(manager: SessionManager) -> None:
    with manager.call("unset", "a") as call:
        call.draft.unset(["k", "absent"])
        call.result = {"removed": REMOVED, "note": NOTE}
    assert call.result == {"removed": ["k"]} == _only(manager).result


def test_a_result_may_be_anything_json(manager: SessionManager) -> None:
    for result in (None, "text", [1, {"x": None}], 2.5, False):
        with manager.call("tool", "a") as call:
            call.result = result
        assert call.result == result
        assert manager.invocations("a", limit=1).items[0].result == result


def test_a_call_makes_a_session_and_its_record_belongs_to_it(manager: SessionManager) -> None:
    with manager.call("create", kind="session", new_session=True) as call:
        call.create(manager.new_metadata("b", purpose="p"))
        call.draft.set_value("x", 1)
        call.result = HEAD
    assert call.session_id == "b"
    assert _only(manager, "b").result == call.result
    assert manager.get_value("b", "x") == 1


def test_a_forks_record_belongs_to_the_child(manager: SessionManager) -> None:
    with manager.call("fork", "a", kind="session", new_session=True) as call:
        call.fork(None, manager.forked_metadata("a", "b"))
    assert manager.invocations("a").items == []
    assert _only(manager, "b").invocation_id == call.invocation_id


def test_a_deletions_record_belongs_to_no_session(manager: SessionManager) -> None:
    with manager.call("delete", "a", kind="session", new_session=True) as call:
        call.delete()
    assert call.deleted is not None
    assert call.deleted.session_id == "a"
    assert manager.get_session("a") is None
    assert (_only(manager, None).tool_name, _only(manager, None).session_id) == ("delete", None)


def test_a_call_without_a_session_stands_on_record_too(manager: SessionManager) -> None:
    with manager.call("elsewhere", None, {"x": 1}) as call:
        call.result = {"done": True}
    record = _only(manager, None)
    assert (record.session_id, record.result, call.session_id) == (None, {"done": True}, None)


def test_a_slow_call_without_a_session_ends_well(manager: SessionManager) -> None:
    """Its running record was kept under no session, where its end did not find it."""
    with manager.call("agent", None, slow=True) as call:
        assert _only(manager, None).status == "running"
        call.result = 1
    assert (_only(manager, None).status, _only(manager, None).result) == ("ok", 1)


@pytest.mark.parametrize("slow", [False, True])
def test_a_slow_call_may_make_a_session(manager: SessionManager, slow: bool) -> None:
    with manager.call("create", new_session=True, slow=slow) as call:
        call.create(manager.new_metadata("b"))
    with manager.call("fork", "a", new_session=True, slow=slow) as call:
        call.fork(None, manager.forked_metadata("a", "c"))
    with manager.call("delete", "a", new_session=True, slow=slow) as call:
        call.delete()
    assert [(record.tool_name, record.session_id, record.status) for record in manager.invocations().items] == [
        ("delete", None, "ok"),
        ("fork", "c", "ok"),
        ("create", "b", "ok"),
    ]


def test_conditions_are_checked_in_the_commit(manager: SessionManager) -> None:
    with pytest.raises(ConflictError, match="at revision 1, not 7"), manager.call("tool", "a") as call:
        call.draft.set_value("k", 1)
        call.conditions["expected_revision"] = 7
    assert manager.get_value("a", "k") == 0
    assert _only(manager).error is not None


# what fails


def test_what_a_store_says_of_itself_stands_in_no_record(manager: SessionManager) -> None:
    told = "/home/ada/sessions.db is held by process 7 (python serve.py --token swordfish)"
    with pytest.raises(StorageError, match="swordfish"), manager.call("tool", "a"):
        raise StorageBusyError("/home/ada/sessions.db", 30.0, told)
    record = _only(manager)
    assert record.error is not None
    assert (record.error.type, record.error.message) == ("StorageBusyError", "The store did not work.")


def test_a_failure_drops_what_was_staged_and_stays_on_record(manager: SessionManager) -> None:
    with pytest.raises(RuntimeError, match="no luck") as caught, manager.call("tool", "a", {"x": 1}) as call:
        call.draft.set_value("k", 1)
        call.draft.add_message("user", "hello")
        raise RuntimeError("no luck")
    record = _only(manager)
    assert (record.status, record.arguments, record.result) == ("error", {"x": 1}, None)
    assert record.error is not None
    assert (record.error.type, record.error.message) == ("RuntimeError", "no luck")
    assert record.invocation_id in str(caught.value.__notes__)
    head = manager.metadata("a")
    assert (head.message_count, head.revision, manager.get_value("a", "k")) == (0, 1, 0)
    assert (head.total_invocations, head.failed_invocations) == (1, 1)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), Broken("from outside")])
def test_whatever_ends_a_call_from_outside_is_recorded_as_cancelled(
    manager: SessionManager, error: BaseException
) -> None:
    with pytest.raises(type(error)), manager.call("tool", "a") as call:
        call.draft.set_value("k", 1)
        raise error
    record = _only(manager)
    assert record.status == "cancelled"
    assert record.error == Failure(type=type(error).__name__, message="The call was cancelled before it ended.")
    assert manager.get_value("a", "k") == 0


@pytest.mark.anyio
@pytest.mark.parametrize("slow", [False, True])
async def test_a_cancelled_task_leaves_a_cancelled_record(manager: SessionManager, slow: bool) -> None:
    begun = anyio.Event()

    async def work() -> None:
        with manager.call("agent", "a", slow=slow) as call:
            call.draft.set_value("k", 1)
            begun.set()
            await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        await begun.wait()
        group.cancel_scope.cancel()
    assert _only(manager).status == "cancelled"
    assert manager.get_value("a", "k") == 0


def test_a_cancelled_read_is_on_record_too(manager: SessionManager) -> None:
    with suppress(KeyboardInterrupt), manager.call("look", "a", reads=True):
        raise KeyboardInterrupt
    assert _only(manager).status == "cancelled"


def test_a_commit_that_is_refused_is_recorded_as_an_error(manager: SessionManager) -> None:
    manager.complete_session("a")
    with pytest.raises(SessionEndedError), manager.call("tool", "a") as call:
        call.draft.set_value("k", 1)
    assert _only(manager).error is not None


@pytest.mark.parametrize(
    ("session_id", "user"), [("nope", None), ("a", "bob"), ("not an id", None), ("\ud800", None), ("x" * 5000, None)]
)
def test_a_call_on_a_session_that_is_not_there_or_not_ours_is_recorded_without_one(
    manager: SessionManager, session_id: str, user: str | None
) -> None:
    for reads in (False, True):
        with (
            pytest.raises((SessionNotFoundError, InvalidArgumentError)),
            manager.call("tool", session_id, as_user=user, reads=reads) as call,
        ):
            manager.metadata(session_id, as_user=user)
            call.draft.set_value("k", 1)
    assert manager.invocations("a").items == []
    records = manager.invocations().items
    assert [(record.session_id, record.status, record.user_id) for record in records] == [(None, "error", user)] * 2


def test_a_short_call_does_not_reach_a_session_that_was_made_anew_by_another(
    manager: SessionManager, clock: SetClock
) -> None:
    manager.create_session("b", user_id="ann")
    with pytest.raises(SessionNotFoundError), manager.call("tool", "b", {"x": 1}, as_user="ann") as call:
        manager.delete_session("b")
        clock.go_on(seconds=1)
        manager.create_session("b", user_id="bob")
        call.draft.set_value("k", 1)
    assert manager.get_value("b", "k") is None
    assert manager.invocations("b").items == []
    assert (_only(manager, None).session_id, _only(manager, None).user_id) == (None, "ann")


def test_changes_without_a_session_are_refused(manager: SessionManager) -> None:
    with pytest.raises(InvalidArgumentError, match="tool changes a session, but names none"):
        with manager.call("tool") as call:
            call.draft.set_value("k", 1)
    assert _only(manager, None).status == "error"


def test_a_result_that_is_no_json_fails_the_call(manager: SessionManager) -> None:
    with pytest.raises(InvalidArgumentError, match="The result of tool has a object"), manager.call("tool", "a") as c:
        c.draft.set_value("k", 1)
        c.result = {"x": object()}
    assert _only(manager).status == "error"
    assert manager.get_value("a", "k") == 0


def test_a_taken_id_fails_the_call_that_creates(manager: SessionManager) -> None:
    with pytest.raises(SessionExistsError), manager.call("create", new_session=True) as call:
        call.create(manager.new_metadata("a"))
    assert _only(manager, None).error is not None


def test_a_limit_fails_the_call_when_it_is_met(manager: SessionManager) -> None:
    with pytest.raises(LimitError), manager.call("tool", "a") as call:
        call.draft.set_value("fine", 1)
        call.draft.set_value("k" * 300, 1)
    assert manager.get_value("a", "fine") is None


UGLY: dict[str, tuple[Any, str]] = {
    "NUL": (RuntimeError("a\0b"), "a\ufffdb"),
    "half a surrogate": (RuntimeError("a\ud800b"), "a?b"),
    "endless": (RuntimeError("x" * 5000), "x" * 2000),
    "nothing": (RuntimeError(), ""),
}


@pytest.mark.parametrize(("error", "kept"), UGLY.values(), ids=UGLY)
def test_any_errors_text_can_be_kept(manager: SessionManager, error: Exception, kept: str) -> None:
    with pytest.raises(RuntimeError), manager.call("tool", "a"):
        raise error
    failure = _only(manager).error
    assert failure is not None
    assert failure.message == kept


def test_whatever_a_client_calls_a_tool_can_be_kept(manager: SessionManager) -> None:
    with suppress(RuntimeError), manager.call("x\0\ud800" + "y" * 999, "a", caller="mcp:\ud800" + "z" * 999):
        raise RuntimeError
    record = _only(manager)
    assert (len(record.tool_name), record.tool_name[:4]) == (256, "x\ufffd?y")
    assert (len(record.caller), record.caller[:6]) == (256, "mcp:?z")


def test_arguments_that_are_no_json_are_recorded_as_refused_and_tell_no_secret(manager: SessionManager) -> None:
    """They were kept as text once, passwords included."""
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]
    arguments: dict[Any, Any] = {
        "password": "hunter2",
        "nested": {"token": "hunter2", "n": math.nan},
        "deep": deep,
        "fine": 1,
        "\ud800.password": "hunter2",
        5: 6,
    }
    with suppress(RuntimeError), manager.call("tool", "a", arguments):
        raise RuntimeError
    kept = _only(manager).arguments
    assert "hunter2" not in str(kept)
    assert kept["password"] == "[redacted]"
    assert kept["nested"] == {"refused": "has NaN or an infinity, which JSON does not know; use null or a string"}
    assert kept["deep"] == {"refused": "is nested more than 100 levels deep"}
    assert (kept["fine"], kept["5"], kept["?.password"]) == (1, 6, "[redacted]")


def test_what_a_tool_says_it_used_must_make_sense(manager: SessionManager) -> None:
    with pytest.raises(InvalidArgumentError, match="The record of tool: token_usage"), manager.call("tool", "a") as c:
        c.draft.set_value("k", 1)
        c.model, c.token_usage = "gpt-4o", {"input": 1}
    record = _only(manager)
    assert (record.status, record.model, manager.get_value("a", "k")) == ("error", None, 0)


def test_a_store_that_cannot_record_a_failure_does_not_hide_it(
    caplog: pytest.LogCaptureFixture, clock: SetClock
) -> None:
    storage = MemorySessionStorage()
    manager = SessionManager(storage, clock=clock)
    manager.create_session("a")
    with pytest.raises(RuntimeError, match="no luck") as caught, manager.call("tool", "a"):
        storage.close()
        raise RuntimeError("no luck")
    assert "The call could not be recorded: The memory storage is closed. Open it again." in caught.value.__notes__
    assert "could not be recorded" in caplog.text


def test_a_commit_that_went_through_before_the_interruption_is_not_recorded_as_cancelled(clock: SetClock) -> None:
    """Ctrl-C while a call waits for its commit: the commit may be done all the same."""

    class Interrupted(MemorySessionStorage):
        after = True

        def commit(self, session_id: str | None, change: Change) -> Committed:
            if not change.set:
                return super().commit(session_id, change)
            if self.after:
                super().commit(session_id, change)
            raise KeyboardInterrupt

    storage = Interrupted()
    manager = SessionManager(storage, clock=clock)
    manager.create_session("a")
    with pytest.raises(KeyboardInterrupt), manager.call("tool", "a") as call:
        call.draft.set_value("k", 1)
    assert (manager.get_value("a", "k"), _only(manager).status) == (1, "ok")
    storage.after = False
    with pytest.raises(KeyboardInterrupt), manager.call("tool", "a") as call:
        call.draft.set_value("k", 2)
    assert manager.get_value("a", "k") == 1
    assert [record.status for record in manager.invocations("a").items] == ["cancelled", "ok"]


def test_an_interrupted_call_is_recorded_where_another_session_has_its_id(clock: SetClock) -> None:
    """A call of the same id that went well in another session was taken for this one."""

    class Interrupted(MemorySessionStorage):
        def commit(self, session_id: str | None, change: Change) -> Committed:
            if session_id == "b" and change.set:
                raise KeyboardInterrupt
            return super().commit(session_id, change)

    manager = SessionManager(Interrupted(), clock=clock)
    for name in ("a", "b"):
        manager.create_session(name)
        with suppress(KeyboardInterrupt), manager.call("tool", name, invocation_id="i") as call:
            call.draft.set_value("k", 1)
    assert [manager.invocations(name).items[0].status for name in ("a", "b")] == ["ok", "cancelled"]


def test_a_refused_commit_of_several_leaves_no_trace(manager: SessionManager) -> None:
    manager.add_conversation_message("a", "user", "x", message_id="m1")
    before = manager.view("a", Want(prefix="", messages=100))
    with suppress(ValueError), manager.call("tool", "a", kind="session") as call:
        call.draft.set_value("k", 1)
        call.draft.add_message("user", "new")
        call.draft.add_message("user", "other", message_id="m1")
    assert manager.view("a", Want(prefix="", messages=100)) == before


# what a record keeps


def test_what_stands_in_the_same_commit_is_pointed_at(manager: SessionManager) -> None:
    with manager.call("say", "a", {"content": "hello", "n": 1}) as call:
        call.draft.add_message("user", "hello")
        call.refs["content"] = "message:seq.0"
    with manager.call("set", "a", {"key": "k@k", "value": {"x": 1}}) as call:
        call.draft.set_value("k@k", {"x": 1})
        call.refs["value"] = "data:k@k@revision"
    second, first = manager.invocations("a").items
    assert (first.arguments, first.refs) == ({"n": 1}, {"arguments.content": "message:1"})
    assert (second.arguments, second.refs) == ({"key": "k@k"}, {"arguments.value": "data:k@k@3"})


def test_a_failed_call_keeps_what_stands_nowhere_else(manager: SessionManager) -> None:
    with suppress(RuntimeError), manager.call("say", "a", {"content": "hello"}) as call:
        call.draft.add_message("user", "hello")
        call.refs["content"] = "message:seq.0"
        raise RuntimeError
    assert (_only(manager).arguments, _only(manager).refs) == ({"content": "hello"}, None)


def test_the_value_of_a_key_that_is_named_like_a_secret_is_not_in_the_record(manager: SessionManager) -> None:
    with manager.call("session_set", "a", {"key": "db_password", "value": "hunter2"}) as call:
        call.draft.set_value("db_password", "hunter2")
        call.refs["value"] = "data:db_password@revision"
    record = _only(manager)
    assert record.arguments == {"key": "db_password", "value": "[redacted]"}
    assert record.refs is None
    assert manager.get_value("a", "db_password") == "hunter2"


def test_secrets_in_arguments_and_results_are_blanked(manager: SessionManager) -> None:
    with manager.call("login", "a", {"user": "ann", "password": "hunter2"}) as call:
        call.result = {"access_token": "hunter2", "input_tokens": 5}
    assert call.result["access_token"] == "hunter2"
    record = _only(manager)
    assert record.arguments == {"user": "ann", "password": "[redacted]"}
    assert record.result == {"access_token": "[redacted]", "input_tokens": 5}


def test_a_long_text_is_kept_as_its_beginning_and_its_digest(manager: SessionManager) -> None:
    text = "ä" * 5000
    with manager.call("tool", "a", {"text": text, "short": "x" * 2048}) as call:
        call.result = text
    preview = {"preview": text[:200], "chars": 5000, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    assert _only(manager).arguments == {"text": preview, "short": "x" * 2048}
    assert _only(manager).result == preview


def test_a_record_stays_under_its_limit(manager: SessionManager) -> None:
    much = {f"k{number}": "x" * 2000 for number in range(12)}
    many = {f"k{number}": 1 for number in range(1000)}
    with manager.call("ü" * 999, "a", much, "ü" * 999) as call:
        call.result = much
    with suppress(RuntimeError), manager.call("ü" * 999, "a", much, "ü" * 999):
        raise RuntimeError("ü" * 100_000)
    with manager.call("t", "a", {**much, "more": "x" * 2000}) as call:
        call.result = {**much, "more": "x" * 2000}
    with manager.call("t", "a", {"data": many}) as call:
        call.refs = {f"data.{key}": f"data:{key}@revision" for key in many}
    refs, more, failed, fits = manager.invocations("a").items
    for record in (refs, more, failed, fits):
        assert len(record.model_dump_json().encode()) < manager.limits.record_bytes
    assert fits.arguments == fits.result == failed.arguments == much
    assert more.arguments.keys() == more.result.keys() == {"preview", "chars", "sha256"}
    assert (refs.refs, refs.arguments) == (None, {"data": many})


def test_members_of_an_argument_are_pointed_at_and_those_of_another_are_not(manager: SessionManager) -> None:
    """A key of one argument took its namesake in another one with it."""
    arguments = {"data": {"k": 1, "token": 2, "other": 3}, "metadata": {"k": "mine"}}
    with manager.call("create", "a", arguments) as call:
        call.draft.set_value("k", 1)
        call.refs = {"data.k": "data:k@revision", "data.token": "data:token@revision", "absent.k": "data:k@revision"}
    record = _only(manager)
    assert record.refs == {"arguments.data.k": "data:k@2"}
    assert record.arguments == {"data": {"token": "[redacted]", "other": 3}, "metadata": {"k": "mine"}}


def test_a_reads_record_keeps_its_arguments_and_a_count_and_no_content(manager: SessionManager) -> None:
    with manager.call("search", "a", {"text": "needle"}, reads=True) as call:
        call.result = {"hits": ["a needle in the hay"]}
        call.count = 1
    with manager.call("look", "a", reads=True) as call:
        call.result = "something"
    assert call.result == "something"
    look, search = manager.invocations("a").items
    assert (search.arguments, search.result) == ({"text": "needle"}, {"count": 1})
    assert look.result is None


def test_a_call_outside_a_with_block_may_be_driven_by_hand(manager: SessionManager) -> None:
    call: Call = manager.call("tool", "a")
    call.start()
    call.draft.set_value("k", 5)
    call.finish()
    assert manager.get_value("a", "k") == 5


def test_a_broken_store_is_said_so_and_nothing_is_half_done(clock: SetClock) -> None:
    storage = MemorySessionStorage()
    manager = SessionManager(storage, clock=clock)
    manager.create_session("a")
    with pytest.raises(StorageError), manager.call("tool", "a") as call:
        call.draft.set_value("k", 1)
        storage.close()
