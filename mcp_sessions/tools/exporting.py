"""Exporting: a session written out as JSON or Markdown, whole or piece by piece.

A piece is made of the rows in it alone, so that all of them cost what the whole does. They show one state of the
session: whatever is read for one is read with the head, which must still be what it was at the first.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

from pydantic import ValidationError

from .._json import decode, encode
from ..calls import Call
from ..errors import InvalidArgumentError, InvalidCursorError
from ..models import ConversationMessage, Invocation, InvocationQuery, SessionMetadata, Value, View, Want, invalid
from ..storage.cursors import pack, unpack
from ..storage.whole import EVERYTHING
from .fitting import FRAME, fitted, size

EXPORT_FORMAT = "mcp-sessions/1"
MOST_ROWS = 16
"""Messages or values that are read at once: one at first, for it may fill the room, then twice as many each time."""
RECORDS = 5
"""Records that make a part."""
Place = tuple[int, int, str]
"""Where a part of the document stands: its section, and the seq, or (1, key or cursor), after which it comes."""
SECTIONS = ("head", "messages", "end", "data", "end", "records", "end")


@dataclass(frozen=True)
class Form:
    """How a document is put together: each list has something before its first row, between rows, and at its end."""

    head: Callable[[SessionMetadata], str]
    message: Callable[[ConversationMessage], str]
    value: Callable[[str, Value], str]
    record: Callable[[Invocation], str]
    kind: Literal["work", "counted"]
    reverse: bool
    """Records come oldest first."""
    before: tuple[str, str, str]
    between: str
    ends: tuple[str, str, str]


class _ChangedError(Exception):
    """The session is not what it was when its export began."""


def exported(
    call: Call, session_id: str, format: Literal["json", "markdown"], cursor: str | None
) -> tuple[str, str | None]:
    """The document, or as much of it from the cursor on as the call has room for, and the next cursor.

    Raises SessionNotFoundError, InvalidCursorError; InvalidArgumentError where the session changed since the first
    piece.
    """
    form = FORMS[format]
    if call.room is None and cursor is None:
        want = Want(any_keys=EVERYTHING, messages=EVERYTHING, order="oldest", records=EVERYTHING, usage=True)
        view = call.manager.view(session_id, want.model_copy(update={"as_user": call.as_user}))
        call.count = len(view.messages) + len(view.data)
        return _whole(form, view), None
    furthest = 0

    def tell(done: int) -> None:
        nonlocal furthest
        if done > furthest:  # and not again where it is begun anew
            furthest = done
            call.progress(done, None)

    while True:
        try:
            return _piece(call, session_id, form, f"session_export {session_id} {format}", cursor, tell)
        except _ChangedError:
            if cursor is not None:
                raise InvalidArgumentError(
                    f"Session {session_id} changed since the first piece was written out. "
                    "Begin again without a cursor.",
                    argument="cursor",
                ) from None


def imported(document: bytes) -> View:
    """The session in a JSON document that `exported` wrote. Raises InvalidArgumentError."""
    try:
        found: object = decode(document)
    except ValueError as error:
        raise InvalidArgumentError(f"This is no JSON: {error}.") from None
    parts = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    if parts.pop("format", None) != EXPORT_FORMAT:
        raise InvalidArgumentError(f"This is no session that session_export wrote as JSON ({EXPORT_FORMAT}).")
    try:
        return View.model_validate({"records": parts.pop("invocations", None), **parts})
    except ValidationError as error:
        raise invalid(error, "The session cannot be taken: ") from None


def _whole(form: Form, view: View) -> str:
    records = [record for record in view.records if record.kind == "work" or form.kind == "counted"]
    lists = (
        [form.message(message) for message in view.messages],
        [form.value(key, value) for key, value in view.data.items()],
        [form.record(record) for record in (reversed(records) if form.reverse else records)],
    )
    parts = [form.head(view.metadata)]
    for rows, before, end in zip(lists, form.before, form.ends, strict=True):
        parts += [before * bool(rows), form.between.join(rows), end]
    return "".join(parts)


def _piece(
    call: Call, session_id: str, form: Form, question: str, cursor: str | None, tell: Callable[[int], None]
) -> tuple[str, str | None]:
    given: list[Any] = unpack(question, cursor, (str, int, int, int, str, int)) or ["", 0, 0, 0, "", 0]
    state, done, section, seq, name, skip = given
    if not (0 <= section < len(SECTIONS) and done >= 0 and seq >= 0 and skip >= 0):
        raise InvalidCursorError("is not one that was given out")
    reading = _Reading(call, session_id, form, state, done, tell)
    content: list[str] = []
    left = None if call.room is None else call.room - FRAME
    call.count = 0
    for place, part in reading.parts((section, seq, name)):
        text = part[skip:]
        kept = text if left is None else fitted(text, max(0, left))
        content.append(kept)
        if len(kept) < len(text):
            return "".join(content), pack(question, [reading.state, reading.done, *place, skip + len(kept)])
        left = left and left - size(kept)
        skip = 0
        call.count += SECTIONS[place[0]] in ("messages", "data")
    return "".join(content), None


class _Reading:
    """A session read a few rows at a time. Raises _ChangedError where its head is no longer that of `state`.

    `done` counts the rows that are written out: messages, values and records; `tell` hears of some at a time.
    """

    def __init__(
        self, call: Call, session_id: str, form: Form, state: str, done: int, tell: Callable[[int], None]
    ) -> None:
        self.state = state
        self.done = done
        self._tell = tell
        self._call = call
        self._session_id = session_id
        self._form = form

    def parts(self, place: Place) -> Iterator[tuple[Place, str]]:
        """The parts of the document from a place on, each with its own."""
        section, seq, name = place
        while section < len(SECTIONS):
            match SECTIONS[section]:
                case "head":
                    yield (section, 0, ""), self._form.head(self._view().metadata)
                case "messages":
                    yield from self._messages(section, seq)
                case "data":
                    yield from self._values(section, name if seq else None)
                case "records":
                    yield from self._records(section, name if seq else None)
                case _:
                    yield (section, 0, ""), self._form.ends[section // 2 - 1]
            section, seq, name = section + 1, 0, ""

    def _messages(self, section: int, seq: int) -> Iterator[tuple[Place, str]]:
        rows, more = 1, True
        while more:
            view = self._view(messages=rows, after=seq, order="oldest")
            for message in view.messages:
                yield self._part((section, seq, ""), self._form.message(message))
                seq = message.seq
                self.done += 1
            self._tell(self.done)
            rows, more = min(2 * rows, MOST_ROWS), view.more_messages

    def _values(self, section: int, after: str | None) -> Iterator[tuple[Place, str]]:
        rows, more = 1, True
        while more:
            view = self._view(any_keys=rows, after_key=after)
            for key, value in view.data.items():
                yield self._part((section, int(after is not None), after or ""), self._form.value(key, value))
                after = key
                self.done += 1
            self._tell(self.done)
            rows, more = min(2 * rows, MOST_ROWS), len(view.data) == rows

    def _records(self, section: int, after: str | None) -> Iterator[tuple[Place, str]]:
        form, more = self._form, True
        query = InvocationQuery(session_id=self._session_id, kind=form.kind, reverse=form.reverse, limit=RECORDS)
        while more:
            page = self._call.manager.storage.invocations(query, after)
            self._view()  # they were read before a head that is as it was
            if page.items:
                rows = form.between.join(map(form.record, page.items))
                yield self._part((section, int(after is not None), after or ""), rows)
                self.done += len(page.items)
            self._tell(self.done)
            after = page.next_cursor
            more = after is not None

    def _part(self, place: Place, rows: str) -> tuple[Place, str]:
        section, begun, _ = place
        return place, (self._form.between if begun else self._form.before[section // 2]) + rows

    def _view(self, **want: Any) -> View:
        view = self._call.manager.view(self._session_id, Want(**want, as_user=self._call.as_user))
        state = hashlib.sha256(encode(view.metadata.to_dict()).encode()).hexdigest()[:16]
        self.state = self.state or state
        if state != self.state:
            raise _ChangedError
        return view


# JSON, from which an equal session can be made


def _json_head(head: SessionMetadata) -> str:
    return f'{{"format":{encode(EXPORT_FORMAT)},"metadata":{encode(head.to_dict())},"messages":['


def _json_value(key: str, value: Value) -> str:
    return f"{encode(key)}:{encode({'value': value.value, 'version': value.version})}"


def _json_record(record: Invocation) -> str:
    """With what tells a repeated call from another one, so that where it is restored none counts twice."""
    more = {"scope": record.scope, "digest": record.digest, "cut": record.cut or None}
    return encode(record.to_dict() | {name: value for name, value in more.items() if value is not None})


# Markdown, to read: what it is, what was said, what was stored, what was called


def _markdown_head(head: SessionMetadata) -> str:
    facts = {
        "session": head.session_id,
        "status": head.status.value,
        "created": head.created_at.isoformat(timespec="seconds"),
        "updated": head.updated_at.isoformat(timespec="seconds"),
        "tags": ", ".join(head.tags),
        "summary": head.summary or "",
    }
    lines = [f"- {name}: {_one_line(fact)}" for name, fact in facts.items() if fact]
    return "\n".join([_heading(1, head.purpose or head.session_id), "", *lines])


def _markdown_message(message: ConversationMessage) -> str:
    name = f" ({message.tool_name})" if message.tool_name else ""
    when = message.timestamp.isoformat(timespec="seconds")
    return f"\n\n{_heading(2, f'{message.seq}. {message.role}{name}, {when}')}\n\n{_closed(message.content)}"


def _markdown_value(key: str, value: Value) -> str:
    return f"\n\n{_heading(3, key)}\n\n{_fenced(encode(value.value), 'json')}"


def _heading(level: int, text: str) -> str:
    return f"{'#' * level} {_one_line(text)}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _fenced(text: str, language: str) -> str:
    """Text in a fence that is longer than any in it."""
    longest = max(map(len, re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _closed(text: str) -> str:
    """Text as it is, with a code fence that it leaves open closed: what follows is not part of its code."""
    fence = ""
    for line in text.splitlines():
        mark = re.match(r" {0,3}(`{3,}|~{3,})(.*)", line)
        if mark is None:
            continue
        if not fence:
            fence = mark[1]
        elif mark[1].startswith(fence) and not mark[2].strip():
            fence = ""
    return f"{text}\n{fence}" if fence else text


def _markdown_record(record: Invocation) -> str:
    took = f", {record.duration_ms:g} ms" if record.duration_ms is not None else ""
    failure = f": {_one_line(record.error.message)}" if record.error is not None else ""
    return f"\n- {record.tool_name} {record.status.value}{took}{failure}"


FORMS = {
    "json": Form(
        head=_json_head,
        message=lambda message: encode(message.to_dict()),
        value=_json_value,
        record=_json_record,
        kind="counted",
        reverse=False,
        before=("", "", ""),
        between=",",
        ends=('],"data":{', '},"invocations":[', "]}"),
    ),
    "markdown": Form(
        head=_markdown_head,
        message=_markdown_message,
        value=_markdown_value,
        record=_markdown_record,
        kind="work",
        reverse=True,
        before=("", "\n\n## Data", "\n\n## Calls\n"),
        between="",
        ends=("", "", "\n"),
    ),
}
