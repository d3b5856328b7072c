"""What a record keeps of a call: enough to see what happened, nothing twice, no secrets, of bounded size."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, cast

from ._json import MAX_DEPTH, canonical, check_json, check_name, check_text, encode
from .models import Limits

REDACTED = "[redacted]"
SECRET_WORDS = ("password", "passwd", "secret", "token", "apikey", "api_key", "authorization")
LONG = 2048
"""Bytes from which a string is kept as a preview only."""
SHORT = LONG // 4
"""Characters up to which a string is never that long."""
PREVIEW_CHARS = 200
LONGEST_ERROR = 2000
LONGEST_KNOWN = 256
"""Characters of a name that is remembered to be a secret or none: others come once, and would fill memory."""
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


class Redactor:
    """Knows by its name whether a value is a secret: `access_token` is one, `input_tokens` is not."""

    def __init__(self, secret_words: Iterable[str] = SECRET_WORDS) -> None:
        self._secrets = [_parts(word) for word in secret_words if _parts(word)]
        self._known = lru_cache(maxsize=4096)(self._is_secret)

    def is_secret(self, name: str) -> bool:
        """Whether the value under this name is one."""
        return self._known(name) if len(name) <= LONGEST_KNOWN else self._is_secret(name)

    def _is_secret(self, name: str) -> bool:
        parts = _parts(name)
        return any(
            parts[start : start + len(secret)] == secret
            for secret in self._secrets
            for start in range(len(parts) - len(secret) + 1)
        )

    def kept(self, value: Any, *, shorten: bool = True, depth: int = 0) -> Any:
        """A value as a record holds it: secrets blanked and, with `shorten`, long strings as previews.

        Raises ValueError for what is not JSON.
        """
        if isinstance(value, str):
            check_text(value)
            return preview(value) if shorten and is_long(value) else value
        if not isinstance(value, (dict, list, tuple, Mapping)):  # what is a dict need not be asked of the ABC
            return check_json(value)
        if depth >= MAX_DEPTH:
            return check_json(value, depth)
        if isinstance(value, (list, tuple)):
            items = cast("Iterable[Any]", value)
            return [self.kept(item, shorten=shorten, depth=depth + 1) for item in items]
        kept: dict[str, Any] = {}
        for name, member in cast("Mapping[Any, Any]", value).items():
            if self.is_secret(check_name(name)) and check_json(member, depth + 1) is not None:
                kept[name] = REDACTED
            elif type(member) is str and len(member) <= SHORT:  # most of them
                kept[name] = check_text(member)
            else:
                kept[name] = self.kept(member, shorten=shorten, depth=depth + 1)
        return kept

    def bounded(self, value: Any, max_bytes: int) -> Any:
        """`kept`, or a preview of its JSON where that is still too long. Raises ValueError for what is not JSON."""
        kept = self.kept(value)
        if kept is None or isinstance(kept, (bool, int, float)):
            return kept
        text = encode(kept)
        return preview(text) if len(text) * 4 > max_bytes and len(text.encode()) > max_bytes else kept


def preview(text: str) -> dict[str, Any]:
    """How a long string is kept: its beginning, its length in characters, and a digest of the whole."""
    return {
        "preview": text[:PREVIEW_CHARS],
        "chars": len(text),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }


def plain(text: str, max_chars: int) -> str:
    """A text that any store can keep: cut, without NULs and halves of surrogate pairs."""
    if len(text) <= max_chars and text.isascii() and "\0" not in text:
        return text
    return text[:max_chars].replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def digest(arguments: Mapping[str, Any]) -> str:
    """What says whether two calls have the same arguments."""
    return hashlib.sha256(canonical(arguments).encode()).hexdigest()


def is_long(text: str) -> bool:
    """Whether a string is so long that a record keeps only a preview."""
    return len(text) * 4 > LONG and len(text.encode()) > LONG


def _parts(name: str) -> list[str]:
    return [part.lower() for part in _PARTS.findall(name)]


def record_limit(limits: Limits) -> int:
    """How much of it arguments and result may take each, so that there is room for the other fields."""
    return limits.record_bytes * 3 // 8
