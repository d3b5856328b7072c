"""Sessions in memory: the reference, for tests and short lives.

What this backend answers is what every other one must answer. Plain loops over plain lists; one lock. Values are
kept as JSON text and so shared with nobody; a commit that fails is undone step by step.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar, cast

from .._json import decode, encode
from ..errors import (
    InvalidArgumentError,
    MessageConflictError,
    SessionExistsError,
    SessionNotFoundError,
    StorageClosedError,
)
from ..models import (
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
    SessionStatus,
    Totals,
    Value,
    View,
    Want,
    tokens,
)
from ..session import new_id
from .base import SessionStorage
from .cursors import bound, pack, unpack
from .heads import (
    NANO,
    Committed,
    Effect,
    admit,
    apply,
    check,
    check_records_only,
    joined,
    metadata_of,
    nanos,
    note_on,
    taken,
    unpriced,
)
from .restoring import checked
from .times import EPOCH, micros
from .words import fold, snippet, words

KEPT_DELETIONS = 10_000
Undo = list[Callable[[], object]]
Row = TypeVar("Row")
_Call = tuple[int | None, str | None, str]
"""What a caller's invocation id is unique within: (session, None, id) or (None, user, id)."""


@dataclass
class _Record:
    place: tuple[int, int]
    session: _Stored | None
    record: Invocation

    def value(self) -> Invocation:
        return _copied(self.record).model_copy(update={"session_id": _id_of(self.session)})


@dataclass
class _Said:
    place: tuple[int, int]
    message: ConversationMessage
    revision: int
    words: frozenset[str] | None = None

    def has(self, sought: set[str]) -> bool:
        if self.words is None:
            self.words = frozenset(words(self.message.content))
        return sought <= self.words


@dataclass
class _Stored:
    head: dict[str, Any]
    messages: list[_Said] = field(default_factory=list[_Said])
    taken: dict[str, int] = field(default_factory=dict[str, int])
    """Ids of all messages, retracted ones included: seq."""
    retracted: dict[str, str | None] = field(default_factory=dict[str, "str | None"])
    """Ids of retracted messages: fingerprint."""
    keys: dict[str, list[tuple[int, str | None]]] = field(default_factory=dict[str, "list[tuple[int, str | None]]"])
    """Versions of each key, oldest first: (version, JSON text, or None for removed)."""
    pruned: set[str] = field(default_factory=set[str])
    position: int = 0
    born: int = 0
    """The position at which it was made."""


def _ms(moment: datetime) -> int:
    return micros(moment) // 1000


def isolated(message: ConversationMessage) -> ConversationMessage:
    """The message itself, or a copy where it holds something that could be changed from outside."""
    if message.payload is None and message.tool_calls is None and message.token_usage is None:
        return message
    return ConversationMessage.model_validate_json(message.model_dump_json())


