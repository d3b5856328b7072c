"""A run of everything that can be done to a store, and what must stand in it after any part of the run.

The backend in memory is the reference. What an act changes there, session by session, is what it must have changed
anywhere else, whole, once it is acknowledged; where it was not yet, whole or not at all.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

from mcp_sessions.models import Alter, Change, InvocationQuery, Query
from mcp_sessions.storage import MemorySessionStorage, SessionStorage
from mcp_sessions.testing.making import at, called, does, head, joined, read_all, said

WORD = "findme"
Contents = dict[str, Any]
"""By session, and by record where that has none: all that is to be seen of it."""


@dataclass(frozen=True)
class Act:
    text: str
    do: Callable[[SessionStorage], object]


class Run:
    """Steps of one act, or of some that are done at the same time to sessions of their own.

    Acts are numbered through. `prefix` begins the names of its sessions and records; where these are new, nothing is
    refused.
    """

    def __init__(self, chance: random.Random, steps: int, prefix: str = "") -> None:
        making = _Making(chance, prefix)
        self.steps: list[Sequence[Act]] = [[making.create()], [making.create()], *(making.step() for _ in range(steps))]
        self.acts = [act for step in self.steps for act in step]

    @cached_property
    def changed(self) -> list[Contents]:
        """What each act changes, where None is what is gone."""
        changed: list[Contents] = []
        with MemorySessionStorage() as memory:
            before: Contents = {}
            for act in self.acts:
                act.do(memory)
                after = contents(memory)
                names = [name for name in before | after if before.get(name) != after.get(name)]
                changed.append({name: after.get(name) for name in names})
                before = after
        return changed

    def possible(self, begun: Collection[int], acknowledged: Collection[int]) -> Iterator[Contents]:
        """What may stand in a store where these acts were begun, and those acknowledged."""
        open_acts = sorted(set(begun) - set(acknowledged))
        for count in range(len(open_acts) + 1):
            for more in combinations(open_acts, count):
                there: Contents = {}
                for number in sorted({*acknowledged, *more}):
                    there |= self.changed[number]
                yield {name: content for name, content in there.items() if content is not None}


def contents(storage: SessionStorage) -> Contents:
    """All that is to be seen: heads, messages, keys, records, and where a word is found."""
    found = {session.session_id: {"head": session.model_dump(mode="json")} for session in _sessions(storage)}
    for name, content in found.items():
        views = [read_all(storage, name), read_all(storage, name, internal=True)]
        content |= {"views": [view.model_dump(mode="json") for view in views], "records": [], "hits": []}
    for record in joined(lambda cursor: storage.invocations(InvocationQuery(limit=1000), cursor)):
        whole = record.model_dump(mode="json")
        if record.session_id is None:
            found[f"record {record.invocation_id}"] = whole
        else:
            found[record.session_id]["records"].append(whole)
    for hit in joined(lambda cursor: storage.search(WORD, Query(limit=1000), cursor)):
        found[hit.session_id]["hits"].append(hit.seq)
    return found


def _sessions(storage: SessionStorage) -> list[Any]:
    return joined(lambda cursor: storage.find(Query(limit=1000), cursor))


class _Making:
    def __init__(self, chance: random.Random, prefix: str) -> None:
        self._chance = chance
        self._prefix = prefix
        self._names = [prefix + letter for letter in "abcdef"]
        self._number = 0
        self._last_seq: dict[str, int] = {}

    def step(self) -> Sequence[Act]:
        chance, there = self._chance, list(self._last_seq)
        kinds = [self.append] * 5 + [self.keys] * 2 + [self.retract, self.alter, self.both, self.record]
        if len(there) < len(self._names):
            kinds += [self.create, self.fork]
        if len(there) > 2:
            kinds += [self.delete, self.create if len(there) < len(self._names) else self.append]
        if len(there) > 2 and chance.random() < 0.15:
            return [self.append(name) for name in chance.sample(there, 3)]
        return [chance.choice(kinds)()]

    def create(self) -> Act:
        name, change = self._free(), self._saying(1)
        self._last_seq[name] = 1
        made = head(name, self._number, user_id=self._chance.choice((None, "ana")), tags=["x"])
        return Act(f"create {name}", lambda storage: storage.create(made, change))

    def append(self, name: str | None = None) -> Act:
        name, count = name or self._one(), self._chance.choice((1, 1, 1, 3))
        change = self._saying(count)
        self._last_seq[name] += count
        return Act(f"append {count} to {name}", lambda storage: storage.commit(name, change))

    def keys(self) -> Act:
        name, number = self._one(), self._next()
        value = {"n": number, "text": "v" * self._chance.choice((1, 600, 5000))}
        change = does(
            number, set={self._chance.choice("klm"): value, ".i": number}, remove=(self._chance.choice("klm"),)
        )
        return Act(f"keys of {name}", lambda storage: storage.commit(name, change))

    def retract(self) -> Act:
        name = self._one()
        last = self._last_seq[name]
        change = does(self._next(), retract=((self._chance.randrange(last + 1), last),))
        return Act(f"retract of {name}", lambda storage: storage.commit(name, change))

    def alter(self) -> Act:
        name, number = self._one(), self._next()
        change = does(number, alter=Alter(purpose=f"purpose {number}", add_tags=(self._chance.choice("yz"),)))
        return Act(f"alter {name}", lambda storage: storage.commit(name, change))

    def both(self) -> Act:
        one, other = self._chance.sample(list(self._last_seq), 2)
        change = self._saying(1).model_copy(update={"also": ((other, self._saying(1)),)})
        self._last_seq[one] += 1
        self._last_seq[other] += 1
        return Act(f"append to {one} and {other}", lambda storage: storage.commit(one, change))

    def record(self) -> Act:
        number = self._next()
        change = does(number, records=(called(f"{self._prefix}c{number}", number, scope=None),))
        return Act("a record", lambda storage: storage.commit(None, change))

    def fork(self) -> Act:
        parent, child, number = self._one(), self._free(), self._next()
        made = head(child, number)
        self._last_seq[child] = self._last_seq[parent]
        change = does(number, records=(called(f"{self._prefix}c{number}", number),))
        return Act(f"fork {parent} as {child}", lambda storage: storage.fork(parent, None, made, change))

    def delete(self) -> Act:
        name, number = self._one(), self._next()
        del self._last_seq[name]
        change = does(number, records=(called(f"{self._prefix}c{number}", number, scope=None),))
        return Act(f"delete {name}", lambda storage: storage.delete(name, change))

    def _saying(self, count: int) -> Change:
        """Messages, and the record of the call that brought them."""
        number = self._next()
        texts = [f"{WORD} {number} " + "x" * self._chance.choice((0, 100, 100, 2500)) for _ in range(count)]
        messages = tuple(said(f"m{number}.{n}", text, number) for n, text in enumerate(texts))
        record = called(f"{self._prefix}c{number}", number, duration_ms=2.5, result={}, fills={"seq": "seq.0"})
        return Change(at=at(number), messages=messages, records=(record,))

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _one(self) -> str:
        return self._chance.choice(list(self._last_seq))

    def _free(self) -> str:
        return self._chance.choice([name for name in self._names if name not in self._last_seq])
