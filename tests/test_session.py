"""Session: a working copy. What was done to it is what is saved, and nothing else is rewritten."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mcp_sessions import (
    ConversationMessage,
    InvalidArgumentError,
    LimitError,
    MessageConflictError,
    Session,
    SessionEndedError,
    SessionManager,
    SessionMetadata,
    SessionNotFoundError,
    SessionStatus,
)
from mcp_sessions.models import Alter, Change, tokens
from mcp_sessions.storage import SessionStorage, SQLiteSessionStorage
from tests.processes import Child
from tests.programs import opened, save_a_copy
from tests.stores import SetClock


@pytest.fixture
def manager(storage: SessionStorage, clock: SetClock) -> Iterator[SessionManager]:
    with SessionManager(storage, clock=clock) as manager:
        manager.create_session("a", purpose="p", tags=["t"], custom_metadata={"m": 1})
        yield manager


def _copy(manager: SessionManager, session_id: str = "a") -> Session:
    session = manager.get_session(session_id)
    assert session is not None
    return session


# worked on


def test_nothing_is_stored_until_it_is_saved(manager: SessionManager) -> None:
    session = _copy(manager)
    before = session.to_dict()
    session.add_message("user", "hello")
    session.set("k", 1)
    session.add_invocation("i1", 5.0, "grep")
    assert _copy(manager).to_dict() == before
    manager.save_session(session)
    assert _copy(manager).to_dict() == session.to_dict()
    assert [message.content for message in session.conversation] == ["hello"]


def test_every_act_is_stamped_by_its_clock(manager: SessionManager, clock: SetClock) -> None:
    session = _copy(manager)
    for act in (
        lambda: session.add_message("user", "x"),
        lambda: session.add_invocation("i1"),
        lambda: session.set("k", 1),
        lambda: session.delete("k"),
        session.clear_conversation,
        session.clear_data,
    ):
        later = clock.go_on(seconds=1)
        act()
        assert session.metadata.updated_at == later
    manager.save_session(session)
    assert manager.metadata("a").updated_at == later
    (listed,) = manager.list_sessions()
    listed.add_message("user", "y")
    assert listed.conversation[-1].timestamp == clock.now


def test_what_changes_nothing_is_not_stamped(manager: SessionManager, clock: SetClock) -> None:
    session = _copy(manager)
    session.add_invocation("i1")
    before = session.metadata
    clock.go_on(seconds=1)
    session.delete("absent")
    session.add_invocation("i1", 500.0)
    assert session.metadata == before


def test_time_does_not_go_back_in_a_copy(manager: SessionManager, clock: SetClock) -> None:
    session = _copy(manager)
    before = session.metadata.updated_at
    clock.go_on(days=-1)
    session.set("k", 1)
    assert session.metadata.updated_at == before


def test_data_is_a_dict_of_its_own(manager: SessionManager) -> None:
    session = _copy(manager)
    session.set("x", {"deep": [1]})
    session.set("gone", 1)
    assert (session.get("x"), session.get("nope"), session.get("nope", 7)) == ({"deep": [1]}, None, 7)
    session.delete("gone")
    session.set("none", None)
    manager.save_session(session)
    found = _copy(manager)
    assert found.data == {"x": {"deep": [1]}, "none": None}
    found.data["x"]["deep"].append(2)
    assert _copy(manager).data["x"] == {"deep": [1]}


def test_clearing_is_kept(manager: SessionManager) -> None:
    """The old system wrote no file for an empty part, so what was cleared came back."""
    session = _copy(manager)
    session.add_message("user", "one")
    session.set("k", 1)
    manager.save_session(session)
    session.clear_data()
    manager.save_session(session)
    assert (_copy(manager).data, len(_copy(manager).conversation)) == ({}, 1)
    session.clear_conversation()
    session.add_message("user", "two")
    manager.save_session(session)
    assert [(message.seq, message.content) for message in _copy(manager).conversation] == [(2, "two")]
    assert manager.metadata("a").message_count == 1
    assert session.to_dict() == _copy(manager).to_dict()


def test_clearing_what_was_never_saved_leaves_nothing(manager: SessionManager) -> None:
    session = _copy(manager)
    session.add_message("user", "one")
    session.clear_conversation()
    session.set("k", 1)
    session.clear_data()
    manager.save_session(session)
    assert (manager.metadata("a").last_seq, _copy(manager).data) == (0, {})


def test_a_message_gets_its_seq_when_it_is_saved(manager: SessionManager) -> None:
    session, other = _copy(manager), _copy(manager)
    other.add_message("user", "first")
    manager.save_session(other)
    message = session.add_message("assistant", "second", "grep", "i1", message_id="m1", payload={"x": 1})
    assert message.seq == 0
    manager.save_session(session)
    assert session.conversation[0].seq == 2
    assert (session.conversation[0].tool_name, session.conversation[0].payload) == ("grep", {"x": 1})
    manager.save_session(session)
    assert manager.metadata("a").message_count == 2


def test_an_invocation_is_counted_once_in_a_copy_and_across_copies(manager: SessionManager) -> None:
    one, two = _copy(manager), _copy(manager)
    for session in (one, two):
        session.add_invocation("i1", 5.0, "grep")
        session.add_invocation("i1", 7.0, "grep")
        session.add_message("user", "x")
        assert (session.metadata.total_invocations, session.metadata.total_duration_ms) == (1, 5.0)
    one.add_invocation("i2", None, "ls")
    manager.save_session(one)
    manager.save_session(two)
    head = manager.metadata("a")
    assert (head.total_invocations, head.total_duration_ms, head.tools_used) == (2, 5.0, ["grep", "ls"])
    assert head.message_count == 2
    assert _copy(manager).invocation_ids == ["i1", "i2"]


def test_an_invocation_of_a_copy_keeps_no_secret_and_nothing_long(manager: SessionManager) -> None:
    session = _copy(manager)
    session.add_invocation("i1", arguments={"password": "hunter2", "text": "x" * 5000}, result="y" * 5000)
    manager.save_session(session)
    (record,) = manager.invocations("a").items
    assert record.arguments["password"] == "[redacted]"
    assert (record.arguments["text"]["chars"], record.result["chars"]) == (5000, 5000)


def test_metadata_is_saved_where_it_was_altered(manager: SessionManager, clock: SetClock) -> None:
    session = _copy(manager)
    manager.update_session_metadata("a", tags=["theirs"], custom_metadata={"theirs": 1})
    end = clock.go_on(seconds=5)
    altered = {"purpose": "q", "summary": "s", "status": SessionStatus.FAILED, "custom_metadata": {"m": 1, "ours": 2}}
    session.metadata = session.metadata.model_copy(update=altered | {"updated_at": end})
    session.add_message("user", "last words")
    manager.save_session(session)
    head = manager.metadata("a")
    assert (head.purpose, head.summary, head.status, head.ended_at) == ("q", "s", SessionStatus.FAILED, end)
    assert (head.tags, head.custom_metadata) == (["theirs"], {"m": 1, "theirs": 1, "ours": 2})
    assert session.metadata == head


@pytest.mark.parametrize("how", ["in place", "replaced"])
def test_metadata_is_taken_away_where_it_was_taken_out(manager: SessionManager, how: str) -> None:
    """What was missing in the copy was taken for untouched, and stayed."""
    manager.update_session_metadata("a", custom_metadata={"n": 1})
    manager.storage.commit("a", Change(at=manager.clock(), alter=Alter(summary="s")))
    session = _copy(manager)
    manager.update_session_metadata("a", custom_metadata={"theirs": 1})
    if how == "in place":
        del session.metadata.custom_metadata["m"]
        altered: dict[str, Any] = {"purpose": None, "summary": None}
    else:
        altered = {"purpose": None, "summary": None, "custom_metadata": {"n": 1}}
    session.metadata = session.metadata.model_copy(update=altered)
    manager.save_session(session)
    head = manager.metadata("a")
    assert (head.purpose, head.summary, head.custom_metadata) == (None, None, {"n": 1, "theirs": 1})
    assert session.metadata == head
    manager.save_session(session)
    assert manager.metadata("a") == head


def test_a_copy_of_an_ended_session_is_saved_only_if_it_reopens_it(manager: SessionManager) -> None:
    session = _copy(manager)
    session.add_message("user", "late")
    manager.complete_session("a")
    with pytest.raises(SessionEndedError):
        manager.save_session(session)
    assert manager.metadata("a").message_count == 0
    session = _copy(manager)
    session.metadata = session.metadata.model_copy(update={"status": SessionStatus.ACTIVE, "ended_at": None})
    session.add_message("user", "again")
    manager.save_session(session)
    assert (manager.metadata("a").status, manager.metadata("a").message_count) == (SessionStatus.ACTIVE, 1)


def test_a_refused_copy_may_be_mended_and_saved(manager: SessionManager) -> None:
    session, other = _copy(manager), _copy(manager)
    other.add_message("user", "theirs", message_id="m1")
    manager.save_session(other)
    session.add_message("user", "ours", message_id="m1")
    session.set("k", 1)
    with pytest.raises(MessageConflictError):
        manager.save_session(session)
    assert manager.get_value("a", "k") is None
    session.clear_conversation()
    manager.save_session(session)
    assert manager.get_value("a", "k") == 1


def test_limits_hold_for_copies_too(manager: SessionManager) -> None:
    big = "x" * (1 << 20)
    for act in (
        lambda session: session.add_message("user", big + "x"),
        lambda session: session.set("k", big),
        lambda session: session.set("k" * 257, 1),
        lambda session: setattr(session, "metadata", session.metadata.model_copy(update={"tags": ["x" * 65]})),
    ):
        session = _copy(manager)
        act(session)
        with pytest.raises(LimitError):
            manager.save_session(session)
        session = Session(session.metadata.model_copy(update={"session_id": "new"}), session.conversation, session.data)
        with pytest.raises(LimitError):
            manager.save_session(session)
    assert manager.get_session("new") is None


@pytest.mark.parametrize(("role", "content"), [("banana", "x"), ("user", {"x": 1}), ("user", "\0")])
def test_what_cannot_be_a_message_is_refused_at_once(manager: SessionManager, role: Any, content: Any) -> None:
    session = _copy(manager)
    before = session.metadata
    with pytest.raises(InvalidArgumentError, match=r"role|content"):
        session.add_message(role, content)
    with pytest.raises(InvalidArgumentError, match="invocation_id"):
        session.add_invocation("not an id")
    assert (session.metadata, session.conversation, session.invocation_ids) == (before, [], [])


# made elsewhere


def test_saving_an_unknown_session_creates_it(manager: SessionManager, clock: SetClock) -> None:
    session = Session(SessionMetadata(session_id="new", created_at=clock.now, updated_at=clock.now, tags=["x"]))
    session.add_message("user", "one")
    session.set("k", 1)
    session.add_invocation("i1", 5.0, "grep")
    manager.save_session(session)
    assert _copy(manager, "new").to_dict() == session.to_dict()
    assert [message.seq for message in session.conversation] == [1]
    session.add_message("user", "two")
    manager.save_session(session)
    head = manager.metadata("new")
    assert (head.message_count, head.total_invocations, head.tags) == (2, 1, ["x"])
    assert manager.search("two").items[0].session_id == "new"


def test_to_dict_and_back_is_the_same(manager: SessionManager) -> None:
    session = _copy(manager)
    session.add_message("user", "one", payload={"x": 1}, tool_calls=[{"id": "1", "name": "n"}])
    session.set("k", {"deep": [None, 1.5, "ü"]})
    session.add_invocation("i1", 5.0, "grep", token_usage=tokens(5))
    manager.save_session(session)
    image = session.to_dict()
    assert Session.from_dict(image).to_dict() == image
    assert set(image) == {"metadata", "invocation_ids", "conversation", "data"}
    manager.delete_session("a")
    manager.save_session(Session.from_dict(image))
    assert _copy(manager).conversation == session.conversation
    assert _copy(manager).data == session.data


def test_an_old_image_may_lack_all_but_its_metadata(clock: SetClock) -> None:
    moment = clock.now.isoformat()
    metadata = {"session_id": "old", "created_at": moment, "updated_at": moment, "status": "active", "unknown": 1}
    session = Session.from_dict({"metadata": metadata})
    assert (session.conversation, session.data, session.invocation_ids) == ([], {}, [])
    assert session.session_id == "old"
    for image in ({}, {"metadata": 5}, {"metadata": {}}, {"metadata": metadata, "data": {"k": object()}}):
        with pytest.raises(InvalidArgumentError):
            Session.from_dict(image)


def test_times_are_written_in_utc_with_a_z(manager: SessionManager) -> None:
    session = _copy(manager)
    session.add_message("user", "x")
    image = session.to_dict()
    assert image["metadata"]["created_at"] == "2026-11-22T10:00:00Z"
    assert image["conversation"][0]["timestamp"] == "2026-11-22T10:00:00Z"
    assert ConversationMessage.model_validate(image["conversation"][0]) == session.conversation[0]


# two at once


def test_two_copies_both_keep_what_was_done_to_them(manager: SessionManager) -> None:
    one, two = _copy(manager), _copy(manager)
    one.add_message("user", "from one")
    one.set("one", 1)
    two.add_message("user", "from two")
    two.set("two", 2)
    manager.save_session(one)
    manager.save_session(two)
    found = _copy(manager)
    assert [message.content for message in found.conversation] == ["from one", "from two"]
    assert found.data == {"one": 1, "two": 2}


def test_clearing_in_one_copy_spares_what_the_other_said_since(manager: SessionManager) -> None:
    one = _copy(manager)
    one.add_message("user", "old")
    manager.save_session(one)
    two = _copy(manager)
    two.add_message("user", "new")
    manager.save_session(two)
    one.clear_conversation()
    manager.save_session(one)
    assert [message.content for message in _copy(manager).conversation] == ["new"]


def test_two_processes_that_save_copies_of_one_session_both_keep_their_appends(tmp_path: Path) -> None:
    path = str(tmp_path / "sessions.db")
    with opened(path) as manager:
        manager.create_session("a")
        with Child(save_a_copy, path, "one") as one, Child(save_a_copy, path, "two") as two:
            assert one.hear() == two.hear() == ["loaded", 0]
            one.tell()
            two.tell()
            seqs = one.hear() + two.hear()
            one.ends_well()
            two.ends_well()
        session = _copy(manager)
    assert sorted(seqs) == list(range(1, 41)) == [message.seq for message in session.conversation]
    assert len(session.data) == 40


# listed


def test_a_listed_session_reads_its_parts_when_they_are_looked_at(manager: SessionManager) -> None:
    manager.add_conversation_message("a", "user", "one")
    (listed,) = manager.list_sessions()
    manager.add_conversation_message("a", "user", "two")
    manager.set_value("a", "k", 1)
    assert listed.metadata.message_count == 1
    assert [message.content for message in listed.conversation] == ["one", "two"]
    assert listed.data == {"k": 1}
    listed.add_message("user", "three")
    manager.save_session(listed)
    assert manager.metadata("a").message_count == 3


def test_a_listed_session_that_is_gone_says_so(manager: SessionManager) -> None:
    (listed,) = manager.list_sessions()
    manager.delete_session("a")
    with pytest.raises(SessionNotFoundError, match="it was deleted after it was listed"):
        _ = listed.conversation


def test_a_reopened_session_is_not_swept_away(tmp_path: Path, clock: SetClock) -> None:
    """It is found ended, and reopened before it is removed."""

    class Reopening(SQLiteSessionStorage):
        reopened = False

        def delete(self, session_id: str, change: Any) -> SessionMetadata:
            if not self.reopened:
                self.reopened = True
                SessionManager(self, clock=clock).reopen_session(session_id)
            return super().delete(session_id, change)

    with SessionManager(Reopening(tmp_path / "sessions.db"), clock=clock) as manager:
        manager.create_session("a")
        manager.complete_session("a")
        clock.go_on(days=60)
        assert manager.cleanup_old_sessions() == []
        assert manager.metadata("a").status is SessionStatus.ACTIVE


def test_the_manager_keeps_no_session_in_memory(manager: SessionManager) -> None:
    session = _copy(manager)
    session.set("k", 1)
    assert _copy(manager).get("k") is None
    del session
    gc.collect()
    assert not [one for one in gc.get_objects() if isinstance(one, Session)]


def test_a_saved_conversation_that_was_emptied_by_hand_is_no_trouble(manager: SessionManager) -> None:
    session = _copy(manager)
    session.add_message("user", "one")
    session.conversation.clear()
    manager.save_session(session)
    assert manager.metadata("a").message_count == 1


def test_what_is_edited_in_place_is_saved(manager: SessionManager) -> None:
    """It was lost without a word: only what went through `set` was looked at."""
    manager.set_value("a", "k", {"deep": [1]})
    manager.set_value("a", "gone", 1)
    session, other = _copy(manager), _copy(manager)
    session.data["k"]["deep"].append(2)
    session.data["new"] = 3
    del session.data["gone"]
    session.metadata.tags.append("u")
    session.metadata.custom_metadata["n"] = 2
    manager.update_session_metadata("a", custom_metadata={"m": "theirs"})
    manager.save_session(session)
    found = _copy(manager)
    assert found.data == {"k": {"deep": [1, 2]}, "new": 3}
    assert (found.metadata.tags, found.metadata.custom_metadata) == (["t", "u"], {"m": "theirs", "n": 2})
    revision = found.metadata.revision
    manager.save_session(session)
    manager.save_session(other)
    assert manager.metadata("a").revision == revision
    session.data["bad"] = object()
    with pytest.raises(InvalidArgumentError, match="data has a object, which is not a JSON value"):
        manager.save_session(session)


def test_a_copy_of_a_deleted_session_is_not_saved_into_another_one_of_its_id(
    manager: SessionManager, clock: SetClock
) -> None:
    (listed,) = manager.list_sessions()
    copy = _copy(manager)
    for session in (copy, listed):
        session.add_message("user", "of the first one")
    manager.delete_session("a")
    clock.go_on(seconds=1)
    manager.create_session("a")
    before = _copy(manager).to_dict()
    for session in (copy, listed):
        with pytest.raises(SessionNotFoundError, match="another one was made under its id"):
            manager.save_session(session)
    assert _copy(manager).to_dict() == before


def test_a_new_session_counts_its_calls_as_a_commit_does(manager: SessionManager, clock: SetClock) -> None:
    manager.create_session("committed")
    metadata = SessionMetadata(session_id="new", created_at=clock.now, updated_at=clock.now)
    session = Session(metadata, clock=clock)
    for copy in (session, _copy(manager, "committed")):
        copy.add_invocation("i1", 5.0, "grep", cost=0.5, model="m", token_usage=tokens(7))
        copy.add_invocation("i2", 1.0, "ls", status="error")
        copy.add_invocation("i3", None, "ls", model="m")
        manager.save_session(copy)
    new, committed = manager.metadata("new"), manager.metadata("committed")
    assert new.to_dict() == {**committed.to_dict(), "session_id": "new"}
    assert (new.total_invocations, new.failed_invocations, new.tools_used) == (3, 1, ["grep", "ls"])
    assert (new.estimated_cost, new.unpriced_invocations, new.total_duration_ms) == (0.5, 1, 6.0)
    assert session.metadata == new
