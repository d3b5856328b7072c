"""Sessions and their heads: made, altered, ended, counted in revisions."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any, cast

import pytest

from ..errors import SessionEndedError, SessionExistsError, SessionNotFoundError
from ..models import Alter, Change, InvocationQuery, Query, SessionStatus, Value, Want, tokens
from ..storage.base import SessionStorage
from .making import at, called, does, everything, head, ids, read_all, said, say
from .store import Store

STATE: dict[str, Change] = {
    "message": does(messages=(said("new"),)),
    "retraction": does(retract=((1, 1),)),
    "new key": does(set={"other": 1}),
    "same value": does(set={"key": "as it was"}),
    "removal": does(remove=("key",)),
    "removal of all": does(remove_all=True),
    "metadata": does(alter=Alter(purpose="another")),
    "status": does(alter=Alter(status=SessionStatus.FAILED)),
    "clearing": does(alter=Alter(clear=("purpose",))),
    "metadata removal": does(alter=Alter(remove_metadata=("unknown",))),
}
NOTHING: dict[str, Change] = {
    "empty": does(),
    "repeated message": does(messages=(said("first"),)),
    "retraction of none": does(retract=((2, 9),)),
    "removal of none": does(remove=("unknown",)),
    "records": does(records=(called("a"), called("b", kind="session"))),
}


class Heads(Store):
    def test_a_new_session_is_read_back_as_it_was_given(self, storage: SessionStorage) -> None:
        given = head(
            user_id="ana",
            purpose="Find the leak",
            summary="none yet",
            tags=["b", "a"],
            custom_metadata={"ticket": {"nr": 7, "open": True, "rate": 0.5, "none": None}},
            parent_id="older",
        )
        created = storage.create(given)
        assert created.metadata == given.model_copy(update={"revision": 1})
        assert storage.read("s", Want()).metadata == created.metadata

    def test_a_new_session_has_its_first_change_in_the_same_commit(self, storage: SessionStorage) -> None:
        created = storage.create(head(), does(messages=(said("hello"),), set={"k": 1}, records=(called("c"),)))
        view = read_all(storage)
        assert (created.revision, created.seqs) == (1, [1])
        assert view.metadata.revision == 1
        assert view.data == {"k": Value(value=1, version=1)}
        assert [record.invocation_id for record in view.records] == ["c"]

    def test_a_taken_id_is_refused_and_its_session_stands(self, storage: SessionStorage) -> None:
        storage.create(head(purpose="the first"), say(said("hello")))
        before = everything(storage, "hello", "other")
        with pytest.raises(SessionExistsError) as refused:
            storage.create(head(purpose="the second"), say(said("other")))
        assert refused.value.session_id == "s"
        assert everything(storage, "hello", "other") == before

    def test_ids_that_differ_in_case_are_two_sessions(self, storage: SessionStorage) -> None:
        storage.create(head("Case", purpose="upper"))
        storage.create(head("case", purpose="lower"))
        assert storage.read("Case", Want()).metadata.purpose == "upper"
        assert storage.read("case", Want()).metadata.purpose == "lower"

    def test_an_id_may_be_as_long_as_ids_may_be(self, storage: SessionStorage) -> None:
        longest = "x" + "._-Z9" * 25 + "ab"
        storage.create(head(longest))
        assert ids(storage) == [longest]

    def test_an_unknown_session_is_not_found_by_any_call(self, storage: SessionStorage) -> None:
        for call in (
            lambda: storage.read("no", Want()),
            lambda: storage.commit("no", does(set={"k": 1})),
            lambda: storage.delete("no", does()),
            lambda: storage.fork("no", None, head("child"), does()),
        ):
            with pytest.raises(SessionNotFoundError, match="Session no not found"):
                call()
        assert ids(storage) == []

    @pytest.mark.parametrize("change", STATE)
    def test_a_change_of_state_raises_the_revision_by_one(self, storage: SessionStorage, change: str) -> None:
        storage.create(head(), does(messages=(said("first"),), set={"key": "as it was"}))
        committed = storage.commit("s", STATE[change])
        assert committed.revision == 2
        assert committed.metadata == storage.read("s", Want()).metadata
        assert committed.metadata.revision == 2

    @pytest.mark.parametrize("change", NOTHING)
    def test_a_change_without_state_leaves_the_revision(self, storage: SessionStorage, change: str) -> None:
        storage.create(head(), does(messages=(said("first"),), set={"key": "as it was"}))
        committed = storage.commit("s", NOTHING[change])
        assert committed.revision == 1
        assert committed.metadata == storage.read("s", Want()).metadata
        assert committed.metadata.revision == 1

    def test_many_changes_in_one_commit_are_one_revision(self, storage: SessionStorage) -> None:
        storage.create(head())
        done = does(messages=(said("a"), said("b")), set={"k": 1, "l": 2}, alter=Alter(purpose="p"))
        assert storage.commit("s", done).revision == 2

    def test_updated_at_moves_with_the_newest_change_and_never_goes_back(self, storage: SessionStorage) -> None:
        storage.create(head())
        storage.commit("s", does(20, set={"k": 1}))
        assert storage.commit("s", does(10, set={"k": 2})).metadata.updated_at == at(20)
        assert storage.read("s", Want()).metadata.updated_at == at(20)
        assert storage.commit("s", does(30, alter=Alter(purpose="p"))).metadata.updated_at == at(30)

    def test_work_moves_updated_at_and_housekeeping_does_not(self, storage: SessionStorage) -> None:
        storage.create(head())
        storage.commit("s", does(10, records=(called("ours", kind="session"),)))
        assert storage.read("s", Want()).metadata.updated_at == at(0)
        storage.commit("s", does(20, records=(called("theirs"),)))
        assert storage.read("s", Want()).metadata.updated_at == at(20)

    def test_a_change_that_does_nothing_leaves_updated_at(self, storage: SessionStorage) -> None:
        storage.create(head())
        storage.commit("s", does(10, remove=("unknown",)))
        assert storage.read("s", Want()).metadata.updated_at == at(0)

    def test_altering_one_field_leaves_the_others(self, storage: SessionStorage) -> None:
        before = storage.create(
            head(user_id="ana", purpose="p", summary="s", tags=["t"], custom_metadata={"m": 1})
        ).metadata
        storage.commit("s", does(5, alter=Alter(summary="done")))
        after = storage.read("s", Want()).metadata
        assert after == before.model_copy(update={"summary": "done", "revision": 2, "updated_at": at(5)})

    def test_custom_metadata_merges_name_by_name(self, storage: SessionStorage) -> None:
        storage.create(head(custom_metadata={"keep": 1, "change": {"deep": 1}}))
        storage.commit("s", does(alter=Alter(metadata={"change": {"new": 2}, "add": [3]})))
        metadata = storage.read("s", Want()).metadata.custom_metadata
        assert metadata == {"keep": 1, "change": {"new": 2}, "add": [3]}

    def test_custom_metadata_is_removed_name_by_name_before_any_is_set(self, storage: SessionStorage) -> None:
        storage.create(head(custom_metadata={"keep": 1, "go": {"deep": 1}, "change": 1}))
        storage.commit("s", does(alter=Alter(remove_metadata=("go", "change", "unknown"), metadata={"change": 2})))
        assert storage.read("s", Want()).metadata.custom_metadata == {"keep": 1, "change": 2}
        storage.commit("s", does(alter=Alter(remove_metadata=("keep", "change"))))
        assert storage.read("s", Want()).metadata.custom_metadata == {}

    def test_purpose_and_summary_are_cleared_before_any_is_set(self, storage: SessionStorage) -> None:
        storage.create(head(purpose="word", summary="s"))
        cleared = storage.commit("s", does(alter=Alter(clear=("purpose", "summary"), summary="new"))).metadata
        assert (cleared.purpose, cleared.summary) == (None, "new")
        assert storage.read("s", Want()).metadata == cleared
        assert ids(storage, Query(text="word")) == []
        assert storage.commit("s", does(alter=Alter(clear=("summary",)))).metadata.summary is None

    def test_tags_are_replaced_added_and_taken_away_in_order(self, storage: SessionStorage) -> None:
        storage.create(head(tags=["old"]))
        storage.commit("s", does(alter=Alter(tags=("z", "a", "z"))))
        assert storage.read("s", Want()).metadata.tags == ["z", "a"]
        storage.commit("s", does(alter=Alter(add_tags=("m", "a"), remove_tags=("z", "unknown"))))
        assert storage.read("s", Want()).metadata.tags == ["a", "m"]

    @pytest.mark.parametrize("status", ["completed", "failed", "abandoned"])
    def test_ending_stamps_ended_at_and_reopening_clears_it(self, storage: SessionStorage, status: str) -> None:
        storage.create(head())
        storage.commit("s", does(5, alter=Alter(status=SessionStatus(status))))
        ended = storage.read("s", Want()).metadata
        assert (ended.status.value, ended.ended_at) == (status, at(5))
        storage.commit("s", does(9, alter=Alter(status=SessionStatus.ACTIVE)))
        reopened = storage.read("s", Want()).metadata
        assert (reopened.status, reopened.ended_at) == (SessionStatus.ACTIVE, None)

    def test_a_session_never_ends_before_its_last_change(self, storage: SessionStorage) -> None:
        storage.create(head())
        storage.commit("s", does(20, set={"k": 1}))
        storage.commit("s", does(10, alter=Alter(status=SessionStatus.FAILED)))
        assert storage.read("s", Want()).metadata.ended_at == at(20)

    def test_ending_twice_in_the_same_way_changes_nothing(self, storage: SessionStorage) -> None:
        storage.create(head())
        ending = Alter(status=SessionStatus.COMPLETED, summary="first")
        ended = storage.commit("s", does(5, active=True, alter=ending)).metadata
        again = Alter(status=SessionStatus.COMPLETED, summary="second")
        assert storage.commit("s", does(9, active=True, alter=again)).metadata == ended
        assert storage.read("s", Want()).metadata == ended

    def test_a_summary_that_is_not_taken_is_noted_in_the_answer_and_the_record(self, storage: SessionStorage) -> None:
        storage.create(head())

        def end(call: str, summary: str | None) -> str | None:
            record = called(call, kind="session", fills={"note": "note"})
            alter = Alter(status=SessionStatus.COMPLETED, summary=summary)
            note = storage.commit("s", does(active=True, alter=alter, records=(record,))).note
            (kept,) = storage.invocations(InvocationQuery(invocation_id=call)).items
            assert kept.result == ({} if note is None else {"note": note})
            return note

        assert [end("a", "first"), end("b", "first"), end("c", None)] == [None, None, None]
        note = end("d", "second")
        assert note is not None
        assert "this summary was not taken" in note

    def test_an_ended_session_is_not_ended_in_another_way(self, storage: SessionStorage) -> None:
        storage.create(head())
        storage.commit("s", does(alter=Alter(status=SessionStatus.COMPLETED)))
        with pytest.raises(SessionEndedError) as refused:
            storage.commit("s", does(active=True, alter=Alter(status=SessionStatus.FAILED)))
        assert (refused.value.session_id, refused.value.status) == ("s", "completed")
        assert storage.read("s", Want()).metadata.status is SessionStatus.COMPLETED

    def test_moments_keep_their_microseconds_whatever_their_zone(self, storage: SessionStorage) -> None:
        moment = datetime(2026, 3, 1, 9, 30, 0, 123457, timezone(timedelta(hours=-5)))
        storage.create(head(created_at=moment, updated_at=moment), does(messages=(said("m", timestamp=moment),)))
        view = read_all(storage)
        for kept in (view.metadata.created_at, view.messages[0].timestamp):
            assert kept == moment
            assert kept.utcoffset() == timedelta(0)

    def test_what_was_read_is_the_readers_own(self, storage: SessionStorage) -> None:
        _create_with_depth(storage)
        before = everything(storage)
        view = read_all(storage)
        _spoil(view.metadata.custom_metadata["deep"], view.metadata.tags, view.metadata.token_usage)
        _spoil(view.data["k"].value["deep"], view.messages[0].payload, view.records[0].arguments["deep"])
        found = storage.commit("s", does()).metadata
        _spoil(found.custom_metadata["deep"], found.tags, found.tools_used)
        assert everything(storage) == before

    def test_what_was_given_stays_the_givers_own(self, storage: SessionStorage) -> None:
        given, change = _create_with_depth(storage)
        before = everything(storage)
        _spoil(given.custom_metadata["deep"], given.tags, given.tools_used, given.token_usage)
        _spoil(change.set["k"]["deep"], change.messages[0].message.payload, change.records[0].arguments["deep"])
        assert everything(storage) == before

    def test_a_restored_session_is_not_the_view_it_came_from(self, storage: SessionStorage) -> None:
        _create_with_depth(storage)
        view = read_all(storage)
        storage.delete("s", does())
        storage.restore(view)
        before = everything(storage)
        _spoil(view.metadata.custom_metadata["deep"], view.metadata.tags, view.metadata.token_usage)
        _spoil(view.data["k"].value["deep"], view.messages[0].payload, view.records[0].arguments["deep"])
        assert everything(storage) == before


def _create_with_depth(storage: SessionStorage) -> tuple[Any, Change]:
    given = head(tags=["t"], custom_metadata={"deep": {}}, token_usage=tokens(1))
    change = does(
        messages=(said("m", payload={"openai": {}}),),
        set={"k": {"deep": {}}},
        records=(called("c", arguments={"deep": {}}),),
    )
    storage.create(given, change)
    return given, change


def _spoil(*values: Any) -> None:
    for value in values:
        if isinstance(value, list):
            cast("list[Any]", value).append("spoilt")
        else:
            value["spoilt"] = 1
