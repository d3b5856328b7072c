"""Commits: what one costs, what many callers and many processes get, and that length does not matter."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice, repeat
from pathlib import Path
from typing import Any

from mcp_sessions import SessionManager
from mcp_sessions.errors import SessionsError
from mcp_sessions.models import Change, Want
from mcp_sessions.tools import invoke
from tests.processes import Children, hear, say

from .measure import Act, Figures, Row, in_turn, micros, p50, rate, ratio_in_turn, resident_mb
from .stores import CONTENT, Ground, Kind, Measure, changes, manager_on, storage_on

CALLERS = 64
PROCESSES = 4

COMMIT = Row("sqlite commit", "storage", "a message with its record, 1 caller, p50 / raw", "<=", 1.4, "raw")
INVOKE = Row("sqlite invoke", "call", "session_add_message, 1 caller, p50 / raw", "<=", 1.75, "raw")
COMMIT_64 = Row("sqlite commit, 64 callers", "storage", "per second / raw one at a time", ">=", 2.0, "raw")
INVOKE_64 = Row("sqlite invoke, 64 callers", "call", "per second / raw one at a time", ">=", 1.2, "raw")
LOST = Row("4 processes: lost", "storage", "acknowledged messages that are not there", "<=", 0, "messages")
REFUSED = Row("4 processes: refused", "storage", "commits that failed", "<=", 0, "commits")
FAIR = Row("4 processes: fair", "storage", "commits of the slowest process / the fastest", ">=", 0.8, "x")
STALL = Row("4 processes: stall", "storage", "the longest commit of all", "<=", 100, "ms")
APPEND = Row("append at 100,000", "call", "p50 at 100,000 messages / at 10", "<=", 1.2, "x")
TAIL = Row("last 20 at 100,000", "storage", "p50 at 100,000 messages / at 10, each after a commit", "<=", 1.2, "x")
CREATES = Row("1,000 creates", "call", "create_session, one after the other", "<=", 1.0, "s")
SAVES = Row("100 saves", "call", "save_session of 20 new messages", "<=", 1.0, "s")
LOADS = Row("100 loads", "call", "get_session with 20 messages", "<=", 1.0, "s")
LOST_64 = Row("1,000 sessions by 64 threads: lost", "call", "sessions or messages that are not there", "<=", 0, "")
GROWTH = Row("1,000 sessions by 64 threads: memory", "call", "growth of the process", "<=", 50, "MB")
SQLITE_PROCESSES = [LOST, REFUSED, FAIR, STALL]
SQLITE_LENGTH = [APPEND, TAIL]
FILES_COMMIT = replace(COMMIT, name="files commit", goal=2.0)
FILES_INVOKE = replace(INVOKE, name="files invoke", goal=2.5)
FILES_COMMIT_64 = replace(COMMIT_64, name="files commit, 64 callers", goal=None)
FILES_PROCESSES = [replace(row, name=f"files: {row.name}") for row in SQLITE_PROCESSES]
FILES_LENGTH = [replace(row, name=f"files: {row.name}") for row in SQLITE_LENGTH]


def commit(row: Row, kind: Kind, ground: Ground) -> Figures:
    rounds = ground.scale.rounds
    with manager_on(ground.path(kind)) as manager:
        manager.create_session("s")
        made = iter(list(islice(changes(), rounds * 2)))
        figure, detail = ratio_in_turn(lambda: manager.storage.commit("s", next(made)), ground.raw, rounds)
    return Figures({row.name: figure}, detail)


def invoked(row: Row, kind: Kind, ground: Ground) -> Figures:
    with manager_on(ground.path(kind)) as manager:
        manager.create_session("s")
        figure, detail = ratio_in_turn(adding(manager, "s"), ground.raw, ground.scale.rounds)
    return Figures({row.name: figure}, detail)


def adding(manager: SessionManager, session_id: str) -> Act:
    """Add a message of 300 bytes as a client does."""
    arguments = {"session_id": session_id, "role": "user", "content": CONTENT}
    return lambda: invoke(manager, "session_add_message", arguments)


def commits_of_many(row: Row, kind: Kind, ground: Ground) -> Figures:
    with manager_on(ground.path(kind)) as manager:
        manager.create_session("s")

        def acts(count: int) -> Iterator[Act]:
            for change in list(islice(changes(), count)):
                yield functools.partial(manager.storage.commit, "s", change)

        figure, detail = _many_against_one(ground, acts)
    return Figures({row.name: figure}, detail)


def invoked_by_many(ground: Ground) -> Figures:
    with manager_on(ground.path()) as manager:
        manager.create_session("s")
        figure, detail = _many_against_one(ground, lambda count: repeat(adding(manager, "s"), count))
    return Figures({INVOKE_64.name: figure}, detail)


def _many_against_one(ground: Ground, acts: Callable[[int], Iterator[Act]]) -> tuple[float, dict[str, Any]]:
    """Rate of 64 threads over the rate of raw, in slices that take turns; the first is warm-up."""
    each = max(ground.scale.rounds // 20, 2)
    raw: list[float] = []
    many: list[float] = []
    with ThreadPoolExecutor(CALLERS) as threads:
        for _ in range(ground.scale.turns):
            raw.append(rate(repeat(ground.raw, each * 4)))
            work = [list(acts(each)) for _ in range(CALLERS)]
            together = threading.Barrier(CALLERS + 1)

            def run(one: list[Act], together: threading.Barrier = together) -> None:
                together.wait()
                for act in one:
                    act()

            running = [threads.submit(run, one) for one in work]
            together.wait()
            start = time.perf_counter()
            wait(running)
            many.append(CALLERS * each / (time.perf_counter() - start))
            for one in running:
                one.result()
    return p50(many[1:]) / p50(raw[1:]), {"per_s": round(p50(many[1:])), "raw_per_s": round(p50(raw[1:]))}


def processes(rows: Sequence[Row], kind: Kind, ground: Ground) -> Figures:
    """Four processes commit to one session as fast as they can."""
    path = ground.path(kind)
    with manager_on(path) as manager:
        manager.create_session("s")
        with Children() as children:
            started = [children.start(committing, str(path), ground.scale.seconds * 2) for _ in range(PROCESSES)]
            for child in started:
                child.hear()
            for child in started:
                child.tell("go")
            told = [child.hear() for child in started]
        there = manager.metadata("s").last_seq
        kept = sum(1 for _ in _all_seqs(manager))
    counts = [one["committed"] for one in told]
    lost, refused, fair, stall = rows
    figures = {
        lost.name: sum(counts) - min(there, kept),
        refused.name: sum(one["refused"] for one in told),
        fair.name: min(counts) / max(counts),
        stall.name: max(one["longest_ms"] for one in told),
    }
    return Figures(figures, {"committed": counts, "longest_ms": [round(one["longest_ms"], 1) for one in told]})


def committing(path: str, seconds: float) -> None:
    """The program of one of the processes."""
    committed = refused = 0
    longest = 0.0
    with storage_on(Path(path)) as storage:
        storage.commit("s", Change(at=datetime.now(UTC)))  # opened, warm
        say("ready")
        hear()
        end = time.perf_counter() + seconds
        for change in changes():
            start = time.perf_counter()
            if start >= end:
                break
            try:
                storage.commit("s", change)
                committed += 1
            except SessionsError:
                refused += 1
            longest = max(longest, time.perf_counter() - start)
    say({"committed": committed, "refused": refused, "longest_ms": longest * 1000})


def _all_seqs(manager: SessionManager) -> Iterator[int]:
    cursor = None
    while True:
        page = manager.messages("s", 1000, cursor, "oldest")
        yield from (message.seq for message in page.items)
        cursor = page.next_cursor
        if cursor is None:
            return


def length(rows: Sequence[Row], kind: Kind, ground: Ground) -> Figures:
    """A session of 100,000 messages and one of 10, each in a store of its own, in turn."""
    paths = [ground.long(messages, kind) for messages in (ground.scale.messages, 10)]
    with manager_on(paths[0]) as long, manager_on(paths[1]) as short:
        acts = [adding(short, "long"), adding(long, "long")]
        rounds = ground.scale.rounds // 2
        in_turn(acts, max(rounds // 10, 1))
        at_10, at_100k = in_turn(acts, rounds)
        want = Want(messages=20)
        tails: list[Act] = [lambda: short.view("long", want), lambda: long.view("long", want)]
        tail_10, tail_100k = in_turn(tails, rounds, before=acts)
    append, tail = rows
    return Figures(
        {append.name: p50(at_100k) / p50(at_10), tail.name: p50(tail_100k) / p50(tail_10)},
        {"append_us": [micros(at_10), micros(at_100k)], "tail_us": [micros(tail_10), micros(tail_100k)]},
    )


def old_targets(ground: Ground) -> Figures:
    """What the system before this one had promised of itself."""
    scale = ground.scale
    with manager_on(ground.path()) as manager:
        start = time.perf_counter()
        ids = [manager.create_session(purpose=f"Task {number}").session_id for number in range(scale.creates)]
        created = time.perf_counter()
        copies = [manager.get_session(session_id) for session_id in ids[: scale.saves]]
        for copy in copies:
            assert copy is not None
            for number in range(20):
                copy.add_message("user", f"{number}: {CONTENT}")
        ready = time.perf_counter()
        for copy in copies:
            assert copy is not None
            manager.save_session(copy)
        saved = time.perf_counter()
        for session_id in ids[: scale.saves]:
            loaded = manager.get_session(session_id)
            assert loaded is not None
            assert len(loaded.conversation) == 20
        over = time.perf_counter()
    return Figures({CREATES.name: created - start, SAVES.name: saved - ready, LOADS.name: over - saved})


def threads(ground: Ground) -> Figures:
    """In a process of its own, whose memory nothing else has grown."""
    with Children() as children:
        child = children.start(creating, str(ground.path()), ground.scale.creates)
        told = child.hear()
    return Figures({LOST_64.name: told["lost"], GROWTH.name: told["growth_mb"]}, told)


def creating(path: str, count: int) -> None:
    """The program: sessions by 64 threads, each with three messages and a key."""
    with manager_on(Path(path)) as manager:

        def work(number: int) -> str:
            session_id: str = invoke(manager, "session_create", {"purpose": f"Task {number}"})["session_id"]
            for _ in range(3):
                adding(manager, session_id)()
            invoke(manager, "session_set", {"session_id": session_id, "key": "plan", "value": {"step": number}})
            return session_id

        work(-1)
        before = resident_mb()
        with ThreadPoolExecutor(CALLERS) as pool:
            ids = list(pool.map(work, range(count)))
        growth = resident_mb() - before
        lost = 0
        for session_id in ids:
            view = manager.view(session_id, Want(prefix="", messages=10))
            lost += len(view.messages) != 3 or "plan" not in view.data
    say({"lost": lost, "growth_mb": round(growth, 1)})


MEASURES: list[tuple[Measure, list[Row]]] = [
    (functools.partial(commit, COMMIT, "sqlite"), [COMMIT]),
    (functools.partial(invoked, INVOKE, "sqlite"), [INVOKE]),
    (functools.partial(commits_of_many, COMMIT_64, "sqlite"), [COMMIT_64]),
    (invoked_by_many, [INVOKE_64]),
    (functools.partial(processes, SQLITE_PROCESSES, "sqlite"), SQLITE_PROCESSES),
    (functools.partial(length, SQLITE_LENGTH, "sqlite"), SQLITE_LENGTH),
    (old_targets, [CREATES, SAVES, LOADS]),
    (threads, [LOST_64, GROWTH]),
    (functools.partial(commit, FILES_COMMIT, "files"), [FILES_COMMIT]),
    (functools.partial(invoked, FILES_INVOKE, "files"), [FILES_INVOKE]),
    (functools.partial(commits_of_many, FILES_COMMIT_64, "files"), [FILES_COMMIT_64]),
    (functools.partial(processes, FILES_PROCESSES, "files"), FILES_PROCESSES),
    (functools.partial(length, FILES_LENGTH, "files"), FILES_LENGTH),
]
