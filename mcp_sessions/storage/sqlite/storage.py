"""SQLiteSessionStorage: any number of processes on one file."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Hashable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from ..._json import decode
from ..._os import FileLock, tell_of_forks
from ...errors import InvalidArgumentError, SessionNotFoundError, StorageClosedError, StorageDamagedError, StorageError
from ...models import (
    Change,
    ConversationMessage,
    Finding,
    GroupBy,
    Hit,
    Invocation,
    InvocationQuery,
    Limits,
    Page,
    Query,
    SessionChange,
    SessionMetadata,
    Totals,
    Value,
    View,
    Want,
    tokens,
)
from ...session import new_id
from ..base import SessionStorage
from ..cursors import bound, pack, unpack
from ..heads import NANO, Committed
from ..restoring import checked
from ..times import moment
from ..words import snippet, words
from .backup import copy_file
from .checking import check
from .connecting import File, translated
from .driver import Db
from .listing import hits_page, records_page, sessions_page, totals
from .readers import Readers
from .rows import HEAD_COLUMNS, RECORD, message_of, metadata_of_row, record_of
from .writer import Chore, Work, Writer
from .writing import SQL, Place, Writing, user_token, word_token

_log = logging.getLogger(__name__)
T = TypeVar("T")
MOST_SCANNED = 10_000
"""Messages that a search looks through where they cannot be let into the index."""
_MESSAGE = "seq, message_id, role, content, timestamp, more"
_ORDER_PLACE = {
    "updated": HEAD_COLUMNS.index("updated_at"),
    "created": HEAD_COLUMNS.index("created_at"),
    "cost": HEAD_COLUMNS.index("estimated_cost"),
    "calls": HEAD_COLUMNS.index("total_invocations"),
    "duration": HEAD_COLUMNS.index("total_duration_ms"),
}


@dataclass
class Opened:
    """What belongs to one process: none of it survives a fork."""

    writer: Writer
    readers: Readers
    owner_lock: FileLock | None = None
    owner: str = ""


class SQLiteSessionStorage(SessionStorage):
    """Sessions in a SQLite file, made if there is none.

    `durability` "full" syncs each commit to the disk, so it survives a power cut; "process" leaves that to the
    system, which survives `kill -9`. Whoever waits longer than `busy_timeout_s` for another process gets
    StorageBusyError. After a fork, parent and child may both go on with it.
    Raises StorageError where the file cannot be opened or is another program's.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Literal["full", "process"] = "full",
        busy_timeout_s: float = 30.0,
        limits: Limits | None = None,
    ) -> None:
        if durability not in ("full", "process"):
            raise InvalidArgumentError(f"durability is 'full' or 'process', not {durability!r}.", argument="durability")
        # Through links, so that every process finds the locks and owners beside the same file.
        self.path = Path(os.path.realpath(path))
        self._file = File(self.path, durability, busy_timeout_s)
        self._writing = Writing(limits or Limits())
        self._lock = threading.Lock()
        self._closed = False
        self._quiet = True
        self._left_behind: list[object] = []
        self._opened: Opened | None = self._open()
        tell_of_forks(self)

    # writing

    def create(self, metadata: SessionMetadata, change: Change | None = None) -> Committed:
        change = change or Change(at=metadata.created_at)
        return self._write(lambda db: self._writing.create(db, metadata, change))

    def commit(self, session_id: str | None, change: Change) -> Committed:
        committed = self._write(lambda db: self._writing.commit(db, session_id, change))
        if change.retract:
            self._here().writer.truncate_log_later()
        return committed

    def fork(self, session_id: str, at_seq: int | None, metadata: SessionMetadata, change: Change) -> Committed:
        return self._write(lambda db: self._writing.fork(db, session_id, at_seq, metadata, change))

    def restore(self, view: View) -> Committed:
        checked(view)
        return self._write(lambda db: self._writing.restore(db, view))

    def delete(self, session_id: str, change: Change) -> SessionMetadata:
        metadata = self._write(lambda db: self._writing.delete(db, session_id, change))
        # From here on nobody can reach it; its rows go piece by piece, so that no other commit waits for long.
        try:
            while self._write(self._writing.purge):
                pass
            self._here().writer.truncate_log()
        except StorageError:
            # It is deleted; the rest follows when nothing else is to do, or at the next opening.
            _log.warning("Session %s is deleted, but not yet erased from %s", session_id, self.path, exc_info=True)
        return metadata

    def _write(self, work: Work[T]) -> T:
        return self._here().writer.run(work)

    def _idle(self, db: Db) -> Chore | None:
        if db.execute(SQL["purging"]).fetchone() is not None:
            return self._writing.purge, True
        if db.execute(SQL["unindexed"], (0,)).fetchone() is not None:
            return lambda db: self._writing.index(db, (0, 0)) is not None, False
        return None

    # reading

    def read(self, session_id: str, want: Want) -> View:
        keys = bool(want.keys or want.prefix is not None or want.any_keys)
        others = bool(want.names or want.messages or want.records)
        if len(want.keys) == 1 and want.prefix is None and not (want.any_keys or others):
            return self._read_key(session_id, want.keys[0], want.as_user)
        parts = keys or others
        with self._here().readers.one(snapshot=parts) as db:
            row = db.execute(SQL["head"], (session_id,)).fetchone()
            if row is None or (want.as_user is not None and row[2] != want.as_user):
                raise SessionNotFoundError(session_id)
            sid = row[0]
            messages = _messages(db, sid, want) if want.messages else []
            return View.known(
                {
                    "metadata": metadata_of_row(row),
                    "data": _data(db, sid, want) if keys else {},
                    "names": [name for (name,) in db.execute(SQL["key_names"], (sid,))] if want.names else [],
                    "messages": messages[: want.messages],
                    "more_messages": len(messages) > want.messages,
                    "records": _records(db, sid, want) if want.records else [],
                }
            )

    def _read_key(self, session_id: str, key: str, as_user: str | None) -> View:
        """The head and one key: a single statement, which is of one moment by itself."""
        with self._here().readers.one() as db:
            row = db.execute(SQL["head_and_key"], (session_id, key)).fetchone()
        if row is None or (as_user is not None and row[2] != as_user):
            raise SessionNotFoundError(session_id)
        version, text = row[-2:]
        value = {} if text is None else {key: Value.known({"value": decode(text), "version": version})}
        return View.known(
            {
                "metadata": metadata_of_row(row),
                "data": value,
                "names": [],
                "messages": [],
                "more_messages": False,
                "records": [],
            }
        )

    def find(self, query: Query, cursor: str | None = None) -> Page[SessionMetadata]:
        place = _ORDER_PLACE[query.order]
        question = bound("find", query)
        after = unpack(question, cursor, (float if query.order == "duration" else int, str))
        with self._here().readers.one(snapshot=bool(query.tags)) as db:
            sql, values = sessions_page(db, query, (after[0], after[1]) if after is not None else None)
            rows = db.execute(sql, values).fetchall()
        page = rows[: query.limit]
        return Page[SessionMetadata].model_construct(
            items=[metadata_of_row(row) for row in page],
            next_cursor=pack(question, [page[-1][place], page[-1][1]]) if len(rows) > query.limit else None,
        )

    def search(self, text: str, query: Query, cursor: str | None = None) -> Page[Hit]:
        sought = set(words(text))
        question = bound("search", query, text)
        after = unpack(question, cursor, (int,))
        self._here()
        if not sought:
            return Page(items=[])
        refused = self._index()
        with self._here().readers.one(snapshot=True) as db:
            match = _match(db, sought, query)
            if match is None:
                return Page(items=[])
            others = _not_indexed(db, sought, refused) if refused is not None else []
            sql, values = hits_page(query, match, after[0] if after is not None else None, others)
            rows = db.execute(sql, values).fetchall()
        page = rows[: query.limit]
        return Page(
            items=[
                Hit(
                    session_id=session_id,
                    purpose=purpose,
                    seq=seq,
                    role=role,
                    snippet=snippet(content, sought),
                    timestamp=moment(timestamp),
                )
                for _, session_id, purpose, seq, role, content, timestamp in page
            ],
            next_cursor=pack(question, [page[-1][0]]) if len(rows) > query.limit else None,
        )

    def _index(self) -> StorageError | None:
        """What was committed until now is found: let it into the index, in bounded pieces; why not, where it cannot be
        written.
        """
        place: Place | None = (0, 0)
        with self._here().readers.one() as db:
            if db.execute(SQL["unindexed"], (0,)).fetchone() is None:
                return None
        try:
            while place is not None:
                place = self._write(partial(self._writing.index, place=place))
        except StorageClosedError:
            raise
        except StorageError as error:
            return error
        return None

    def invocations(self, query: InvocationQuery, cursor: str | None = None) -> Page[Invocation]:
        question = bound("invocations", query)
        after = unpack(question, cursor, (int,))
        sql, values = records_page(query, after[0] if after is not None else None)
        with self._here().readers.one() as db:
            rows = db.execute(sql, values).fetchall()
        page = rows[: query.limit]
        return Page(
            items=[record_of(row[1:]) for row in page],
            next_cursor=pack(question, [page[-1][0]]) if len(rows) > query.limit else None,
        )

    def totals(self, query: Query, group_by: GroupBy | None = None) -> list[Totals]:
        sql, values = totals(query, group_by)
        with self._here().readers.one() as db:
            rows = db.execute(sql, values).fetchall()
        return [_totals(row) for row in rows]

    def changes(self, since: str | None, limit: int = 1000) -> Page[SessionChange]:
        start, known = unpack("changes", since or None, (int, int)) or (0, 0)
        with self._here().readers.one(snapshot=True) as db:
            now = [db.execute(SQL["position"]).fetchone()[0]] * 2
            if since is None:
                return Page(items=[], next_cursor=pack("changes", now))
            rows = db.execute(SQL["changed_since"], (known, start, limit + 1)).fetchall()
            rows += db.execute(SQL["deleted_since"], (start, limit + 1)).fetchall()
        rows.sort()
        page = rows[:limit]
        return Page(
            items=[
                SessionChange(session_id=session_id, revision=revision, created=bool(created))
                for _, session_id, revision, created in page
            ],
            next_cursor=pack("changes", [page[-1][0], known] if len(rows) > limit else now),
        )

    def stamp(self) -> Hashable:
        with self._here().readers.one() as db:
            return db, db.pragma("data_version")  # which says something of this connection alone

    # owners

    def owner(self) -> str:
        here = self._here()
        with self._lock, translated(self._file):
            if self._closed:
                raise StorageClosedError(str(self.path))
            if here.owner_lock is None:
                here.owner_lock = self._new_owner()
            return here.owner_lock.path.name

    def _new_owner(self) -> FileLock:
        # Another process that closes takes the directory away while it is empty, and one that begins clears what
        # nobody has locked yet; so what has just been made may be gone again.
        for attempt in range(100):
            lock = FileLock(self._owners / new_id("own"))
            try:
                self._owners.mkdir(mode=0o700, exist_ok=True)
                self._clear_owners()
                if lock.try_acquire() and lock.in_place():
                    return lock
            except (FileNotFoundError, FileExistsError):
                if attempt == 99:
                    raise
            lock.close()
        raise self._file.busy(f"processes that open and close ({self._owners})")

    def _clear_owners(self) -> list[bool]:
        """Which of those that have a lock are alive; the locks of the others are taken away."""
        with suppress(FileNotFoundError):
            return [self.alive(file.name) for file in list(self._owners.iterdir())]
        return []

    def alive(self, owner: str) -> bool:
        self._here()
        lock = FileLock(self._owners / Path(owner).name)
        if not lock.path.is_file():
            return False
        try:
            if not lock.try_acquire():
                return True
        except FileNotFoundError:
            return False
        except OSError:
            return True  # what cannot be asked is not proven dead
        finally:
            lock.close()
        lock.path.unlink(missing_ok=True)
        return False

    @property
    def _owners(self) -> Path:
        return self.path.with_name(self.path.name + "-owners")

    # the file

    def check(self) -> list[Finding]:
        refused = self._index()
        with self._here().readers.one(snapshot=True) as db:
            findings = check(db)
        if refused is not None:
            why = refused.fact if isinstance(refused, StorageDamagedError) else str(refused)
            after = "see to what it says, then run doctor again"
            findings.append(Finding(level="fault", what="search index not checked", detail=why, next=after))
        owners = self._clear_owners()
        detail = f"{owners.count(True):,} held by live processes, {owners.count(False):,} of dead ones taken away"
        return [*findings, Finding(level="ok", what="locks", detail=detail)]

    def backup(self, path: str | os.PathLike[str], *, replace: bool = False) -> None:
        with self._here().readers.one(snapshot=True) as db:
            copy_file(db, Path(path).absolute(), replace=replace)

    def give_up(self) -> None:
        opened = self._opened
        if opened is not None:
            opened.writer.give_up()

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            here = self._opened
        if here is None:
            return
        with ExitStack() as then:
            then.callback(self._give_up_owner, here)
            then.callback(here.writer.close)
            then.callback(here.readers.close)

    def _give_up_owner(self, here: Opened) -> None:
        if here.owner_lock is not None:
            here.owner_lock.close()
            with suppress(OSError):  # where others are at work the directory is not empty
                here.owner_lock.path.unlink(missing_ok=True)
                self._owners.rmdir()

    def _open(self) -> Opened:
        with translated(self._file):
            writer = Writer(self._file, self._idle)
        return Opened(writer, Readers(self._file, writer.check_place))

    def _here(self) -> Opened:
        opened = self._opened
        if self._closed or opened is None:
            return self._opened_anew()
        return opened

    def _opened_anew(self) -> Opened:
        with self._lock:
            if self._closed:
                raise StorageClosedError(str(self.path))
            if not self._quiet:
                raise StorageError(
                    f"{self.path} was at work when this process was forked from another, so it cannot be used here. "
                    "Open it in a process that is started afresh."
                )
            if self._opened is None:
                self._opened = self._open()
            return self._opened

    # SQLite must not be carried into a child: what it knows of its locks would be wrong there, and for new
    # connections too (sqlite.org/howtocorrupt.html 2.6). So at the moment of a fork there are no connections.

    def before_fork(self) -> None:
        self._lock.acquire()
        here = self._opened
        self._quiet = True
        if here is not None:
            self._quiet = here.writer.pause(self._file.busy_timeout_s)
            if self._quiet and not here.readers.pause(self._file.busy_timeout_s):
                here.writer.resume()
                self._quiet = False

    def after_fork(self, *, in_child: bool) -> None:
        here, quiet = self._opened, self._quiet
        if here is not None:
            if quiet:
                here.readers.resume()
                here.writer.resume()
            if in_child:
                here.writer.disown()
                if here.owner_lock is not None:
                    here.owner_lock.close()
                if not quiet:
                    self._left_behind.append(here)  # its connections must not even be closed here
                self._opened = None
            else:
                self._quiet = True
        self._lock.release()


