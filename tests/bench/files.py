"""Sessions as files: what opening their folder costs, and what 10,000 of them in one do to everything else."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from mcp_sessions.models import Want

from .listings import committing, finding
from .measure import Figures, Row, ratio_in_turn
from .stores import Ground, Measure, changes, manager_on, storage_on

MESSAGES = "at 100,000 messages"
SESSIONS = "at 10,000 sessions"
OPENING_LONG = Row(f"files: opening {MESSAGES}", "storage", "and closing, nothing to repair / at 10", "<=", None, "x")
OPENING = Row(f"files: opening {SESSIONS}", "storage", "and closing, nothing to repair / at 100", "<=", None, "x")
APPEND = Row(
    f"files: append {SESSIONS}", "storage", "a message with its record, to any of them / at 100", "<=", None, "x"
)
TAIL = Row(f"files: last 20 {SESSIONS}", "storage", "p50 / at 100, each after a commit to any", "<=", None, "x")
PAGE = Row(f"files: page of 50 {SESSIONS}", "storage", "by user, tag and status / at 100, likewise", "<=", None, "x")


def opening(row: Row, small: Path, large: Path, ground: Ground) -> Figures:
    """Of folders that were closed well."""
    rounds = max(ground.scale.slow_rounds // 10, 1)
    figure, detail = ratio_in_turn(lambda: storage_on(large).close(), lambda: storage_on(small).close(), rounds)
    return Figures({row.name: figure}, detail)


def opening_long(ground: Ground) -> Figures:
    return opening(OPENING_LONG, ground.long(10, "files"), ground.long(ground.scale.messages, "files"), ground)


def opening_many(ground: Ground) -> Figures:
    scale = ground.scale
    return opening(OPENING, ground.many(scale.few_folders, "files"), ground.many(scale.folders, "files"), ground)


def crowd(ground: Ground) -> Figures:
    """A folder of 10,000 sessions and one of 100, in turn."""
    scale = ground.scale
    counts = (scale.few_folders, scale.folders)
    figures: dict[str, float] = {}
    detail: dict[str, Any] = {}
    few_path, many_path = (ground.many(count, "files") for count in counts)
    with manager_on(few_path) as few, manager_on(many_path) as many:
        managers = (few, many)
        for manager in managers:
            for _, change in zip(range(20), changes(), strict=False):
                manager.storage.commit("s0", change)
        commits = [committing(manager, count) for manager, count in zip(managers, counts, strict=True)]
        tails = [partial(manager.storage.read, "s0", Want(messages=20)) for manager in managers]
        pages = [finding(manager, "sixty", scale.page) for manager in managers]
        for row, (at_few, at_many), before in ((APPEND, commits, ()), (TAIL, tails, commits), (PAGE, pages, commits)):
            figures[row.name], detail[row.name] = ratio_in_turn(at_many, at_few, scale.slow_rounds, before)
    return Figures(figures, detail)


MEASURES: list[tuple[Measure, list[Row]]] = [
    (opening_long, [OPENING_LONG]),
    (opening_many, [OPENING]),
    (crowd, [APPEND, TAIL, PAGE]),
]
