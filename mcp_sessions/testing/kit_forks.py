"""Forks and restored sessions: what a session made from another one holds."""

from __future__ import annotations

from typing import Any

import pytest

from ..errors import (
    InvalidArgumentError,
    InvocationConflictError,
    InvocationRecordedError,
    SessionExistsError,
    SessionNotFoundError,
)
from ..models import Alter, InvocationStatus, Query, SessionStatus, Value, View, Want, tokens
from ..storage.base import SessionStorage
from .making import called, calls, contents, does, everything, head, read_all, said, say, values
from .store import Store

CONTRADICTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "no seq": ({}, {"messages": [said("m").message]}),
    "beyond last_seq 1": ({"last_seq": 1}, {}),
    "counts 3": ({"message_count": 3}, {}),
    "revision is not 1": ({"revision": 0}, {}),
    "version is not between 1": ({}, {"data": {"k": Value(value=1, version=99)}}),
    "key's version is not between": ({}, {"data": {"k": Value(value=1, version=0)}}),
    "two records share an id": ({}, {"records": [called("r"), called("r")]}),
    "has 2 calls, but counts 1": ({"total_invocations": 1}, {}),
    "1 of its calls failed, but it counts 0": ({"failed_invocations": 0}, {}),
    "cost more than it counts": ({"estimated_cost": 0.499999999}, {}),
    "still running": ({}, {"records": [called("r", status=InvocationStatus.RUNNING)]}),
}
"""What a view is told to be wrong with: what of its head, and which of its parts, are spoilt."""


