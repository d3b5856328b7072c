"""Where everything lies, and how it gets there: each act can be taken back until the commit is done.

SESSIONS_DIR/<id>/log.jsonl         the truth of a session
SESSIONS_DIR/<id>/…                 its views (views.py)
SESSIONS_DIR/.store/log.jsonl       the truth of what belongs to no session, or to several
SESSIONS_DIR/.index/                what can be made again from these
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ..._os import file_name, make_directory, read_at, sync_directory, sync_file, write_at
from ...errors import StorageError
from .lines import BEGINNING, TAIL, Place, tail

LOG, CONVERSATION = "log.jsonl", "conversation.jsonl"
STORE = ".store"
INDEX = ".index"
SHARED = ""
"""The name of the store's own log."""
TAKEN = (errno.ENOTEMPTY, errno.EEXIST)
_READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_WRITE = os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_log = logging.getLogger(__name__)


class Folder:
    """The folder of all sessions. `durable`: what is appended is on the disk when `append` returns."""

    def __init__(self, sessions_dir: Path, *, durable: bool) -> None:
        self.path = sessions_dir
        self.store, self.index = sessions_dir / STORE, sessions_dir / INDEX
        self.durable = durable
        self.root = str(sessions_dir)
        self._undo: list[Callable[[], None]] = []

    def prepare(self) -> None:
        """Make what is missing."""
        for path in (self.path, self.store, self.index):
            make_directory(path, durable=True)
        ignore = self.index / ".gitignore"
        if not ignore.exists():
            with suppress(OSError):
                ignore.write_text("*\n", encoding="utf-8")

    def of(self, name: str) -> Path:
        """The folder of a session, or of the store's own log."""
        return self.path / (name or STORE)

    def log(self, name: str) -> Path:
        """A log."""
        return Path(self._log(name))

    def _log(self, name: str) -> str:
        return f"{self.root}{os.sep}{name or STORE}{os.sep}{LOG}"  # before each commit, where a Path takes its time

    def stat(self, name: str) -> tuple[int, int] | None:
        """How long a log is, and when it was changed last, in ns; None where there is none.

        Raises StorageError where something else stands there.
        """
        try:
            found = os.lstat(self._log(name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(found.st_mode):
            raise StorageError(f"{self.log(name)} is not a file, so it is no session's log. Move it away.")
        return found.st_size, found.st_mtime_ns

    def size(self, name: str) -> int | None:
        """How long a log is; None where there is none."""
        found = self.stat(name)
        return None if found is None else found[0]

    def conversation(self, name: str) -> str:
        """The view of a session's messages."""
        return f"{self.root}{os.sep}{name}{os.sep}{CONVERSATION}"

    def is_link(self, name: str) -> bool:
        """Whether the folder of a session is a link: nothing is followed out of the store."""
        try:
            return bool(name) and stat.S_ISLNK(os.lstat(f"{self.root}{os.sep}{name}").st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False

    # acts that can be taken back

    def begin(self) -> None:
        """Nothing from before is taken back any longer."""
        self._undo = []

    def undo(self) -> bool:
        """Take back all since `begin`, last first; whether that worked."""
        whole = True
        while self._undo:
            act = self._undo.pop()
            try:
                act()
            except OSError:
                _log.exception("What a refused commit had written could not be taken back in %s", self.path)
                whole = False
        return whole

    def append(self, name: str, data: bytes, at: Place) -> int:
        """Write lines to the end of a log, which is made where it has none; when it was changed last, in ns.

        Raises OSError; StorageError where the log does not end at `at`, in the line that is known.
        """
        new = at.size == 0
        if new:
            self._make(name)
        fd = os.open(self._log(name), _WRITE | (os.O_CREAT if new else 0), 0o600)
        try:
            if os.fstat(fd).st_size != at.size or (at.size and read_at(fd, TAIL, at.size - TAIL) != tail(at)):
                raise StorageError(f"{self.log(name)} was changed by another program just now. Retry.")
            self._undo.append(lambda: self._cut(name, at.size))
            write_at(fd, data, at.size)
            if self.durable:
                sync_file(fd)
                if new:
                    sync_directory(self.of(name))
                    sync_directory(self.path)
            return os.fstat(fd).st_mtime_ns
        finally:
            os.close(fd)

    def remove(self, name: str, line: int) -> None:
        """Take a session's folder out of sight, in one step, before this line of the store's own log deletes it."""
        gone = self.store / f"deleted-{line}-{name}"
        os.rename(self.of(name), gone)
        self._undo.append(lambda: os.rename(gone, self.of(name)))
        if self.durable:
            sync_directory(self.path)
            sync_directory(self.store)

    def deleted(self) -> list[Path]:
        """The folders that are out of sight."""
        return list(self.store.glob("deleted-*-*"))

    def put_back(self, deleted: Path, lines: int) -> None:
        """Put a folder back in sight, unless its deletion is among these lines of the store's own log.

        Raises OSError; StorageError where another one stands there.
        """
        if int(deleted.name.split("-")[1]) <= lines:
            return
        place = self.of(name_of_deleted(deleted))
        try:
            os.rename(deleted, place)
        except OSError as error:
            if error.errno not in TAKEN:
                raise
            raise StorageError(
                f"{place} was put back, and {deleted} is what stood there: its deletion was not finished. Move one of "
                "them out of the store."
            ) from error

    def rename(self, path: Path, name: str) -> None:
        """Give a folder the name of its session, before a log is in it, which would be wrong elsewhere."""
        path.rename(self.of(name))
        if self.durable:
            sync_directory(self.path)

    def drop_empty(self, name: str) -> None:
        """Remove a session's folder to which no log came before its writer ended; not the store's own."""
        if name == SHARED:
            return
        with suppress(OSError):
            os.rmdir(self.of(name))

    def replace(self, name: str, new: Path) -> int:
        """Put another file in the place of a log, in one step; when it was changed last, in ns."""
        fd = os.open(new, _WRITE)
        try:
            sync_file(fd)
        finally:
            os.close(fd)
        os.replace(new, self.log(name))
        sync_directory(self.of(name))
        return os.stat(self.log(name)).st_mtime_ns

    def set_aside(self, name: str, end: Place, why: str) -> Path:
        """Move what stands behind a place of a log into a file of its own; nothing is lost."""
        aside = self.of(name) / f"log.{why}-{end.lines + 1}"
        number = 1
        while aside.exists():
            number += 1
            aside = self.of(name) / f"log.{why}-{end.lines + 1}-{number}"
        with open(self.log(name), "r+b") as file:
            file.seek(end.size)
            with open(aside, "xb") as copy:
                shutil.copyfileobj(file, copy)
                copy.flush()
                sync_file(copy.fileno())
            sync_directory(self.of(name))
            file.truncate(end.size)
            sync_file(file.fileno())
        return aside

    def _make(self, name: str) -> None:
        path = self.of(name)
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                raise StorageError(f"{path} stands where the session's folder must be. Move it away.") from None
        else:
            self._undo.append(lambda: _remove_directory(path))
        self._undo.append(lambda: self.log(name).unlink(missing_ok=True))

    def _cut(self, name: str, size: int) -> None:
        fd = os.open(self.log(name), _WRITE)
        try:
            os.ftruncate(fd, size)
            if self.durable:
                sync_file(fd)
        finally:
            os.close(fd)


def _remove_directory(path: Path) -> None:
    try:
        os.rmdir(path)
    except OSError as error:
        if error.errno not in TAKEN:
            raise


def is_store(path: Path) -> bool:
    """Whether sessions are kept in a folder; also where what copied it left out folders with nothing in them."""
    return (path / STORE).is_dir() or any(map(_is_log, path.glob(f"*/{LOG}")))


def _is_log(path: Path) -> bool:
    with suppress(OSError), path.open("rb") as file:
        return file.read(len(BEGINNING)) == BEGINNING
    return False


def name_of_deleted(path: Path) -> str:
    """The name that a folder out of sight had."""
    return path.name.split("-", 2)[2]


def name_of(session_id: str) -> str:
    """The name of a session's folder."""
    return file_name(session_id)
