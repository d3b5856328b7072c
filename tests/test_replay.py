"""A call with the caller's own id is made once: a retry gets what the first one gave."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mcp_sessions import (
    InvalidArgumentError,
    InvocationConflictError,
    InvocationRunningError,
    SessionManager,
    SessionNotFoundError,
)
from mcp_sessions._os import FileLock
from mcp_sessions.calls import HEAD, Call, Number
from mcp_sessions.models import Change, Invocation, InvocationStatus, Limits
from mcp_sessions.storage import MemorySessionStorage, SessionStorage
from tests.processes import Child, until
from tests.programs import call_once, fail_on_a_full_disk, interrupted_in_its_commit, opened, run_slowly
from tests.stores import SetClock


@pytest.fixture
def manager(storage: SessionStorage, clock: SetClock) -> Iterator[SessionManager]:
    with SessionManager(storage, clock=clock, wait_s=0.05) as manager:
        manager.create_session("a")
        yield manager


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A SQLite file with a session in it, for several processes."""
    path = str(tmp_path / "sessions.db")
    with opened(path) as manager:
        manager.create_session("a")
    return path


def _say(manager: SessionManager, *, invocation_id: str | None = "i1", tool: str = "say", **more: Any) -> Call:
    """Make a call that adds a message."""
    with manager.call(tool, "a", {"text": "hello"}, invocation_id=invocation_id, **more) as call:
        if not call.replayed:
            message = call.draft.add_message("user", "hello")
            call.result = {"seq": Number("seq.0"), "message_id": message.message_id}
    return call


def _fail(manager: SessionManager, error: BaseException, **more: Any) -> None:
    with suppress(type(error)), manager.call("say", "a", {"text": "hello"}, invocation_id="i1", **more):
        raise error


def _record(manager: SessionManager, invocation_id: str = "i1") -> Invocation:
    (record,) = manager.invocations(invocation_id=invocation_id).items
    return record


# went well


def test_a_retry_gets_the_recorded_result_and_runs_nothing(manager: SessionManager, clock: SetClock) -> None:
    first = _say(manager)
    clock.go_on(hours=1)
    again = _say(manager)
    assert (first.replayed, again.replayed) == (False, True)
    assert again.result == first.result == _record(manager).result
    assert (again.session_id, again.invocation_id) == ("a", "i1")
    head = manager.metadata("a")
    assert (head.message_count, head.total_invocations) == (1, 1)


def test_what_a_replayed_call_stages_is_not_stored(manager: SessionManager) -> None:
    _say(manager)
    with manager.call("say", "a", {"text": "hello"}, invocation_id="i1") as call:
        call.draft.set_value("k", 1)
        call.result = "other"
    with suppress(RuntimeError), manager.call("say", "a", {"text": "hello"}, invocation_id="i1"):
        raise RuntimeError
    assert manager.get_value("a", "k") is None
    assert len(manager.invocations("a").items) == 1


def test_arguments_are_the_same_in_any_order_and_are_kept_as_a_digest(manager: SessionManager) -> None:
    with manager.call("tool", "a", {"b": [1, {"y": 1, "x": 2}], "a": "ü"}, invocation_id="i1"):
        pass
    with manager.call("tool", "a", {"a": "ü", "b": [1, {"x": 2, "y": 1}]}, invocation_id="i1") as call:
        assert call.replayed
    canonical = '{"a":"ü","b":[1,{"x":2,"y":1}]}'
    assert _record(manager).digest == hashlib.sha256(canonical.encode()).hexdigest()


def test_without_an_id_every_call_is_a_new_one(manager: SessionManager) -> None:
    assert not _say(manager, invocation_id=None).replayed
    assert not _say(manager, invocation_id=None).replayed
    assert manager.metadata("a").message_count == 2


def test_a_replay_needs_no_active_session(manager: SessionManager) -> None:
    first = _say(manager)
    manager.complete_session("a")
    assert _say(manager).result == first.result


