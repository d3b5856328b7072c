"""Tools: what MCP clients, agents, workflows and scripts call; `invoke` is the one door."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..manager import SessionManager
from .core import CORE
from .manage import MANAGE
from .records import RECORDS
from .toolbox import Tool, Toolbox

SESSION_TOOLS = Toolbox([*CORE, *MANAGE, *RECORDS])
"""The sixteen, in the order in which they are shown."""


def invoke(
    manager: SessionManager,
    name: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    caller: str = "python",
    invocation_id: str | None = None,
    as_user: str | None = None,
) -> Any:
    """Call one of the sixteen tools: see `Toolbox.invoke`."""
    return SESSION_TOOLS.invoke(manager, name, arguments, caller=caller, invocation_id=invocation_id, as_user=as_user)


__all__ = ["SESSION_TOOLS", "Tool", "Toolbox", "invoke"]
