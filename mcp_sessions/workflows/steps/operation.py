"""Steps that transform data; `explore` and `decompose` are the ones that ask an agent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import anyio.to_thread

from ...agents.explore import Operation
from ...errors import ExecutorError, InvalidArgumentError
from ..model import Agent
from ..operations import AGENT_OPERATIONS, run_operation
from . import agent

if TYPE_CHECKING:
    from ..model import Step
    from ..run import Run
    from ..step import Work

_EXPLORING: dict[str, tuple[Operation, str]] = {
    "question": ("explore", "question"),
    "implementation": ("find_implementation", "feature"),
    "structure": ("analyze_structure", "component"),
    "usage": ("find_usage", "symbol"),
    "flow": ("explain_flow", "flow"),
    "generic": ("explore", "question"),
}


def is_slow(_run: Run, step: Step) -> bool:
    """Whether it is on record from its beginning."""
    return step.operation in AGENT_OPERATIONS


async def operate(work: Work) -> Any:
    """What the operation gives."""
    name, config, given = work.step.operation or "", dict(work.given["config"]), dict(work.given["with"])
    if name == "explore":
        return await _explore(work, config, given)
    if name == "decompose":
        return await _decompose(work, config, given)
    return await anyio.to_thread.run_sync(run_operation, name, config, given)


async def _explore(work: Work, config: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    kind = str(config.get("exploration_type", "question"))
    if kind not in _EXPLORING:
        raise InvalidArgumentError(f"Invalid exploration_type '{kind}'. Valid: {', '.join(_EXPLORING)}.")
    task: Any = given.get("task")
    about = cast("dict[str, Any]", task) if isinstance(task, dict) else {"item": task}
    operation, named = _EXPLORING[kind]
    query = given.get(named) or about.get(named) or next((given[one] for one in _names() if given.get(one)), None)
    query = str(query or about.get("item") or about.get("exploration_task") or about)
    spec = Agent(
        use="explore", operation=operation, executor=config.get("cli_type", "claude"), model=config.get("model")
    )
    asked = {"question": query, "codebase_path": given.get("codebase_path")}
    finding: dict[str, Any] = {"exploration_type": kind, "status": "completed", "query": query}
    try:
        finding["result"] = await agent.explore(work, spec, asked)
    except ExecutorError as error:
        finding |= {"status": "failed", "result": None, "error": str(error)}
    return {
        "finding": finding,
        "session_file": None,
        "task_info": {"index": about.get("index", 0), "task": about.get("item"), "exploration_type": kind},
        "metadata": {"codebase_path": given.get("codebase_path"), "session_id": work.run.session_id},
    }


def _names() -> list[str]:
    return [name for _, name in _EXPLORING.values()]


async def _decompose(work: Work, config: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    question, kind = str(given.get("question", "")), str(config.get("cli_type", "copilot"))
    if not question:
        raise InvalidArgumentError("decompose operation requires 'question' input.", argument="question")
    bounds = {name: config[name] for name in ("min_subtopics", "max_subtopics") if name in config}
    spec = Agent(use="decompose", executor=kind, model=config.get("model"))
    try:
        made = await agent.decompose(work, spec, {"question": question, **bounds})
    except ExecutorError as error:
        return {
            "subtopics": [
                {
                    "subtopic_id": "fallback",
                    "title": "General Exploration",
                    "exploration_task": question,
                    "importance": "high",
                    "expected_findings": "General information about the topic",
                }
            ],
            "subtopic_count": 1,
            "reasoning": f"Fallback due to error: {error}",
            "metadata": {"original_question": question, "ai_decomposition": False, "fallback": True},
        }
    subtopics = [{"subtopic_id": one.pop("id"), **one} for one in made["subtopics"]]
    return {
        "subtopics": subtopics,
        "subtopic_count": len(subtopics),
        "reasoning": made["reasoning"],
        "metadata": {
            "original_question": question,
            "cli_type": kind,
            "model": config.get("model"),
            "ai_decomposition": True,
        },
    }
