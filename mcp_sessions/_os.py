"""Every difference between operating systems: file locks, forks, and how a disk is told to keep what it was given.

A lock is the kernel's, so it ends with the process that held it, however that ended.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import apsw

try:
    import fcntl
except ImportError:  # Windows, and builds without it
    fcntl = None
try:
    import msvcrt
except ImportError:
    msvcrt = None
try:
    import resource
except ImportError:  # Windows, which has no such limit
    resource = None

POLL_S = 0.005
KILLS = 200
"""How often what is killed is looked for: a second, for what the system itself holds back is waited for no longer."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_HAS_PWRITE = hasattr(os, "pwrite")
_FULL_SYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)  # macOS, whose fsync leaves it to the disk's own cache


class FileLock:
    """An exclusive lock between processes, on a file of its own that is never read or removed by the lock.

    flock where there is one, else msvcrt's; without either it is a lock that SQLite takes on the file. Raises
    OSError where the file cannot be opened, or its disk knows no locks.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1
        self._sqlite: apsw.Connection | None = None

    def try_acquire(self) -> bool:
        """Take it if nobody has it."""
        if fcntl is None and msvcrt is None:
            return self._try_sqlite()
        self._open()
        if fcntl is not None:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True
        windows: Any = msvcrt
        os.lseek(self._fd, 0, os.SEEK_SET)
        try:
            windows.locking(self._fd, windows.LK_NBLCK, 1)
        except OSError:  # held is all that it can say
            return False
        return True

    def acquire(self, timeout_s: float | None = None) -> bool:
        """Wait for it; False when the time is over. Without a time limit flock waits in the kernel, in turn."""
        if timeout_s is None and fcntl is not None:
            self._open()
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            return True
        end = time.monotonic() + timeout_s if timeout_s is not None else float("inf")
        while not self.try_acquire():
            if time.monotonic() >= end:
                return False
            time.sleep(POLL_S)
        return True

    def release(self) -> None:
        """Let go of it; the file stays open for the next time."""
        if self._sqlite is not None:
            self._sqlite.close()
            self._sqlite = None
        elif fcntl is not None:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        elif msvcrt is not None:
            windows: Any = msvcrt
            os.lseek(self._fd, 0, os.SEEK_SET)
            windows.locking(self._fd, windows.LK_UNLCK, 1)

    def close(self) -> None:
        """Let go of the lock and the file. In a forked child it leaves the lock to the parent, who has it too."""
        if self._sqlite is not None:
            self._sqlite.close()
            self._sqlite = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def in_place(self) -> bool:
        """Whether the locked file is still the one at its path, so that others meet this lock there."""
        if self._fd < 0:
            return self._sqlite is not None and self.path.exists()
        try:
            return os.path.samestat(os.fstat(self._fd), os.stat(self.path))
        except FileNotFoundError:
            return False

    def _open(self) -> None:
        if self._fd < 0:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)

    def _try_sqlite(self) -> bool:
        connection: Any
        try:
            connection = apsw.Connection(str(self.path))
        except apsw.CantOpenError as error:
            raise OSError(f"{self.path}: {error}") from error
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except apsw.BusyError:
            connection.close()
            return False
        except apsw.Error as error:
            connection.close()
            if not self.path.exists():  # taken away since it was opened, which SQLite calls an error of the disk
                raise FileNotFoundError(errno.ENOENT, "was taken away", str(self.path)) from error
            raise OSError(f"{self.path}: {error}") from error
        self._sqlite = connection
        return True


def boot_id() -> str:
    """What differs after each start of the machine; nothing where the system does not tell."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def has_kernel_lock() -> bool:
    """Whether waiting for a FileLock is cheap and in turn, so that it may stand before every commit."""
    return fcntl is not None or msvcrt is not None


def holder_of(path: Path) -> str:
    """Who holds the lock on a file, as far as the system tells."""
    try:
        stat = os.stat(path)
        with open("/proc/locks", encoding="utf-8") as file:
            locks = [line.split() for line in file if f":{stat.st_ino} " in line and "->" not in line]
        # Some file systems count their devices otherwise there than in stat; then the inode must do.
        device = f"{os.major(stat.st_dev):02x}:{os.minor(stat.st_dev):02x}:"
        lock = next((lock for lock in locks if lock[5].startswith(device)), None) or locks[0]
        with open(f"/proc/{lock[4]}/cmdline", encoding="utf-8", errors="replace") as command:
            line = command.read().replace("\0", " ").strip()
        return f"process {lock[4]} ({line[:120]})"
    except (OSError, IndexError):
        pass
    return "another process"


def end_tree(pid: int, mark: str) -> None:
    """Kill a process that leads a group of its own, and all that it started: its group, and on Linux whatever has
    `mark` in its environment, in a session of its own too.
    """
    if os.name == "nt":
        taskkill = ["taskkill", "/T", "/F", "/PID", str(pid)]
        subprocess.run(taskkill, check=False, stdin=subprocess.DEVNULL, capture_output=True)  # noqa: S603 - a number
        return
    _kill(os.killpg, pid)
    for _ in range(KILLS):
        marked = _marked(mark)
        for one in marked:
            _kill(os.kill, one)
        if not marked:
            return
        time.sleep(POLL_S)  # one may have started another one meanwhile, and one that is killed is still there


