"""All or nothing: a change whose condition fails, or whose last part fails, leaves no trace."""

from __future__ import annotations

import pytest

from ..errors import (
    ConflictError,
    InvocationConflictError,
    InvocationRecordedError,
    MessageConflictError,
    SessionEndedError,
    SessionNotFoundError,
    SessionsError,
)
from ..models import Alter, Change, InvocationStatus, SessionStatus, Want
from ..storage.base import SessionStorage
from .making import at, called, contents, does, everything, head, read_all, said, say, values
from .store import Store

FAILING: dict[str, tuple[Change, type[SessionsError]]] = {
    "another owner": (does(as_user="bob"), SessionNotFoundError),
    "revision behind": (does(expected_revision=0), ConflictError),
    "revision ahead": (does(expected_revision=2), ConflictError),
    "last_seq behind": (does(expected_last_seq=0), ConflictError),
    "last_seq ahead": (does(expected_last_seq=2), ConflictError),
    "made at another time": (does(expected_created_at=at(7)), SessionNotFoundError),
    "updated at another time": (does(expected_updated_at=at(7)), ConflictError),
    "version behind": (does(expected_versions={"k": 0}), ConflictError),
    "version ahead": (does(expected_versions={"k": 2}), ConflictError),
    "version of no key": (does(expected_versions={"new": 1}), ConflictError),
    "one of two versions": (does(expected_versions={"k": 1, "new": 1}), ConflictError),
    "message with other content": (does(messages=(said("m", "other words"),)), MessageConflictError),
    "call already done": (does(records=(called("c"),)), InvocationRecordedError),
    "call of another tool": (does(records=(called("c", tool_name="rm"),)), InvocationConflictError),
    "late finish": (does(records=(called("gone", owner="own_a"),)), InvocationConflictError),
}


