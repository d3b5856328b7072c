"""What commits and openings take from the disk: counted, not timed."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mcp_sessions import FileSystemSessionStorage
from mcp_sessions._os import FileLock
from mcp_sessions.storage.files.folder import LOG
from mcp_sessions.testing.making import contents, head, ids, said, say
from tests.processes import until
from tests.storage.recording import Recorder, Sync

COMMITS = 20


def test_commits_that_wait_together_are_one_write_with_one_sync(tmp_path: Path) -> None:
    with (
        Recorder(tmp_path) as disk,
        FileSystemSessionStorage(tmp_path / "sessions") as storage,
        ThreadPoolExecutor(COMMITS) as threads,
    ):
        storage.create(head("s"))
        gate = FileLock(tmp_path / "sessions" / ".index" / "index.db-gate")
        assert gate.try_acquire()
        waiting = [threads.submit(storage.commit, "s", say(said(f"m{n}", f"{n}"))) for n in range(COMMITS)]
        writer = storage._here().writer
        until(lambda: len(writer._queue) == COMMITS)
        before = len(disk.operations)
        gate.release()
        seqs = [one.result().seqs[0] for one in waiting]
        synced = [one.node.name for one in disk.operations[before:] if isinstance(one, Sync)]
    assert sorted(seqs) == list(range(1, COMMITS + 1))
    assert synced.count(LOG) == 1


def test_neither_an_opening_nor_an_append_reads_what_the_index_tells(tmp_path: Path) -> None:
    """What is not read is not found to be damaged."""
    folder = tmp_path / "sessions"
    with FileSystemSessionStorage(folder, durability="process") as storage:
        storage.create(head("s"))
        for text in ("one", "two"):
            storage.commit("s", say(said(text, text)))
    log = folder / "s" / LOG
    stat, data = log.stat(), log.read_bytes()
    log.write_bytes(data.replace(b"one", b"o?e"))
    os.utime(log, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with FileSystemSessionStorage(folder, durability="process") as storage:
        assert ids(storage) == ["s"]
        storage.commit("s", say(said("three", "three")))
        assert contents(storage) == ["one", "two", "three"]
    assert b"o?e" in log.read_bytes()
