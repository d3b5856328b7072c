"""Run: one run of a workflow, as this process goes on with it.

Each step is a task that waits for what it needs and then runs: there are no waves. What a step gave, its state and the
record of its call are one commit, which asks that the run is still this process's (state.CLAIM): so a step that is done
is done once, and one that was cut off is begun again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import anyio
import anyio.to_thread

from ..agents.waiting import first_error
from ..errors import (
    ConflictError,
    ExpressionError,
    InvalidArgumentError,
    LimitError,
    SessionEndedError,
    SessionNotFoundError,
    StepError,
    StorageError,
    WorkflowTakenOverError,
)
from ..manager import WAITS_FOR
from ..models import Alter, Change, Failure, InvocationStatus, Want
from ..records import LONGEST_ERROR, plain
from ..tools.awaiting import awaited
from .expressions import Template
from .model import Retry, Step, seconds
from .scope import Frame, Scope
from .state import (
    BEAT,
    CLAIM,
    CONTROL,
    OUTPUT,
    PENDING,
    RESULT,
    RUN,
    STATE,
    STATUS,
    Control,
    Done,
    RunRecord,
    StepState,
    StepStatus,
    WaitsFor,
    WorkflowStatus,
)

if TYPE_CHECKING:
    from ..calls import Call
    from ..manager import SessionManager
    from .definition import WorkflowDefinition
    from .means import Means

WATCH_S = 0.25
"""How often a run looks whether it was asked for something."""
BEAT_S = 10.0
"""How often a run that goes on says so."""
NO_RETRY = Retry(max_attempts=1)
_ENDS_THE_RUN = (StorageError, WorkflowTakenOverError, SessionEndedError, SessionNotFoundError)
_NO_RETRY_MENDS = (ExpressionError, InvalidArgumentError)
_INTERRUPTED = "The process that ran it ended in the middle, and it is not to be run twice: approve runs it again."


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


@dataclass(frozen=True)
class Work:
    """One attempt of a step, as its kind sees it."""

    run: Run
    step: Step
    frame: Frame
    path: str
    call: Call
    given: Mapping[str, Any]
    """What its template gave; secrets are not in it."""
    state: StepState
    key: str
    """The same for all attempts: what makes what it calls once."""


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
        means: Means,
        depth: int = 0,
        as_user: str | None = None,
        notify: Callable[[Event], object] | None = None,
    ) -> None:
        self.manager = manager
        self.definition = definition
        self.record = record
        self.session_id = session_id
        self.as_user = as_user
        self.means = means
        self.depth = depth
        """How many workflows have run this one, one the other."""
        self.inputs = inputs
        self.caller = f"workflow:{definition.name}"
        self.busy = 0
        self.threads = means.limiter or anyio.CapacityLimiter(40)
        self.slots = anyio.CapacityLimiter(definition.spec.max_parallel)
        self.outputs: dict[str, Any] = {}
        self._fence = fence
        self._before = done
        """path -> what is on record of earlier processes."""
        self.done: dict[str, Done] = {}
        self._control = control
        self._control_version = control_version
        self._waiting: dict[str, Waiting] = {}
        self._notify = notify
        run = {
            "session_id": session_id,
            "execution_id": record.execution_id,
            "name": record.name,
            "started_at": record.started_at.isoformat().replace("+00:00", "Z"),
        }
        self._expressions = Scope(inputs, self.outputs, run, definition.steps)
        self._root = Frame()
        self._scope = anyio.CancelScope()
        self._rests = False
        self._lost: BaseException | None = None

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
            await self._still_mine()  # whoever took it over may have brought it to its end
            raise
        finally:
            self._expressions.close()
        return await self._ended(status, error)

    async def _whole(self) -> tuple[WorkflowStatus, str | None]:
        self.busy = 1
        block = None
        spec = self.definition.spec
        left = None
        if spec.timeout is not None:
            ends = self.record.started_at + timedelta(seconds=spec.timeout)
            left = max(0.0, (ends - self.manager.clock()).total_seconds())
        with anyio.move_on_after(left) as limited, self._scope:
            if self._control.cancel is not None:
                self._scope.cancel()
            block = await self.block(spec.steps, self._root)
        if self._control.cancel is not None:
            return WorkflowStatus.CANCELLED, self._control.cancel or "It was cancelled."
        if limited.cancelled_caught:
            return WorkflowStatus.FAILED, f"The run took longer than {spec.timeout:g} s, which is its limit."
        if block is None:
            return WorkflowStatus.WAITING, None
        failed = [path for path, done in self.done.items() if done.failed]
        if block.stopped is not None:
            error = self.done[block.stopped].state.error
            return WorkflowStatus.FAILED, f"Step '{block.stopped}' failed: {error.message if error else ''}"
        if not failed:
            return WorkflowStatus.COMPLETED, None
        completed = any(done.state.status is StepStatus.COMPLETED for done in self.done.values())
        return (WorkflowStatus.PARTIAL if completed else WorkflowStatus.FAILED), f"Failed: {', '.join(sorted(failed))}."

    async def _ended(self, status: WorkflowStatus, error: str | None) -> tuple[WorkflowStatus, str | None]:
        """Commit how the run ended, or that it waits."""
        if status is WorkflowStatus.WAITING:
            waits = {path: waiting.state.message or "" for path, waiting in self._waiting.items()}
            try:
                await self.commit({STATUS: status.value, WAITS_FOR: waits, CLAIM: None}, control=True)
            except ConflictError:
                return WorkflowStatus.RUNNING, None
            return status, None
        outputs, fault = await self._outputs()
        self.outputs |= outputs
        if fault is not None and status is WorkflowStatus.COMPLETED:
            status, error = WorkflowStatus.FAILED, fault
        record = self.record.model_copy(update={"completed_at": self.manager.clock(), "error": error})
        keys: dict[str, Any] = {
            RUN: record.model_dump(mode="json", exclude_defaults=True),
            OUTPUT: self.outputs,
            STATUS: status.value,
            CLAIM: None,
        }
        for path, done in {**self._before, **self.done}.items():
            if done.state.status in (StepStatus.RUNNING, StepStatus.WAITING):
                over = done.state.model_copy(
                    update={"status": StepStatus.CANCELLED, "completed_at": record.completed_at, "message": None}
                )
                keys[STATE + path] = over.stored()
                self.done[path] = Done(over)
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
        fault = None
        for step in self.definition.spec.walk():
            done = self.done.get(step.id)
            if step.outputs and done is not None and done.state.status is StepStatus.COMPLETED:
                outputs |= {f"{step.id}.{name}": at(done.result, path) for name, path in step.outputs.items()}
        for name, output in self.definition.spec.outputs.items():
            if output.value is None:
                found = [value for key, value in outputs.items() if key.partition(".")[2] == name]
                if len(found) == 1:
                    outputs[name] = found[0]
                continue
            try:
                outputs[name] = await self.resolve(Template.of(output.value), self._root)
            except ExpressionError as error:
                fault = fault or f"Output '{name}': {error}"
        return outputs, fault

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
                await self.commit({BEAT: self.manager.clock().isoformat()})

    async def _look(self) -> None:
        want = Want(keys=(CONTROL, CLAIM), as_user=self.as_user)
        data = (await anyio.to_thread.run_sync(self.manager.view, self.session_id, want)).data
        if CLAIM not in data or data[CLAIM].version != self._fence:
            raise _taken_over(self.session_id)
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
        self.done[path] = Done(state)
        self.tell(path, state, "approve")
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
        return self._before.get(path, PENDING).state.status is StepStatus.WAITING

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
        done = self._before.get(path)
        if done is not None and done.state.over:
            self.done[path] = done
            self._recall(step, frame)
        elif (why := self._why_not(step, block)) is not None:
            done = await self._skipped(step, path, *why)
        else:
            done = await self._run(step, frame, path)
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
            self.done |= {path: done for path, done in self._before.items() if path.startswith(prefix)}
            return
        for block in step.blocks:
            for inner in block:
                path = frame.path(inner.id)
                done = self._before.get(path, Done(StepState(status=StepStatus.SKIPPED)))
                frame.done[inner.id] = self.done[path] = done
                self._recall(inner, frame)

    async def _skipped(self, step: Step, path: str, why: str, blocked: bool) -> Done:
        state = StepState(status=StepStatus.SKIPPED, message=why, blocked=blocked, completed_at=self.manager.clock())
        await self.commit({STATE + path: state.stored()})
        return self._put(step, path, Done(state))

    # one step

    async def _run(self, step: Step, frame: Frame, path: str) -> Done:
        from .steps import COMPOSITES  # noqa: PLC0415 - they run blocks, and so know this module

        began = self.manager.clock()
        try:
            if step.when is not None:
                holds = await self.resolve(step.when, frame)
                if not isinstance(holds, bool):
                    raise ExpressionError(
                        str(step.condition), f"a condition is true or false, not {type(holds).__name__}"
                    )
                if not holds:
                    return await self._skipped(step, path, "Its condition does not hold.", blocked=False)
            composite = COMPOSITES.get(step.kind)
            if step.approve is not None:
                await self._asked_for(step, frame, path, began)
            if composite is None:
                return await self._attempts(step, frame, path, began)
            result, failure = await composite(self, step, frame, path)
        except _NO_RETRY_MENDS as error:
            return await self._failed(step, path, self._state(path, step, began), error)
        return await self._composed(step, path, began, result, failure)

    async def _asked_for(self, step: Step, frame: Frame, path: str, began: datetime) -> None:
        """Wait for what a person says to a step of the kind `approve`; the step itself tells what that was."""
        assert step.approve is not None
        state = self._before.get(path, PENDING).state
        if state.status is not StepStatus.WAITING:
            message = str(await self.resolve(Template.of(step.approve.message), frame))
            until = None if step.approve.timeout is None else began + timedelta(seconds=step.approve.timeout)
            state = self._state(path, step, began).model_copy(
                update={"status": StepStatus.WAITING, "message": message, "until": until}
            )
        await self.asked(path, state)

    async def _composed(self, step: Step, path: str, began: datetime, result: Any, failure: str | None) -> Done:
        state = self._state(path, step, began)
        over = state.model_copy(
            update={
                "status": StepStatus.COMPLETED if failure is None else StepStatus.FAILED,
                "error": None if failure is None else Failure(type="StepError", message=failure),
                "completed_at": self.manager.clock(),
            }
        )
        done = Done(over, result)
        try:
            await self.commit(done.keys(path))
        except LimitError as error:  # what they gave stands in keys of their own
            return await self._failed(step, path, over, error)
        return self._put(step, path, done)

    def _state(self, path: str, step: Step, began: datetime) -> StepState:
        before = self._before.get(path, PENDING).state
        return StepState(
            status=StepStatus.RUNNING,
            attempts=before.attempts,
            failures=before.failures,
            generation=self.record.generations.get(step.id, 0),
            started_at=before.started_at or began,
            until=before.until,
        )

    async def _attempts(self, step: Step, frame: Frame, path: str, began: datetime) -> Done:
        """Run a step until it goes well, or may not be tried again."""
        state = self._state(path, step, began)
        rule = step.retry or self.definition.spec.defaults.retry or NO_RETRY
        before = self._before.get(path, PENDING).state
        if state.attempts and (before.status is StepStatus.RUNNING or before.message == _INTERRUPTED):
            state = await self._cut_off(path, state)
            if state.failures >= rule.max_attempts:
                return await self._failed(step, path, state, state.error or StepError("It failed."))
            if rule.never and not await self._again(path, state):
                return await self._failed(
                    step, path, state, StepError("It was interrupted, and rejected.", "Interrupted")
                )
        while True:
            state = state.model_copy(
                update={"status": StepStatus.RUNNING, "attempts": state.attempts + 1, "message": None}
            )
            try:
                done = await self._attempt(step, frame, path, state)
                if done.state.status is not StepStatus.WAITING:
                    return done
                state = done.state
                await self.asked(path, state)
                continue
            except _ENDS_THE_RUN:
                raise
            except ConflictError as error:
                await self._still_mine()
                failure: Exception = error
            except Exception as error:  # noqa: BLE001 - a step fails in whichever way what it calls fails
                failure = error
            state = state.model_copy(update={"failures": state.failures + 1})
            if isinstance(failure, _NO_RETRY_MENDS) or state.failures >= rule.max_attempts:
                return await self._failed(step, path, state, failure)
            await anyio.sleep(rule.delay_s(state.failures, random.random()))  # noqa: S311 - spreads retries

    async def _attempt(self, step: Step, frame: Frame, path: str, state: StepState) -> Done:
        from .steps import KINDS  # noqa: PLC0415 - see above

        kind = KINDS[step.kind]
        given = cast("dict[str, Any]", await self.resolve(step.template, frame))
        if kind.is_own_call(self, step):
            return await self._called(step, path, state, kind.arguments(self, step, given))
        if step.kind == "sleep" and state.until is None:
            state = state.model_copy(update={"until": self.manager.clock() + timedelta(seconds=_slept(given["sleep"]))})
        key = self.record.call_id(path, state.generation)
        slow = kind.slow(self, step)
        call = self.manager.call(
            kind.label(step),
            self.session_id,
            kind.recorded(step, path, given),
            self.caller,
            self.record.call_id(path, state.generation, str(state.attempts)),
            slow=slow,
            kind="work" if kind.is_work(step) else "session",
            as_user=self.as_user,
        )
        call.draft.expected_versions[CLAIM] = self._fence
        if slow:
            call.opening = {STATE + path: state.stored()}
        self.done[path] = Done(state)
        self.tell(path, state, step.kind)
        done = Done(state)

        async def act() -> Any:
            nonlocal done
            result = await self._limited(
                step, kind.run(Work(self, step, frame, path, call, given, state, key)), kind.holds_slot
            )
            if isinstance(result, WaitsFor):
                waits = {"status": StepStatus.WAITING, "message": result.message, "until": None}
                done = Done(state.model_copy(update=waits))
                return {"waits_for": result.message}
            done = self._completed(state, result)
            for name, value in done.keys(path).items():
                call.draft.set_value(name, value)
            if result is not None:
                call.result_ref = None, f"data:{RESULT}{path}@revision"
            return result

        result = await awaited(call, act)
        if call.replayed:  # it was done, and what it gave was taken back
            done = self._completed(state, result)
            await self.commit(done.keys(path))
        return done if done.state.status is StepStatus.WAITING else self._put(step, path, done)

    async def _called(self, step: Step, path: str, state: StepState, arguments: Mapping[str, Any]) -> Done:
        """One attempt of a step whose call is that of a short tool of ours, by an id that is the same until it fails.

        Where its result is known before its commit, that commit has the step's state and result too.
        """
        call, act = self.means.toolbox.prepared(
            self.manager,
            step.tool or "",
            arguments,
            caller=self.caller,
            invocation_id=self.record.call_id(path, state.generation, "call", str(state.failures)),
            as_user=self.as_user,
            within=self.session_id,
        )
        self.done[path] = Done(state)
        self.tell(path, state, step.kind)

        def make() -> Done:
            with call:
                if not call.replayed:
                    call.result = act()
                    if call.can_stage_for(self.session_id):
                        done = self._completed(state, call.result)
                        for key, value in done.keys(path).items():
                            call.draft.set_value(key, value)
                        call.draft.expected_versions[CLAIM] = self._fence
                        return done
            done = self._completed(state, call.result)
            self._write(done.keys(path))
            return done

        done = await self._limited(step, anyio.to_thread.run_sync(make, limiter=self.threads), holds_slot=True)
        return self._put(step, path, done)

    def _completed(self, state: StepState, result: Any) -> Done:
        return Done(
            state.model_copy(update={"status": StepStatus.COMPLETED, "completed_at": self.manager.clock()}), result
        )

    async def _limited(self, step: Step, work: Any, holds_slot: bool) -> Any:
        limit = step.timeout or self.definition.spec.defaults.timeout
        try:
            with anyio.fail_after(limit):
                if holds_slot:
                    async with self.slots:
                        return await work
                return await work
        except TimeoutError as error:
            if limit is None:
                raise StepError(f"{error or 'It took too long.'}", "Timeout") from error
            raise StepError(f"It took longer than {limit:g} s, which is its limit.", "Timeout") from error

    async def _cut_off(self, path: str, state: StepState) -> StepState:
        """The state of a step that another process was at: whether that failed, or was interrupted."""

        def look() -> InvocationStatus | None:
            page = self.manager.invocations(
                self.session_id,
                invocation_id=self.record.call_id(path, state.generation, str(state.attempts)),
                limit=1,
                as_user=self.as_user,
            )
            if not page.items:
                return None
            self.manager.interrupt(page.items[0])
            return page.items[0].status

        status = await anyio.to_thread.run_sync(look)
        return state.model_copy(update={"failures": state.failures + 1}) if status is InvocationStatus.ERROR else state

    async def _again(self, path: str, state: StepState) -> bool:
        waits = state.model_copy(update={"status": StepStatus.WAITING, "message": _INTERRUPTED, "until": None})
        answer = await self.asked(path, waits)
        return answer is not None and bool(answer.get("approved"))

    async def _failed(self, step: Step, path: str, state: StepState, error: BaseException | Failure) -> Done:
        if not isinstance(error, Failure):
            text = self.means.secrets.scrubbed(str(error)) or type(error).__name__
            kind = error.kind if isinstance(error, StepError) else type(error).__name__
            error = Failure(type=kind, message=plain(text, LONGEST_ERROR))
        over = state.model_copy(
            update={
                "status": StepStatus.FAILED,
                "error": error,
                "failures": max(1, state.failures),
                "completed_at": self.manager.clock(),
                "message": None,
            }
        )
        await self.commit({STATE + path: over.stored()})
        return self._put(step, path, Done(over))

    def _put(self, step: Step, path: str, done: Done) -> Done:
        self.done[path] = done
        self.tell(path, done.state, step.kind)
        return done

    def tell(self, path: str, state: StepState, kind: str) -> None:
        """Whoever watches."""
        if self._notify is not None:
            self._notify(Event(path, state.status, state, kind))

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
                await anyio.to_thread.run_sync(partial(self._write, keys, remove, alter, control=control))
        except ConflictError:
            await self._still_mine()
            raise

    def _write(
        self,
        keys: Mapping[str, Any],
        remove: tuple[str, ...] = (),
        alter: Alter | None = None,
        *,
        control: bool = False,
    ) -> None:
        draft = self.manager.draft()
        for key, value in keys.items():
            draft.set_value(key, value)
        versions = {CLAIM: self._fence}
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

    async def _still_mine(self) -> None:
        want = Want(keys=(CLAIM,), as_user=self.as_user)
        data = (await anyio.to_thread.run_sync(self.manager.view, self.session_id, want)).data
        if CLAIM not in data or data[CLAIM].version != self._fence:
            raise _taken_over(self.session_id) from None


def _slept(value: Any) -> float:
    try:
        return seconds(value)
    except ValueError as error:
        raise InvalidArgumentError(f"sleep: {value!r} {error}.") from None


def _taken_over(session_id: str) -> WorkflowTakenOverError:
    return WorkflowTakenOverError(
        f"The run in session {session_id} is another process's by now: nothing more of it is written here. "
        f"See how far it is: mcp-sessions workflow status {session_id}"
    )


def at(value: Any, path: str) -> Any:
    """What stands at a dotted path in a result, where `result` is all of it; None where nothing does."""
    found = value
    for part in path.split(".") if path != "result" else ():
        if isinstance(found, dict) and part in found:
            found = cast("dict[str, Any]", found)[part]
        elif isinstance(found, list) and part.isdigit() and int(part) < len(cast("list[Any]", found)):
            found = cast("list[Any]", found)[int(part)]
        elif part != "result":
            return None
    return cast("Any", found)
