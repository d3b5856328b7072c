"""Deletion: nothing stays but the fact; and whose sessions are whose."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ..errors import InvocationConflictError, SessionExistsError, SessionNotFoundError
from ..models import InvocationQuery, Query, Value, Want
from ..session import Session
from ..storage.base import SessionStorage
from .making import at, called, calls, contents, does, everything, head, hits, ids, read_all, said, say, values
from .store import Store

ACTS: dict[str, Callable[[SessionStorage, str], object]] = {
    "read": lambda storage, name: storage.read(name, Want(as_user="ana")),
    "read parts": lambda storage, name: storage.read(name, Want(as_user="ana", keys=("k",), messages=1, records=1)),
    "commit": lambda storage, name: storage.commit(name, does(set={"k": 0}, as_user="ana")),
    "record": lambda storage, name: storage.commit(name, does(records=(called("x"),), as_user="ana")),
    "also": lambda storage, name: storage.commit("a", does(also=((name, does(as_user="ana")),))),
    "fork": lambda storage, name: storage.fork(name, None, head("child"), does(as_user="ana")),
    "delete": lambda storage, name: storage.delete(name, does(as_user="ana")),
    "link": lambda storage, name: storage.link_invocation(name, "x", "/somewhere/x", as_user="ana"),
    "save": lambda storage, name: storage.save_session(_worked_on(storage, name), as_user="ana"),
    "save anew": lambda storage, name: storage.save_session(_made_anew(name), as_user="ana"),
}


class Deletion(Store):
    def test_a_deleted_session_is_gone_from_everywhere(self, storage: SessionStorage) -> None:
        empty = everything(storage, "word", "b")
        _one(storage)
        was = storage.read("s", Want()).metadata
        assert storage.delete("s", does()) == was
        assert everything(storage, "word", "b") == empty
        with pytest.raises(SessionNotFoundError):
            storage.read("s", Want())
        with pytest.raises(SessionNotFoundError):
            storage.delete("s", does())

    def test_a_deleted_session_that_search_had_indexed_is_gone_too(self, storage: SessionStorage) -> None:
        _one(storage)
        assert hits(storage, "word") == [("s", 1)]
        storage.delete("s", does())
        assert hits(storage, "word") == []
        assert [finding for finding in storage.check() if finding.level != "ok"] == []

    def test_what_was_deleted_stands_on_no_disk(self, storage: SessionStorage) -> None:
        record = called("c", arguments={"said": "Secretword"})
        storage.create(head("s", purpose="Secretword"), does(messages=(said("m", "Secretword"),), records=(record,)))
        storage.commit("s", does(set={"k": "Secretword"}))
        storage.commit("s", does(set={"k": "Secretword again"}))
        assert hits(storage, "secretword") == [("s", 1)]
        storage.delete("s", does())
        storage.close()
        assert self.files_with("cretword") == []

    def test_what_was_retracted_stands_on_no_disk(self, storage: SessionStorage) -> None:
        storage.create(head("s"), say(said("m", "Secretword"), said("n", "Another")))
        assert hits(storage, "secretword") == [("s", 1)]
        storage.commit("s", does(retract=((1, 1),)))
        storage.close()
        assert self.files_with("cretword") == []

    def test_a_session_of_many_rows_is_deleted_whole(self, storage: SessionStorage) -> None:
        messages = tuple(said(f"m{n}", f"word {n}") for n in range(700))
        records = tuple(called(f"c{n}") for n in range(700))
        storage.create(head(), does(messages=messages, records=records, set={f"k{n}": n for n in range(300)}))
        assert len(hits(storage, "word", limit=1000)) == 700
        storage.delete("s", does())
        assert (hits(storage, "word"), calls(storage), ids(storage)) == ([], [], [])
        assert [finding for finding in storage.check() if finding.level != "ok"] == []

    def test_other_sessions_stay_as_they_were(self, storage: SessionStorage) -> None:
        storage.create(head("t", tags=["t"]), does(messages=(said("a", "word"),), set={"k": 1}, records=(called("c"),)))
        before = everything(storage, "word")
        _one(storage)
        storage.delete("s", does())
        assert everything(storage, "word") == before

    def test_the_record_of_a_deletion_belongs_to_no_session(self, storage: SessionStorage) -> None:
        _one(storage)
        storage.delete("s", does(records=(called("del", user_id="ana", kind="session"),)))
        (record,) = storage.invocations(InvocationQuery()).items
        assert (record.invocation_id, record.session_id, record.user_id) == ("del", None, "ana")
        assert calls(storage, as_user="ana") == ["del"]
        assert calls(storage, as_user="bob") == []

    def test_a_deletion_does_its_parts(self, storage: SessionStorage) -> None:
        _one(storage)
        storage.create(head("t"))
        storage.delete("s", does(also=(("t", does(set={"deleted": "s"})),)))
        assert values(storage, "t") == {"deleted": "s"}
        assert ids(storage) == ["t"]

    def test_a_recreated_id_is_a_new_session(self, storage: SessionStorage) -> None:
        _one(storage)
        storage.delete("s", does())
        created = storage.create(head("s", 9))
        assert created.metadata == head("s", 9, revision=1)
        assert (contents(storage), values(storage), calls(storage)) == ([], {}, [])
        committed = storage.commit("s", does(messages=(said("a", "anew"),), set={"k": 2}, records=(called("c"),)))
        assert (committed.revision, committed.seqs) == (2, [1])
        assert read_all(storage).data == {"k": Value(value=2, version=2)}
        assert hits(storage, "word") == []

    def test_a_recreated_id_is_a_new_session_to_another_handle_too(self, storage: SessionStorage) -> None:
        _one(storage)
        with self.another(storage) as other:
            assert contents(other) == ["word", "b"]
            storage.delete("s", does())
            storage.create(head("s"), say(said("a", "anew")))
            assert contents(other) == ["anew"]
            assert hits(other, "word") == []
            assert hits(other, "anew") == [("s", 1)]
            assert other.commit("s", say(said("b", "more"))).seqs == [2]

    def test_children_keep_the_id_of_a_deleted_parent(self, storage: SessionStorage) -> None:
        _one(storage)
        storage.fork("s", 1, head("child"), does())
        storage.delete("s", does())
        view = read_all(storage, "child")
        assert (view.metadata.parent_id, [one.content for one in view.messages]) == ("s", ["word"])
        assert hits(storage, "word") == [("child", 1)]

    def test_a_call_of_a_deleted_session_is_forgotten(self, storage: SessionStorage) -> None:
        mine = called("c", scope="user", user_id="ana")
        storage.create(head("s"), does(records=(mine,)))
        storage.delete("s", does())
        storage.create(head("t"), does(records=(mine,)))
        assert [record.session_id for record in storage.invocations(InvocationQuery()).items] == ["t"]

    def test_a_deletion_is_not_the_call_that_made_the_session(self, storage: SessionStorage) -> None:
        made = called("c", scope="user", tool_name="session_create", kind="session")
        storage.create(head("s"), does(records=(made,)))
        with pytest.raises(InvocationConflictError):
            storage.delete("s", does(records=(made.model_copy(update={"tool_name": "session_delete"}),)))
        assert ids(storage) == ["s"]

    # whose

    @pytest.mark.parametrize("session_id", ["b", "n"])
    @pytest.mark.parametrize("act", ACTS)
    def test_the_session_of_someone_else_is_not_found(self, storage: SessionStorage, act: str, session_id: str) -> None:
        _two(storage)
        before = everything(storage, "word")
        with pytest.raises(SessionNotFoundError) as refused:
            ACTS[act](storage, session_id)
        with pytest.raises(SessionNotFoundError) as unknown:
            ACTS[act](storage, "unknown")
        assert str(refused.value) == str(unknown.value).replace("unknown", session_id)
        assert everything(storage, "word") == before

    @pytest.mark.parametrize("session_id", ["b", "n"])
    def test_to_who_asks_whether_it_is_there_it_is_not(self, storage: SessionStorage, session_id: str) -> None:
        _two(storage)
        before = everything(storage, "word")
        assert storage.load_session(session_id, as_user="ana") is None
        assert not storage.session_exists(session_id, as_user="ana")
        assert not storage.delete_session(session_id, as_user="ana")
        assert everything(storage, "word") == before

    def test_a_new_session_of_ones_own_is_saved_unless_its_id_is_taken(self, storage: SessionStorage) -> None:
        _two(storage)
        before = everything(storage, "word")
        with pytest.raises(SessionExistsError):
            storage.save_session(_made_anew("b", user_id="ana"), as_user="ana")
        assert everything(storage, "word") == before
        storage.save_session(_made_anew("new", user_id="ana"), as_user="ana")
        assert contents(storage, "new") == ["word"]

    def test_a_deleted_session_that_is_now_someone_elses_is_not_saved_into(self, storage: SessionStorage) -> None:
        _two(storage)
        copy = storage.load_session("a", as_user="ana")
        assert copy is not None
        copy.add_message("user", "word")
        storage.delete("a", does())
        storage.create(head("a", user_id="bob"))
        before = everything(storage, "word")
        with pytest.raises(SessionNotFoundError):
            storage.save_session(copy, as_user="ana")
        assert everything(storage, "word") == before

    def test_a_listed_session_that_is_now_someone_elses_is_gone(self, storage: SessionStorage) -> None:
        _two(storage)
        (listed,) = storage.list_sessions(as_user="ana")
        storage.delete("a", does())
        storage.create(head("a", user_id="bob"))
        with pytest.raises(SessionNotFoundError):
            _ = listed.conversation

    def test_ones_own_session_answers_as_without_restriction(self, storage: SessionStorage) -> None:
        _two(storage)
        assert storage.read("a", Want(as_user="ana")).metadata.session_id == "a"
        assert storage.session_exists("a", as_user="ana")
        copy = storage.load_session("a", as_user="ana")
        assert copy is not None
        copy.set("saved", 1)
        storage.save_session(copy, as_user="ana")
        storage.link_invocation("a", "x", "/somewhere/x", as_user="ana")
        assert values(storage, "a") == {"k": "ana", "saved": 1}
        storage.commit("a", does(set={"k": 1}, as_user="ana"))
        storage.fork("a", None, head("child", user_id="ana"), does(as_user="ana"))
        assert storage.delete_session("a", as_user="ana")
        storage.delete("child", does(as_user="ana"))
        assert sorted(ids(storage)) == ["b", "n"]

    def test_every_listing_shows_ones_own_alone(self, storage: SessionStorage) -> None:
        _two(storage)
        storage.commit(None, does(records=(called("mine", user_id="ana"), called("theirs", user_id="bob"))))
        assert ids(storage, Query(as_user="ana")) == ["a"]
        assert [one.session_id for one in storage.list_sessions(as_user="ana")] == ["a"]
        assert storage.list_sessions(user_id="bob", as_user="ana") == []
        assert hits(storage, "word", as_user="ana") == [("a", 1)]
        assert hits(storage, "word", as_user="ana", ids=("b",)) == []
        assert calls(storage, as_user="ana") == ["mine", "c"]
        assert calls(storage, as_user="ana", session_id="b") == []
        assert [row.sessions for row in storage.totals(Query(as_user="ana"))] == [1]
        assert [row.group for row in storage.totals(Query(as_user="ana"), "user")] == ["ana"]

    def test_a_record_is_its_sessions_owners_whoever_made_it(self, storage: SessionStorage) -> None:
        _two(storage)
        storage.commit("a", does(records=(called("by-bob", user_id="bob"),)))
        assert calls(storage, as_user="ana", invocation_id="by-bob") == ["by-bob"]
        assert calls(storage, as_user="bob", invocation_id="by-bob") == []


def _one(storage: SessionStorage) -> None:
    change = does(messages=(said("a", "word"), said("b")), set={"k": 1, ".i": 1}, records=(called("c"),))
    storage.create(head("s", user_id="ana", tags=["t"]), change)


def _two(storage: SessionStorage) -> None:
    for name, user in (("a", "ana"), ("b", "bob")):
        change = does(messages=(said("m", "word"),), set={"k": user}, records=(called("c", cost=1),))
        storage.create(head(name, user_id=user), change)
    storage.create(head("n"), say(said("m", "word")))


def _worked_on(storage: SessionStorage, session_id: str) -> Session:
    copy = storage.load_session(session_id) or Session(head(session_id, user_id="bob"))
    copy.add_message("user", "word")
    return copy


def _made_anew(session_id: str, user_id: str = "bob") -> Session:
    session = Session(head(session_id, user_id=user_id), clock=lambda: at(1))
    session.add_message("user", "word")
    return session
