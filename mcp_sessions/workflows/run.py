"""Run: one run of a workflow, as this process goes on with it.

Each step is a task that waits for what it needs and then runs: there are no waves. What a step gave, its state and the
record of its call are one commit, which asks that the run is still this process's (state.CLAIM): so a step that is done
is done once, and one that was cut off is begun again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import anyio
import anyio.to_thread

from .._json import time_text
from ..agents.waiting import first_error
from ..errors import (
    ConflictError,
    ExpressionError,
    LimitError,
    SessionEndedError,
    WorkflowTakenOverError,
)
from ..manager import WAITS_FOR
from ..models import Alter, Change, SessionStatus, Want
from ..session import derived_id
from .expressions import Template
from .model import Step, not_of
from .scope import Frame, Scope
from .state import (
    BEAT,
    CLAIM,
    CONTROL,
    OUTPUT,
    PENDING,
    RUN,
    STATE,
    STATUS,
    TIME,
    Control,
    Done,
    RunRecord,
    StepState,
    StepStatus,
    Time,
    WorkflowStatus,
    id_of,
)
from .step import StepRun

if TYPE_CHECKING:
    from ..manager import SessionManager
    from .definition import WorkflowDefinition
    from .means import Means

WATCH_S = 0.25
"""How often a run looks whether it was asked for something."""
MOST_NAMED = 10
"""Failed steps, in the error of a run."""
_NOTHING = object()
BEAT_S = 10.0
"""How often a run that goes on says so."""


@dataclass(frozen=True)
class Event:
    """Something that happened to a step."""

    path: str
    status: StepStatus
    state: StepState
    kind: str


class Gate:
    """An event whose waiters count as busy from the moment it is set."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._event = anyio.Event()
        self._waiters = 0

    def open(self) -> None:
        if not self._event.is_set():
            self._run.busy += self._waiters
            self._event.set()

    async def passed(self) -> None:
        if not self._event.is_set():
            self._waiters += 1
            self._run.rests()
            await self._event.wait()


@dataclass
class Block:
    """A list of steps at work."""

    gates: dict[str, Gate]
    left: int
    stopped: str | None = None
    """The path of the step whose failure ended it."""
    done: dict[str, Done] = field(default_factory=dict[str, Done])


@dataclass
class Waiting:
    """A step that waits for a person."""

    gate: Gate
    state: StepState


