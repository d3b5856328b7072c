"""Session: a working copy of one session, the one mutable value.

It remembers what was done to it since it was read, and `storage.save_session` commits exactly that. So two
processes that save copies of one session both keep their messages; nothing is ever rewritten.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, cast, get_args

from pydantic import ValidationError

from ._json import canonical, check_json
from .errors import InvalidArgumentError
from .models import (
    Alter,
    Change,
    Clearable,
    ConversationMessage,
    Invocation,
    Limits,
    NewMessage,
    Role,
    SessionMetadata,
    SessionStatus,
    Value,
    View,
    invalid,
)
from .records import Redactor, record_limit

Parts = tuple[list[ConversationMessage], dict[str, Any], list[str]]
Clock = Callable[[], datetime]
_BASE32 = b"abcdefghijklmnopqrstuvwxyz234567" * 8
"""A character for each byte; each stands there equally often."""


def utc_now() -> datetime:
    """The time, aware."""
    return datetime.now(UTC)


def new_id(prefix: str) -> str:
    """`prefix_` and 26 characters of base32: 130 random bits, lower case because file systems and hosts fold it."""
    return f"{prefix}_{os.urandom(26).translate(_BASE32).decode()}"


def derived_id(prefix: str, *parts: str) -> str:
    """An id of the shape that `new_id` gives, always the same for the same parts."""
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    return f"{prefix}_{base64.b32encode(digest).decode().lower()[:26]}"


class Session:
    """A copy to work on: `metadata`, `conversation`, `data`, `invocation_ids`. Nothing is stored until it is saved."""

    def __init__(
        self,
        metadata: SessionMetadata,
        conversation: list[ConversationMessage] | None = None,
        data: dict[str, Any] | None = None,
        invocation_ids: list[str] | None = None,
        *,
        clock: Clock = utc_now,
        load: Callable[[], Parts] | None = None,
        stored: bool = False,
    ) -> None:
        self.metadata = metadata
        self.clock = clock
        self._load = load
        self._stored = stored
        self._parts: Parts = (conversation or [], data or {}, invocation_ids or [])
        self._know()
        self._messages: list[NewMessage] = []
        self._cleared_upto: int | None = None
        self._records: list[Invocation] = []

    @property
    def session_id(self) -> str:
        return self.metadata.session_id

    @property
    def conversation(self) -> list[ConversationMessage]:
        """The messages, oldest first."""
        return self._all()[0]

    @property
    def data(self) -> dict[str, Any]:
        """The keys and their values, internal ones left out."""
        return self._all()[1]

    @property
    def invocation_ids(self) -> list[str]:
        """The ids of the recorded calls of work, oldest first."""
        return self._all()[2]

    def _all(self) -> Parts:
        # A listed session reads its parts when somebody looks at them: a listing costs its heads alone.
        if self._load is not None:
            load, self._load = self._load, None
            self._parts = load()
            self._values = _texts(self._parts[1], "data")
        return self._parts

    def _know(self) -> None:
        """Keep what this copy is now, to tell later what was done to it: lists and dicts may be edited in place."""
        self._known = self.metadata
        self._known_tags = tuple(self.metadata.tags)
        self._known_custom = _texts(self.metadata.custom_metadata, "custom_metadata")
        self._values = _texts(self._parts[1], "data")

    def add_message(
        self, role: Role, content: str, tool_name: str | None = None, invocation_id: str | None = None, **more: Any
    ) -> ConversationMessage:
        """Append a message; `more` are further fields of ConversationMessage. Its seq is given when it is saved."""
        given = "message_id" in more
        fields = {
            "message_id": new_id("msg"),
            "role": role,
            "content": content,
            "timestamp": self.clock(),
            "tool_name": tool_name,
            "invocation_id": invocation_id,
            **more,
        }
        try:
            message = ConversationMessage.model_validate(fields)
        except ValidationError as error:
            raise invalid(error) from None
        self._stamp(message.timestamp)
        self.conversation.append(message)
        self._messages.append(NewMessage(message=message, given=given))
        return message

    def add_invocation(
        self, invocation_id: str, duration_ms: float | None = None, tool_name: str = "unknown", **more: Any
    ) -> None:
        """Count a call as done; one whose id is there already is left as it is. `more`: fields of Invocation."""
        if invocation_id in self.invocation_ids:
            return
        fields: dict[str, Any] = {
            "invocation_id": invocation_id,
            "session_id": self.session_id,
            "user_id": self.metadata.user_id,
            "tool_name": tool_name,
            "started_at": self.clock(),
            "duration_ms": duration_ms,
            "scope": "session",
            **more,
        }
        try:
            record = Invocation.model_validate(fields)
        except ValidationError as error:
            raise invalid(error) from None
        redactor, most = Redactor(), record_limit(Limits())
        kept = {name: redactor.bounded(getattr(record, name), most) for name in ("arguments", "result")}
        record = record.model_copy(update=kept)
        self.invocation_ids.append(invocation_id)
        self._records.append(record)
        known = self.metadata
        self.metadata = known.model_copy(
            update={
                "total_invocations": known.total_invocations + 1,
                "total_duration_ms": known.total_duration_ms + (duration_ms or 0.0),
                "updated_at": max(known.updated_at, record.started_at),
            }
        )

    def clear_conversation(self) -> None:
        """Take all messages away, those that the store has included, when it is saved."""
        self._stamp(self.clock())
        self._cleared_upto = max((message.seq for message in self.conversation), default=0) or self._cleared_upto
        self.conversation.clear()
        self._messages = []

    def get(self, key: str, default: Any = None) -> Any:
        """A key's value, `default` where there is none."""
        return self.data.get(key, default)

    def set(self, key: str, value: Any) -> None:
        """Set a key to a JSON value. Raises InvalidArgumentError for what is none."""
        try:
            check_json(value)
        except ValueError as error:
            raise InvalidArgumentError(f"value {error}.", argument="value") from None
        self._stamp(self.clock())
        self.data[key] = value

    def delete(self, key: str) -> None:
        """Remove a key; one that is not there is no error and no change."""
        if self.data.pop(key, self) is not self:
            self._stamp(self.clock())

    def clear_data(self) -> None:
        """Remove every key. The conversation stays."""
        self._stamp(self.clock())
        self.data.clear()

    def pending(self) -> Change:
        """What was done since this copy was read or saved. Raises InvalidArgumentError for what cannot be stored."""
        now, known = self.metadata, self._known
        values = self._values if self._load is not None else _texts(self.data, "data")
        custom = _texts(now.custom_metadata, "custom_metadata")
        altered = {name: now.custom_metadata[name] for name in custom if custom[name] != self._known_custom.get(name)}
        cleared = (name for name in get_args(Clearable) if getattr(now, name) is None)
        alter = Alter(
            purpose=now.purpose if now.purpose != known.purpose else None,
            summary=now.summary if now.summary != known.summary else None,
            status=now.status if now.status != known.status else None,
            tags=tuple(now.tags) if tuple(now.tags) != self._known_tags else None,
            metadata=altered or None,
            clear=tuple(name for name in cleared if getattr(known, name) is not None),
            remove_metadata=tuple(name for name in self._known_custom if name not in custom),
        )
        change = Change(
            at=max(now.updated_at, known.updated_at),
            messages=tuple(self._messages),
            retract=((1, self._cleared_upto),) if self._cleared_upto else (),
            set={key: self.data[key] for key in values if values[key] != self._values.get(key)},
            remove=tuple(key for key in self._values if key not in values),
            alter=alter if alter != Alter() else None,
            expected_created_at=known.created_at if self._stored else None,
        )
        reopens = alter.status is SessionStatus.ACTIVE
        return change.model_copy(
            update={"records": tuple(self._records), "active": change.alters_state() and not reopens}
        )

    def whole(self) -> View:
        """All of this copy, to be stored where it is not known; messages without a seq are numbered on.

        Its head does not count the records yet.
        """
        last = 0
        conversation: list[ConversationMessage] = []
        for message in self.conversation:
            last = message.seq or last + 1
            conversation.append(message.model_copy(update={"seq": last}))
        revision = max(self.metadata.revision, 1)
        head = self.metadata.model_copy(
            update={
                "message_count": len(conversation),
                "last_seq": max(self.metadata.last_seq, last),
                "revision": revision,
                "total_invocations": self._known.total_invocations,
                "total_duration_ms": self._known.total_duration_ms,
            }
        )
        data = {key: Value(value=value, version=revision) for key, value in self.data.items()}
        return View(metadata=head, data=data, messages=conversation, records=self._records[::-1])

    def saved(self, metadata: SessionMetadata, seqs: list[int]) -> None:
        """Take over what a commit of `pending()` gave."""
        self.metadata, self._stored = metadata, True
        for new, seq in zip(reversed(self._messages), reversed(seqs), strict=True):
            for place in range(len(self.conversation) - 1, -1, -1):
                if self.conversation[place] is new.message:
                    self.conversation[place] = new.message.model_copy(update={"seq": seq})
                    break
        self._messages, self._records, self._cleared_upto = [], [], None
        self._know()

    def to_dict(self) -> dict[str, Any]:
        """JSON form of the whole copy."""
        return {
            "metadata": self.metadata.to_dict(),
            "invocation_ids": list(self.invocation_ids),
            "conversation": [message.to_dict() for message in self.conversation],
            "data": dict(self.data),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Session:
        """From `to_dict`; all but `metadata` may be missing. The copy counts as new: saving it creates it.

        Raises InvalidArgumentError.
        """
        metadata = data.get("metadata")
        if not isinstance(metadata, Mapping):
            raise InvalidArgumentError("A session's image has no metadata.", argument="metadata")
        try:
            return cls(
                SessionMetadata.from_dict(cast("Mapping[str, Any]", metadata)),
                [ConversationMessage.model_validate(message) for message in data.get("conversation", [])],
                dict(data.get("data", {})),
                list(data.get("invocation_ids", [])),
            )
        except ValidationError as error:
            raise invalid(error, "A session's image: ") from None

    def _stamp(self, now: datetime) -> None:
        self.metadata = self.metadata.model_copy(update={"updated_at": max(self.metadata.updated_at, now)})


def _texts(values: Mapping[str, Any], argument: str) -> dict[str, str]:
    """Each value as JSON text, to be compared later. Raises InvalidArgumentError for what is not JSON."""
    try:
        check_json(values)
    except ValueError as error:
        raise InvalidArgumentError(f"{argument} {error}.", argument=argument) from None
    return {name: canonical(value) for name, value in values.items()}
