"""Listings of sessions and of records: filtered, then sorted, then cut; pages join into the whole."""

from __future__ import annotations

from typing import Any

import pytest

from ..errors import InvalidCursorError
from ..models import Alter, InvocationQuery, InvocationStatus, Order, Query, SessionStatus
from ..storage.base import SessionStorage
from .making import at, called, calls, does, head, ids, joined, said, say
from .store import Store

ORDERS: tuple[Order, ...] = ("updated", "created", "cost", "calls", "duration")
GARBAGE = ["", " ", "x", "e30", "W10", "bnVsbA", "\u00e9", "a" * 5000, "WyJhIiwgW11d", "../../x", "\0", "[" * 2000]


def _pages(storage: SessionStorage, query: Query) -> list[str]:
    return [found.session_id for found in joined(lambda cursor: storage.find(query, cursor))]


def _record_pages(storage: SessionStorage, query: InvocationQuery) -> list[str]:
    return [found.invocation_id for found in joined(lambda cursor: storage.invocations(query, cursor))]


class Listings(Store):
    @pytest.mark.parametrize(
        ("order", "expected"),
        [("updated", "debca"), ("created", "acedb"), ("cost", "ceadb"), ("calls", "debca"), ("duration", "caebd")],
    )
    def test_each_order_is_highest_first_and_turns_round(
        self, storage: SessionStorage, order: Order, expected: str
    ) -> None:
        _five(storage)
        assert "".join(ids(storage, Query(order=order))) == expected
        assert "".join(ids(storage, Query(order=order, reverse=True))) == expected[::-1]

    def test_newest_first_is_what_you_get_unasked(self, storage: SessionStorage) -> None:
        _five(storage)
        assert ids(storage) == ids(storage, Query(order="updated"))

    @pytest.mark.parametrize("order", ORDERS)
    @pytest.mark.parametrize("reverse", [False, True], ids=["down", "up"])
    def test_ties_are_broken_by_the_id(self, storage: SessionStorage, order: Order, reverse: bool) -> None:
        names = ["b", "d", "a", "e", "c"]
        for number, name in enumerate(names):
            status = list(SessionStatus)[number % 4]
            storage.create(head(name, status=status, tags=["t"]))
        query = Query(order=order, reverse=reverse)
        assert ids(storage, query) == sorted(names, reverse=not reverse)
        assert _pages(storage, query.model_copy(update={"limit": 2})) == sorted(names, reverse=not reverse)
        assert _pages(storage, query.model_copy(update={"limit": 2, "tags": ("t",)})) == ids(storage, query)

    def test_the_limit_cuts_what_is_filtered_and_sorted(self, storage: SessionStorage) -> None:
        for n in range(9):
            tags = ["rare"] if n % 4 == 0 else []
            storage.create(head(f"s{n}", second=(n * 4) % 9, tags=tags, user_id="ana" if n % 2 else "bob"))
        assert ids(storage, Query(limit=2)) == ["s2", "s4"]
        assert ids(storage, Query(tags=("rare",), limit=2)) == ["s4", "s8"]
        assert ids(storage, Query(user_id="ana", limit=2)) == ["s1", "s3"]

    @pytest.mark.parametrize("order", ORDERS)
    @pytest.mark.parametrize("reverse", [False, True], ids=["down", "up"])
    @pytest.mark.parametrize("limit", [1, 2, 5])
    def test_pages_join_into_the_whole_listing(
        self, storage: SessionStorage, order: Order, reverse: bool, limit: int
    ) -> None:
        _five(storage)
        query = Query(order=order, reverse=reverse)
        assert _pages(storage, query.model_copy(update={"limit": limit})) == ids(storage, query)

    def test_the_last_page_has_no_cursor(self, storage: SessionStorage) -> None:
        _five(storage)
        assert storage.find(Query(limit=5)).next_cursor is None
        assert storage.find(Query(limit=4)).next_cursor is not None
        assert storage.find(Query(user_id="nobody")).next_cursor is None

    @pytest.mark.parametrize("reverse", [False, True], ids=["down", "up"])
    def test_rows_that_stay_as_they_are_come_exactly_once_while_others_move(
        self, storage: SessionStorage, reverse: bool
    ) -> None:
        for n in range(8):
            storage.create(head(f"s{n}", n))
        query = Query(limit=3, reverse=reverse)
        first = storage.find(query)
        storage.commit("s1", does(100, set={"moved": 1}))
        storage.commit("s6", does(101, set={"moved": 1}))
        storage.create(head("new", 102))
        storage.delete("s3", does())
        seen = [*first.items, *joined(lambda cursor: storage.find(query, cursor or first.next_cursor))]
        still = [one.session_id for one in seen if one.session_id in {"s0", "s2", "s4", "s5", "s7"}]
        assert still == sorted(still, reverse=not reverse)
        assert set(still) == {"s0", "s2", "s4", "s5", "s7"}

    # filters

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ({"user_id": "ana"}, "ac"),
            ({"user_id": "nobody"}, ""),
            ({"as_user": "bob"}, "b"),
            ({"as_user": "bob", "user_id": "ana"}, ""),
            ({"ids": ("d", "a", "unknown", "a")}, "ad"),
            ({"ids": ("unknown",)}, ""),
            ({"status": ("active",)}, "ad"),
            ({"status": ("completed", "failed")}, "bc"),
            ({"status": ("abandoned",)}, ""),
            ({"tags": ("red",)}, "ab"),
            ({"tags": ("red", "blue")}, "abc"),
            ({"tags": ("unknown", "blue")}, "c"),
            ({"tags": ("red", "hot"), "match": "all"}, "a"),
            ({"tags": ("hot", "hot"), "match": "all"}, "ac"),
            ({"tags": ("red", "unknown"), "match": "all"}, ""),
            ({"tags": ("re",)}, ""),
            ({"tags": ("Red",)}, ""),
            ({"purpose": "fix nothing"}, "b"),
            ({"purpose": "Fix nothing"}, ""),
            ({"purpose": "fix"}, ""),
            ({"tool": "rm"}, "a"),
            ({"tool": "r"}, ""),
            ({"created_after": at(2)}, "cd"),
            ({"created_before": at(2)}, "a"),
            ({"updated_after": at(5)}, "bc"),
            ({"updated_before": at(5)}, "a"),
            ({"created_after": at(1), "created_before": at(4)}, "bc"),
            ({"has_errors": True}, "a"),
            ({"has_errors": False}, "bcd"),
            ({"min_cost": 0.5}, "a"),
            ({"min_cost": 0.25}, "ad"),
            ({"min_cost": 0.0}, "abcd"),
            ({"text": "fix"}, "ab"),
            ({"text": "CAFE fix"}, "a"),
            ({"text": "cafÉ"}, "a"),
            ({"text": "the nothing"}, ""),
            ({"text": "ix no"}, "b"),
            ({"text": "hot"}, "ac"),
            ({"text": "100%_"}, "d"),
            ({"text": "%"}, "d"),
            ({"text": "'\""}, ""),
            ({"text": "  "}, "abcd"),
            ({"user_id": "ana", "status": ("completed",), "tags": ("hot",)}, "c"),
        ],
        ids=str,
    )
    def test_a_filter_lets_through_what_it_says(
        self, storage: SessionStorage, query: dict[str, Any], found: str
    ) -> None:
        _mixed(storage)
        assert sorted(ids(storage, Query(**query))) == list(found)
        for order in ORDERS:
            pages = _pages(storage, Query(**query, order=order, limit=1))
            assert pages == ids(storage, Query(**query, order=order))
            assert sorted(pages) == list(found)

    @pytest.mark.parametrize(
        ("beginning", "found"),
        [
            ("ses_", ["ses_b", "ses_aa", "ses_a"]),
            ("ses_a", ["ses_aa", "ses_a"]),
            ("ses_a.", []),
            ("ses_aa", ["ses_aa"]),
            ("ses", ["ses_b", "sesxa", "ses_aa", "ses_a"]),
            ("Ses", ["Ses_a"]),
            ("a", ["a"]),
            ("_", []),
            ("%", []),
            ("\u00e9", []),
            ("", ["a", "ses_b", "sesxa", "ses_aa", "Ses_a", "ses_a"]),
        ],
    )
    def test_a_session_is_found_by_the_beginning_of_its_id(
        self, storage: SessionStorage, beginning: str, found: list[str]
    ) -> None:
        for second, name in enumerate(["ses_a", "Ses_a", "ses_aa", "sesxa", "ses_b", "a"]):
            storage.create(head(name, second=second, user_id="ana" if name == "ses_aa" else None))
        query = Query(id_prefix=beginning)
        assert ids(storage, query) == found
        assert _pages(storage, query.model_copy(update={"limit": 1})) == found
        ours = [name for name in found if name == "ses_aa"]
        assert ids(storage, query.model_copy(update={"as_user": "ana"})) == ours

    def test_an_altered_session_is_found_by_what_it_is_now(self, storage: SessionStorage) -> None:
        _mixed(storage)
        storage.commit("b", does(30, alter=Alter(add_tags=("hot",), remove_tags=("red",), purpose="Décor")))
        assert sorted(ids(storage, Query(tags=("hot",)))) == ["a", "b", "c"]
        assert ids(storage, Query(tags=("red",))) == ["a"]
        assert ids(storage, Query(text="decor hot")) == ["b"]
        assert ids(storage, Query(text="nothing")) == []

    # cursors

    def test_a_cursor_belongs_to_its_query(self, storage: SessionStorage) -> None:
        _five(storage)
        storage.commit("a", say(said("m", "word"), said("n", "word")))
        query = Query(limit=1)
        cursor = storage.find(query).next_cursor
        others = [
            *({"user_id": "ana"}, {"as_user": "ana"}, {"tags": ("t",)}, {"order": "created"}, {"reverse": True}),
            *(
                {"status": (SessionStatus.ACTIVE,)},
                {"text": "a"},
                {"ids": ("a", "b")},
                {"match": "all"},
                {"min_cost": 0.1},
                {"purpose": "p"},
            ),
        ]
        for other in others:
            with pytest.raises(InvalidCursorError, match="another query"):
                storage.find(query.model_copy(update=other), cursor)
        hits_cursor = storage.search("word", query).next_cursor
        for act in (
            lambda: storage.search("word", query, cursor),
            lambda: storage.invocations(InvocationQuery(limit=1), cursor),
            lambda: storage.changes(cursor),
            lambda: storage.search("words", query, hits_cursor),
            lambda: storage.search("word", Query(limit=1, user_id="ana"), hits_cursor),
            lambda: storage.find(query, storage.changes("").next_cursor),
        ):
            with pytest.raises(InvalidCursorError, match="another query"):
                act()

    def test_a_cursor_goes_on_with_pages_of_another_size(self, storage: SessionStorage) -> None:
        _five(storage)
        cursor = storage.find(Query(limit=1)).next_cursor
        assert [found.session_id for found in storage.find(Query(limit=10), cursor).items] == ["e", "b", "c", "a"]

    @pytest.mark.parametrize("cursor", GARBAGE, ids=range(len(GARBAGE)))
    def test_what_is_no_cursor_is_refused(self, storage: SessionStorage, cursor: str) -> None:
        _five(storage)
        calls: list[Any] = [
            lambda: storage.find(Query(), cursor),
            lambda: storage.search("word", Query(), cursor),
            lambda: storage.search("", Query(), cursor),
            lambda: storage.invocations(InvocationQuery(), cursor),
        ]
        if cursor:  # to `changes` it is the beginning
            calls.append(lambda: storage.changes(cursor))
        for call in calls:
            with pytest.raises(InvalidCursorError, match="Pass next_cursor back unchanged"):
                call()

    # records

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ({}, "eadacbf"),
            ({"reverse": True}, "fbcadae"),
            ({"session_id": "s"}, "ab"),
            ({"session_id": "unknown"}, ""),
            ({"as_user": "ana"}, "eab"),
            ({"as_user": "bob"}, "adcf"),
            ({"as_user": "bob", "session_id": "s"}, ""),
            ({"invocation_id": "a"}, "aa"),
            ({"invocation_id": "a", "session_id": "t"}, "a"),
            ({"tool": "ls"}, "c"),
            ({"status": "error"}, "b"),
            ({"status": "running"}, "d"),
            ({"status": "ok", "kind": "work"}, "eacf"),
            ({"kind": "session"}, "a"),
            ({"scope": "session"}, "eadacb"),
            ({"scope": "session", "session_id": "s"}, "ab"),
            ({"scope": "user"}, ""),
            ({"scope": "user", "user_id": "ana"}, "e"),
            ({"scope": "user", "user_id": "ana", "invocation_id": "e"}, "e"),
        ],
        ids=str,
    )
    def test_records_are_filtered_newest_start_first(
        self, storage: SessionStorage, query: dict[str, Any], found: str
    ) -> None:
        _calls(storage)
        assert "".join(calls(storage, **query)) == found
        for limit in (1, 2, 3):
            assert "".join(_record_pages(storage, InvocationQuery(**query, limit=limit))) == found

    def test_records_of_one_millisecond_come_in_the_order_of_their_commits(self, storage: SessionStorage) -> None:
        storage.create(head())
        for name, second in (("b", 1.0009), ("a", 1.0005), ("c", 1.0001), ("z", 1.001)):
            storage.commit("s", does(records=(called(name, second),)))
        assert calls(storage) == ["z", "c", "a", "b"]
        assert _record_pages(storage, InvocationQuery(limit=1, reverse=True)) == ["b", "a", "c", "z"]

    def test_records_that_stay_come_exactly_once_while_others_arrive(self, storage: SessionStorage) -> None:
        storage.create(head(), does(records=tuple(called(f"c{n}", n) for n in range(6))))
        query = InvocationQuery(limit=2)
        first = storage.invocations(query)
        storage.commit("s", does(records=(called("newer", 50), called("older", -1))))
        rest = joined(lambda cursor: storage.invocations(query, cursor or first.next_cursor))
        seen = [one.invocation_id for one in [*first.items, *rest]]
        assert [one for one in seen if one != "older"] == ["c5", "c4", "c3", "c2", "c1", "c0"]

    def test_a_cursor_of_records_belongs_to_its_query(self, storage: SessionStorage) -> None:
        _calls(storage)
        cursor = storage.invocations(InvocationQuery(limit=1)).next_cursor
        others: list[dict[str, Any]] = [{"as_user": "ana"}, {"session_id": "s"}, {"tool": "ls"}, {"kind": "work"}]
        others += [{"reverse": True}, {"status": "ok"}, {"invocation_id": "a"}, {"scope": "session"}]
        for other in others:
            with pytest.raises(InvalidCursorError, match="another query"):
                storage.invocations(InvocationQuery(limit=1, **other), cursor)


