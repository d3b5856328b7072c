"""What the child processes of these tests do, and how a test writes the same itself."""

from __future__ import annotations

import gc
import os
import random
import resource
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import apsw

from mcp_sessions import _os
from mcp_sessions._os import FileLock
from mcp_sessions.errors import StorageError
from mcp_sessions.models import Change, ConversationMessage, Invocation, NewMessage, Query, SessionMetadata, Want
from mcp_sessions.session import new_id
from mcp_sessions.storage import SessionStorage, open_storage
from mcp_sessions.storage.heads import join
from mcp_sessions.storage.sqlite import SQLiteSessionStorage, backup
from tests.processes import hear, say, until
from tests.stores import open_store

AT = datetime(2026, 11, 22, 10, 0, 0, tzinfo=UTC)


def new_session(storage: SessionStorage, session_id: str) -> None:
    storage.create(SessionMetadata(session_id=session_id, created_at=AT, updated_at=AT))


def saying(text: str, *, message_id: str | None = None, caller: str = "test") -> Change:
    """A message, and the record of the call that brought it, whose result names the seq that it gets."""
    message_id = message_id or new_id("msg")
    invocation_id = new_id("inv")
    message = ConversationMessage(
        message_id=message_id, role="user", content=text, timestamp=AT, invocation_id=invocation_id
    )
    record = Invocation(
        invocation_id=invocation_id,
        tool_name="session_add_message",
        kind="session",
        caller=caller,
        started_at=AT,
        arguments={"text": text[:100]},
        result={"message_id": message_id},
        fills={"seq": "seq.0"},
    )
    return Change(at=AT, messages=(NewMessage(message=message, given=False),), records=(record,))


def add(storage: SessionStorage, session_id: str, text: str, caller: str = "test") -> dict[str, Any]:
    """Commit a message with its record; what the caller of the tool is told."""
    change = saying(text, caller=caller)
    committed = storage.commit(session_id, change)
    record = change.records[0]
    return {"invocation_id": record.invocation_id, **join(record.result, record.fills, committed.number)}


# programs


def open_and_write(name: str, each: int) -> None:
    """For each path that is told: open it, make a session, append, close."""
    say("ready")
    while path := hear():
        with SQLiteSessionStorage(path) as storage:
            new_session(storage, name)
            say([add(storage, name, f"{name} {number}") for number in range(each)])


def append(path: str, session_id: str, name: str, count: int, durability: str = "full") -> None:
    """Append `count` messages (0: go on for ever), and tell of each after it is committed."""
    with SQLiteSessionStorage(path, durability=durability) as storage:
        _append(storage, session_id, name, count)


def append_on_and_on(kind: str, folder: str, durability: str, session_id: str, name: str) -> None:
    """The same for ever, to a store of any kind."""
    with open_store(kind, Path(folder), durability) as storage:
        _append(storage, session_id, name, 0)


def _append(storage: SessionStorage, session_id: str, name: str, count: int) -> None:
    say("ready")
    hear()
    number = 0
    while not count or number < count:
        number += 1
        say(add(storage, session_id, f"{name} {number}", name))


def act(kind: str, folder: str, durability: str, name: str, steps: int) -> None:
    """Do a run, whose acts are those of its name, and tell of each after it is done."""
    from mcp_sessions.storage.files import erasing
    from tests.storage.acts import Run  # by way of the kit it imports pytest, which takes most programs twice as long

    erasing.LEAST_S = 0  # so that logs are written anew in the middle
    run = Run(random.Random(name), steps, name)
    with open_store(kind, Path(folder), durability) as storage:
        say("ready")
        hear()
        for one in run.acts:
            one.do(storage)
            say(one.text)


def open_and_add(folder: str, session_id: str) -> None:
    """Open a store of files when told to, and commit when told to again."""
    say("ready")
    hear()
    with open_store("files", Path(folder).parent) as storage:
        say("opened")
        hear()
        told = add(storage, session_id, "from one of many")
    say(told)


def hold_gate(path: str) -> None:
    """Commit a message, but stay inside the transaction until told to go on."""
    with SQLiteSessionStorage(path) as storage:

        def work(db: Any) -> None:
            say("inside")
            hear()

        storage._here().writer.run(work)
        say(add(storage, "a", "from the holder"))


