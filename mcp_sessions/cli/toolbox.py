"""The tools that a server has: those of sessions, and what the settings let clients do beside."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import ExitStack

    from ..agents.tools import Reach
    from ..config import Settings
    from ..tools import Toolbox


def toolbox(settings: Settings, until_the_end: ExitStack) -> Toolbox:
    """The tools of all toolsets that are on; agents and workflows are imported where theirs is. What they open is
    closed with `until_the_end`.
    """
    from ..tools import SESSION_TOOLS, Toolbox

    if "automation" not in settings.toolsets:
        return SESSION_TOOLS
    from ..agents.tools import agent_tools

    tools = Toolbox([*SESSION_TOOLS, *agent_tools(reach(settings))])
    if find_spec("cel") is not None and find_spec("yaml") is not None:  # of the extra `workflows`
        tools.add(_of_workflows(settings, until_the_end))
    return tools


def reach(settings: Settings, *, for_clients: bool = True) -> Reach:
    """What agents may reach that clients ask for; or that the person at the command line does, who may reach all."""
    from ..agents.tools import Reach

    return Reach(
        executors=settings.agent_executors,
        roots=settings.agent_roots if for_clients else (),
        timeout_s=settings.agent_timeout.total_seconds(),
        env=settings.agent_env,
        prompt_chars=settings.agent_prompt_chars,
        output_bytes=settings.agent_output_bytes,
        for_clients=for_clients,
    )


def _of_workflows(settings: Settings, until_the_end: ExitStack) -> Toolbox:
    from ..default import manager_from, workflow_storage
    from ..workflows.secrets import Secrets
    from ..workflows.tools import Offer, workflow_tools

    offer = Offer(
        settings.workflow_dir,
        reach(settings),
        Secrets.of_environment(settings.workflow_secrets),
        settings.workflow_text,
    )
    url = workflow_storage(settings)
    if url is None:
        return workflow_tools(offer)
    return workflow_tools(offer, cache(lambda: until_the_end.enter_context(manager_from(settings, url))))
