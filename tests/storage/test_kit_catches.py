"""The kit catches what it is there to catch: bugs are planted in the SQLite backend, and its tests must fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.processes import full_counts
from tests.storage.planted import BUGS, QUICK, Bug, caught, planted

NAMED = {bug.name: bug for bug in BUGS}


@pytest.mark.parametrize("name", NAMED if full_counts() else QUICK)
def test_the_kit_catches(name: str) -> None:
    bug = NAMED[name]
    by = caught(bug, by=None if full_counts() else bug.test)
    assert by is not None, f"no test of the kit fails with {name}"


def test_every_bug_can_still_be_planted_and_is_another_one(tmp_path: Path) -> None:
    for number, bug in enumerate(BUGS):
        planted(bug, tmp_path / str(number))
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 25
    assert len({(bug.file, bug.old, bug.new) for bug in BUGS}) == len(BUGS)


def test_a_bug_whose_place_is_gone_is_an_error(tmp_path: Path) -> None:
    gone = Bug("gone", "heads.py", "this text was there once", "", "test_nothing")
    with pytest.raises(ValueError, match="'gone' is stale"):
        planted(gone, tmp_path / "gone")
