"""The kit catches what it is there to catch: bugs are planted in the SQLite backend, and its tests must fail."""

from __future__ import annotations

import pytest

from tests.processes import full_counts
from tests.storage.planted import BUGS, QUICK, Bug, caught, wrong

NAMED = {bug.name: bug for bug in BUGS}


@pytest.mark.parametrize("name", NAMED if full_counts() else QUICK)
def test_the_kit_catches(name: str) -> None:
    bug = NAMED[name]
    by = caught(bug, by=None if full_counts() else bug.test)
    assert by is not None, f"no test of the kit fails with {name}"


def test_every_bug_can_still_be_planted_and_is_another_one() -> None:
    files = [(bug.file, wrong(bug)) for bug in BUGS]
    assert len({bug.name for bug in BUGS}) == len(set(files)) == len(BUGS) >= 25


def test_a_bug_whose_place_is_gone_is_an_error() -> None:
    gone = Bug("gone", "heads.py", "this text was there once", "", "test_nothing")
    with pytest.raises(ValueError, match="'gone' is stale"):
        wrong(gone)