class Forks(Store):
    def test_a_fork_has_messages_and_keys_as_of_a_seq(self, storage: SessionStorage) -> None:
        _parent(storage)
        committed = storage.fork("p", 2, head("child", 9), does(9))
        view = read_all(storage, "child")
        assert [(one.seq, one.message_id) for one in view.messages] == [(1, "m1"), (2, "m2")]
        assert view.messages == read_all(storage, "p").messages[:2]
        one = Value(value=1, version=1)
        assert view.data == {"n": Value(value=2, version=1), "k1": one, "k2": Value(value=2, version=1)}
        assert read_all(storage, "child", internal=True).data == {".i": Value(value=2, version=1)}
        assert (committed.revision, committed.note) == (1, None)

    def test_a_fork_of_all_has_the_keys_as_they_are(self, storage: SessionStorage) -> None:
        _parent(storage)
        storage.fork("p", None, head("child"), does())
        assert contents(storage, "child") == ["m1", "m2", "m3", "m4"]
        assert values(storage, "child") == {"n": 4, "k2": 2, "k3": 3, "k4": 4, "late": 1}

    def test_a_fork_at_the_last_message_leaves_later_keys_out(self, storage: SessionStorage) -> None:
        _parent(storage)
        storage.fork("p", 4, head("child"), does())
        assert values(storage, "child") == {"n": 4, "k1": 1, "k2": 2, "k3": 3, "k4": 4}

    def test_a_fork_at_zero_is_empty(self, storage: SessionStorage) -> None:
        _parent(storage)
        committed = storage.fork("p", 0, head("child"), does())
        assert (contents(storage, "child"), values(storage, "child")) == ([], {})
        assert (committed.metadata.last_seq, committed.metadata.message_count) == (0, 0)

    def test_a_fork_starts_its_counters_and_has_no_records(self, storage: SessionStorage) -> None:
        _parent(storage)
        given = head("child", 9, user_id="ana", purpose="another try", tags=["t"])
        storage.fork("p", 3, given, does(9))
        counted = {"parent_id": "p", "revision": 1, "last_seq": 3, "message_count": 3}
        assert storage.read("child", Want()).metadata == given.model_copy(update=counted)
        assert calls(storage, session_id="child") == []

    def test_the_forks_own_record_is_in_the_child(self, storage: SessionStorage) -> None:
        _parent(storage)
        storage.fork("p", 2, head("child"), does(records=(called("f", kind="session"),)))
        assert calls(storage, session_id="child") == ["f"]
        assert calls(storage, session_id="p") == ["c"]

    def test_a_fork_leaves_its_parent_as_it_was(self, storage: SessionStorage) -> None:
        _parent(storage)
        before = (read_all(storage, "p"), read_all(storage, "p", internal=True))
        storage.fork("p", 2, head("child"), does(set={"n": "child"}, messages=(said("c"),)))
        storage.commit("child", does(retract=((1, 1),), remove=("k2",)))
        assert (read_all(storage, "p"), read_all(storage, "p", internal=True)) == before

    def test_a_fork_goes_on_numbering_where_it_was_cut(self, storage: SessionStorage) -> None:
        _parent(storage)
        storage.fork("p", 2, head("child"), does())
        assert storage.commit("child", say(said("m3", "another"))).seqs == [3]
        assert storage.commit("child", say(said("m1"))).seqs == [1]
        assert contents(storage, "child") == ["m1", "m2", "another"]

    def test_retracted_messages_are_not_in_a_fork_and_their_seqs_stay_taken(self, storage: SessionStorage) -> None:
        _parent(storage)
        storage.commit("p", does(retract=((2, 2), (4, 4))))
        storage.fork("p", None, head("all"), does())
        storage.fork("p", 3, head("three"), does())
        assert contents(storage, "all") == ["m1", "m3"]
        assert storage.commit("all", say(said("next"))).seqs == [5]
        assert storage.commit("three", say(said("next"))).seqs == [4]

    def test_a_fork_at_a_last_message_that_was_retracted_has_the_keys_as_they_are(
        self, storage: SessionStorage
    ) -> None:
        """Of the last message nothing was left that told when it was said: the fork had no keys, or old ones."""
        _parent(storage)
        storage.commit("p", does(7, retract=((4, 4),)))
        storage.fork("p", 4, head("popped"), does())
        storage.commit("p", does(8, retract=((1, 4),)))
        storage.fork("p", 4, head("cleared"), does())
        for name in ("popped", "cleared"):
            assert values(storage, name) == {"n": 4, "k2": 2, "k3": 3, "k4": 4, "late": 1}

    def test_a_fork_of_a_fork_has_what_its_parent_had(self, storage: SessionStorage) -> None:
        _parent(storage)
        storage.fork("p", 3, head("child"), does())
        storage.fork("child", 2, head("grandchild"), does())
        assert contents(storage, "grandchild") == ["m1", "m2"]
        assert storage.read("grandchild", Want()).metadata.parent_id == "child"
        assert values(storage, "grandchild") == values(storage, "child")

    @pytest.mark.parametrize("at_seq", [-1, 5, 10**30])
    def test_a_seq_that_never_was_is_refused(self, storage: SessionStorage, at_seq: int) -> None:
        _parent(storage)
        before = everything(storage)
        with pytest.raises(InvalidArgumentError, match="messages up to 4") as refused:
            storage.fork("p", at_seq, head("child"), does())
        assert refused.value.argument == "at_seq"
        assert everything(storage) == before

    def test_a_fork_under_a_taken_id_is_refused(self, storage: SessionStorage) -> None:
        _parent(storage)
        storage.create(head("taken"))
        before = everything(storage)
        for name in ("taken", "p"):
            with pytest.raises(SessionExistsError):
                storage.fork("p", None, head(name), does())
        assert everything(storage) == before

    def test_only_its_owner_forks_a_session(self, storage: SessionStorage) -> None:
        _parent(storage)
        with pytest.raises(SessionNotFoundError):
            storage.fork("p", None, head("child", user_id="bob"), does(as_user="bob"))
        assert storage.fork("p", None, head("child"), does(as_user="ana")).session_id == "child"

    # restored

    def test_a_restored_session_is_equal_to_what_it_was(self, storage: SessionStorage) -> None:
        view = _rich(storage)
        before = everything(storage, "a", "b", "c")
        storage.delete("s", does())
        committed = storage.restore(view)
        assert committed.metadata == view.metadata
        assert everything(storage, "a", "b", "c") == before

    def test_a_restored_session_goes_on_where_it_was(self, storage: SessionStorage) -> None:
        view = _rich(storage)
        storage.delete("s", does())
        storage.restore(view)
        committed = storage.commit("s", does(9, messages=(said("a", payload={"x": {"y": 1}}), said("d")), set={"k": 3}))
        assert (committed.seqs, committed.revision) == ([1, 4], view.metadata.revision + 1)
        assert read_all(storage).data["k"].version == view.metadata.revision + 1

    def test_what_was_counted_is_not_counted_again_once_it_is_restored(self, storage: SessionStorage) -> None:
        records = (called("u", kind="usage", model="m", cost=0.5), called("c"))
        storage.create(head(), does(records=records))
        view = read_all(storage)
        storage.delete("s", does())
        storage.restore(view)
        for record in records:
            with pytest.raises(InvocationRecordedError):
                storage.commit("s", does(records=(record,)))
        assert storage.read("s", Want()).metadata == view.metadata
        assert [one.invocation_id for one in storage.read("s", Want(records=9)).records] == ["c"]
        loaded = storage.load_session("s")
        assert loaded is not None
        assert loaded.invocation_ids == ["c"]

    def test_a_session_is_restored_beside_itself_under_another_id(self, storage: SessionStorage) -> None:
        view = _rich(storage)
        copy = view.metadata.model_copy(update={"session_id": "copy"})
        storage.restore(view.model_copy(update={"metadata": copy}))
        restored = read_all(storage, "copy")
        assert restored.messages == view.messages
        assert [record.session_id for record in restored.records] == ["copy", "copy"]
        assert read_all(storage).records == view.records
        assert [row.sessions for row in storage.totals(Query(), "tool")] == [2]

    def test_a_restored_session_does_not_take_a_call_from_another_one(self, storage: SessionStorage) -> None:
        storage.create(head("s"), does(records=(called("c", scope="user"),)))
        view = read_all(storage)
        copy = view.metadata.model_copy(update={"session_id": "copy"})
        before = everything(storage)
        with pytest.raises(InvocationConflictError, match="Invocation id c is taken"):
            storage.restore(view.model_copy(update={"metadata": copy}))
        assert everything(storage) == before

    def test_a_session_that_exists_is_not_restored_over(self, storage: SessionStorage) -> None:
        view = _rich(storage)
        storage.commit("s", does(alter=Alter(summary="newer")))
        before = everything(storage, "a")
        with pytest.raises(SessionExistsError):
            storage.restore(view)
        assert everything(storage, "a") == before

    @pytest.mark.parametrize("why", CONTRADICTIONS)
    def test_a_view_that_contradicts_itself_is_refused(self, storage: SessionStorage, why: str) -> None:
        view = _rich(storage)
        storage.delete("s", does())
        before = everything(storage, "a")
        metadata, parts = CONTRADICTIONS[why]
        spoilt = view.model_copy(update={"metadata": view.metadata.model_copy(update=metadata), **parts})
        with pytest.raises(InvalidArgumentError, match=why):
            storage.restore(spoilt)
        assert everything(storage, "a") == before

    def test_messages_out_of_order_or_with_one_id_are_refused(self, storage: SessionStorage) -> None:
        view = _rich(storage)
        storage.delete("s", does())
        first, second = view.messages
        twice = second.model_copy(update={"message_id": first.message_id})
        for messages, why in (([second, first], "not in the order"), ([first, twice], "share an id")):
            with pytest.raises(InvalidArgumentError, match=why):
                storage.restore(view.model_copy(update={"messages": messages}))


