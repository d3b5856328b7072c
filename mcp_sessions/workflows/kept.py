"""A run as its session keeps it: read, put in order, and which of its steps are to begin anew."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from ..errors import WorkflowError, WorkflowNotFoundError
from ..manager import WAITS_FOR, SessionManager
from ..models import SessionStatus, View, Want
from .claims import Claims
from .definition import WorkflowDefinition
from .state import (
    BEAT,
    CLAIM,
    CONTROL,
    INPUT,
    OUTPUT,
    RESULT,
    RUN,
    STATE,
    STATUS,
    TIME,
    Control,
    Done,
    RunRecord,
    StepStatus,
    Time,
    WorkflowStatus,
    id_of,
    status_of,
    steps_of,
)

KEYS = (INPUT, OUTPUT, STATUS, RUN, CLAIM, BEAT, CONTROL, TIME, WAITS_FOR)


def kept_run(manager: SessionManager, claims: Claims, session_id: str, as_user: str | None) -> KeptRun:
    """The run in a session, of one moment but for the results. Raises SessionNotFoundError, WorkflowNotFoundError."""
    view = manager.view(session_id, Want(keys=KEYS, as_user=as_user))
    if RUN not in view.data:
        raise WorkflowNotFoundError(session_id)
    states = manager.view(session_id, Want(prefix=STATE, as_user=as_user)).data
    results = manager.view(session_id, Want(prefix=RESULT, as_user=as_user)).data
    return KeptRun(view, steps_of(states, results), claims.is_taken(view))


class KeptRun:
    """A run as its session holds it."""

    def __init__(self, view: View, steps: dict[str, Done], alive: bool) -> None:
        try:
            self._take(view)
        except (KeyError, ValueError) as error:
            what = f"key {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
            raise WorkflowError(
                f"The run in session {view.metadata.session_id} cannot be read ({what}): somebody has written over "
                "what it keeps. Its other keys, messages and calls are there: run the workflow anew in another session."
            ) from error
        self.steps = steps
        self.alive = alive

    def _take(self, view: View) -> None:
        data = view.data
        self.session_id = view.metadata.session_id
        self.is_open = view.metadata.status is SessionStatus.ACTIVE
        self.record = RunRecord.model_validate(data[RUN].value)
        self.status = status_of(view)
        if self.status is not WorkflowStatus(data[STATUS].value):
            ended = f"Its session was ended ({view.metadata.status.value}) before it was over."
            self.record = self.record.model_copy(update={"error": ended, "completed_at": view.metadata.updated_at})
        self.inputs = _object(view, INPUT)
        self.outputs = _object(view, OUTPUT)
        self.control = Control.model_validate(data[CONTROL].value) if CONTROL in data else Control()
        self.control_version = data[CONTROL].version if CONTROL in data else 0
        self.waits_for = cast("dict[str, str]", _object(view, WAITS_FOR))
        self.time = Time.model_validate(data[TIME].value) if TIME in data else None

    @cached_property
    def definition(self) -> WorkflowDefinition:
        """By the text that it keeps."""
        return pinned(self.record)

    def asked(self) -> dict[str, str]:
        """Path -> what a step asks a person, who has not answered yet."""
        if self.status.over:
            return {}
        waiting = {path: done.state for path, done in self.steps.items() if done.state.status is StepStatus.WAITING}
        asked = self.waits_for or {path: state.message or "" for path, state in waiting.items()}
        questions = {path: waiting[path].question(path) if path in waiting else path for path in asked}
        return {path: asked[path] for path, question in questions.items() if question not in self.control.answers}

    def in_order(self) -> list[tuple[str, Done]]:
        """The steps in the order in which they were written, those of loops by their items."""
        if not self.steps:
            return []
        place = {step_id: index for index, step_id in enumerate(self.definition.steps)}
        return sorted(self.steps.items(), key=lambda one: _place(one[0], place))


def _object(view: View, key: str) -> dict[str, Any]:
    value: Any = view.data[key].value if key in view.data else {}
    if not isinstance(value, dict):
        raise ValueError(f"key {key} has no object")
    return cast("dict[str, Any]", value)


def pinned(record: RunRecord) -> WorkflowDefinition:
    """The definition that a run keeps."""
    base = None if record.base is None else Path(record.base)
    return WorkflowDefinition.from_yaml(record.text, name=f"<{record.name}>", base=base)


def _place(path: str, place: Mapping[str, int]) -> list[int]:
    found: list[int] = []
    for part in path.split("."):
        name, _, index = part.partition("[")
        found += [place.get(name, 0), int(index.removesuffix("]") or 0) if index else -1]
    return found


def steps_anew(found: KeptRun, from_step: str | None) -> set[str]:
    """The paths of the steps to run again: what did not go well, or a step wherever it stands; with what needs them,
    and what they stand in. What else a loop has done stays.
    """
    definition = found.definition
    around = {inner.id: step.id for step in definition.spec.walk() for block in step.blocks for inner in block}
    todo = [
        (path, from_step is not None or not definition.steps[id_of(path)].blocks)
        for path, done in found.steps.items()
        if (_goes_again(done) if from_step is None else id_of(path) == from_step)
    ]
    anew: dict[str, bool] = {}
    while todo:
        path, whole = todo.pop()
        if anew.get(path, False) or (path in anew and not whole):
            continue
        anew[path] = whole
        step = definition.steps[id_of(path)]
        prefix = path.removesuffix(step.id)
        needing = {name for name, needed in definition.edges.items() if step.id in needed}
        needing |= {name for name, causes in definition.handlers.items() if step.id in causes}
        todo += [(prefix + name, True) for name in needing]
        outer = around.get(step.id)
        if outer is not None:
            is_loop = definition.steps[outer].kind == "for_each"
            todo.append((prefix[:-1].rpartition("[")[0] if is_loop else prefix + outer, False))
        if whole:
            within = [prefix + inner.id for block in step.blocks for inner in block]
            todo += [(inner, True) for inner in within if inner in found.steps]
            if step.kind == "for_each":
                todo += [(inner, True) for inner in found.steps if inner.startswith(path + "[")]
    return set(anew)


def _goes_again(done: Done) -> bool:
    state = done.state
    return state.status in (StepStatus.FAILED, StepStatus.CANCELLED, StepStatus.WAITING) or state.blocked
