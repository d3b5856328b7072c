"""What a disk may hold after its power was cut, from what a real run did to it.

The model. What was synced is there: an fsync or fdatasync of a file keeps its content and its size, an fsync of a
directory keeps its entries. Neither keeps the other: a new file that was synced has no name until its directory was
synced, and a rename between directories is kept when both were. Of all the rest anything may be there:

- Of the content, each sector of 512 bytes by itself, as it stood after any write since the last sync or as it was
  before: so writes are dropped, kept in another order, and torn.
- The size likewise by itself: where it grew without its content, there are zeros. The sizes of one file follow one
  another, so what was written after a truncation is there only if the truncation is. So is the time of its change.
- Each entry that was made, moved or removed by itself; one rename is kept whole or not at all.

This is harder than what ext4, XFS and APFS do, which keep entries in their order, and most disks, whose sectors have
4,096 bytes. A disk that says it has synced and has not can break any store, and is not in it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.storage.recording import Enter, Leave, Mark, Move, Node, Operation, Resize, Sync, Write

SECTOR = 512
Kept = Callable[[Write | Resize | Enter | Leave | Move, int], bool]
"""Whether a part of an unsynced operation is there: a sector of a write by its number, SIZE, TIME, or ENTRY."""
SIZE, TIME, ENTRY = -1, -2, -3


class Disk:
    """A tree as it is known to be durable, and what has been done to it since."""

    def __init__(self, root: Node) -> None:
        self._root = root
        self._contents: dict[Node, tuple[bytes, int]] = {}
        self._entries: dict[Node, dict[str, Node]] = {}
        self._unsynced: dict[Node, list[Write | Resize]] = {}
        self._moves: list[tuple[Enter | Leave | Move, set[Node]]] = []
        """What was done to entries, and the directories that must still be synced for it to stay."""

    def do(self, operation: Operation) -> None:
        if isinstance(operation, (Write, Resize)):
            self._unsynced.setdefault(operation.node, []).append(operation)
        elif isinstance(operation, Move):
            self._moves.append((operation, {operation.folder, operation.to_folder}))
        elif isinstance(operation, (Enter, Leave)):
            self._moves.append((operation, {operation.folder}))
        elif isinstance(operation, Sync) and operation.node.kind == "folder":
            for _, waiting in self._moves:
                waiting.discard(operation.node)
            while self._moves and not self._moves[0][1]:
                _move(self._moves.pop(0)[0], self._entries)
        elif isinstance(operation, Sync):
            self._contents[operation.node] = self._content(operation.node, lambda *_: True)
            self._unsynced.pop(operation.node, None)

    def lay(self, folder: Path, kept: Kept) -> None:
        """Write what is there after a cut to a new folder."""
        entries = {node: dict(names) for node, names in self._entries.items()}
        for move, waiting in self._moves:
            if not waiting or kept(move, ENTRY):
                _move(move, entries)
        self._lay(self._root, folder, entries, kept)

    def _lay(self, node: Node, path: Path, entries: dict[Node, dict[str, Node]], kept: Kept) -> None:
        if node.kind == "file":
            content, at_ns = self._content(node, kept)
            path.write_bytes(content)
            if at_ns:
                os.utime(path, ns=(at_ns, at_ns))
        elif node.kind == "link":
            path.symlink_to(node.content.decode())
        else:
            path.mkdir()
            for name, one in entries.get(node, node.entries).items():
                self._lay(one, path / name, entries, kept)

    def _content(self, node: Node, kept: Kept) -> tuple[bytes, int]:
        """With the time of its change, 0 where it is not known."""
        content, at_ns = self._contents.get(node, (node.content, node.at_ns))
        unsynced = self._unsynced.get(node, ())
        return _left(content, unsynced, kept), max([at_ns, *(one.at_ns for one in unsynced if kept(one, TIME))])


def _move(move: Enter | Leave | Move, entries: dict[Node, dict[str, Node]]) -> None:
    names = entries.setdefault(move.folder, dict(move.folder.entries))
    if isinstance(move, Enter):
        names[move.name] = move.node
        return
    if names.get(move.name) is move.node:
        del names[move.name]
    if isinstance(move, Move):
        entries.setdefault(move.to_folder, dict(move.to_folder.entries))[move.to_name] = move.node


def _left(before: bytes, unsynced: Sequence[Write | Resize], kept: Kept) -> bytes:
    """The content of a file, of which some operations are kept."""
    sizes = list(_sizes(len(before), unsynced))
    resized = [number for number, one in enumerate(unsynced) if sizes[number + 1] != sizes[number] and kept(one, SIZE)]
    last = resized[-1] if resized else -1
    cached, left = bytearray(before), bytearray(before)
    for number, one in enumerate(unsynced):
        if isinstance(one, Write):
            _put(cached, one.offset, one.data)
            for sector in range(one.offset // SECTOR, -(-(one.offset + len(one.data)) // SECTOR)):
                if kept(one, sector):
                    _put(left, sector * SECTOR, cached[sector * SECTOR : (sector + 1) * SECTOR])
        elif one.size < len(cached):
            if number > last:
                break
            del cached[one.size :], left[one.size :]
        else:
            cached.extend(bytes(one.size - len(cached)))
    size = sizes[last + 1]
    return bytes(left[:size]).ljust(size, b"\0")


def _sizes(size: int, operations: Sequence[Write | Resize]) -> Iterator[int]:
    yield size
    for one in operations:
        size = max(size, one.offset + len(one.data)) if isinstance(one, Write) else one.size
        yield size


def _put(content: bytearray, offset: int, data: bytes | bytearray) -> None:
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(data)] = data


@dataclass(frozen=True)
class Cut:
    """The power is cut when so many operations of a run were done; of those that were not synced `way` is left."""

    run: Sequence[Operation]
    done: int
    way: str
    seed: str

    def kept(self) -> Kept:
        return WAYS[self.way](self, random.Random(self.seed))

    def marked(self, what: str) -> set[int]:
        """The numbers of what was begun, or acknowledged, before the cut."""
        return {one.number for one in self.run[: self.done] if isinstance(one, Mark) and one.what == what}

    def __str__(self) -> str:
        last = [f"{type(one).__name__} {one.node.name}" for one in self.run[: self.done] if not isinstance(one, Mark)]
        return f"after {self.done} operations, the last of them {last[-1:]}; {self.way} of the rest, seed {self.seed!r}"


def cuts(run: Sequence[Operation], count: int, seed: str) -> list[Cut]:
    """So many of them, at any moment of the run, in their order; each is another."""
    chance = random.Random(seed)
    moments = sorted(chance.randrange(len(run)) for _ in range(count))
    return [Cut(run, done, chance.choice([*WAYS]), f"{seed}.{number}") for number, done in enumerate(moments, 1)]


def states(root: Node, run: Sequence[Operation], cuts: Sequence[Cut], folder: Path) -> Iterator[tuple[Cut, Path]]:
    """What each cut leaves, in a folder of its own."""
    disk, done = Disk(root), 0
    for number, cut in enumerate(cuts):
        while done < cut.done:
            disk.do(run[done])
            done += 1
        path = folder / f"state {number}"
        disk.lay(path, cut.kept())
        yield cut, path


def _up_to_a_moment(cut: Cut, chance: random.Random) -> Kept:
    """In their order, up to one that is torn."""
    first = max(0, cut.done - chance.randrange(chance.choice((5, 50, 500))))
    before = set(cut.run[:first])
    return lambda one, part: one in before or (one is cut.run[first] and chance.random() < 0.5)


def _each(cut: Cut, chance: random.Random) -> Kept:
    share, kept = chance.choice((0.1, 0.5, 0.9)), dict[Operation, bool]()
    return lambda one, part: kept.setdefault(one, chance.random() < share)


def _parts(cut: Cut, chance: random.Random) -> Kept:
    share = chance.choice((0.1, 0.5, 0.9))
    return lambda one, part: chance.random() < share


def _files(cut: Cut, chance: random.Random) -> Kept:
    kept: dict[tuple[Node, bool], bool] = {}
    return lambda one, part: kept.setdefault((one.node, part == ENTRY), chance.random() < 0.5)


WAYS: dict[str, Callable[[Cut, random.Random], Kept]] = {
    "nothing": lambda cut, chance: lambda one, part: False,
    "all": lambda cut, chance: lambda one, part: True,
    "up to a moment": _up_to_a_moment,
    "some operations": _each,
    "some sectors": _parts,
    "some files": _files,
}
