"""Recording what a real run of a store does to the disk: each write, truncation, entry and sync, in their order.

Everything is done as it would be without the recording. SQLite is heard in a VFS that stands above its own, the
directories that it syncs in the system call by which it opens them, and everybody else in `open` and the functions of
`os`.
"""

from __future__ import annotations

import builtins
import ctypes
import io
import os
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from unittest.mock import patch

import apsw


@dataclass(eq=False)
class Node:
    """A file, a directory or a link, by whatever names it has."""

    kind: Literal["file", "folder", "link"]
    name: str
    """The first it had."""
    content: bytes = b""
    """Of a file, or where a link points to; this and what follows: before the recording."""
    at_ns: int = 0
    entries: dict[str, Node] = field(default_factory=dict)


@dataclass(eq=False, frozen=True)
class Write:
    node: Node
    offset: int
    data: bytes
    at_ns: int = 0
    """The file's time of change, where it is known; so in Resize."""


@dataclass(eq=False, frozen=True)
class Resize:
    node: Node
    size: int
    at_ns: int = 0


@dataclass(eq=False, frozen=True)
class Enter:
    """A name for a node, new in a directory."""

    folder: Node
    name: str
    node: Node


@dataclass(eq=False, frozen=True)
class Leave:
    folder: Node
    name: str
    node: Node


@dataclass(eq=False, frozen=True)
class Move:
    """A rename, over whatever had the new name."""

    folder: Node
    name: str
    node: Node
    to_folder: Node
    to_name: str


@dataclass(eq=False, frozen=True)
class Sync:
    """Of a file or a directory, when it has returned."""

    node: Node


@dataclass(eq=False, frozen=True)
class Mark:
    """What the run says of itself."""

    what: Literal["begun", "acknowledged"]
    number: int


Operation = Write | Resize | Enter | Leave | Move | Sync | Mark
Steps = Generator[bool, Any, None]
"""What is looked at before a call: whether it writes to the tree. After it the rest is run, with its result."""
_open = open