def _five(storage: SessionStorage) -> None:
    """Sessions whose five orders all differ."""
    rows = (
        ("a", 5, 10, 0.3, 1, 4),
        ("b", 1, 30, 0.1, 3, 2),
        ("c", 4, 20, 0.5, 2, 5),
        ("d", 2, 50, 0.2, 5, 1),
        ("e", 3, 40, 0.4, 4, 3),
    )
    for name, created, updated, cost, count, duration in rows:
        storage.create(head(name, created))
        records = [called(f"{name}{n}", duration_ms=0.0) for n in range(count)]
        records[0] = called(f"{name}0", duration_ms=float(duration), cost=cost)
        storage.commit(name, does(updated, records=tuple(records)))


def _mixed(storage: SessionStorage) -> None:
    fields: dict[str, dict[str, Any]] = {
        "a": {"user_id": "ana", "tags": ["red", "hot"], "purpose": "Fix the Café", "second": 1},
        "b": {"user_id": "bob", "tags": ["red"], "purpose": "fix nothing", "second": 2},
        "c": {"user_id": "ana", "tags": ["blue", "hot"], "second": 3},
        "d": {"tags": [], "purpose": "100%_sure", "second": 4},
    }
    for name, given in fields.items():
        storage.create(head(name, **given))
    storage.commit("b", does(20, alter=Alter(status=SessionStatus.FAILED)))
    storage.commit("c", does(10, alter=Alter(status=SessionStatus.COMPLETED)))
    storage.commit("a", does(4, records=(called("x", tool_name="rm", status=InvocationStatus.ERROR, cost=0.5),)))
    storage.commit("d", does(5, records=(called("y", tool_name="ls", cost=0.25),)))


def _calls(storage: SessionStorage) -> None:
    storage.create(head("s", user_id="ana"))
    storage.create(head("t", user_id="bob"))
    storage.commit("s", does(records=(called("a", 3), called("b", 1, status=InvocationStatus.ERROR))))
    storage.commit("t", does(records=(called("c", 2, tool_name="ls"), called("a", 5, kind="session"))))
    running = called("d", 4, status=InvocationStatus.RUNNING, owner="own_a")
    storage.commit("t", does(records=(running,)))
    alone = called("e", 6, user_id="ana", scope="user"), called("f", 0, user_id="bob", scope=None)
    storage.commit(None, does(records=alone))
