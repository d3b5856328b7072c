"""The whole-session API: working copies, listed, loaded and saved."""

from __future__ import annotations

from typing import Any

import pytest

from ..errors import SessionNotFoundError
from ..models import Want
from ..session import Session
from ..storage.base import SessionStorage
from .making import at, contents, everything, head, ids, read_all, said, say, values
from .store import Store


class WholeSession(Store):
    def test_an_unknown_session_loads_as_none(self, storage: SessionStorage) -> None:
        assert storage.load_session("s") is None
        assert not storage.session_exists("s")

    def test_saving_a_new_session_creates_it_with_all_it_holds(self, storage: SessionStorage) -> None:
        session = _session(user_id="ana", purpose="p", tags=["t"], custom_metadata={"m": 1})
        session.add_message("user", "hello")
        session.add_message("assistant", "hi", tool_name="grep", message_id="given")
        session.set("k", {"deep": 1})
        session.add_invocation("c", duration_ms=2.5, tool_name="ls")
        storage.save_session(session)
        loaded = storage.load_session("s")
        assert loaded is not None
        assert loaded.metadata == session.metadata
        assert loaded.to_dict() == session.to_dict()
        assert [(one.seq, one.content) for one in loaded.conversation] == [(1, "hello"), (2, "hi")]
        assert (loaded.data, loaded.invocation_ids) == ({"k": {"deep": 1}}, ["c"])
        assert storage.session_exists("s")

    def test_saving_again_stores_nothing_twice(self, storage: SessionStorage) -> None:
        session = _session()
        session.add_message("user", "hello")
        session.add_invocation("c")
        storage.save_session(session)
        before = everything(storage, "hello")
        storage.save_session(session)
        assert everything(storage, "hello") == before

    def test_two_copies_of_a_session_both_keep_their_appends(self, storage: SessionStorage) -> None:
        storage.save_session(_session())
        mine, yours = storage.load_session("s"), storage.load_session("s")
        assert mine is not None
        assert yours is not None
        mine.add_message("user", "mine")
        mine.set("mine", 1)
        yours.add_message("user", "yours")
        yours.set("yours", 2)
        storage.save_session(mine)
        storage.save_session(yours)
        assert contents(storage) == ["mine", "yours"]
        assert values(storage) == {"mine": 1, "yours": 2}
        assert (mine.conversation[-1].seq, yours.conversation[-1].seq) == (1, 2)

    def test_what_was_cleared_stays_cleared(self, storage: SessionStorage) -> None:
        session = _session()
        session.add_message("user", "old")
        session.set("k", 1)
        storage.save_session(session)
        session.clear_conversation()
        session.clear_data()
        session.add_message("user", "new")
        storage.save_session(session)
        assert (contents(storage), values(storage)) == (["new"], {})
        assert read_all(storage).messages[0].seq == 2

    def test_a_deleted_key_is_removed_when_it_is_saved(self, storage: SessionStorage) -> None:
        session = _session()
        session.set("a", 1)
        session.set("b", 2)
        storage.save_session(session)
        session.delete("a")
        session.set("c", 3)
        assert values(storage) == {"a": 1, "b": 2}
        storage.save_session(session)
        assert values(storage) == {"b": 2, "c": 3}

    def test_what_was_taken_out_of_the_metadata_of_a_copy_is_taken_out_when_it_is_saved(
        self, storage: SessionStorage
    ) -> None:
        storage.create(head(purpose="p", summary="s", tags=["t"], custom_metadata={"m": 1, "n": 1}))
        mine, yours = storage.load_session("s"), storage.load_session("s")
        assert mine is not None
        assert yours is not None
        mine.metadata = mine.metadata.model_copy(update={"purpose": None})
        del mine.metadata.custom_metadata["m"]
        mine.metadata.tags.clear()
        yours.metadata.custom_metadata["o"] = 1
        storage.save_session(mine)
        storage.save_session(yours)
        saved = storage.read("s", Want()).metadata
        assert (saved.purpose, saved.summary, saved.tags) == (None, "s", [])
        assert saved.custom_metadata == {"n": 1, "o": 1}
        assert yours.metadata == saved
        storage.save_session(mine)
        assert storage.read("s", Want()).metadata == saved

    def test_invocations_of_one_moment_stay_in_order(self, storage: SessionStorage) -> None:
        session = Session(head(), clock=lambda: at(1))
        for name in ("c", "a", "b"):
            session.add_invocation(name)
        storage.save_session(session)
        session.add_invocation("d")
        storage.save_session(session)
        loaded = storage.load_session("s")
        assert loaded is not None
        assert loaded.invocation_ids == ["c", "a", "b", "d"]
        assert loaded.metadata.total_invocations == 4

    def test_a_link_to_a_calls_files_is_kept_under_an_internal_key(self, storage: SessionStorage) -> None:
        storage.save_session(_session())
        storage.link_invocation("s", "c", "/somewhere/c")
        assert [value.value for value in read_all(storage, internal=True).data.values()] == ["/somewhere/c"]
        assert values(storage) == {}
        with pytest.raises(SessionNotFoundError):
            storage.link_invocation("no", "c", "/somewhere/c")

    def test_sessions_are_listed_newest_first_with_their_parts(self, storage: SessionStorage) -> None:
        for number, (name, user, tags) in enumerate(
            [("a", "ana", ["x"]), ("b", "bob", ["y"]), ("c", "ana", ["x", "y"]), ("d", "ana", [])]
        ):
            storage.create(head(name, number, user_id=user, tags=tags), say(said("m", f"in {name}"), second=number))
        assert [one.session_id for one in storage.list_sessions()] == ["d", "c", "b", "a"]
        assert [one.session_id for one in storage.list_sessions(user_id="ana", limit=2)] == ["d", "c"]
        assert [one.session_id for one in storage.list_sessions(tags=["x", "y"])] == ["c", "b", "a"]
        assert [one.session_id for one in storage.list_sessions(status="completed")] == []
        assert storage.list_sessions(limit=0) == []
        assert storage.list_sessions(tags=["x"])[0].conversation[0].content == "in c"

    def test_a_session_is_deleted_once(self, storage: SessionStorage) -> None:
        storage.save_session(_session())
        assert storage.delete_session("s")
        assert not storage.delete_session("s")

    def test_cleanup_removes_ended_sessions_that_rest_since_before_the_day(self, storage: SessionStorage) -> None:
        for name, second, status in (
            *(("old", 1, "completed"), ("failed", 2, "failed"), ("left", 3, "abandoned")),
            *(("active", 1, "active"), ("on", 10, "completed"), ("new", 11, "completed")),
        ):
            storage.create(head(name, second, status=status))
        assert sorted(storage.cleanup_sessions(at(10))) == ["failed", "left", "old"]
        assert sorted(ids(storage)) == ["active", "new", "on"]
        assert storage.cleanup_sessions(at(10)) == []


def _session(session_id: str = "s", **fields: Any) -> Session:
    ticks = iter(range(1, 1000))
    return Session(head(session_id, **fields), clock=lambda: at(next(ticks)))