class MemorySessionStorage(SessionStorage):
    """Sessions of one process, gone with it."""

    def __init__(self, *, limits: Limits | None = None) -> None:
        self._lock = threading.RLock()
        self._sessions: dict[str, _Stored] = {}
        self._records: dict[int, _Record] = {}
        self._calls: dict[_Call, int] = {}
        self._deleted: list[tuple[int, str]] = []
        self._position = 0
        self._number = 0
        self._limits = limits or Limits()
        self._owner = new_id("own")
        self._closed = False

    # writing

    def create(self, metadata: SessionMetadata, change: Change | None = None) -> Committed:
        change = change or Change(at=metadata.created_at)
        with self._changing() as undo:
            return self._commit(self._new(metadata, undo), change, undo, created=True)

    def commit(self, session_id: str | None, change: Change) -> Committed:
        with self._changing() as undo:
            if session_id is None:
                return self._commit_records(change, undo)
            return self._commit(self._get(session_id, change.as_user), change, undo)

    def fork(self, session_id: str, at_seq: int | None, metadata: SessionMetadata, change: Change) -> Committed:
        with self._changing() as undo:
            parent = self._get(session_id, change.as_user)
            last = parent.head["last_seq"] if at_seq is None else at_seq
            if not 0 <= last <= parent.head["last_seq"]:
                raise InvalidArgumentError(
                    f"Session {session_id} has messages up to {parent.head['last_seq']}, not {at_seq}. Choose one of "
                    "them, or leave at_seq out to copy all.",
                    argument="at_seq",
                )
            said = [one for one in parent.messages if one.message.seq <= last]
            as_of = parent.head["revision"]
            # Where the last message was retracted nobody knows when it was said: then it is now.
            if at_seq is not None and not _at_the_end(parent, last):
                as_of = said[-1].revision if said else 0
            head = metadata.model_copy(
                update={"parent_id": session_id, "last_seq": last, "message_count": len(said), "revision": 0}
            )
            child = self._new(head, undo)
            for one in said:
                self._say(child, one.message, 1)
            note = None
            for key, versions in parent.keys.items():
                then = [version for version in versions if version[0] <= as_of]
                if then:
                    value = then[-1][1]
                elif key in parent.pruned:
                    value = versions[0][1]
                    note = f"Some keys are newer than message {last}: older versions of them are no longer kept."
                else:
                    continue
                if value is not None:
                    child.keys[key] = [(1, value)]
            return self._commit(child, change.model_copy(update={"as_user": None}), undo, created=True, note=note)

    def restore(self, view: View) -> Committed:
        checked(view)
        with self._changing() as undo:
            stored = self._new(view.metadata, undo)
            for message in view.messages:
                self._say(stored, isolated(message), view.metadata.revision)
            stored.keys = {key: [(value.version, encode(value.value))] for key, value in view.data.items()}
            for record in reversed(view.records):
                for existing in self._existing(stored, record):
                    raise taken(existing, record)
                self._record(stored, record, undo)
            self._touch(stored, undo)
            return Committed(view.metadata.session_id, stored.head, Effect())

    def delete(self, session_id: str, change: Change) -> SessionMetadata:
        with self._changing() as undo:
            stored = self._get(session_id, change.as_user)
            check(session_id, stored.head, change, lambda key: self._version(stored, key))
            was = metadata_of(stored.head)
            self._commit_records(change, undo)
            for number in [number for number, one in self._records.items() if one.session is stored]:
                self._forget(number, undo)
            del self._sessions[session_id]
            undo.append(lambda: self._sessions.__setitem__(session_id, stored))
            self._position += 1
            self._deleted.append((self._position, session_id))
            del self._deleted[:-KEPT_DELETIONS]
            return was

    @contextmanager
    def _changing(self) -> Generator[Undo]:
        undo: Undo = []
        with self._lock:
            self._open()
            try:
                yield undo
            except BaseException:
                for step in reversed(undo):
                    step()
                raise

    def _new(self, metadata: SessionMetadata, undo: Undo) -> _Stored:
        session_id = metadata.session_id
        if session_id in self._sessions:
            raise SessionExistsError(session_id)
        head = {name: getattr(metadata, name) for name in SessionMetadata.model_fields}
        head |= {"tags": [*metadata.tags], "tools_used": [*metadata.tools_used]}
        head |= {"token_usage": tokens(**metadata.token_usage)}
        head |= {"custom_metadata": decode(encode(metadata.custom_metadata))}
        stored = self._sessions[session_id] = _Stored(head, born=self._position + 1)
        undo.append(lambda: self._sessions.pop(session_id))
        return stored

    def _commit(
        self, stored: _Stored, change: Change, undo: Undo, *, created: bool = False, note: str | None = None
    ) -> Committed:
        head = stored.head
        session_id: str = head["session_id"]
        check(
            session_id,
            head,
            change,
            lambda key: self._version(stored, key),
            lambda: all(self._repeated(stored, new.message) is not None for new in change.messages),
        )
        effect = Effect()
        revision = head["revision"] + 1
        self._retract(stored, change, effect, undo)
        for new in change.messages:
            self._append(stored, new.message, revision, effect, undo)
        self._write_keys(stored, change, revision, effect, undo)
        for record in change.records:
            effect.records.append((self._admitted(stored, record), record))
        new_fields = apply(head, change, effect, self._limits)
        if created:
            new_fields["revision"] = revision
        undo.append(lambda: setattr(stored, "head", head))
        stored.head = {**head, **new_fields}
        if change.alter is not None and change.alter.metadata is not None:
            stored.head["custom_metadata"] = decode(encode(stored.head["custom_metadata"]))
        if "revision" in new_fields:
            self._touch(stored, undo)
        committed = Committed(session_id, stored.head, effect, note or note_on(head, change))
        for _, record in effect.records:
            numbers = committed.numbers(record) or {}
            self._record(stored, joined(record, session_id, new_fields.get("revision"), numbers), undo)
        for other_id, other in change.also:
            self._commit(self._get(other_id, other.as_user), other, undo)
        return committed

    def _commit_records(self, change: Change, undo: Undo) -> Committed:
        check_records_only(change)
        for record in change.records:
            self._admitted(None, record)
            self._record(None, record, undo)
        for other_id, other in change.also:
            self._commit(self._get(other_id, other.as_user), other, undo)
        return Committed(None, None, Effect())

    def _append(self, stored: _Stored, message: ConversationMessage, revision: int, effect: Effect, undo: Undo) -> None:
        seq = self._repeated(stored, message)
        if seq is not None:
            effect.seqs.append(seq)
            return
        effect.appended += 1
        seq = stored.head["last_seq"] + effect.appended
        effect.seqs.append(seq)
        self._say(stored, isolated(message.model_copy(update={"seq": seq})), revision)
        undo.append(stored.messages.pop)
        undo.append(lambda: stored.taken.pop(message.message_id))

    def _repeated(self, stored: _Stored, message: ConversationMessage) -> int | None:
        """The seq of the message that this one repeats, if it does."""
        seq = stored.taken.get(message.message_id)
        if seq is None:
            return None
        place = bisect_left(stored.messages, seq, key=_seq)
        first = stored.messages[place].message if place < len(stored.messages) else None
        if first is not None and first.seq == seq:
            same = message.same_as(first)
        else:
            same = stored.retracted[message.message_id] in (None, message.fingerprint())
        if not same:
            raise MessageConflictError(stored.head["session_id"], message.message_id, seq)
        return seq

    def _say(self, stored: _Stored, message: ConversationMessage, revision: int) -> None:
        stored.messages.append(_Said((_ms(message.timestamp), self._next()), message, revision))
        stored.taken[message.message_id] = message.seq

    def _retract(self, stored: _Stored, change: Change, effect: Effect, undo: Undo) -> None:
        if not change.retract:
            return
        before = stored.messages
        undo.append(lambda: setattr(stored, "messages", before))
        kept: list[_Said] = []
        for one in before:
            if any(first <= one.message.seq <= last for first, last in change.retract):
                message_id = one.message.message_id
                stored.retracted[message_id] = one.message.fingerprint()
                undo.append(lambda message_id=message_id: stored.retracted.pop(message_id))
            else:
                kept.append(one)
        stored.messages = kept
        effect.retracted = len(before) - len(kept)

    def _write_keys(self, stored: _Stored, change: Change, revision: int, effect: Effect, undo: Undo) -> None:
        gone = list(change.remove)
        if change.remove_all:
            gone += sorted(key for key in stored.keys if not key.startswith("."))
        for key in dict.fromkeys(gone):
            if self._version(stored, key):
                effect.removed.append(key)
                self._write_key(stored, key, revision, None, undo)
        for key, value in change.set.items():
            self._write_key(stored, key, revision, encode(value), undo)

    def _write_key(self, stored: _Stored, key: str, version: int, text: str | None, undo: Undo) -> None:
        before = stored.keys.get(key)
        was_pruned = key in stored.pruned

        def put_back() -> None:
            if before is None:
                del stored.keys[key]
            else:
                stored.keys[key] = before
            if not was_pruned:
                stored.pruned.discard(key)

        versions = [*(one for one in before or [] if one[0] != version), (version, text)]
        if len(versions) > self._limits.key_versions:
            stored.pruned.add(key)
        stored.keys[key] = versions[-self._limits.key_versions :]
        undo.append(put_back)

    def _admitted(self, stored: _Stored | None, record: Invocation) -> Invocation | None:
        existing = self._existing(stored, record)
        for one in existing or (None,):
            admit(one, record)
        return existing[0] if existing else None

    def _existing(self, stored: _Stored | None, record: Invocation) -> list[Invocation]:
        """The records of the same id: the one of the session, and the user's where it is another."""
        numbers = dict.fromkeys(self._calls[call] for call in _calls(stored, record) if call in self._calls)
        return [self._records[number].value() for number in numbers]

    def _record(self, stored: _Stored | None, record: Invocation, undo: Undo) -> None:
        calls = _calls(stored, record)
        for call in calls:
            if call in self._calls:
                self._forget(self._calls[call], undo)
        number = self._next()
        self._records[number] = _Record((_ms(record.started_at), number), stored, _copied(record))
        undo.append(lambda: self._records.pop(number))
        for call in calls:
            self._calls[call] = number
            undo.append(lambda call=call: self._calls.pop(call))

    def _forget(self, number: int, undo: Undo) -> None:
        one = self._records.pop(number)
        undo.append(lambda: self._records.__setitem__(number, one))
        for call in _calls(one.session, one.record):
            if self._calls.pop(call, None) is not None:
                undo.append(lambda call=call: self._calls.__setitem__(call, number))

    def _touch(self, stored: _Stored, undo: Undo) -> None:
        before = stored.position
        undo.append(lambda: setattr(stored, "position", before))
        self._position += 1
        stored.position = self._position

    def _next(self) -> int:
        self._number += 1
        return self._number

    # reading

    def read(self, session_id: str, want: Want) -> View:
        with self._lock:
            self._open()
            stored = self._get(session_id, want.as_user)
            named = want.names or want.any_keys
            live = sorted(key for key in stored.keys if self._version(stored, key)) if named else []
            keys = {*want.keys, *_short_enough(stored, want)}
            keys |= {*islice((key for key in live if want.after_key is None or key > want.after_key), want.any_keys)}
            data: dict[str, Value] = {}
            for key in sorted(keys):
                version, text = stored.keys.get(key, [(0, None)])[-1]
                if text is not None:
                    data[key] = Value(value=decode(text), version=version)
            messages = list(islice(_said(stored.messages, want), want.messages + 1)) if want.messages else []
            kinds = ("work", "usage") if want.usage else ("work",)
            everywhere = self._records.values() if want.records else ()
            records = [one for one in everywhere if one.session is stored and one.record.kind in kinds]
            records.sort(key=lambda one: one.place, reverse=True)
            return View(
                metadata=metadata_of(stored.head),
                data=data,
                names=[key for key in live if _wanted(key, "")] if want.names else [],
                messages=[isolated(message) for message in messages[: want.messages]],
                more_messages=len(messages) > want.messages,
                records=[one.value() for one in records[: want.records]],
            )

    def find(self, query: Query, cursor: str | None = None) -> Page[SessionMetadata]:
        with self._lock:
            self._open()
            rows: list[tuple[Any, _Stored]] = [
                (_sort_value(stored.head, query), stored) for stored in self._selected(query)
            ]
            rows.sort(key=lambda row: (row[0], row[1].head["session_id"]), reverse=not query.reverse)
            question = bound("find", query)
            kind = type(_sort_value(_ANY_HEAD, query))
            place = unpack(question, cursor, (kind, str))
            if place is not None:
                at = (place[0], place[1])
                rows = [
                    row
                    for row in rows
                    if ((row[0], row[1].head["session_id"]) > at) == query.reverse
                    and (row[0], row[1].head["session_id"]) != at
                ]
            page = rows[: query.limit]
            more = len(rows) > query.limit
            return Page(
                items=[metadata_of(stored.head) for _, stored in page],
                next_cursor=pack(question, [page[-1][0], page[-1][1].head["session_id"]]) if more else None,
            )

    def search(self, text: str, query: Query, cursor: str | None = None) -> Page[Hit]:
        sought = set(words(text))
        with self._lock:
            self._open()
            hits = [
                (one.place, stored, one.message)
                for stored in self._selected(query)
                for one in stored.messages
                if sought and one.has(sought)
            ]
            page, next_cursor = _cut(hits, lambda hit: hit[0], bound("search", query, text), query, cursor)
            return Page(
                items=[
                    Hit(
                        session_id=stored.head["session_id"],
                        purpose=stored.head["purpose"],
                        seq=message.seq,
                        role=message.role,
                        snippet=snippet(message.content, sought),
                        timestamp=message.timestamp,
                    )
                    for _, stored, message in page
                ],
                next_cursor=next_cursor,
            )

    def invocations(self, query: InvocationQuery, cursor: str | None = None) -> Page[Invocation]:
        with self._lock:
            self._open()
            question = bound("invocations", query)
            page, next_cursor = _cut(self._matching(query), lambda one: one.place, question, query, cursor)
            return Page(items=[one.value() for one in page], next_cursor=next_cursor)

    def totals(self, query: Query, group_by: GroupBy | None = None) -> list[Totals]:
        with self._lock:
            self._open()
            sums: dict[str | None, _Sum] = {} if group_by else {None: _Sum()}
            selected = self._selected(query)
            if group_by in ("day", "model", "tool"):
                known = {id(stored) for stored in selected}
                for one in self._records.values():
                    stored, record = one.session, one.record
                    if stored is None or id(stored) not in known:
                        continue
                    if record.kind == "session" or record.status == "running":
                        continue
                    if group_by == "tool" and record.kind == "usage":
                        continue
                    sums.setdefault(_group(record, group_by), _Sum(messages=None)).add_record(record, stored)
            else:
                for stored in selected:
                    groups: Iterable[str | None] = (None,)
                    if group_by == "tag":
                        groups = dict.fromkeys(stored.head["tags"]) or (None,)
                    elif group_by is not None:
                        groups = (stored.head[{"user": "user_id", "status": "status"}[group_by]],)
                    for group in groups:
                        name = group.value if isinstance(group, SessionStatus) else group
                        sums.setdefault(name, _Sum()).add_head(stored.head)
            return [sums[name].value(name) for name in sorted(sums, key=lambda name: (name is not None, name or ""))]

    def changes(self, since: str | None, limit: int = 1000) -> Page[SessionChange]:
        with self._lock:
            self._open()
            now = [self._position, self._position]
            if since is None:
                return Page(items=[], next_cursor=pack("changes", now))
            start, known = unpack("changes", since or None, (int, int)) or (0, 0)
            if start == self._position:
                return Page(items=[], next_cursor=pack("changes", now))
            latest: dict[str, tuple[int, SessionChange]] = {}
            for position, session_id in self._deleted:
                if position > start and session_id not in self._sessions:
                    latest[session_id] = position, SessionChange(session_id=session_id, revision=None)
            for session_id, stored in self._sessions.items():
                if stored.position > start:
                    revision, created = stored.head["revision"], stored.born > known
                    change = SessionChange(session_id=session_id, revision=revision, created=created)
                    latest[session_id] = stored.position, change
            rows = sorted(latest.values(), key=lambda row: row[0])
            page = rows[:limit]
            return Page(
                items=[change for _, change in page],
                next_cursor=pack("changes", [page[-1][0], known] if len(rows) > limit else now),
            )

    def owner(self) -> str:
        self._open()
        return self._owner

    def alive(self, owner: str) -> bool:
        self._open()
        return owner == self._owner

    def check(self) -> list[Finding]:
        with self._lock:
            self._open()
            return [Finding(level="ok", what="memory", detail=f"{len(self._sessions)} sessions")]

    def close(self) -> None:
        with self._lock:
            self._closed = True

    def _open(self) -> None:
        if self._closed:
            raise StorageClosedError("The memory storage")

    def _get(self, session_id: str, as_user: str | None) -> _Stored:
        stored = self._sessions.get(session_id)
        if stored is None or (as_user is not None and stored.head["user_id"] != as_user):
            raise SessionNotFoundError(session_id)
        return stored

    def _version(self, stored: _Stored, key: str) -> int:
        versions = stored.keys.get(key)
        return versions[-1][0] if versions and versions[-1][1] is not None else 0

    def _selected(self, query: Query) -> list[_Stored]:
        return [stored for stored in self._sessions.values() if _selects(query, stored.head)]

    def _matching(self, query: InvocationQuery) -> list[_Record]:
        """Newest first."""
        found: list[_Record] = []
        for one in self._records.values():
            record = one.record
            owner = one.session.head["user_id"] if one.session else record.user_id
            if (
                record.kind != ("session" if query.kind == "counted" else "usage")
                and (query.as_user is None or owner == query.as_user)
                and (query.session_id is None or _id_of(one.session) == query.session_id)
                and (query.invocation_id is None or record.invocation_id == query.invocation_id)
                and (query.scope is None or record.scope is not None)
                and (query.scope != "user" or (record.scope, record.user_id) == ("user", query.user_id))
                and (query.tool is None or record.tool_name == query.tool)
                and (query.status is None or record.status is query.status)
                and (query.kind in (None, "counted") or record.kind == query.kind)
            ):
                found.append(one)
        return sorted(found, key=lambda one: one.place, reverse=True)


