"""Call: one tool call and its record, committed together.

A call stages what it wants changed. When it ends well, changes and record are one commit; when it fails, the
changes are dropped and the record says why. With the caller's own invocation id, a retry gets the recorded result.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from pydantic import ValidationError

from ._json import check_json, encode
from .drafts import checked_id
from .errors import (
    InvalidArgumentError,
    InvocationConflictError,
    InvocationRecordedError,
    InvocationRunningError,
    SessionExistsError,
    SessionNotFoundError,
    StorageError,
)
from .models import (
    Change,
    CostSource,
    Failure,
    Invocation,
    InvocationQuery,
    InvocationStatus,
    SessionMetadata,
    TokenUsage,
    invalid,
)
from .records import LONGEST_ERROR, REDACTED, digest, is_long, plain, preview, record_limit
from .session import derived_id
from .storage import Committed
from .storage.heads import Effect, join, stands_in_head_alone

if TYPE_CHECKING:
    from .manager import SessionManager

log = logging.getLogger(__name__)
POLL_S = 0.05
_NOTHING_SAID = (None,) * 5
_UNSAID = dict.fromkeys(("user_id", "parent_id", "revision", "model", "token_usage", "cost", "cost_source"))
"""The fields of a record of which a call says nothing."""
NOTED = "invocation "
"""How the note begins by which an error names the record of its call."""
KEPT = "What was answered is kept as the result of its record."
"""The note of an error by which an answer that cost something got no further than its record."""


class Number:
    """A field of the result that only the commit will know."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path


HEAD = Number("head")
REVISION = Number("revision")
REMOVED = Number("removed")
NOTE = Number("note")


def _never() -> None:
    """Nobody gives the call up."""


def _unheard(_done: float, _total: float | None) -> None:
    """Nobody wants to know."""


async def _untold(_done: float, _total: float | None) -> None:
    """Nobody wants to know."""


