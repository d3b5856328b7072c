"""WorkflowEngine: begins runs, goes on with them, and answers for them.

A run is a session. Whoever goes on with one claims it in that session; another process that is asked for the same run
waits, and goes on with it once the first one has died, let go, or was silent for long.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.to_thread
from pydantic import Field

from .._json import time_text
from ..agents.executors.base import Executor
from ..agents.tools import Reach
from ..drafts import checked_id
from ..errors import (
    ConflictError,
    InvalidArgumentError,
    SessionEndedError,
    SessionExistsError,
    WorkflowDefinitionError,
    WorkflowError,
    WorkflowMismatchError,
)
from ..manager import WAITS_FOR, SessionManager
from ..models import Frozen, Query, SessionStatus, Value, Want
from ..storage import MemorySessionStorage
from ..tools import SESSION_TOOLS, Toolbox
from .claims import Claims, Turn
from .definition import WorkflowDefinition, named
from .kept import KEYS, KeptRun, kept_run, pinned, steps_anew
from .means import Means
from .run import Event, Run
from .secrets import Secrets
from .state import (
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
    RunRecord,
    StepResult,
    StepStatus,
    Time,
    WorkflowStatus,
    id_of,
    status_of,
)

TAG = "workflow"

Workflow = WorkflowDefinition | str | os.PathLike[str] | Mapping[str, Any]


class WorkflowExecutionResult(Frozen):
    """How far a run is. `step_results` are by path: an id, or `loop[2].id` within a loop."""

    session_id: str
    workflow_id: str
    execution_id: str
    status: WorkflowStatus
    outputs: dict[str, Any] = Field(default={})
    step_results: dict[str, StepResult] = Field(default={})
    error: str | None = None
    waiting_for: dict[str, str] = Field(default={})
    """path of a step -> what a person is asked."""
    sha256: str = ""
    """Of the text that the run keeps."""
    at_work: bool = False
    """Whether a living process goes on with it."""
    started_at: datetime
    completed_at: datetime | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return self.model_dump(mode="json")


class WorkflowEngine:
    """Runs workflows in the sessions of a manager; without one, in memory.

    `toolbox` holds the tools that steps may call, `executors` are asked beside the known ones, by their names here;
    `reach` bounds executors and directories. `secrets` are those that workflows may name. `directory` is where a
    workflow finds others by name.
    """

    def __init__(
        self,
        session_manager: SessionManager | None = None,
        *,
        toolbox: Toolbox = SESSION_TOOLS,
        executors: Mapping[str, Executor] | None = None,
        reach: Reach | None = None,
        secrets: Mapping[str, str] | Secrets | None = None,
        directory: str | os.PathLike[str] | None = None,
        may_start_servers: bool = True,
    ) -> None:
        self._own = session_manager is None
        self.session_manager = session_manager or SessionManager(MemorySessionStorage())
        self._claims = Claims(self.session_manager)
        self._means = Means(
            toolbox=toolbox,
            executors=dict(executors or {}),
            reach=reach,
            secrets=secrets if isinstance(secrets, Secrets) else Secrets(secrets),
            directory=None if directory is None else Path(directory),
            may_start_servers=may_start_servers,
        )

    # what callers do

    async def execute(
        self,
        workflow: Workflow,
        inputs: Mapping[str, Any] | None = None,
        session_id: str | None = None,
        *,
        as_user: str | None = None,
        notify: Callable[[Event], object] | None = None,
    ) -> WorkflowExecutionResult:
        """Run a workflow, or go on with its run in that session, as far as it goes.

        A session that is not there is made; one without a run gets one. A run that is over gives what it gave; where
        its session was opened again, what did not go well is begun anew.
        Raises WorkflowDefinitionError, InvalidArgumentError, WorkflowMismatchError where the session holds another run,
        and what a commit raises.
        """
        definition = as_definition(workflow)
        return await self._execute(definition, inputs, session_id, as_user=as_user, notify=notify)

    async def resume(
        self,
        session_id: str,
        from_step: str | None = None,
        *,
        as_user: str | None = None,
        notify: Callable[[Event], object] | None = None,
    ) -> WorkflowExecutionResult:
        """Go on with a run, by the text that it keeps.

        One that failed, was cancelled or went well in part begins anew at what did not go well; with `from_step`, at
        that step and all that need it. Raises WorkflowNotFoundError, InvalidArgumentError.
        """
        found = await self._read(session_id, as_user)
        await anyio.to_thread.run_sync(self._means.check, found.definition)
        if from_step is not None and found.definition.get_step(from_step) is None:
            raise InvalidArgumentError(
                f"There is no step '{from_step}': there are {', '.join(s.id for s in found.definition.spec.walk())}.",
                argument="from_step",
            )
        if from_step is None and found.status in (
            WorkflowStatus.COMPLETED,
            WorkflowStatus.WAITING,
            WorkflowStatus.RUNNING,
        ):
            return await self._advance(session_id, found.definition, as_user=as_user, notify=notify)
        async with self._claims.turn(session_id, as_user, even_over=True) as turn:
            assert turn is not None
            found = await self._read(session_id, as_user)
            await anyio.to_thread.run_sync(self._begin_anew, found, from_step, turn, as_user)
        return await self._advance(session_id, found.definition, as_user=as_user, notify=notify)

    async def respond(
        self,
        session_id: str,
        step: str,
        approved: bool,
        comment: str | None = None,
        *,
        by: str | None = None,
        as_user: str | None = None,
        notify: Callable[[Event], object] | None = None,
    ) -> WorkflowExecutionResult:
        """Answer a step that waits, and go on with the run, unless this engine lacks a tool or an executor of it: then
        the answer stands, and the run waits for a program that has them. The first answer holds.

        Raises InvalidArgumentError for a step that does not wait, ConflictError where it was answered otherwise.
        """
        found = await self._read(session_id, as_user)
        within = await self._asked_within(found, step, as_user)
        if within is not None:
            await self.respond(*within, approved, comment, by=by, as_user=as_user, notify=notify)
            return self._result(await self._read(session_id, as_user))
        done = found.steps.get(step)
        answered = next(
            (answer for name, answer in found.control.answers.items() if name.partition("@")[0] == step), None
        )
        if found.status.over or done is None or done.state.status is not StepStatus.WAITING:
            if answered is not None and answered["approved"] == approved:
                return self._result(await self._read(session_id, as_user))
            raise InvalidArgumentError(_not_waiting(found, step), argument="step")
        if done.state.until is not None and self.session_manager.clock() >= done.state.until:
            raise InvalidArgumentError(
                f"Step '{step}' waited until {done.state.until:%Y-%m-%d %H:%M:%S} UTC: it is answered by that. "
                f"Go on with it: mcp-sessions workflow resume {session_id}, or workflow_run in that session.",
                argument="step",
            )
        at = time_text(self.session_manager.clock())
        answer = {"approved": approved, "comment": comment or "", "by": by or "", "at": at}
        await anyio.to_thread.run_sync(self._control, session_id, done.state.question(step), answer, None, as_user)
        try:
            await anyio.to_thread.run_sync(self._means.check, found.definition)
        except WorkflowDefinitionError:  # the answer stands; a program that has its tools goes on with the run
            return self._result(await self._read(session_id, as_user, found.definition))
        result = await self._advance(session_id, found.definition, as_user=as_user, notify=notify)
        if result.status.over:
            await self._go_on_around(session_id, as_user)
        return result

    async def _asked_within(self, found: KeptRun, path: str, as_user: str | None) -> tuple[str, str] | None:
        """Session and step of the question that a step waits for which runs another workflow; None where it does not.

        Raises InvalidArgumentError where there are several.
        """
        if path not in found.asked() or found.definition.steps[id_of(path)].workflow is None:
            return None
        child = found.record.child_id(found.session_id, path, id_of(path))
        try:
            asked = sorted((await self._read(child, as_user)).asked())
        except LookupError:
            return None
        if len(asked) > 1:
            raise InvalidArgumentError(
                f"Step '{path}' waits for {len(asked)} answers in session {child}: {', '.join(asked)}. "
                "Answer each of them there.",
                argument="step",
            )
        return (child, asked[0]) if asked else None

    async def cancel(
        self, session_id: str, reason: str | None = None, *, as_user: str | None = None
    ) -> WorkflowExecutionResult:
        """End a run; what is at work is cancelled. One that is over stays as it is."""
        found = await self._read(session_id, as_user)
        if found.status.over:
            return self._result(found)
        await anyio.to_thread.run_sync(self._control, session_id, None, None, reason or "It was cancelled.", as_user)
        return await self._advance(session_id, found.definition, as_user=as_user)

    def status(self, session_id: str, *, as_user: str | None = None) -> WorkflowExecutionResult:
        """How far a run is; blocking, as the store is. Raises WorkflowNotFoundError where the session has none."""
        return self._result(self._kept(session_id, as_user))

    async def definition(self, session_id: str, *, as_user: str | None = None) -> WorkflowDefinition:
        """The workflow that a run keeps. Raises SessionNotFoundError, WorkflowNotFoundError."""
        return (await self._read(session_id, as_user)).definition

    def list_runs(
        self, workflow: str | None = None, limit: int = 100, *, as_user: str | None = None
    ) -> list[WorkflowExecutionResult]:
        """The runs last changed, newest first, without their steps; of one workflow, by its name."""
        tags = (TAG,) if workflow is None else (TAG, workflow)
        query = Query(tags=tags, match="all", limit=limit, as_user=as_user)
        found: list[WorkflowExecutionResult] = []
        for head in self.session_manager.query(query).items:
            view = self.session_manager.view(head.session_id, Want(keys=KEYS, as_user=as_user))
            with suppress(WorkflowError):  # what somebody has written over is none of them
                found.append(self._result(KeptRun(view, {}, self._claims.is_taken(view))))
        return found

    def close(self) -> None:
        """Let go of the store, where the engine opened it itself."""
        if self._own:
            self.session_manager.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def _go_on_around(self, session_id: str, as_user: str | None) -> None:
        """Go on with the run that waited for this one, if there is one."""
        head = await anyio.to_thread.run_sync(partial(self.session_manager.metadata, session_id, as_user=as_user))
        if head.parent_id is None:
            return
        try:
            around = await self._read(head.parent_id, as_user)
        except LookupError:
            return
        if around.status is WorkflowStatus.WAITING:
            result = await self._advance(head.parent_id, around.definition, as_user=as_user)
            if result.status.over:
                await self._go_on_around(head.parent_id, as_user)

    # beginning

    async def _execute(
        self,
        definition: WorkflowDefinition,
        inputs: Mapping[str, Any] | None,
        session_id: str | None,
        *,
        parent_id: str | None = None,
        depth: int = 0,
        as_user: str | None = None,
        notify: Callable[[Event], object] | None = None,
    ) -> WorkflowExecutionResult:
        await anyio.to_thread.run_sync(self._means.check, definition)
        if session_id is None:
            session_id = self.session_manager.make_id("ses")
        checked_id(session_id, "session_id", self.session_manager.limits.id_chars)
        begin = self._begin
        was_there = await anyio.to_thread.run_sync(begin, definition, inputs, session_id, parent_id, depth, as_user)
        if was_there and (found := await self._read(session_id, as_user)).status.went_wrong and found.is_open:
            return await self.resume(session_id, as_user=as_user, notify=notify)
        return await self._advance(session_id, definition, as_user=as_user, notify=notify)

    def _begin(
        self,
        definition: WorkflowDefinition,
        inputs: Mapping[str, Any] | None,
        session_id: str,
        parent_id: str | None,
        depth: int,
        as_user: str | None,
    ) -> bool:
        """Make the session of a run, or put the run into it; whether it was there already, which is to be the same."""
        manager = self.session_manager
        record = RunRecord(
            name=definition.name,
            version=definition.spec.version,
            sha256=definition.sha256,
            text=definition.text,
            base=None if definition.base is None else str(definition.base),
            execution_id=manager.make_id("run"),
            started_at=manager.clock(),
            depth=depth,
        )
        try:
            data = manager.view(session_id, Want(keys=KEYS, as_user=as_user)).data
        except LookupError:
            keys = _first_keys(definition, inputs or {}, record)
            try:
                manager.create_session(
                    session_id,
                    f"Workflow: {definition.name}",
                    as_user,
                    [TAG, definition.name],
                    data=keys,
                    parent_id=parent_id,
                )
            except SessionExistsError:
                data = manager.view(session_id, Want(keys=KEYS, as_user=as_user)).data
            else:
                return False
        if RUN in data:
            _check_same(session_id, definition, inputs, data)
            return True
        draft = manager.draft()
        for key, value in _first_keys(definition, inputs or {}, record).items():
            draft.set_value(key, value, 0 if key == RUN else None)
        draft.alter(add_tags=[TAG, definition.name])
        if manager.metadata(session_id, as_user=as_user).purpose is None:
            draft.alter(purpose=f"Workflow: {definition.name}")
        try:
            manager.storage.commit(session_id, draft.change(manager.clock(), as_user=as_user))
        except ConflictError:  # another one began at the same moment
            data = manager.view(session_id, Want(keys=KEYS, as_user=as_user)).data
            _check_same(session_id, definition, inputs, data)
            return True
        return False

    def _begin_anew(self, found: KeptRun, from_step: str | None, turn: Turn, as_user: str | None) -> None:
        """Take back what some steps gave, so that they are run again, and open the session again."""
        anew = steps_anew(found, from_step)
        paths = [path for path in found.steps if path in anew]
        ids = {id_of(path) for path in anew}
        generations, restarts = {**found.record.generations}, {**found.record.restarts}
        for step_id in ids:
            generations[step_id] = generations.get(step_id, 0) + 1
            if from_step is not None:
                restarts[step_id] = restarts.get(step_id, 0) + 1
        again: dict[str, Any] = {"generations": generations, "restarts": restarts, "completed_at": None, "error": None}
        record = found.record.model_copy(update=again)
        answers = {
            name: answer for name, answer in found.control.answers.items() if name.partition("@")[0] not in paths
        }
        manager = self.session_manager
        draft = manager.draft()
        draft.set_value(RUN, record.model_dump(mode="json", exclude_defaults=True))
        draft.set_value(STATUS, WorkflowStatus.RUNNING.value)
        draft.set_value(CONTROL, Control(answers=answers).model_dump(mode="json", exclude_none=True))
        draft.set_value(CLAIM, None, turn.fence)
        draft.unset([*(STATE + path for path in paths), *(RESULT + path for path in paths), OUTPUT, WAITS_FOR])
        if found.definition.spec.timeout is not None:
            draft.set_value(
                TIME, Time(left_s=found.definition.spec.timeout, since=manager.clock()).model_dump(mode="json")
            )
        draft.alter(status=SessionStatus.ACTIVE)
        manager.storage.commit(found.session_id, draft.change(manager.clock(), as_user=as_user))
        turn.given_up = True

    def _control(
        self,
        session_id: str,
        question: str | None,
        answer: dict[str, Any] | None,
        cancel: str | None,
        as_user: str | None,
    ) -> None:
        """Put on record what somebody says to a run."""
        manager = self.session_manager
        while True:
            data = manager.view(session_id, Want(keys=(CONTROL,), as_user=as_user)).data
            known = Control.model_validate(data[CONTROL].value) if CONTROL in data else Control()
            if question is not None and answer is not None and question in known.answers:
                if known.answers[question]["approved"] == answer["approved"]:
                    return
                raise ConflictError(
                    f"Step '{question.partition('@')[0]}' was answered otherwise a moment ago. See workflow status.",
                    session_id=session_id,
                )
            answers = (
                {**known.answers, question: answer} if question is not None and answer is not None else known.answers
            )
            control = Control(cancel=cancel or known.cancel, answers=answers)
            version = data[CONTROL].version if CONTROL in data else 0
            try:
                manager.set_value(
                    session_id, CONTROL, control.model_dump(mode="json", exclude_none=True), version, as_user=as_user
                )
            except ConflictError:
                continue
            return

    # going on

    async def _advance(
        self,
        session_id: str,
        definition: WorkflowDefinition,
        *,
        as_user: str | None = None,
        notify: Callable[[Event], object] | None = None,
    ) -> WorkflowExecutionResult:
        while True:
            async with self._claims.turn(session_id, as_user) as turn:
                if turn is None:
                    break
                found = await self._read(session_id, as_user)
                run = Run(
                    self.session_manager,
                    definition,
                    found.record,
                    session_id,
                    turn.fence,
                    inputs=found.inputs,
                    done=found.steps,
                    control=found.control,
                    control_version=found.control_version,
                    time=found.time,
                    means=self._means.of(definition, self._child, self.cancel),
                    as_user=as_user,
                    notify=notify,
                )
                with suppress(SessionEndedError):  # whoever ended it has cancelled the run
                    status, _ = await run.advance()
                    if status is not WorkflowStatus.RUNNING:
                        turn.given_up = True
                        break
        return self._result(await self._read(session_id, as_user, definition))

    async def _child(
        self,
        name: str,
        base: Path | None,
        inputs: Mapping[str, Any],
        *,
        session_id: str,
        parent_id: str,
        depth: int,
        as_user: str | None,
        again: bool,
    ) -> WorkflowExecutionResult:
        """Run another workflow for a step; one that failed there is tried `again`."""
        definition, has_failed = await anyio.to_thread.run_sync(self._found, session_id, name, base, as_user)
        if has_failed and again:
            return await self.resume(session_id, as_user=as_user)
        return await self._execute(definition, inputs, session_id, parent_id=parent_id, depth=depth, as_user=as_user)

    def _found(
        self, session_id: str, name: str, base: Path | None, as_user: str | None
    ) -> tuple[WorkflowDefinition, bool]:
        """The text that a child keeps where it was begun, else that of its file now; and whether it failed there."""
        try:
            view = self.session_manager.view(session_id, Want(keys=(RUN, STATUS), as_user=as_user))
        except LookupError:
            return named(name, self._means.directory, base), False
        if RUN not in view.data:
            return named(name, self._means.directory, base), False
        return pinned(RunRecord.model_validate(view.data[RUN].value)), status_of(view).went_wrong

    # reading

    async def _read(
        self, session_id: str, as_user: str | None, definition: WorkflowDefinition | None = None
    ) -> KeptRun:
        """The run; where its definition is known, that is not read again."""
        found = await anyio.to_thread.run_sync(self._kept, session_id, as_user)
        if definition is not None and definition.sha256 == found.record.sha256:
            found.definition = definition
        return found

    def _kept(self, session_id: str, as_user: str | None) -> KeptRun:
        return kept_run(self.session_manager, self._claims, session_id, as_user)

    def _result(self, found: KeptRun) -> WorkflowExecutionResult:
        record = found.record
        return WorkflowExecutionResult(
            session_id=found.session_id,
            workflow_id=record.name,
            execution_id=record.execution_id,
            status=found.status,
            outputs=found.outputs,
            step_results={path: StepResult.of(path, done) for path, done in found.in_order()},
            error=record.error,
            waiting_for=found.asked(),
            sha256=record.sha256,
            at_work=found.alive,
            started_at=record.started_at,
            completed_at=record.completed_at,
        )


def as_definition(workflow: Workflow) -> WorkflowDefinition:
    """A definition; from a path, or from what YAML would give."""
    if isinstance(workflow, WorkflowDefinition):
        return workflow
    if isinstance(workflow, Mapping):
        return WorkflowDefinition.from_dict(workflow)
    return WorkflowDefinition.from_file(workflow)


def _first_keys(definition: WorkflowDefinition, inputs: Mapping[str, Any], record: RunRecord) -> dict[str, Any]:
    return {
        INPUT: definition.inputs(inputs),
        STATUS: WorkflowStatus.RUNNING.value,
        RUN: record.model_dump(mode="json", exclude_defaults=True),
    }


def _check_same(
    session_id: str, definition: WorkflowDefinition, inputs: Mapping[str, Any] | None, data: Mapping[str, Value]
) -> None:
    record = RunRecord.model_validate(data[RUN].value)
    if record.sha256 != definition.sha256:
        raise WorkflowMismatchError(
            f"Session {session_id} holds a run of '{record.name}' ({record.sha256[:12]}), and this is "
            f"'{definition.name}' ({definition.sha256[:12]}): a run keeps the text it began with. Go on with it "
            f"(mcp-sessions workflow resume {session_id}), or run this one in another session."
        )
    if inputs is not None and definition.inputs(inputs) != data[INPUT].value:
        raise WorkflowMismatchError(
            f"Session {session_id} holds a run of '{record.name}' with other inputs. Leave them out to go on with it, "
            "or run it in another session."
        )


def _not_waiting(found: KeptRun, step: str) -> str:
    waiting = list(found.asked())
    known = f"{', '.join(waiting)} {'do' if len(waiting) > 1 else 'does'}" if waiting else "none does"
    return f"Step '{step[:80]}' of session {found.session_id} does not wait for an answer: {known}."