def test_a_long_result_is_replayed_whole(manager: SessionManager) -> None:
    text = "x" * (manager.limits.replay_bytes - 2)
    for _ in range(2):
        with manager.call("tool", "a", invocation_id="i1") as call:
            call.result = call.result if call.replayed else text
        assert call.result == text


def test_a_longer_result_cannot_be_replayed_and_nothing_runs(storage: SessionStorage) -> None:
    manager = SessionManager(storage, limits=Limits(replay_bytes=100))
    manager.create_session("a")
    with manager.call("tool", "a", invocation_id="i1") as call:
        call.draft.set_value("k", 1)
        call.result = {"text": "x" * 100, "version": Number("revision")}
    assert call.result["text"] == "x" * 100
    with pytest.raises(InvalidArgumentError, match=r"i1 went well, but its result was over 100 bytes.*Nothing was run"):
        with manager.call("tool", "a", invocation_id="i1"):
            pytest.fail("it ran")
    assert _record(manager).status == "ok"
    refused = manager.invocations("a", limit=1).items[0]
    assert (refused.status, refused.native_id) == ("error", "i1")


def test_a_secret_in_a_result_is_not_replayed(manager: SessionManager) -> None:
    for _ in range(2):
        with manager.call("tool", "a", invocation_id="i1") as call:
            call.result = call.result if call.replayed else {"token": "hunter2"}
    assert call.result == {"token": "[redacted]"}


# went wrong


@pytest.mark.parametrize(("error", "status"), [(RuntimeError(), "error"), (KeyboardInterrupt(), "cancelled")])
def test_a_failed_call_runs_as_the_next_attempt(manager: SessionManager, error: BaseException, status: str) -> None:
    for attempt in (1, 2):
        _fail(manager, error)
        assert (_record(manager).status, _record(manager).attempt) == (status, attempt)
    assert not _say(manager).replayed
    assert (_record(manager).status, _record(manager).attempt) == ("ok", 3)
    assert _say(manager).replayed
    head = manager.metadata("a")
    assert (head.total_invocations, head.failed_invocations, head.message_count) == (1, 0, 1)


def test_a_creating_call_that_failed_first_counts_once_in_the_session_it_makes(manager: SessionManager) -> None:
    """The failed attempt stood in no session, and was taken off the counters of the one that was made then."""
    for go in (False, True):
        with suppress(RuntimeError), manager.call("begin", None, invocation_id="i1", new_session=True) as call:
            call.create(manager.new_metadata("b"))
            if not go:
                raise RuntimeError
    head = manager.metadata("b")
    assert (head.total_invocations, head.failed_invocations) == (1, 0)


def test_a_call_that_failed_beside_the_one_that_went_well_is_recorded_too(manager: SessionManager) -> None:
    with suppress(RuntimeError), manager.call("say", "a", {"text": "hello"}, invocation_id="i1"):
        _say(manager)
        raise RuntimeError("too late")
    assert _record(manager).status == "ok"
    beside = next(record for record in manager.invocations("a").items if record.status == "error")
    assert (beside.native_id, beside.tool_name) == ("i1", "say")
    assert beside.invocation_id.startswith("inv_")


# another call


@pytest.mark.parametrize("other", [{"tool": "shout"}, {"as_user": "ann"}])
def test_an_id_of_another_call_is_a_conflict_recorded_under_a_fresh_one(
    manager: SessionManager, other: dict[str, Any]
) -> None:
    manager.create_session("b", user_id="ann")
    with manager.call("say", "b", {"text": "hello"}, invocation_id="i1") as call:
        call.result = 1
    tool, user = other.get("tool", "say"), other.get("as_user")
    with pytest.raises(InvocationConflictError, match=r"id i1 is taken by another call of say\. Use a new id"):
        with manager.call(tool, "b", {"text": "hello"}, invocation_id="i1", as_user=user):
            pytest.fail("it ran")
    assert _record(manager).result == 1
    refused = next(record for record in manager.invocations("b").items if record.status == "error")
    assert refused.invocation_id.startswith("inv_")
    assert (refused.native_id, refused.tool_name) == ("i1", tool)


