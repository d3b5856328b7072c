"""The values: what a session is made of, what a commit does to it, what a question asks and gets back.

All are frozen, hold JSON values and aware UTC times only, and do no I/O. `Change` is the one way to alter a
session: whatever a commit does is a field of it, so atomicity is a property of a value and not of a caller.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, Generic, Literal, Self, TypeVar, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from typing_extensions import TypedDict

from ._json import canonical, check_json, check_text
from .errors import InvalidArgumentError, StorageError

ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
_GENERATED_ID = re.compile(r"(?:ses|msg|inv)_[a-z2-7]{26}\Z")


def generated(some_id: str) -> bool:
    """Whether an id has the shape of those made here from 130 random bits."""
    return _GENERATED_ID.match(some_id) is not None


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("has no time zone; give an aware time")
    return moment.astimezone(UTC) if moment.tzinfo is not UTC else moment


Utc = Annotated[datetime, AfterValidator(_utc)]
Text = Annotated[str, AfterValidator(check_text)]
Json = Annotated[Any, AfterValidator(check_json)]
Id = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
Number = Annotated[int, Field(ge=0, le=1 << 62)]
"""A count or a place: what every store keeps as an integer."""
LONGEST_MS = 366 * 86_400_000
"""A year: no call takes longer."""
MOST_USD = 1_000_000
"""No call costs more."""
MOST_TOKENS = 10**12
"""No call counts more."""
MOST_NANO_USD = 1 << 62
"""No session costs more: what every store keeps as an integer."""
Milliseconds = Annotated[float, Field(ge=0, le=LONGEST_MS)]
Usd = Annotated[float, Field(ge=0, le=MOST_USD)]
Role = Literal["system", "user", "assistant", "tool"]
CostSource = Literal["reported", "estimated", "unknown"]
OTHER_ROLES: dict[str, Role] = {"human": "user", "ai": "assistant", "developer": "system"}
"""Other words for roles."""


class Frozen(BaseModel):
    """A value: it does not change, and it refuses what it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def known(cls, values: dict[str, Any]) -> Self:
        """One of values, a value for every field, that were checked when they were stored; in a third of the time."""
        self = cls.__new__(cls)
        _put(self, "__dict__", values)
        _put(self, "__pydantic_fields_set__", _names(cls))
        _put(self, "__pydantic_extra__", None)
        _put(self, "__pydantic_private__", None)
        return self

    @classmethod
    def of_checked(cls, **values: Any) -> Self:
        """One of values that were checked where they came in; what is not named has its default."""
        return cls.known(_defaults(cls) | values)


_put = object.__setattr__


@cache
def _names(cls: type[Frozen]) -> set[str]:
    return set(cls.model_fields)


@cache
def _defaults(cls: type[Frozen]) -> dict[str, Any]:
    return {name: field.default for name, field in cls.model_fields.items() if not field.is_required()}


