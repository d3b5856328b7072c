"""Icons, drawn here: small, since a client of the new era gets the server's with every answer."""

from __future__ import annotations

from base64 import b64encode

from mcp.types import Icon

_FRAME = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16" fill="none" stroke="#2a7de1" stroke-width="2">{}</svg>'
)


def _icon(drawing: str) -> Icon:
    svg = _FRAME.format(drawing).encode()
    return Icon(src=f"data:image/svg+xml;base64,{b64encode(svg).decode()}", mime_type="image/svg+xml", sizes=["any"])


SESSIONS = _icon('<path d="M2 2h12v9H7l-3 3v-3H2zM5 5h6M5 8h4"/>')
"""What was said, kept: a balloon with lines."""
RESUME = _icon('<path d="M3 3v10M6 3l7 5-7 5z"/>')
"""A bar and an arrow that goes on from it."""
SUMMARIZE = _icon('<path d="M2 3h12M2 7h12M2 11h6M11 11l2 2 2-4"/>')
"""Lines that end in a tick."""
