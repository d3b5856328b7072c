"""Workflows: what a step costs that does nothing, and how many runs get on at once."""

from __future__ import annotations

import functools
import time
from itertools import islice
from typing import Any

import anyio

from mcp_sessions import SessionManager
from mcp_sessions.tools import SESSION_TOOLS, Toolbox
from mcp_sessions.workflows import WorkflowDefinition, WorkflowEngine, WorkflowStatus

from .measure import Figures, Row, micros, p50
from .stores import Ground, Kind, Measure, changes, manager_on

STEP = Row("workflow step", "call", "a tool step that does nothing, p50 / one synced commit", "<=", 4.0, "commits")
RUNS = Row("50 workflows at once", "call", "runs of 5 such steps", ">=", None, "runs/s")
LOST = Row("50 workflows at once: lost", "call", "runs that are not completed, steps that are not there", "<=", 0, "")
STEPS = 20
AT_ONCE = 50


def toolbox() -> Toolbox:
    box = Toolbox(SESSION_TOOLS)

    @box.tool(title="Nothing")
    def nothing(call: Any) -> None:
        """Do nothing."""

    return box


def definition(count: int) -> WorkflowDefinition:
    return WorkflowDefinition.from_dict(
        {"name": "bench", "steps": [{"id": f"s{number}", "tool": "nothing"} for number in range(count)]}
    )


def step(kind: Kind, ground: Ground) -> Figures:
    """A run of many steps, less one of a single step, in turn with as many commits."""
    steps: list[float] = []
    commits: list[float] = []
    with manager_on(ground.path(kind)) as manager:
        manager.create_session("commits")
        engine = WorkflowEngine(manager, toolbox=toolbox())
        many, one = definition(STEPS + 1), definition(1)
        for _ in range(max(2, ground.scale.rounds // 50)):
            took = timed(engine, many) - timed(engine, one)
            steps.append(took / STEPS)
            for change in list(islice(changes(), STEPS)):
                begin = time.perf_counter()
                manager.storage.commit("commits", change)
                commits.append(time.perf_counter() - begin)
    return Figures({STEP.name: p50(steps) / p50(commits)}, {"step_us": micros(steps), "commit_us": micros(commits)})


def timed(engine: WorkflowEngine, workflow: WorkflowDefinition) -> float:
    begin = time.perf_counter()
    anyio.run(engine.execute, workflow)
    return time.perf_counter() - begin


def at_once(kind: Kind, ground: Ground) -> Figures:
    with manager_on(ground.path(kind)) as manager:
        begin = time.perf_counter()
        completed = anyio.run(all_at_once, manager)
        took = time.perf_counter() - begin
        there = sum(len(manager.invocations(f"r{number}", "nothing", "ok").items) for number in range(AT_ONCE))
    return Figures({RUNS.name: AT_ONCE / took, LOST.name: AT_ONCE - completed + AT_ONCE * 5 - there})


async def all_at_once(manager: SessionManager) -> int:
    """How many of them are completed."""
    engine, workflow = WorkflowEngine(manager, toolbox=toolbox()), definition(5)
    completed: list[str] = []

    async def one(number: int) -> None:
        result = await engine.execute(workflow, None, f"r{number}")
        if result.status is WorkflowStatus.COMPLETED:
            completed.append(result.session_id)

    async with anyio.create_task_group() as group:
        for number in range(AT_ONCE):
            group.start_soon(one, number)
    return len(completed)


MEASURES: list[tuple[Measure, list[Row]]] = [
    (functools.partial(step, "sqlite"), [STEP]),
    (functools.partial(at_once, "sqlite"), [RUNS, LOST]),
]
