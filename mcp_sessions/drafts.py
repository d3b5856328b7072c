"""Draft: a change in the making, every part of it checked against the limits as it is put in."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from pydantic import ValidationError

from ._json import check_json, check_text, encode
from .errors import InvalidArgumentError, LimitError
from .models import (
    ID_PATTERN,
    OTHER_ROLES,
    Alter,
    Change,
    ConversationMessage,
    Invocation,
    Limits,
    NewMessage,
    SessionStatus,
    generated,
    invalid,
)
from .session import Clock, new_id, utc_now

_ID = re.compile(ID_PATTERN.removesuffix("$") + r"\Z")
_KNOWN_ROLES = ("system", "user", "assistant", "tool")
_CHECKED = frozenset({"tool_name", "invocation_id", "tool_call_id", "model"})
"""What else of a message `Draft.add_message` checks itself, and whole."""


def whole(number: object) -> bool:
    """Whether it is a whole number, whatever its type promised; True and False are none."""
    return isinstance(number, int) and not isinstance(number, bool)


def checked_id(some_id: Any, argument: str, max_chars: int = 128) -> str:
    """An id. Raises InvalidArgumentError for anything else, LimitError."""
    if isinstance(some_id, str) and _ID.match(some_id) and len(some_id) > max_chars:
        raise LimitError(argument, len(some_id), max_chars, "characters", argument=argument)
    if not isinstance(some_id, str) or not _ID.match(some_id):
        shown = f"'{some_id[:60]}…'" if isinstance(some_id, str) and len(some_id) > 60 else repr(some_id)
        raise InvalidArgumentError(
            f"{argument} {shown} is not an id: 1 to 128 letters, digits, '.', '_' or '-', beginning with a letter "
            "or digit.",
            argument=argument,
        )
    return some_id


def checked_text(text: Any, argument: str, max_bytes: int) -> str:
    """A text of at most so many bytes. Raises InvalidArgumentError, LimitError."""
    if not isinstance(text, str):
        raise InvalidArgumentError(f"{argument} is {type(text).__name__}, not text.", argument=argument)
    try:
        check_text(text)
    except ValueError as error:
        raise InvalidArgumentError(f"{argument} {error}.", argument=argument) from None
    if len(text) * 4 > max_bytes and (size := len(text.encode())) > max_bytes:
        raise LimitError(argument, size, max_bytes, "bytes", argument=argument)
    return text


def checked_json(value: Any, argument: str, max_bytes: int) -> Any:
    """A JSON value of at most so many bytes of JSON. Raises InvalidArgumentError, LimitError."""
    try:
        check_json(value)
    except ValueError as error:
        raise InvalidArgumentError(f"{argument} {error}.", argument=argument) from None
    size = len(value) * 6 if isinstance(value, str) else max_bytes + 1
    if size > max_bytes and (size := len(encode(value).encode())) > max_bytes:
        raise LimitError(argument, size, max_bytes, "bytes of JSON", argument=argument)
    return value


def checked_key(key: Any, limits: Limits) -> str:
    """A key. Raises InvalidArgumentError, LimitError."""
    checked_text(key, "key", limits.key_chars * 4)
    if not key:
        raise InvalidArgumentError("key is empty. Name the key.", argument="key")
    if len(key) > limits.key_chars:
        raise LimitError("key", len(key), limits.key_chars, "characters", argument="key")
    return key


def checked_tags(tags: Iterable[Any], limits: Limits, argument: str = "tags") -> list[str]:
    """Tags, each once, in order. Raises InvalidArgumentError, LimitError."""
    if isinstance(tags, str):
        raise InvalidArgumentError(f"{argument} is text, not a list of texts.", argument=argument)
    unique = list(dict.fromkeys(checked_text(tag, argument, limits.tag_chars * 4) for tag in tags))
    for tag in unique:
        if not tag.strip():
            raise InvalidArgumentError(f"{argument} has an empty tag. Leave it out.", argument=argument)
        if len(tag) > limits.tag_chars:
            raise LimitError(f"the tag '{tag[:20]}…'", len(tag), limits.tag_chars, "characters", argument=argument)
    if len(unique) > limits.tags:
        raise LimitError(argument, len(unique), limits.tags, "tags", argument=argument)
    return unique


def checked_metadata(metadata: Any, limits: Limits) -> Mapping[str, Any]:
    """Metadata of the caller's own. Raises InvalidArgumentError, LimitError."""
    if not isinstance(metadata, Mapping):
        raise InvalidArgumentError("metadata is not an object.", argument="metadata")
    return cast("Mapping[str, Any]", checked_json(metadata, "metadata", limits.metadata_bytes))


def checked_role(role: Any) -> str:
    """A role; `human`, `ai` and `developer` are other words for three of them. Raises InvalidArgumentError."""
    known = OTHER_ROLES.get(role, role) if isinstance(role, str) else role
    if known not in _KNOWN_ROLES:
        close = difflib.get_close_matches(str(role), [*_KNOWN_ROLES, *OTHER_ROLES], 1)
        hint = f" Did you mean '{OTHER_ROLES.get(close[0], close[0])}'?" if close else ""
        raise InvalidArgumentError(
            f"role {str(role)[:60]!r} is not one of {', '.join(_KNOWN_ROLES)}.{hint}", argument="role"
        )
    return cast("str", known)