def _parent(storage: SessionStorage) -> None:
    storage.create(head("p", user_id="ana"))
    for n in range(1, 5):
        change = does(n, messages=(said(f"m{n}", second=n),), set={"n": n, f"k{n}": n, ".i": n})
        storage.commit("p", change)
    storage.commit("p", does(6, set={"late": 1}, remove=("k1",), records=(called("c", cost=1, model="m"),)))


def _rich(storage: SessionStorage) -> View:
    storage.create(
        head(user_id="ana", purpose="p", tags=["t"], custom_metadata={"m": {"n": 1}}, parent_id="older"),
        does(messages=(said("a", payload={"x": {"y": 1}}), said("b"), said("c")), set={"k": [1], ".i": 2}),
    )
    storage.commit("s", does(2, retract=((2, 2),), set={"k": [2]}))
    record = called("r", 3, model="m", token_usage=tokens(5), cost=0.5, result={}, fills={"version": "revision"})
    record = record.model_copy(update={"refs": {"arguments.value": "data:l@revision"}})
    failed = called("q", 3, refs={"arguments.result": "invocation:r"}, status=InvocationStatus.ERROR, duration_ms=1.5)
    storage.commit("s", does(3, set={"l": 1}, records=(record, failed)))
    storage.commit("s", does(4, alter=Alter(status=SessionStatus.COMPLETED, summary="done")))
    view = read_all(storage)
    return view.model_copy(update={"data": {**view.data, **read_all(storage, internal=True).data}})
