"""Listings and search: what a page costs in a store of 100,000."""

from __future__ import annotations

import random

from mcp_sessions import SessionManager
from mcp_sessions.models import Query, SessionStatus, Want

from .measure import Act, Figures, Row, in_turn, micros, p50
from .stores import USER, Ground, Measure, changes, manager_on

TAGS = {"half": "tag on half", "twentieth": "tag on 1 in 20", "sixty": "tag on 60 sessions"}
PAGES = {
    tag: Row(
        f"page of 50, {text}",
        "storage",
        "full page by user, tag and status among 100,000 sessions / among 2,000, each after a commit",
        "<=",
        2.0,
        "x",
    )
    for tag, text in TAGS.items()
}
SEARCH = Row("search", "storage", "one word, newest 20 of 100,000 messages / reading one head", "<=", 80, "heads")


def pages(ground: Ground) -> Figures:
    """The first read after a commit costs more, and that is how a store in use is read: so they alternate."""
    figures: dict[str, float] = {}
    detail: dict[str, object] = {}
    scale = ground.scale
    few_path, many_path = ground.many(scale.few_sessions), ground.many(scale.sessions)
    with manager_on(few_path) as few, manager_on(many_path) as many:
        commits = [committing(few, scale.few_sessions), committing(many, scale.sessions)]
        for tag, row in PAGES.items():
            acts = [finding(few, tag, scale.page), finding(many, tag, scale.page)]
            in_turn(acts, max(scale.slow_rounds // 10, 1), before=commits)
            in_few, in_many = in_turn(acts, scale.slow_rounds, before=commits)
            figures[row.name] = p50(in_many) / p50(in_few)
            detail[f"{tag}_us"] = [micros(in_few), micros(in_many)]
    return Figures(figures, detail)


def finding(manager: SessionManager, tag: str, limit: int) -> Act:
    """Find a full page by user, tag and status."""
    query = Query(user_id=USER, status=(SessionStatus.ACTIVE,), tags=(tag,), limit=limit)

    def find() -> None:
        found = len(manager.storage.find(query).items)
        assert found == limit, f"{found} sessions are no full page"

    return find


def committing(manager: SessionManager, sessions: int) -> Act:
    """Commit to one session of many."""
    made = changes()
    chance = random.Random(1)

    def commit() -> None:
        change = next(made).model_copy(update={"active": False})
        manager.storage.commit(f"s{chance.randrange(sessions)}", change)

    return commit


def search(ground: Ground) -> Figures:
    """A word of 1 message in 100; beside it other words, and the first search after a commit."""
    rounds = ground.scale.slow_rounds
    with manager_on(ground.long(ground.scale.messages)) as manager:
        storage = manager.storage
        made = changes()

        def head() -> None:
            storage.read("long", Want())

        def found(word: str) -> Act:
            return lambda: storage.search(word, Query(limit=20))

        words = {"1 in 100": "every100", "1 in 2": "every2", "1 in 2,000": "every2000", "one": "word77"}
        acts = [head, *map(found, words.values())]
        in_turn(acts, max(rounds // 10, 2))
        heads, *searches = in_turn(acts, rounds)
        before: list[Act] = [lambda: storage.commit("long", next(made))] * 2
        _, after_commit = in_turn([head, found("every100")], rounds, before=before)
    detail: dict[str, object] = {"head_us": micros(heads), "after_commit_us": micros(after_commit)}
    detail |= {name: micros(one) for name, one in zip(words, searches, strict=True)}
    return Figures({SEARCH.name: p50(searches[0]) / p50(heads)}, detail)


MEASURES: list[tuple[Measure, list[Row]]] = [(pages, list(PAGES.values())), (search, [SEARCH])]
