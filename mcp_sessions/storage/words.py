"""Words: how text is cut for search, the same in every backend.

As SQLite's unicode61 cuts: runs of letters and digits, case and accents folded; by the tables of this Python's Unicode,
which are newer, with casefold where those fold less ("ß" is "ss"), and with private characters and symbols between the
words. Backends index what `words` gives rather than cutting text themselves, so that they cannot differ.
"""

from __future__ import annotations

import re
import unicodedata

_WORD = re.compile(r"[^\W_]+")
_ASCII_WORD = re.compile(r"[a-z0-9]+")
_MARKS = re.compile("[\u0300-\u036f]+")
SNIPPET_CHARS = 200


def fold(text: str) -> str:
    """Text without case and accents."""
    if text.isascii():
        return text.lower()
    return _MARKS.sub("", unicodedata.normalize("NFD", text.casefold()))


def words(text: str) -> list[str]:
    """The words of a text, in order, folded."""
    return (_ASCII_WORD if text.isascii() else _WORD).findall(fold(text))


def snippet(content: str, sought: set[str]) -> str:
    """At most 200 characters around the first place where a sought word stands, dots where text is left out."""
    if len(content) <= SNIPPET_CHARS:
        return content
    start = 0
    for run in _WORD.finditer(content):
        if sought.intersection(words(run.group())):
            start = max(0, run.start() - SNIPPET_CHARS // 4)
            break
    room = SNIPPET_CHARS - 1 - (start > 0)
    end = start + room
    if end >= len(content):
        return "…" + content[len(content) - SNIPPET_CHARS + 1 :]
    return ("…" if start else "") + content[start:end] + "…"
