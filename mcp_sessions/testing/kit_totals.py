"""Totals: sums over heads or records, of the sessions that a query finds."""

from __future__ import annotations

from typing import Any

import pytest

from ..errors import LimitError
from ..models import (
    LONGEST_MS,
    MOST_NANO_USD,
    MOST_TOKENS,
    MOST_USD,
    Alter,
    GroupBy,
    InvocationStatus,
    Query,
    SessionStatus,
    Totals,
    tokens,
)
from ..storage.base import SessionStorage
from .making import called, does, everything, head, said
from .store import Store

DAY = 86_400
EMPTY = Totals(messages=0)


def _counts(storage: SessionStorage, group_by: GroupBy | None, **query: Any) -> dict[str | None, tuple[int, int]]:
    """(sessions, invocations) of each group."""
    return {row.group: (row.sessions, row.invocations) for row in storage.totals(Query(**query), group_by)}


class Sums(Store):
    def test_all_is_one_row(self, storage: SessionStorage) -> None:
        _three(storage)
        (row,) = storage.totals(Query())
        assert row == Totals(
            sessions=3,
            messages=3,
            invocations=3,
            failed=1,
            duration_ms=7.5,
            token_usage=tokens(111, 5, 2, 1),
            estimated_cost=0.75,
            unpriced_invocations=1,
        )

    def test_nothing_is_one_row_of_zeros_and_no_group(self, storage: SessionStorage) -> None:
        assert storage.totals(Query()) == [EMPTY]
        for group_by in ("day", "model", "tool", "tag", "user", "status"):
            assert storage.totals(Query(), group_by) == []

    @pytest.mark.parametrize(
        ("group_by", "rows"),
        [
            ("user", {None: (1, 0), "ana": (1, 2), "bob": (1, 1)}),
            ("status", {"active": (2, 2), "completed": (1, 1)}),
            ("tag", {None: (1, 0), "hot": (1, 2), "red": (2, 3)}),
            ("tool", {"grep": (2, 2), "ls": (1, 1)}),
            ("model", {None: (1, 1), "m1": (2, 1), "m2": (1, 1)}),
            ("day", {"2026-03-01": (2, 1), "2026-03-02": (2, 2)}),
        ],
    )
    def test_groups_come_by_name_with_their_sums(
        self, storage: SessionStorage, group_by: GroupBy, rows: dict[str | None, tuple[int, int]]
    ) -> None:
        _three(storage)
        counts = _counts(storage, group_by)
        assert counts == rows
        assert list(counts) == list(rows)

    def test_groups_of_records_sum_their_records(self, storage: SessionStorage) -> None:
        _three(storage)
        rows = {row.group: row for row in storage.totals(Query(), "model")}
        assert rows["m1"] == Totals(
            group="m1",
            sessions=2,
            invocations=1,
            duration_ms=1.5,
            token_usage=tokens(110, 5, 2, 1),
            estimated_cost=0.75,
        )
        grep = {row.group: row for row in storage.totals(Query(), "tool")}["grep"]
        assert (grep.token_usage, grep.estimated_cost) == (tokens(11, 5, 2, 1), 0.5)
        assert (rows["m2"].unpriced_invocations, rows[None].failed, rows["m1"].messages) == (1, 1, None)

    def test_groups_of_heads_sum_their_heads(self, storage: SessionStorage) -> None:
        _three(storage)
        red = {row.group: row for row in storage.totals(Query(), "tag")}["red"]
        assert (red.messages, red.failed, red.duration_ms, red.estimated_cost) == (3, 1, 7.5, 0.75)
        assert red.token_usage == tokens(111, 5, 2, 1)

    @pytest.mark.parametrize(
        ("query", "sessions"),
        [
            ({"as_user": "ana"}, 1),
            ({"user_id": "bob"}, 1),
            ({"as_user": "nobody"}, 0),
            ({"ids": ("a", "c")}, 2),
            ({"tags": ("red",)}, 2),
            ({"tags": ("red", "hot"), "match": "all"}, 1),
            ({"status": (SessionStatus.COMPLETED,)}, 1),
            ({"text": "b"}, 1),
            ({"has_errors": True}, 1),
            ({"limit": 1, "order": "cost", "reverse": True}, 3),
        ],
        ids=str,
    )
    def test_only_the_sessions_of_the_query_are_summed(
        self, storage: SessionStorage, query: dict[str, Any], sessions: int
    ) -> None:
        _three(storage)
        (row,) = storage.totals(Query(**query))
        assert row.sessions == sessions
        by_user = storage.totals(Query(**query), "user")
        assert sum(group.sessions for group in by_user) == sessions
        assert sum(group.invocations for group in storage.totals(Query(**query), "tool")) == row.invocations

    def test_a_tag_given_twice_counts_once(self, storage: SessionStorage) -> None:
        storage.create(head(tags=["t", "t"]), does(records=(called("c"),)))
        assert _counts(storage, "tag") == {"t": (1, 1)}

    def test_sums_do_not_overflow(self, storage: SessionStorage) -> None:
        """Of 3 sessions that cost as much as one may, every listing of totals was an error."""
        most = MOST_NANO_USD / 1e9
        for name in "abcd":
            record = called("c", cost=MOST_USD, duration_ms=LONGEST_MS, token_usage=tokens(MOST_TOKENS))
            usage = tokens(1 << 62)
            storage.create(head(name, estimated_cost=most - 2 * MOST_USD, token_usage=usage), does(records=(record,)))
        (row,) = storage.totals(Query())
        assert row.estimated_cost == pytest.approx(4 * (most - MOST_USD))
        assert row.token_usage["input"] == pytest.approx(4 * ((1 << 62) + MOST_TOKENS))
        (of_records,) = storage.totals(Query(), "tool")
        assert (of_records.estimated_cost, of_records.duration_ms) == (4 * MOST_USD, 4 * LONGEST_MS)

    def test_a_session_that_would_cost_more_than_can_be_kept_is_refused(self, storage: SessionStorage) -> None:
        storage.create(head(estimated_cost=MOST_NANO_USD / 1e9 - 1))
        before = everything(storage)
        with pytest.raises(LimitError, match="nano-USD"):
            storage.commit("s", does(records=(called("c", cost=MOST_USD),)))
        assert everything(storage) == before

    def test_what_is_deleted_leaves_the_totals(self, storage: SessionStorage) -> None:
        _three(storage)
        storage.delete("a", does(records=(called("del", kind="session"),)))
        assert _counts(storage, "tag") == {None: (1, 0), "red": (1, 1)}
        assert _counts(storage, "tool") == {"grep": (1, 1)}
        assert _counts(storage, None) == {None: (2, 1)}


def _three(storage: SessionStorage) -> None:
    storage.create(head("a", user_id="ana", tags=["red", "hot"]))
    storage.create(head("b", user_id="bob", tags=["red"]))
    storage.create(head("c"))
    storage.commit(
        "a",
        does(
            messages=(said("m"), said("n")),
            records=(
                called("1", duration_ms=1.5, model="m1", token_usage=tokens(10, 5, 2, 1), cost=0.5),
                called("2", DAY, duration_ms=2, status=InvocationStatus.ERROR, tool_name="ls"),
                called("3", 2 * DAY, status=InvocationStatus.RUNNING, owner="own_a"),
                called("4", kind="session", duration_ms=100, model="m1", cost=9),
            ),
        ),
    )
    storage.commit(
        "b",
        does(
            messages=(said("m"),),
            records=(
                called("1", DAY, duration_ms=4, model="m2", token_usage=tokens(1)),
                called("u", kind="usage", model="m1", token_usage=tokens(100), cost=0.25),
            ),
            alter=Alter(status=SessionStatus.COMPLETED),
        ),
    )
    storage.commit(None, does(records=(called("alone", cost=7, model="m1"),)))
