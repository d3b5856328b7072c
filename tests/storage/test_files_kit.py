"""Sessions in files keep every promise, also where the index has to be made anew."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from mcp_sessions.storage import FileSystemSessionStorage, SessionStorage
from mcp_sessions.testing import StorageKit, histories
from mcp_sessions.testing.kit_changes import Changes
from mcp_sessions.testing.kit_deletion import Deletion
from mcp_sessions.testing.kit_handles import Handles
from mcp_sessions.testing.kit_messages import Messages
from tests.processes import ROOT, full_counts
from tests.storage.without import PARTS


class TestFiles(StorageKit):
    def open(self, folder: Path) -> SessionStorage:
        return FileSystemSessionStorage(folder / "sessions")

    def open_quickly(self, folder: Path) -> SessionStorage:
        return FileSystemSessionStorage(folder / "sessions", durability="process")


class TestFilesThatAreNotSynced(Deletion, Handles):
    def open(self, folder: Path) -> SessionStorage:
        return FileSystemSessionStorage(folder / "sessions", durability="process")


class TestFilesWhoseIndexIsLost(Changes, Deletion, Handles, Messages):
    """What is opened again has to be read from the logs."""

    def open(self, folder: Path) -> SessionStorage:
        shutil.rmtree(folder / "sessions" / ".index", ignore_errors=True)
        return FileSystemSessionStorage(folder / "sessions", durability="process")

    def another(self, storage: SessionStorage, *, close: bool = False) -> SessionStorage:
        if close:
            return super().another(storage, close=True)
        return FileSystemSessionStorage(self.folder / "sessions", durability="process")


class Forgetful:
    """A store of files that every now and then is opened anew, without its index."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "sessions"
        self._store = FileSystemSessionStorage(self._folder, durability="process")
        self._asked = 0

    def __getattr__(self, name: str) -> Any:
        self._asked += 1
        if self._asked % 61 == 0:
            self._store.close()
            shutil.rmtree(self._folder / ".index")
            self._store = FileSystemSessionStorage(self._folder, durability="process")
        return getattr(self._store, name)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self._store.close()


def test_files_pass_the_kit_where_the_system_offers_least() -> None:
    # All of it takes long, and most of it knows nothing of the system: handles, processes and deletions do.
    kit = TestFiles if full_counts() else TestFilesThatAreNotSynced
    tests = f"{__file__}::{kit.__name__}"
    command = [sys.executable, "-m", "tests.storage.without", ",".join(PARTS), tests, "-k", "not random"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_random_histories_are_answered_as_memory_answers_them_by_logs_that_are_read_anew() -> None:
    histories.compare(Forgetful, histories.EXAMPLES if full_counts() else 6)