def hold_lock(path: str) -> None:
    """Hold SQLite's own lock, without the gate, as a foreign program would."""
    connection = apsw.Connection(path)
    connection.execute("BEGIN IMMEDIATE")
    say("locked")
    hear()
    connection.execute("COMMIT")
    connection.close()


def read_for_long(path: str) -> None:
    """Keep one snapshot open until told; the last seq in it, before and after."""
    with SQLiteSessionStorage(path) as storage, storage._here().readers.one(snapshot=True) as db:
        question = "SELECT max(seq) FROM messages"
        say(db.execute(question).fetchall()[0][0])
        hear()
        say(db.execute(question).fetchall()[0][0])


def own(path: str) -> None:
    """Tell an owner's name, and keep it until told."""
    with SQLiteSessionStorage(path) as storage:
        say(storage.owner())
        hear()


def own_over_and_over(path: str, count: int) -> None:
    """Become an owner and leave again, while others do; whether each was alive to somebody else meanwhile."""
    with SQLiteSessionStorage(path) as other:
        say("ready")
        hear()
        for _ in range(count):
            with SQLiteSessionStorage(path) as storage:
                owner = storage.owner()
                alive = other.alive(owner)
            say(alive, other.alive(owner))


def within_file_size(path: str, limit: int) -> None:
    """Write until the file may not grow, then go on when it may again: with the same handle."""
    storage = SQLiteSessionStorage(path)
    new_session(storage, "a")
    told = [add(storage, "a", "before")]
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    refusals: list[str] = []
    while len(refusals) < 3:
        try:
            told.append(add(storage, "a", "x" * 10_000))
        except StorageError as error:
            refusals.append(f"{type(error).__name__}: {error}")
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    told.append(add(storage, "a", "after"))
    say({"told": told, "refusals": refusals})
    storage.close()


