"""Steps that run another workflow: its run is a session of its own, under this one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import InvalidArgumentError, StepError
from ...session import derived_id
from ..state import WorkflowStatus

if TYPE_CHECKING:
    from ..run import Work

MOST_DEPTH = 8


async def run(work: Work) -> dict[str, Any]:
    """Run it to its end; its outputs, and the session that it is in."""
    run = work.run
    assert run.means.child is not None
    if run.depth >= MOST_DEPTH:
        raise InvalidArgumentError(f"Workflows run each other {MOST_DEPTH} deep: no deeper.")
    result = await run.means.child(
        work.step.workflow or "",
        run.definition.base,
        work.given["with"],
        session_id=derived_id("ses", work.key),
        parent_id=run.session_id,
        depth=run.depth + 1,
        as_user=run.as_user,
    )
    if result.status is WorkflowStatus.WAITING:
        raise StepError(
            f"The workflow it runs waits for a person in session {result.session_id}: respond there, then resume this.",
            "Waiting",
        )
    if result.status is not WorkflowStatus.COMPLETED:
        raise StepError(f"The workflow it ran is {result.status.value} ({result.session_id}): {result.error or ''}")
    return {"session_id": result.session_id, "outputs": result.outputs}