def test_an_id_with_other_arguments_is_a_conflict(manager: SessionManager) -> None:
    _say(manager)
    with pytest.raises(InvocationConflictError) as caught:
        with manager.call("say", "a", {"text": "bye"}, invocation_id="i1"):
            pytest.fail("it ran")
    assert (caught.value.invocation_id, caught.value.session_id) == ("i1", "a")
    assert str(caught.value.__notes__[0]) != "invocation i1"


@pytest.mark.parametrize("bad", ["", "a b", "../x", "x" * 129, "\ud800"])
def test_an_id_that_is_none_is_refused_and_recorded_under_a_fresh_one(manager: SessionManager, bad: str) -> None:
    with pytest.raises(InvalidArgumentError, match="invocation_id"):
        _say(manager, invocation_id=bad)
    (record,) = manager.invocations("a").items
    assert (record.status, record.invocation_id[:4]) == ("error", "inv_")


def test_arguments_that_are_no_json_have_no_digest_and_are_refused(manager: SessionManager) -> None:
    with pytest.raises(InvalidArgumentError, match="The call's arguments: a value has a object"):
        with manager.call("tool", "a", {"x": object()}, invocation_id="i1"):
            pytest.fail("it ran")


# within what an id is unique


def test_an_id_is_unique_within_its_session(manager: SessionManager) -> None:
    manager.create_session("b")
    for session_id in ("a", "b"):
        with manager.call("say", session_id, {}, invocation_id="i1") as call:
            assert not call.replayed


def test_a_retried_create_makes_one_session(manager: SessionManager) -> None:
    results: list[Any] = []
    for _ in range(2):
        with manager.call("create", None, {"purpose": "p"}, invocation_id="i1", new_session=True) as call:
            if not call.replayed:
                call.create(manager.new_metadata(purpose="p"))
                call.result = HEAD
        results.append((call.session_id, call.result))
    assert results[0] == results[1]
    assert len(manager.list_sessions()) == 2


def test_two_users_with_one_id_do_not_collide(manager: SessionManager) -> None:
    made: set[str | None] = set()
    for user in ("ann", "bob", None):
        with manager.call("create", None, {}, invocation_id="i1", new_session=True, as_user=user) as call:
            call.create(manager.new_metadata(user_id=user))
        made.add(call.session_id)
    assert len(made) == 3


def test_of_another_users_session_not_even_an_id_is_told(manager: SessionManager) -> None:
    """A taken id was a conflict that named the tool, where an unknown session would not have been found."""
    manager.create_session("anns", user_id="ann")
    with manager.call("secret_tool", "anns", {}, invocation_id="i1", as_user="ann"):
        pass
    with pytest.raises(SessionNotFoundError):
        with manager.call("say", "anns", {}, invocation_id="i1", as_user="bob") as call:
            call.draft.set_value("k", 1)


def test_a_retried_fork_and_a_retried_deletion_are_made_once(manager: SessionManager) -> None:
    for replayed in (False, True):
        with manager.call("fork", "a", {}, invocation_id="i1", new_session=True) as call:
            if not call.replayed:
                call.fork(None, manager.forked_metadata("a", None))
        assert call.replayed is replayed
        child = call.session_id
    for replayed in (False, True):
        with manager.call("delete", "a", {}, invocation_id="i2", new_session=True) as call:
            if not call.replayed:
                call.delete()
                call.result = {"deleted": True}
        assert (call.replayed, call.result) == (replayed, {"deleted": True})
    assert [session.session_id for session in manager.list_sessions()] == [child]


