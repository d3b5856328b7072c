"""The life of a session: made, altered, ended, reopened, forked, removed; and who may."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Literal

import pytest

from mcp_sessions import (
    ConflictError,
    InvalidArgumentError,
    InvalidCursorError,
    InvocationConflictError,
    MessageConflictError,
    SessionEndedError,
    SessionExistsError,
    SessionManager,
    SessionNotFoundError,
    SessionStatus,
)
from mcp_sessions.models import Change, Invocation, InvocationQuery, Page, Want
from mcp_sessions.storage import Committed, MemorySessionStorage, SessionStorage
from tests.stores import SetClock

GENERATED = r"_[a-z2-7]{26}\Z"


# made


def test_a_new_session_has_what_it_was_given(manager: SessionManager, clock: SetClock) -> None:
    session = manager.create_session(
        purpose="Move billing", user_id="ann", tags=["bug", "bug", "db"], custom_metadata={"n": 1}, data={"k": [1]}
    )
    found = manager.metadata(session.session_id)
    assert session.metadata == found
    assert re.match("ses" + GENERATED, found.session_id)
    assert (found.status, found.purpose, found.user_id) == (SessionStatus.ACTIVE, "Move billing", "ann")
    assert (found.tags, found.custom_metadata) == (["bug", "db"], {"n": 1})
    assert (found.created_at, found.updated_at, found.ended_at) == (clock.now, clock.now, None)
    assert (found.revision, found.last_seq, found.message_count) == (1, 0, 0)
    assert session.data == {"k": [1]}
    assert manager.get_value(found.session_id, "k") == [1]


def test_ids_and_time_come_from_outside(storage: SessionStorage, clock: SetClock) -> None:
    numbers = iter(range(100))
    with SessionManager(storage, clock=clock, make_id=lambda prefix: f"{prefix}-{next(numbers)}") as manager:
        session = manager.create_session()
        first = manager.add_conversation_message("ses-0", "user", "hello")
        with manager.call("tool", "ses-0") as call:
            pass
        with pytest.raises(MessageConflictError):
            manager.add_conversation_message("ses-0", "user", "another", message_id="msg-1")
    assert (session.session_id, first.message_id, call.invocation_id) == ("ses-0", "msg-1", "inv-2")
    assert first.timestamp == clock.now


def test_generated_ids_do_not_repeat() -> None:
    manager = SessionManager(MemorySessionStorage())
    assert len({manager.make_id("ses") for _ in range(10_000)}) == 10_000
    assert re.match("ses" + GENERATED, manager.make_id("ses"))


def test_a_taken_id_is_refused(manager: SessionManager) -> None:
    manager.create_session("a", purpose="first")
    with pytest.raises(SessionExistsError, match="Session a already exists") as caught:
        manager.create_session("a", purpose="second")
    assert isinstance(caught.value, ValueError)
    assert caught.value.session_id == "a"
    assert manager.metadata("a").purpose == "first"


def test_tags_given_are_not_shared_with_the_caller(manager: SessionManager) -> None:
    tags, data = ["one"], {"k": {"deep": 1}}
    manager.create_session("a", tags=tags, custom_metadata=data["k"], data=data)
    tags.append("two")
    data["k"]["deep"] = 2
    assert manager.metadata("a").tags == ["one"]
    assert manager.metadata("a").custom_metadata == {"deep": 1}
    assert manager.get_value("a", "k") == {"deep": 1}


# not there

UNKNOWN: dict[str, Callable[[SessionManager, str], object]] = {
    "metadata": lambda manager, id_: manager.metadata(id_),
    "messages": lambda manager, id_: manager.messages(id_),
    "view": lambda manager, id_: manager.view(id_, Want()),
    "invocations": lambda manager, id_: manager.invocations(id_),
    "get_value": lambda manager, id_: manager.get_value(id_, "k"),
    "set_value": lambda manager, id_: manager.set_value(id_, "k", 1),
    "unset_value": lambda manager, id_: manager.unset_value(id_, "k"),
    "add_conversation_message": lambda manager, id_: manager.add_conversation_message(id_, "user", "x"),
    "link_invocation": lambda manager, id_: manager.link_invocation(id_, "i", "tool"),
    "record_usage": lambda manager, id_: manager.record_usage(id_, "gpt-4o", 1),
    "update_session_metadata": lambda manager, id_: manager.update_session_metadata(id_, "x"),
    "complete_session": lambda manager, id_: manager.complete_session(id_),
    "reopen_session": lambda manager, id_: manager.reopen_session(id_),
    "fork": lambda manager, id_: manager.fork(id_),
}


@pytest.mark.parametrize("act", UNKNOWN.values(), ids=UNKNOWN)
def test_an_unknown_session_is_said_so(manager: SessionManager, act: Callable[[SessionManager, str], object]) -> None:
    with pytest.raises(SessionNotFoundError, match=r"^Session nope not found: ") as caught:
        act(manager, "nope")
    assert isinstance(caught.value, LookupError)
    assert isinstance(caught.value, ValueError)
    assert caught.value.session_id == "nope"


def test_asking_whether_there_is_a_session_is_no_error(manager: SessionManager) -> None:
    assert manager.get_session("nope") is None
    assert manager.get_session_statistics("nope") is None
    assert manager.delete_session("nope") is False


OWNED: dict[str, Callable[[SessionManager, str | None], object]] = {
    "metadata": lambda manager, user: manager.metadata("a", as_user=user),
    "view": lambda manager, user: manager.view("a", Want(as_user=user)),
    "messages": lambda manager, user: manager.messages("a", as_user=user),
    "invocations": lambda manager, user: manager.invocations("a", as_user=user),
    "get_value": lambda manager, user: manager.get_value("a", "k", as_user=user),
    "set_value": lambda manager, user: manager.set_value("a", "k", 1, as_user=user),
    "unset_value": lambda manager, user: manager.unset_value("a", "k", as_user=user),
    "add_conversation_message": lambda manager, user: manager.add_conversation_message("a", "user", "x", as_user=user),
    "link_invocation": lambda manager, user: manager.link_invocation("a", "i", "tool", as_user=user),
    "record_usage": lambda manager, user: manager.record_usage("a", "gpt-4o", 1, as_user=user),
    "update_session_metadata": lambda manager, user: manager.update_session_metadata("a", "x", as_user=user),
    "complete_session": lambda manager, user: manager.complete_session("a", as_user=user),
    "reopen_session": lambda manager, user: manager.reopen_session("a", as_user=user),
    "fork": lambda manager, user: manager.fork("a", as_user=user),
}


@pytest.mark.parametrize("act", OWNED.values(), ids=OWNED)
def test_another_users_session_answers_as_an_unknown_one(
    manager: SessionManager, act: Callable[[SessionManager, str | None], object]
) -> None:
    manager.create_session("a", user_id="ann")
    before = manager.metadata("a")
    with pytest.raises(SessionNotFoundError) as refused:
        act(manager, "bob")
    assert str(refused.value) == str(SessionNotFoundError("a"))
    assert manager.metadata("a") == before
    act(manager, "ann")


def test_another_users_session_is_neither_read_nor_listed_whole(manager: SessionManager) -> None:
    manager.create_session("a", user_id="ann")
    assert manager.get_session("a", as_user="bob") is None
    assert manager.get_session_statistics("a", as_user="bob") is None
    assert manager.list_sessions(as_user="bob") == []
    assert manager.list_sessions(user_id="ann", as_user="bob") == []
    assert manager.get_session("a", as_user="ann") is not None
    assert manager.get_session_statistics("a", as_user="ann") is not None
    (listed,) = manager.list_sessions(as_user="ann")
    assert listed.conversation == []


def test_a_copy_is_saved_for_its_own_user_alone(manager: SessionManager) -> None:
    manager.create_session("a", user_id="ann")
    copy = manager.get_session("a")
    assert copy is not None
    copy.set("k", 1)
    before = manager.metadata("a")
    with pytest.raises(SessionNotFoundError) as refused:
        manager.save_session(copy, as_user="bob")
    assert manager.metadata("a") == before
    manager.delete_session("a")
    with pytest.raises(SessionNotFoundError) as unknown:
        manager.save_session(copy, as_user="bob")
    assert str(refused.value) == str(unknown.value)
    assert str(unknown.value) == "Session a not found: and it is not created, because its user_id is not 'bob'."
    assert manager.get_session("a") is None
    manager.save_session(copy, as_user="ann")
    assert manager.get_value("a", "k", as_user="ann") == 1


def test_another_user_cannot_delete_a_session(manager: SessionManager) -> None:
    manager.create_session("a", user_id="ann")
    assert manager.delete_session("a", as_user="bob") is False
    assert manager.metadata("a").user_id == "ann"
    assert manager.delete_session("a", as_user="ann") is True


# altered


def test_purpose_and_tags_are_replaced_and_metadata_merges(manager: SessionManager, clock: SetClock) -> None:
    manager.create_session("a", purpose="old", tags=["x"], custom_metadata={"kept": 1, "changed": 1})
    later = clock.go_on(seconds=5)
    head = manager.update_session_metadata("a", purpose="new", tags=["y"], custom_metadata={"changed": 2})
    assert (head.purpose, head.tags, head.custom_metadata) == ("new", ["y"], {"kept": 1, "changed": 2})
    assert (head.updated_at, head.revision) == (later, 2)
    assert manager.metadata("a") == head


def test_what_is_not_named_is_left_alone(manager: SessionManager) -> None:
    manager.create_session("a", purpose="p", tags=["x"], custom_metadata={"m": 1})
    assert manager.update_session_metadata("a", tags=[]).model_dump(include={"purpose", "tags", "custom_metadata"}) == {
        "purpose": "p",
        "tags": [],
        "custom_metadata": {"m": 1},
    }


def test_updated_at_never_goes_back(manager: SessionManager, clock: SetClock) -> None:
    manager.create_session("a")
    before = manager.metadata("a").updated_at
    clock.go_on(days=-1)
    assert manager.set_value("a", "k", 1).version == 2
    assert manager.complete_session("a").updated_at == before
    assert manager.metadata("a").ended_at == before


# keys


def test_a_value_has_the_version_of_the_revision_that_wrote_it(manager: SessionManager) -> None:
    manager.create_session("a")
    assert manager.set_value("a", "k", {"deep": [1]}).version == 2
    assert manager.set_value("a", "k", None).version == 3
    assert manager.get_value("a", "k", default="absent") is None
    assert manager.unset_value("a", "k") is True
    assert manager.get_value("a", "k", default="absent") == "absent"
    assert manager.unset_value("a", "k") is False
    assert manager.metadata("a").revision == 4


def test_a_value_is_set_only_if_it_still_has_the_version_expected(manager: SessionManager) -> None:
    manager.create_session("a")
    version = manager.set_value("a", "k", 1, expected_version=0).version
    with pytest.raises(ConflictError, match=r"Key 'k' of session a is at version 2, .*Read it again, then retry"):
        manager.set_value("a", "k", 2, expected_version=0)
    assert manager.set_value("a", "k", 2, expected_version=version).value == 2
    with pytest.raises(ConflictError) as caught:
        manager.set_value("a", "other", 1, expected_version=7)
    assert (caught.value.expected, caught.value.actual) == (7, 0)


# messages


def test_messages_are_paged_from_either_end(manager: SessionManager) -> None:
    manager.create_session("a")
    for text in "abcde":
        manager.add_conversation_message("a", "user", text)
    newest = manager.messages("a", limit=2)
    assert [message.content for message in newest.items] == ["e", "d"]
    assert [m.content for m in manager.messages("a", limit=9, cursor=newest.next_cursor).items] == ["c", "b", "a"]
    oldest = manager.messages("a", limit=3, order="oldest")
    assert [message.content for message in oldest.items] == ["a", "b", "c"]
    rest = manager.messages("a", limit=3, order="oldest", cursor=oldest.next_cursor)
    assert ([message.content for message in rest.items], rest.next_cursor) == (["d", "e"], None)


def test_messages_of_some_roles_alone(manager: SessionManager) -> None:
    manager.create_session("a")
    for role in ("user", "assistant", "tool", "user"):
        manager.add_conversation_message("a", role, role)
    found = manager.messages("a", roles=["user", "tool"], order="oldest").items
    assert [(message.seq, message.role) for message in found] == [(1, "user"), (3, "tool"), (4, "user")]


def test_a_cursor_belongs_to_its_question(manager: SessionManager) -> None:
    manager.create_session("a")
    for _ in range(3):
        manager.add_conversation_message("a", "user", "x")
    cursor = manager.messages("a", limit=1).next_cursor
    with pytest.raises(InvalidCursorError, match="belongs to another query"):
        manager.messages("a", limit=1, cursor=cursor, order="oldest")
    with pytest.raises(InvalidCursorError, match="Pass next_cursor back unchanged"):
        manager.messages("a", cursor="nonsense")


@pytest.mark.parametrize("order", ["newest", "oldest"])
def test_a_cursor_does_not_lead_into_another_session_of_that_id(
    manager: SessionManager, clock: SetClock, order: Literal["newest", "oldest"]
) -> None:
    manager.create_session("a")
    for text in ("old 1", "old 2", "old 3"):
        manager.add_conversation_message("a", "user", text)
    cursor = manager.messages("a", limit=1, order=order).next_cursor
    manager.add_conversation_message("a", "user", "old 4")
    manager.complete_session("a")
    assert manager.messages("a", order=order, cursor=cursor).items
    manager.delete_session("a")
    with pytest.raises(SessionNotFoundError):
        manager.messages("a", order=order, cursor=cursor)
    clock.go_on(seconds=1)
    manager.create_session("a")
    for text in ("new 1", "new 2", "new 3"):
        manager.add_conversation_message("a", "user", text)
    with pytest.raises(InvalidCursorError, match="another one was made under its id"):
        manager.messages("a", order=order, cursor=cursor)


@pytest.mark.parametrize(("said", "role"), [("human", "user"), ("ai", "assistant"), ("developer", "system")])
def test_other_words_for_roles_are_understood(manager: SessionManager, said: str, role: str) -> None:
    manager.create_session("a")
    assert manager.add_conversation_message("a", said, "x").role == role


def test_a_message_keeps_its_links_and_its_native_forms(manager: SessionManager, clock: SetClock) -> None:
    manager.create_session("a")
    said = manager.add_conversation_message(
        "a",
        "assistant",
        "",
        tool_name="git_log",
        invocation_id="inv-1",
        tool_calls=[{"id": "c1", "name": "git_log", "arguments": {"n": 1}}],
        payload={"openai": {"x": 1}},
        model="gpt-4o",
        timestamp=clock.now - timedelta(days=1),
    )
    assert manager.messages("a").items == [said]
    assert (said.seq, said.tool_name, said.invocation_id) == (1, "git_log", "inv-1")
    assert said.timestamp == clock.now - timedelta(days=1)


def test_a_message_sent_again_is_the_first_one(manager: SessionManager, clock: SetClock) -> None:
    manager.create_session("a")
    first = manager.add_conversation_message("a", "user", "hello", message_id="m1")
    clock.go_on(seconds=1)
    again = manager.add_conversation_message("a", "user", "hello", message_id="m1")
    assert (again.seq, first.seq) == (1, 1)
    assert manager.metadata("a").message_count == 1
    with pytest.raises(MessageConflictError, match=r"Message m1 of session a exists \(seq 1\) with other content"):
        manager.add_conversation_message("a", "user", "other", message_id="m1")


# ended


@pytest.mark.parametrize("status", ["completed", "failed", SessionStatus.ABANDONED])
def test_a_session_ends_in_one_of_three_ways(manager: SessionManager, clock: SetClock, status: str) -> None:
    manager.create_session("a")
    end = clock.go_on(seconds=9)
    head = manager.complete_session("a", status, summary="done")
    assert (head.status, head.summary, head.ended_at) == (SessionStatus(status), "done", end)


@pytest.mark.parametrize("status", ["active", "done", ""])
def test_no_other_status_ends_one(manager: SessionManager, status: str) -> None:
    manager.create_session("a")
    with pytest.raises(InvalidArgumentError, match="does not end a session; it is one of completed, failed, abandoned"):
        manager.complete_session("a", status)


def test_completing_twice_changes_nothing(manager: SessionManager, clock: SetClock) -> None:
    manager.create_session("a")
    first = manager.complete_session("a", summary="first")
    clock.go_on(seconds=1)
    assert manager.complete_session("a", summary="second") == first
    assert manager.metadata("a") == first


def test_completing_otherwise_is_refused(manager: SessionManager) -> None:
    manager.create_session("a")
    manager.complete_session("a")
    with pytest.raises(SessionEndedError, match="Session a is completed"):
        manager.complete_session("a", SessionStatus.FAILED)
    assert manager.metadata("a").status is SessionStatus.COMPLETED


CHANGES: dict[str, Callable[[SessionManager], object]] = {
    "add_conversation_message": lambda manager: manager.add_conversation_message("a", "user", "x"),
    "set_value": lambda manager: manager.set_value("a", "k", 1),
    "unset_value": lambda manager: manager.unset_value("a", "k"),
    "update_session_metadata": lambda manager: manager.update_session_metadata("a", "x"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_an_ended_session_changes_no_more(manager: SessionManager, change: Callable[[SessionManager], object]) -> None:
    manager.create_session("a", data={"k": 0})
    ended = manager.complete_session("a")
    with pytest.raises(SessionEndedError, match="Reopen it first") as caught:
        change(manager)
    assert isinstance(caught.value, ValueError)
    assert (caught.value.session_id, caught.value.status) == ("a", "completed")
    assert manager.metadata("a") == ended


def test_an_ended_session_still_takes_records_and_reads(manager: SessionManager) -> None:
    manager.create_session("a", data={"k": 0})
    manager.complete_session("a")
    manager.link_invocation("a", "i1", "grep", duration_ms=1)
    manager.record_usage("a", "gpt-4o", 10)
    with manager.call("look", "a", reads=True):
        pass
    assert manager.get_value("a", "k") == 0
    assert [record.tool_name for record in manager.invocations("a").items] == ["look", "grep"]
    assert manager.metadata("a").token_usage["input"] == 10


def test_reopening_makes_it_active_again(manager: SessionManager) -> None:
    manager.create_session("a")
    manager.complete_session("a", "failed")
    head = manager.reopen_session("a")
    assert (head.status, head.ended_at) == (SessionStatus.ACTIVE, None)
    assert manager.set_value("a", "k", 1).value == 1


# forked


def _grown(manager: SessionManager) -> None:
    manager.create_session("a", purpose="p", user_id="ann", tags=["t"], custom_metadata={"m": 1}, data={"old": 1})
    manager.add_conversation_message("a", "user", "one", message_id="m1")
    manager.set_value("a", "then", 1)
    manager.add_conversation_message("a", "assistant", "two")
    manager.set_value("a", "then", 2)
    manager.set_value("a", "new", 3)
    manager.link_invocation("a", "i1", "grep", duration_ms=5)
    manager.add_conversation_message("a", "user", "three")


def test_a_fork_has_the_messages_and_the_keys_as_of_then(manager: SessionManager) -> None:
    _grown(manager)
    head = manager.fork("a", at_seq=2, new_session_id="b")
    of_parent = manager.messages("a", order="oldest").items[:2]
    assert manager.messages("b", order="oldest").items == of_parent
    fork = manager.get_session("b")
    assert fork is not None
    assert fork.data == {"old": 1, "then": 1}
    assert (head.parent_id, head.purpose, head.user_id, head.tags) == ("a", "p", "ann", ["t"])
    assert head.custom_metadata == {"m": 1}


def test_a_fork_starts_without_records_and_with_counters_at_zero(manager: SessionManager) -> None:
    _grown(manager)
    manager.complete_session("a")
    head = manager.fork("a")
    assert (head.status, head.message_count, head.last_seq) == (SessionStatus.ACTIVE, 3, 3)
    assert (head.total_invocations, head.total_duration_ms, head.tools_used) == (0, 0.0, [])
    assert manager.invocations(head.session_id).items == []
    assert manager.add_conversation_message(head.session_id, "user", "four").seq == 4
    assert manager.metadata("a").message_count == 3


@pytest.mark.parametrize("at_seq", [-1, 4])
def test_a_fork_at_a_message_that_never_was_is_refused(manager: SessionManager, at_seq: int) -> None:
    _grown(manager)
    with pytest.raises(InvalidArgumentError, match="Session a has messages up to 3"):
        manager.fork("a", at_seq)


def test_a_fork_onto_a_taken_id_is_refused(manager: SessionManager) -> None:
    _grown(manager)
    with pytest.raises(SessionExistsError):
        manager.fork("a", new_session_id="a")


def test_a_fork_says_when_a_key_is_newer_than_it_should_be(manager: SessionManager) -> None:
    manager.create_session("a")
    manager.add_conversation_message("a", "user", "one")
    for number in range(manager.limits.key_versions + 5):
        manager.set_value("a", "k", number)
    with manager.call("fork", "a", new_session=True, kind="session") as call:
        call.fork(1, manager.forked_metadata("a", "b"))
    assert call.committed is not None
    assert call.committed.note == "Some keys are newer than message 1: older versions of them are no longer kept."
    assert manager.get_value("b", "k") == 5


# removed


def test_a_deleted_session_takes_all_with_it_but_its_children(manager: SessionManager) -> None:
    _grown(manager)
    manager.fork("a", new_session_id="b")
    assert manager.delete_session("a") is True
    assert manager.get_session("a") is None
    assert manager.invocations().items == []
    assert manager.search("one").items[0].session_id == "b"
    assert manager.metadata("b").parent_id == "a"
    assert manager.create_session("a").conversation == []


def test_old_ended_sessions_are_removed_and_active_ones_stay(manager: SessionManager, clock: SetClock) -> None:
    for name in ("ended", "failed", "active"):
        manager.create_session(name)
    manager.complete_session("ended")
    manager.complete_session("failed", "failed")
    clock.go_on(days=60)
    manager.create_session("young")
    manager.complete_session("young")
    assert manager.cleanup_old_sessions(30, dry_run=True) == ["ended", "failed"]
    assert manager.get_session("ended") is not None
    assert manager.cleanup_old_sessions() == ["ended", "failed"]
    assert {session.session_id for session in manager.list_sessions()} == {"active", "young"}
    assert manager.cleanup_old_sessions() == []


def test_cleaning_reads_page_after_page(clock: SetClock) -> None:
    """More sessions than a page of a thousand holds."""
    with SessionManager(MemorySessionStorage(), clock=clock) as manager:
        names = [f"s{number:04}" for number in range(1001)]
        for name in names:
            manager.create_session(name)
            manager.complete_session(name)
        clock.go_on(days=31)
        assert manager.cleanup_old_sessions(dry_run=True) == names
        assert manager.cleanup_old_sessions() == names
        assert manager.list_sessions() == []


def test_idle_sessions_are_called_abandoned_by_cleanup_alone(manager: SessionManager, clock: SetClock) -> None:
    manager.create_session("idle")
    manager.create_session("worked")
    clock.go_on(hours=23)
    manager.link_invocation("worked", "i1", "grep")
    now = clock.go_on(hours=2)
    assert manager.metadata("idle").status is SessionStatus.ACTIVE
    assert manager.cleanup() == ["idle"]
    head = manager.metadata("idle")
    assert (head.status, head.ended_at) == (SessionStatus.ABANDONED, now)
    assert manager.metadata("worked").status is SessionStatus.ACTIVE


def test_a_session_whose_call_runs_is_not_idle(manager: SessionManager, clock: SetClock) -> None:
    for name in ("running", "idle"):
        manager.create_session(name)
    with manager.call("agent", "running", slow=True):
        clock.go_on(days=2)
        assert manager.cleanup() == ["idle"]


def test_a_session_that_changes_while_it_is_called_abandoned_stays_active(clock: SetClock) -> None:
    class Busy(MemorySessionStorage):
        """Somebody writes between the look at the sessions and the commit."""

        looks = 0

        def invocations(self, query: InvocationQuery, cursor: str | None = None) -> Page[Invocation]:
            self.looks += 1
            if self.looks == 2:
                SessionManager(self, clock=clock).set_value("idle", "k", 1)
            return super().invocations(query, cursor)

    with SessionManager(Busy(), clock=clock) as manager:
        manager.create_session("idle")
        clock.go_on(days=2)
        assert manager.cleanup() == []
        assert manager.metadata("idle").status is SessionStatus.ACTIVE


def test_cleanup_removes_what_is_past_retention(manager: SessionManager, clock: SetClock) -> None:
    manager.create_session("old")
    manager.complete_session("old")
    manager.create_session("idle")
    clock.go_on(days=10)
    assert manager.cleanup(retention=timedelta(days=7)) == ["idle"]
    assert manager.get_session("old") is None
    assert manager.get_session("idle") is not None


# looked at


def test_sessions_are_listed_newest_first_with_any_of_the_tags(manager: SessionManager, clock: SetClock) -> None:
    for name, user, tags in (("a", "ann", ["x"]), ("b", "ann", ["y"]), ("c", "bob", ["x", "y"]), ("d", "bob", [])):
        clock.go_on(seconds=1)
        manager.create_session(name, user_id=user, tags=tags)
    manager.complete_session("a")

    def listed(**filters: object) -> list[str]:
        return [session.session_id for session in manager.list_sessions(**filters)]

    assert listed() == ["d", "a", "c", "b"]
    assert listed(user_id="ann", status="active") == ["b"]
    assert listed(status=SessionStatus.COMPLETED) == ["a"]
    assert set(listed(tags=["x", "y"])) == {"a", "b", "c"}
    assert listed(tags=["y"], limit=1) == ["c"]
    assert listed(limit=0) == []
    with pytest.raises(InvalidArgumentError, match="'gone' is no status; it is one of active, completed"):
        listed(status="gone")


def test_statistics_say_what_a_session_amounts_to(manager: SessionManager, clock: SetClock) -> None:
    manager.create_session("a")
    start = clock.now
    manager.link_invocation("a", "i1", "grep", duration_ms=100)
    manager.link_invocation("a", "i2", "ls", duration_ms=200, error="no such file")
    manager.record_usage("a", "gpt-4o", 1000, 500, invocation_id="u1")
    end = clock.go_on(seconds=30)
    manager.add_conversation_message("a", "user", "x")
    assert manager.get_session_statistics("a") == {
        "session_id": "a",
        "status": "active",
        "created_at": start,
        "updated_at": end,
        "duration_seconds": 30.0,
        "total_invocations": 2,
        "failed_invocations": 1,
        "total_duration_ms": 300.0,
        "tools_used": ["grep", "ls"],
        "message_count": 1,
        "estimated_cost": 0.0075,
        "unpriced_invocations": 0,
        "token_usage": {"input": 1000, "output": 500, "cache_read": 0, "cache_write": 0},
    }


def test_totals_add_up_the_sessions_of_a_query(manager: SessionManager) -> None:
    for name in ("a", "b"):
        manager.create_session(name, tags=[name])
        manager.link_invocation(name, "i1", "grep", duration_ms=10)
    assert manager.totals()[0].invocations == 2
    assert manager.totals("tag:a")[0].duration_ms == 10
    assert [row.group for row in manager.totals(group_by="tag")] == ["a", "b"]


def test_search_finds_messages_in_the_sessions_of_a_query(manager: SessionManager) -> None:
    for name in ("a", "b"):
        manager.create_session(name, tags=[name])
        manager.add_conversation_message(name, "user", "the needle")
    assert {hit.session_id for hit in manager.search("needle").items} == {"a", "b"}
    page = manager.search("needle", limit=1)
    assert len(page.items) == 1
    assert len(manager.search("needle", limit=1, cursor=page.next_cursor).items) == 1
    assert [hit.session_id for hit in manager.search("needle", "tag:b").items] == ["b"]


@pytest.mark.parametrize("limit", [0, -1, 1001, True, 2.5, "ten"])
def test_a_page_has_one_to_a_thousand_rows(manager: SessionManager, limit: object) -> None:
    manager.create_session("a")
    for ask in (manager.messages, manager.invocations):
        with pytest.raises(InvalidArgumentError, match="is not between 1 and 1,000"):
            ask("a", limit=limit)
    with pytest.raises(InvalidArgumentError, match="is not between 1 and 1,000"):
        manager.search("x", limit=limit)


def test_words_that_no_question_knows_are_refused(manager: SessionManager) -> None:
    manager.create_session("a")
    with pytest.raises(InvalidArgumentError, match="roles"):
        manager.messages("a", roles=["banana"])
    with pytest.raises(InvalidArgumentError, match="order"):
        manager.messages("a", order="sideways")
    with pytest.raises(InvalidArgumentError, match="status 'done' is not one of running, ok"):
        manager.invocations("a", status="done")
    with pytest.raises(InvalidArgumentError, match="kind"):
        manager.invocations("a", kind="other")
    with pytest.raises(InvalidArgumentError, match="no_such_field"):
        manager.query(no_such_field=1)
    with pytest.raises(InvalidArgumentError, match="limit"):
        manager.query(limit=0)


def test_check_tells_what_the_store_finds(manager: SessionManager) -> None:
    manager.create_session("a")
    assert {finding.level for finding in manager.check()} == {"ok"}


def test_a_manager_closes_twice_without_complaint(storage: SessionStorage) -> None:
    manager = SessionManager(storage)
    manager.create_session("a")
    manager.close()
    manager.close()


def test_a_session_in_which_a_call_was_recorded_meanwhile_is_not_abandoned(clock: SetClock) -> None:
    """A record leaves the revision alone, so the session that was at work was called idle."""

    class Late(MemorySessionStorage):
        def commit(self, session_id: str | None, change: Change) -> Committed:
            if change.alter is not None:
                record = Invocation(invocation_id="i", tool_name="t", started_at=clock.now)
                super().commit(session_id, Change(at=clock.now, records=(record,)))
            return super().commit(session_id, change)

    with SessionManager(Late(), clock=clock) as manager:
        manager.create_session("a")
        clock.go_on(days=2)
        assert manager.cleanup() == []
        assert manager.metadata("a").status is SessionStatus.ACTIVE


def test_of_another_users_session_nothing_is_said(manager: SessionManager) -> None:
    """The id of a call there was answered with the name of its tool."""
    manager.create_session("a", user_id="alice")
    with manager.call("secret_tool", "a", as_user="alice") as call:
        pass
    with pytest.raises(SessionNotFoundError):
        manager.link_invocation("a", call.invocation_id, "guess", as_user="eve")
    with pytest.raises(InvocationConflictError, match="secret_tool"):
        manager.link_invocation("a", call.invocation_id, "guess", as_user="alice")


def test_an_ended_session_takes_a_record_but_no_link_to_files(manager: SessionManager) -> None:
    manager.create_session("a")
    before = manager.complete_session("a")
    with pytest.raises(SessionEndedError):
        manager.link_invocation("a", "i", "tool", "/somewhere")
    with pytest.raises(SessionEndedError):
        manager.storage.link_invocation("a", "i", "/somewhere")
    assert manager.metadata("a") == before
    manager.link_invocation("a", "i", "tool")
    assert manager.metadata("a").revision == before.revision