class Recorder:
    """Inside the `with` block, what this process does to the tree at `root` is kept in `operations`.

    What stands there before is taken for durable. Of SQLite's files the -shm is left out: it is memory.
    """

    def __init__(self, root: Path) -> None:
        self.operations: list[Operation] = []
        self._nodes: dict[tuple[int, int], Node] = {}
        self._lock = threading.RLock()
        self._undo = ExitStack()
        self.root = self._known(root.resolve())

    def mark(self, what: Literal["begun", "acknowledged"], number: int) -> None:
        self.add(Mark(what, number))

    def add(self, operation: Operation) -> None:
        with self._lock:
            self.operations.append(operation)

    def __enter__(self) -> Self:
        steps: dict[str, Callable[..., Steps]] = {
            **dict.fromkeys(("truncate", "ftruncate"), self._truncate),
            **dict.fromkeys(("fsync", "fdatasync"), self._sync),
            **dict.fromkeys(("rename", "replace"), self._rename),
            **dict.fromkeys(("unlink", "remove", "rmdir"), self._remove),
            "open": self._open,
            "write": self._write,
            "pwrite": self._pwrite,
            "mkdir": self._mkdir,
            "symlink": self._symlink,
            "link": self._link,
        }
        for name, look in steps.items():
            self._undo.enter_context(patch.object(os, name, self._heard(getattr(os, name), look)))
        for module in (builtins, io):
            self._undo.enter_context(patch.object(module, "open", self._opened))
        vfs = _VFS(self)
        self._undo.callback(vfs.unregister)
        self._undo.enter_context(_heard_directories(vfs, self._synced_directory))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    def call(self, steps: Steps, real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Do it, and record it where it did not fail."""
        with self._lock:
            if next(steps):
                self.before(real)
            result = real(*args, **kwargs)
            with suppress(StopIteration):
                steps.send(result)
            return result

    def before(self, real: Callable[..., Any]) -> None:
        """Called before each call that writes to the tree; what it raises is what that call raises."""

    def node_at(self, path: Path) -> Node | None:
        """What stands at a path under the root."""
        try:
            stat = path.lstat()
        except OSError:
            return None
        return self._nodes.get((stat.st_dev, stat.st_ino))

    def new(self, path: Path, node: Node) -> None:
        """Record that it was made there."""
        folder = self.node_at(path.parent)
        if folder is not None:
            self._know(path, node)
            self.add(Enter(folder, path.name, node))

    def wrote(self, fd: int, data: Any, written: int) -> None:
        """Record what has just been written where a descriptor stood."""
        if (node := self._of(fd)) is not None:
            self._put(node, fd, data, os.lseek(fd, 0, os.SEEK_CUR) - written, written)

    # what each function of `os` does

    def _open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> Steps:
        place = _place(path, dir_fd)
        existed = os.path.lexists(place)
        fd = yield bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) and self.node_at(place.parent) is not None
        if not existed:
            self.new(place, Node("file", place.name))
        elif flags & os.O_TRUNC and (node := self._of(fd)) is not None:
            self.add(Resize(node, 0, os.fstat(fd).st_mtime_ns))

    def _write(self, fd: int, data: Any) -> Steps:
        written = yield self._of(fd) is not None
        self.wrote(fd, data, written)

    def _pwrite(self, fd: int, data: Any, offset: int) -> Steps:
        written = yield self._of(fd) is not None
        if (node := self._of(fd)) is not None:
            self._put(node, fd, data, offset, written)

    def _truncate(self, file: Any, length: int) -> Steps:
        node = self._of(file) if isinstance(file, int) else self.node_at(Path(file).resolve())
        yield node is not None
        if node is not None:
            self.add(Resize(node, length, os.stat(file).st_mtime_ns))  # noqa: PTH116 - it may be a descriptor

    def _sync(self, fd: int) -> Steps:
        yield self._of(fd) is not None
        if (node := self._of(fd)) is not None:
            self.add(Sync(node))

    def _mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> Steps:
        place = _place(path, dir_fd)
        yield self.node_at(place.parent) is not None
        self.new(place, Node("folder", place.name))

    def _symlink(
        self, target: Any, path: Any, target_is_directory: bool = False, *, dir_fd: int | None = None
    ) -> Steps:
        place = _place(path, dir_fd)
        yield self.node_at(place.parent) is not None
        self.new(place, Node("link", place.name, os.fsencode(target)))

    def _link(self, old: Any, new: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> Steps:
        place = _place(new, dst_dir_fd)
        yield self.node_at(place.parent) is not None
        if (node := self.node_at(place)) is not None:
            self.new(place, node)

    def _rename(self, old: Any, new: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> Steps:
        before, after = _place(old, src_dir_fd), _place(new, dst_dir_fd)
        yield self.node_at(after.parent) is not None
        node, one, other = (self.node_at(path) for path in (after, before.parent, after.parent))
        if node is not None and one is not None and other is not None:
            self.add(Move(one, before.name, node, other, after.name))

    def _remove(self, path: Any, *, dir_fd: int | None = None) -> Steps:
        place = _place(path, dir_fd)
        node, folder = self.node_at(place), self.node_at(place.parent)
        yield folder is not None
        if node is not None and folder is not None:
            self.add(Leave(folder, place.name, node))

    def removing(self, path: Path) -> Steps:
        """The same, of SQLite."""
        return self._remove(path)

    # parts

    def _opened(self, file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        """What `open` gives; a file that can be written is heard."""
        if set(mode).isdisjoint("wax+"):
            return _open(file, mode, *args, **kwargs)
        raw = _Raw(self, file, mode.replace("b", "").replace("t", ""))
        buffer: Any = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        encoding = kwargs.get("encoding") or (args[1:2] or ("utf-8",))[0]
        return buffer if "b" in mode else io.TextIOWrapper(buffer, encoding)

    def _heard(self, real: Callable[..., Any], look: Callable[..., Steps]) -> Callable[..., Any]:
        def heard(*args: Any, **kwargs: Any) -> Any:
            return self.call(look(*args, **kwargs), real, *args, **kwargs)

        return heard

    def _put(self, node: Node, fd: int, data: Any, offset: int, size: int) -> None:
        self.add(Write(node, offset, bytes(memoryview(data).cast("B")[:size]), os.fstat(fd).st_mtime_ns))

    def _synced_directory(self, path: Path) -> None:
        if (node := self.node_at(path.resolve())) is not None:
            self.add(Sync(node))

    def _of(self, fd: int) -> Node | None:
        stat = os.fstat(fd)
        return self._nodes.get((stat.st_dev, stat.st_ino))

    def _know(self, path: Path, node: Node) -> Node:
        # The number of one that is gone may be given again; who makes a new one says so here.
        stat = path.lstat()
        self._nodes[stat.st_dev, stat.st_ino] = node
        return node

    def _known(self, path: Path) -> Node:
        if path.is_symlink():
            return self._know(path, Node("link", path.name, os.fsencode(path.readlink())))
        if not path.is_dir():
            return self._know(path, Node("file", path.name, path.read_bytes(), path.stat().st_mtime_ns))
        entries = {one.name: self._known(one) for one in path.iterdir() if not one.name.endswith("-shm")}
        return self._know(path, Node("folder", path.name, entries=entries))


class _Raw(io.FileIO):
    """A file that `open` opened, which the functions of `os` do not write."""

    def __init__(self, recorder: Recorder, file: Any, mode: str) -> None:
        self._recorder = recorder
        super().__init__(file, mode, opener=lambda path, flags: os.open(path, flags, 0o666))

    def write(self, data: Any) -> int:
        def steps() -> Steps:
            self._recorder.wrote(self.fileno(), data, (yield True))

        return self._recorder.call(steps(), super().write, data)

    def truncate(self, size: int | None = None) -> int:
        size = self.tell() if size is None else size
        os.ftruncate(self.fileno(), size)
        return size


def _place(path: Any, dir_fd: int | None) -> Path:
    """Where an entry stands, by a path that has no links in it but the entry itself."""
    place = Path(os.fsdecode(path))
    if dir_fd is not None:
        place = Path(f"/proc/self/fd/{dir_fd}").readlink() / place
    return place.parent.resolve() / place.name


class _VFS(apsw.VFS):
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        super().__init__("recording", "unix", makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> Any:  # noqa: N802 - SQLite's name
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        return _File(self._recorder, path and Path(path), name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802 - SQLite's name
        self._recorder.call(self._recorder.removing(Path(filename)), super().xDelete, filename, syncdir)


class _File(apsw.VFSFile):
    def __init__(self, recorder: Recorder, path: Path | None, name: Any, flags: list[int]) -> None:
        self._recorder = recorder
        self._node: Node | None = None
        if path is None:
            super().__init__("unix", name, flags)
        else:
            recorder.call(self._opening(path), super().__init__, "unix", name, flags)

    def _opening(self, path: Path) -> Steps:
        existed = path.exists()
        yield False
        if not existed:
            self._recorder.new(path, Node("file", path.name))
        self._node = self._recorder.node_at(path)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - SQLite's name
        self._do(lambda node: Write(node, offset, bytes(data)), super().xWrite, data, offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802 - SQLite's name
        self._do(lambda node: Resize(node, newsize), super().xTruncate, newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's name
        self._do(Sync, super().xSync, flags)

    def _do(self, operation: Callable[[Node], Operation], real: Callable[..., None], *args: Any) -> None:
        def steps() -> Steps:
            yield self._node is not None
            if self._node is not None:
                self._recorder.add(operation(self._node))

        self._recorder.call(steps(), real, *args)


def _heard_directories(vfs: apsw.VFS, opened: Callable[[Path], None]) -> ExitStack:
    """Be told of each directory that SQLite opens, which it does to sync it and for nothing else."""
    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(ctypes.c_int))
    address = vfs.xGetSystemCall("openDirectory")
    assert address is not None
    real = kind(address)

    def heard(path: bytes, fd: Any) -> int:
        # SQLite gives the name of a file in the directory.
        opened(Path(os.fsdecode(path)).parent)
        return real(path, fd)

    callback = kind(heard)
    vfs.xSetSystemCall("openDirectory", ctypes.cast(callback, ctypes.c_void_p).value or 0)
    undo = ExitStack()
    undo.callback(lambda: callback and vfs.xSetSystemCall("openDirectory", address))
    return undo
