"""What of a run stands in its session: under which keys, and how it is read.

Under names that people read stand the inputs, the outputs, the status and each step's result; under internal ones
(a leading ".") what the engine needs beside them. A step's state and its result are one commit with its record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, cast

from pydantic import Field

from ..models import Failure, Frozen, SessionStatus, Value, View
from ..session import derived_id
from ..tools import keys

INPUT, OUTPUT, STATUS, RUN = keys.INPUT, keys.OUTPUT, keys.STATUS, keys.RUN
RESULT = keys.RESULT
"""Begins the key of a step's result."""
CLAIM = ".workflow.claim"
"""Who is at work on the run. Each commit of the run asks that this key still has the version it had when the claim was
made: that version is the fencing number.
"""
BEAT = ".workflow.beat"
CONTROL = ".workflow.control"
TIME = ".workflow.time"
"""What is left of the time of a run that has waited, or was begun anew."""
STATE = ".workflow.step."
"""Begins the key of a step's state."""


class StepStatus(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


class WorkflowStatus(StrEnum):
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def session(self) -> SessionStatus:
        """The status of a session whose run has this one."""
        return _SESSION.get(self, SessionStatus.ACTIVE)

    @property
    def over(self) -> bool:
        """Whether nothing more happens by itself."""
        return self in _SESSION

    @property
    def went_wrong(self) -> bool:
        """Whether it is over, and there is something to begin anew."""
        return self.over and self is not WorkflowStatus.COMPLETED


_SESSION = {
    WorkflowStatus.COMPLETED: SessionStatus.COMPLETED,
    WorkflowStatus.PARTIAL: SessionStatus.FAILED,
    WorkflowStatus.FAILED: SessionStatus.FAILED,
    WorkflowStatus.CANCELLED: SessionStatus.ABANDONED,
}


class StepState(Frozen):
    """How far a step is."""

    status: StepStatus
    error: Failure | None = None
    attempts: int = 0
    failures: int = 0
    generation: int = 0
    """How often it was made to begin anew."""
    started_at: datetime | None = None
    completed_at: datetime | None = None
    message: str | None = None
    """What it waits for, or why it was skipped."""
    until: datetime | None = None
    """When it stops to wait, or to sleep."""
    gave: bool = False
    """What stands under the key of its result is its own; else something else wrote that."""
    blocked: bool = False
    """It was skipped because of a failure."""

    @property
    def over(self) -> bool:
        """Whether it will not change by itself."""
        return self.status in (StepStatus.COMPLETED, StepStatus.FAILED, StepStatus.SKIPPED)

    def question(self, path: str) -> str:
        """Under which name it is answered: where it asks whether it may be tried again, each time another."""
        return f"{path}@{self.attempts}" if self.attempts else path

    def stored(self) -> dict[str, Any]:
        """As JSON, without what says nothing."""
        return self.model_dump(mode="json", exclude_defaults=True)


@dataclass(frozen=True)
class Done:
    """A step's state, and what it gave."""

    state: StepState
    result: Any = None

    @property
    def failed(self) -> bool:
        return self.state.status is StepStatus.FAILED

    def keys(self, path: str) -> dict[str, Any]:
        """What of it stands in the session, by key."""
        if self.result is None:
            return {STATE + path: self.state.stored()}
        state = self.state.model_copy(update={"gave": True})
        return {STATE + path: state.stored(), RESULT + path: self.result}

    def seen(self) -> dict[str, Any]:
        """As expressions see it: a loop's counts and items too."""
        error = None if self.state.error is None else self.state.error.model_dump()
        result: Any = self.result
        seen: dict[str, Any] = {"status": self.state.status.value, "result": result, "error": error}
        if isinstance(result, dict) and "iterations" in result:
            loop = cast("dict[str, Any]", result)
            seen |= {name: loop.get(name) for name in ("items", "iterations", "successful", "failed")}
        return seen


class StepResult(Frozen):
    """How one step went."""

    step_id: str
    status: StepStatus
    result: Any = None
    error: Failure | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    attempts: int = 0
    retry_count: int = 0
    message: str | None = None

    @classmethod
    def of(cls, path: str, done: Done) -> StepResult:
        """Out of its state."""
        state = done.state
        return cls(
            step_id=path,
            status=state.status,
            result=done.result,
            error=state.error,
            started_at=state.started_at,
            completed_at=state.completed_at,
            attempts=state.attempts,
            retry_count=max(0, state.attempts - 1),
            message=state.message,
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return self.model_dump(mode="json")


PENDING = Done(StepState(status=StepStatus.PENDING))


class RunRecord(Frozen):
    """What was begun: the text of the workflow, and when."""

    name: str
    version: str
    sha256: str
    text: str
    base: str | None = None
    """The directory from which other files are found that the text names."""
    execution_id: str
    started_at: datetime
    completed_at: datetime | None = None
    error: str | None = None
    depth: int = 0
    """How many workflows have run this one, one the other."""
    generations: dict[str, int] = Field(default={})
    """id of a step -> how often it was made to begin anew."""
    restarts: dict[str, int] = Field(default={})
    """id of a step -> how often it was asked to begin anew although it went well, or from its very beginning."""

    def child_id(self, session_id: str, path: str, step_id: str) -> str:
        """The session of the workflow that a step runs: the same until the step is to begin from its beginning."""
        return derived_id("ses", self.execution_id, session_id, path, str(self.restarts.get(step_id, 0)))


class Time(Frozen):
    """What was left of the time of a run, and when that was."""

    left_s: float
    since: datetime


@dataclass(frozen=True)
class WaitsFor:
    """What a step gives that cannot go on before a person did something elsewhere."""

    message: str


class Control(Frozen):
    """What others asked of a run."""

    cancel: str | None = None
    answers: dict[str, dict[str, Any]] = Field(default={})
    """path of a step -> {approved, comment, by, at}."""


def id_of(path: str) -> str:
    """The id of the step at a path."""
    return path.rpartition(".")[2]


def status_of(view: View) -> WorkflowStatus:
    """The status of the run in a session, which is to hold the key of it. Whoever ends the session cancels its run."""
    status = WorkflowStatus(view.data[STATUS].value)
    is_open = view.metadata.status is SessionStatus.ACTIVE
    return status if status.over or is_open else WorkflowStatus.CANCELLED


def steps_of(states: Mapping[str, Value], results: Mapping[str, Value]) -> dict[str, Done]:
    """Path -> the step there, out of the keys."""
    found: dict[str, Done] = {}
    for key, value in states.items():
        path = key.removeprefix(STATE)
        state, result = StepState.model_validate(value.value), results.get(RESULT + path)
        found[path] = Done(state, result.value if state.gave and result is not None else None)
    return found