class Draft:
    """What is to be committed to one session. Nothing happens to it until `change()` is handed to the store."""

    def __init__(self, limits: Limits, clock: Clock, make_id: Callable[[str], str]) -> None:
        self.limits = limits
        self._clock = clock
        self._make_id = make_id
        self.messages: list[NewMessage] = []
        self.set: dict[str, Any] = {}
        self.remove: list[str] = []
        self.remove_all = False
        self.retract: list[tuple[int, int]] = []
        self.expected_versions: dict[str, int] = {}
        self.records: list[Invocation] = []
        self._alter: dict[str, Any] = {}
        self._own = clock is utc_now and make_id is new_id
        """Times and ids are ours, and so need no check."""

    def add_message(
        self, role: str, content: str, *, message_id: str | None = None, **more: Any
    ) -> ConversationMessage:
        """Append a message; `more` are further fields of ConversationMessage."""
        limits = self.limits
        more = {name: value for name, value in more.items() if value is not None}
        if more:
            self._check_more(more)
        given = message_id is not None
        fields: dict[str, Any] = {
            "message_id": checked_id(message_id, "message_id", limits.id_chars) if given else self._make_id("msg"),
            "role": checked_role(role),
            "content": checked_text(content, "content", limits.message_bytes),
            "timestamp": self._clock(),
            **more,
        }
        if self._own and more.keys() <= _CHECKED:
            message = ConversationMessage.of_checked(**fields)
        else:
            try:
                message = ConversationMessage(**fields)
            except ValidationError as error:
                raise invalid(error) from None
        given = given or not (self._own or generated(message.message_id))
        self.messages.append(NewMessage.of_checked(message=message, given=given))
        return message

    def _check_more(self, more: Mapping[str, Any]) -> None:
        for name, value in more.items():
            if name == "payload":
                if not isinstance(value, Mapping):
                    raise InvalidArgumentError("payload is not an object of native forms.", argument="payload")
                checked_json(value, "payload", self.limits.payload_bytes)
            elif name == "tool_calls":
                checked_json(value, "tool_calls", self.limits.message_bytes)
            elif name == "invocation_id":
                checked_id(value, "invocation_id")
            elif name in _CHECKED:
                checked_text(value, name, self.limits.key_chars * 4)

    def set_value(self, key: str, value: Any, expected_version: int | None = None) -> None:
        """Set a key to a JSON value, on condition that it still has that version (0: does not exist)."""
        checked_key(key, self.limits)
        self.set[key] = checked_json(value, "value", self.limits.value_bytes)
        if expected_version is not None:
            if not whole(expected_version):
                raise InvalidArgumentError("expected_version is not a whole number.", argument="expected_version")
            if expected_version < 0:
                raise InvalidArgumentError("expected_version is below 0.", argument="expected_version")
            self.expected_versions[key] = expected_version

    def unset(self, keys: Sequence[str], *, everything: bool = False) -> None:
        """Remove keys; with `everything` all but the internal ones."""
        self.remove += [checked_key(key, self.limits) for key in keys]
        self.remove_all = self.remove_all or everything

    def alter(self, **fields: Any) -> None:
        """Alter metadata: the fields of Alter, those that are None left alone."""
        limits = self.limits
        for name, value in fields.items():
            if value is None:
                continue
            self._alter[name] = value
            if name in ("purpose", "summary"):
                checked_text(value, name, limits.metadata_bytes)
            elif name in ("tags", "add_tags", "remove_tags"):
                self._alter[name] = tuple(checked_tags(value, limits, name))
            elif name == "metadata":
                checked_metadata(value, limits)

    def change(self, at: datetime, *, as_user: str | None = None, **conditions: Any) -> Change:
        """The change, on the conditions of Change; by default that the session has not ended."""
        alter = Alter(**self._alter) if self._alter else None
        alters = bool(self.messages or self.retract or self.set or self.remove or self.remove_all or alter)
        reopens = alter is not None and alter.status is SessionStatus.ACTIVE
        conditions = {"active": alters and not reopens, **conditions}
        if self._own and as_user is None and len(conditions) == 1 and len(self.records) <= 1 and self._only_says(alter):
            # The usual change: each part of it was checked when it was put in.
            return Change.of_checked(
                at=at, messages=tuple(self.messages), records=tuple(self.records), active=conditions["active"]
            )
        return Change(
            at=at,
            messages=tuple(self.messages),
            retract=tuple(self.retract),
            set=self.set,
            remove=tuple(self.remove),
            remove_all=self.remove_all,
            alter=alter,
            records=tuple(self.records),
            as_user=as_user,
            expected_versions=self.expected_versions,
            **conditions,
        )

    def _only_says(self, alter: Alter | None) -> bool:
        return not (self.retract or self.set or self.remove or self.remove_all or self.expected_versions or alter)
