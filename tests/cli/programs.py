"""What the child processes of these tests do."""

from __future__ import annotations

from mcp_sessions import get_session_manager
from mcp_sessions.cli import main
from tests.processes import hear, say


def call_slowly() -> None:
    """A slow call of an agent, which ends when it is told to."""
    with get_session_manager() as manager, manager.call("explore\x1b[2J", "s", {}, "agent:x", slow=True):
        say("running")
        hear()


def import_sessions(source: str) -> None:
    """`mcp-sessions import sessions`."""
    main(["import", "sessions", source])
