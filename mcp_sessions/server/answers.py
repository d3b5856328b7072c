"""Answers: how a result or an error of a tool becomes what an MCP client gets.

Some hosts show the model only the structured result, others only the text, so both carry the same facts.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, cast

from mcp import MCPError
from mcp.types import INTERNAL_ERROR, CallToolResult, TextContent

from .._json import encode
from ..calls import NOTED
from ..errors import SessionsError, StorageError
from ..tools import Tool
from ..tools.fitting import size

log = logging.getLogger(__name__)
ROOM = 40_000
"""Characters of JSON in one answer, at most: about 10,000 tokens, from which on hosts warn or cut."""


def answer(tool: Tool, arguments: Mapping[str, Any], result: Any) -> CallToolResult:
    """The result of a tool: a write as one line, a read as compact JSON, and both structured."""
    structured = bounded(result, ROOM)
    text = encode(structured) if tool.line is None else tool.line(structured, arguments)
    return CallToolResult(content=[TextContent(type="text", text=text[:ROOM])], structured_content=structured)


def refusal(error: Exception) -> CallToolResult:
    """An error as the client gets it: what a model can mend as text, the rest without its inside.

    Raises MCPError for a store that does not work: no model can mend that.
    """
    if isinstance(error, StorageError):
        log.error("%s", error)
        raise MCPError(INTERNAL_ERROR, str(error)) from error
    if isinstance(error, SessionsError):
        text = str(error)
    else:
        notes = [note for note in getattr(error, "__notes__", []) if note.startswith(NOTED)]
        text = f"Internal error ({notes[0]})" if notes else "Internal error"
        log.error("%s", text, exc_info=error)
    return CallToolResult(content=[TextContent(type="text", text=text[:ROOM])], is_error=True)


def bounded(result: Any, room: int) -> Any:
    """A result within the room: where its tool could not keep to it, its long texts and objects are cut."""
    longest = room // 4
    while size(result) > room and longest >= 8:
        result = _cut(result, longest)
        longest //= 2
    return result


def _cut(value: Any, longest: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= longest else f"{value[:longest]}… ({len(value):,} characters)"
    if isinstance(value, dict):
        return {name: _cut_member(member, longest) for name, member in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_cut(item, longest) for item in cast("list[Any]", value)]
    return value


def _cut_member(value: Any, longest: int) -> Any:
    if isinstance(value, dict) and size(value) > longest:
        text = encode(value)
        inner = cast("dict[str, Any]", value)
        # An object of our own is cut inside; one of the user's is shown by its beginning.
        return _cut(inner, longest) if "session_id" in inner else {"preview": text[:longest], "chars": len(text)}
    return _cut(value, longest)
