"""Steps that are made of steps: for_each, parallel, switch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import anyio

from ...errors import ExpressionError
from ..expressions import Template
from ..model import Step, condition
from ..scope import Frame
from ..state import Done, StepState, StepStatus

if TYPE_CHECKING:
    from ..run import Run

MOST_ITEMS = 10_000


async def parallel(run: Run, step: Step, frame: Frame, path: str) -> tuple[Any, str | None]:  # noqa: ARG001
    """All of them at once; the result of each by its id."""
    steps = step.parallel or []
    block = await run.block(steps, frame)
    return {one.id: frame.done[one.id].result for one in steps}, _failure(run, block.stopped)


async def switch(run: Run, step: Step, frame: Frame, path: str) -> tuple[Any, str | None]:  # noqa: ARG001
    """The first case that holds, else the default."""
    assert step.switch is not None
    chosen: list[Step] = step.switch.default
    case: int | str | None = "default" if step.switch.default else None
    for index, one in enumerate(step.switch.cases):
        holds = await run.resolve(condition(one.condition), frame)
        if not isinstance(holds, bool):
            raise ExpressionError(str(one.condition), f"a condition is true or false, not {type(holds).__name__}")
        if holds:
            chosen, case = one.steps, index
            break
    taken = {one.id for one in chosen}
    for block in step.blocks:
        for one in block:
            if one.id not in taken:
                _pass_over(run, one, frame)
    block = await run.block(chosen, frame)
    return {"case": case}, _failure(run, block.stopped)


def _pass_over(run: Run, step: Step, frame: Frame) -> None:
    """Steps of a case that was not chosen."""
    done = Done(StepState(status=StepStatus.SKIPPED, message="Another case was chosen."))
    frame.done[step.id] = run.done[frame.path(step.id)] = done
    if step.kind != "for_each":
        for block in step.blocks:
            for inner in block:
                _pass_over(run, inner, frame)


async def for_each(run: Run, step: Step, frame: Frame, path: str) -> tuple[Any, str | None]:
    """The steps once for each item, so many items at once; the next begins when one is done."""
    items: Any = await run.resolve(Template.of(step.for_each), frame)
    if not isinstance(items, list):
        raise ExpressionError(str(step.for_each), f"for_each takes a list, not {type(items).__name__}")
    members = cast("list[Any]", items)
    if len(members) > MOST_ITEMS:
        raise ExpressionError(
            str(step.for_each), f"for_each takes {MOST_ITEMS:,} items, and there are {len(members):,}"
        )
    loop = _Loop(run, step, frame, path, members)
    await loop.whole()
    return loop.result(), loop.failure


class _Loop:
    def __init__(self, run: Run, step: Step, frame: Frame, path: str, items: list[Any]) -> None:
        self.run = run
        self.step = step
        self.items = items
        self.frame = frame
        self.path = path
        self.failure: str | None = None
        self.frames: dict[int, Frame] = {}
        self.stopped: dict[int, str] = {}
        self._next = 0
        self._goes_on = (step.on_error or run.definition.spec.defaults.on_error) == "continue"

    async def whole(self) -> None:
        workers = min(len(self.items), self.step.max_parallel or self.run.definition.spec.max_parallel)
        if workers == 0:
            return
        self.run.busy += workers - 1
        left = workers

        async def work() -> None:
            nonlocal left
            while self._next < len(self.items) and (self.failure is None or self._goes_on):
                index, self._next = self._next, self._next + 1
                await self._item(index)
            left -= 1
            if left:
                self.run.rests()

        async with anyio.create_task_group() as group:
            for _ in range(workers):
                group.start_soon(work)

    async def _item(self, index: int) -> None:
        items = {self.step.item: self.items[index], f"{self.step.item}_index": index}
        frame = self.frames[index] = Frame(f"{self.path}[{index}].", self.frame, items)
        block = await self.run.block(self.step.steps, frame)
        if block.stopped is not None:
            self.stopped[index] = block.stopped
            self.failure = self.failure or f"item {index}: {_failure(self.run, block.stopped)}"

    def result(self) -> dict[str, Any]:
        items = [self._told(index) for index in sorted(self.frames)]
        made: dict[str, Any] = {
            "iterations": len(self.items),
            "successful": len(items) - len(self.stopped),
            "failed": len(self.stopped),
            "items": items,
        }
        if self._goes_on:
            self.failure = None
        if self.run.definition.is_legacy:
            made["results"] = [
                {**{name: one[name] for name in ("index", "item", "status")}, "step_results": one["steps"]}
                for one in items
            ]
        return made

    def _told(self, index: int) -> dict[str, Any]:
        steps = {name: done.seen() for name, done in self.frames[index].done.items()}
        told = {name: {key: seen[key] for key in ("status", "result", "error")} for name, seen in steps.items()}
        status = StepStatus.FAILED if index in self.stopped else StepStatus.COMPLETED
        return {"index": index, "item": self.items[index], "status": status.value, "steps": told}


def _failure(run: Run, path: str | None) -> str | None:
    if path is None:
        return None
    error = run.done[path].state.error
    return f"step '{path}' failed: {error.message if error is not None else ''}"