class Run:
    """Goes on with a run that this process has claimed, until it is over, waits, or is taken over."""

    def __init__(
        self,
        manager: SessionManager,
        definition: WorkflowDefinition,
        record: RunRecord,
        session_id: str,
        fence: int,
        *,
        inputs: dict[str, Any],
        done: dict[str, Done],
        control: Control,
        control_version: int,
        time: Time | None,
        means: Means,
        as_user: str | None = None,
        notify: Callable[[Event], object] | None = None,
    ) -> None:
        self.manager = manager
        self.definition = definition
        self.record = record
        self.session_id = session_id
        self.as_user = as_user
        self.means = means
        self.inputs = inputs
        self.caller = f"workflow:{definition.name}"
        self.busy = 0
        self.threads = anyio.CapacityLimiter(40)
        self.slots = anyio.CapacityLimiter(definition.spec.max_parallel)
        self.outputs: dict[str, Any] = {}
        self.fence = fence
        self.before = done
        """path -> what is on record of earlier processes."""
        self.done: dict[str, Done] = {}
        self._control = control
        self._control_version = control_version
        self._time = time
        self._waiting: dict[str, Waiting] = {}
        self._notify = notify
        run = {
            "session_id": session_id,
            "execution_id": record.execution_id,
            "name": record.name,
            "started_at": time_text(record.started_at),
        }
        self._expressions = Scope(inputs, self.outputs, run, definition.steps)
        self._root = Frame()
        self._scope = anyio.CancelScope()

    # the whole

    async def advance(self) -> tuple[WorkflowStatus, str | None]:
        """Go on as far as it goes; the status then, and why it failed. What it gave stands in `outputs`. Where it is
        `running`, somebody said something at the last moment, and it is to be gone on with.

        Raises WorkflowTakenOverError, StorageError, SessionEndedError, SessionNotFoundError.
        """
        status, error = WorkflowStatus.RUNNING, None
        try:
            with first_error():
                async with anyio.create_task_group() as group, self.means.opened(group):
                    group.start_soon(self._watch)
                    status, error = await self._whole()
                    group.cancel_scope.cancel()
        except SessionEndedError:
            await self.still_mine()  # whoever took it over may have brought it to its end
            raise
        finally:
            self._expressions.close()
        return await self._ended(status, error)

    async def _whole(self) -> tuple[WorkflowStatus, str | None]:
        self.busy = 1
        block = None
        spec = self.definition.spec
        with anyio.move_on_after(self._left_s()) as limited, self._scope:
            if self._control.cancel is not None:
                self._scope.cancel()
            block = await self.block(spec.steps, self._root)
        if self._control.cancel is not None:
            return WorkflowStatus.CANCELLED, self._control.cancel or "It was cancelled."
        if limited.cancelled_caught:
            return WorkflowStatus.FAILED, f"The run took longer than {spec.timeout:g} s, which is its limit."
        if block is None:
            return WorkflowStatus.WAITING, None
        failed = sorted(path for path, done in self.done.items() if done.failed)
        if block.stopped is not None:
            error = self.done[block.stopped].state.error
            return WorkflowStatus.FAILED, f"Step '{block.stopped}' failed: {error.message if error else ''}"
        if not failed:
            return WorkflowStatus.COMPLETED, None
        completed = any(done.state.status is StepStatus.COMPLETED for done in self.done.values())
        more = f" and {len(failed) - MOST_NAMED:,} more" if len(failed) > MOST_NAMED else ""
        status = WorkflowStatus.PARTIAL if completed else WorkflowStatus.FAILED
        return status, f"Failed: {', '.join(failed[:MOST_NAMED])}{more}."

    def _left_s(self) -> float | None:
        """How long it may go on; None where it has no limit. What it waits for a person does not count."""
        limit = self.definition.spec.timeout
        if limit is None:
            return None
        time = self._time or Time(left_s=limit, since=self.record.started_at)
        return max(0.0, time.left_s - (self.manager.clock() - time.since).total_seconds())

    async def _ended(self, status: WorkflowStatus, error: str | None) -> tuple[WorkflowStatus, str | None]:
        """Commit how the run ended, or that it waits."""
        if status is WorkflowStatus.WAITING:
            waits = {path: waiting.state.message or "" for path, waiting in self._waiting.items()}
            keys: dict[str, Any] = {STATUS: status.value, WAITS_FOR: waits, CLAIM: None}
            if (left_s := self._left_s()) is not None:
                keys[TIME] = Time(left_s=left_s, since=self.manager.clock()).model_dump(mode="json")
            try:
                await self.commit(keys, control=True)
            except ConflictError:
                return WorkflowStatus.RUNNING, None
            return status, None
        outputs, fault = await self._outputs()
        self.outputs |= outputs
        if fault is not None and status is WorkflowStatus.COMPLETED:
            status, error = WorkflowStatus.FAILED, fault
        record = self.record.model_copy(update={"completed_at": self.manager.clock(), "error": error})
        keys = {
            RUN: record.model_dump(mode="json", exclude_defaults=True),
            OUTPUT: self.outputs,
            STATUS: status.value,
            CLAIM: None,
        }
        for path, done in {**self.before, **self.done}.items():
            if not done.state.over:
                over = done.state.model_copy(
                    update={"status": StepStatus.CANCELLED, "completed_at": record.completed_at, "message": None}
                )
                keys[STATE + path] = over.stored()
                self.done[path] = Done(over)
                await self.end_child(path)
        try:
            await self.commit(keys, remove=(WAITS_FOR, BEAT), alter=Alter(status=status.session))
        except LimitError as fault:
            status, error = WorkflowStatus.FAILED, f"The outputs: {fault}"
            record = record.model_copy(update={"error": error})
            keys |= {RUN: record.model_dump(mode="json", exclude_defaults=True), OUTPUT: {}, STATUS: status.value}
            await self.commit(keys, remove=(WAITS_FOR, BEAT), alter=Alter(status=status.session))
        self.record = record
        return status, error

    async def _outputs(self) -> tuple[dict[str, Any], str | None]:
        """The outputs of the run as far as they can be made, and what is wrong with the first that cannot."""
        outputs: dict[str, Any] = {}
        faults: list[str] = []
        for step in self.definition.spec.walk():
            done = self.done.get(step.id)
            if done is None or done.state.status is not StepStatus.COMPLETED:
                continue
            for name, path in step.outputs.items():
                found = _at(done.result, path)
                outputs[f"{step.id}.{name}"] = None if found is _NOTHING else found
                if found is _NOTHING and not self.definition.is_legacy:
                    faults.append(f"Output '{step.id}.{name}': the step gave nothing at '{path}'.")
        for name, output in self.definition.spec.outputs.items():
            if output.value is None:
                found = [value for key, value in outputs.items() if key.partition(".")[2] == name]
                if len(found) != 1:
                    continue
                outputs[name] = found[0]
            else:
                try:
                    outputs[name] = await self.resolve(Template.of(output.value), self._root)
                except ExpressionError as error:
                    faults.append(f"Output '{name}': {error}")
                    continue
            fact = not_of(outputs[name], output.type)
            if fact is not None and not self.definition.is_legacy:
                faults.append(f"Output '{name}' {fact}.")
        return outputs, next(iter(faults), None)

    # what others ask

    async def _watch(self) -> None:
        """Look for answers and for an end that others ask for, and say that this process goes on."""
        storage = self.manager.storage
        stamp: object = None
        beat = anyio.current_time() + BEAT_S
        while True:
            await anyio.sleep(WATCH_S)
            now = await anyio.to_thread.run_sync(storage.stamp)
            if now != stamp:
                stamp = now
                await self._look()
            for path, waiting in list(self._waiting.items()):
                if waiting.state.until is not None and self.manager.clock() >= waiting.state.until:
                    self._waiting[path].gate.open()
            if anyio.current_time() >= beat:
                beat = anyio.current_time() + BEAT_S
                await self.commit({BEAT: time_text(self.manager.clock())})

    async def _look(self) -> None:
        want = Want(keys=(CONTROL, CLAIM), as_user=self.as_user)
        view = await anyio.to_thread.run_sync(self.manager.view, self.session_id, want)
        data = view.data
        if CLAIM not in data or data[CLAIM].version != self.fence:
            raise _taken_over(self.session_id)
        if view.metadata.status is not SessionStatus.ACTIVE:
            raise SessionEndedError(self.session_id, view.metadata.status.value)
        if CONTROL not in data or data[CONTROL].version == self._control_version:
            return
        self._control_version = data[CONTROL].version
        self._control = Control.model_validate(data[CONTROL].value)
        if self._control.cancel is not None:
            self._scope.cancel()
        for path, waiting in self._waiting.items():
            if waiting.state.question(path) in self._control.answers:
                waiting.gate.open()

    def rests(self) -> None:
        """One less is busy. Where nobody is, and somebody waits for a person, the run waits."""
        self.busy -= 1
        if self.busy == 0 and self._waiting:
            self._scope.cancel()

    async def asked(self, path: str, state: StepState) -> dict[str, Any] | None:
        """What a person says to a step that waits; None where the time for that is over."""
        if path in self.done or not self.waited(path):  # else it stands there already
            await self.commit({STATE + path: state.stored()})
        self.put(path, Done(state), "approve")
        question = state.question(path)
        if question not in self._control.answers and not (
            state.until is not None and self.manager.clock() >= state.until
        ):
            self._waiting[path] = Waiting(Gate(self), state)
            await self._waiting[path].gate.passed()
            del self._waiting[path]
        return self._control.answers.get(question)

    def waited(self, path: str) -> bool:
        """Whether a step waited for a person when this process came to the run."""
        return self.before.get(path, PENDING).state.status is StepStatus.WAITING

    def answer(self, path: str) -> dict[str, Any] | None:
        """What a person said to a step of the kind `approve`."""
        return self._control.answers.get(path)

    # lists of steps

    async def block(self, steps: Sequence[Step], frame: Frame) -> Block:
        """Run a list of steps, each as soon as what it needs is done."""
        block = Block({step.id: Gate(self) for step in steps}, len(steps))
        if not steps:
            return block
        self.busy += len(steps) - 1  # this task gives its place to the first of them, and takes that of the last
        async with anyio.create_task_group() as group:
            for step in steps:
                group.start_soon(self._member, step, frame, block)
        return block

    async def _member(self, step: Step, frame: Frame, block: Block) -> None:
        edges, handlers = self.definition.edges, self.definition.handlers
        for needed in sorted(edges[step.id] | handlers.get(step.id, frozenset())):
            await block.gates[needed].passed()
        path = frame.path(step.id)
        done = self.before.get(path)
        if done is not None and done.state.over:
            self.done[path] = done
            self._recall(step, frame)
        elif (why := self._why_not(step, block)) is not None:
            done = await StepRun(self, step, frame).skipped(why[0], blocked=why[1])
        else:
            done = await StepRun(self, step, frame).outcome()
        frame.done[step.id] = block.done[step.id] = done
        if done.failed and self._on_error(step) == "stop":
            block.stopped = block.stopped or path
        block.gates[step.id].open()
        block.left -= 1
        if block.left:
            self.rests()

    def _on_error(self, step: Step) -> str:
        return step.on_error or self.definition.spec.defaults.on_error

    def _why_not(self, step: Step, block: Block) -> tuple[str, bool] | None:
        """Why a step is not run, and whether a failure is the reason; None where it is."""
        causes = self.definition.handlers.get(step.id)
        if causes is not None and not any(block.done[cause].failed for cause in causes):
            return "Nothing failed that it is for.", False
        for needed in self.definition.edges[step.id] - (causes or frozenset()):
            done = block.done[needed]
            failed = done.failed and self._on_error(self.definition.steps[needed]) != "continue"
            if failed or done.state.blocked:
                return f"Step '{needed}' {'failed' if failed else 'was not run'}.", True
        if block.stopped is not None and causes is None:
            return f"The failure of '{block.stopped}' ended it.", True
        return None

    def _recall(self, step: Step, frame: Frame) -> None:
        """Put what stands within a finished step where others see it."""
        if step.kind == "for_each":
            prefix = frame.path(step.id) + "["
            self.done |= {path: done for path, done in self.before.items() if path.startswith(prefix)}
            return
        for block in step.blocks:
            for inner in block:
                path = frame.path(inner.id)
                done = self.before.get(path, Done(StepState(status=StepStatus.SKIPPED)))
                frame.done[inner.id] = self.done[path] = done
                self._recall(inner, frame)

    # what steps ask of it

    def put(self, path: str, done: Done, kind: str) -> None:
        """How far a step is, by now."""
        self.done[path] = done
        if self._notify is not None:
            self._notify(Event(path, done.state.status, done.state, kind))

    def call_id(self, path: str, generation: int, *more: str) -> str:
        """The id of a call of a step: the same for the same step of the same run, in this session."""
        return derived_id("inv", self.record.execution_id, self.session_id, str(generation), path, *more)

    async def end_child(self, path: str) -> None:
        """Cancel what a step has run in a session of its own, where it did."""
        step = self.definition.steps[id_of(path)]
        if step.workflow is not None and self.means.end_child is not None:
            child = self.record.child_id(self.session_id, path, step.id)
            why = f"Step '{path}' of {self.session_id} was ended."
            with suppress(LookupError):
                await self.means.end_child(child, why, as_user=self.as_user)

    # expressions

    async def resolve(self, template: Template, frame: Frame, secrets: Mapping[str, str] | None = None) -> Any:
        """What an author's text gives here and now; with the secrets it is for what is sent. Raises ExpressionError."""
        return await self._expressions.resolve(
            template, frame, self.means.secrets.names() if secrets is None else secrets
        )

    # the store

    async def commit(
        self,
        keys: Mapping[str, Any],
        *,
        remove: tuple[str, ...] = (),
        alter: Alter | None = None,
        control: bool = False,
    ) -> None:
        """Commit keys of the run, which must still be this process's; with `control`, and have been asked nothing new.

        Raises WorkflowTakenOverError, and what a commit raises.
        """
        try:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(partial(self.write, keys, remove, alter, control=control))
        except ConflictError:
            await self.still_mine()
            raise

    def write(
        self,
        keys: Mapping[str, Any],
        remove: tuple[str, ...] = (),
        alter: Alter | None = None,
        *,
        control: bool = False,
    ) -> None:
        """Likewise, blocking; raises ConflictError where the run is another process's."""
        draft = self.manager.draft()
        for key, value in keys.items():
            draft.set_value(key, value)
        versions = {CLAIM: self.fence}
        if control:
            versions[CONTROL] = self._control_version
        change = Change(
            at=self.manager.clock(),
            set=draft.set,
            remove=remove,
            alter=alter,
            active=True,
            expected_versions=versions,
            as_user=self.as_user,
        )
        self.manager.storage.commit(self.session_id, change)

    async def still_mine(self) -> None:
        """Raise WorkflowTakenOverError where the run is another process's by now."""
        want = Want(keys=(CLAIM,), as_user=self.as_user)
        data = (await anyio.to_thread.run_sync(self.manager.view, self.session_id, want)).data
        if CLAIM not in data or data[CLAIM].version != self.fence:
            raise _taken_over(self.session_id) from None


def _taken_over(session_id: str) -> WorkflowTakenOverError:
    return WorkflowTakenOverError(
        f"The run in session {session_id} is another process's by now: nothing more of it is written here. "
        f"See how far it is: mcp-sessions workflow status {session_id}, or the tool workflow_status."
    )


def _at(value: Any, path: str) -> Any:
    """What stands at a dotted path in a result, where `result` is all of it; _NOTHING where nothing does."""
    found, parts = value, path.split(".")
    if parts[0] == "result" and not (isinstance(value, dict) and "result" in value and parts[1:]):
        del parts[0]
    for part in parts:
        if isinstance(found, dict) and part in found:
            found = cast("dict[str, Any]", found)[part]
        elif isinstance(found, list) and part.isdecimal() and int(part) < len(cast("list[Any]", found)):
            found = cast("list[Any]", found)[int(part)]
        else:
            return _NOTHING
    return found