def invalid(error: ValidationError, prefix: str = "") -> InvalidArgumentError:
    """What pydantic found, in words: where, and what is wrong there."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "the value"
    message = first["msg"].removeprefix("Value error, ")
    return InvalidArgumentError(f"{prefix}{where}: {message}.", argument=str(first["loc"][0]) if first["loc"] else None)


class SessionStatus(StrEnum):
    ACTIVE = "active"
    COMPLETED = "completed"
    FAILED = "failed"
    ABANDONED = "abandoned"


def known_status(status: SessionStatus | str) -> SessionStatus:
    """A status by its name. Raises InvalidArgumentError."""
    try:
        return SessionStatus(status)
    except ValueError:
        known = ", ".join(SessionStatus)
        text = f"'{str(status)[:80]}' is no status; it is one of {known}."
        raise InvalidArgumentError(text, argument="status") from None


class InvocationStatus(StrEnum):
    RUNNING = "running"
    OK = "ok"
    ERROR = "error"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


class TokenUsage(TypedDict):
    """Tokens of model calls; `input` is the total, what came from or went to the cache included."""

    input: int
    output: int
    cache_read: int
    cache_write: int


def tokens(input: int = 0, output: int = 0, cache_read: int = 0, cache_write: int = 0) -> TokenUsage:
    """Token counts, zero where nothing is said."""
    return {"input": input, "output": output, "cache_read": cache_read, "cache_write": cache_write}


def _countable(usage: TokenUsage) -> TokenUsage:
    for name, count in usage.items():
        if not 0 <= cast("int", count) <= MOST_TOKENS:
            raise ValueError(f"{name} is not between 0 and {MOST_TOKENS:,}")
    return usage


class Limits(Frozen):
    """How much is taken; sizes in bytes of UTF-8, keys and tags in characters."""

    message_bytes: int = 1 << 20
    value_bytes: int = 1 << 20
    payload_bytes: int = 16 << 20
    key_chars: int = 256
    tags: int = 64
    tag_chars: int = 64
    id_chars: int = 128
    metadata_bytes: int = 64 << 10
    record_bytes: int = 64 << 10
    replay_bytes: int = 1 << 20
    tools_used: int = 256
    key_versions: int = 50


class SessionMetadata(Frozen):
    """The head of a session: of bounded size, kept up by each commit, cheap to read."""

    session_id: Id
    status: SessionStatus = SessionStatus.ACTIVE
    created_at: Utc
    updated_at: Utc
    ended_at: Utc | None = None
    user_id: Text | None = None
    purpose: Text | None = None
    summary: Text | None = None
    tags: list[Text] = []
    custom_metadata: dict[str, Json] = {}
    parent_id: Id | None = None
    revision: int = 0
    last_seq: int = 0
    message_count: int = 0
    total_invocations: int = 0
    failed_invocations: int = 0
    total_duration_ms: float = 0.0
    tools_used: list[str] = []
    token_usage: TokenUsage = Field(default_factory=tokens)
    estimated_cost: float = Field(default=0.0, le=MOST_NANO_USD / 1e9)
    unpriced_invocations: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON form, absent fields left out."""
        return self.model_dump(mode="json", exclude_none=True)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SessionMetadata:
        """From `to_dict`; fields it does not know are passed over."""
        return cls.model_validate({name: data[name] for name in cls.model_fields if name in data})


class ToolCall(Frozen):
    """A call that an assistant asked for, in the neutral form."""

    id: Text
    name: Text
    arguments: Json = {}


class ConversationMessage(Frozen):
    """One message. `seq` counts 1, 2, 3 … in its session; 0 until it is committed."""

    seq: int = 0
    message_id: Id
    role: Role
    content: Text
    timestamp: Utc
    tool_name: Text | None = None
    invocation_id: Id | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: Text | None = None
    payload: dict[str, Json] | None = None
    model: Text | None = None
    token_usage: TokenUsage | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON form, absent fields left out."""
        return self.model_dump(mode="json", exclude_none=True)

    def same_as(self, other: ConversationMessage) -> bool:
        """Whether a retry of this message would be `other`: all but the numbers and the time."""
        return self.model_copy(update={"seq": other.seq, "timestamp": other.timestamp}) == other

    def fingerprint(self) -> str | None:
        """What tells a retry of this message from another one with its id, once its content is erased.

        Too short to tell what was said. None for an id made here, which nobody gives to another message.
        """
        if generated(self.message_id):
            return None
        said = canonical(self.model_dump(mode="json", exclude={"seq", "timestamp"}))
        return hashlib.sha256(said.encode()).hexdigest()[:8]


class Failure(Frozen):
    """What went wrong in a call."""

    type: Text
    message: Text

    @classmethod
    def of(cls, error: BaseException, message: str) -> Failure:
        """What a record says of an error. A store's own words name paths and processes, and are for the log alone:
        everyone who may read the session reads its records.
        """
        text = "The store did not work." if isinstance(error, StorageError) else message
        return cls(type=type(error).__name__, message=text)


class Invocation(Frozen):
    """The record of one call.

    `result` is what was returned, joined from what the call staged and the numbers its commit gave. Where a
    value stands elsewhere in the store, `refs` says so beside the JSON: {"arguments.content": "message:7"}; in the
    session that is `message:SEQ`, `data:KEY@VERSION`, `metadata@REVISION` or `invocation:ID`.
    `kind` is `session` for our own tools, `work` for all others, `usage` for tokens counted without a call.
    """

    invocation_id: Id
    session_id: Text | None = None
    user_id: Text | None = None
    tool_name: Text
    kind: Literal["session", "work", "usage"] = "work"
    caller: Text = "python"
    status: InvocationStatus = InvocationStatus.OK
    attempt: Number = 1
    parent_id: str | None = None
    native_id: Text | None = None
    started_at: Utc
    duration_ms: Milliseconds | None = None
    arguments: Json = None
    result: Json = None
    error: Failure | None = None
    refs: dict[str, str] | None = None
    revision: Number | None = None
    model: Text | None = None
    token_usage: Annotated[TokenUsage, AfterValidator(_countable)] | None = None
    cost: Usd | None = None
    cost_source: CostSource | None = None

    digest: str | None = None
    """sha256 of the canonical arguments, of a call that can be replayed."""
    scope: Literal["session", "user"] | None = None
    """Within what the caller's id is unique; None for an id made here."""
    fills: dict[str, str] | None = None
    """Fields of `result` that only the commit knows: name -> number ("seq.0", "revision", …), "*" -> "head"."""
    cut: bool = False
    """`result` is a preview: it was too long to keep, so the call cannot be replayed."""
    owner: str | None = None
    """The live process of a running call."""

    def to_dict(self) -> dict[str, Any]:
        """JSON form for readers, absent fields and our own bookkeeping left out."""
        return self.model_dump(mode="json", exclude_none=True, exclude={"digest", "scope", "fills", "owner", "cut"})