def test_a_call_without_a_session_is_made_once_for_its_user(manager: SessionManager) -> None:
    for replayed in (False, True):
        with manager.call("elsewhere", None, {}, invocation_id="i1") as call:
            call.result = call.result if call.replayed else 7
        assert (call.replayed, call.result) == (replayed, 7)


def test_a_read_is_made_again_and_its_id_stays_free(manager: SessionManager) -> None:
    for _ in range(2):
        with manager.call("look", "a", {}, invocation_id="i1", reads=True) as call:
            assert not call.replayed
    records = manager.invocations("a").items
    assert [record.native_id for record in records] == ["i1", "i1"]
    assert len({record.invocation_id for record in records}) == 2
    assert not _say(manager).replayed


def test_a_deleted_sessions_ids_are_free_in_the_next_one(manager: SessionManager) -> None:
    _say(manager)
    manager.delete_session("a")
    with pytest.raises(SessionNotFoundError):
        _say(manager)
    manager.create_session("a")
    assert not _say(manager).replayed


# recorded elsewhere


def test_records_made_by_a_call_cannot_be_overwritten(manager: SessionManager) -> None:
    given = _say(manager)
    made_here = _say(manager, invocation_id=None)
    before = manager.invocations("a").items
    for call in (given, made_here):
        with pytest.raises(InvocationConflictError, match="is taken by another call of say"):
            manager.link_invocation("a", call.invocation_id, "shout", result="forged")
        with pytest.raises(InvocationConflictError):
            manager.record_usage("a", "gpt-4o", 10, invocation_id=call.invocation_id)
        with pytest.raises(InvocationConflictError), manager.call("record", "a") as forging:
            forging.draft.records.append(manager.linked(call.invocation_id, "shout"))
    assert manager.link_invocation("a", made_here.invocation_id, "say", result="forged").result == made_here.result
    assert [record for record in manager.invocations("a").items if record.tool_name != "record"] == before


def test_a_call_made_elsewhere_may_have_an_id_like_ours(manager: SessionManager) -> None:
    some_id = manager.make_id("inv")
    assert manager.link_invocation("a", some_id, "say").invocation_id == some_id
    assert len(manager.invocations("a").items) == 1


def test_a_record_of_an_id_is_not_taken_over_by_a_call(manager: SessionManager) -> None:
    manager.link_invocation("a", "i1", "say", result="from elsewhere")
    with pytest.raises(InvocationConflictError):
        _say(manager)


# two at once


def test_of_two_threads_at_once_one_runs_and_both_get_its_result(manager: SessionManager) -> None:
    both = threading.Barrier(2)

    def work() -> Any:
        with manager.call("say", "a", {}, invocation_id="i1") as call:
            both.wait(30)  # both have looked, and seen no record
            call.draft.add_message("user", threading.current_thread().name)
            call.result = {"by": threading.get_ident()}
        return call.replayed, call.result

    with ThreadPoolExecutor(2) as pool:
        (first, one), (second, two) = [future.result(60) for future in [pool.submit(work) for _ in range(2)]]
    assert {first, second} == {True, False}
    assert one == two == _record(manager).result
    assert manager.metadata("a").message_count == 1


def test_of_two_threads_at_once_the_second_goes_on_where_the_first_failed(manager: SessionManager) -> None:
    both, failed = threading.Barrier(2), threading.Event()

    def fail() -> None:
        with suppress(RuntimeError), manager.call("say", "a", {}, invocation_id="i1"):
            both.wait(30)
            raise RuntimeError
        failed.set()

    def work() -> bool:
        with manager.call("say", "a", {}, invocation_id="i1") as call:
            both.wait(30)
            failed.wait(30)
            call.draft.add_message("user", "x")
        return call.replayed

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(fail), pool.submit(work)]
        assert [future.result(60) for future in futures] == [None, False]
    assert (_record(manager).status, _record(manager).attempt) == ("ok", 2)
    assert manager.metadata("a").message_count == 1


