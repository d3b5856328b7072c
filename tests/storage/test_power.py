"""The power is cut at any moment of a run: what was acknowledged is there whole, and the store opens without help."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import pytest

from mcp_sessions import _os
from mcp_sessions.errors import SessionsError
from mcp_sessions.storage import SessionStorage
from mcp_sessions.storage.files.checking import STALE
from mcp_sessions.testing.making import head, said, say
from tests.processes import full_counts
from tests.storage.acts import Contents, Run, contents
from tests.storage.power import SECTOR, WAYS, Cut, Disk, cuts, states
from tests.storage.recording import Recorder, Sync
from tests.stores import DURABLE, open_store

LIVES, CUTS = (10, 500) if full_counts() else (1, 40)


@pytest.fixture(autouse=True)
def _short_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that they are moved into the file and begun anew, or written anew, again and again."""
    monkeypatch.setattr("mcp_sessions.storage.files.erasing.LEAST_S", 0)
    monkeypatch.setattr("mcp_sessions.storage.sqlite.writer.TIDY_PAGES", 60)


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One that each cut starts again."""
    monkeypatch.setattr(_os, "BOOT_ID", tmp_path / "boot_id")


def recorded(
    kind: str, root: Path, run: Run, chance: random.Random, durability: Literal["full", "process"] = "full"
) -> Recorder:
    """Do a run to the store at `root` through two handles, one of which closes now and then and is opened anew."""

    def opened() -> SessionStorage:
        return open_store(kind, root / "new", durability)

    root.mkdir(parents=True, exist_ok=True)
    with Recorder(root) as recorder, ThreadPoolExecutor(3) as pool:

        def do(number: int, handle: SessionStorage) -> None:
            recorder.mark("begun", number)
            run.acts[number].do(handle)
            recorder.mark("acknowledged", number)

        handles = [opened(), opened()]
        number = 0
        for step in run.steps:
            numbers = range(number, number + len(step))
            list(pool.map(do, numbers, [chance.choice(handles) for _ in numbers]))
            number += len(step)
            if chance.random() < 0.1:
                handles.pop(0).close()
                handles.append(opened())
        for handle in handles:
            handle.close()
    return recorder


class LostError(AssertionError):
    """A store after a cut is not as it must be."""


def after_cuts(
    kind: str, recorder: Recorder, run: Run, folder: Path, *, count: int, seed: str, before: Contents | None = None
) -> Iterator[tuple[Path, Contents]]:
    """Cut the power at moments of a recorded run: each tree that is left, and all that is in its store.

    Raises LostError where that is not what must be there, or what people read of it is something else.
    """
    for number, (cut, path) in enumerate(
        states(recorder.root, recorder.operations, cuts(recorder.operations, count, seed), folder)
    ):
        _os.BOOT_ID.write_text(f"{seed} {number}", encoding="ascii")
        possible = [(before or {}) | one for one in run.possible(cut.marked("begun"), cut.marked("acknowledged"))]
        try:
            with open_store(kind, path / "new", "full") as storage:
                there = contents(storage)
            with open_store(kind, path / "new", "full") as storage:
                findings = storage.check()
        except SessionsError as error:
            raise LostError(f"{path}, cut {cut}: {error}") from error
        if there not in possible:
            names = min(([n for n in there | one if there.get(n) != one.get(n)] for one in possible), key=len)
            raise LostError(f"{path}, cut {cut}: {names} are not as acknowledged")
        if any(one.level == "fault" or one.what == STALE for one in findings):
            raise LostError(f"{path}, cut {cut}: {findings}")
        yield path, there
        shutil.rmtree(path)


@pytest.mark.parametrize("life", range(LIVES))
@pytest.mark.parametrize("kind", DURABLE)
def test_whenever_the_power_is_cut_what_was_acknowledged_is_there(kind: str, life: int, tmp_path: Path) -> None:
    """And again in the life after it."""
    seed = f"{kind} {life}"
    chance = random.Random(seed)
    run = Run(chance, 60)
    recorder = recorded(kind, tmp_path / "disk", run, chance)
    for number, (path, there) in enumerate(after_cuts(kind, recorder, run, tmp_path, count=CUTS, seed=seed)):
        if number % 20 == 0:
            again = Run(chance, 4, "again-")
            second = recorded(kind, path, again, chance)
            for _ in after_cuts(kind, second, again, path, count=5, seed=f"{seed} {number}", before=there):
                pass


@pytest.mark.parametrize(
    ("kind", "unsynced"),
    [
        *(("sqlite", "sessions.db-wal"), ("sqlite", "sessions.db"), ("sqlite", "new")),
        *(("files", "log.jsonl"), ("files", "new"), ("files", "sessions"), ("files", "a")),
    ],
)
def test_a_sync_that_is_missing_is_found(kind: str, unsynced: str, tmp_path: Path) -> None:
    chance = random.Random(kind)
    run = Run(chance, 30)
    recorder = recorded(kind, tmp_path / "disk", run, chance)
    synced = [one for one in recorder.operations if isinstance(one, Sync) and one.node.name == unsynced]
    assert synced
    recorder.operations = [one for one in recorder.operations if one not in synced]
    with pytest.raises(LostError):
        list(after_cuts(kind, recorder, run, tmp_path, count=200, seed=f"{kind} without {unsynced}"))


def test_what_repair_moves_away_is_kept_whenever_the_power_is_cut(tmp_path: Path) -> None:
    folder = tmp_path / "disk" / "sessions"
    with open_store("files", folder.parent) as storage:
        storage.create(head("s"), say(said("1", "x" * SECTOR)))
        for number in range(3):
            storage.commit("s", say(said(f"n{number}", f"{number}" * SECTOR)))
    log = folder / "s" / "log.jsonl"
    data = log.read_bytes().replace(b"11", b"12")
    log.write_bytes(data)
    with Recorder(folder) as recorder, open_store("files", folder.parent) as storage:
        storage.repair()
    run = recorder.operations
    for cut, path in states(recorder.root, run, cuts(run, CUTS, "repair"), tmp_path):
        parts = [part.read_bytes() for part in (path / "s").glob("log*")]
        assert any(part and data.endswith(part) for part in parts), cut
        shutil.rmtree(path)


@pytest.mark.parametrize("kind", DURABLE)
def test_what_is_not_synced_at_each_commit_is_lost(kind: str, tmp_path: Path) -> None:
    chance = random.Random(kind)
    run = Run(chance, 30)
    recorder = recorded(kind, tmp_path / "disk", run, chance, durability="process")
    with pytest.raises(LostError):
        list(after_cuts(kind, recorder, run, tmp_path, count=200, seed=f"{kind} for processes"))


@pytest.mark.parametrize("kind", DURABLE)
def test_a_recording_is_all_that_was_done_to_the_disk(kind: str, tmp_path: Path) -> None:
    chance = random.Random(kind)
    recorder = recorded(kind, tmp_path / "disk", Run(chance, 30), chance)
    disk = Disk(recorder.root)
    for operation in recorder.operations:
        disk.do(operation)
    disk.lay(tmp_path / "again", lambda *_: True)
    assert tree(tmp_path / "again") == tree(tmp_path / "disk")


def tree(folder: Path) -> dict[str, object]:
    """All that stands in a folder, but for SQLite's shared memory."""
    paths = [path for path in sorted(folder.rglob("*")) if not path.name.endswith("-shm")]
    return {
        str(path.relative_to(folder)): path.readlink() if path.is_symlink() else path.is_dir() or path.read_bytes()
        for path in paths
    }


def test_of_what_is_not_synced_anything_may_be_there(tmp_path: Path) -> None:
    """The model itself: a file that was made, synced, written on and renamed, in a directory that never was synced."""
    (tmp_path / "disk").mkdir()
    with Recorder(tmp_path / "disk") as recorder:
        fd = os.open(tmp_path / "disk" / "file", os.O_RDWR | os.O_CREAT)
        os.write(fd, b"a" * 2 * SECTOR)
        os.fdatasync(fd)
        os.pwrite(fd, b"b" * 2 * SECTOR, SECTOR)
        os.close(fd)
        (tmp_path / "disk" / "file").rename(tmp_path / "disk" / "moved")
    run = recorder.operations
    at_the_end = [Cut(run, len(run), way, f"{number}") for way in WAYS for number in range(50)]
    names: set[tuple[str, ...]] = set()
    sectors: set[bytes] = set()
    for _, folder in states(recorder.root, run, at_the_end, tmp_path):
        names.add(tuple(file.name for file in folder.iterdir()))
        sectors |= {file.read_bytes()[::SECTOR] for file in folder.iterdir()}
    assert names == {(), ("file",), ("moved",)}
    assert sectors == {b"aa", b"ab", b"aab", b"abb", b"aa\0", b"ab\0"}
