"""Three processes write to one store of any kind and are killed at any moment, again and again: nothing that one of
them was told is lost, and nothing is there by half.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Literal

import pytest

from mcp_sessions.models import Finding
from mcp_sessions.storage import SessionStorage
from tests.processes import Children, full_counts
from tests.storage import programs
from tests.storage.acts import Run, contents
from tests.storage.looking import holds
from tests.storage.programs import new_session
from tests.stores import DURABLE, open_store

ROUNDS, TOLD = (12, range(280, 400)) if full_counts() else (2, range(1, 60))
"""How often, and after how many acknowledgements to each of the three: over 10,000 of them in full."""
STEPS = 100 if full_counts() else 30
Durability = Literal["full", "process"]


OF_KILLS = ("still being removed", "ends of logs that were moved away")
"""What kills leave, and a check tells: deletions that go on, and beginnings of lines that nobody was told of."""


def wrong(storage: SessionStorage) -> list[Finding]:
    """What else a check finds."""
    return [one for one in storage.check() if one.level != "ok" and not any(what in one.what for what in OF_KILLS)]


@pytest.mark.parametrize("durability", ["full", "process"])
@pytest.mark.parametrize("kind", DURABLE)
def test_three_writers_killed_at_any_moment_lose_nothing_that_was_acknowledged(
    kind: str, durability: Durability, tmp_path: Path
) -> None:
    with open_store(kind, tmp_path, durability) as storage:
        new_session(storage, "a")
    chance = random.Random(durability)
    told: list[dict[str, Any]] = []
    for _ in range(ROUNDS):
        with Children() as children:
            writers = [
                children.start(programs.append_on_and_on, kind, tmp_path, durability, "a", name) for name in "xyz"
            ]
            for writer in writers:
                assert writer.hear() == "ready"
            for writer in writers:
                writer.tell()
            for writer in writers:
                told += [writer.hear() for _ in range(chance.choice(TOLD))]
                writer.kill()
            for writer in writers:
                told += writer.rest()
        with open_store(kind, tmp_path, durability) as storage:
            holds(storage, "a", told)
    with open_store(kind, tmp_path, durability) as storage:
        assert wrong(storage) == []


@pytest.mark.parametrize("kind", DURABLE)
def test_whatever_three_do_when_they_are_killed_is_done_or_not(kind: str, tmp_path: Path) -> None:
    """Each makes, forks, clears and deletes sessions of its own, and writes to two at a time."""
    chance = random.Random(kind)
    kept: dict[str, Any] = {}
    for number in range(ROUNDS):
        names = [f"{letter}{number}-" for letter in "xyz"]
        with Children() as children:
            actors = [children.start(programs.act, kind, tmp_path, "process", name, STEPS) for name in names]
            for actor in actors:
                assert actor.hear() == "ready"
            for actor in actors:
                actor.tell()
            told = [[actors[0].hear() for _ in range(chance.randrange(1, STEPS))], [], []]
            for actor in actors:
                actor.kill()
            for texts, actor in zip(told, actors, strict=True):
                texts.extend(actor.rest())
        with open_store(kind, tmp_path) as storage:
            there = contents(storage)
            assert wrong(storage) == []
        for name, texts in zip(names, told, strict=True):
            run, done = Run(random.Random(name), STEPS, name), len(texts)
            assert texts == [act.text for act in run.acts[:done]]
            own = {one: what for one, what in there.items() if one.removeprefix("record ").startswith(name)}
            assert own in list(run.possible(range(min(done + 1, len(run.acts))), range(done)))
            kept |= own
        assert there == kept
