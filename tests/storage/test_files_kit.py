"""Sessions in files keep every promise, also where the index has to be made anew."""

from __future__ import annotations

import shutil
from pathlib import Path

from mcp_sessions.storage import FileSystemSessionStorage, SessionStorage
from mcp_sessions.testing import StorageKit


class TestFiles(StorageKit):
    def open(self, folder: Path) -> SessionStorage:
        return FileSystemSessionStorage(folder / "sessions")

    def open_quickly(self, folder: Path) -> SessionStorage:
        return FileSystemSessionStorage(folder / "sessions", durability="process")


class TestFilesWhoseIndexIsLost(StorageKit):
    """What is opened again has to be read from the logs."""

    def open(self, folder: Path) -> SessionStorage:
        shutil.rmtree(folder / "sessions" / ".index", ignore_errors=True)
        return FileSystemSessionStorage(folder / "sessions", durability="process")

    def another(self, storage: SessionStorage, *, close: bool = False) -> SessionStorage:
        if close:
            return super().another(storage, close=True)
        return FileSystemSessionStorage(self.folder / "sessions", durability="process")
