"""A change, as SQL: what happens inside the write transaction."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import apsw

from ..._json import encode
from ...errors import (
    InvalidArgumentError,
    MessageConflictError,
    SessionExistsError,
    SessionNotFoundError,
)
from ...models import Change, ConversationMessage, Invocation, Limits, SessionMetadata, View, generated
from ..heads import Committed, Effect, admit, apply, check, check_records_only, nanos, note_on, taken, unpriced
from ..times import micros
from ..words import words
from .connecting import statements
from .driver import Db, Row
from .ledger import Ledger
from .rows import HeadRow, body_of, column, folded, message_of, more_of, record_of, row_of_metadata

SQL = statements()
for _name in ("message", "record"):
    SQL[f"add_{_name}_at"] = re.sub(r"\bifnull\(.*, \?1\)", "?1", SQL[f"add_{_name}"])
SLOTS = 4096  # ids for rows of one millisecond
KEPT_DELETIONS = 10_000
Place = tuple[int, int]
"""A session to index next, by sid, and up to which seq; 0: to its last."""
PIECE = 256
"""Rows a bounded piece of background work touches, so that no commit waits for long behind it."""


class Writing:
    """What a write transaction can do, within limits that only the commit can judge."""

    def __init__(self, limits: Limits, ledger: Ledger | None = None) -> None:
        self._limits = limits
        self._ledger = ledger
        self._updates: dict[tuple[str, ...], str] = {}

    def create(self, db: Db, metadata: SessionMetadata, change: Change) -> Committed:
        self._add_session(db, metadata)
        return self._apply(db, self._head(db, metadata.session_id), change, created=True)

    def commit(self, db: Db, session_id: str | None, change: Change) -> Committed:
        if session_id is not None:
            return self._apply(db, self._head(db, session_id), change)
        self._apply_without_session(db, change)
        return Committed(None, None, Effect())

    def fork(self, db: Db, session_id: str, at_seq: int | None, metadata: SessionMetadata, change: Change) -> Committed:
        parent = self._head(db, session_id)
        if change.as_user is not None and parent["user_id"] != change.as_user:
            raise SessionNotFoundError(session_id)
        last: int = parent["last_seq"] if at_seq is None else at_seq
        if not 0 <= last <= parent["last_seq"]:
            raise InvalidArgumentError(
                f"Session {session_id} has messages up to {parent['last_seq']}, not {at_seq}. Choose one of them, or "
                "leave at_seq out to copy all.",
                argument="at_seq",
            )
        messages = db.execute(SQL["messages_upto"], (parent.sid, last)).fetchall()
        as_of: int = parent["revision"]
        # Where the last message was retracted nobody knows when it was said: then it is now.
        now = 0 < last == parent["last_seq"] and not (messages and messages[-1][0] == last)
        if at_seq is not None and not now:
            row = db.execute(SQL["revision_at"], (parent.sid, last)).fetchone()
            as_of = row[0] if row is not None else 0
        head = {"parent_id": session_id, "last_seq": last, "message_count": len(messages), "revision": 0}
        sid = self._add_session(db, metadata.model_copy(update=head))
        for row in messages:
            message = message_of(row)
            self._add_message(db, sid, message.seq, message, not generated(message.message_id), 1)
        note = None
        for key, pruned, version, value in db.execute(SQL["keys_with_versions"], (parent.sid,)).fetchall():
            versions = [*db.execute(SQL["old_versions"], (parent.sid, key)).fetchall(), (version, value)]
            then = [text for number, text in versions if number <= as_of]
            if not then and pruned:
                then = [versions[0][1]]
                note = f"Some keys are newer than message {last}: older versions of them are no longer kept."
            if then and then[-1] is not None:
                self._add_key(db, sid, key, 1, then[-1])
        child = self._head(db, metadata.session_id)
        return self._apply(db, child, change.model_copy(update={"as_user": None}), created=True, note=note)

    def restore(self, db: Db, view: View) -> Committed:
        metadata = view.metadata
        sid = self._add_session(db, metadata)
        for message in view.messages:
            self._add_message(db, sid, message.seq, message, not generated(message.message_id), metadata.revision)
        for key, value in view.data.items():
            self._add_key(db, sid, key, value.version, encode(value.value))
        for record in reversed(view.records):
            for row in self._existing(db, sid, record):
                raise taken(record_of(row[1:]), record)
            self._add_record(db, sid, record, record.revision, None)
        return Committed(metadata.session_id, self._head(db, metadata.session_id), Effect())

    def delete(self, db: Db, session_id: str, change: Change) -> SessionMetadata:
        head = self._head(db, session_id)
        check(session_id, head, change, lambda key: self._version(db, head.sid, key))
        self._apply_without_session(db, change)
        position = self._next_position(db)
        self._drop_session(db, session_id)
        db.execute(SQL["add_deleted"], (position, session_id))
        db.execute(SQL["prune_deleted"], (KEPT_DELETIONS,))
        if self._ledger is not None:
            self._ledger.deleted(head.sid, session_id, position)
        return Committed(session_id, head, Effect()).metadata

    def purge(self, db: Db) -> bool:
        """Remove a piece of what belonged to deleted sessions; whether something is left.

        A crash between pieces leaves rows that nothing can reach; the next opening goes on.
        """
        row = db.execute(SQL["purging"]).fetchone()
        if row is None:
            return False
        sid, user_id, indexed = row
        rows = db.execute(SQL["some_messages"], (sid, PIECE)).fetchall()
        for id_, seq, content in rows:
            self._drop_message(db, id_, content, indexed_scope(sid, user_id) if seq <= indexed else None)
        records = db.execute(SQL["some_records"], (sid, PIECE)).fetchall()
        db.executemany(SQL["drop_record"], records)
        if len(rows) < PIECE and len(records) < PIECE:
            for name in ("purge_keys", "purge_old_keys", "purge_retracted", "done_purging"):
                db.execute(SQL[name], (sid,))
        return True

    def index(self, db: Db, place: Place) -> Place | None:
        """Let a piece of the waiting messages into the search index, from a place on; where to go on, if anywhere.

        A session's messages are taken up to its last one of when it was begun, so that it ends while others write.
        """
        first, most = place
        room = PIECE
        while room > 0:
            row = db.execute(SQL["unindexed"], (first,)).fetchone()
            if row is None:
                return None
            sid, user_id, indexed, last = row
            last = most if sid == first and most else last
            rows = db.execute(SQL["some_unindexed"], (sid, indexed, last, room)).fetchall()
            scope = indexed_scope(sid, user_id)
            db.executemany(SQL["index_words"], ((id_, indexed_words(content), scope) for id_, _, content in rows))
            whole = len(rows) < room
            db.execute(SQL["indexed"], (last if whole else rows[-1][1], sid))
            first, most = (sid + 1, 0) if whole else (sid, last)
            room -= len(rows) + 1
        return first, most

    # parts

    def _head(self, db: Db, session_id: str) -> HeadRow:
        if self._ledger is not None:
            self._ledger.touch(db, session_id)
        row = db.execute(SQL["head"], (session_id,)).fetchone()
        if row is None:
            raise SessionNotFoundError(session_id)
        return HeadRow(row)

    def _add_session(self, db: Db, metadata: SessionMetadata) -> int:
        session_id = metadata.session_id
        if self._ledger is not None:
            self._ledger.touch(db, session_id)
        if db.execute(SQL["sid"], (session_id,)).fetchone() is not None:
            raise SessionExistsError(session_id)
        sid = self._next_position(db)
        self._add_head(db, sid, metadata)
        if self._ledger is not None:
            self._ledger.created(sid, metadata)
        return sid

    def _drop_session(self, db: Db, session_id: str) -> None:
        """From here on nobody can reach it; its rows wait to be purged."""
        head = self._head(db, session_id)
        for tag in head["tags"]:
            db.execute(SQL["drop_tag"], (tag, head.sid))
        db.execute(SQL["drop_session"], (head.sid,))
        db.execute(SQL["add_purging"], (head.sid, head["user_id"], head.indexed))

    def _add_head(self, db: Db, sid: int, metadata: SessionMetadata) -> None:
        text = folded(metadata.session_id, metadata.purpose, metadata.tags)
        db.execute(SQL["add_session"], (sid, *row_of_metadata(metadata), text, sid))
        db.executemany(SQL["add_tag"], [(tag, sid) for tag in dict.fromkeys(metadata.tags)])

    def _apply(
        self, db: Db, head: HeadRow, change: Change, *, created: bool = False, note: str | None = None
    ) -> Committed:
        sid = head.sid
        session_id: str = head["session_id"]
        check(
            session_id,
            head,
            change,
            lambda key: self._version(db, sid, key),
            lambda: all(new.given and self._said(db, head, new.message) is not None for new in change.messages),
        )
        effect = Effect()
        revision = head["revision"] + 1
        for first, last in change.retract:
            self._retract(db, head, first, last, effect)
        for new in change.messages:
            self._append(db, head, new.message, new.given, revision, effect)
        self._write_keys(db, sid, change, revision, effect)
        for record in change.records:
            effect.records.append((self._admitted(db, sid, record), record))
        new_fields = apply(head, change, effect, self._limits)
        if created:
            new_fields["revision"] = revision
        after = head.altered(new_fields)
        if new_fields:
            self._update(db, head, after, new_fields)
        committed = Committed(session_id, after, effect, note or note_on(head, change))
        for _, record in effect.records:
            numbers = committed.numbers(record)
            self._add_record(db, sid, record, new_fields.get("revision"), encode(numbers) if numbers else None)
        for other_id, other in change.also:
            self._apply(db, self._head(db, other_id), other)
        return committed

    def _update(
        self, db: Db, head: HeadRow, after: HeadRow, new: Mapping[str, Any], position: int | None = None
    ) -> None:
        values = [column(name, value) for name, value in new.items()]
        names = tuple(new)
        if "purpose" in new or "tags" in new:
            names += ("folded",)
            values.append(folded(after["session_id"], after["purpose"], after["tags"]))
        if "tags" in new:
            old, now = set(head["tags"]), set(new["tags"])
            db.executemany(SQL["drop_tag"], [(tag, head.sid) for tag in old - now])
            db.executemany(SQL["add_tag"], [(tag, head.sid) for tag in now - old])
        sql = self._updates.get(names)
        if sql is None:
            columns = [f"{name} = ?" for name in names]
            if "revision" in new:
                columns.append(f"position = ifnull(?, ({SQL['position'].rstrip(';')}) + 1)")
            sql = f"UPDATE sessions SET {', '.join(columns)} WHERE sid = ?"
            if "revision" in new and self._ledger is not None:
                sql += " RETURNING position"
            self._updates[names] = sql
        if "revision" in new:
            values.append(position)
        rows = db.execute(sql, (*values, head.sid)).fetchall()
        if self._ledger is not None:
            self._ledger.altered(head.sid, new, rows[0][0] if rows else None)

    def _append(
        self,
        db: Db,
        head: HeadRow,
        message: ConversationMessage,
        given: bool,
        revision: int,
        effect: Effect,
    ) -> None:
        if given:
            seq = self._said(db, head, message)
            if seq is not None:
                effect.seqs.append(seq)
                return
        effect.appended += 1
        seq = head["last_seq"] + effect.appended
        effect.seqs.append(seq)
        self._add_message(db, head.sid, seq, message, given, revision)

    def _said(self, db: Db, head: HeadRow, message: ConversationMessage) -> int | None:
        """The seq of the message that this one repeats, if it does."""
        one = (head.sid, message.message_id)
        name = "message_by_generated_id" if generated(message.message_id) else "message_by_given_id"
        row = db.execute(SQL[name], one).fetchone()
        if row is not None:
            if not message.same_as(message_of(row)):
                raise MessageConflictError(head["session_id"], message.message_id, row[0])
            return row[0]
        row = db.execute(SQL["retracted_id"], one).fetchone()
        if row is not None and row[1] is not None and row[1] != message.fingerprint():
            raise MessageConflictError(head["session_id"], message.message_id, row[0])
        return row[0] if row is not None else None

    def _add_message(
        self,
        db: Db,
        sid: int,
        seq: int,
        message: ConversationMessage,
        given: bool,
        revision: int,
        slot: int | None = None,
    ) -> None:
        timestamp, more = micros(message.timestamp), more_of(message)
        values = (
            sid,
            seq,
            message.message_id,
            given,
            message.role,
            message.content,
            timestamp,
            revision,
            more,
        )
        id_ = _add(db, "add_message", timestamp, slot, values)
        if self._ledger is not None:
            self._ledger.said(sid, id_ - timestamp // 1000 * SLOTS, seq, message, more, given, revision)

    def _retract(self, db: Db, head: HeadRow, first: int, last: int, effect: Effect) -> None:
        for message in self._drop_said(db, head, first, last):
            fingerprint = message.fingerprint()
            db.execute(SQL["add_retracted"], (head.sid, message.message_id, message.seq, fingerprint))
            if self._ledger is not None:
                self._ledger.retracted(head.sid, message.seq, message.message_id, fingerprint)
            effect.retracted += 1

    def _drop_said(self, db: Db, head: HeadRow, first: int, last: int) -> list[ConversationMessage]:
        """Remove the messages of a range; what they were."""
        scope = indexed_scope(head.sid, head["user_id"])
        gone: list[ConversationMessage] = []
        for id_, *row in db.execute(SQL["messages_between"], (head.sid, first, last)).fetchall():
            message = message_of(tuple(row))
            self._drop_message(db, id_, message.content, scope if message.seq <= head.indexed else None)
            gone.append(message)
        return gone

    def _drop_message(self, db: Db, id_: int, content: str, scope: str | None) -> None:
        """Remove a row; `scope` is that of its search row, None where it has none yet."""
        if scope is not None:
            db.execute(SQL["forget_words"], (id_, indexed_words(content), scope))
        db.execute(SQL["drop_message"], (id_,))

    def _version(self, db: Db, sid: int, key: str) -> int:
        row = db.execute(SQL["live_key"], (sid, key)).fetchone()
        return row[1] if row is not None else 0

    def _write_keys(self, db: Db, sid: int, change: Change, revision: int, effect: Effect) -> None:
        gone: Iterable[str] = change.remove
        if change.remove_all:
            gone = [*gone, *(key for (key,) in db.execute(SQL["key_names"], (sid,)).fetchall())]
        for key in dict.fromkeys(gone):
            if self._version(db, sid, key):
                effect.removed.append(key)
                self._write_key(db, sid, key, revision, None)
        for key, value in change.set.items():
            self._write_key(db, sid, key, revision, encode(value))

    def _write_key(self, db: Db, sid: int, key: str, version: int, text: str | None) -> None:
        if db.execute(SQL["key"], (sid, key)).fetchone() is None:
            self._add_key(db, sid, key, version, text)
            return
        if self._ledger is not None:
            self._ledger.keyed(sid, key, version, text)
        db.execute(SQL["keep_old_key"], (sid, key, version))
        db.execute(SQL["write_key"], (version, text, sid, key))
        db.execute(SQL["prune_key"], (sid, key, self._limits.key_versions - 1))
        if db.changes():
            db.execute(SQL["mark_pruned"], (sid, key))

    def _add_key(self, db: Db, sid: int, key: str, version: int, text: str | None) -> None:
        db.execute(SQL["add_key"], (sid, key, version, text))
        if self._ledger is not None:
            self._ledger.keyed(sid, key, version, text)

    def _admitted(self, db: Db, sid: int | None, record: Invocation) -> Invocation | None:
        """The record that this one takes the place of, which is gone then."""
        existing = {row[0]: record_of(row[1:]) for row in self._existing(db, sid, record)}
        for one in existing.values() or (None,):
            admit(one, record)
        for id_ in existing:
            db.execute(SQL["drop_record"], (id_,))
        return next(iter(existing.values()), None)

    def _existing(self, db: Db, sid: int | None, record: Invocation) -> list[Row]:
        """The rows of the same id: the one of the session, and the user's where it is another."""
        rows: list[Row] = []
        if record.scope is not None and sid is not None:
            rows += db.execute(SQL["record_of_session"], (sid, record.invocation_id)).fetchall()
        if record.scope == "user":
            for *row, orphaned in db.execute(SQL["record_of_user"], (record.user_id, record.invocation_id)).fetchall():
                if orphaned:  # of a deleted session whose rows are still being removed
                    db.execute(SQL["drop_record"], (row[0],))
                else:
                    rows.append(tuple(row))
        return rows

    def _apply_without_session(self, db: Db, change: Change) -> None:
        check_records_only(change)
        for record in change.records:
            self._admitted(db, None, record)
            self._add_record(db, None, record, None, None)
        for other_id, other in change.also:
            self._apply(db, self._head(db, other_id), other)

    def _add_record(
        self,
        db: Db,
        sid: int | None,
        record: Invocation,
        revision: int | None,
        numbers: str | None,
        slot: int | None = None,
    ) -> None:
        started, body = micros(record.started_at), body_of(record)
        values = (
            sid,
            record.user_id,
            record.invocation_id,
            record.scope,
            record.tool_name,
            record.kind,
            record.status.value,
            started,
            record.duration_ms,
            record.model,
            encode(record.token_usage) if record.token_usage is not None else None,
            nanos(record.cost) if record.cost is not None else None,
            unpriced(record),
            revision,
            numbers,
            body,
        )
        id_ = _add(db, "add_record", started, slot, values)
        if self._ledger is not None:
            self._ledger.recorded(sid, id_ - started // 1000 * SLOTS, record, revision, numbers, body)

    def _next_position(self, db: Db) -> int:
        return db.execute(SQL["position"]).fetchone()[0] + 1


def _add(db: Db, name: str, microseconds: int, slot: int | None, values: Sequence[Any]) -> int:
    """Add a row at the next free id of its millisecond; where that has run out of them, of the first that has not.

    With a slot, at that one where it is free. The id.
    """
    first = microseconds // 1000 * SLOTS
    if slot is not None and _added(db, SQL[name + "_at"], (first + slot, *values)):
        return first + slot
    while not _added(db, SQL[name], (first, *values)):
        first += SLOTS
    return db.last_insert_rowid()


def _added(db: Db, sql: str, values: Sequence[Any]) -> bool:
    """Whether it was; False where its id is taken."""
    try:
        db.execute(sql, values)
    except apsw.ConstraintError as error:
        if getattr(error, "extendedresult", 0) != apsw.SQLITE_CONSTRAINT_PRIMARYKEY:
            raise
        return False
    return True


def word_token(word: str) -> str:
    """A word as the search index holds it: ASCII, so that SQLite has nothing left to decide about it."""
    return word if word.isascii() else "_" + word.encode().hex()


def indexed_words(content: str) -> str:
    """The words of a message, each once, as they go into the index."""
    return " ".join(map(word_token, dict.fromkeys(words(content))))


def user_token(user_id: str) -> str:
    """Whose messages: a word of its own, in the column beside."""
    return "u" + user_id.encode().hex()


def indexed_scope(sid: int, user_id: str | None) -> str:
    """Whose message it is, as that goes into the index."""
    return f"s{sid}" if user_id is None else f"s{sid} {user_token(user_id)}"