def test_of_two_slow_calls_at_once_in_one_process_one_runs(manager: SessionManager) -> None:
    """Both had the same owner and attempt, so the second took over the first one's running record."""
    manager.wait_s = 30.0
    runs: list[int] = []
    both = threading.Barrier(2)

    def work() -> Any:
        both.wait(30)
        with manager.call("agent", "a", {}, invocation_id="i1", slow=True) as call:
            if not call.replayed:
                runs.append(1)
                call.draft.add_message("user", "x")
                call.result = threading.get_ident()
        return call.result

    for number in range(5):
        if number:
            manager.delete_session("a")
            manager.create_session("a")
        with ThreadPoolExecutor(2) as pool:
            one, two = [future.result(60) for future in [pool.submit(work) for _ in range(2)]]
        assert one == two
    assert len(runs) == 5


@pytest.mark.parametrize("goes_well", [True, False])
def test_a_slow_call_that_meets_another_only_when_it_begins_heeds_it(clock: SetClock, goes_well: bool) -> None:
    """Both look and see no record; the loser of the running record was refused as if it were late."""

    class Between(MemorySessionStorage):
        """The other one comes between the look and the running record."""

        comes = True

        def owner(self) -> str:
            if self.comes:
                self.comes = False
                with suppress(RuntimeError), manager.call("agent", "a", {}, invocation_id="i1") as first:
                    first.result = "first"
                    if not goes_well:
                        raise RuntimeError
            return super().owner()

    manager = SessionManager(Between(), clock=clock)
    manager.create_session("a")
    with manager.call("agent", "a", {}, invocation_id="i1", slow=True) as call:
        assert call.replayed is goes_well
        call.result = call.result if call.replayed else "second"
    assert call.result == ("first" if goes_well else "second")
    assert _record(manager).attempt == (1 if goes_well else 2)


def test_of_two_processes_at_once_one_runs_and_both_get_its_result(path: str) -> None:
    with opened(path) as manager, Child(call_once, path) as one, Child(call_once, path) as two:
        assert one.hear() == two.hear() == "ready"
        for number in range(20):
            for child in (one, two):
                child.tell(f"i{number}")
            (first, result), (second, other) = one.hear(), two.hear()
            assert {first, second} == {True, False}
            assert result == other == _record(manager, f"i{number}").result
            assert manager.metadata("a").message_count == number + 1
        for child in (one, two):
            child.tell()
            child.ends_well()


# still running


def test_a_running_call_is_waited_for_and_then_said_to_run(manager: SessionManager) -> None:
    with manager.call("say", "a", {"text": "hello"}, invocation_id="i1", slow=True) as call:
        with pytest.raises(InvocationRunningError, match=r"i1 \(say\) is still running after 0.05 s. Retry later"):
            _say(manager)
        with pytest.raises(InvocationRunningError):
            _say(manager, slow=True)
        assert _record(manager).status == "running"
        call.result = "slow"
    assert _say(manager).result == "slow"
    assert sorted(record.status for record in manager.invocations("a").items) == ["error", "error", "ok"]


def test_a_running_call_that_ends_in_time_gives_its_result_to_who_waits(clock: SetClock) -> None:
    waits = threading.Event()

    class Telling(MemorySessionStorage):
        def alive(self, owner: str) -> bool:
            waits.set()
            return super().alive(owner)

    manager = SessionManager(Telling(), clock=clock)
    manager.create_session("a")
    with ThreadPoolExecutor(1) as pool:
        with manager.call("say", "a", {"text": "hello"}, invocation_id="i1", slow=True) as call:
            retry = pool.submit(_say, manager)
            assert waits.wait(60)
            call.result = "slow"
        assert (retry.result(60).replayed, retry.result(60).result) == (True, "slow")


