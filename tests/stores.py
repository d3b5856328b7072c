"""The parts that tests of the manager stand on: a store of each kind, and a clock that goes when it is told to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from mcp_sessions.storage import FileSystemSessionStorage, MemorySessionStorage, SessionStorage, SQLiteSessionStorage

DURABLE = ("sqlite", "files")
KINDS = ("memory", *DURABLE)


class SetClock:
    """Stands still until somebody moves it."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 22, 10, 0, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def go_on(self, **by: float) -> datetime:
        self.now += timedelta(**by)
        return self.now


def open_store(kind: str, folder: Path, durability: Literal["full", "process"] = "process") -> SessionStorage:
    """The store in a folder, made if there is none; but for memory it is real files, which others may open too."""
    if kind == "memory":
        return MemorySessionStorage()
    if kind == "files":
        return FileSystemSessionStorage(folder / "sessions", durability=durability)
    return SQLiteSessionStorage(folder / "sessions.db", durability=durability)