class NewMessage(Frozen):
    """A message to append; `given` unless its id was just made from random bits, and so needs no look-up."""

    message: ConversationMessage
    given: bool = True


Clearable = Literal["purpose", "summary"]


class Alter(Frozen):
    """Metadata to alter; None leaves a field alone, `metadata` merges, `tags` replaces. What is cleared or removed goes
    first, then what is given is set.
    """

    purpose: Text | None = None
    summary: Text | None = None
    status: SessionStatus | None = None
    tags: tuple[Text, ...] | None = None
    add_tags: tuple[Text, ...] = ()
    remove_tags: tuple[Text, ...] = ()
    metadata: dict[str, Json] | None = None
    clear: tuple[Clearable, ...] = ()
    remove_metadata: tuple[Text, ...] = ()


def _each_once(records: tuple[Invocation, ...]) -> tuple[Invocation, ...]:
    given = [record.invocation_id for record in records if record.scope is not None]
    if len(set(given)) < len(given):
        raise ValueError("two records of one change share an invocation_id")
    return records


class Change(Frozen):
    """What one commit does, all of it or nothing; conditions are checked inside the commit."""

    at: Utc
    messages: tuple[NewMessage, ...] = ()
    retract: tuple[tuple[Number, Number], ...] = ()
    """Ranges of seq, both ends included."""
    set: dict[Text, Json] = {}
    remove: tuple[Text, ...] = ()
    remove_all: bool = False
    """Every key but the internal ones."""
    alter: Alter | None = None
    records: Annotated[tuple[Invocation, ...], AfterValidator(_each_once)] = ()

    as_user: Text | None = None
    """The owner the session must have; None for no restriction."""
    active: bool = False
    """The session must not have ended (ending it again in the same way is no change)."""
    expected_revision: int | None = None
    expected_last_seq: int | None = None
    expected_created_at: Utc | None = None
    """Which session of that id: a recreated one is another."""
    expected_updated_at: Utc | None = None
    """When it last changed; records of work count, which leave the revision alone."""
    expected_versions: dict[Text, int] = {}

    also: tuple[tuple[str, Change], ...] = ()
    """(session_id, change) pairs that become durable with this one, or not at all."""

    def alters_state(self) -> bool:
        """Whether this would change more than records, if it does what it says."""
        return bool(self.messages or self.retract or self.set or self.remove or self.remove_all or self.alter)

    def only_says(self) -> bool:
        """Whether messages are all that this would change."""
        others = self.retract or self.set or self.remove or self.remove_all or self.alter
        return bool(self.messages) and not others

    def only_alters(self) -> bool:
        """Whether metadata is all that this would change."""
        return not (self.messages or self.retract or self.set or self.remove or self.remove_all)


class Value(Frozen):
    """A key's value and the revision that wrote it."""

    value: Json
    version: int


