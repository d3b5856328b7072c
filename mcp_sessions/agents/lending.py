"""Tools of a toolbox, lent to an executor: what it calls goes through the one door, and is on record under its call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import anyio

from ..calls import Call
from ..errors import InvalidArgumentError
from ..manager import SessionManager
from ..tools import Tool, Toolbox
from ..tools.awaiting import invoke_async
from .executors.base import AgentTool


def check_names(toolbox: Toolbox, names: Sequence[str]) -> None:
    """Raise InvalidArgumentError for a tool that the toolbox has not."""
    unknown = [name for name in names if name not in toolbox]
    if unknown:
        raise InvalidArgumentError(
            f"tools: there is no tool '{unknown[0]}'; there are {', '.join(tool.name for tool in toolbox)}.",
            argument="tools",
        )


def lent(toolbox: Toolbox, names: Sequence[str], call: Call, manager: SessionManager, caller: str) -> list[AgentTool]:
    """Tools by name, for the time of a call; a session that is not named is the call's."""
    limiter = anyio.CapacityLimiter(8)

    async def use(tool: Tool, arguments: Mapping[str, Any]) -> Any:
        given = tool.lenient(arguments)
        if tool.needs_session:
            given["session_id"] = given.get("session_id") or call.session_id
        return await invoke_async(
            toolbox,
            manager,
            tool.name,
            given,
            limiter=limiter,
            caller=caller,
            as_user=call.as_user,
            parent_id=call.invocation_id,
        )

    return [
        AgentTool(tool.name, tool.description, tool.input_schema(pinned=True), partial(use, tool))
        for tool in (toolbox[name] for name in names)
    ]
