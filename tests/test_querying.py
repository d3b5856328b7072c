"""The query language: each term, what stands in quotes, and what a mistake is answered with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from mcp_sessions import InvalidArgumentError, SessionManager
from mcp_sessions.models import Query, SessionStatus
from mcp_sessions.querying import NAMES, parse_query, parse_time
from tests.stores import SetClock

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)

LINES: dict[str, dict[str, Any]] = {
    "": {},
    "  ": {},
    "status:failed": {"status": (SessionStatus.FAILED,)},
    "status:failed,active status:completed": {
        "status": (SessionStatus.FAILED, SessionStatus.ACTIVE, SessionStatus.COMPLETED)
    },
    "tag:bug": {"tags": ("bug",), "match": "all"},
    "tag:bug tag:db": {"tags": ("bug", "db"), "match": "all"},
    "tool:git_log": {"tool": "git_log"},
    "user:ann": {"user_id": "ann"},
    "id:ses_1 id:ses_2": {"ids": ("ses_1", "ses_2")},
    "cost>0.5": {"min_cost": 0.5 + 1e-9},
    "cost>=0.5": {"min_cost": 0.5},
    "since:7d": {"updated_after": NOW - timedelta(days=7)},
    "until:24h": {"updated_before": NOW - timedelta(hours=24)},
    "created:2026-11-01": {"created_after": datetime(2026, 11, 1, tzinfo=UTC)},
    "errors:yes": {"has_errors": True},
    "errors:NO": {"has_errors": False},
    "move billing": {"text": "move billing"},
    "move tag:bug  billing": {"tags": ("bug",), "match": "all", "text": "move billing"},
    'tag:"to do"': {"tags": ("to do",), "match": "all"},
    "tag:'to do' x": {"tags": ("to do",), "match": "all", "text": "x"},
    '"since: then" x': {"text": "since: then x"},
    "\"tag:bug\" 'tool:x'": {"text": "tag:bug tool:x"},
    "don't tag:won't": {"tags": ("won't",), "match": "all", "text": "don't"},
    '"unclosed tag:bug': {"tags": ("bug",), "match": "all", "text": '"unclosed'},
    "https://example.org/x?a=b": {"text": "https://example.org/x?a=b"},
    "C:\\temp 12:30 a=b": {"text": "C:\\temp 12:30 a=b"},
    "tag:a:b": {"tags": ("a:b",), "match": "all"},
}


@pytest.mark.parametrize(("line", "fields"), LINES.items())
def test_a_line_is_read_into_the_fields_of_a_query(line: str, fields: dict[str, Any]) -> None:
    assert parse_query(line, NOW) == fields
    Query(**fields)


MISTAKES = {
    "tags:bug": "Unknown term 'tags:bug' in the query. Did you mean 'tag:bug'?",
    "colour:red": "Unknown term 'colour:red' in the query. Known terms: status, tag, tool, user",
    "tag:": "The term 'tag:' in the query has no value.",
    'tag:""': "The term 'tag:' in the query has no value.",
    "cost:5": "'cost:5' in the query: write cost>0.5.",
    "tag>5": "'tag>5' in the query: write tag:5.",
    "cost<5": "'cost<5' in the query: write cost>0.5, in USD.",
    "cost>much": "'cost>much' in the query: write cost>0.5, in USD.",
    "cost>-1": "'cost>-1' in the query: write cost>0.5, in USD.",
    "cost>inf": "'cost>inf' in the query: write cost>0.5, in USD.",
    "cost>nan": "'cost>nan' in the query: write cost>0.5, in USD.",
    "errors:maybe": "'errors:maybe' in the query: write errors:yes or errors:no.",
    "status:done": "'done' is no status; it is one of active, completed, failed, abandoned.",
    "since:yesterday": "'yesterday' is no time. Write an age such as 24h or 7d, or a date",
    "tool:a tool:b": "The term 'tool' stands twice in the query. Leave one out.",
    "since:1d since:2d": "The term 'since' stands twice in the query. Leave one out.",
}


@pytest.mark.parametrize(("line", "words"), MISTAKES.items())
def test_a_mistake_is_answered_with_what_would_be_right(line: str, words: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        parse_query(line, NOW)
    assert str(caught.value).startswith(words)
    assert caught.value.argument in ("query", "status")


def test_every_term_is_tried_here() -> None:
    assert {name for name in NAMES if any(line.startswith(name) for line in LINES)} == set(NAMES)


TIMES = {
    "90s": NOW - timedelta(seconds=90),
    "15m": NOW - timedelta(minutes=15),
    "1.5h": NOW - timedelta(minutes=90),
    " 7D ": NOW - timedelta(days=7),
    "2w": NOW - timedelta(weeks=2),
    "2026-11-22": datetime(2026, 11, 22, tzinfo=UTC),
    "2026-11-22T10:00:00Z": NOW,
    "2026-11-22T11:00:00+01:00": NOW,
    "2026-11-22 10:00": NOW,
}


@pytest.mark.parametrize(("text", "moment"), TIMES.items())
def test_a_time_is_an_age_or_a_moment(text: str, moment: datetime) -> None:
    assert parse_time(text, NOW) == moment
    assert parse_time(text, NOW).tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    ["", "d", "-1d", "7 days", "9" * 400 + "d", "99999999d", "0001-01-01T00:00:00+23:59", "2026-13-01", "x" * 999],
)
def test_what_is_no_time_is_said_so(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"is no time\. Write an age such as 24h") as caught:
        parse_time(text, NOW, argument="updated_after")
    assert caught.value.argument == "updated_after"
    assert len(str(caught.value)) < 200


def test_each_term_narrows_what_is_found(manager: SessionManager, clock: SetClock) -> None:
    manager.create_session("old", purpose="Move billing", tags=["bug", "db"], user_id="ann")
    manager.link_invocation("old", "i1", "git_log", error="no such commit", cost=0.5)
    clock.go_on(days=10)
    manager.create_session("new", purpose="Größe messen", tags=["bug"], user_id="bob")
    manager.complete_session("new", "failed")

    def found(line: str, **fields: Any) -> list[str]:
        return [head.session_id for head in manager.query(line, **fields).items]

    assert found("") == ["new", "old"]
    for line, names in {
        "status:failed": ["new"],
        "status:failed,active": ["new", "old"],
        "tag:bug": ["new", "old"],
        "tag:bug tag:db": ["old"],
        "tool:git_log": ["old"],
        "user:bob": ["new"],
        "cost>0.5": [],
        "cost>=0.5": ["old"],
        "since:7d": ["new"],
        "until:7d": ["old"],
        "created:7d": ["new"],
        "errors:yes": ["old"],
        "errors:no": ["new"],
        "id:old id:nope": ["old"],
        "BILL move": ["old"],
        "grosse": ["new"],
        "große": ["new"],
        "bug": ["new", "old"],
        "status:failed tag:db": [],
    }.items():
        assert found(line) == names, line
    assert found("tag:bug", user_id="ann") == ["old"]
    assert found("status:failed", status=(SessionStatus.ACTIVE,)) == ["old"]
    page = manager.query("tag:bug", limit=1)
    assert [head.session_id for head in manager.query("tag:bug", page.next_cursor, limit=1).items] == ["old"]
    assert [head.session_id for head in manager.query(Query(user_id="ann"), limit=5).items] == ["old"]


def test_a_time_of_another_zone_means_the_same_moment(manager: SessionManager, clock: SetClock) -> None:
    manager.create_session("a")
    east = clock.now.astimezone(timezone(timedelta(hours=9)))
    assert manager.query(updated_after=east).items == []
    assert len(manager.query(updated_after=east - timedelta(seconds=1)).items) == 1
