"""One store of files, many real processes: what each makes anew, forks or holds open."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from mcp_sessions.models import Want
from mcp_sessions.testing.making import called, does, head, ids, said
from tests.processes import Child, Children, full_counts
from tests.storage import programs
from tests.storage.looking import holds
from tests.storage.test_files import faults, opened

ROUNDS = 20 if full_counts() else 2


@pytest.mark.parametrize("damage", ["gone", "not SQLite"])
def test_processes_that_make_an_index_anew_at_once_do_each_other_no_harm(tmp_path: Path, damage: str) -> None:
    """One threw away what another had just made, which refused every call from then on."""
    folder = tmp_path / "sessions"
    with opened(tmp_path) as storage:
        for number in range(40):
            programs.new_session(storage, f"s{number}")
    told: list[dict[str, Any]] = []
    for number in range(ROUNDS):
        if damage == "gone":
            shutil.rmtree(folder / ".index")
        else:
            (folder / ".index" / "index.db").write_bytes(b"x" * 9000)
        with Children() as children:
            every = [children.start(programs.open_and_add, folder, f"s{number}") for _ in range(4)]
            for child in every:
                assert child.hear() == "ready"
            for child in every:
                child.tell()
            for child in every:
                assert child.hear() == "opened"
            for child in every:
                child.tell()
            of_this_round = [child.hear() for child in every]
            for child in every:
                child.ends_well()
        told = [*told, *of_this_round]
        with opened(tmp_path) as storage:
            assert len(ids(storage)) == 40
            holds(storage, f"s{number}", of_this_round)
            assert faults(storage) == []


def test_parent_and_forked_children_go_on_with_the_same_folder(tmp_path: Path) -> None:
    """What each child committed first stood in the index alone."""
    with opened(tmp_path) as storage:
        programs.new_session(storage, "a")
    with Child(programs.fork_and_go_on, f"file://{tmp_path}/sessions", 6) as parent:
        *children, last = parent.rest()
        parent.ends_well()
    assert [child["status"] for child in children] == [0] * 6
    by_children = {name for child in children for name in child["child"].strip("[]").replace("'", "").split(", ")}
    with opened(tmp_path) as storage:
        assert faults(storage) == []
    shutil.rmtree(tmp_path / "sessions" / ".index")
    with opened(tmp_path) as storage:
        holds(storage, "a", last["told"])
        messages = storage.read("a", Want(messages=100_000)).messages
        assert {message.message_id for message in messages} >= by_children
        assert len(messages) == len(last["told"]) + len(by_children)
        assert faults(storage) == []


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="there is nowhere to count them")
def test_many_sessions_take_no_more_descriptors_than_few(tmp_path: Path) -> None:
    with opened(tmp_path) as storage:
        counts: list[int] = []
        for number in range(200):
            storage.create(head(f"s{number}"), does(messages=(said("m"),), records=(called("c", kind="work"),)))
            counts.append(len([*Path("/proc/self/fd").iterdir()]))
    assert max(counts[100:]) <= max(counts[:100])
