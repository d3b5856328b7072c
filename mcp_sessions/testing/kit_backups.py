"""Backups: a copy of everything in a file of its own."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ..errors import StorageError
from ..models import Alter, InvocationStatus, SessionStatus, tokens
from ..storage import SQLiteSessionStorage
from .making import called, does, everything, head, read_all, said
from .store import Store

if TYPE_CHECKING:
    from collections.abc import Generator

    from ..storage.base import SessionStorage


class Backups(Store):
    def test_a_backup_holds_everything(self, storage: SessionStorage, tmp_path: Path) -> None:
        _fill(storage)
        before = everything(storage, "hello", "there")
        storage.backup(tmp_path / "copy.db")
        assert everything(storage, "hello", "there") == before
        with _opened(tmp_path / "copy.db") as copy:
            assert everything(copy, "hello", "there") == before

    def test_a_backup_goes_on_by_itself(self, storage: SessionStorage, tmp_path: Path) -> None:
        _fill(storage)
        before = everything(storage)
        storage.backup(tmp_path / "copy.db")
        with _opened(tmp_path / "copy.db") as copy:
            committed = copy.commit("a", does(9, messages=(said("m1", "hello"), said("m9"))))
            assert committed.seqs == [1, 4]
            assert everything(storage) == before

    def test_calls_that_ran_have_no_living_owner_in_a_backup(self, storage: SessionStorage, tmp_path: Path) -> None:
        owner = storage.owner()
        running = called("r", status=InvocationStatus.RUNNING, owner=owner)
        storage.create(head("a"), does(records=(running,)))
        storage.commit(None, does(records=(running.model_copy(update={"invocation_id": "q", "scope": "user"}),)))
        storage.backup(tmp_path / "copy.db")
        assert storage.alive(owner)
        with _opened(tmp_path / "copy.db") as copy:
            (record,) = read_all(copy, "a").records
            assert record.owner is None or not copy.alive(record.owner)
            assert not copy.alive(owner)

    def test_a_backup_replaces_nothing_unless_it_is_to(self, storage: SessionStorage, tmp_path: Path) -> None:
        place = tmp_path / "copy.db"
        place.write_text("mine", encoding="utf-8")
        _fill(storage)
        with pytest.raises(StorageError, match="is there already"):
            storage.backup(place)
        assert place.read_text(encoding="utf-8") == "mine"
        storage.backup(place, replace=True)
        with _opened(place) as copy:
            assert everything(copy) == everything(storage)

    def test_a_backup_replaces_no_store_that_is_open(self, storage: SessionStorage, tmp_path: Path) -> None:
        """The new file would be given the old one's log."""
        place = tmp_path / "copy.db"
        with _opened(place) as other:
            other.create(head("mine"))
            _fill(storage)
            with pytest.raises(StorageError, match="is in use"):
                storage.backup(place, replace=True)
            assert other.commit("mine", does(set={"k": 1})).revision == 2
        storage.backup(place, replace=True)
        with _opened(place) as copy:
            assert everything(copy) == everything(storage)

    def test_a_backup_that_fails_leaves_nothing(self, storage: SessionStorage, tmp_path: Path) -> None:
        _fill(storage)
        with pytest.raises(StorageError, match="nowhere"):
            storage.backup(tmp_path / "nowhere" / "copy.db")
        folder = tmp_path / "folder"
        folder.mkdir()
        before = sorted(path.name for path in tmp_path.iterdir())
        with pytest.raises(StorageError, match="folder"):
            storage.backup(folder, replace=True)
        assert sorted(path.name for path in tmp_path.iterdir()) == before


@contextmanager
def _opened(path: Path) -> Generator[SessionStorage]:
    with SQLiteSessionStorage(path) as copy:
        yield copy
        assert [finding for finding in copy.check() if finding.level != "ok"] == []


def _fill(storage: SessionStorage) -> None:
    storage.create(
        head("a", user_id="ana", purpose="p", tags=["t"], custom_metadata={"m": 1}),
        does(messages=(said("m1", "hello"), said("m2", "there", payload={"x": {"y": 1}}), said("m3"))),
    )
    storage.commit("a", does(2, retract=((3, 3),), set={"k": [1], ".internal": {"deep": None}}))
    storage.commit("a", does(3, records=(called("c", 3, model="m", token_usage=tokens(5), cost=0.5),)))
    storage.commit("a", does(4, records=(called("u", 4, kind="usage", model="m", cost=0.25),)))
    storage.commit("a", does(5, set={"l": 1}, records=(called("s", 5, kind="session", fills={"version": "revision"}),)))
    storage.create(head("b", 1, parent_id="a"), does(6, alter=Alter(status=SessionStatus.FAILED, summary="no")))
    storage.commit(None, does(7, records=(called("loose", 7, kind="session", scope="user"),)))