def _marked(mark: str) -> list[int]:
    """The processes that are alive and have that in their environment, as far as the system tells."""
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            alive = mark.encode() in (folder / "environ").read_bytes()
        except OSError:
            continue
        if alive:
            found.append(int(folder.name))
    return found


def _kill(how: Callable[[int, int], None], pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        how(pid, signal.SIGKILL)


_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_.")
_DEVICES = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|\Z)")
"""Names that Windows takes for a device, whatever follows the dot."""
MOST_NAME_CHARS = 200


def limit_memory(most: int) -> None:
    """Give this process no more memory than so many bytes, where the system can be told that."""
    if resource is not None:
        with suppress(OSError, ValueError):  # macOS refuses what is below what is mapped already
            resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


@lru_cache(maxsize=4096)
def file_name(some_id: str) -> str:
    """A name for a file or directory, another one for each id, also where case does not count, and legal everywhere.

    All but lower-case letters, digits, `-`, `_` and inner `.` is percent-encoded; what gets too long ends in a digest.
    """
    name = "".join(chr(byte) if byte in _PLAIN else f"%{byte:02x}" for byte in some_id.encode())
    if name.startswith(".") or _DEVICES.match(name):
        name = f"%{ord(name[0]):02x}{name[1:]}"
    if name.endswith("."):
        name = name[:-1] + "%2e"
    if len(name) > MOST_NAME_CHARS:
        name = f"{name[:128]}%%{hashlib.sha256(some_id.encode()).hexdigest()[:40]}"
    return name


def sync_file(fd: int) -> None:
    """When this returns, what was written to a file is on the disk itself, and so is its length."""
    if _FULL_SYNC is not None and fcntl is not None:
        try:
            fcntl.fcntl(fd, _FULL_SYNC)
        except OSError:  # a file system that does not know it
            os.fsync(fd)
    elif hasattr(os, "fdatasync"):
        os.fdatasync(fd)
    else:
        os.fsync(fd)


def write_at(fd: int, data: bytes, offset: int) -> None:
    """All of the data, at a place of the file."""
    while True:
        if _HAS_PWRITE:
            written = os.pwrite(fd, data, offset)
        else:
            os.lseek(fd, offset, os.SEEK_SET)
            written = os.write(fd, data)
        if written == len(data):
            return
        data, offset = data[written:], offset + written


def read_at(fd: int, most: int, offset: int) -> bytes:
    """What stands at a place of the file, as far as it goes."""
    if _HAS_PWRITE:
        return os.pread(fd, most, offset)
    os.lseek(fd, offset, os.SEEK_SET)
    return os.read(fd, most)


def make_directory(path: Path, *, durable: bool = False) -> None:
    """The directory and those above it; whatever was missing belongs to the user alone.

    `durable`: what is synced in it survives a loss of power, for its own entry does.
    """
    if not path.is_dir():
        if path.parent != path:  # as it is for a drive that is not there
            make_directory(path.parent, durable=durable)
        path.mkdir(mode=0o700, exist_ok=True)
        if durable:
            sync_directory(path.parent)


def sync_pragmas() -> list[str]:
    """What SQLite must be told so that a sync reaches the disk itself."""
    return ["PRAGMA fullfsync=1", "PRAGMA checkpoint_fullfsync=1"] if sys.platform == "darwin" else []


def sync_directory(path: Path) -> None:
    """Let what was made, renamed or removed in a directory survive a loss of power, where its system can be told."""
    if os.name == "nt":  # which opens no directories, and writes their changes in order
        return
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def open_files(most: int) -> int:
    """How many files this process may have open, up to `most`: as many as the system lets it ask for."""
    if resource is None:
        return most
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        except (OSError, ValueError):  # macOS may allow less than it says
            return soft
    return allowed


class Forked(Protocol):
    """What must not be in use while its process forks."""

    def before_fork(self) -> None: ...
    def after_fork(self, *, in_child: bool) -> None: ...


class _Forks:
    """Who is told of forks. `os.register_at_fork` keeps what it is given for ever, so it is given this alone."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._parts: weakref.WeakSet[Forked] = weakref.WeakSet()
        self._told: list[Forked] = []
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._before, after_in_parent=self._after, after_in_child=self._after_in_child)

    def tell(self, part: Forked) -> None:
        with self._lock:
            self._parts.add(part)

    def _before(self) -> None:
        self._lock.acquire()
        self._told = list(self._parts)
        for part in self._told:
            part.before_fork()

    def _after(self, *, in_child: bool = False) -> None:
        for part in self._told:
            part.after_fork(in_child=in_child)
        self._told = []
        self._lock.release()

    def _after_in_child(self) -> None:
        self._after(in_child=True)


_forks = _Forks()


def tell_of_forks(part: Forked) -> None:
    """From now on `part` is told before and after each fork of this process, as long as it lives."""
    _forks.tell(part)
