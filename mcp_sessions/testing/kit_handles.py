"""Handles on a store: opened again, beside one another, by many threads, closed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest
from pydantic import ValidationError

from ..errors import ConflictError, StorageClosedError
from ..models import Change, InvocationQuery, Query, Want
from ..storage.base import SessionStorage
from .making import at, called, contents, does, everything, head, hits, read_all, said, say, values
from .store import Store

REFUSED: list[Any] = ["a\0b", "\ud800", float("nan"), float("inf"), float("-inf"), {1: 2}, {"a\0": 1}, object(), b"x"]


class Handles(Store):
    def test_what_was_acknowledged_is_there_after_closing_and_opening(self, storage: SessionStorage) -> None:
        _filled(storage)
        before = everything(storage, "word", "b")
        with self.another(storage, close=True) as opened:
            assert everything(opened, "word", "b") == before
            committed = opened.commit("s", does(messages=(said("a", "word"), said("c")), set={"k": 2}))
            assert (committed.seqs, committed.revision) == ([1, 3], 3)
            assert [finding for finding in opened.check() if finding.level != "ok"] == []

    def test_a_position_and_a_cursor_outlive_the_handle_that_gave_them(self, storage: SessionStorage) -> None:
        for n in range(4):
            storage.create(head(f"s{n}", n))
        cursor = storage.find(Query(limit=2)).next_cursor
        position = storage.changes(None).next_cursor
        with self.another(storage, close=True) as opened:
            assert [found.session_id for found in opened.find(Query(limit=2), cursor).items] == ["s1", "s0"]
            opened.delete("s0", does())
            assert [change.session_id for change in opened.changes(position).items] == ["s0"]

    def test_what_one_handle_commits_another_reads_at_once(self, storage: SessionStorage) -> None:
        with self.another(storage) as other:
            storage.create(head())
            for n in range(1, 5):
                writer, reader = (storage, other) if n % 2 else (other, storage)
                assert writer.commit("s", say(said(f"m{n}", f"word{n}"))).seqs == [n]
                assert contents(reader)[-1] == f"word{n}"
                assert hits(reader, f"word{n}") == [("s", n)]

    def test_conditions_hold_between_handles(self, storage: SessionStorage) -> None:
        with self.another(storage) as other:
            storage.create(head(), does(set={"k": 1}))
            other.commit("s", does(set={"k": 2}, expected_versions={"k": 1}))
            with pytest.raises(ConflictError):
                storage.commit("s", does(set={"k": 3}, expected_versions={"k": 1}))
            assert values(other) == {"k": 2}

    def test_two_handles_that_write_at_once_lose_and_refuse_nothing(self, storage: SessionStorage) -> None:
        storage.create(head())
        with self.another(storage) as other, ThreadPoolExecutor(2) as pool:
            writers = [pool.submit(_append, handle, name, 40) for handle, name in ((storage, "a"), (other, "b"))]
            seqs = [seq for writer in writers for seq in writer.result()]
            view = read_all(storage)
        assert sorted(seqs) == [message.seq for message in view.messages] == list(range(1, 81))
        for name in "ab":
            mine = [message.content for message in view.messages if message.content[0] == name]
            assert mine == [f"{name}{n}" for n in range(40)]

    def test_many_threads_on_one_store_lose_nothing(self, storage: SessionStorage) -> None:
        names = [f"s{n % 8}" for n in range(64)]
        for name in sorted(set(names)):
            storage.create(head(name))
        with ThreadPoolExecutor(64) as pool:
            for done in [pool.submit(_work, storage, name, n) for n, name in enumerate(names)]:
                done.result()
        for name in sorted(set(names)):
            view = read_all(storage, name)
            assert [message.seq for message in view.messages] == list(range(1, 25))
            assert (view.metadata.message_count, view.metadata.total_invocations) == (24, 24)
            assert view.metadata.revision == 25
            assert len(view.data) == 8
        assert len(hits(storage, "word", limit=1000)) == 192

    def test_of_many_threads_that_take_one_lock_one_gets_it(self, storage: SessionStorage) -> None:
        storage.create(head())

        def take(n: int) -> bool:
            try:
                storage.commit("s", does(set={"lock": n}, expected_versions={"lock": 0}))
            except ConflictError:
                return False
            return True

        with ThreadPoolExecutor(16) as pool:
            got = list(pool.map(take, range(16)))
        assert got.count(True) == 1
        assert values(storage) == {"lock": got.index(True)}

    def test_what_is_refused_among_others_leaves_no_trace(self, storage: SessionStorage) -> None:
        storage.create(head("s"))
        storage.create(head("t"))

        def act(n: int) -> list[int]:
            part = does(expected_revision=7) if n % 2 else does()
            change = does(messages=(said(f"m{n}"),), set={f"k{n}": n}, records=(called(f"c{n}"),), also=(("t", part),))
            try:
                return storage.commit("s", change).seqs
            except ConflictError:
                return []

        with ThreadPoolExecutor(32) as pool:
            seqs = [seq for given in pool.map(act, range(64)) for seq in given]
        view = read_all(storage)
        assert sorted(seqs) == [message.seq for message in view.messages] == list(range(1, 33))
        assert sorted(view.data) == sorted(f"k{n}" for n in range(0, 64, 2))
        assert len(view.records) == view.metadata.total_invocations == 32

    # owners

    def test_an_owner_lives_as_long_as_its_handle(self, storage: SessionStorage) -> None:
        owner = storage.owner()
        assert storage.owner() == owner
        assert storage.alive(owner)
        opened = self.another(storage, close=True)
        with opened:
            assert opened.alive(owner) == (opened is storage)
            assert opened.alive(opened.owner())

    def test_each_handle_is_an_owner_of_its_own_and_alive_to_the_others(self, storage: SessionStorage) -> None:
        first = storage.owner()
        with self.another(storage) as other:
            second = other.owner()
            assert (first == second) == (other is storage)
            assert other.alive(first)
            assert storage.alive(second)

    @pytest.mark.parametrize("owner", ["own_unknown", "", ".", "..", "/", "\u00e9"])
    def test_an_owner_that_never_was_is_not_alive(self, storage: SessionStorage, owner: str) -> None:
        assert storage.alive(storage.owner())
        assert not storage.alive(owner)

    # closed, checked

    def test_a_store_may_be_closed_twice(self, storage: SessionStorage) -> None:
        storage.create(head())
        storage.close()
        storage.close()

    def test_every_use_of_a_closed_store_is_refused(self, storage: SessionStorage) -> None:
        storage.create(head())
        view = read_all(storage)
        owner = storage.owner()
        storage.close()
        uses: list[Any] = [
            lambda: storage.create(head("t")),
            lambda: storage.commit("s", does(set={"k": 1})),
            lambda: storage.read("s", Want()),
            lambda: storage.find(Query()),
            lambda: storage.search("word", Query()),
            lambda: storage.search("", Query()),
            lambda: storage.invocations(InvocationQuery()),
            lambda: storage.totals(Query()),
            lambda: storage.changes(None),
            lambda: storage.fork("s", None, head("t"), does()),
            lambda: storage.restore(view),
            lambda: storage.delete("s", does()),
            storage.owner,
            lambda: storage.alive(owner),
            storage.check,
            lambda: storage.load_session("s"),
            lambda: storage.session_exists("s"),
            storage.list_sessions,
            lambda: storage.delete_session("s"),
            lambda: storage.cleanup_sessions(at(0)),
        ]
        for use in uses:
            with pytest.raises(StorageClosedError, match="is closed"):
                use()

    def test_where_nobody_waits_for_another_process_nothing_is_given_up(self, storage: SessionStorage) -> None:
        storage.create(head())
        storage.give_up()
        assert storage.commit("s", say(said("m"))).seqs == [1]
        assert contents(storage) == ["m"]

    def test_a_store_that_is_whole_checks_out(self, storage: SessionStorage) -> None:
        assert {finding.level for finding in storage.check()} <= {"ok"}
        _filled(storage)
        findings = storage.check()
        assert findings
        assert {finding.level for finding in findings} == {"ok"}

    # what no store is asked to keep

    @pytest.mark.parametrize("value", REFUSED, ids=range(len(REFUSED)))
    def test_what_is_not_json_never_reaches_a_store(self, value: Any) -> None:
        for make in (
            lambda: does(set={"k": value}),
            lambda: does(set={"k": [{"deep": value}]}),
            lambda: head(custom_metadata={"m": value}),
            lambda: said("m", payload={"openai": value}),
            lambda: called("c", arguments={"a": value}),
            lambda: called("c", result=[value]),
        ):
            with pytest.raises(ValidationError):
                make()

    @pytest.mark.parametrize("text", ["a\0b", "\ud800", "x\udfff"], ids=["nul", "half", "other half"])
    def test_text_that_no_store_keeps_never_reaches_one(self, text: str) -> None:
        for make in (
            lambda: said("m", text),
            lambda: head(purpose=text),
            lambda: head(tags=[text]),
            lambda: head(user_id=text),
            lambda: does(set={text: 1}),
            lambda: does(remove=(text,)),
            lambda: does(expected_versions={text: 1}),
            lambda: does(as_user=text),
            lambda: called("c", tool_name=text),
            lambda: called("c", user_id=text),
            lambda: Want(keys=(text,)),
            lambda: Want(prefix=text),
            lambda: Want(as_user=text),
            lambda: Query(user_id=text),
            lambda: Query(ids=(text,)),
            lambda: Query(tags=(text,)),
            lambda: Query(text=text),
            lambda: Query(tool=text),
            lambda: InvocationQuery(session_id=text),
            lambda: InvocationQuery(tool=text),
        ):
            with pytest.raises(ValidationError):
                make()

    def test_numbers_that_no_store_adds_up_never_reach_one(self) -> None:
        for make in (
            lambda: called("c", cost=float("nan")),
            lambda: called("c", cost=float("inf")),
            lambda: called("c", duration_ms=float("inf")),
            lambda: Query(min_cost=float("nan")),
        ):
            with pytest.raises(ValidationError):
                make()

    def test_a_moment_without_a_zone_never_reaches_a_store(self) -> None:
        naive = datetime(2026, 3, 1)  # noqa: DTZ001 - that is what is refused
        for make in (lambda: Change(at=naive), lambda: head(created_at=naive), lambda: Query(created_after=naive)):
            with pytest.raises(ValidationError, match="no time zone"):
                make()


def _append(storage: SessionStorage, name: str, count: int) -> list[int]:
    return [storage.commit("s", say(said(f"{name}{n}"))).seqs[0] for n in range(count)]


def _work(storage: SessionStorage, name: str, number: int) -> None:
    for n in range(3):
        change = does(
            messages=(said(f"m{number}-{n}", "word"),), set={f"k{number}": n}, records=(called(f"c{number}-{n}"),)
        )
        seq = storage.commit(name, change).seqs[0]
        (message,) = storage.read(name, Want(before=seq + 1, messages=1)).messages
        assert message.message_id == f"m{number}-{n}"


def _filled(storage: SessionStorage) -> None:
    for name in ("s", "t"):
        change = does(messages=(said("a", "word"), said("b")), set={"k": 1, ".i": 2}, records=(called("c"),))
        storage.create(head(name, user_id="ana", tags=["t"]), change)
        storage.commit(name, does(2, retract=((1, 1),), remove=("k",), set={"l": [1]}))
    storage.delete("t", does(records=(called("del", kind="session"),)))