def _at_the_end(stored: _Stored, seq: int) -> bool:
    """Whether a seq is the last one given, and its message was retracted."""
    return 0 < seq == stored.head["last_seq"] and not (stored.messages and stored.messages[-1].message.seq == seq)


def _id_of(stored: _Stored | None) -> str | None:
    return stored.head["session_id"] if stored else None


def _calls(stored: _Stored | None, record: Invocation) -> list[_Call]:
    if record.scope is None:
        return []
    calls: list[_Call] = [] if stored is None else [(id(stored), None, record.invocation_id)]
    if record.scope == "user":
        calls.append((None, record.user_id, record.invocation_id))
    return calls


def _copied(record: Invocation) -> Invocation:
    return Invocation.model_validate_json(record.model_dump_json())


def _wanted(key: str, prefix: str | None) -> bool:
    if prefix is None:
        return False
    return not key.startswith(".") if prefix == "" else key.startswith(prefix)


def _short_enough(stored: _Stored, want: Want) -> Iterator[str]:
    """The keys that are wanted by their beginning."""
    chars = 0
    for key in sorted(key for key in stored.keys if _wanted(key, want.prefix)):
        chars += len(stored.keys[key][-1][1] or "")
        if want.prefix_chars is not None and chars > want.prefix_chars:
            return
        yield key


