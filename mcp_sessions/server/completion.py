"""Completion: what may stand for an argument of a prompt or of a resource's uri, as it is typed.

Of however many sessions only the newest are looked at, but for ids, which the store finds by their beginning. Values
are plain: percent-encoding a key is part of expanding the uri's template (RFC 6570).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mcp import MCPError
from mcp.types import INVALID_PARAMS, CompleteRequestParams, CompleteResult, Completion, PromptReference

from ..errors import InvalidArgumentError, SessionNotFoundError
from ..manager import SessionManager
from ..models import SessionMetadata, SessionStatus, Want
from ..storage.words import fold
from .prompts import ARGUMENTS, unknown
from .resources import TEMPLATES

MOST = 100
"""Values in one answer, at most (MCP 2026-07-28, server/utilities/completion)."""
LONGEST = 1_000
"""Characters that somebody may have typed: longer than any id, tag or key."""
NEWEST = 1_000
"""Sessions that are looked at for words and tags."""
VARIABLES = {one.uri_template: re.findall(r"{(\w+)}", one.uri_template) for one in TEMPLATES}
Values = tuple[list[str], int | None]
"""The values, perhaps more than go into one answer, and how many there are, where that is known."""


def complete(
    manager: SessionManager, params: CompleteRequestParams, *, as_user: str | None = None, pinned: str | None = None
) -> CompleteResult:
    """At most 100 values for an argument, the best first. Raises MCPError: INVALID_PARAMS for a prompt, a template or
    an argument that there is not.
    """
    name, ref, typed = params.argument.name, params.ref, params.argument.value
    kind, named, known = (
        ("prompt", ref.name, ARGUMENTS)
        if isinstance(ref, PromptReference)
        else ("resource template", ref.uri, VARIABLES)
    )
    if named not in known:
        raise MCPError(INVALID_PARAMS, unknown(kind, named, known))
    if name not in known[named]:
        raise MCPError(INVALID_PARAMS, unknown(f"argument of {named}", name, known[named]))
    given = (params.context.arguments if params.context is not None else None) or {}
    if pinned is not None:
        given = {"session_id": pinned, **given}
    try:
        find = _SOURCES.get(name, _nothing) if len(typed) <= LONGEST else _nothing
        values, total = find(manager, typed, given, as_user)
    except (InvalidArgumentError, SessionNotFoundError):
        values, total = [], 0  # what can be no id, tag or key yet is one that nothing completes
    return CompleteResult(
        completion=Completion(values=values[:MOST], total=total, has_more=total is None or total > MOST)
    )


def _sessions(manager: SessionManager, typed: str, given: Mapping[str, str], as_user: str | None) -> Values:
    """Ids that begin so, then those of the newest sessions that have these words in id, purpose or tags."""
    tags = (given["tag"],) if given.get("tag") else ()
    begin = manager.query(id_prefix=typed or None, tags=tags, as_user=as_user, limit=MOST)
    ids = [head.session_id for head in begin.items]
    if begin.next_cursor is not None:
        return ids, None
    if sought := fold(typed).split():
        newest = _newest(manager, tags=tags, as_user=as_user)
        ids += [head.session_id for head in newest if _has(head, sought) and not head.session_id.startswith(typed)]
    return ids, len(ids)


def _has(head: SessionMetadata, sought: list[str]) -> bool:
    folded = fold(" ".join([head.session_id, head.purpose or "", *head.tags]))
    return all(word in folded for word in sought)


def _tags(manager: SessionManager, typed: str, _given: Mapping[str, str], as_user: str | None) -> Values:
    """Tags of the newest active sessions, the last used first."""
    newest = _newest(manager, status=(SessionStatus.ACTIVE,), as_user=as_user)
    return _like(typed, dict.fromkeys(tag for head in newest for tag in head.tags))


def _keys(manager: SessionManager, typed: str, given: Mapping[str, str], as_user: str | None) -> Values:
    """Keys of the session that was named before."""
    if "session_id" not in given:
        return [], 0
    return _like(typed, manager.view(given["session_id"], Want(names=True, as_user=as_user)).names)


def _nothing(_manager: SessionManager, _typed: str, _given: Mapping[str, str], _as_user: str | None) -> Values:
    """For a number, which nobody looks up in a list, and for what is too long to be the beginning of anything."""
    return [], 0


_Source = Callable[[SessionManager, str, Mapping[str, str], str | None], Values]
_SOURCES: dict[str, _Source] = {"session_id": _sessions, "tag": _tags, "key": _keys}


def _newest(manager: SessionManager, **narrowed: Any) -> list[SessionMetadata]:
    return manager.query(limit=NEWEST, **narrowed).items


def _like(typed: str, names: Iterable[str]) -> Values:
    """Names that begin so, then those that have it in them."""
    sought = fold(typed)
    found = [name for name in names if sought in fold(name)]
    found.sort(key=lambda name: not fold(name).startswith(sought))
    return found, len(found)