class Conditions(Store):
    @pytest.mark.parametrize("failing", FAILING)
    def test_a_refused_commit_leaves_no_trace(self, storage: SessionStorage, failing: str) -> None:
        change, error = FAILING[failing]
        _one(storage)
        before = everything(storage, "hello", "trace")
        with pytest.raises(error):
            storage.commit("s", _acts(change))
        assert everything(storage, "hello", "trace") == before

    @pytest.mark.parametrize("failing", FAILING)
    def test_a_refused_part_takes_the_whole_commit_with_it(self, storage: SessionStorage, failing: str) -> None:
        change, error = FAILING[failing]
        _one(storage)
        before = everything(storage, "hello", "trace")
        with pytest.raises(error):
            storage.commit("t", _acts(does(), also=(("t", does(set={"two": 2})), ("s", _acts(change)))))
        assert everything(storage, "hello", "trace") == before

    @pytest.mark.parametrize("failing", FAILING)
    def test_a_refused_first_part_keeps_the_others_out(self, storage: SessionStorage, failing: str) -> None:
        change, error = FAILING[failing]
        _one(storage)
        before = everything(storage, "hello", "trace")
        with pytest.raises(error):
            storage.commit("s", _acts(change, also=(("t", _acts(does())),)))
        assert everything(storage, "hello", "trace") == before

    def test_a_part_for_an_unknown_session_takes_the_whole_commit_with_it(self, storage: SessionStorage) -> None:
        _one(storage)
        before = everything(storage, "hello", "trace")
        with pytest.raises(SessionNotFoundError):
            storage.commit("s", _acts(does(), also=(("no", does(set={"k": 1})),)))
        assert everything(storage, "hello", "trace") == before

    def test_a_create_whose_part_fails_makes_no_session(self, storage: SessionStorage) -> None:
        _one(storage)
        before = everything(storage, "hello", "trace")
        part = does(set={"k": 5}, expected_revision=7)
        with pytest.raises(ConflictError):
            storage.create(head("new"), does(messages=(said("n", "trace"),), also=(("t", part),)))
        assert everything(storage, "hello", "trace") == before
        storage.create(head("new"), say(said("n", "again")))
        assert contents(storage, "new") == ["again"]

    def test_a_delete_whose_condition_fails_deletes_nothing(self, storage: SessionStorage) -> None:
        _one(storage)
        before = everything(storage, "hello")
        refused = [
            (does(as_user="bob"), SessionNotFoundError),
            (does(expected_revision=7), ConflictError),
            (does(expected_last_seq=0), ConflictError),
            (does(expected_versions={"k": 0}), ConflictError),
            (does(also=(("t", does(expected_revision=7)),)), ConflictError),
            (does(also=(("no", does(set={"k": 1})),)), SessionNotFoundError),
        ]
        for change, error in refused:
            with pytest.raises(error):
                storage.delete("s", change.model_copy(update={"records": (called("del", kind="session"),)}))
            assert everything(storage, "hello") == before

    def test_a_fork_whose_part_fails_makes_no_session(self, storage: SessionStorage) -> None:
        _one(storage)
        before = everything(storage, "hello")
        with pytest.raises(ConflictError):
            storage.fork("s", None, head("child"), does(also=(("t", does(expected_revision=7)),)))
        assert everything(storage, "hello") == before

    def test_the_store_goes_on_after_a_refusal(self, storage: SessionStorage) -> None:
        _one(storage)
        with pytest.raises(ConflictError):
            storage.commit("s", _acts(does(expected_revision=7)))
        committed = storage.commit("s", _acts(does()))
        assert (committed.revision, committed.seqs) == (2, [2, 3])
        assert values(storage) == {"k": 2, "trace": 1}

    def test_all_conditions_that_hold_let_the_change_through(self, storage: SessionStorage) -> None:
        _one(storage)
        holding = does(
            set={"k": 2},
            as_user="ana",
            active=True,
            expected_revision=1,
            expected_last_seq=1,
            expected_versions={"k": 1, "new": 0, ".i": 1},
        )
        assert storage.commit("s", holding).revision == 2

    def test_a_conflict_tells_what_was_expected_and_what_is(self, storage: SessionStorage) -> None:
        _one(storage)
        storage.commit("s", does(set={"k": 2}))
        for condition, expected, actual in (
            (does(expected_revision=1), 1, 2),
            (does(expected_last_seq=5), 5, 1),
            (does(expected_versions={"k": 1}), 1, 2),
        ):
            with pytest.raises(ConflictError, match="Read it again, then retry") as refused:
                storage.commit("s", condition)
            assert (refused.value.session_id, refused.value.expected, refused.value.actual) == ("s", expected, actual)

    def test_only_the_first_of_two_with_the_same_expectation_gets_through(self, storage: SessionStorage) -> None:
        _one(storage)
        storage.commit("s", does(set={"k": "mine"}, expected_revision=1))
        with pytest.raises(ConflictError):
            storage.commit("s", does(set={"k": "yours"}, expected_revision=1))
        assert values(storage) == {"k": "mine"}

    def test_a_key_that_must_not_exist_is_written_once(self, storage: SessionStorage) -> None:
        storage.create(head())
        once = does(set={"lock": "a"}, expected_versions={"lock": 0})
        storage.commit("s", once)
        with pytest.raises(ConflictError, match="0: it must not exist"):
            storage.commit("s", once)
        storage.commit("s", does(remove=("lock",)))
        assert storage.commit("s", once).revision == 4

    def test_writers_of_different_keys_do_not_conflict(self, storage: SessionStorage) -> None:
        storage.create(head(), does(set={"a": 1, "b": 1}))
        storage.commit("s", does(set={"a": 2}, expected_versions={"a": 1}))
        storage.commit("s", does(set={"b": 2}, expected_versions={"b": 1}))
        assert {key: value.version for key, value in read_all(storage).data.items()} == {"a": 2, "b": 3}

    @pytest.mark.parametrize(
        "change",
        [does(messages=(said("n"),)), does(set={"k": 2}), does(retract=((1, 1),)), does(alter=Alter(purpose="p"))],
        ids=["message", "key", "retraction", "metadata"],
    )
    def test_an_ended_session_does_not_change(self, storage: SessionStorage, change: Change) -> None:
        _one(storage)
        storage.commit("s", does(alter=Alter(status=SessionStatus.ABANDONED)))
        before = everything(storage, "hello")
        with pytest.raises(SessionEndedError, match="Reopen it first"):
            storage.commit("s", change.model_copy(update={"active": True}))
        assert everything(storage, "hello") == before

    def test_an_ended_session_takes_records(self, storage: SessionStorage) -> None:
        _one(storage)
        storage.commit("s", does(alter=Alter(status=SessionStatus.COMPLETED)))
        storage.commit("s", does(records=(called("later"),)))
        assert storage.read("s", Want()).metadata.total_invocations == 2

    def test_parts_of_one_commit_are_done_together(self, storage: SessionStorage) -> None:
        _one(storage)
        storage.commit("s", does(set={"k": 2}, also=(("t", does(set={"k": 2})), ("t", does(set={"l": 3})))))
        assert values(storage, "s") == {"k": 2}
        assert values(storage, "t") == {"k": 2, "l": 3}
        assert storage.read("t", Want()).metadata.revision == 3

    def test_a_part_may_follow_on_the_session_itself(self, storage: SessionStorage) -> None:
        _one(storage)
        storage.commit("s", say(said("one")).model_copy(update={"also": (("s", say(said("two"))),)}))
        assert contents(storage) == ["hello", "one", "two"]

    def test_a_change_without_a_session_does_its_parts(self, storage: SessionStorage) -> None:
        _one(storage)
        alone = called("alone", status=InvocationStatus.ERROR)
        committed = storage.commit(None, does(records=(alone,), also=(("t", does(set={"k": 2})),)))
        assert (committed.session_id, committed.revision) == (None, None)
        assert values(storage, "t") == {"k": 2}
        with pytest.raises(ConflictError):
            storage.commit(None, does(records=(called("never"),), also=(("t", does(expected_revision=7)),)))
        assert read_all(storage, "t").metadata.revision == 2


def _one(storage: SessionStorage) -> None:
    first = does(messages=(said("m", "hello"),), set={"k": 1, ".i": 1}, records=(called("c"),))
    storage.create(head("s", user_id="ana", tags=["t"]), first)
    storage.create(head("t", user_id="ana"), does(messages=(said("m"),), set={"k": 1}, records=(called("c"),)))


def _acts(failing: Change, **more: object) -> Change:
    """All that a change can do, with a condition that does not hold."""
    acts = does(
        9,
        messages=(said("before", "trace"), *failing.messages, said("after", "trace")),
        retract=((1, 1),) if not failing.messages else (),
        set={"k": 2, "trace": 1, ".trace": 1},
        remove=(".i",),
        alter=Alter(purpose="trace", add_tags=("trace",), status=SessionStatus.FAILED),
        records=(called("trace", duration_ms=1), *failing.records),
    )
    conditions = {name: getattr(failing, name) for name in failing.model_fields_set - {"at", "messages", "records"}}
    return acts.model_copy(update={**conditions, **more})
