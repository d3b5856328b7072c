"""The stores that are measured: filled once, fast, and shared by all rows and runs."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Literal

from mcp_sessions import FileSystemSessionStorage, SessionManager, SQLiteSessionStorage
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

Kind = Literal["sqlite", "files"]
ENDS: dict[Kind, str] = {"sqlite": ".db", "files": ""}
"""Of the paths of stores: so a path tells what kind of store is to be made there."""


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    runs: int = 3
    rounds: int = 1500
    """Of the fast acts."""
    slow_rounds: int = 200
    turns: int = 5
    """Times that what is compared follows each other, for the machine has its moods."""
    calls: int = 100_000
    """In one server."""
    starts: int = 7
    """Of processes."""
    seconds: float = 2.0
    """For what is counted by the second."""
    messages: int = 100_000
    sessions: int = 100_000
    few_sessions: int = 2_000
    folders: int = 10_000
    """Sessions as files in one directory."""
    few_folders: int = 100
    page: int = 50
    creates: int = 1_000
    saves: int = 100


QUICK = Scale(
    runs=1,
    rounds=20,
    slow_rounds=10,
    turns=2,
    calls=128,
    starts=1,
    seconds=0.1,
    messages=1_000,
    sessions=600,
    few_sessions=300,
    folders=60,
    few_folders=10,
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

    def path(self, kind: Kind = "sqlite") -> Path:
        """Of a store that nobody else uses."""
        return self.directory / f"store{next(self._numbers)}{ENDS[kind]}"

    def long(self, messages: int, kind: Kind = "sqlite") -> Path:
        """One session `long` with so many messages."""
        return self._once(f"long-{messages}{ENDS[kind]}", lambda path: _fill_long(path, messages))

    def many(self, sessions: int, kind: Kind = "sqlite") -> Path:
        """So many sessions with tags."""
        return self._once(f"many-{sessions}{ENDS[kind]}", lambda path: _fill_many(path, sessions))

    def _once(self, name: str, fill: Callable[[Path], None]) -> Path:
        path = self._kept / name
        if not path.exists():
            with tempfile.TemporaryDirectory(dir=self._kept) as making:
                fill(Path(making) / name)
                (Path(making) / name).rename(path)
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
    return SessionManager(storage_on(path))


def storage_on(path: Path, durability: Literal["full", "process"] = "full") -> SQLiteSessionStorage:
    """A store of the kind that its path tells."""
    kind = SQLiteSessionStorage if path.suffix == ENDS["sqlite"] else FileSystemSessionStorage
    return kind(path, durability=durability)


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
    with storage_on(path, "process") as storage:
        storage.restore(View(metadata=head, messages=messages))
        storage.check()  # all of it is let into the search index


def _fill_many(path: Path, total: int) -> None:
    """3 in 4 belong to one user, 9 in 10 are active; tags on half, on 1 in 20, and on 60 of hers, spread evenly."""
    chance = random.Random(7)
    with storage_on(path, "process") as storage, ThreadPoolExecutor(32) as threads:

        def view(number: int) -> View:
            few = number % max(total // 60, 1) == 0
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