def _data(db: Db, sid: int, want: Want) -> dict[str, Value]:
    rows: list[Any] = []
    if want.prefix is not None:
        name, values = ("live_keys", (sid, want.prefix)) if want.prefix else ("visible_keys", (sid,))
        chars = 0
        for row in db.execute(SQL[name], values):
            chars += len(row[2])
            if want.prefix_chars is not None and chars > want.prefix_chars:
                break
            rows.append(row)
    for key in want.keys:
        rows += db.execute(SQL["live_key"], (sid, key)).fetchall()
    if want.any_keys:
        rows += db.execute(SQL["any_keys"], (sid, want.after_key, want.any_keys)).fetchall()
    return {key: Value.known({"value": decode(text), "version": version}) for key, version, text in sorted(rows)}


def _messages(db: Db, sid: int, want: Want) -> list[ConversationMessage]:
    """The messages wanted, and one more where there is one."""
    clauses, values = ["sid = ?"], [sid, *want.roles]
    if want.roles:
        clauses.append(f"role IN ({', '.join('?' * len(want.roles))})")
    for name, sign, bound_ in (("seq", "<", want.before), ("seq", ">", want.after)):
        if bound_ is not None:
            clauses.append(f"{name} {sign} ?")
            values.append(bound_)
    way = "ASC" if want.order == "oldest" else "DESC"
    sql = f"SELECT {_MESSAGE} FROM messages WHERE {' AND '.join(clauses)} ORDER BY seq {way} LIMIT ?"
    return [message_of(row) for row in db.execute(sql, (*values, want.messages + 1))]


