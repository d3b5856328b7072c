"""The tools that a server has: those of sessions, and what the settings let clients do beside."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..config import Settings
    from ..tools import Toolbox


def toolbox(settings: Settings) -> Toolbox:
    """The tools of all toolsets that are on; agents are imported where theirs is."""
    from ..tools import SESSION_TOOLS, Toolbox

    if "automation" not in settings.toolsets:
        return SESSION_TOOLS
    from ..agents.tools import Reach, agent_tools

    reach = Reach(
        executors=settings.agent_executors,
        roots=settings.agent_roots,
        timeout_s=settings.agent_timeout.total_seconds(),
        env=settings.agent_env,
        prompt_chars=settings.agent_prompt_chars,
        output_bytes=settings.agent_output_bytes,
    )
    return Toolbox([*SESSION_TOOLS, *agent_tools(reach)])
