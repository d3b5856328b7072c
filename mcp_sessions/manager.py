"""SessionManager: the one place with meaning: lifecycle, limits, ownership, defaults.

Its methods alter and read sessions and write no record of themselves; `call` is what makes a record. All block,
all may be used from any thread, and none keeps a session in memory.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, cast, get_args

from pydantic import ValidationError

from .calls import Call
from .drafts import Draft, checked_id, checked_json, checked_metadata, checked_tags, checked_text, whole
from .errors import (
    ConflictError,
    InvalidArgumentError,
    InvalidCursorError,
    InvocationConflictError,
    InvocationRecordedError,
    SessionEndedError,
    SessionNotFoundError,
)
from .models import (
    LONGEST_MS,
    MOST_TOKENS,
    MOST_USD,
    MOST_WORDS,
    Alter,
    Change,
    ConversationMessage,
    CostSource,
    Failure,
    Finding,
    GroupBy,
    Hit,
    Invocation,
    InvocationQuery,
    InvocationStatus,
    Limits,
    Page,
    Query,
    Role,
    SessionMetadata,
    SessionStatus,
    TokenUsage,
    Totals,
    Value,
    View,
    Want,
    generated,
    invalid,
    tokens,
)
from .pricing import estimate
from .querying import parse_query
from .reads import ReadLog
from .records import LONGEST_ERROR, SECRET_WORDS, Redactor, record_limit
from .session import Clock, Session, new_id, utc_now
from .storage import SessionStorage
from .storage.cursors import pack, unpack
from .storage.heads import NANO, admit
from .storage.times import micros
from .storage.whole import INVOCATION_DIR
from .storage.words import words

log = logging.getLogger(__name__)
MOST_BYTES_OF_A_NAME = 1 << 20
WAITS_FOR = ".waits_for"
"""A session that has this key waits for a person, however long that takes: it is not idle."""


class SessionManager:
    """Sessions with their rules, over any storage.

    `clock` and `make_id` may be given for tests; `abandon_after` is how long an active session may be idle before
    `cleanup` calls it abandoned; `wait_s` is how long a repeated call waits for the first one to end.
    """

    def __init__(
        self,
        storage: SessionStorage,
        *,
        limits: Limits | None = None,
        redact: Iterable[str] = SECRET_WORDS,
        abandon_after: timedelta = timedelta(hours=24),
        clock: Clock = utc_now,
        make_id: Callable[[str], str] = new_id,
        wait_s: float = 30.0,
    ) -> None:
        self.storage = storage
        self.limits = limits or Limits()
        self.redactor = Redactor(redact)
        self.abandon_after = abandon_after
        self.clock = clock
        self.make_id = make_id
        self.own_times_and_ids = clock is utc_now and make_id is new_id
        """Times and ids are ours, and so need no check."""
        self.wait_s = wait_s
        self.reads = ReadLog(storage, clock, make_id)
        # A manager that nobody closed: what waits is written all the same, and the thread that does it ends.
        weakref.finalize(self, self.reads.end).atexit = False

    # the unit of work

    def call(
        self,
        tool_name: str,
        session_id: str | None = None,
        arguments: Mapping[str, Any] | None = None,
        caller: str = "python",
        invocation_id: str | None = None,
        slow: bool = False,
        *,
        kind: Literal["session", "work"] = "work",
        reads: bool = False,
        new_session: bool = False,
        opens: Callable[[], object] | None = None,
        as_user: str | None = None,
        parent_id: str | None = None,
    ) -> Call:
        """One recorded call, as a context manager: what it stages is committed with its record, or dropped.

        With the caller's own `invocation_id`, a call that went well is not made again: see `Call.replayed`. The id
        is unique within the user and the session, or with `new_session` (calls that create, fork or delete) within
        the user alone. `slow` puts it on record as running at once, and where `opens` is given, which raises
        if it is not to be made, its session is made if there is none. `reads` says that nothing is staged: then the
        record is written within a second. Raises InvocationRunningError, InvocationConflictError, and on leaving
        whatever the commit raises.
        """
        return Call(
            self,
            tool_name,
            session_id,
            arguments,
            caller=caller,
            invocation_id=invocation_id,
            slow=slow,
            kind=kind,
            reads=reads,
            new_session=new_session,
            opens=opens,
            as_user=as_user,
            parent_id=parent_id,
        )

    # sessions

    def create_session(
        self,
        session_id: str | None = None,
        purpose: str | None = None,
        user_id: str | None = None,
        tags: Sequence[str] | None = None,
        custom_metadata: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
        parent_id: str | None = None,
    ) -> Session:
        """A new active session. Raises SessionExistsError, InvalidArgumentError, LimitError."""
        metadata = self.new_metadata(session_id, purpose, user_id, tags, custom_metadata, parent_id)
        draft = self.draft()
        for key, value in (data or {}).items():
            draft.set_value(key, value)
        committed = self.storage.create(metadata, draft.change(metadata.created_at))
        return Session(committed.metadata, data=dict(data or {}), clock=self.clock, stored=True)

    def new_metadata(
        self,
        session_id: str | None = None,
        purpose: str | None = None,
        user_id: str | None = None,
        tags: Sequence[str] | None = None,
        custom_metadata: Mapping[str, Any] | None = None,
        parent_id: str | None = None,
    ) -> SessionMetadata:
        """The head of a session to be, checked. Raises InvalidArgumentError, LimitError."""
        now, limits = self.clock(), self.limits
        return SessionMetadata(
            session_id=self.make_id("ses")
            if session_id is None
            else checked_id(session_id, "session_id", limits.id_chars),
            created_at=now,
            updated_at=now,
            user_id=None if user_id is None else checked_text(user_id, "user_id", limits.key_chars),
            purpose=None if purpose is None else checked_text(purpose, "purpose", limits.metadata_bytes),
            tags=checked_tags(tags or (), limits),
            custom_metadata=dict(checked_metadata(custom_metadata or {}, limits)),
            parent_id=None if parent_id is None else checked_id(parent_id, "parent_id"),
        )

    def get_session(self, session_id: str, *, as_user: str | None = None) -> Session | None:
        """A working copy of the whole session, as of one moment; None where there is none."""
        session = self.storage.load_session(checked_name(session_id), as_user=as_user)
        if session is not None:
            session.clock = self.clock
        return session

    def save_session(self, session: Session, *, as_user: str | None = None) -> None:
        """Commit what was done to a working copy since it was read; one that the store does not know is created.

        Raises SessionNotFoundError for a session of another user, there or to be created; LimitError,
        InvalidArgumentError, SessionEndedError, StorageError.
        """
        pending, known = session.pending(), self.storage.session_exists(session.session_id, as_user=as_user)
        messages = [new.message for new in pending.messages] if known else session.conversation
        draft = self.draft()
        for message in messages:
            draft.add_message(**message.model_dump(exclude={"seq"}))
        for key, value in (pending.set if known else session.data).items():
            draft.set_value(key, value)
        head = session.metadata
        draft.alter(purpose=head.purpose, summary=head.summary, tags=head.tags, metadata=head.custom_metadata)
        self.storage.save_session(session, as_user=as_user)

    def update_session_metadata(
        self,
        session_id: str,
        purpose: str | None = None,
        tags: Sequence[str] | None = None,
        custom_metadata: Mapping[str, Any] | None = None,
        *,
        as_user: str | None = None,
    ) -> SessionMetadata:
        """Replace purpose and tags, merge metadata; None leaves a field alone.

        Raises SessionNotFoundError, SessionEndedError, LimitError.
        """
        draft = self.draft()
        draft.alter(purpose=purpose, tags=tags, metadata=custom_metadata)
        return self._commit(session_id, draft, as_user).metadata

    def complete_session(
        self,
        session_id: str,
        status: SessionStatus | str = SessionStatus.COMPLETED,
        summary: str | None = None,
        *,
        as_user: str | None = None,
    ) -> SessionMetadata:
        """End a session; ending it again in the same way changes nothing.

        Raises SessionNotFoundError; SessionEndedError where it ended in another way.
        """
        draft = self.draft()
        draft.alter(status=ending(status), summary=summary)
        return self._commit(session_id, draft, as_user).metadata

    def reopen_session(self, session_id: str, *, as_user: str | None = None) -> SessionMetadata:
        """Make an ended session active again. Raises SessionNotFoundError."""
        draft = self.draft()
        draft.alter(status=SessionStatus.ACTIVE)
        return self._commit(session_id, draft, as_user).metadata

    def delete_session(self, session_id: str, *, as_user: str | None = None) -> bool:
        """Remove a session with all that belongs to it; whether there was one."""
        try:
            self.storage.delete(checked_name(session_id), Change(at=self.clock(), as_user=as_user))
        except SessionNotFoundError:
            return False
        return True

    def fork(
        self,
        session_id: str,
        at_seq: int | None = None,
        new_session_id: str | None = None,
        *,
        as_user: str | None = None,
    ) -> SessionMetadata:
        """A new session with messages 1..at_seq (None: all) and the keys as of then; no records, counters at 0.

        Raises SessionNotFoundError, SessionExistsError, InvalidArgumentError.
        """
        if at_seq is not None and not whole(at_seq):
            raise InvalidArgumentError(f"at_seq {at_seq!r} is not a number of a message.", argument="at_seq")
        metadata = self.forked_metadata(session_id, new_session_id, as_user=as_user)
        return self.storage.fork(session_id, at_seq, metadata, Change(at=self.clock(), as_user=as_user)).metadata

    def forked_metadata(
        self, session_id: str, new_session_id: str | None, *, as_user: str | None = None
    ) -> SessionMetadata:
        """The head of a fork to be: the parent's purpose, owner, tags and metadata."""
        if new_session_id is not None:
            checked_id(new_session_id, "new_session_id", self.limits.id_chars)
        parent = self.metadata(session_id, as_user=as_user)
        return self.new_metadata(
            new_session_id, parent.purpose, parent.user_id, parent.tags, parent.custom_metadata, session_id
        )

    def list_sessions(
        self,
        user_id: str | None = None,
        status: SessionStatus | str | None = None,
        tags: Sequence[str] | None = None,
        limit: int = 100,
        *,
        as_user: str | None = None,
    ) -> list[Session]:
        """The sessions last updated, newest first; with any of the tags."""
        try:
            sessions = self.storage.list_sessions(user_id, status, tags, limit, as_user=as_user)
        except ValidationError as error:
            raise invalid(error) from None
        for session in sessions:
            session.clock = self.clock
        return sessions

    def cleanup_old_sessions(self, max_age_days: float = 30, dry_run: bool = False) -> list[str]:
        """Remove the ended sessions last updated more than so many days ago; their ids. Active ones stay."""
        try:
            cutoff = self.clock() - timedelta(days=max_age_days)
        except (OverflowError, TypeError, ValueError):
            raise InvalidArgumentError(
                f"max_age_days {str(max_age_days)[:60]} is not a number of days since year 1.", argument="max_age_days"
            ) from None
        if not dry_run:
            return self.storage.cleanup_sessions(cutoff)
        ended = tuple(status for status in SessionStatus if status is not SessionStatus.ACTIVE)
        query = Query(status=ended, updated_before=cutoff, reverse=True, limit=1000)
        return [metadata.session_id for metadata in self._all(query)]

    def cleanup(self, retention: timedelta | None = None) -> list[str]:
        """Call active sessions abandoned that were idle for `abandon_after`; remove ended ones past `retention`.

        Returns the ids of the abandoned ones. A session with a call still running, or with the key WAITS_FOR, is not
        idle.
        """
        cutoff = self.clock() - self.abandon_after
        self.interrupt_dead()
        idle = self._all(Query(status=(SessionStatus.ACTIVE,), updated_before=cutoff, limit=1000))
        # Asked for after them: a call that has begun since makes its session busy.
        running = {record.session_id for record in self._running()}
        abandoned: list[str] = []
        for metadata in idle:
            if metadata.session_id in running:
                continue
            change = Change(
                at=self.clock(),
                alter=Alter(status=SessionStatus.ABANDONED),
                active=True,
                expected_updated_at=metadata.updated_at,
                expected_versions={WAITS_FOR: 0},
            )
            try:
                self.storage.commit(metadata.session_id, change)
            except (SessionNotFoundError, SessionEndedError, ConflictError):
                continue  # it changed meanwhile, so it is not idle
            abandoned.append(metadata.session_id)
        if retention is not None:
            self.storage.cleanup_sessions(self.clock() - retention)
        return abandoned

    # what is in them

    def add_conversation_message(
        self,
        session_id: str,
        role: Role | str,
        content: str,
        tool_name: str | None = None,
        invocation_id: str | None = None,
        *,
        message_id: str | None = None,
        as_user: str | None = None,
        **more: Any,
    ) -> ConversationMessage:
        """Append a message; `more` are further fields of ConversationMessage. A repeated `message_id` with the same
        content gives the first one's seq. Raises SessionNotFoundError, SessionEndedError, MessageConflictError.
        """
        draft = self.draft()
        message = draft.add_message(
            role, content, message_id=message_id, tool_name=tool_name, invocation_id=invocation_id, **more
        )
        return message.model_copy(update={"seq": self._commit(session_id, draft, as_user).seqs[0]})

    def clear_conversation(self, session_id: str, *, as_user: str | None = None) -> SessionMetadata:
        """Take back all messages that there are; their content is erased. Raises SessionNotFoundError,
        SessionEndedError.
        """
        head = self.metadata(session_id, as_user=as_user)
        if not head.message_count:
            return head
        draft = self.draft()
        draft.retract.append((1, head.last_seq))
        return self._commit(session_id, draft, as_user).metadata

    def get_value(self, session_id: str, key: str, default: Any = None, *, as_user: str | None = None) -> Any:
        """A key's value, `default` where there is none. Raises SessionNotFoundError."""
        value = self._read(session_id, keys=(key,), as_user=as_user).data.get(key)
        return default if value is None else value.value

    def set_value(
        self,
        session_id: str,
        key: str,
        value: Any,
        expected_version: int | None = None,
        *,
        as_user: str | None = None,
    ) -> Value:
        """Set a key, where given only if it still has that version (0: must not exist). Its value and new version.

        Raises SessionNotFoundError, SessionEndedError, ConflictError, LimitError.
        """
        draft = self.draft()
        draft.set_value(key, value, expected_version)
        revision = self._commit(session_id, draft, as_user).revision
        assert revision is not None
        return Value(value=value, version=revision)

    def unset_value(self, session_id: str, key: str, *, as_user: str | None = None) -> bool:
        """Remove a key; whether it was there. Raises SessionNotFoundError, SessionEndedError."""
        draft = self.draft()
        draft.unset([key])
        return bool(self._commit(session_id, draft, as_user).removed)

    def link_invocation(
        self,
        session_id: str,
        invocation_id: str,
        tool_name: str,
        invocation_dir: str | Path | None = None,
        duration_ms: float | None = None,
        *,
        as_user: str | None = None,
        **more: Any,
    ) -> Invocation:
        """Record a call that was made elsewhere; `more` are further fields of Invocation. An id is counted once: the
        record that is there is returned. Raises SessionNotFoundError, InvocationConflictError; with `invocation_dir`,
        which is kept in the session, SessionEndedError.
        """
        draft = self.draft()
        record = self.linked(invocation_id, tool_name, duration_ms=duration_ms, as_user=as_user, **more)
        draft.records.append(record)
        if invocation_dir is not None:
            draft.set_value(INVOCATION_DIR + record.invocation_id, str(Path(invocation_dir).absolute()))
        try:
            self._commit(session_id, draft, as_user)
        except InvocationRecordedError as recorded:
            return recorded.record
        return record.model_copy(update={"session_id": session_id})

    def linked(
        self,
        invocation_id: str | None,
        tool_name: str,
        *,
        duration_ms: float | None = None,
        as_user: str | None = None,
        arguments: Any = None,
        result: Any = None,
        error: str | Failure | None = None,
        model: str | None = None,
        token_usage: TokenUsage | None = None,
        cost: float | None = None,
        started_at: datetime | None = None,
        **more: Any,
    ) -> Invocation:
        """The record of a call made elsewhere, checked, priced and shortened as records are."""
        limits = self.limits
        checked_amount(duration_ms, "duration_ms", LONGEST_MS, "milliseconds, a year")
        checked_amount(cost, "cost", MOST_USD, "USD")
        for name, value in (("arguments", arguments), ("result", result)):
            checked_json(value, name, limits.value_bytes)
        for name, text in (
            ("model", model),
            *((name, more.get(name)) for name in ("caller", "native_id", "parent_id")),
        ):
            if text is not None:
                checked_text(text, name, limits.key_chars * 4)
        now = self.clock()
        started = started_at or now - timedelta(milliseconds=duration_ms or 0.0)
        if token_usage is not None:
            token_usage = usage_of(**token_usage)
        usd, source = self.priced(model, token_usage, cost, started)
        try:
            return Invocation(
                invocation_id=self.make_id("inv")
                if invocation_id is None
                else checked_id(invocation_id, "invocation_id", limits.id_chars),
                user_id=as_user,
                tool_name=checked_text(tool_name, "tool_name", limits.key_chars * 4),
                status=InvocationStatus.ERROR if error is not None else InvocationStatus.OK,
                started_at=started,
                duration_ms=None if duration_ms is None else round(duration_ms, 3),
                arguments=self.redactor.bounded(arguments, record_limit(limits)),
                result=self.redactor.bounded(result, record_limit(limits)),
                error=self._failure(error),
                model=model,
                token_usage=token_usage,
                cost=usd,
                cost_source=source or "unknown",
                scope=None if invocation_id is None else "session",
                **more,
            )
        except ValidationError as fault:
            raise invalid(fault, "The record: ") from None

    def _failure(self, error: str | Failure | None) -> Failure | None:
        if isinstance(error, str):
            error = Failure(type="Error", message=checked_text(error, "error", self.limits.value_bytes))
        return error and error.model_copy(update={"message": error.message[:LONGEST_ERROR]})

    def refuse_recorded(self, session_id: str, records: Iterable[Invocation], as_user: str | None) -> None:
        """Raise for a record that has the id of a call made here: as InvocationRecordedError where it says the same,
        else as InvocationConflictError. Ids that callers choose are compared by the commit itself.
        """
        for record in records:
            if record.scope is None or not generated(record.invocation_id):
                continue
            self.reads.flush()
            query = InvocationQuery(as_user=as_user, session_id=session_id, invocation_id=record.invocation_id, limit=1)
            for existing in self.storage.invocations(query).items:
                admit(existing, record)

    def record_usage(
        self,
        session_id: str,
        model: str | None = None,
        input_tokens: int = 0,
        output_tokens: int = 0,
        cache_read_tokens: int = 0,
        cache_write_tokens: int = 0,
        cost: float | None = None,
        invocation_id: str | None = None,
        *,
        as_user: str | None = None,
    ) -> float | None:
        """Count tokens and cost of a model call in a session; its cost in USD, None where it is not known.

        `input_tokens` is the total including cache. Usage counts once per `invocation_id`.
        Raises SessionNotFoundError, InvalidArgumentError.
        """
        usage = usage_of(input_tokens, output_tokens, cache_read_tokens, cache_write_tokens)
        record = self.linked(
            invocation_id, model or "unknown", model=model, token_usage=usage, cost=cost, as_user=as_user, kind="usage"
        )
        draft = self.draft()
        draft.records.append(record)
        try:
            self._commit(session_id, draft, as_user)
        except InvocationRecordedError as recorded:
            return recorded.record.cost
        return record.cost

    # reading

    def metadata(self, session_id: str, *, as_user: str | None = None) -> SessionMetadata:
        """The head. Raises SessionNotFoundError."""
        return self._read(session_id, as_user=as_user).metadata

    def view(self, session_id: str, want: Want) -> View:
        """The head and the parts wanted, of one moment. Raises SessionNotFoundError."""
        return self.storage.read(checked_name(session_id), want)

    def messages(
        self,
        session_id: str,
        limit: int = 20,
        cursor: str | None = None,
        order: Literal["newest", "oldest"] = "newest",
        roles: Sequence[Role] | None = None,
        *,
        as_user: str | None = None,
    ) -> Page[ConversationMessage]:
        """A page of messages by seq. Raises SessionNotFoundError, InvalidCursorError."""
        checked_limit(limit)
        question = f"messages {session_id} {order} {','.join(sorted(roles or ()))}"
        place = unpack(question, cursor, (int, int))
        seq = place[0] if place is not None else None
        view = self._read(
            session_id,
            messages=limit,
            order=order,
            before=seq if order == "newest" else None,
            after=seq if order == "oldest" else None,
            roles=tuple(dict.fromkeys(roles or ())),
            as_user=as_user,
        )
        made_at = micros(view.metadata.created_at)
        if place is not None and place[1] != made_at:
            raise InvalidCursorError("belongs to a session that was deleted; another one was made under its id")
        more = pack(question, [view.messages[-1].seq, made_at]) if view.more_messages else None
        return Page[ConversationMessage].model_construct(items=view.messages, next_cursor=more)

    def invocations(
        self,
        session_id: str | None = None,
        tool: str | None = None,
        status: InvocationStatus | str | None = None,
        limit: int = 20,
        cursor: str | None = None,
        *,
        kind: Literal["session", "work"] | None = None,
        invocation_id: str | None = None,
        reverse: bool = False,
        stored: bool = False,
        as_user: str | None = None,
    ) -> Page[Invocation]:
        """A page of records, newest first; reads that this process recorded until now are among them, unless what is
        `stored` is enough.

        Raises SessionNotFoundError where a session is named, InvalidCursorError, StorageError.
        """
        if session_id is not None:
            self.metadata(session_id, as_user=as_user)
        checked_limit(limit)
        try:
            query = InvocationQuery(
                as_user=as_user,
                session_id=session_id,
                tool=tool,
                status=None if status is None else InvocationStatus(status),
                kind=kind,
                invocation_id=invocation_id,
                reverse=reverse,
                limit=limit,
            )
        except ValidationError as error:
            raise invalid(error) from None
        except ValueError:
            known = ", ".join(InvocationStatus)
            raise InvalidArgumentError(f"status {status!r} is not one of {known}.", argument="status") from None
        if not stored:
            self.reads.flush()
        return self.storage.invocations(query, cursor)

    def query(self, query: Query | str = "", cursor: str | None = None, **fields: Any) -> Page[SessionMetadata]:
        """A page of sessions by a Query, by a line of the query language, or by fields of Query.

        Raises InvalidArgumentError, InvalidCursorError.
        """
        return self.storage.find(self.as_query(query, **fields), cursor)

    def as_query(self, query: Query | str = "", **fields: Any) -> Query:
        """A Query out of a line of the query language and fields; a field given beside the line wins."""
        given = {name: value for name, value in fields.items() if value is not None}
        line = parse_query(query, self.clock()) if isinstance(query, str) else dict(query)
        try:
            return Query(**{**line, **given})
        except ValidationError as error:
            raise invalid(error) from None

    def search(
        self, text: str, query: Query | str = "", cursor: str | None = None, limit: int = 20, **fields: Any
    ) -> Page[Hit]:
        """A page of messages that have all the words, in the sessions of the query; newest first.

        Raises InvalidArgumentError, InvalidCursorError.
        """
        if (count := len(set(words(text)))) > MOST_WORDS:
            raise InvalidArgumentError(
                f"text has {count:,} words; at most {MOST_WORDS} can be looked for. Leave some out.", argument="text"
            )
        return self.storage.search(text, self.as_query(query, limit=checked_limit(limit), **fields), cursor)

    def totals(self, query: Query | str = "", group_by: GroupBy | None = None, **fields: Any) -> list[Totals]:
        """Sums over the sessions of a query, by group."""
        if group_by is not None and group_by not in get_args(GroupBy):
            known = ", ".join(get_args(GroupBy))
            raise InvalidArgumentError(f"group_by {group_by!r} is not one of {known}.", argument="group_by")
        return self.storage.totals(self.as_query(query, **fields), group_by)

    def get_session_statistics(self, session_id: str, *, as_user: str | None = None) -> dict[str, Any] | None:
        """What a session amounts to so far; None where there is none."""
        try:
            head = self.metadata(session_id, as_user=as_user)
        except SessionNotFoundError:
            return None
        return {
            "session_id": head.session_id,
            "status": head.status.value,
            "created_at": head.created_at,
            "updated_at": head.updated_at,
            "duration_seconds": (head.updated_at - head.created_at).total_seconds(),
            "total_invocations": head.total_invocations,
            "failed_invocations": head.failed_invocations,
            "total_duration_ms": head.total_duration_ms,
            "tools_used": head.tools_used,
            "message_count": head.message_count,
            "estimated_cost": head.estimated_cost,
            "unpriced_invocations": head.unpriced_invocations,
            "token_usage": head.token_usage,
        }

    # running calls

    def interrupt_dead(self) -> list[Invocation]:
        """Mark the running calls whose process is proven dead as interrupted; these records."""
        return [record for record in self._running() if self.interrupt(record)]

    def interrupt(self, record: Invocation) -> bool:
        """Mark one running call as interrupted, if its owner is proven dead; whether it was this one that did."""
        if record.owner is None or self.storage.alive(record.owner):
            return False
        failure = Failure(type="Interrupted", message="The process that ran this call ended before the call did.")
        over = record.model_copy(update={"status": InvocationStatus.INTERRUPTED, "error": failure, "revision": None})
        try:
            self.storage.commit(record.session_id, Change(at=self.clock(), records=(over,)))
        except (InvocationRecordedError, InvocationConflictError, SessionNotFoundError):
            return False  # another process saw it first, or the session is gone
        return True

    def _running(self) -> list[Invocation]:
        records: list[Invocation] = []
        cursor = None
        while True:
            page = self.storage.invocations(InvocationQuery(status=InvocationStatus.RUNNING, limit=1000), cursor)
            records += page.items
            cursor = page.next_cursor
            if cursor is None:
                return records

    # the rest

    def priced(
        self, model: str | None, usage: TokenUsage | None, cost: float | None, at: datetime
    ) -> tuple[float | None, CostSource | None]:
        """What a call cost in USD, and how that is known; (None, None) where there was nothing to price."""
        if cost is not None:
            return cost, "reported"
        if model is None and usage is None:
            return None, None
        if model is None or usage is None:
            return None, "unknown"
        nanos = estimate(model, usage, at)
        return (None, "unknown") if nanos is None else (nanos / NANO, "estimated")

    def draft(self) -> Draft:
        """A change to be, checked against the limits."""
        return Draft(self.limits, self.clock, self.make_id)

    def check(self) -> list[Finding]:
        """What the store finds wrong with itself, and what waits to be written by this process."""
        findings = self.storage.check()
        waiting, error = self.reads.waiting
        if error:
            after = "see to what it says; they are written then"
            findings.append(Finding(level="fault", what=f"{waiting:,} records wait", detail=error, next=after))
        return findings

    def close(self) -> None:
        """Write the records that wait, then close the storage. Raises StorageError where they cannot be."""
        try:
            self.reads.close()
        finally:
            self.storage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _commit(self, session_id: str, draft: Draft, as_user: str | None, **conditions: Any) -> Any:
        self.refuse_recorded(checked_name(session_id), draft.records, as_user)
        return self.storage.commit(session_id, draft.change(self.clock(), as_user=as_user, **conditions))

    def _read(self, session_id: str, **want: Any) -> View:
        try:
            return self.storage.read(checked_name(session_id), Want(**want))
        except ValidationError as error:
            raise invalid(error) from None

    def _all(self, query: Query) -> list[SessionMetadata]:
        found: list[SessionMetadata] = []
        cursor = None
        while True:
            page = self.storage.find(query, cursor)
            found += page.items
            cursor = page.next_cursor
            if cursor is None:
                return found


