"""Steps that need nobody: set, sleep, fail, and what became of a question to a person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from ..._json import time_text
from ...errors import StepError

if TYPE_CHECKING:
    from ..step import Work


async def set_value(work: Work) -> Any:
    """The value that was written."""
    return work.given["set"]


async def sleep(work: Work) -> dict[str, Any]:
    """Wait until its time has come, which was set when it began."""
    until = work.run.done[work.path].state.until
    assert until is not None
    await anyio.sleep(max(0.0, (until - work.run.manager.clock()).total_seconds()))
    return {"until": time_text(until)}


async def fail(work: Work) -> Any:
    """Raise what was written."""
    raise StepError(str(work.given["fail"]), "Fail")


async def approved(work: Work) -> dict[str, Any]:
    """What a person said; without an answer in time it is a no, or a failure. A timeout never approves."""
    answer = work.run.answer(work.path)
    assert work.step.approve is not None
    if answer is not None:
        return {**answer, "timed_out": False}
    if work.step.approve.on_timeout == "fail":
        raise StepError("Nobody answered in time.", "Timeout")
    at = time_text(work.run.manager.clock())
    return {"approved": False, "comment": "", "by": "", "at": at, "timed_out": True}