def test_a_slow_call_is_on_record_as_running_for_other_processes(path: str) -> None:
    with Child(run_slowly, path, "i1") as child, opened(path) as manager:
        child.hear()
        record = _record(manager)
        assert (record.status, record.duration_ms, record.session_id) == ("running", None, "a")
        assert manager.interrupt_dead() == []
        assert manager.get_value("a", "answer") is None
        child.tell()
        assert child.hear()[0] == "ended"
        assert (_record(manager).status, manager.get_value("a", "answer")) == ("ok", 42)
        child.ends_well()


def test_a_call_whose_end_the_store_refused_ends_when_there_is_room(path: str) -> None:
    """It stood there as running, and could not be made again, as long as its process lived."""
    with Child(fail_on_a_full_disk, path) as child, opened(path) as manager:
        assert child.hear()[0].startswith("The call could not be recorded: ")
        assert _record(manager).status == "running"
        child.tell()
        until(lambda: _record(manager).status == "error")
        assert _say(manager).result["seq"] == 1
        assert _record(manager).attempt == 2
        child.tell()
        assert child.end() == 0


def test_a_killed_processs_running_call_becomes_interrupted_and_runs_again(path: str) -> None:
    with Child(run_slowly, path, "i1") as child, opened(path) as manager:
        child.hear()
        child.kill()
        assert [record.invocation_id for record in manager.interrupt_dead()] == ["i1"]
        record = _record(manager)
        assert (record.status, record.attempt) == ("interrupted", 1)
        assert record.error is not None
        assert record.error.message == "The process that ran this call ended before the call did."
        assert manager.interrupt_dead() == []
        with manager.call("agent", "a", {"x": 1}, invocation_id="i1", slow=True) as call:
            call.result = "again"
        assert (_record(manager).status, _record(manager).attempt) == ("ok", 2)


def test_a_retry_finds_out_by_itself_that_the_first_ones_process_is_dead(path: str) -> None:
    with Child(run_slowly, path, "i1") as child, opened(path) as manager:
        child.hear()
        child.kill()
        with manager.call("agent", "a", {"x": 1}, invocation_id="i1") as call:
            assert not call.replayed
        assert (_record(manager).status, _record(manager).attempt) == ("ok", 2)


def test_cleanup_interrupts_the_calls_of_dead_processes(path: str) -> None:
    with Child(run_slowly, path, "i1") as child, opened(path) as manager:
        child.hear()
        child.kill()
        manager.cleanup()
        assert _record(manager).status == "interrupted"


def test_calls_of_the_dead_are_found_page_after_page(clock: SetClock) -> None:
    with SessionManager(MemorySessionStorage(), clock=clock) as manager:
        for _ in range(1001):
            record = Invocation(
                invocation_id=manager.make_id("inv"),
                tool_name="agent",
                status=InvocationStatus.RUNNING,
                started_at=clock.now,
                scope="user",
                owner="own_dead",
            )
            manager.storage.commit(None, Change(at=clock.now, records=(record,)))
        assert len(manager.interrupt_dead()) == 1001
        assert manager.interrupt_dead() == []


def test_a_late_finish_of_an_interrupted_call_is_refused(path: str) -> None:
    """As when a call lost the lock that says it lives, on a disk that came back."""
    with opened(path) as manager, opened(path) as other:
        with pytest.raises(InvocationConflictError, match="was marked interrupted, so its late result is refused"):
            with manager.call("agent", "a", {}, invocation_id="i1", slow=True) as call:
                call.draft.set_value("k", 1)
                record = _record(other)
                assert not other.interrupt(record)
                Path(path + "-owners", str(record.owner)).unlink()
                assert other.interrupt(record)
                assert not other.interrupt(record)
        assert manager.get_value("a", "k") is None
        assert _record(manager).status == "interrupted"
        assert sorted(record.status for record in manager.invocations("a").items) == ["error", "interrupted"]


