"""Keys that calls of tools do not write: who could, would run programs, approve in somebody's name, or undo a no.

Under inner ones an engine keeps how far it is and what it may do; where a session has a run of a workflow, its inputs,
outputs and results are the run's, which goes on by them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..errors import InvalidArgumentError
from ..models import Want

if TYPE_CHECKING:
    from ..calls import Call

INNER = (".workflow.", ".waits_for")
RUN = ".workflow.run"
"""Where a session has it, a workflow runs there."""
INPUT = "workflow_input"
OUTPUT = "workflow_output"
STATUS = "workflow_status"
RESULT = "step."
"""Begins the key of a step's result."""


def refuse_inner(keys: Iterable[str]) -> None:
    """Raise InvalidArgumentError for a key of an engine."""
    for key in keys:
        if key.startswith(INNER):
            raise InvalidArgumentError(
                f"Key '{key[:80]}' is kept by the workflow engine, and by nobody else. Choose another one.",
                argument="key",
            )


def refuse_kept(call: Call, session_id: str, keys: Iterable[str], *, everything: bool = False) -> None:
    """Raise InvalidArgumentError for a key of an engine, or of the run in the session. Raises SessionNotFoundError."""
    names = list(keys)
    refuse_inner(names)
    of_run = [name for name in names if name in (INPUT, OUTPUT, STATUS) or name.startswith(RESULT)]
    if not of_run and not everything:
        return
    if RUN in call.manager.view(session_id, Want(keys=(RUN,), as_user=call.as_user)).data:
        what = f"Key '{of_run[0][:80]}' is" if of_run else "Keys are"
        raise InvalidArgumentError(
            f"{what} kept by the workflow that session {session_id} runs, and by nobody else. "
            f"{'Choose another one' if of_run else 'Name the keys to remove'}.",
            argument="key",
        )
