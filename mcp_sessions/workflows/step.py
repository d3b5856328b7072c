"""StepRun: one step of a run, from its condition to its outcome.

Each attempt is a call on record with an id of its own; what makes what it calls once has the same id for all of them.
What a step gave, its state and its record are one commit, which the process makes only while the run is its own.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import anyio
import anyio.to_thread

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
from ..models import Failure, InvocationStatus
from ..records import LONGEST_ERROR, plain
from ..tools.awaiting import awaited
from .expressions import Template
from .model import Retry, Step, seconds
from .state import CLAIM, PENDING, RESULT, STATE, Done, StepState, StepStatus, WaitsFor
from .steps import COMPOSITES, KINDS
from .steps.child import TooDeepError

if TYPE_CHECKING:
    from ..calls import Call
    from .run import Run
    from .scope import Frame

NO_RETRY = Retry(max_attempts=1)
_NO_RETRY_MENDS = (ExpressionError, InvalidArgumentError, TooDeepError)
_INTERRUPTED = "The process that ran it ended in the middle, and it is not to be run twice: approve runs it again."


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


class StepRun:
    """Runs one step, or goes on with it."""

    def __init__(self, run: Run, step: Step, frame: Frame) -> None:
        self._run = run
        self._step = step
        self._frame = frame
        self._path = frame.path(step.id)
        self._kind = KINDS.get(step.kind)
        before = run.before.get(self._path, PENDING).state
        self._was = before
        """How far it was when this process came to the run."""
        self._begun = StepState(
            status=StepStatus.RUNNING,
            attempts=before.attempts,
            failures=before.failures,
            generation=run.record.generations.get(step.id, 0),
            started_at=before.started_at or run.manager.clock(),
            until=before.until,
        )

    async def outcome(self) -> Done:
        """How it went, which is committed. Raises what ends the run: what its own session or the store refuses."""
        step = self._step
        try:
            if step.when is not None:
                holds = await self._run.resolve(step.when, self._frame)
                if not isinstance(holds, bool):
                    raise ExpressionError(
                        str(step.condition), f"a condition is true or false, not {type(holds).__name__}"
                    )
                if not holds:
                    return await self.skipped("Its condition does not hold.", blocked=False)
            if step.approve is not None:
                await self._ask()
            if step.kind not in COMPOSITES:
                return await self._attempts()
            result, failure = await COMPOSITES[step.kind](self._run, step, self._frame, self._path)
        except _NO_RETRY_MENDS as error:
            return await self._failed(self._begun, error)
        return await self._composed(result, failure)

    async def skipped(self, why: str, *, blocked: bool) -> Done:
        """It is not run; `blocked`: because of a failure."""
        at = self._run.manager.clock()
        state = StepState(status=StepStatus.SKIPPED, message=why, blocked=blocked, completed_at=at)
        await self._run.commit({STATE + self._path: state.stored()})
        return self._put(Done(state))

    async def _ask(self) -> None:
        """Wait for what a person says to a step of the kind `approve`; the step itself tells what that was."""
        approve, state = self._step.approve, self._was
        assert approve is not None
        if state.status is not StepStatus.WAITING:
            message = str(await self._run.resolve(Template.of(approve.message), self._frame))
            began = self._run.manager.clock()
            until = None if approve.timeout is None else began + timedelta(seconds=approve.timeout)
            waits = {"status": StepStatus.WAITING, "message": message, "until": until}
            state = self._begun.model_copy(update=waits)
        await self._run.asked(self._path, state)

    async def _composed(self, result: Any, failure: str | None) -> Done:
        """What a step that is made of steps gave."""
        if failure is not None:
            return await self._failed(self._begun, Failure(type="StepError", message=failure), result)
        done = self._completed(self._begun, result)
        try:
            await self._run.commit(done.keys(self._path))
        except LimitError as error:  # what they gave stands in keys of their own
            return await self._failed(self._begun, error)
        return self._put(done)

    # attempts

    async def _attempts(self) -> Done:
        """Run it until it goes well, or may not be tried again."""
        state = self._begun
        rule = self._step.retry or self._run.definition.spec.defaults.retry or NO_RETRY
        if state.attempts and (self._was.status is StepStatus.RUNNING or self._was.message == _INTERRUPTED):
            state = await self._cut_off()
            if state.failures >= rule.max_attempts:
                return await self._failed(state, state.error or StepError("It failed."))
            if rule.never and not await self._again(state):
                return await self._failed(state, StepError("It was interrupted, and rejected.", "Interrupted"))
        while True:
            attempt = {"status": StepStatus.RUNNING, "attempts": state.attempts + 1, "message": None}
            state = state.model_copy(update=attempt)
            try:
                done = await self._attempt(state)
                if done.state.status is not StepStatus.WAITING:
                    return done
                state = done.state
                await self._run.asked(self._path, state)
                continue
            except Exception as error:  # noqa: BLE001 - a step fails in whichever way what it calls fails
                failure = error
            if isinstance(failure, ConflictError):
                await self._run.still_mine()
            if self._ends_the_run(failure):
                raise failure
            state = state.model_copy(update={"failures": state.failures + 1})
            if isinstance(failure, _NO_RETRY_MENDS) or state.failures >= rule.max_attempts:
                return await self._failed(state, failure)
            pauses = state.model_copy(update={"status": StepStatus.PENDING})
            await self._run.commit({STATE + self._path: pauses.stored()})
            await anyio.sleep(rule.delay_s(state.failures, random.random()))  # noqa: S311 - spreads retries

    def _ends_the_run(self, error: Exception) -> bool:
        """Whether it is the run that cannot go on, and not the step that failed."""
        if isinstance(error, SessionEndedError | SessionNotFoundError):
            return error.session_id == self._run.session_id
        return isinstance(error, StorageError | WorkflowTakenOverError)

    async def _attempt(self, state: StepState) -> Done:
        run, step, kind = self._run, self._step, self._kind
        assert kind is not None
        given = cast("dict[str, Any]", await run.resolve(step.template, self._frame))
        if kind.is_own_call(run, step):
            return await self._called(state, kind.arguments(run, step, given))
        if step.kind == "sleep" and state.until is None:
            state = state.model_copy(update={"until": run.manager.clock() + timedelta(seconds=_slept(given["sleep"]))})
        slow = kind.slow(run, step)
        call = run.manager.call(
            kind.label(step),
            run.session_id,
            kind.recorded(step, self._path, given),
            run.caller,
            run.call_id(self._path, state.generation, str(state.attempts)),
            slow=slow,
            kind="work" if kind.is_work(step) else "session",
            as_user=run.as_user,
        )
        call.draft.expected_versions[CLAIM] = run.fence
        if slow:
            call.opening = {STATE + self._path: state.stored()}
        self._put(Done(state))
        key = run.call_id(self._path, state.generation)
        work = Work(run, step, self._frame, self._path, call, given, state, key)
        done = Done(state)

        async def act() -> Any:
            nonlocal done
            result = await self._worked(work)
            if isinstance(result, WaitsFor):
                waits = {"status": StepStatus.WAITING, "message": result.message, "until": None}
                done = Done(state.model_copy(update=waits))
                return {"waits_for": result.message}
            done = self._completed(state, result)
            for name, value in done.keys(self._path).items():
                call.draft.set_value(name, value)
            if result is not None:
                call.result_ref = None, f"data:{RESULT}{self._path}@revision"
            return result

        result = await awaited(call, act)
        if call.replayed:  # it was done, and what it gave was taken back
            done = self._completed(state, result)
            await run.commit(done.keys(self._path))
        return done if done.state.status is StepStatus.WAITING else self._put(done)

    async def _worked(self, work: Work) -> Any:
        assert self._kind is not None
        try:
            return await self._limited(partial(self._kind.run, work), self._kind.holds_slot)
        except StepError as error:
            if error.kind == "Timeout":
                await self._run.end_child(self._path)
            raise

    async def _called(self, state: StepState, arguments: Mapping[str, Any]) -> Done:
        """One attempt of a step whose call is that of a short tool of ours, by an id that is the same until it fails.

        Where its result is known before its commit, that commit has the step's state and result too.
        """
        run, path = self._run, self._path
        call, act = run.means.toolbox.prepared(
            run.manager,
            self._step.tool or "",
            arguments,
            caller=run.caller,
            invocation_id=run.call_id(path, state.generation, "call", str(state.failures)),
            as_user=run.as_user,
            within=run.session_id,
        )
        self._put(Done(state))

        def make() -> Done:
            with call:
                if not call.replayed:
                    call.result = act()
                    if call.can_stage_for(run.session_id):
                        done = self._completed(state, call.result)
                        for key, value in done.keys(path).items():
                            call.draft.set_value(key, value)
                        call.draft.expected_versions[CLAIM] = run.fence
                        return done
            done = self._completed(state, call.result)
            run.write(done.keys(path))
            return done

        worked = partial(anyio.to_thread.run_sync, make, limiter=run.threads)
        return self._put(await self._limited(worked, holds_slot=True))

    async def _limited(self, work: Callable[[], Awaitable[Any]], holds_slot: bool) -> Any:
        """What an attempt gives, in its time, which begins when there is a slot for it."""
        limit = self._step.timeout or self._run.definition.spec.defaults.timeout
        async with self._run.slots if holds_slot else nullcontext():
            with anyio.move_on_after(limit):
                return await work()
        raise StepError(f"It took longer than {limit:g} s, which is its limit.", "Timeout")

    async def _cut_off(self) -> StepState:
        """How far it is where another process was at it: whether that failed, or was interrupted."""
        run, state = self._run, self._begun

        def failed() -> bool:
            page = run.manager.invocations(
                run.session_id,
                invocation_id=run.call_id(self._path, state.generation, str(state.attempts)),
                limit=1,
                as_user=run.as_user,
            )
            for record in page.items:
                run.manager.interrupt(record)
                refused = record.error is not None and record.error.type == SessionEndedError.__name__
                return record.status is InvocationStatus.ERROR and not refused
            return False

        more = await anyio.to_thread.run_sync(failed)
        return state.model_copy(update={"failures": state.failures + more})

    async def _again(self, state: StepState) -> bool:
        """Whether a person says that it may be run again."""
        waits = state.model_copy(update={"status": StepStatus.WAITING, "message": _INTERRUPTED, "until": None})
        answer = await self._run.asked(self._path, waits)
        return answer is not None and bool(answer.get("approved"))

    # outcomes

    def _completed(self, state: StepState, result: Any) -> Done:
        over = {"status": StepStatus.COMPLETED, "completed_at": self._run.manager.clock()}
        return Done(state.model_copy(update=over), result)

    async def _failed(self, state: StepState, error: BaseException | Failure, result: Any = None) -> Done:
        run = self._run
        if not isinstance(error, Failure):
            text = run.means.secrets.scrubbed(str(error)) or type(error).__name__
            kind = error.kind if isinstance(error, StepError) else type(error).__name__
            error = Failure(type=kind, message=plain(text, LONGEST_ERROR))
        over = {
            "status": StepStatus.FAILED,
            "error": error,
            "failures": max(1, state.failures),
            "completed_at": run.manager.clock(),
            "message": None,
        }
        done = Done(state.model_copy(update=over), result)
        try:
            await run.commit(done.keys(self._path))
        except LimitError:
            done = Done(done.state)
            await run.commit(done.keys(self._path))
        return self._put(done)

    def _put(self, done: Done) -> Done:
        self._run.put(self._path, done, self._step.kind)
        return done


def _slept(value: Any) -> float:
    try:
        return seconds(value)
    except ValueError as error:
        raise InvalidArgumentError(f"sleep: {value!r} {error}.") from None
