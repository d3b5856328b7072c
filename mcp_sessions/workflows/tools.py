"""The tools of workflows: `workflow_run`, `workflow_status`, `workflow_respond`.

What runs is a file of the workflow directory, by its name; a client's own text runs only where that was allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

import anyio
import anyio.to_thread

from ..agents.tools import Reach
from ..agents.waiting import first_error
from ..calls import Call
from ..errors import InvalidArgumentError
from ..manager import SessionManager
from ..models import Text
from ..tools import SESSION_TOOLS, Toolbox
from ..tools import outputs as out
from ..tools.arguments import Arg, JsonObject, Name, SessionId
from ..tools.fitting import FRAME, fitted, size
from .definition import WorkflowDefinition, named
from .engine import WorkflowEngine, WorkflowExecutionResult
from .means import Means
from .run import Event
from .secrets import Secrets
from .state import WorkflowStatus

RESULT = out.result(
    {"outputs": out.OBJECT, "error": out.TEXT, "waiting_for": out.OBJECT, "note": out.TEXT},
    session_id=out.TEXT,
    status=out.TEXT,
)
MOST_STEPS = 200
"""Told by `workflow_status`; the newest of a loop beyond them are left out."""


@dataclass(frozen=True)
class Offer:
    """What clients may run, and what that may reach."""

    directory: Path | None
    """Of the files that they may run by name."""
    reach: Reach | None = None
    secrets: Secrets | None = None
    may_send_text: bool = False
    """Whether they may send a workflow of their own; servers are opened for those of the directory alone."""
    toolbox: Toolbox = SESSION_TOOLS

    def check(
        self, workflow: str, inputs: Mapping[str, Any] | None = None, session_id: str | None = None
    ) -> WorkflowDefinition:
        """What a client names, or sends, if it can be run so. Raises InvalidArgumentError, WorkflowDefinitionError."""
        definition = self.meant(workflow)
        means = Means(self.toolbox, secrets=self.secrets or Secrets(), may_start_servers=not is_text(workflow))
        means.check(definition)
        if session_id is None or inputs is not None:
            definition.inputs(inputs or {})
        return definition

    def meant(self, workflow: str) -> WorkflowDefinition:
        """What a client names, or sends. Raises InvalidArgumentError, WorkflowDefinitionError."""
        if is_text(workflow):
            if not self.may_send_text:
                raise InvalidArgumentError(
                    "This server runs workflows of its directory alone, by name, and no text of yours "
                    "(MCP_SESSIONS_WORKFLOW_TEXT).",
                    argument="workflow",
                )
            return WorkflowDefinition.from_yaml(workflow, name="<your text>")
        if self.directory is None:
            raise InvalidArgumentError(
                "No directory of workflows is configured. Name it in MCP_SESSIONS_WORKFLOW_DIR.", argument="workflow"
            )
        return named(workflow, self.directory, None)

    def engine(self, manager: SessionManager, workflow: str = "") -> WorkflowEngine:
        """What runs it."""
        return WorkflowEngine(
            manager,
            toolbox=self.toolbox,
            reach=self.reach,
            secrets=self.secrets,
            directory=self.directory,
            may_start_servers=not is_text(workflow),
        )


def is_text(workflow: str) -> bool:
    """Whether it is a workflow itself, and no name of one."""
    return "\n" in workflow or workflow.lstrip().startswith("{")


def workflow_tools(offer: Offer, manager: Callable[[], SessionManager] | None = None) -> Toolbox:
    """The tools of workflows. `manager` is where runs are kept; None: with the other sessions."""
    box = Toolbox()

    @box.tool(
        title="Run a workflow",
        toolset="automation",
        kind="session",
        open_world=True,
        opens=offer.check,
        manager=manager,
        output=RESULT,
    )
    async def workflow_run(
        call: Call,
        workflow: Annotated[Text, Arg("its name; or YAML, where the server allows that")],
        inputs: JsonObject | None = None,
        session_id: Annotated[SessionId | None, Arg("goes on with the run there; else a new one")] = None,
    ) -> Any:
        """Run a workflow: steps that call tools and agents. Its run is a session. May take minutes, or wait for a
        person.
        """
        engine = offer.engine(call.manager, workflow)
        definition = await anyio.to_thread.run_sync(offer.meant, workflow)
        if session_id is not None and not is_text(workflow):  # the text that it keeps, if the file is another by now
            with suppress(LookupError):
                kept = await engine.definition(session_id, as_user=call.as_user)
                definition = kept if kept.name == definition.name else definition
        told = _Told(call)
        result = await told.during(
            engine.execute(definition, inputs, call.session_id, as_user=call.as_user, notify=told.heard)
        )
        return _brief(call, result)

    @box.tool(
        title="See how far a workflow is",
        toolset="automation",
        kind="session",
        reads=True,
        manager=manager,
        output=out.result(
            {"waiting_for": out.OBJECT, "outputs": out.OBJECT, "error": out.TEXT, "note": out.TEXT},
            session_id=out.TEXT,
            status=out.TEXT,
            steps=out.listed(out.OBJECT),
        ),
    )
    def workflow_status(call: Call, session_id: SessionId) -> Any:
        """How far the run in a session is: its steps, and what it waits for."""
        result = offer.engine(call.manager).status(session_id, as_user=call.as_user)
        call.count = len(result.step_results)
        steps = [_step(path, one.to_dict()) for path, one in result.step_results.items()]
        told = _brief(call, result)
        told["steps"] = steps[:MOST_STEPS]
        if len(steps) > MOST_STEPS:
            told["note"] = f"{len(steps) - MOST_STEPS:,} more steps are left out."
        if result.status is WorkflowStatus.RUNNING and not result.at_work:
            told["note"] = "No process goes on with it. workflow_run with this session_id does."
        return told

    @box.tool(
        title="Answer a workflow",
        toolset="automation",
        kind="session",
        open_world=True,
        manager=manager,
        output=RESULT,
    )
    async def workflow_respond(
        call: Call,
        session_id: SessionId,
        step: Annotated[Name, Arg("one of waiting_for")],
        approved: bool,
        comment: Text | None = None,
    ) -> Any:
        """Answer a step that waits for a person, with what the person said; the run goes on."""
        told = _Told(call)
        result = await told.during(
            offer.engine(call.manager).respond(
                session_id, step, approved, comment, by=call.caller, as_user=call.as_user, notify=told.heard
            )
        )
        return _brief(call, result)

    return box


class _Told:
    """Tells the caller how many steps are done."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._done = 0
        self._changed = anyio.Event()

    def heard(self, event: Event) -> None:
        """A step changed."""
        if event.state.over:
            self._done += 1
            self._changed.set()

    async def during(self, work: Any) -> WorkflowExecutionResult:
        """What the work gives."""

        async def tell() -> None:
            while True:
                await self._changed.wait()
                self._changed = anyio.Event()
                with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):  # nobody hears it
                    await self._call.tell(self._done, None)

        result = None
        with first_error():
            async with anyio.create_task_group() as group:
                group.start_soon(tell)
                result = await work
                group.cancel_scope.cancel()
        return cast("WorkflowExecutionResult", result)