def _said(messages: list[_Said], want: Want) -> Iterator[ConversationMessage]:
    first = 0 if want.after is None else bisect_right(messages, want.after, key=_seq)
    end = len(messages) if want.before is None else bisect_left(messages, want.before, key=_seq)
    places = range(first, end)
    for place in places if want.order == "oldest" else reversed(places):
        message = messages[place].message
        if not want.roles or message.role in want.roles:
            yield message


def _seq(one: _Said) -> int:
    return one.message.seq


def _cut(
    rows: list[Row],
    place_of: Callable[[Row], tuple[int, int]],
    question: str,
    query: Query | InvocationQuery,
    cursor: str | None,
) -> tuple[list[Row], str | None]:
    reverse, limit = query.reverse, query.limit
    rows = sorted(rows, key=place_of, reverse=not reverse)
    place = unpack(question, cursor, (int, int))
    if place is not None:
        at = (place[0], place[1])
        rows = [row for row in rows if (place_of(row) > at if reverse else place_of(row) < at)]
    page = rows[:limit]
    return page, pack(question, list(place_of(page[-1]))) if len(rows) > limit else None


_ANY_HEAD: dict[str, Any] = {
    "updated_at": EPOCH,
    "created_at": EPOCH,
    "estimated_cost": 0.0,
    "total_invocations": 0,
    "total_duration_ms": 0.0,
}


