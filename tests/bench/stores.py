"""The stores that are measured: filled once, fast, and shared by all rows and runs."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import count
from pathlib import Path

from mcp_sessions import SessionManager, SQLiteSessionStorage
from mcp_sessions.models import (
    Change,
    ConversationMessage,
    Invocation,
    NewMessage,
    SessionMetadata,
    SessionStatus,
    View,
)
from mcp_sessions.session import new_id

from .measure import Figures, Raw

START = datetime(2026, 1, 1, tzinfo=UTC)
CONTENT = ("The migration of the billing tables stops at the ledger: two columns differ in scale. " * 4)[:300]
USER = "ada"


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    runs: int = 3
    rounds: int = 1500
    """Of the fast acts."""
    slow_rounds: int = 200
    calls: int = 100_000
    """In one server."""
    starts: int = 7
    """Of processes."""
    seconds: float = 2.0
    """For what is counted by the second."""
    messages: int = 100_000
    sessions: int = 100_000
    few_sessions: int = 2_000
    page: int = 50
    creates: int = 1_000
    saves: int = 100


QUICK = Scale(
    runs=1,
    rounds=20,
    slow_rounds=10,
    calls=200,
    starts=1,
    seconds=0.1,
    messages=1_000,
    sessions=600,
    few_sessions=300,
    page=5,
    creates=64,
    saves=10,
)


class Ground:
    """The directory of a benchmark, and the stores in it."""

    def __init__(self, directory: Path, scale: Scale) -> None:
        self._kept = directory
        self._passing = tempfile.TemporaryDirectory(dir=directory)
        self.directory = Path(self._passing.name)
        """What stands here is gone afterwards; the big stores stay."""
        self.scale = scale
        self.raw = Raw(self.directory)
        self._numbers = count()

    def path(self) -> Path:
        """Of a store that nobody else uses."""
        return self.directory / f"store{next(self._numbers)}.db"

    @cached_property
    def long(self) -> Path:
        """One session `long` with 100,000 messages."""
        return self._once(f"long-{self.scale.messages}", lambda path: _fill_long(path, self.scale.messages))

    @cached_property
    def short(self) -> Path:
        """One session `long` with 10 messages."""
        return self._once("long-10", lambda path: _fill_long(path, 10))

    @cached_property
    def many(self) -> Path:
        """100,000 sessions with tags."""
        return self._once(f"many-{self.scale.sessions}", lambda path: _fill_many(path, self.scale.sessions))

    @cached_property
    def few(self) -> Path:
        """2,000 sessions with tags."""
        return self._once(f"many-{self.scale.few_sessions}", lambda path: _fill_many(path, self.scale.few_sessions))

    def _once(self, name: str, fill: Callable[[Path], None]) -> Path:
        path = self._kept / f"{name}.db"
        if not path.exists():
            with tempfile.TemporaryDirectory(dir=self._kept) as making:
                fill(Path(making) / path.name)
                (Path(making) / path.name).rename(path)
        return path

    def close(self) -> None:
        self.raw.close()
        self._passing.cleanup()


Measure = Callable[[Ground], Figures]


def changes() -> Iterator[Change]:
    """Changes as a call makes them: one message and its record."""
    while True:
        now = datetime.now(UTC)
        message = ConversationMessage(message_id=new_id("msg"), role="user", content=CONTENT, timestamp=now)
        record = Invocation(
            invocation_id=new_id("inv"),
            session_id="s",
            tool_name="session_add_message",
            kind="session",
            caller="bench",
            started_at=now,
            duration_ms=0.123,
            arguments={"session_id": "s", "role": "user"},
            refs={"arguments.content": "message:seq.0"},
            result={"session_id": "s", "message_id": message.message_id},
            fills={"seq": "seq.0"},
        )
        yield Change(at=now, messages=(NewMessage(message=message, given=False),), records=(record,), active=True)


def manager_on(path: Path) -> SessionManager:
    """A manager on a store, with the default durability."""
    return SessionManager(SQLiteSessionStorage(path))


def _fill_long(path: Path, length: int) -> None:
    """Every message has a word of its own and `ledger`; 1 in 2, in 100 and in 2,000 have words in common."""
    messages = [
        ConversationMessage(
            seq=seq,
            message_id=new_id("msg"),
            role="user" if seq % 2 else "assistant",
            content=f"word{seq} " + " ".join(f"every{n}" for n in (2, 100, 2000) if seq % n == 0) + " " + CONTENT[:180],
            timestamp=START + timedelta(seconds=seq),
        )
        for seq in range(1, length + 1)
    ]
    head = SessionMetadata(
        session_id="long", created_at=START, updated_at=START, revision=length, last_seq=length, message_count=length
    )
    with SQLiteSessionStorage(path, durability="process") as storage:
        storage.restore(View(metadata=head, messages=messages))
        storage.check()  # all of it is let into the search index


def _fill_many(path: Path, total: int) -> None:
    """3 in 4 belong to one user, 9 in 10 are active; tags on half, on 1 in 20, and on 60 of hers, spread evenly."""
    chance = random.Random(7)
    with SQLiteSessionStorage(path, durability="process") as storage, ThreadPoolExecutor(32) as threads:

        def view(number: int) -> View:
            few = number % (total // 60) == 0
            tags = [f"project{number % 97}"]
            tags += ["half"] * (chance.random() < 1 / 2) + ["twentieth"] * (chance.random() < 1 / 20) + ["sixty"] * few
            at = START + timedelta(seconds=number)
            active = few or chance.random() < 9 / 10
            head = SessionMetadata(
                session_id=f"s{number}",
                status=SessionStatus.ACTIVE if active else SessionStatus.COMPLETED,
                created_at=at,
                updated_at=at,
                ended_at=None if active else at,
                user_id=USER if few or chance.random() < 3 / 4 else "bob",
                purpose=f"Task {number} of the quarter",
                tags=tags,
                revision=1,
            )
            return View(metadata=head)

        for batch in range(0, total, 1000):
            list(threads.map(storage.restore, [view(number) for number in range(batch, min(batch + 1000, total))]))
