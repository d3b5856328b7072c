"""Rows, written again as a ledger was told of them: nothing is decided anew, so nothing can come out otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...models import ConversationMessage, Invocation, InvocationStatus, Limits, SessionMetadata
from .driver import Db
from .rows import record_of
from .writing import KEPT_DELETIONS, SQL, Writing


class Rewriting(Writing):
    """The rows of a ledger's entries, in the order in which it was told of them."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)

    def created(self, db: Db, sid: int, metadata: SessionMetadata) -> int:
        """The number that it has now: another, where this one is taken by a session that came from elsewhere."""
        if db.execute(SQL["taken"], (sid,)).fetchone() is not None:
            sid = self._next_position(db)
        self._add_head(db, sid, metadata)
        return sid

    def altered(self, db: Db, session_id: str, fields: Mapping[str, Any], position: int | None) -> None:
        """Give a head these fields."""
        if position is not None and db.execute(SQL["taken"], (position,)).fetchone() is not None:
            position = None
        head = self._head(db, session_id)
        self._update(db, head, head.altered(fields), fields, position)

    def said(
        self, db: Db, sid: int, slot: int, seq: int, message: ConversationMessage, given: bool, revision: int
    ) -> None:
        """Add a message."""
        self._add_message(db, sid, seq, message, given, revision, slot)

    def retracted(self, db: Db, session_id: str, seq: int, message_id: str, fingerprint: str | None) -> bool:
        """Take a message away, and its id with it; whether it was there."""
        head = self._head(db, session_id)
        gone = self._drop_said(db, head, seq, seq)
        db.execute(SQL["forget_retracted"], (head.sid, message_id))
        db.execute(SQL["add_retracted"], (head.sid, message_id, seq, fingerprint))
        return bool(gone)

    def keyed(self, db: Db, sid: int, key: str, version: int, text: str | None) -> None:
        """Give a key a version."""
        self._write_key(db, sid, key, version, text)

    def recorded(
        self, db: Db, sid: int | None, slot: int, record: Invocation, revision: int | None, numbers: str | None
    ) -> None:
        """Add a record in the place of an earlier one of the same call; a later one stands."""
        for row in self._existing(db, sid, record):
            if _progress(record_of(row[1:])) > _progress(record):
                return
            db.execute(SQL["drop_record"], (row[0],))
        self._add_record(db, sid, record, revision, numbers, slot)

    def deleted(self, db: Db, sid: int | None, session_id: str, position: int) -> None:
        """Remove a session, if it is there and not another one of that id, with all that belongs to it."""
        row = db.execute(SQL["head"], (session_id,)).fetchone()
        if row is not None and row[0] == sid:
            self.forget(db, session_id)
        db.execute(SQL["forget_deleted"], (position,))
        db.execute(SQL["add_deleted"], (position, session_id))
        db.execute(SQL["prune_deleted"], (KEPT_DELETIONS,))

    def forget(self, db: Db, session_id: str) -> None:
        """Remove all rows of a session, and say nothing of it."""
        row = db.execute(SQL["head"], (session_id,)).fetchone()
        if row is None:
            return
        self._drop_session(db, session_id)
        while self.purge(db):
            pass


def _progress(record: Invocation) -> tuple[int, bool]:
    return record.attempt, record.status is not InvocationStatus.RUNNING
