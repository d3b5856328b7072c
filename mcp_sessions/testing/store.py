"""How the kit gets at a store: what a backend's test says about it."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from ..storage.base import SessionStorage


class Store:
    """One empty store for each test, in a folder of its own."""

    folder: Path

    def open(self, folder: Path) -> SessionStorage:
        """The store that is in this folder, made if there is none. Every backend's test says how."""
        raise NotImplementedError

    def open_quickly(self, folder: Path) -> SessionStorage:
        """The same, as fast as it goes: random histories need no power cut survived."""
        return self.open(folder)

    def another(self, storage: SessionStorage, *, close: bool = False) -> SessionStorage:
        """A further handle on the same store, as another process would have; with `close`, `storage` is closed first.

        Where a store is one handle and ends with it, override this and return that handle, still open.
        """
        if close:
            storage.close()
        return self.open(self.folder)

    def files_with(self, word: str) -> list[str]:
        """The files of the store that hold a part of a word, in whatever case."""
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return [path.name for path in files if word.encode() in path.read_bytes().lower()]

    @pytest.fixture
    def storage(self, tmp_path: Path) -> Generator[SessionStorage]:
        self.folder = tmp_path
        with self.open(tmp_path) as storage:
            yield storage
