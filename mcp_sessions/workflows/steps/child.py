"""Steps that run another workflow: its run is a session of its own, under this one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import StepError
from ..state import WaitsFor, WorkflowStatus

if TYPE_CHECKING:
    from ..step import Work

MOST_DEPTH = 8


class TooDeepError(StepError):
    """Workflows run each other without an end; no retry mends that."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "TooDeep")


async def run(work: Work) -> dict[str, Any] | WaitsFor:
    """Run it to its end, or go on with it where it failed; its outputs, and the session that it is in."""
    run = work.run
    assert run.means.child is not None
    if run.record.depth >= MOST_DEPTH:
        raise TooDeepError(f"Workflows run each other {MOST_DEPTH} deep: no deeper.")
    result = await run.means.child(
        work.step.workflow or "",
        run.definition.base,
        work.given["with"],
        session_id=run.record.child_id(run.session_id, work.path, work.step.id),
        parent_id=run.session_id,
        depth=run.record.depth + 1,
        as_user=run.as_user,
        again=not run.waited(work.path),
    )
    if result.status is WorkflowStatus.WAITING:
        return WaitsFor(f"Its run waits in session {result.session_id}: {'; '.join(result.waiting_for.values())}")
    if result.status is not WorkflowStatus.COMPLETED:
        fact = f"The workflow it ran is {result.status.value} ({result.session_id}): {result.error or ''}"
        errors = [step.error for step in result.step_results.values() if step.error is not None]
        raise TooDeepError(fact) if any(error.type == "TooDeep" for error in errors) else StepError(fact)
    return {"session_id": result.session_id, "outputs": result.outputs}
