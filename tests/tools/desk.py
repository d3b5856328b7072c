"""The sixteen tools over a store, as tests call them, and one example of each."""

from __future__ import annotations

from typing import Any

from mcp_sessions import SessionManager
from mcp_sessions.models import Invocation, SessionMetadata
from mcp_sessions.tools import SESSION_TOOLS, invoke
from tests.stores import SetClock

MODEL = "gpt-4o"
EXAMPLES: dict[str, dict[str, Any]] = {
    "session_create": {"session_id": "new", "purpose": "Ship it", "tags": ["x"]},
    "session_get": {"session_id": "a", "messages": 2},
    "session_set": {"session_id": "a", "key": "plan", "value": {"step": 2}},
    "session_add_message": {"session_id": "a", "role": "user", "content": "hello"},
    "session_query": {"text": "billing"},
    "session_messages": {"session_id": "a", "limit": 2},
    "session_search": {"text": "stripe", "session_id": "a"},
    "session_complete": {"session_id": "a", "summary": "Done."},
    "session_update": {"session_id": "a", "purpose": "Move all", "add_tags": ["y"]},
    "session_unset": {"session_id": "a", "keys": ["plan", "none"]},
    "session_fork": {"session_id": "a", "at_seq": 2, "new_session_id": "b"},
    "session_export": {"session_id": "a"},
    "session_delete": {"session_id": "a", "confirm": True},
    "session_record_invocation": {"session_id": "a", "tool_name": "grep", "invocation_id": "i1", "cost": 0.25},
    "session_invocations": {"session_id": "a"},
    "session_stats": {"session_id": "a", "group_by": "tool"},
}
"""A call of each tool that goes well in the session that `prepare` makes."""
READS = ("session_get", "session_query", "session_messages", "session_search", "session_export")
READS += ("session_invocations", "session_stats")
WRITES = tuple(name for name in EXAMPLES if name not in READS)


class Desk:
    """`desk("session_set", session_id="a", key="plan", value=1)`; `desk.call` says who calls, and how."""

    def __init__(self, manager: SessionManager, clock: SetClock) -> None:
        self.manager = manager
        self.clock = clock

    def __call__(self, name: str, /, **arguments: Any) -> Any:
        return invoke(self.manager, name, arguments)

    def call(self, name: str, arguments: dict[str, Any], **how: Any) -> Any:
        return SESSION_TOOLS.invoke(self.manager, name, arguments, **how)

    def example(self, name: str, **how: Any) -> Any:
        return self.call(name, EXAMPLES[name], **how)

    def prepare(self, session_id: str = "a", **more: Any) -> None:
        """A session with messages, keys and the record of a call of work."""
        self("session_create", session_id=session_id, purpose="Move billing", tags=["billing"], **more)
        self("session_add_message", session_id=session_id, role="user", content="Move billing to Stripe")
        self("session_add_message", session_id=session_id, role="assistant", content="Begun", model=MODEL)
        self("session_add_message", session_id=session_id, role="tool", content="ok", tool_name="grep")
        self("session_set", session_id=session_id, key="plan", value={"step": 1})
        self("session_set", session_id=session_id, key="next_step", value="tests")
        self(
            "session_record_invocation",
            session_id=session_id,
            tool_name="git_log",
            duration_ms=12.5,
            model=MODEL,
            input_tokens=1000,
            output_tokens=10,
            invocation_id="work-1",
        )

    def head(self, session_id: str = "a") -> SessionMetadata:
        return self.manager.metadata(session_id)

    def records(self, session_id: str | None = None, **query: Any) -> list[Invocation]:
        """Records, newest first."""
        return self.manager.invocations(session_id, limit=1000, **query).items

    def pages(self, name: str, rows: str, **arguments: Any) -> list[Any]:
        """All rows of a listing, page by page."""
        found: list[Any] = []
        cursor: dict[str, str] = {}
        while True:
            page = self.call(name, {**arguments, **cursor})
            found += page[rows]
            if "next_cursor" not in page:
                return found
            cursor = {"cursor": page["next_cursor"]}
