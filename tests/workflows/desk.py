"""What tests of workflows run them with: an engine, and a toolbox of tools that write down their calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_sessions import SessionManager
from mcp_sessions.errors import WorkflowDefinitionError
from mcp_sessions.tools import SESSION_TOOLS, Toolbox
from mcp_sessions.workflows import Event, WorkflowDefinition, WorkflowEngine, WorkflowExecutionResult


class Log:
    """Tools `note`, `slow` and `flaky`, and what was done with them."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.at_once = 0
        self.most_at_once = 0
        self.toolbox = Toolbox(SESSION_TOOLS)
        self._failures: dict[str, int] = {}
        log = self

        @self.toolbox.tool(title="Note")
        def note(call: Any, what: Any = None) -> Any:
            """Write something down, and give it back."""
            log.calls.append(what)
            return what

        @self.toolbox.tool(title="Slow")
        async def slow(call: Any, what: Any = None, seconds: float = 0.05) -> Any:
            """Take a while."""
            log.at_once += 1
            log.most_at_once = max(log.most_at_once, log.at_once)
            try:
                await anyio.sleep(seconds)
            finally:
                log.at_once -= 1
            log.calls.append(what)
            return what

        @self.toolbox.tool(title="Flaky")
        def flaky(call: Any, name: str, failures: int) -> str:
            """Fail so often, then go well."""
            log._failures[name] = log._failures.get(name, 0) + 1
            if log._failures[name] <= failures:
                raise ValueError(f"failure {log._failures[name]} of {name}")
            return f"{name} after {failures}"


class Runs:
    """Runs definitions, and keeps what was heard of them."""

    def __init__(self, manager: SessionManager, log: Log, **how: Any) -> None:
        self.manager = manager
        self.log = log
        self.engine = WorkflowEngine(manager, toolbox=log.toolbox, **how)
        self.heard: list[tuple[str, str]] = []

    async def __call__(
        self, text: str | Mapping[str, Any], inputs: Mapping[str, Any] | None = None, session_id: str | None = None
    ) -> WorkflowExecutionResult:
        definition = WorkflowDefinition.from_yaml(text) if isinstance(text, str) else text
        return await self.engine.execute(definition, inputs, session_id, notify=self.hear)

    def hear(self, event: Event) -> None:
        self.heard.append((event.path, event.status.value))

    def statuses(self, result: WorkflowExecutionResult) -> dict[str, str]:
        return {path: step.status.value for path, step in result.step_results.items()}

    def results(self, result: WorkflowExecutionResult) -> dict[str, Any]:
        return {path: step.result for path, step in result.step_results.items()}


def faults(text: str, base: Path | None = None) -> list[str]:
    """What is wrong with a definition, without the name in front."""
    with pytest.raises(WorkflowDefinitionError) as refused:
        WorkflowDefinition.from_yaml(text, name="f", base=base)
    return [fault.removeprefix("f:") for fault in refused.value.faults]


async def until(condition: Callable[[], bool]) -> None:
    """Wait until it is so."""
    with anyio.fail_after(60):
        while not condition():  # noqa: ASYNC110 - what is waited for knows nothing of us
            await anyio.sleep(0.01)
