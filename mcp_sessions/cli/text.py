"""Stored values as text for people: nothing in them acts on a terminal, and what is long is shortened.

What agents store may hold escape sequences and letters that turn text around; shown raw they could move the
cursor, set a title or hide what stands there.
"""

from __future__ import annotations

import json
import re
import sys
from datetime import datetime
from typing import Any

# Controls but tab and newline, DEL and C1, marks of direction, line and paragraph separators, halves of pairs.
_ACTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_PASSWORD = re.compile(r"(?<=://)([^/?#@:\s]*):\S*@")
_SECRET_FIELD = re.compile(r"([?&](?:ssl)?pass(?:word|file)=)[^&#'\s]*", re.IGNORECASE)
_UNITS = ((86_400 * 365, "y"), (86_400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def lines(text: str) -> str:
    """The text with its lines, every character in it visible."""
    return _ACTS.sub(_escape, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """The text on one line, every character in it visible."""
    return _ACTS.sub(_escape, " ".join(text.split()))


def shortened(text: str, chars: int) -> str:
    """At most so many characters of a text, and how many there were where it was cut."""
    return text if len(text) <= chars else f"{text[:chars]}… ({len(text):,} characters)"


def without_password(text: str) -> str:
    """A text about a store, with the password blanked in every url in it."""
    return _SECRET_FIELD.sub(r"\1***", _PASSWORD.sub(r"\1:***@", text))


def json_text(value: Any, indent: int | None = None) -> str:
    """The value as JSON that any reader takes and no terminal acts on; in letters that stdout knows."""
    ascii_only = "utf" not in (getattr(sys.stdout, "encoding", None) or "").lower()
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    # In JSON such characters stand inside strings only, where an escape means the same.
    return re.sub(r"[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]", _json_escape, text)


def age(moment: datetime, now: datetime) -> str:
    """How long ago: `3m`, `5h`, `12d`."""
    seconds = max(0, int((now - moment).total_seconds()))
    size, unit = next((pair for pair in _UNITS if seconds >= pair[0]), _UNITS[-1])
    return f"{seconds // size}{unit}"


def when(moment: datetime) -> str:
    """A time to the second, UTC: `2026-11-22T10:30:05Z`."""
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def amount(count: int) -> str:
    """A count in few letters: `950`, `12.3k`, `4.6M`."""
    for size, unit in ((1_000_000_000, "G"), (1_000_000, "M"), (1000, "k")):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return str(count)


def money(usd: float) -> str:
    """An amount in USD, to the hundredth of a cent where it is small."""
    if usd == 0:
        return "$0"
    if usd < 0.0001:
        return "<$0.0001"
    return f"${usd:.4f}" if usd < 1 else f"${usd:,.2f}"


def duration(ms: float | None) -> str:
    """A duration: `0.4ms`, `12ms`, `3.2s`, `5m10s`, `2h05m`; `-` where it is not known."""
    if ms is None:
        return "-"
    if ms < 1000:
        return f"{ms:.1f}ms" if ms < 10 else f"{ms:.0f}ms"
    seconds = ms / 1000
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest:02}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02}m"


def counted(count: int, one: str, many: str | None = None) -> str:
    """`1 call`, `3 calls`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def _json_escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
