"""Messages: numbered without gaps, never twice; repeated, retracted, read a page at a time."""

from __future__ import annotations

from typing import Any

import pytest

from ..errors import MessageConflictError, SessionEndedError
from ..models import Alter, NewMessage, SessionStatus, Want, tokens
from ..session import new_id
from ..storage.base import SessionStorage
from .making import ALL, at, contents, does, everything, head, hits, read_all, said, say
from .store import Store


def _seqs(storage: SessionStorage, **want: Any) -> list[int]:
    return [message.seq for message in storage.read("s", Want(messages=want.pop("most", ALL), **want)).messages]


class Messages(Store):
    def test_messages_are_numbered_one_two_three(self, storage: SessionStorage) -> None:
        storage.create(head(), say(said("a"), said("b")))
        assert storage.commit("s", say(said("c"))).seqs == [3]
        assert storage.commit("s", say(said("d"), said("e"))).seqs == [4, 5]
        view = read_all(storage)
        assert [(one.seq, one.message_id) for one in view.messages] == list(enumerate("abcde", 1))
        assert (view.metadata.last_seq, view.metadata.message_count) == (5, 5)

    def test_each_session_numbers_its_own(self, storage: SessionStorage) -> None:
        storage.create(head("s"), say(said("a"), said("b")))
        storage.create(head("t"))
        assert storage.commit("t", say(said("a", "another"))).seqs == [1]
        assert (contents(storage, "s"), contents(storage, "t")) == (["a", "b"], ["another"])

    def test_the_order_is_that_of_the_commits_not_of_the_clocks(self, storage: SessionStorage) -> None:
        storage.create(head(), say(said("late", second=9), said("early", second=1)))
        assert contents(storage) == ["late", "early"]

    def test_a_message_comes_back_with_every_field(self, storage: SessionStorage) -> None:
        new = said(
            "m",
            'Ünïcödé, \U0001f600, \n\t and "quotes"; DROP TABLE messages',
            role="assistant",
            tool_name="grep",
            invocation_id="inv-1",
            tool_calls=[{"id": "t1", "name": "grep", "arguments": {"pattern": "x", "deep": [1, {"y": None}]}}],
            tool_call_id="t0",
            payload={"openai": {"type": "message", "n": 1.5}},
            model="gpt-x",
            token_usage=tokens(10, 5, 3, 1),
        )
        storage.create(head(), say(new))
        assert read_all(storage).messages == [new.message.model_copy(update={"seq": 1})]

    @pytest.mark.parametrize("content", ["", " ", "'", "%_", "x" * 100_000, "\u2028\ufeff", "{}", "null"])
    def test_content_is_kept_to_the_letter(self, storage: SessionStorage, content: str) -> None:
        storage.create(head(), say(said("m", content)))
        assert contents(storage) == [content]

    def test_the_seq_that_a_caller_writes_into_a_message_counts_for_nothing(self, storage: SessionStorage) -> None:
        storage.create(head(), say(said("a", seq=7)))
        assert _seqs(storage) == [1]

    # repeated

    def test_a_repeated_message_is_not_appended_and_its_seq_is_returned(self, storage: SessionStorage) -> None:
        storage.create(head(), say(said("a"), said("b")))
        committed = storage.commit("s", say(said("a"), said("c"), said("b")))
        assert committed.seqs == [1, 3, 2]
        assert contents(storage) == ["a", "b", "c"]
        assert committed.metadata.message_count == 3

    def test_a_message_repeated_at_another_time_is_the_same(self, storage: SessionStorage) -> None:
        storage.create(head(), say(said("a", second=1)))
        assert storage.commit("s", say(said("a", second=99))).seqs == [1]
        assert read_all(storage).messages[0].timestamp == at(1)

    def test_a_message_repeated_within_one_change_is_appended_once(self, storage: SessionStorage) -> None:
        storage.create(head())
        assert storage.commit("s", say(said("a"), said("a"))).seqs == [1, 1]
        assert contents(storage) == ["a"]

    @pytest.mark.parametrize(
        "other",
        [said("a", "other"), said("a", role="tool"), said("a", payload={"x": {}}), said("a", token_usage=tokens(1))],
        ids=["content", "role", "payload", "usage"],
    )
    def test_an_id_taken_by_another_message_is_a_conflict(self, storage: SessionStorage, other: NewMessage) -> None:
        storage.create(head(), say(said("x"), said("a")))
        with pytest.raises(MessageConflictError) as refused:
            storage.commit("s", say(other))
        assert (refused.value.session_id, refused.value.message_id, refused.value.seq) == ("s", "a", 2)
        assert contents(storage) == ["x", "a"]

    def test_a_message_repeated_after_the_session_ended_gives_the_first_ones_seq(self, storage: SessionStorage) -> None:
        """A retry of what had gone well was refused, since the session was over."""
        storage.create(head(), say(said("a"), said("b")))
        storage.commit("s", does(2, alter=Alter(status=SessionStatus.COMPLETED)))
        before = everything(storage)
        assert storage.commit("s", does(3, messages=(said("b"), said("a")), active=True)).seqs == [2, 1]
        for more in ({"messages": (said("a"), said("c"))}, {"messages": (said("a"),), "set": {"k": 1}}):
            with pytest.raises(SessionEndedError):
                storage.commit("s", does(3, active=True, **more))
        assert everything(storage) == before

    def test_an_id_made_here_and_given_back_is_known_again(self, storage: SessionStorage) -> None:
        made = new_id("msg")
        first = said(made, "hello")
        storage.create(head(), say(first.model_copy(update={"given": False})))
        assert storage.commit("s", say(first)).seqs == [1]
        with pytest.raises(MessageConflictError):
            storage.commit("s", say(said(made, "other")))

    # retracted

    def test_retracted_messages_leave_reads_counts_and_search(self, storage: SessionStorage) -> None:
        _ten(storage)
        committed = storage.commit("s", does(20, retract=((2, 4), (9, 9))))
        assert _seqs(storage, order="oldest") == [1, 5, 6, 7, 8, 10]
        assert (committed.metadata.message_count, committed.metadata.last_seq) == (6, 10)
        assert hits(storage, "m3") == []
        assert hits(storage, "m5") == [("s", 5)]

    def test_messages_retracted_after_they_were_found_are_not_found_again(self, storage: SessionStorage) -> None:
        _ten(storage)
        assert hits(storage, "m3") == [("s", 3)]
        storage.commit("s", does(retract=((3, 3),)))
        assert hits(storage, "m3") == []

    def test_seqs_of_retracted_messages_are_never_given_again(self, storage: SessionStorage) -> None:
        _ten(storage)
        storage.commit("s", does(retract=((1, 10),)))
        committed = storage.commit("s", say(said("next")))
        assert committed.seqs == [11]
        assert (committed.metadata.message_count, committed.metadata.last_seq) == (1, 11)

    def test_overlapping_ranges_retract_each_message_once(self, storage: SessionStorage) -> None:
        _ten(storage)
        committed = storage.commit("s", does(retract=((1, 5), (4, 6), (5, 5), (40, 50), (9, 3))))
        assert committed.metadata.message_count == 4
        assert committed.revision == 2

    def test_a_tail_is_replaced_in_one_commit(self, storage: SessionStorage) -> None:
        _ten(storage)
        committed = storage.commit("s", does(retract=((9, 10),), messages=(said("better"),)))
        assert committed.seqs == [11]
        assert _seqs(storage, most=2) == [11, 8]

    def test_the_message_that_a_change_appends_is_not_in_its_own_retraction(self, storage: SessionStorage) -> None:
        _ten(storage)
        storage.commit("s", does(retract=((1, 99),), messages=(said("kept"),)))
        assert contents(storage) == ["kept"]

    def test_a_retracted_message_repeated_stays_away(self, storage: SessionStorage) -> None:
        storage.create(head(), say(said("a"), said("b")))
        storage.commit("s", does(retract=((1, 1),)))
        before = everything(storage, "a", "b")
        committed = storage.commit("s", say(said("a")))
        assert committed.seqs == [1]
        assert everything(storage, "a", "b") == before

    def test_an_id_of_a_retracted_message_is_not_free_for_another(self, storage: SessionStorage) -> None:
        storage.create(head(), say(said("a"), said("b")))
        storage.commit("s", does(retract=((1, 1),)))
        with pytest.raises(MessageConflictError) as refused:
            storage.commit("s", say(said("a", "other words")))
        assert refused.value.seq == 1
        assert contents(storage) == ["b"]

    # read a page at a time

    def test_the_newest_messages_come_first_unless_asked_otherwise(self, storage: SessionStorage) -> None:
        _ten(storage)
        assert _seqs(storage, most=3) == [10, 9, 8]
        assert _seqs(storage, most=3, order="oldest") == [1, 2, 3]

    def test_messages_before_and_after_a_seq(self, storage: SessionStorage) -> None:
        _ten(storage)
        assert _seqs(storage, before=8, most=2) == [7, 6]
        assert _seqs(storage, after=8) == [10, 9]
        assert _seqs(storage, after=2, before=6, order="oldest") == [3, 4, 5]
        assert _seqs(storage, before=1) == []

    def test_a_read_tells_whether_there_are_more_messages(self, storage: SessionStorage) -> None:
        _ten(storage)
        assert storage.read("s", Want(messages=9)).more_messages
        assert not storage.read("s", Want(messages=10)).more_messages
        assert not storage.read("s", Want(messages=2, before=3)).more_messages
        assert storage.read("s", Want(messages=4, roles=("user",))).more_messages
        assert not storage.read("s", Want(messages=5, roles=("user",))).more_messages

    def test_pages_of_messages_join_into_all_of_them_both_ways(self, storage: SessionStorage) -> None:
        _ten(storage)
        newest: list[int] = _seqs(storage, most=3)
        while page := _seqs(storage, most=3, before=newest[-1]):
            newest += page
        oldest: list[int] = _seqs(storage, most=3, order="oldest")
        while page := _seqs(storage, most=3, order="oldest", after=oldest[-1]):
            oldest += page
        assert newest == list(range(10, 0, -1))
        assert oldest == list(range(1, 11))

    def test_messages_of_some_roles_are_filtered_before_they_are_cut(self, storage: SessionStorage) -> None:
        _ten(storage)
        assert _seqs(storage, most=2, roles=("user",)) == [10, 8]
        assert _seqs(storage, most=3, roles=("user", "assistant")) == [10, 9, 8]
        assert _seqs(storage, roles=("tool",)) == []

    def test_no_messages_are_read_unless_they_are_wanted(self, storage: SessionStorage) -> None:
        _ten(storage)
        view = storage.read("s", Want())
        assert (view.messages, view.more_messages) == ([], False)


def _ten(storage: SessionStorage) -> None:
    roles = ("user", "assistant")
    storage.create(head(), say(*(said(f"m{n}", role=roles[n % 2], second=n) for n in range(1, 11))))
