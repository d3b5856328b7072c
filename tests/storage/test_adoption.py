"""Folders of the layout before there was a log are taken over whole, wherever that was cut off before."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from mcp_sessions.storage import FileSystemSessionStorage
from mcp_sessions.storage.files.checking import STALE
from tests.processes import full_counts
from tests.storage.acts import Contents, contents
from tests.storage.legacy_tree import message, metadata, save, tree
from tests.storage.power import WAYS, Cut, states
from tests.storage.recording import Mark, Operation, Recorder
from tests.storage.test_files_faults import MOVED

BEHIND = (STALE, "told of calls of no session")
"""What a loss of power may leave of views: a link may be lost, and what it led to not."""
EACH = {"all": 3, "nothing": 3}
"""At one of so many moments it is cut off, else at one of eight."""


def adopted(sessions: Path, *amiss: str) -> Contents:
    """What is found where the sessions are opened, in which nothing else is amiss."""
    with FileSystemSessionStorage(sessions) as storage:
        found = contents(storage)
        assert [one for one in storage.check() if one.level != "ok" and one.what not in amiss] == []
    return found


@pytest.mark.parametrize("way", WAYS)
def test_an_adoption_that_is_cut_off_anywhere_is_taken_up_by_the_next_opening(way: str, tmp_path: Path) -> None:
    """By SIGKILL, where all is there, or by a loss of power. Where its log was empty it took two openings; where the
    folder had got its name, and then its old one again, it could not be written.
    """
    disk = tmp_path / "disk"
    sessions = tree(disk)
    save(sessions, metadata("Named"), [message("user", "findme")], data={"k": 1})
    with Recorder(disk) as recorder:
        whole = adopted(sessions)
    assert len(whole) == 4
    run, chance = recorder.operations, random.Random(way)
    each = 1 if full_counts() else EACH.get(way, 8)
    # Between what is written to the index alone, moments differ little.
    moments = [done for done, one in enumerate(run) if full_counts() or not _of_index(one)]
    cuts = [Cut(run, done, way, f"{way} {done}") for done in moments[chance.randrange(each) :: each]]
    for cut, path in states(recorder.root, run, cuts, tmp_path):
        shutil.rmtree(disk)
        path.rename(disk)  # where the calls left their files is kept as a whole path
        for _ in range(2):
            assert adopted(sessions, MOVED, *(() if way == "all" else BEHIND)) == whole, str(cut)


def _of_index(one: Operation) -> bool:
    return not isinstance(one, Mark) and one.node.name.startswith("index")
