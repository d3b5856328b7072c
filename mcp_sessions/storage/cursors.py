"""Cursors: the place where a page ended, bound to the question that it was a page of.

Opaque to callers: base64url of [digest of the question, place].
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Any, cast

from .._json import canonical, check_json, decode, encode
from ..errors import InvalidCursorError
from ..models import Frozen

Place = list[Any]
_LARGEST = 1 << 63


def _digest(question: str) -> str:
    return hashlib.sha256(question.encode()).hexdigest()[:12]


def bound(kind: str, query: Frozen, *more: str) -> str:
    """What a cursor is bound to: the whole query but the size of its pages."""
    return canonical([kind, query.model_dump(mode="json", exclude={"limit"}), *more])


def pack(question: str, place: Place) -> str:
    """The cursor for the rows after `place`."""
    return base64.urlsafe_b64encode(encode([_digest(question), place]).encode()).decode().rstrip("=")


def unpack(question: str, cursor: str | None, shape: tuple[type, ...]) -> Place | None:
    """The place in a cursor; None for no cursor. Raises InvalidCursorError for one that we did not make."""
    if cursor is None:
        return None
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        content = check_json(decode(base64.b64decode(padded, altchars=b"-_", validate=True)))
    except (ValueError, binascii.Error, RecursionError):
        raise InvalidCursorError("is not one that was given out") from None
    if not (isinstance(content, list) and len(cast("list[Any]", content)) == 2):
        raise InvalidCursorError("is not one that was given out")
    digest, place = cast("list[Any]", content)
    if digest != _digest(question):
        raise InvalidCursorError("belongs to another query")
    if not isinstance(place, list) or [type(part) for part in cast("Place", place)] != list(shape):
        raise InvalidCursorError("is not one that was given out")
    if any(type(part) is int and not -_LARGEST <= part < _LARGEST for part in cast("Place", place)):
        raise InvalidCursorError("is not one that was given out")
    return cast("Place", place)
