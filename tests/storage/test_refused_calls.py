"""Each call to the system that writes fails once: what is refused is not there, all else is, and the store goes on."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from mcp_sessions.errors import StorageError
from mcp_sessions.storage import SessionStorage
from tests.processes import full_counts
from tests.storage.acts import Contents, Run, contents
from tests.storage.recording import Recorder
from tests.storage.test_kills import wrong
from tests.stores import DURABLE, open_store

SEED = 10
"""Of a run with every kind of act."""
EACH = 1 if full_counts() else 24
"""Of so many calls one is let fail."""
PAGES = 8
"""Of so many writes below SQLite, which are pages of one commit, one counts."""


class Refusing(Recorder):
    """Lets one call fail that writes to the tree."""

    def __init__(self, root: Path, number: int, code: int) -> None:
        super().__init__(root)
        self.left = number
        self.refused = ""
        self._code = code
        self._pages = 0

    def before(self, real: Callable[..., Any]) -> None:
        name = real.__name__
        below_sqlite = name.startswith("x")
        if below_sqlite and self._code == errno.EINTR:
            return  # its own VFS calls again, and SQLite hears nothing
        self._pages += name == "xWrite"
        if name == "xWrite" and self._pages % PAGES:
            return
        self.left -= 1
        if self.left:
            return
        self.refused = name
        if not below_sqlite:
            raise OSError(self._code, os.strerror(self._code))
        raise apsw.FullError("full") if (name, self._code) == ("xWrite", errno.ENOSPC) else apsw.IOError("refused")


def opened(kind: str, root: Path) -> SessionStorage:
    """The store, at the second attempt if it must be."""
    try:
        return open_store(kind, root / "new", "full")
    except StorageError:
        return open_store(kind, root / "new", "full")


def there(kind: str, root: Path) -> Contents:
    """What another handle finds."""
    with open_store(kind, root / "new", "full") as storage:
        assert wrong(storage) == []
        return contents(storage)


def refused(kind: str, run: Run, root: Path, number: int, code: int) -> str:
    """Do a run of which one call fails; which it was, if there are so many."""
    root.mkdir()
    with Refusing(root, number, code) as disk:
        with opened(kind, root) as storage:
            for done, act in enumerate(run.acts):
                try:
                    act.do(storage)
                except StorageError:
                    assert disk.left <= 0
                    (before,) = run.possible((), range(done))
                    assert contents(storage) == before, f"{act.text} was refused"
                    assert there(kind, root) == before, f"{act.text} was refused"
                    act.do(storage)
    (whole,) = run.possible((), range(len(run.acts)))
    assert there(kind, root) == whole
    return disk.refused


@pytest.mark.parametrize(
    ("kind", "code"),
    [*((kind, code) for kind in DURABLE for code in (errno.ENOSPC, errno.EIO)), ("files", errno.EINTR)],
)
def test_each_call_that_writes_may_fail_once(kind: str, code: int, tmp_path: Path) -> None:
    run = Run(random.Random(SEED), 14)
    texts = " ".join(act.text for act in run.acts)
    assert all(word in texts for word in ("create", "append", "keys", "retract", " and ", "fork", "delete", "record"))
    number = EACH // 2 + 1
    while refused(kind, run, tmp_path / str(number), number, code):
        number += EACH
    assert number > 2 * EACH
