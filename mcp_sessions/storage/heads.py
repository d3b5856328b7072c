"""What a change does to the head of a session: pure, one place, used by every backend.

A head is a mapping of SessionMetadata's fields, so a backend may decode a column only when a rule asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from .._json import decode, encode
from ..errors import (
    ConflictError,
    InvalidArgumentError,
    InvocationConflictError,
    InvocationRecordedError,
    LimitError,
    SessionEndedError,
    SessionNotFoundError,
)
from ..models import (
    MOST_NANO_USD,
    Change,
    Invocation,
    InvocationStatus,
    Limits,
    SessionMetadata,
    SessionStatus,
    TokenUsage,
    tokens,
)

NANO = 1_000_000_000
LONG_FIELD = 2048
"""Characters of JSON from which a field of the head is not stored again in a record that will not be replayed."""
Head = Mapping[str, Any]


@dataclass(slots=True)
class Effect:
    """What of a change really happened, as only the backend can know."""

    seqs: list[int] = field(default_factory=list[int])
    """The seq of each message of the change, appended or found."""
    appended: int = 0
    retracted: int = 0
    removed: list[str] = field(default_factory=list[str])
    records: list[tuple[Invocation | None, Invocation]] = field(
        default_factory=list[tuple["Invocation | None", Invocation]]
    )
    """(the record of the same id until now, the record)."""


def nanos(usd: float) -> int:
    """USD as integer nano-dollars, in which money is added up."""
    return round(usd * NANO)


def check(
    session_id: str,
    head: Head,
    change: Change,
    version_of: Callable[[str], int],
    repeats: Callable[[], bool] = lambda: False,
) -> None:
    """Raise what a condition of the change says.

    `version_of` gives a key's version, 0 where it does not exist; `repeats` tells whether all its messages are there.
    """
    if change.as_user is not None and head["user_id"] != change.as_user:
        raise SessionNotFoundError(session_id)
    if change.expected_created_at is not None and head["created_at"] != change.expected_created_at:
        raise SessionNotFoundError(session_id, hint="it was deleted, and another one was made under its id.")
    ended = change.active and head["status"] is not SessionStatus.ACTIVE and not _ends_again(head, change)
    # A message said again gets the first one's seq, also where the session ended in between.
    if ended and not (change.only_says() and repeats()):
        raise SessionEndedError(session_id, head["status"].value)
    if change.expected_updated_at is not None and head["updated_at"] != change.expected_updated_at:
        raise ConflictError(
            f"Session {session_id} was updated at {head['updated_at'].isoformat()}, not at "
            f"{change.expected_updated_at.isoformat()}: it changed since you read it. Read it again, then retry.",
            session_id=session_id,
        )
    for name, expected in (("revision", change.expected_revision), ("last_seq", change.expected_last_seq)):
        if expected is not None and expected != (actual := head[name]):
            raise ConflictError(
                f"Session {session_id} is at {name} {actual}, not {expected}: it changed since you read it. "
                "Read it again, then retry.",
                session_id=session_id,
                expected=expected,
                actual=actual,
            )
    for key, expected in change.expected_versions.items():
        actual = version_of(key)
        if expected != actual:
            fact = f"is at version {actual}" if actual else "does not exist"
            raise ConflictError(
                f"Key '{key}' of session {session_id} {fact}, but version {expected} was expected"
                f"{' (0: it must not exist)' if expected == 0 else ''}. Read it again, then retry.",
                session_id=session_id,
                expected=expected,
                actual=actual,
            )


def check_records_only(change: Change) -> None:
    """Raise where a change would alter state, but names no session to alter."""
    if change.alters_state():
        raise InvalidArgumentError("This change alters a session, but names none. Without a session it takes records.")


def _ends_again(head: Head, change: Change) -> bool:
    return (
        head["status"] is not SessionStatus.ACTIVE
        and change.alter is not None
        and change.alter.status is head["status"]
        and change.only_alters()
    )


def note_on(head: Head, change: Change) -> str | None:
    """What of the change is not taken, where that is no error; `head` is as it was before."""
    alter = change.alter
    if alter is None or alter.summary in (None, head["summary"]) or not _ends_again(head, change):
        return None
    return (
        "It had ended already, so this summary was not taken. To change the summary, reopen it "
        "(session_update with reopen=true), then complete it again."
    )


def apply(head: Head, change: Change, effect: Effect, limits: Limits) -> dict[str, Any]:
    """The fields of the head that the change alters, with their new values.

    `revision` goes up by one where state changes (messages, keys, metadata); records alone leave it. A record of
    work moves `updated_at`, which never goes back; our own housekeeping does not. Raises LimitError where tags or
    metadata, merged with those that are there, are too many or too large.
    """
    new: dict[str, Any] = {}
    if effect.appended:
        new["last_seq"] = head["last_seq"] + effect.appended
    if effect.appended or effect.retracted:
        new["message_count"] = head["message_count"] + effect.appended - effect.retracted
    state = bool(effect.appended or effect.retracted or change.set or effect.removed)
    if change.alter is not None and not _ends_again(head, change):
        state = True
        _alter(head, change, new, limits)
    worked = _count(head, effect.records, new, limits.tools_used)
    if "estimated_cost" in new and (cost := nanos(new["estimated_cost"])) > MOST_NANO_USD:
        raise LimitError("the session's cost", cost, MOST_NANO_USD, "nano-USD", argument="cost")
    if state:
        new["revision"] = head["revision"] + 1
    if state or worked:
        new["updated_at"] = max(head["updated_at"], change.at)
    return new


def _alter(head: Head, change: Change, new: dict[str, Any], limits: Limits) -> None:
    alter = change.alter
    assert alter is not None
    for name in alter.clear:
        new[name] = None
    if alter.purpose is not None:
        new["purpose"] = alter.purpose
    if alter.summary is not None:
        new["summary"] = alter.summary
    if alter.status is not None and alter.status is not head["status"]:
        new["status"] = alter.status
        new["ended_at"] = None if alter.status is SessionStatus.ACTIVE else max(head["updated_at"], change.at)
    if alter.tags is not None or alter.add_tags or alter.remove_tags:
        base: Sequence[str] = head["tags"] if alter.tags is None else alter.tags
        gone = set(alter.remove_tags)
        new["tags"] = [tag for tag in dict.fromkeys([*base, *alter.add_tags]) if tag not in gone]
        _hold("tags", len(new["tags"]), len(head["tags"]), limits.tags, "tags")
    if alter.metadata is not None or alter.remove_metadata:
        removed = set(alter.remove_metadata)
        kept = {name: value for name, value in head["custom_metadata"].items() if name not in removed}
        new["custom_metadata"] = {**kept, **(alter.metadata or {})}
        size, before = (len(encode(one).encode()) for one in (new["custom_metadata"], head["custom_metadata"]))
        _hold("metadata", size, before, limits.metadata_bytes, "bytes of JSON")


def _hold(what: str, now: int, before: int, limit: int, unit: str) -> None:
    # What is over already, under a limit that was lowered since, may still be made smaller.
    if now > limit and now >= before:
        raise LimitError(what, now, limit, unit, argument=what)


def unpriced(record: Invocation) -> bool:
    """Whether the call has a price that nobody knows: it named a model or tokens, and no cost came of it."""
    return record.cost is None and (record.model is not None or record.token_usage is not None)


@dataclass(slots=True)
class _Counted:
    calls: int = 0
    failed: int = 0
    duration_ms: float = 0.0
    cost: int = 0
    unpriced: int = 0
    usage: TokenUsage = field(default_factory=tokens)


def _contribution(record: Invocation | None) -> _Counted:
    if record is None or record.status is InvocationStatus.RUNNING or record.kind == "session":
        return _Counted()
    call = record.kind == "work"
    return _Counted(
        calls=int(call),
        failed=int(call and record.status is not InvocationStatus.OK),
        duration_ms=record.duration_ms or 0.0 if call else 0.0,
        cost=nanos(record.cost) if record.cost is not None else 0,
        unpriced=int(unpriced(record)),
        usage=record.token_usage or tokens(),
    )


def _count(
    head: Head, records: Sequence[tuple[Invocation | None, Invocation]], new: dict[str, Any], max_tools: int
) -> bool:
    worked = False
    for before, record in records:
        if record.kind == "session":
            continue
        worked = True
        # An attempt that failed in another session, or in none, was counted there.
        here = before is not None and before.session_id == head["session_id"]
        old, now = _contribution(before if here else None), _contribution(record)

        def add(name: str, delta: float) -> None:
            if delta:
                new[name] = new.get(name, head[name]) + delta

        add("total_invocations", now.calls - old.calls)
        add("failed_invocations", now.failed - old.failed)
        add("unpriced_invocations", now.unpriced - old.unpriced)
        if now.duration_ms != old.duration_ms:
            total = new.get("total_duration_ms", head["total_duration_ms"])
            new["total_duration_ms"] = round(total + now.duration_ms - old.duration_ms, 3)
        if now.cost != old.cost:
            cost = nanos(new.get("estimated_cost", head["estimated_cost"])) + now.cost - old.cost
            new["estimated_cost"] = cost / NANO
        if now.usage != old.usage:
            usage: Mapping[str, int] = new.get("token_usage", head["token_usage"])
            gone, come = cast("Mapping[str, int]", old.usage), cast("Mapping[str, int]", now.usage)
            new["token_usage"] = {name: count + come[name] - gone[name] for name, count in usage.items()}
        if now.calls:
            used: list[str] = new.get("tools_used", head["tools_used"])
            if record.tool_name not in used and len(used) < max_tools:
                new["tools_used"] = [*used, record.tool_name]
    return worked


def admit(existing: Invocation | None, record: Invocation) -> None:
    """Raise unless the record may stand in the place of `existing`, the one with its id.

    A running call is finished by its owner alone; a failed one is tried again as the next attempt; a finished
    one stands.
    """
    if existing is None:
        if record.owner is not None and record.status is not InvocationStatus.RUNNING:
            raise _gone(record, "is no longer on record")
        return
    if (existing.tool_name, existing.digest, existing.user_id) != (record.tool_name, record.digest, record.user_id):
        raise taken(existing, record)
    begins = record.status is InvocationStatus.RUNNING
    if existing.status is InvocationStatus.RUNNING:
        if begins or (existing.owner, existing.attempt) != (record.owner, record.attempt):
            raise InvocationRecordedError(existing)
    elif record.owner is not None and not begins and record.attempt == existing.attempt:
        raise _gone(record, f"was marked {existing.status.value}")
    elif existing.status is InvocationStatus.OK or record.attempt != existing.attempt + 1:
        raise InvocationRecordedError(existing)


def taken(existing: Invocation, record: Invocation) -> InvocationConflictError:
    """The error for a record whose id stands for another call."""
    return InvocationConflictError(
        f"Invocation id {record.invocation_id} is taken by another call of {existing.tool_name}. "
        "Use a new id for a new call; the same id only to retry the same call.",
        invocation_id=record.invocation_id,
        session_id=record.session_id,
    )


def _gone(record: Invocation, fact: str) -> InvocationConflictError:
    return InvocationConflictError(
        f"Invocation {record.invocation_id} ({record.tool_name}) {fact}, so its late result is refused. "
        "Nothing of it was stored; call again.",
        invocation_id=record.invocation_id,
        session_id=record.session_id,
    )


class Committed:
    """The numbers that only the commit can know; the head is put together when somebody asks for it."""

    __slots__ = ("_head", "_metadata", "note", "removed", "revision", "seqs", "session_id")

    def __init__(self, session_id: str | None, head: Head | None, effect: Effect, note: str | None = None) -> None:
        self.session_id = session_id
        self.revision: int | None = head["revision"] if head is not None else None
        self.seqs = effect.seqs
        self.removed = effect.removed
        self.note = note
        self._head = head
        self._metadata: SessionMetadata | None = None

    @property
    def metadata(self) -> SessionMetadata:
        """The head as this commit left it."""
        if self._metadata is None:
            assert self._head is not None
            self._metadata = metadata_of(self._head)
        return self._metadata

    def numbers(self, record: Invocation) -> dict[str, Any] | None:
        """The numbers that a record leaves open, to be kept beside it; None where it leaves none."""
        numbers: dict[str, Any] = {}
        for path in record.fills.values() if record.fills else ():
            numbers[path] = self.number(path)
        for ref in record.refs.values() if record.refs else ():
            path = _number_in(ref)
            if path and path not in numbers:
                numbers[path] = self.number(path)
        if "head" in numbers:
            replayed = record.scope is not None
            numbers["head"] = {
                name: value
                for name, value in numbers["head"].items()
                if not (stands_in_head_alone(name, value) or (not replayed and len(encode(value)) > LONG_FIELD))
            }
        return numbers or None

    def number(self, path: str) -> Any:
        """One of them: `revision`, `removed`, `note`, `head`, `seq.N`."""
        if path == "revision":
            return self.revision
        if path == "removed":
            return self.removed
        if path == "note":
            return self.note
        if path == "head":
            return self.metadata.to_dict()
        return self.seqs[int(path.removeprefix("seq."))]


def stands_in_head_alone(name: str, value: Any) -> bool:
    """Whether a field of the head is left out where a record shows the head: the user's own JSON, in which secrets
    may stand.
    """
    return name == "custom_metadata" and bool(value)


def metadata_of(head: Head) -> SessionMetadata:
    """The head as a value of its own; nothing of it is shared with the store."""
    values = {name: head[name] for name in SessionMetadata.model_fields}
    return SessionMetadata.model_validate(values | {"custom_metadata": decode(encode(values["custom_metadata"]))})


def join(result: Any, fills: Mapping[str, str] | None, number: Callable[[str], Any]) -> Any:
    """The result of a call: what it staged, with the numbers of its commit filled in.

    The caller's answer and the record both come from here, so they are the same.
    """
    if not fills:
        return result
    joined: dict[str, Any] = {}
    for name, path in fills.items():
        value = number(path)
        if name == "*":
            joined.update(value)
        elif value is not None:
            joined[name] = value
    joined.update(result or {})
    return joined


def joined(record: Invocation, session_id: str | None, revision: int | None, numbers: Mapping[str, Any]) -> Invocation:
    """The record as readers see it, from what was staged and the numbers kept beside it."""
    seen: dict[str, Any] = {"session_id": session_id, "revision": revision}
    if not numbers:  # joined before, where a session was restored
        return record.model_copy(update=seen)
    if record.fills:
        seen["result"] = join(record.result, record.fills, numbers.__getitem__)
    if record.refs:
        seen["refs"] = {where: _numbered(ref, numbers) for where, ref in record.refs.items()}
    return record.model_copy(update=seen)


def _numbered(ref: str, numbers: Mapping[str, Any]) -> str:
    path = _number_in(ref)
    return ref.removesuffix(path) + str(numbers[path]) if path else ref


def _number_in(ref: str) -> str:
    """The number at the end of `message:seq.0`, `data:KEY@revision`, `metadata@revision`; `invocation:ID` has none."""
    kind, _, rest = ref.partition(":")
    if kind == "message":
        return rest
    return "" if kind == "invocation" else ref.rpartition("@")[2]
