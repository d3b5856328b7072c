"""Every difference between operating systems: file locks, and how a disk is told to keep what it was given.

A lock is the kernel's, so it ends with the process that held it, however that ended.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import apsw

try:
    import fcntl
except ImportError:  # Windows, and builds without it
    fcntl = None
try:
    import msvcrt
except ImportError:
    msvcrt = None

POLL_S = 0.005


class FileLock:
    """An exclusive lock between processes, on a file of its own that is never read or removed by the lock.

    flock where there is one, else msvcrt's; without either it is a lock that SQLite takes on the file.
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
        try:
            if fcntl is not None:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            else:
                windows: Any = msvcrt
                os.lseek(self._fd, 0, os.SEEK_SET)
                windows.locking(self._fd, windows.LK_NBLCK, 1)
        except OSError:
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
        """Let go of the lock and the file."""
        if self._sqlite is not None:
            self._sqlite.close()
            self._sqlite = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        if self._fd < 0:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)

    def _try_sqlite(self) -> bool:
        connection = apsw.Connection(str(self.path))
        try:
            connection.execute("BEGIN EXCLUSIVE")  # pyright: ignore[reportUnknownMemberType]
        except apsw.BusyError:
            connection.close()
            return False
        self._sqlite = connection
        return True


def has_kernel_lock() -> bool:
    """Whether waiting for a FileLock is cheap and in turn, so that it may stand before every commit."""
    return fcntl is not None or msvcrt is not None


def holder_of(path: Path) -> str:
    """Who holds the lock on a file, as far as the system tells."""
    try:
        inode = os.stat(path).st_ino
        with open("/proc/locks", encoding="utf-8") as locks:
            pids = [line.split()[4] for line in locks if line.split()[1] != "->" and f":{inode} " in line]
        for pid in pids:
            with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as command:
                line = command.read().replace("\0", " ").strip()
            return f"process {pid} ({line[:120]})"
    except (OSError, IndexError):
        pass
    return "another process"


def sync_pragmas() -> list[str]:
    """What SQLite must be told so that a sync reaches the disk itself."""
    return ["PRAGMA fullfsync=1", "PRAGMA checkpoint_fullfsync=1"] if sys.platform == "darwin" else []
