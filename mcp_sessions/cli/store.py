"""The store that the settings name, and the session that a person means by a few letters."""

from __future__ import annotations

import difflib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..drafts import checked_text
from ..errors import SessionNotFoundError
from .exits import Missing, Misused
from .text import one_line, shortened

if TYPE_CHECKING:
    from ..manager import SessionManager
    from ..models import Query, SessionMetadata

LATEST = "-"
LONGEST = 4096
"""Bytes of an argument that names something."""
NAMED = 5
"""How many sessions an error names."""


@contextmanager
def store(*, of_workflows: bool = False) -> Generator[SessionManager | None]:
    """The store of the settings, or the one where runs of workflows are kept; None where nothing was ever kept there,
    and then it is not made. Raises ConfigError, StorageError.
    """
    from ..config import Settings
    from ..default import manager_from, workflow_storage
    from ..storage import location

    settings = Settings()
    url = (workflow_storage(settings) if of_workflows else None) or settings.storage
    place = location(url)
    if place is not None and not place.exists():
        yield None
        return
    with manager_from(settings, url) as manager:
        yield manager


@contextmanager
def store_with(text: str, *, of_workflows: bool = False) -> Generator[tuple[SessionManager, SessionMetadata]]:
    """The store and the head of the session that `text` means: its id, a beginning of it that no other has, or `-`
    for the one last updated. Ends the command where there is no such session, or are several.
    """
    if not text:
        raise Misused("The session ID is empty. `mcp-sessions ls` lists the sessions.")
    checked_text(text, "The session ID", LONGEST)
    with store(of_workflows=of_workflows) as manager:
        if manager is None:
            raise Missing(f"Session {text} not found: there are no sessions yet.")
        yield manager, _meant(manager, text)


def heads(manager: SessionManager, query: Query) -> Iterator[SessionMetadata]:
    """All that match, read page by page as they are used."""
    cursor = None
    while True:
        page = manager.query(query, cursor)
        yield from page.items
        cursor = page.next_cursor
        if cursor is None:
            return


def _meant(manager: SessionManager, text: str) -> SessionMetadata:
    if text == LATEST:
        newest = manager.query(limit=1).items
        if not newest:
            raise Missing("There are no sessions yet, so none is the latest.")
        return newest[0]
    try:
        return manager.metadata(text)
    except SessionNotFoundError:
        pass
    found = manager.query(id_prefix=text, limit=NAMED + 1).items
    if len(found) > 1:
        names = ", ".join(map(_introduced, found[:NAMED])) + (", …" if len(found) > NAMED else "")
        raise Misused(f"Several sessions have an ID that begins with {text}: {names}. Write more of it.")
    if not found:
        raise Missing(f"Session {text} not found: {_hint(manager, text)}")
    return found[0]


def _hint(manager: SessionManager, text: str) -> str:
    near = manager.query(text=text, limit=3).items
    if not near:
        latest = {head.session_id: head for head in manager.query(limit=1000).items}
        near = [latest[session_id] for session_id in difflib.get_close_matches(text, latest)]
    if not near:
        return "`mcp-sessions ls` lists the sessions."
    return f"did you mean {' or '.join(map(_introduced, near))}?"


def _introduced(head: SessionMetadata) -> str:
    if not head.purpose:
        return head.session_id
    return f"{head.session_id} ({shortened(one_line(head.purpose), 40)})"
