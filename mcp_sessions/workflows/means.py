"""Means: what the steps of a run may reach."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyio.abc import TaskGroup

from ..agents.executors import MODEL, PROGRAMS
from ..agents.executors.base import Executor
from ..agents.tools import Reach
from ..errors import WorkflowDefinitionError
from ..tools import SESSION_TOOLS, Toolbox
from .secrets import Secrets

if TYPE_CHECKING:
    from .definition import WorkflowDefinition
    from .servers import Servers

Child = Callable[..., Awaitable[Any]]


def is_known(executor: str) -> bool:
    """Whether an executor is there for all, by its name."""
    return executor in PROGRAMS or executor.startswith(MODEL)


@dataclass
class Means:
    """What the steps of a run may reach: tools, executors, directories, secrets, servers, other workflows."""

    toolbox: Toolbox = SESSION_TOOLS
    executors: Mapping[str, Executor] = field(default_factory=dict[str, Executor])
    """By name, beside those that there are."""
    reach: Reach | None = None
    """What agents are bound to; None: to nothing."""
    secrets: Secrets = field(default_factory=Secrets)
    directory: Path | None = None
    """Where other workflows are found by their name alone; None: they are files beside the one that names them."""
    may_start_servers: bool = True
    child: Child | None = None
    """Runs another workflow."""
    end_child: Child | None = None
    """Cancels what that runs."""
    definition: WorkflowDefinition | None = None
    servers: Servers | None = None

    def of(self, definition: WorkflowDefinition, child: Child, end_child: Child) -> Means:
        """For one run."""
        return replace(self, definition=definition, child=child, end_child=end_child, servers=None)

    def check(self, definition: WorkflowDefinition, *, with_secrets: bool = True) -> None:
        """Raise WorkflowDefinitionError for a definition that cannot be run with these."""
        definition.check_tools(self.toolbox)
        if not self.may_start_servers and (definition.spec.servers or definition.spec.servers_file):
            raise WorkflowDefinitionError(
                [f"{definition.name}: servers are for workflows of the workflow directory alone. Put the file there."]
            )
        unknown = definition.secrets() - self.secrets.names().keys()
        for name in sorted(unknown if with_secrets else ()):
            where = "Name it in MCP_SESSIONS_WORKFLOW_SECRETS, and set it in the environment"
            raise WorkflowDefinitionError(
                [f"{definition.name}: there is no secret '{name}' that it may have. {where}."]
            )
        for step in definition.steps.values():
            name = step.agent.executor if step.agent is not None else None
            if name is not None and name not in self.executors and not is_known(name):
                raise WorkflowDefinitionError(
                    [f"{definition.name}: step '{step.id}' asks the executor '{name}', which is not known here."]
                )

    def agent_settings(self, name: str | None, where: Path | None) -> dict[str, Any]:
        """Who is asked, and where. Raises InvalidArgumentError for whom and what is not to be reached."""
        if name is not None and name in self.executors:
            return {"executor": self.executors[name], "cwd": where}
        if self.reach is None:
            return {"executor": name or "claude", "cwd": where}
        return self.reach.settings(name, None if where is None else str(where))

    @asynccontextmanager
    async def opened(self, group: TaskGroup) -> AsyncGenerator[None]:
        """While the run is at work: its servers are opened when they are needed, and end with it."""
        spec = self.definition.spec if self.definition is not None else None
        if spec is None or not (spec.servers or spec.servers_file):
            yield
            return
        from .servers import Servers  # noqa: PLC0415 - mcp takes a second to import

        assert self.definition is not None
        self.servers = Servers.of(self.definition, self.secrets, group)
        try:
            yield
        finally:
            await self.servers.close()