def ending(status: SessionStatus | str) -> SessionStatus:
    """A status that ends a session. Raises InvalidArgumentError for any other."""
    try:
        known = SessionStatus(status)
    except ValueError:
        known = SessionStatus.ACTIVE
    if known is SessionStatus.ACTIVE:
        raise InvalidArgumentError(
            f"status '{str(getattr(status, 'value', status))[:60]}' does not end a session; "
            "it is one of completed, failed, abandoned.",
            argument="status",
        )
    return known


def checked_name(session_id: str) -> str:
    """The id of a session to look for, whatever text it is. Raises InvalidArgumentError for what no store can hold."""
    return checked_text(session_id, "session_id", MOST_BYTES_OF_A_NAME)


def checked_limit(limit: int) -> int:
    """A page size. Raises InvalidArgumentError for one that is not 1 to 1,000."""
    if not whole(limit) or not 1 <= limit <= 1000:
        raise InvalidArgumentError(f"limit {limit!r} is not between 1 and 1,000.", argument="limit")
    return limit


def checked_amount(amount: float | None, argument: str, most: int, unit: str) -> None:
    """Raise InvalidArgumentError for what is neither None nor a number from 0 to `most`."""
    if amount is None:
        return
    if not (whole(amount) or isinstance(amount, float)) or not 0 <= amount <= most:
        raise InvalidArgumentError(
            f"{argument} {str(amount)[:60]} is not between 0 and {most:,} {unit}.", argument=argument
        )


def usage_of(input: int = 0, output: int = 0, cache_read: int = 0, cache_write: int = 0) -> TokenUsage:
    """Token counts. Raises InvalidArgumentError for what is not a count."""
    usage = tokens(input, output, cache_read, cache_write)
    for name, count in usage.items():
        if not whole(count) or not 0 <= cast("int", count) <= MOST_TOKENS:
            raise InvalidArgumentError(
                f"{name} tokens {count!r} is not a count: a whole number from 0 to {MOST_TOKENS:,}.",
                argument=f"{name}_tokens",
            )
    return usage