def _sort_value(head: dict[str, Any], query: Query) -> float:
    match query.order:
        case "updated":
            return micros(head["updated_at"])
        case "created":
            return micros(head["created_at"])
        case "cost":
            return nanos(head["estimated_cost"])
        case "calls":
            return head["total_invocations"]
        case "duration":
            return float(head["total_duration_ms"])


def _selects(query: Query, head: dict[str, Any]) -> bool:
    tags = set(head["tags"])
    wanted = set(query.tags)
    haystack = fold(" ".join([head["session_id"], head["purpose"] or "", *head["tags"]]))
    return (
        (query.as_user is None or head["user_id"] == query.as_user)
        and (query.user_id is None or head["user_id"] == query.user_id)
        and (not query.ids or head["session_id"] in query.ids)
        and (query.id_prefix is None or head["session_id"].startswith(query.id_prefix))
        and (query.purpose is None or head["purpose"] == query.purpose)
        and (not query.status or head["status"] in query.status)
        and (not wanted or (wanted <= tags if query.match == "all" else bool(wanted & tags)))
        and all(word in haystack for word in fold(query.text).split())
        and (query.tool is None or query.tool in head["tools_used"])
        and (query.created_after is None or head["created_at"] > query.created_after)
        and (query.created_before is None or head["created_at"] < query.created_before)
        and (query.updated_after is None or head["updated_at"] > query.updated_after)
        and (query.updated_before is None or head["updated_at"] < query.updated_before)
        and (query.has_errors is None or (head["failed_invocations"] > 0) == query.has_errors)
        and (query.min_cost is None or nanos(head["estimated_cost"]) >= nanos(query.min_cost))
    )