def _records(db: Db, sid: int, want: Want) -> list[Invocation]:
    kinds = "r.kind IN ('work', 'usage')" if want.usage else "r.kind = 'work'"
    sql = (
        f"SELECT {RECORD} FROM records r JOIN sessions s USING (sid) "
        f"WHERE r.sid = ? AND {kinds} ORDER BY r.id DESC LIMIT ?"
    )
    return [record_of(row) for row in db.execute(sql, (sid, want.records))]


def _match(db: Db, sought: set[str], query: Query) -> str | None:
    """The search expression: every word quoted, so that nothing in it is syntax. None where no session can match."""
    match = "words : (" + " AND ".join(f'"{word_token(word)}"' for word in sorted(sought)) + ")"
    for user in {query.as_user, query.user_id} - {None}:
        match += f' AND scope : "{user_token(user)}"' if user else ""
    if query.ids:
        sids = [db.execute(SQL["sid"], (session_id,)).fetchone() for session_id in query.ids]
        known = [f'"s{row[0]}"' for row in sids if row is not None]
        if not known:
            return None
        match += f" AND scope : ({' OR '.join(known)})"
    return match


def _not_indexed(db: Db, sought: set[str], why: StorageError) -> list[int]:
    """The rows of messages that have the words, but are not in the index. Raises StorageError where it lacks many."""
    found: list[int] = []
    for count, (id_, content) in enumerate(db.execute(SQL["all_unindexed"], (MOST_SCANNED + 1,))):
        if count == MOST_SCANNED:
            raise StorageError(f"More than {MOST_SCANNED:,} messages are not in the search index yet: {why}") from why
        if sought.issubset(words(content)):
            found.append(id_)
    return found


def _totals(row: tuple[Any, ...]) -> Totals:
    group, sessions, messages, *sums = row
    invocations, failed, duration_us, *usage, cost, unpriced = map(int, sums)
    return Totals(
        group=group,
        sessions=sessions,
        messages=None if messages is None else int(messages),
        invocations=invocations,
        failed=failed,
        duration_ms=duration_us / 1000,
        token_usage=tokens(*usage),
        estimated_cost=cost / NANO,
        unpriced_invocations=unpriced,
    )