class Want(Frozen):
    """Which parts of one session to read, in one snapshot."""

    keys: tuple[Text, ...] = ()
    prefix: Text | None = None
    """All keys that start so; "" gives all but the internal ones (a leading ".")."""
    prefix_chars: Number | None = None
    """Of those, by name, only as many as have no more characters of JSON than this together."""
    names: bool = False
    """The names of all keys that are not internal."""
    any_keys: Number = 0
    """How many keys by name, at most, the internal ones too."""
    after_key: Text | None = None
    messages: Number = 0
    """How many messages, at most."""
    before: Number | None = None
    after: Number | None = None
    order: Literal["newest", "oldest"] = "newest"
    roles: tuple[Role, ...] = ()
    records: Number = 0
    """How many records of work, at most, newest first."""
    usage: bool = False
    """Among them the records of tokens counted without a call: to restore a session, whose ids stay counted."""
    as_user: Text | None = None


class View(Frozen):
    """What was read; `messages` stand in the order asked for."""

    metadata: SessionMetadata
    data: dict[str, Value] = {}
    names: list[str] = []
    messages: list[ConversationMessage] = []
    more_messages: bool = False
    records: list[Invocation] = []


Order = Literal["updated", "created", "cost", "calls", "duration"]
MOST_WORDS = 100
"""Words that one question may look for: each is a condition of its own."""


def _few_words(text: str) -> str:
    if (count := len(text.split())) > MOST_WORDS:
        raise ValueError(f"has {count:,} words; at most {MOST_WORDS} can be looked for")
    return text


class Query(Frozen):
    """Which sessions; every field narrows. Newest first, unless `reverse`."""

    as_user: Text | None = None
    user_id: Text | None = None
    ids: tuple[Text, ...] = Field(default=(), max_length=100)
    id_prefix: Text | None = None
    """How the id begins, to the letter."""
    status: tuple[SessionStatus, ...] = ()
    tags: tuple[Text, ...] = Field(default=(), max_length=64)
    match: Literal["any", "all"] = "any"
    text: Annotated[Text, AfterValidator(_few_words)] = ""
    """Words, each of which must stand in the id, the purpose or a tag; case and accents folded."""
    purpose: Text | None = None
    """The whole purpose, to the letter."""
    tool: Text | None = None
    created_after: Utc | None = None
    created_before: Utc | None = None
    updated_after: Utc | None = None
    updated_before: Utc | None = None
    has_errors: bool | None = None
    min_cost: Usd | None = None
    order: Order = "updated"
    reverse: bool = False
    limit: int = Field(default=100, ge=1, le=1000)


class InvocationQuery(Frozen):
    """Which records; newest start first, unless `reverse`."""

    as_user: Text | None = None
    session_id: Text | None = None
    invocation_id: Text | None = None
    scope: Literal["session", "user"] | None = None
    """Only ids that callers chose: in that session, or (`user_id`, None is nobody) in calls that make sessions."""
    user_id: Text | None = None
    tool: Text | None = None
    status: InvocationStatus | None = None
    kind: Literal["session", "work", "counted"] | None = None
    """`counted`: of work, and of tokens counted without a call, which are not listed otherwise."""
    reverse: bool = False
    limit: int = Field(default=100, ge=1, le=1000)


class Hit(Frozen):
    """A message that has all the words."""

    session_id: str
    purpose: str | None = None
    seq: int
    role: Role
    snippet: str
    timestamp: Utc


class Totals(Frozen):
    """Sums over sessions (by tag, user, status, or all) or over their records (by day, model, tool)."""

    group: str | None = None
    sessions: int = 0
    messages: int | None = None
    invocations: int = 0
    failed: int = 0
    duration_ms: float = 0.0
    token_usage: TokenUsage = Field(default_factory=tokens)
    estimated_cost: float = 0.0
    unpriced_invocations: int = 0


GroupBy = Literal["day", "model", "tool", "tag", "user", "status"]
T = TypeVar("T")


class Page(Frozen, Generic[T]):
    """Part of a listing; `next_cursor` is None on the last page."""

    items: list[T]
    next_cursor: str | None = None


class SessionChange(Frozen):
    """A session that changed: its revision now, None where it is gone."""

    session_id: str
    revision: int | None
    created: bool = False
    """Whether it was made after the position, or made anew under an id that was there."""


class Finding(Frozen):
    """Something a check of the store found."""

    level: Literal["ok", "warning", "fault"]
    what: str
    detail: str = ""
    next: str = ""
    """What to do about it."""
