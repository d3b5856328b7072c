"""Records of calls: what they hold, what they add to the head, and which may follow which."""

from __future__ import annotations

from typing import Any

import pytest

from ..errors import InvalidArgumentError, InvocationConflictError, InvocationRecordedError
from ..models import (
    Failure,
    Invocation,
    InvocationQuery,
    InvocationStatus,
    Limits,
    Query,
    SessionMetadata,
    Want,
    tokens,
)
from ..storage.base import SessionStorage
from .making import at, called, calls, contents, does, everything, head, joined, read_all, said, say, values
from .store import Store

ERROR = InvocationStatus.ERROR
RUNNING = InvocationStatus.RUNNING
FINISHED = ["ok", "error", "cancelled", "interrupted"]


def _head(storage: SessionStorage) -> SessionMetadata:
    return storage.read("s", Want()).metadata


def _counts(storage: SessionStorage) -> tuple[int, int, float]:
    found = _head(storage)
    return found.total_invocations, found.failed_invocations, found.total_duration_ms


class Records(Store):
    def test_a_record_comes_back_with_every_field(self, storage: SessionStorage) -> None:
        record = called(
            "c",
            user_id="ana",
            caller="mcp:Claude Desktop",
            status=ERROR,
            attempt=1,
            parent_id="outer",
            native_id="req_1",
            duration_ms=12.25,
            arguments={"pattern": "x", "deep": [1, None]},
            result=["a", {"b": 1.5}],
            error=Failure(type="ValueError", message="no"),
            model="gpt-x",
            token_usage=tokens(10, 5, 2, 1),
            cost=0.000000123,
            cost_source="reported",
            digest="abc",
        )
        storage.create(head(user_id="ana"), does(records=(record,)))
        kept = record.model_copy(update={"session_id": "s", "revision": 1})
        assert read_all(storage).records == [kept]
        assert storage.commit("s", does()).metadata.estimated_cost == 0.000000123

    def test_a_record_says_the_revision_that_its_commit_made(self, storage: SessionStorage) -> None:
        storage.create(head())
        storage.commit("s", does(set={"k": 1}, records=(called("a"),)))
        storage.commit("s", does(records=(called("b"),)))
        assert [record.revision for record in read_all(storage).records] == [None, 2]

    def test_state_and_record_are_one_commit(self, storage: SessionStorage) -> None:
        storage.create(head())
        storage.commit("s", does(messages=(said("m"),), set={"k": 1}, records=(called("c"),)))
        view = read_all(storage)
        assert (view.metadata.revision, view.metadata.total_invocations) == (2, 1)
        assert ([record.invocation_id for record in view.records], contents(storage)) == (["c"], ["m"])
        assert values(storage) == {"k": 1}

    def test_numbers_that_only_the_commit_knows_are_joined_into_the_result(self, storage: SessionStorage) -> None:
        storage.create(head(), does(set={"old": 1}, messages=(said("a"),)))
        fills = {"seq": "seq.0", "second": "seq.1", "version": "revision", "removed": "removed"}
        record = called("c", result={"key": "k"}, fills=fills)
        storage.commit("s", does(messages=(said("b"), said("a")), set={"k": 1}, remove=("old",), records=(record,)))
        expected = {"key": "k", "seq": 2, "second": 1, "version": 2, "removed": ["old"]}
        assert read_all(storage).records[0].result == expected

    def test_what_stands_elsewhere_is_pointed_at_with_the_number_it_got(self, storage: SessionStorage) -> None:
        storage.create(head(), say(said("a")))
        refs = {
            "arguments.content": "message:seq.0",
            "arguments.value": "data:a@b@revision",
            "arguments.metadata": "metadata@revision",
            "arguments.arguments": "invocation:d",
        }
        records = (called("c", refs=refs), called("d", refs={"arguments.result": "invocation:c"}))
        storage.commit("s", does(messages=(said("b"),), set={"a@b": 1}, records=records))
        other, record = read_all(storage).records
        assert record.refs == {
            "arguments.content": "message:2",
            "arguments.value": "data:a@b@2",
            "arguments.metadata": "metadata@2",
            "arguments.arguments": "invocation:d",
        }
        assert other.refs == {"arguments.result": "invocation:c"}

    def test_a_result_may_be_the_head_as_the_commit_left_it(self, storage: SessionStorage) -> None:
        storage.create(head())
        record = called("c", fills={"*": "head"}, kind="session")
        committed = storage.commit("s", does(5, set={"k": 1}, records=(record,)))
        storage.commit("s", does(9, set={"k": 2}))
        assert calls(storage, session_id="s") == ["c"]
        with pytest.raises(InvocationRecordedError) as replay:
            storage.commit("s", does(records=(record,)))
        assert replay.value.record.result == committed.metadata.to_dict()

    def test_a_note_is_joined_where_there_is_one(self, storage: SessionStorage) -> None:
        storage.create(head())
        storage.fork("s", None, head("child"), does(records=(called("c", fills={"note": "note"}, result={"a": 1}),)))
        assert read_all(storage, "child").records[0].result == {"a": 1}

    # what they add to the head

    def test_calls_of_work_are_counted_and_ours_are_not(self, storage: SessionStorage) -> None:
        storage.create(head())
        storage.commit(
            "s",
            does(
                records=(
                    called("a", duration_ms=1.5),
                    called("b", duration_ms=2.25, status=ERROR, tool_name="ls"),
                    called("c", status=InvocationStatus.CANCELLED),
                    called("ours", kind="session", duration_ms=100, cost=1, token_usage=tokens(9)),
                )
            ),
        )
        found = _head(storage)
        assert _counts(storage) == (3, 2, 3.75)
        assert found.tools_used == ["grep", "ls"]
        assert (found.token_usage, found.estimated_cost, found.unpriced_invocations) == (tokens(), 0.0, 0)

    def test_usage_and_cost_add_up_to_the_nano_dollar(self, storage: SessionStorage) -> None:
        storage.create(head())
        for n in range(10):
            record = called(f"c{n}", model="m", token_usage=tokens(10, 5, 2, 1), cost=0.1)
            storage.commit("s", does(records=(record,)))
        found = _head(storage)
        assert (found.token_usage, found.estimated_cost) == (tokens(100, 50, 20, 10), 1.0)

    def test_a_call_whose_price_is_unknown_is_counted_as_such(self, storage: SessionStorage) -> None:
        storage.create(head())
        records = (
            called("neither"),
            called("priced", model="m", cost=0.0),
            called("model", model="m"),
            called("tokens", token_usage=tokens(1)),
        )
        storage.commit("s", does(records=records))
        assert (_head(storage).unpriced_invocations, _head(storage).estimated_cost) == (2, 0.0)

    def test_tokens_counted_without_a_call_are_no_call(self, storage: SessionStorage) -> None:
        storage.create(head())
        usage = called("u", kind="usage", model="m", token_usage=tokens(7, 3), cost=0.5, duration_ms=9)
        storage.commit("s", does(records=(usage,)))
        found = _head(storage)
        assert (_counts(storage), found.tools_used) == ((0, 0, 0.0), [])
        assert (found.token_usage, found.estimated_cost) == (tokens(7, 3), 0.5)
        assert calls(storage) == []
        assert storage.read("s", Want(records=9)).records == []

    @pytest.mark.parametrize("reverse", [False, True], ids=["down", "up"])
    def test_all_that_is_counted_is_listed_for_who_asks(self, storage: SessionStorage, reverse: bool) -> None:
        kinds = ["work", "usage", "session"] * 4
        records = tuple(called(f"{kind}{n}", second=n, kind=kind) for n, kind in enumerate(kinds))
        storage.create(head(), does(records=records))
        query = InvocationQuery(session_id="s", kind="counted", reverse=reverse, limit=3)
        found = [record.invocation_id for record in joined(lambda cursor: storage.invocations(query, cursor))]
        wanted = [record.invocation_id for record in storage.read("s", Want(records=99, usage=True)).records]
        assert found == (wanted[::-1] if reverse else wanted)
        assert len(found) == 8

    def test_usage_counts_once_for_an_id(self, storage: SessionStorage) -> None:
        storage.create(head())
        usage = called("u", kind="usage", model="m", token_usage=tokens(7, 3), cost=0.5)
        storage.commit("s", does(records=(usage,)))
        with pytest.raises(InvocationRecordedError):
            storage.commit("s", does(records=(usage,)))
        assert (_head(storage).token_usage, _head(storage).estimated_cost) == (tokens(7, 3), 0.5)

    def test_tools_used_are_kept_in_order_each_once_up_to_the_limit(self, storage: SessionStorage) -> None:
        most = Limits().tools_used
        names = [f"tool{n}" for n in range(most + 2)]
        storage.create(head())
        storage.commit("s", does(records=tuple(called(f"c{n}", tool_name=name) for n, name in enumerate(names))))
        storage.commit("s", does(records=(called("again", tool_name="tool0"), called("late", tool_name="new"))))
        assert _head(storage).tools_used == names[:most]

    # which may follow which

    def test_a_running_call_is_not_counted_until_it_is_finished(self, storage: SessionStorage) -> None:
        storage.create(head())
        running = called("c", status=RUNNING, owner="own_a", model="m")
        storage.commit("s", does(records=(running,)))
        assert (_counts(storage), _head(storage).unpriced_invocations) == ((0, 0, 0.0), 0)
        done = running.model_copy(update={"status": ERROR, "duration_ms": 5.0, "token_usage": tokens(3)})
        storage.commit("s", does(records=(done,)))
        assert (_counts(storage), _head(storage).token_usage) == ((1, 1, 5.0), tokens(3))
        assert _head(storage).unpriced_invocations == 1
        assert [record.status for record in read_all(storage).records] == [ERROR]

    def test_a_finished_call_is_replayed_from_its_record(self, storage: SessionStorage) -> None:
        storage.create(head(), does(records=(called("c", result={"answer": 42}, digest="d"),)))
        before = everything(storage)
        with pytest.raises(InvocationRecordedError) as replay:
            storage.commit("s", does(9, set={"k": 1}, records=(called("c", result={"answer": 43}, digest="d"),)))
        assert replay.value.record == read_all(storage).records[0]
        assert replay.value.record.result == {"answer": 42}
        assert everything(storage) == before

    @pytest.mark.parametrize("other", [{"tool_name": "rm"}, {"digest": "e"}, {"user_id": "bob"}], ids=str)
    @pytest.mark.parametrize("status", FINISHED)
    def test_an_id_taken_by_another_call_is_a_conflict(
        self, storage: SessionStorage, status: str, other: dict[str, Any]
    ) -> None:
        storage.create(head(), does(records=(called("c", digest="d", status=InvocationStatus(status)),)))
        with pytest.raises(InvocationConflictError, match="Use a new id for a new call") as refused:
            storage.commit("s", does(records=(_again(other),)))
        assert refused.value.invocation_id == "c"
        assert len(read_all(storage).records) == 1

    @pytest.mark.parametrize("status", FINISHED[1:])
    def test_a_failed_call_is_tried_again_as_the_next_attempt(self, storage: SessionStorage, status: str) -> None:
        failed = called("c", status=InvocationStatus(status), duration_ms=2, token_usage=tokens(1), cost=0.5)
        storage.create(head(), does(records=(failed,)))
        again = called("c", second=5, attempt=2, duration_ms=3, token_usage=tokens(10), cost=0.25)
        storage.commit("s", does(records=(again,)))
        found = _head(storage)
        assert [(record.attempt, record.status.value) for record in read_all(storage).records] == [(2, "ok")]
        assert (_counts(storage), found.token_usage, found.estimated_cost) == ((1, 0, 3.0), tokens(10), 0.25)

    @pytest.mark.parametrize("attempt", [1, 3])
    def test_an_attempt_that_is_not_the_next_one_is_told_what_is_recorded(
        self, storage: SessionStorage, attempt: int
    ) -> None:
        storage.create(head(), does(records=(called("c", status=ERROR),)))
        with pytest.raises(InvocationRecordedError) as refused:
            storage.commit("s", does(records=(called("c", attempt=attempt),)))
        assert refused.value.record.status is ERROR
        assert _counts(storage) == (1, 1, 0.0)

    def test_a_running_call_is_finished_by_its_owner_alone(self, storage: SessionStorage) -> None:
        storage.create(head(), does(records=(called("c", status=RUNNING, owner="own_a"),)))
        others: list[dict[str, Any]] = [{"owner": "own_b"}, {"owner": None}, {"owner": "own_a", "attempt": 2}]
        for other in others:
            with pytest.raises(InvocationRecordedError) as refused:
                storage.commit("s", does(records=(called("c", **other),)))
            assert refused.value.record.status is RUNNING
        storage.commit("s", does(records=(called("c", owner="own_a", result=1),)))
        assert read_all(storage).records[0].result == 1

    def test_the_late_finish_of_an_interrupted_call_is_refused(self, storage: SessionStorage) -> None:
        running = called("c", status=RUNNING, owner="own_a")
        storage.create(head(), does(records=(running,)))
        interrupted = running.model_copy(update={"status": InvocationStatus.INTERRUPTED})
        storage.commit("s", does(records=(interrupted,)))
        with pytest.raises(InvocationConflictError, match="late result is refused"):
            storage.commit("s", does(set={"k": 1}, records=(called("c", owner="own_a"),)))
        assert (values(storage), read_all(storage).records[0].status.value) == ({}, "interrupted")

    def test_the_late_finish_of_a_call_that_was_tried_again_is_refused(self, storage: SessionStorage) -> None:
        running = called("c", status=RUNNING, owner="own_a")
        storage.create(head(), does(records=(running,)))
        storage.commit("s", does(records=(running.model_copy(update={"status": InvocationStatus.INTERRUPTED}),)))
        storage.commit("s", does(records=(called("c", attempt=2, status=RUNNING, owner="own_b"),)))
        with pytest.raises(InvocationRecordedError):
            storage.commit("s", does(records=(called("c", owner="own_a"),)))
        storage.commit("s", does(records=(called("c", attempt=2, owner="own_b", result="second"),)))
        assert read_all(storage).records[0].result == "second"

    def test_the_late_finish_of_a_call_whose_session_was_made_anew_is_refused(self, storage: SessionStorage) -> None:
        storage.create(head(), does(records=(called("c", status=RUNNING, owner="own_a"),)))
        storage.delete("s", does())
        storage.create(head())
        with pytest.raises(InvocationConflictError, match="no longer on record"):
            storage.commit("s", does(set={"k": 1}, records=(called("c", owner="own_a"),)))
        assert (values(storage), calls(storage)) == ({}, [])

    # within what an id is unique

    def test_an_id_is_unique_in_its_session(self, storage: SessionStorage) -> None:
        storage.create(head("s"), does(records=(called("c", result="s"),)))
        storage.create(head("t"), does(records=(called("c", result="t"),)))
        assert [read_all(storage, one).records[0].result for one in ("s", "t")] == ["s", "t"]

    def test_an_id_of_a_user_is_unique_across_sessions(self, storage: SessionStorage) -> None:
        mine = called("c", scope="user", user_id="ana", kind="session", tool_name="session_create")
        storage.create(head("s", user_id="ana"), does(records=(mine,)))
        with pytest.raises(InvocationRecordedError) as replay:
            storage.create(head("t", user_id="ana"), does(records=(mine,)))
        assert replay.value.record.session_id == "s"
        theirs = mine.model_copy(update={"user_id": "bob"})
        storage.create(head("u", user_id="bob"), does(records=(theirs,)))
        nobodys = mine.model_copy(update={"user_id": None})
        storage.create(head("v"), does(records=(nobodys,)))
        assert sorted(found.session_id for found in storage.find(Query()).items) == ["s", "u", "v"]

    def test_an_id_of_a_user_is_taken_in_its_session_too(self, storage: SessionStorage) -> None:
        storage.create(head(), does(records=(called("c", scope="user"),)))
        with pytest.raises(InvocationRecordedError):
            storage.commit("s", does(records=(called("c"),)))

    def test_a_failed_create_that_succeeds_later_moves_its_record(self, storage: SessionStorage) -> None:
        mine = called("c", scope="user", status=ERROR, duration_ms=4)
        storage.commit(None, does(records=(mine,)))
        storage.create(head(), does(records=(called("c", scope="user", attempt=2, duration_ms=1),)))
        assert [record.session_id for record in read_all(storage).records] == ["s"]
        assert calls(storage) == ["c"]
        assert _counts(storage) == (1, 0, 1.0)

    def test_records_with_ids_made_here_are_never_the_same_call(self, storage: SessionStorage) -> None:
        storage.create(head(), does(records=(called("x", scope=None), called("x", scope=None))))
        assert calls(storage) == ["x", "x"]

    def test_records_without_a_session_stand_for_themselves(self, storage: SessionStorage) -> None:
        storage.commit(None, does(records=(called("c", user_id="ana", result="r"),)))
        (record,) = storage.invocations(InvocationQuery()).items
        assert (record.session_id, record.revision, record.result) == (None, None, "r")
        assert record.started_at == at(1)

    def test_a_change_that_alters_a_session_must_name_it(self, storage: SessionStorage) -> None:
        change = does(messages=(said("m"),), records=(called("i"),))
        with pytest.raises(InvalidArgumentError, match="names none"):
            storage.commit(None, change)
        assert calls(storage) == []

    def test_one_change_does_not_record_a_call_twice(self) -> None:
        with pytest.raises(ValueError, match="share an invocation_id"):
            does(records=(called("i"), called("i", 2)))

    def test_the_newest_calls_of_work_are_read_with_the_session(self, storage: SessionStorage) -> None:
        records = (*(called(f"c{n}", second=n) for n in range(5)), called("ours", second=9, kind="session"))
        storage.create(head(), does(records=records))
        view = storage.read("s", Want(records=2))
        assert [record.invocation_id for record in view.records] == ["c4", "c3"]
        assert storage.read("s", Want(messages=1)).records == []


def _again(other: dict[str, Any]) -> Invocation:
    return called("c").model_copy(update={"digest": "d", "attempt": 2, **other})
