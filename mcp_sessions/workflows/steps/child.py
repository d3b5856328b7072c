"""Steps that run another workflow: its run is a session of its own, under this one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import InvalidArgumentError, StepError
from ..state import WaitsFor, WorkflowStatus

if TYPE_CHECKING:
    from ..step import Work

MOST_DEPTH = 8


async def run(work: Work) -> dict[str, Any] | WaitsFor:
    """Run it to its end, or go on with it where it failed; its outputs, and the session that it is in."""
    run = work.run
    assert run.means.child is not None
    if run.depth >= MOST_DEPTH:
        raise InvalidArgumentError(f"Workflows run each other {MOST_DEPTH} deep: no deeper.")
    result = await run.means.child(
        work.step.workflow or "",
        run.definition.base,
        work.given["with"],
        session_id=run.record.child_id(run.session_id, work.path, work.step.id),
        parent_id=run.session_id,
        depth=run.depth + 1,
        as_user=run.as_user,
        again=not run.waited(work.path),
    )
    if result.status is WorkflowStatus.WAITING:
        return WaitsFor(f"Its run waits in session {result.session_id}: {'; '.join(result.waiting_for.values())}")
    if result.status is not WorkflowStatus.COMPLETED:
        raise StepError(f"The workflow it ran is {result.status.value} ({result.session_id}): {result.error or ''}")
    return {"session_id": result.session_id, "outputs": result.outputs}
