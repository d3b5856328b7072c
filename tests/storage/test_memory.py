"""Sessions in memory keep every promise that a store of one handle can keep."""

from __future__ import annotations

from pathlib import Path

from mcp_sessions.storage import MemorySessionStorage, SessionStorage
from mcp_sessions.testing import StorageKit


class TestMemory(StorageKit):
    def open(self, folder: Path) -> SessionStorage:
        return MemorySessionStorage()

    def another(self, storage: SessionStorage, *, close: bool = False) -> SessionStorage:
        return storage
