"""Answers: how a result or an error of a tool becomes what an MCP client gets.

Some hosts show the model only the structured result, others only the text, so both carry the same facts.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from mcp import MCPError
from mcp.types import INTERNAL_ERROR, CallToolResult, TextContent

from .._json import encode
from ..calls import KEPT, NOTED
from ..errors import SessionsError, StorageError
from ..records import plain
from ..tools import Tool
from ..tools.fitting import bounded

log = logging.getLogger(__name__)
ROOM = 40_000
"""Characters of JSON in one answer, at most: about 10,000 tokens, from which on hosts warn or cut."""
DOES_NOT_WORK = "The store does not work, and nothing of this call was stored. Retry later; the server's log says why"


def answer(tool: Tool, arguments: Mapping[str, Any], result: Mapping[str, Any]) -> CallToolResult:
    """The result of a tool: a write as one line, a read as compact JSON, and both structured."""
    structured = bounded(result, ROOM)
    text = encode(structured) if tool.line is None else " ".join(tool.line(structured, arguments).splitlines())
    return CallToolResult(content=[TextContent(type="text", text=text[:ROOM])], structured_content=structured)


def refusal(error: Exception) -> CallToolResult:
    """An error as the client gets it: what a model can mend as text, the rest without its inside."""
    notes: list[str] = getattr(error, "__notes__", [])
    record = next((note for note in notes if note.startswith(NOTED)), None)
    if isinstance(error, SessionsError):
        text = f"{error} {KEPT} ({record})" if KEPT in notes else str(error)
    else:
        text = f"Internal error ({record})" if record else "Internal error"
        log.error("%s", text, exc_info=error)
    return CallToolResult(content=[TextContent(type="text", text=plain(text, ROOM))], is_error=True)


def broken(error: StorageError, *, trusted: bool) -> MCPError:
    """A store that does not work, as an error of the protocol, for no model can mend that; logged whole.

    Its text names paths and processes of this machine, so only a `trusted` client is told it: over stdio that is the
    user, whom it helps; over HTTP nobody is.
    """
    log.error("%s", error)
    return MCPError(INTERNAL_ERROR, str(error) if trusted else f"{DOES_NOT_WORK} ({type(error).__name__}).")