def _brief(call: Call, result: WorkflowExecutionResult) -> dict[str, Any]:
    told: dict[str, Any] = {"session_id": result.session_id, "status": result.status.value}
    if result.status.over:
        told["outputs"] = result.outputs
    if result.error is not None:
        told["error"] = result.error
    if result.waiting_for:
        told["waiting_for"] = result.waiting_for
    if result.status.went_wrong:
        told["note"] = "session_update with reopen=true, then workflow_run in this session, goes on where it failed."
    if call.room is not None and size(told) > call.room - FRAME and "outputs" in told:
        cut = f"The outputs are cut: all of them are in session:///{result.session_id}/data/workflow_output"
        told["note"] = f"{cut}. {told['note']}" if "note" in told else cut
        room = max(0, (call.room - 4 * FRAME) // max(1, len(result.outputs)))
        told["outputs"] = {
            name: value if size(value) <= room else fitted(str(value), room) for name, value in result.outputs.items()
        }
    return told


def _step(path: str, step: dict[str, Any]) -> dict[str, Any]:
    told = {"step": path, "status": step["status"]}
    for name in ("error", "message", "started_at", "completed_at"):
        if step[name] is not None:
            told[name] = step[name]
    if step["attempts"] > 1:
        told["attempts"] = step["attempts"]
    return told