class SyncVFS(apsw.VFS):
    """The disk below SQLite, which counts the syncs of its files and fails those it is told to fail."""

    def __init__(self) -> None:
        self.syncs: list[str] = []
        self.failing = ""
        super().__init__("sync", "unix", makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> SyncFile:  # noqa: N802 - SQLite's name
        return SyncFile(self, name, flags)


class SyncFile(apsw.VFSFile):
    def __init__(self, vfs: SyncVFS, name: Any, flags: list[int]) -> None:
        self._vfs = vfs
        filename = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._kind = str(filename).rpartition("-")[2] if str(filename).endswith(("-wal", "-journal")) else "db"
        super().__init__("unix", name, flags)

    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's name
        self._vfs.syncs.append(self._kind)
        if self._kind == self._vfs.failing:
            raise apsw.IOError("the disk did not sync")
        super().xSync(flags)


def with_failing_syncs(path: str) -> None:
    """Commit, fail to sync three commits, and close: after the last of them nothing more is written."""
    vfs = SyncVFS()
    storage = SQLiteSessionStorage(path)
    told = [add(storage, "a", "before")]
    refusals: list[str] = []
    for number in range(3):
        vfs.failing = "wal"
        try:
            told.append(add(storage, "a", f"not synced {number}"))
        except StorageError as error:
            refusals.append(str(error))
        vfs.failing = ""
        if number < 2:
            told.append(add(storage, "a", f"after {number}"))
    storage.close()
    say({"told": told, "refusals": refusals})


def count_syncs(path: str, durability: str, commits: int) -> None:
    """The syncs of so many commits, one after the other, and what SQLite says of its settings."""
    vfs = SyncVFS()
    storage = SQLiteSessionStorage(path, durability=durability)
    new_session(storage, "a")
    vfs.syncs.clear()
    for number in range(commits):
        add(storage, "a", f"{number}")
    syncs = list(vfs.syncs)
    names = ("journal_mode", "synchronous", "secure_delete", "mmap_size", "temp_store")
    say({"syncs": syncs, **storage._here().writer.run(lambda db: {name: db.pragma(name) for name in names})})
    storage.close()


def count_syncs_of_commits_at_the_gate(path: str, commits: int) -> None:
    """The syncs of so many commits that waited together for the gate."""
    vfs = SyncVFS()
    with SQLiteSessionStorage(path) as storage, ThreadPoolExecutor(commits) as threads:
        new_session(storage, "a")
        gate = FileLock(Path(f"{path}-gate"))
        assert gate.try_acquire()
        waiting = [threads.submit(add, storage, "a", f"{number}") for number in range(commits)]
        writer = storage._here().writer
        until(lambda: len(writer._queue) == commits)
        vfs.syncs.clear()
        gate.release()
        for one in waiting:
            one.result()
        say(list(vfs.syncs))


def fork_and_go_on(url: str, children: int) -> None:
    """Fork while threads write and read; child and parent use the same object; all that anybody was told."""
    storage = open_storage(url)
    told: list[dict[str, Any]] = []
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            told.append(add(storage, "a", "parent's thread"))
            storage.read("a", Want(messages=5))

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    owner = storage.owner()
    pipes: list[tuple[int, int]] = []
    for number in range(children):
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            _in_child(storage, owner, number, writing)
        os.close(writing)
        pipes.append((pid, reading))
    for pid, reading in pipes:
        with os.fdopen(reading, encoding="utf-8") as pipe:
            said = pipe.read()
        _, status = os.waitpid(pid, 0)
        say({"child": said, "status": status})
    assert storage.alive(owner)
    stop.set()
    for thread in threads:
        thread.join()
    told.append(add(storage, "a", "parent afterwards"))
    say({"told": told})
    storage.close()


def _in_child(storage: SessionStorage, parents: str, number: int, writing: int) -> None:
    status = 1
    try:
        told = [add(storage, "a", f"child {number}") for _ in range(5)]
        assert storage.alive(parents)
        assert storage.owner() != parents
        storage.read("a", Want(messages=5))
        if number % 2:  # the other half ends without closing
            storage.close()
        os.write(writing, repr([entry["message_id"] for entry in told]).encode())
        status = 0
    finally:
        os._exit(status)


def fork_and_outlive(path: str) -> None:
    """Fork, and let the child write one message for each line, with what it has from a parent that ends."""
    storage = SQLiteSessionStorage(path)
    add(storage, "a", "parent")
    storage.read("a", Want(messages=1))
    if os.fork():
        say("forked")
        signal.pause()
    while hear():
        say(add(storage, "a", "child"))
    storage.close()
    say("closed")
    os._exit(0)


def fork_inside(path: str) -> None:
    """Fork from within a transaction, which nobody can wait for."""
    storage = SQLiteSessionStorage(path, busy_timeout_s=0.2)
    told = [add(storage, "a", "before")]
    inside, forked = threading.Event(), threading.Event()

    def work(_: Any) -> None:
        inside.set()
        forked.wait()

    thread = threading.Thread(target=storage._here().writer.run, args=(work,))
    thread.start()
    inside.wait()
    pid = os.fork()
    if pid == 0:
        try:
            storage.read("a", Want())
        except StorageError as error:
            say(str(error))
        os._exit(0)
    os.waitpid(pid, 0)
    forked.set()
    thread.join()
    told.append(add(storage, "a", "after"))
    say(told)
    storage.close()


_pooled: SQLiteSessionStorage | None = None


def _add_in_pool(number: int) -> dict[str, Any]:
    assert _pooled is not None
    return add(_pooled, "a", f"pool {number}")


def use_in_pool(path: str) -> None:
    """A multiprocessing pool of forks writes through the object that its parent opened and uses."""
    global _pooled  # noqa: PLW0603 - how a forked worker comes by what its parent has
    _pooled = SQLiteSessionStorage(path)
    told = [add(_pooled, "a", "before")]
    with get_context("fork").Pool(4) as pool:
        waiting = pool.map_async(_add_in_pool, range(40))
        told += [add(_pooled, "a", "meanwhile") for _ in range(10)]
        told += waiting.get()
    told.append(add(_pooled, "a", "after"))
    say(told)
    _pooled.close()


def fork_and_wait(path: str) -> None:
    """Leave a forked child behind, which lives on; tell its id."""
    storage = SQLiteSessionStorage(path)
    add(storage, "a", "before")
    owner = storage.owner()
    pid = os.fork()
    if pid == 0:
        signal.pause()
    say(owner, pid)
    while True:
        add(storage, "a", "on and on")


def leave_without_closing(path: str, how: str) -> None:
    """Let the interpreter exit while the writer's thread is idle, at work, or at a gate that another holds."""
    storage = SQLiteSessionStorage(path, busy_timeout_s=1.0)
    told = [add(storage, "a", "before")]
    if how == "busy":

        def write() -> None:
            while True:
                add(storage, "a", "on and on")

        for _ in range(4):
            threading.Thread(target=write, daemon=True).start()
        told += [add(storage, "a", f"busy {number}") for number in range(random.Random(path).randrange(20))]
    elif how == "blocked":
        say("ready")
        hear()

        def wait() -> None:
            try:
                add(storage, "a", "never")
            except StorageError as error:
                say(str(error))

        thread = threading.Thread(target=wait)
        thread.start()
        thread.join()
    say(told)


def delete_and_stop(path: str, session_id: str, pieces: int) -> None:
    """Delete a session, and wait for the end in the middle, after some pieces of it have gone."""
    storage = SQLiteSessionStorage(path)
    purge = storage._writing.purge
    gone = 0

    def slowly(db: Any) -> bool:
        nonlocal gone
        if gone == pieces:
            say("in the middle")
            hear()
        gone += 1
        return purge(db)

    storage._writing.purge = slowly
    storage.delete(session_id, Change(at=AT))


def back_up_and_stop(path: str, copy: str) -> None:
    """Back up, and wait for the end once all is copied and nothing is in its place yet."""
    check_place = backup.check_place
    looks = 0

    def checking(place: Path, *, replace: bool) -> None:
        nonlocal looks
        check_place(place, replace=replace)
        looks += 1
        if looks == 2:  # before the copy, and after it
            say("copied")
            hear()

    backup.check_place = checking
    with SQLiteSessionStorage(path) as storage:
        storage.backup(copy)


def back_up_unsynced(path: str, copy: str) -> None:
    """Back up onto a disk that does not sync, and then onto one that does."""
    vfs = SyncVFS()
    with SQLiteSessionStorage(path) as storage:
        vfs.failing = "db"
        try:
            storage.backup(copy)
        except StorageError as error:
            say(str(error))
        say([file.name for file in Path(copy).parent.iterdir()])
        vfs.failing = ""
        storage.backup(copy)


def without(name: str, program: str, *args: Any) -> None:
    """Run another program where the system lacks something."""
    assert name == "fcntl"
    _os.fcntl = None
    globals()[program](*args)


def write_many(path: str, count: int, size: int) -> None:
    """Many commits of a size, and how large the log was at most."""
    with SQLiteSessionStorage(path, durability="process") as storage:
        new_session(storage, "a")
        say("ready")
        hear()
        log = Path(path + "-wal")
        most = 0
        for number in range(count):
            storage.commit("a", Change(at=AT, set={"number": f"{number:0{size}}"}))
            most = max(most, log.stat().st_size)
        say(most)


def read_on_and_on(path: str) -> None:
    """Read one snapshot after the other."""
    with SQLiteSessionStorage(path) as storage:
        say("ready")
        while True:
            storage.read("a", Want(messages=20, names=True, prefix=""))


def _in_use() -> dict[str, int]:
    gc.collect()
    resident = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return {
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "threads": threading.active_count(),
        "memory": resident * resource.getpagesize(),
    }


def open_use_and_close(folder: str, count: int) -> None:
    """What the process uses after a few stores, and after so many more."""

    def use(number: int) -> None:
        with SQLiteSessionStorage(f"{folder}/{number}.db", durability="process") as storage:
            new_session(storage, "a")
            add(storage, "a", "hello world")
            storage.owner()
            storage.search("hello", Query())
            storage.read("a", Want(messages=5))

    for number in range(20):
        use(number)
    say(_in_use())
    for number in range(count):
        use(number + 20)
    say(_in_use())


def commit_and_read(path: str, count: int) -> None:
    """What the process uses after a few calls, and after so many more commits and as many reads."""
    with SQLiteSessionStorage(path, durability="process") as storage:
        new_session(storage, "a")
        for number in range(count + 200):
            storage.commit("a", Change(at=AT, set={"key": number}, messages=saying("hello").messages))
            storage.read("a", Want(messages=5, keys=("key",)))
            if number == 200:
                say(_in_use())
        say(_in_use())
