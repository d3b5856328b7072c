"""FileSystemSessionStorage: sessions that can be read, searched, compared and backed up with any tool.

What it answers comes from a SQLite store, the index, which holds nothing that the logs do not tell.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import apsw

from ..._os import FileLock, boot_id, holder_of
from ...errors import (
    InvalidArgumentError,
    SchemaChangedError,
    SessionExistsError,
    StorageBusyError,
    StorageError,
)
from ...models import Change, Finding, Limits, SessionMetadata
from ..restoring import checked
from ..sqlite.connecting import translated
from ..sqlite.readers import Readers
from ..sqlite.storage import Opened, SQLiteSessionStorage
from ..sqlite.writer import Work, Writer
from ..sqlite.writing import Writing
from . import known
from .checking import LOST_LOG, check, fault_of, told_otherwise
from .erasing import Erasing
from .folder import Folder, name_of
from .ledger import FileLedger, NotAdoptedError
from .legacy import has_lost_its_log, is_legacy, read_legacy
from .replaying import REPAIR, Replaying
from .underway import Underway
from .views import Views

_log = logging.getLogger(__name__)
T = TypeVar("T")
UNREADABLE = "the index cannot be read"
ANEW = f"{REPAIR} makes the index anew from the logs"
UNUSABLE = (apsw.NotADBError, apsw.CorruptError, apsw.SQLError)
"""What SQLite says of an index that is no use; the last of one of another version, which has other columns."""
PIECE = 500
"""Logs that one transaction brings into the index, so that nobody waits for long behind it."""


class FileSystemSessionStorage(SQLiteSessionStorage):
    """Sessions in a folder, each in one of its own; the folder is made if there is none.

    `history_dir` takes what is told of each call of work; by default `.history` inside. `durability` and
    `busy_timeout_s` as for SQLite. Raises StorageError where the folder cannot be used.
    """

    def __init__(
        self,
        sessions_dir: str | os.PathLike[str],
        history_dir: str | os.PathLike[str] | None = None,
        *,
        durability: Literal["full", "process"] = "full",
        busy_timeout_s: float = 30.0,
        limits: Limits | None = None,
    ) -> None:
        if durability not in ("full", "process"):
            raise InvalidArgumentError(f"durability is 'full' or 'process', not {durability!r}.", argument="durability")
        self.sessions_dir = Path(os.path.realpath(sessions_dir))
        # Absolute: this process may change its directory.
        self.history_dir = self.sessions_dir / ".history" if history_dir is None else Path(history_dir).absolute()
        self._folder = Folder(self.sessions_dir, durable=durability == "full")
        self._limits = limits or Limits()
        self._replaying = Replaying(self._folder, self._limits)
        super().__init__(
            self._folder.index / "index.db", durability="process", busy_timeout_s=busy_timeout_s, limits=limits
        )

    def folder_of(self, session_id: str) -> Path:
        return self._folder.of(name_of(session_id))

    def delete(self, session_id: str, change: Change) -> SessionMetadata:
        metadata = super().delete(session_id, change)
        self._views.sweep()
        return metadata

    def check(self) -> list[Finding]:
        findings = self._checked_index()
        if any(finding.what == UNREADABLE for finding in findings):
            return findings
        faults = self._faults().values()
        with self._here().readers.one(snapshot=True) as db:
            findings += check(db, self._folder, self.history_dir, faults)
        return [*findings, *told_otherwise(self._views.stale())]

    def repair(self) -> list[Finding]:
        """Mend logs that are not in order: what stands before a damaged line goes on, the rest is moved beside it.
        Views that do not tell what their log does are written anew.
        """
        done = self._mended_index()
        wrong = [name for name, fault in self._faults().items() if REPAIR in fault.next]
        for name in wrong:
            aside = self._here().writer.run(lambda db, name=name: self._replaying.mend(db, name))
            what = "the index was brought up to a log" if aside is None else "a log was put in order"
            detail = str(self._folder.log(name)) + (f"; what followed is in {aside}" if aside is not None else "")
            done.append(Finding(level="ok", what=what, detail=detail))
        stale = self._views.stale()
        anew = [str(stale[name]) for name in self._views.written_anew([*wrong, *stale]) if name in stale]
        return [*done, *(Finding(level="ok", what="views were written anew", detail=path) for path in anew)]

    def _faults(self) -> dict[str, Finding]:
        """Of each log that is not in order, why: read while others write, and once more while nobody does."""
        here = self._here()
        with here.readers.one(snapshot=True) as db:
            doubted = [name for name, *_ in known.every(db) if fault_of(db, self._folder, name) is not None]
        again = ((name, here.writer.run(lambda db, name=name: fault_of(db, self._folder, name))) for name in doubted)
        return {name: fault for name, fault in again if fault is not None}

    def _checked_index(self) -> list[Finding]:
        try:
            findings = super().check()
        except StorageError as error:
            if not isinstance(error.__cause__, UNUSABLE):
                raise
            findings = [Finding(level="fault", what=UNREADABLE, detail=str(error))]
        return [
            one.model_copy(update={"next": ANEW}) if one.level == "fault" and not one.next else one for one in findings
        ]

    def _mended_index(self) -> list[Finding]:
        """Make the index anew where it is damaged itself; other processes have to open the store again then."""
        damage = [finding for finding in self._checked_index() if finding.next == ANEW]
        if not damage:
            return []
        with self._lock:
            here = self._opened
            if here is not None:
                self._erasing.close()
                self._views.close()
                here.readers.close()
                here.writer.close()
                self._ledger.close()
            self._discard_index()
            self._opened = self._open()
            if here is not None:
                self._opened.owner_lock = here.owner_lock
        told = "; ".join(f"{one.what} {one.detail}".strip() for one in damage)
        restart = "restart the servers that had the store open: until then they refuse every call"
        return [Finding(level="ok", what="the index was made anew from the logs", detail=told, next=restart)]

    def give_up(self) -> None:
        self._erasing.give_up()
        super().give_up()

    def close(self) -> None:
        if self._opened is not None and not self._closed:
            self._erasing.close()
            self._views.close()
        super().close()
        self._ledger.close()

    @property
    def _owners(self) -> Path:
        return self._folder.store / "owners"  # who is alive stays so where the index is made anew

    # the index

    def _open(self) -> Opened:
        with translated(self._file):
            self._folder.prepare()
        try:
            return self._open_index()
        except SchemaChangedError as error:
            # A newer process may have it open, and would refuse every call from then on.
            raise SchemaChangedError(
                f"{error} Or end the programs that have the store open and remove {self._folder.index}, which is made "
                "again from the logs."
            ) from error
        except StorageBusyError:
            raise
        except StorageError:  # also where another process makes it anew just now
            return self._open_anew()

    def _open_anew(self) -> Opened:
        """Open an index once more that cannot be used: it is made anew, unless another process has done that."""
        with self._alone("anew"):
            try:
                return self._open_index()
            except StorageError as error:
                if not isinstance(error.__cause__, UNUSABLE):
                    raise
                self._discard_index()
                return self._open_index()

    @contextmanager
    def _alone(self, name: str) -> Generator[None]:
        """No other process is at this meanwhile."""
        lock = FileLock(self._folder.index / name)
        with translated(self._file):
            if not lock.acquire(self._file.busy_timeout_s):
                raise self._file.busy(holder_of(lock.path))
        try:
            yield
        finally:
            lock.close()

    def _open_index(self) -> Opened:
        with translated(self._file):
            underway = Underway(self._folder.index / "underway")
            ledger = FileLedger(self._folder, self._replaying, underway)
            writing = Writing(self._limits, ledger)
            self._ledger, self._writing = ledger, writing
            with self._alone("opening"):
                writer = Writer(self._file, self._idle, ledger)
        try:
            writer.run(known.prepare)
            writer.run(partial(known.doubt_views, boot_id=boot_id()))
            ledger.ready = True
            stale, without = writer.run(self._replaying.stale)
            for start in range(0, len(stale), PIECE):
                writer.run(lambda db, names=stale[start : start + PIECE]: self._replaying.catch_up(db, names))
            self._adopt_all(writer, [*without, *map(self._folder.of, stale)])
            readers = Readers(self._file, writer.check_place)
            self._views = Views(self._folder, self.history_dir, writer, readers, self._replaying.let_go)
            self._erasing = Erasing(self._folder, self._replaying, ledger, writer, readers)
            ledger.seen, ledger.dead = self._views.seen, self._erasing.wanted
            self._views.sweep()
            self._views.repair(writer.run(self._views.behind))
            self._erasing.wanted(writer.run(known.to_erase))
        except BaseException:
            writer.close()
            ledger.close()
            raise
        return Opened(writer, readers)

    def _adopt_all(self, writer: Writer, folders: Iterable[Path]) -> None:
        """Adopt what is of the old layout among these, and tell what cannot be read."""
        for path in folders:
            try:
                if is_legacy(path):
                    self._adopt(writer, path)
                elif has_lost_its_log(path):
                    _log.warning("%s is left as it is: its log is not there; %s", path, LOST_LOG)
            except StorageError as error:
                _log.warning("%s is left as it is: %s", path, error)

    def _adopt(self, writer: Writer, path: Path) -> None:
        """Give a session of the old layout a log. Raises StorageError where that cannot be; then all is as it was."""
        try:
            view = read_legacy(path)
            checked(view)
            name = name_of(view.metadata.session_id)
            if path.name != name:
                self._folder.rename(path, name)
            restore = partial(self._writing.restore, view=view)
            writer.run(partial(self._ledger.together, restore, adopts=name))
        except SessionExistsError:
            pass  # another process was faster
        except (InvalidArgumentError, OSError) as error:
            raise StorageError(f"{path} cannot be taken over: {error} See to it, then try again.") from error

    def _discard_index(self) -> None:
        """It cannot be read, and is made anew. Whoever opens it lays files beside it and takes them away again."""
        with self._alone("opening"), self._alone(f"{self.path.name}-gate"), translated(self._file):
            for end in ("-wal", "-shm", ""):
                self.path.with_name(self.path.name + end).unlink(missing_ok=True)

    def _write(self, work: Work[T]) -> T:
        self._here()  # in a forked child, this is what the ledger comes from
        together = partial(self._ledger.together, work)
        try:
            return super()._write(together)
        except NotAdoptedError as old:  # it came while the store was open
            self._adopt(self._here().writer, old.path)
            return super()._write(together)
