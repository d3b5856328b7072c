"""Sessions in SQLite keep every promise, at both levels of durability."""

from __future__ import annotations

from pathlib import Path

from mcp_sessions.storage import SessionStorage, SQLiteSessionStorage
from mcp_sessions.testing import StorageKit


class TestSQLite(StorageKit):
    def open(self, folder: Path) -> SessionStorage:
        return SQLiteSessionStorage(folder / "sessions.db")

    def open_quickly(self, folder: Path) -> SessionStorage:
        return SQLiteSessionStorage(folder / "sessions.db", durability="process")