def _group(record: Invocation, group_by: GroupBy) -> str | None:
    if group_by == "day":
        return record.started_at.date().isoformat()
    return record.model if group_by == "model" else record.tool_name


@dataclass
class _Sum:
    messages: int | None = 0
    sessions: set[str] = field(default_factory=set[str])
    invocations: int = 0
    failed: int = 0
    duration_us: int = 0
    cost: int = 0
    unpriced: int = 0
    usage: dict[str, int] = field(default_factory=lambda: dict.fromkeys(tokens(), 0))

    def add_head(self, head: dict[str, Any]) -> None:
        assert self.messages is not None
        self.sessions.add(head["session_id"])
        self.messages += head["message_count"]
        self.invocations += head["total_invocations"]
        self.failed += head["failed_invocations"]
        self.duration_us += round(head["total_duration_ms"] * 1000)
        self.cost += nanos(head["estimated_cost"])
        self.unpriced += head["unpriced_invocations"]
        for name, count in head["token_usage"].items():
            self.usage[name] += count

    def add_record(self, record: Invocation, stored: _Stored) -> None:
        work = record.kind == "work"
        self.sessions.add(stored.head["session_id"])
        self.invocations += work
        self.failed += work and record.status != "ok"
        self.duration_us += round((record.duration_ms or 0.0) * 1000) if work else 0
        self.cost += nanos(record.cost or 0.0)
        self.unpriced += unpriced(record)
        for name, count in cast("Mapping[str, int]", record.token_usage or tokens()).items():
            self.usage[name] += count

    def value(self, group: str | None) -> Totals:
        return Totals(
            group=group,
            sessions=len(self.sessions),
            messages=self.messages,
            invocations=self.invocations,
            failed=self.failed,
            # To the precision of a float, as every backend has it: its sums must not overflow.
            duration_ms=int(float(self.duration_us)) / 1000,
            token_usage=tokens(**{name: int(float(count)) for name, count in self.usage.items()}),
            estimated_cost=int(float(self.cost)) / NANO,
            unpriced_invocations=self.unpriced,
        )
