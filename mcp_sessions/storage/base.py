"""The contract that every backend keeps, and no more than a backend must write.

One method alters a session: `commit`. It does all that a Change says or nothing, and what it says is durable when
it returns. A backend reads no clock, makes no ids and has no randomness: the same changes give the same store.
Every by-id call and query carries the owner (`as_user`, None for no restriction) and checks it where it acts.
`mcp_sessions.testing` holds each promise as a test.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Hashable
from pathlib import Path
from types import TracebackType
from typing import Self

from ..models import (
    Change,
    Finding,
    GroupBy,
    Hit,
    Invocation,
    InvocationQuery,
    Page,
    Query,
    SessionChange,
    SessionMetadata,
    Totals,
    View,
    Want,
)
from .heads import Committed
from .whole import WholeSessions


class SessionStorage(WholeSessions, ABC):
    """Blocking and thread-safe; any number of processes may hold one store open.

    Raises StorageError, with the driver's error as its cause, whenever it could not do what it was asked.
    """

    @abstractmethod
    def create(self, metadata: SessionMetadata, change: Change | None = None) -> Committed:
        """A new session with that head, and the change applied to it, in one commit.

        Raises SessionExistsError; InvocationRecordedError as `commit` does.
        """

    @abstractmethod
    def commit(self, session_id: str | None, change: Change) -> Committed:
        """Do all of the change, or nothing; durable on return. O(what is in the change).

        Without a session it takes records only. A message whose given id exists with the same content is not
        appended again; its seq is returned. A session that is ended again in the same way stays as it is; `note` tells
        of a summary that was not taken.

        Raises SessionNotFoundError, SessionEndedError, ConflictError where a condition fails, InvocationRecordedError
        where a record of the same call is there and finished, InvocationConflictError where it is another call's, or
        is no longer this owner's to finish.
        """

    @abstractmethod
    def read(self, session_id: str, want: Want) -> View:
        """The head and the parts wanted, of one moment. Raises SessionNotFoundError."""

    @abstractmethod
    def find(self, query: Query, cursor: str | None = None) -> Page[SessionMetadata]:
        """A page of sessions: filtered, then sorted (ties by session_id), then cut. Raises InvalidCursorError."""

    @abstractmethod
    def search(self, text: str, query: Query, cursor: str | None = None) -> Page[Hit]:
        """Messages that have all the words of `text`, in the sessions of `query`; newest first, by millisecond,
        then by commit. Without a word in `text` nothing is found. Raises InvalidCursorError.
        """

    @abstractmethod
    def invocations(self, query: InvocationQuery, cursor: str | None = None) -> Page[Invocation]:
        """A page of records, newest start first, by millisecond, then by commit. Raises InvalidCursorError."""

    @abstractmethod
    def totals(self, query: Query, group_by: GroupBy | None = None) -> list[Totals]:
        """Sums over the sessions of `query` (its order and limit play no part), one row a group, by group name;
        exactly one row where nothing is grouped. `group` None stands for what has no such name.
        """

    @abstractmethod
    def changes(self, since: str | None, limit: int = 1000) -> Page[SessionChange]:
        """The sessions whose state changed after a position, oldest change first, each once, deletions too.

        `next_cursor` is always given: the position to go on from. None means now: no items, just the position.
        Sees the commits of other processes. "" is the beginning; deletions are kept for the newest 10,000.
        """

    def stamp(self) -> Hashable:
        """What differs once a session has changed, by whichever process; it may differ although none has. It is asked
        several times a second, so a backend that knows something cheaper gives that.
        """
        return self.changes(None).next_cursor

    @abstractmethod
    def fork(self, session_id: str, at_seq: int | None, metadata: SessionMetadata, change: Change) -> Committed:
        """A new session with that head, holding messages 1..at_seq (None: all) with their seq and ids, and the keys
        as of then. `change` is applied to the child (records), its `as_user` must own the parent.

        Raises SessionNotFoundError, SessionExistsError, InvalidArgumentError for an at_seq that never was.
        """

    @abstractmethod
    def restore(self, view: View) -> Committed:
        """A session exactly as in the view: head, keys, messages, records. Raises SessionExistsError."""

    @abstractmethod
    def delete(self, session_id: str, change: Change) -> SessionMetadata:
        """Remove a session with its messages, keys, records and search rows; children keep their parent_id.

        `change` carries the owner, conditions and the records of the deletion, which belong to no session.
        Returns the head as it was. Raises SessionNotFoundError.
        """

    @abstractmethod
    def owner(self) -> str:
        """The name under which this storage's running calls stand, alive until it closes or its process ends."""

    @abstractmethod
    def alive(self, owner: str) -> bool:
        """Whether an owner may still be at work; False only where it is proven dead."""

    @abstractmethod
    def check(self) -> list[Finding]:
        """Look for damage, all of it: the store's own integrity, search, counts. Reads everything."""

    def backup(self, path: str | os.PathLike[str], *, replace: bool = False) -> None:
        """Copy the whole store into a new file, which `sqlite:///` opens, while others go on writing.

        All that was committed before is in it. It stands there whole and synced, or not at all; what was there
        before stays, unless it is to be replaced. Calls that were running have no living owner in the copy.
        """
        from .copying import back_up  # noqa: PLC0415 - the copy is a store, which is made of this class

        back_up(self, Path(path).absolute(), replace=replace)

    def repair(self) -> list[Finding]:
        """Mend what `check` found, where that takes nothing away; what was done."""
        return []

    def folder_of(self, session_id: str) -> Path | None:  # noqa: ARG002 - a store of files tells
        """Where a session stands as files that others may read; None where it does not."""
        return None

    def give_up(self) -> None:
        """Before the end: whoever waits for another process is refused now, and so is whoever would have to wait later.

        May be called from any thread; waits for nobody, and changes nothing where nobody has to wait.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of files, threads and locks. Closing twice is fine; any other use afterwards is an error."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