class Call:
    """A context manager: stage through `draft`, `create`, `fork` or `delete`, set `result`, and leave.

    Where `replayed` is true on entry, this call was made before with the same id and went well: `result` is what
    it gave then, there is nothing to do, and nothing that is staged is stored.
    """

    result: Any = None
    count: int | None = None
    """How many things a read gave: all that its record says of its result."""
    model: str | None = None
    token_usage: TokenUsage | None = None
    cost: float | None = None
    room: int | None = None
    """How many characters of JSON the result may take; None for programs, which get everything."""
    already: Callable[[Invocation], Any] | None = None
    """The result where a record drafted here, of a call made elsewhere, is on record already."""
    replayed = False
    paid: str | None = None
    """What was answered and has cost something: its record keeps it where nothing else of the call can be stored."""
    check_cancelled: Callable[[], object] = staticmethod(_never)
    """Raises where the caller has given the call up: asked until the commit, and while it waits for another call."""
    progress: Callable[[float, float | None], object] = staticmethod(_unheard)
    """Tells the caller how much is done, and of how much."""
    tell: Callable[[float, float | None], Awaitable[None]] = staticmethod(_untold)
    """The same, of a slow call, on its event loop."""
    committed: Committed | None = None
    deleted: SessionMetadata | None = None
    _native_id: str | None = None
    _digest: str | None = None
    _attempt = 1
    _owner: str | None = None
    _committing = False
    _target: tuple[Literal["create", "fork", "delete"], Any] | None = None

    def __init__(
        self,
        manager: SessionManager,
        tool_name: str,
        session_id: str | None,
        arguments: Mapping[str, Any] | None,
        *,
        caller: str,
        invocation_id: str | None,
        slow: bool,
        kind: Literal["session", "work"],
        reads: bool,
        new_session: bool,
        opens: Callable[[], object] | None,
        as_user: str | None,
        parent_id: str | None,
    ) -> None:
        self.manager = manager
        # A record can always be made, whatever a client calls a tool that does not exist.
        self.tool_name = plain(tool_name, manager.limits.key_chars)
        self.session_id = session_id
        self.arguments: Mapping[str, Any] = arguments if arguments is not None else {}
        self.as_user = as_user
        self.draft = manager.draft()
        self.opening: dict[str, Any] = {}
        """Of a slow call: keys, and what they are set to in the commit by which it begins."""
        self.conditions: dict[str, Any] = {}
        self.refs: dict[str, str] = {}
        """Arguments, or members of them, that stand in the same commit, and where: {"content": "message:seq.0"}."""
        self.result_ref: tuple[str | None, str] | None = None
        """The result, or a member of it, that stands in the same commit, and where: the record keeps no copy of it,
        unless it may have to be given again.
        """
        self._given = invocation_id is not None
        self.invocation_id = invocation_id if invocation_id is not None else manager.make_id("inv")
        self.caller = plain(caller, manager.limits.key_chars)
        self._slow = slow
        self._kind: Literal["session", "work"] = kind
        self._reads = reads
        self._by_user = new_session or session_id is None
        self._opens = opens
        self._parent_id = parent_id
        self._started_at = manager.clock()
        self._clock_start = time.perf_counter()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException as error:
            self.fail(error)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.fail(error)
        else:
            self.finish()

    # staging

    def create(self, metadata: SessionMetadata) -> None:
        """The call makes this session; what is drafted goes into it."""
        self._target = ("create", metadata)

    def fork(self, at_seq: int | None, metadata: SessionMetadata) -> None:
        """The call makes a session out of this one."""
        self._target = ("fork", (at_seq, metadata))

    def delete(self) -> None:
        """The call removes the session."""
        self._target = ("delete", None)

    def keep_once(self, ref: str, **arguments: Any) -> None:
        """Of these arguments, which stand in the same commit at `ref`, the record keeps no copy where they are long."""
        self.refs |= {name: ref for name, value in arguments.items() if is_long(encode(value))}

    def priced(self) -> tuple[float | None, CostSource | None]:
        """What it cost so far, in USD, and how that is known."""
        return self.manager.priced(self.model, self.token_usage, self.cost, self._started_at)

    def can_stage_for(self, session_id: str) -> bool:
        """Whether what is staged here is committed in that session, and the result is known before that."""
        result: Any = self.result
        fields = cast("dict[str, Any]", result).values() if isinstance(result, dict) else (result,)
        here = self.session_id == session_id and self._target is None and not self._reads
        return here and not any(isinstance(one, Number) for one in fields)

    # living

    def start(self) -> None:
        """Look whether the call was made before; put a slow one on record as running."""
        _waited(self.starting())

    def starting(self) -> Iterator[float]:
        """`start` in steps. After each, that many seconds are to be waited for another call of this id: who awaits them
        holds no thread meanwhile.
        """
        if self._given:
            try:
                checked_id(self.invocation_id, "invocation_id", self.manager.limits.id_chars)
            except InvalidArgumentError:
                self._stand_alone()
                raise
        if self.session_id is not None:
            try:
                checked_id(self.session_id, "session_id")
            except InvalidArgumentError:
                self.session_id = None
                raise
        if self._given and self._reads:
            self._stand_alone()  # a read is made again each time, and an id stands for one call
        if self._given:
            try:
                self._digest = digest(check_json(self.arguments))
            except ValueError as error:
                raise InvalidArgumentError(f"The call's arguments: a value {error}.") from None
            yield from self._take_over(self._recorded())
        if self._slow:
            yield from self._run()

    def _run(self) -> Iterator[float]:
        if self._opens is not None and not self.replayed:
            self._opens()
            self._open()
        owner = self.manager.storage.owner()
        while not self.replayed:
            self._owner = owner
            try:
                begun = self._store(self._record(InvocationStatus.RUNNING), self.opening)
            except InvocationRecordedError as other:
                self._owner = None  # another one of this id runs, or ran
                yield from self._take_over(other.record)
            except Exception:
                self._owner = None  # it never ran
                raise
            else:
                if begun.session_id is not None:  # it ends in this session, not in a later one of that id
                    self.conditions["expected_created_at"] = begun.metadata.created_at
                return

    def _open(self) -> None:
        """Make the session of the call, where there is none."""
        if self.session_id is None:
            # Who sends the call once more, also at the same moment, means the same session.
            user = self.as_user or ""
            given = derived_id("ses", user, self.invocation_id) if self._given else None
            self.session_id = given or self.manager.make_id("ses")
        with suppress(SessionExistsError):
            self.manager.create_session(self.session_id, user_id=self.as_user)

    def finish(self) -> None:
        """Commit what was staged, with the record, and fill the result. Raises what the commit raises."""
        if self.replayed:
            return
        try:
            self.check_cancelled()
            if self._reads:
                self._finish_read()
            else:
                self._finish_write()
        except BaseException as error:
            self.fail(error)
            raise

    def fail(self, error: BaseException) -> None:
        """Drop what was staged, and put on record that and why. The error itself is the caller's to raise."""
        if self.replayed:
            return
        try:
            self._fail(error)
        except StorageError as failure:
            log.warning("Invocation %s (%s) could not be recorded: %s", self.invocation_id, self.tool_name, failure)
            error.add_note(f"The call could not be recorded: {failure}")
            if self._owner is not None:  # it is on record as running, and nobody else may take its id
                with suppress(StorageError):  # this manager is closed
                    self.manager.reads.add(self._failed(error))
        else:
            if self.paid is not None:
                error.add_note(KEPT)
        error.add_note(f"{NOTED}{self.invocation_id}")

    def _fail(self, error: BaseException) -> None:
        if self._given and self._digest is None:
            self._stand_alone()  # it has not come to look what the id stands for
        ours = isinstance(error, Exception)
        if not ours and self._committing and self._stands():
            return  # it was interrupted while it waited for its commit, which went through
        if self._reads and ours:
            self.manager.reads.add(self._failed(error))
            return
        try:
            self._store(self._failed(error))
        except (InvocationRecordedError, InvocationConflictError):
            # The id is another call's, or no longer this one's: so this one stands under an id of its own.
            self._stand_alone()
            self._store(self._failed(error))

    def _stand_alone(self) -> None:
        self._native_id = plain(self.invocation_id, self.manager.limits.key_chars)
        self.invocation_id = self.manager.make_id("inv")
        self._given, self._slow, self._owner, self._digest, self._attempt = False, False, None, None, 1

    def _stands(self) -> bool:
        """Whether this very call is on record as done."""
        if self._given or self._slow:
            record = self._recorded()
        else:  # an id made here: nobody else has it, and the session of a call that makes one is not known yet
            query = InvocationQuery(as_user=self.as_user, invocation_id=self.invocation_id, limit=1)
            record = next(iter(self.manager.storage.invocations(query).items), None)
        return (
            record is not None
            and record.status is InvocationStatus.OK
            and (record.tool_name, record.digest, record.user_id) == (self.tool_name, self._digest, self.as_user)
        )

    def _failed(self, error: BaseException) -> Invocation:
        if isinstance(error, Exception):
            status, message = InvocationStatus.ERROR, plain(self._without_secrets(str(error)), LONGEST_ERROR)
        else:  # its own text tells of the event loop's tasks, and nothing of the call
            status, message = InvocationStatus.CANCELLED, "The call was cancelled before it ended."
        failure = Failure.of(error, message)
        try:
            return self._record(status, result=self.paid, error=failure)
        except InvalidArgumentError:
            # What the tool says it used cannot be recorded; that it failed must be.
            self.model = self.token_usage = self.cost = None
            return self._record(status, error=failure)

    def _without_secrets(self, text: str) -> str:
        """A text that may quote arguments, without those whose names say that they are secrets."""
        for name, value in self.arguments.items():
            secret = str(value) if isinstance(value, (str, int, float)) else ""  # a list may be too deep to be shown
            if secret and secret in text and self.manager.redactor.is_secret(str(name)):
                text = text.replace(secret, REDACTED)
        return text

    def _finish_read(self) -> None:
        result = {"count": self.count} if self.count is not None else None
        self.manager.reads.add(self._record(InvocationStatus.OK, result=result))

    def _finish_write(self) -> None:
        staged, fills = self._split()
        while True:
            record = self._record(InvocationStatus.OK, result=staged, fills=fills, refs=True)
            try:
                committed = self._commit(record)
            except InvocationRecordedError as other:
                if self.already is not None and other.record.invocation_id != self.invocation_id:
                    self.draft.records.clear()
                    self.refs.clear()  # they point into what was just dropped
                    staged, fills = self.already(other.record), None
                    continue
                # Two at once: the commit decided, and the other one had it. What was staged here is dropped.
                _waited(self._take_over(other.record))
                if self.replayed:
                    return
                continue
            break
        self.committed = committed
        self.result = join(staged, fills, committed.number)
        if committed.session_id is not None:
            self.session_id = committed.session_id

    def _split(self) -> tuple[Any, dict[str, str] | None]:
        """The result without the numbers it waits for, and where they go."""
        if isinstance(self.result, Number):
            return None, {"*": self.result.path}
        result = self.result
        if not isinstance(result, dict):
            return result, None
        result = cast("dict[str, Any]", result)
        fills = {name: value.path for name, value in result.items() if isinstance(value, Number)}
        return {name: value for name, value in result.items() if name not in fills}, fills or None

    def _commit(self, record: Invocation) -> Committed:
        storage, now = self.manager.storage, self.manager.clock()
        self._committing = True
        self.draft.records.append(record)
        try:
            change = self.draft.change(now, as_user=self.as_user, **self.conditions)
        finally:
            self.draft.records.pop()
        if self._target is None:
            if self.session_id is None and not change.alters_state():
                return storage.commit(None, change)
            if self.session_id is None:
                raise InvalidArgumentError(f"{self.tool_name} changes a session, but names none.")
            self.manager.refuse_recorded(self.session_id, self.draft.records, self.as_user)
            return storage.commit(self.session_id, change)
        act, what = self._target
        new: dict[str, Any] = {"active": False, "expected_created_at": None}  # conditions on the one named
        if act == "create":
            return storage.create(what, change.model_copy(update={**new, "as_user": None}))
        assert self.session_id is not None
        if act == "fork":
            return storage.fork(self.session_id, what[0], what[1], change.model_copy(update=new))
        self.deleted = storage.delete(self.session_id, change)
        return Committed(None, None, Effect())

    # the record

    def _recorded(self) -> Invocation | None:
        """The record of this id, as it stands, within what it is unique."""
        # Of another user's session nothing is said, not even that the id is taken there.
        query = InvocationQuery(
            as_user=self.as_user,
            invocation_id=self.invocation_id,
            scope="user" if self._by_user else "session",
            user_id=self.as_user if self._by_user else None,
            session_id=None if self._by_user else self.session_id,
            limit=1,
        )
        found = self.manager.storage.invocations(query).items
        return found[0] if found else None

    def _take_over(self, record: Invocation | None) -> Iterator[float]:
        """Decide by the record of this id: replay it, wait for it, or be its next attempt."""
        end = time.monotonic() + self.manager.wait_s
        while record is not None:
            if (record.tool_name, record.digest) != (self.tool_name, self._digest) or record.user_id != self.as_user:
                raise InvocationConflictError(
                    f"Invocation id {self.invocation_id} is taken by another call of {record.tool_name}. "
                    "Use a new id for a new call; the same id and arguments only to retry the same call.",
                    invocation_id=self.invocation_id,
                    session_id=self.session_id,
                )
            if record.status is InvocationStatus.RUNNING:
                if self.manager.storage.alive(record.owner or ""):
                    if time.monotonic() >= end:
                        raise InvocationRunningError(self.invocation_id, self.tool_name, self.manager.wait_s)
                    self.check_cancelled()
                    yield POLL_S
                else:
                    self.manager.interrupt(record)
                record = self._recorded()
                continue
            if record.status is not InvocationStatus.OK:
                self._attempt = record.attempt + 1
                return
            if record.cut:
                raise InvalidArgumentError(
                    f"Invocation {self.invocation_id} went well, but its result was over "
                    f"{self.manager.limits.replay_bytes:,} bytes and was not kept, so it cannot be given again. "
                    "Nothing was run. Read what it changed instead, or call with a new id.",
                    argument="invocation_id",
                )
            self.replayed, self.result = True, self._whole(record)
            self.session_id = record.session_id or self.session_id
            return

    def _whole(self, record: Invocation) -> Any:
        """The recorded result, with what of a head the head alone holds, as it is now."""
        if record.session_id is None or "*" not in (record.fills or {}):
            return record.result
        now = self.manager.metadata(record.session_id, as_user=self.as_user).to_dict()
        left_out = {name: value for name, value in now.items() if stands_in_head_alone(name, value)}
        return {**left_out, **record.result}

    def _record(
        self,
        status: InvocationStatus,
        *,
        result: Any = None,
        fills: dict[str, str] | None = None,
        error: Failure | None = None,
        refs: bool = False,
    ) -> Invocation:
        manager = self.manager
        limit = record_limit(manager.limits)
        cut = False
        places = self._kept_refs() if refs else {}
        if refs and self.result_ref is not None and not self._given:
            name, places["result" if name is None else f"result.{name}"] = self.result_ref
            result = None if name is None else {one: value for one, value in result.items() if one != name}
        if result is not None:
            try:
                result, cut = self._kept_result(result, limit)
            except ValueError as fault:
                raise InvalidArgumentError(f"The result of {self.tool_name} {fault}.") from None
        over = status is not InvocationStatus.RUNNING
        where: Literal["session", "user"] = "user" if self._by_user else "session"
        fields: dict[str, Any] = {
            "invocation_id": self.invocation_id,
            "session_id": self.session_id,
            "tool_name": self.tool_name,
            "kind": self._kind,
            "caller": self.caller,
            "status": status,
            "attempt": self._attempt,
            "native_id": self._native_id,
            "started_at": self._started_at,
            "duration_ms": round((time.perf_counter() - self._clock_start) * 1000, 3) if over else None,
            "arguments": self._kept_arguments(places, limit),
            "result": result,
            "error": error,
            "refs": places or None,
            "digest": self._digest,
            "scope": where if self._given or self._slow else None,
            "fills": fills,
            "cut": cut,
            "owner": self._owner,
        }
        # What a tool or a caller may have said as it liked: only then is there something left to check.
        said = (self.as_user, self._parent_id, self.model, self.token_usage, self.cost)
        if manager.own_times_and_ids and said == _NOTHING_SAID:
            return Invocation.known(_UNSAID | fields)
        if over:
            fields["cost"], fields["cost_source"] = self.priced()
        try:
            return Invocation(
                **fields,
                user_id=self.as_user,
                parent_id=self._parent_id,
                model=self.model,
                token_usage=self.token_usage,
            )
        except ValidationError as fault:
            raise invalid(fault, f"The record of {self.tool_name}: ") from None

    def _kept_result(self, result: Any, limit: int) -> tuple[Any, bool]:
        """The result as the record keeps it, and whether it is too long to be given again."""
        redactor = self.manager.redactor
        if not self._given and self.paid is None:
            return redactor.bounded(result, limit), False
        whole = redactor.kept(result, shorten=False)
        text = encode(whole)
        return (preview(text), True) if len(text.encode()) > self.manager.limits.replay_bytes else (whole, False)

    def _kept_refs(self) -> dict[str, str]:
        """What of the arguments stands in the same commit, and where; nothing where that alone would be too long."""
        refs = {
            f"arguments.{name}": ref
            for name, ref in self.refs.items()
            if name.partition(".")[0] in self.arguments and not self._is_secret(name)
        }
        return refs if len(encode(refs).encode()) <= self.manager.limits.record_bytes // 8 else {}

    def _is_secret(self, name: str) -> bool:
        # A key that is named like a secret: then its value is one.
        key = self.arguments.get("key") if name == "value" else name.partition(".")[2]
        return isinstance(key, str) and self.manager.redactor.is_secret(key)

    def _kept_arguments(self, refs: Mapping[str, str], limit: int) -> Any:
        """The arguments as the record keeps them, without what `refs` points at."""
        arguments = dict(self.arguments)
        if "value" in arguments and self._is_secret("value"):
            arguments["value"] = REDACTED
        for place in refs:
            of, name, *inside = place.split(".", 2) if "." in place else (place, "")
            if of == "result":
                continue
            if inside:
                arguments[name] = {one: member for one, member in arguments[name].items() if one != inside[0]}
            else:
                arguments.pop(name, None)
        try:
            return self.manager.redactor.bounded(arguments, limit)
        except ValueError:
            arguments = {plain(str(name), limit): _json_or_fault(value) for name, value in arguments.items()}
            return self.manager.redactor.bounded(arguments, limit)

    def _store(self, record: Invocation, opening: Mapping[str, Any] | None = None) -> Committed:
        """Commit a record, and what it begins with: in the session named, if it exists, is the caller's, and the one it
        began in.
        """
        change = Change(
            at=self.manager.clock(),
            records=(record,),
            as_user=self.as_user,
            expected_created_at=self.conditions.get("expected_created_at"),
        )
        if opening:
            versions = self.draft.expected_versions
            change = change.model_copy(update={"set": dict(opening), "active": True, "expected_versions": versions})
        storage = self.manager.storage
        if self.session_id is not None:
            try:
                return storage.commit(self.session_id, change)
            except SessionNotFoundError:
                if record.owner is not None and record.status is InvocationStatus.RUNNING:
                    raise
        return storage.commit(None, change.model_copy(update={"as_user": None}))


def _waited(steps: Iterable[float]) -> None:
    for pause_s in steps:
        time.sleep(pause_s)


def _json_or_fault(value: Any) -> Any:
    try:
        return check_json(value)
    except ValueError as error:
        return {"refused": str(error)}
