"""What somebody may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def suggestion(name: str, known: Iterable[str]) -> str:
    """`Did you mean 'x'?`, or nothing."""
    close = difflib.get_close_matches(name[:60], list(known), 1, 0.6)
    return f"Did you mean '{close[0]}'?" if close else ""
