"""A guide to a codebase, by agents; and what their work left in the one session of the run.

Run it: python examples/onboarding.py DIRECTORY
"""

import json
import sys
from pathlib import Path

import anyio

from mcp_sessions import get_session_manager
from mcp_sessions.agents import Answer, Scripted
from mcp_sessions.models import tokens
from mcp_sessions.workflows import WorkflowEngine

PARTS = [
    {"id": "layout", "title": "Layout", "exploration_task": "What are its folders for?", "importance": "high"},
    {"id": "tests", "title": "Tests", "exploration_task": "How is it tested?", "importance": "medium"},
]


def script(prompt, _tools):
    """What a model might answer; `executor: claude` in the workflow would ask Claude Code."""
    if "Take this question apart" in prompt:
        return Answer(json.dumps({"subtopics": PARTS}), "claude-sonnet-4-5", tokens(900, 80), cost=0.004)
    if "Summarize these findings" in prompt:
        return Answer("Start at src, then run the tests.", "claude-sonnet-4-5", tokens(1500, 60), cost=0.006)
    return Answer(f"Found {len(prompt)} characters of it.", "claude-sonnet-4-5", tokens(4000, 40), cost=0.012)


async def main(directory: str) -> None:
    manager = get_session_manager()
    engine = WorkflowEngine(manager, executors={"explorer": Scripted(script)})
    workflow = Path(__file__).with_suffix(".yaml")
    result = await engine.execute(workflow, {"codebase_path": directory})
    print(f"{result.status.value}: {result.outputs['guide']}")
    head = manager.metadata(result.session_id)
    calls = manager.invocations(result.session_id, kind="work").items
    print(f"{head.message_count} messages, {len(calls)} calls of agents, {head.estimated_cost:.3f} USD")


if __name__ == "__main__":
    anyio.run(main, str(Path(sys.argv[1]).absolute()))