def test_a_slow_calls_end_is_refused_when_its_session_is_gone(manager: SessionManager) -> None:
    with pytest.raises(SessionNotFoundError), manager.call("agent", "a", slow=True) as call:
        manager.delete_session("a")
        call.draft.set_value("k", 1)
    (record,) = manager.invocations().items
    assert (record.session_id, record.status) == (None, "error")


@pytest.mark.parametrize("user", [None, "ann"])
@pytest.mark.parametrize("ends", ["well", "badly"])
def test_a_slow_call_leaves_nothing_in_another_session_of_that_id(
    manager: SessionManager, clock: SetClock, ends: str, user: str | None
) -> None:
    """Its end was refused, but that was put on record in the new session, arguments and all."""
    manager.create_session("b", user_id="ann")
    with pytest.raises((SessionNotFoundError, RuntimeError)):
        with manager.call("agent", "b", {"x": "of the first"}, invocation_id="i1", slow=True, as_user=user) as call:
            manager.delete_session("b")
            clock.go_on(seconds=1)
            manager.create_session("b", user_id="ann")
            before = manager.get_session("b")
            call.draft.set_value("k", 1)
            if ends == "badly":
                raise RuntimeError("no luck")
    after = manager.get_session("b")
    assert before is not None
    assert after is not None
    assert after.to_dict() == before.to_dict()
    assert manager.invocations("b").items == []
    (record,) = manager.invocations().items
    assert (record.session_id, record.status, record.native_id) == (None, "error", "i1")


def test_a_slow_call_does_not_end_for_its_namesake_in_another_session_of_that_id(
    manager: SessionManager, clock: SetClock
) -> None:
    """One process ran both, so the end of the first was taken for that of the second."""
    with pytest.raises(SessionNotFoundError):
        with manager.call("agent", "a", {}, invocation_id="i1", slow=True) as first:
            manager.delete_session("a")
            clock.go_on(seconds=1)
            manager.create_session("a")
            second = manager.call("agent", "a", {}, invocation_id="i1", slow=True)
            second.start()
            first.draft.set_value("k", "first")
            first.result = "first"
    assert manager.get_value("a", "k") is None
    second.draft.set_value("k", "second")
    second.result = "second"
    second.finish()
    assert manager.get_value("a", "k") == "second"
    (record,) = manager.invocations("a").items
    assert (record.invocation_id, record.status, record.result) == ("i1", "ok", "second")


def test_a_slow_deletion_spares_another_session_of_that_id(manager: SessionManager, clock: SetClock) -> None:
    with pytest.raises(SessionNotFoundError):
        with manager.call("delete", "a", new_session=True, slow=True) as call:
            manager.delete_session("a")
            clock.go_on(seconds=1)
            manager.create_session("a")
            call.delete()
    assert manager.get_session("a") is not None
    assert manager.invocations("a").items == []


def test_a_slow_call_on_an_unknown_session_never_runs(manager: SessionManager) -> None:
    with pytest.raises(SessionNotFoundError), manager.call("agent", "nope", slow=True):
        pytest.fail("it ran")
    (record,) = manager.invocations().items
    assert (record.session_id, record.status, record.owner) == (None, "error", None)


def test_a_call_that_is_interrupted_while_its_commit_is_held_up_ends_cancelled(path: str) -> None:
    """Ctrl-C when another process holds the store: what was staged is not committed afterwards."""
    gate = FileLock(Path(path + "-gate"))
    assert gate.acquire(30)
    with Child(interrupted_in_its_commit, path) as child, opened(path) as manager:
        assert child.hear() == "committing"
        os.kill(child.pid, signal.SIGINT)
        gate.release()
        gate.close()
        said = child.rest()
        record = _record(manager, "c1")
        # The signal may come before, in or after the commit; state and record must tell the same story.
        assert (record.status, manager.get_value("a", "k")) in (("cancelled", None), ("ok", 1))
        assert said == (["interrupted"] if said else [])
        assert len(manager.invocations("a").items) == 1
