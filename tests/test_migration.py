"""docs/migration.md: each call of the old systems has a row, and what takes its place runs as it stands there."""

from __future__ import annotations

import ast
import inspect
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mcp_sessions import SessionManager, SQLiteSessionStorage
from mcp_sessions.agents import explore_codebase
from mcp_sessions.agents.tools import Reach, agent_tools
from mcp_sessions.config import sqlite_url
from tests.storage import legacy_tree

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "migration.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))
AGENTS = SECTIONS["History of agents"]
BEFORE = {
    "Sessions for tools": {
        *("MemorySessionStorage", "FileSystemSessionStorage", "SessionManager"),
        *("manager.create_session", "manager.get_session", "manager.link_invocation"),
        *("manager.add_conversation_message", "manager.update_session_metadata", "manager.complete_session"),
        *("manager.list_sessions", "manager.delete_session", "manager.cleanup_old_sessions"),
        *("manager.get_session_statistics", "storage.save_session", "storage.load_session"),
        *("storage.link_invocation", "storage.list_sessions", "storage.session_exists"),
        *("storage.delete_session", "storage.cleanup_sessions"),
        *("session.add_message", "session.add_invocation", "session.get", "session.set", "session.delete"),
        *("session.clear_data", "session.conversation.clear", "session.metadata.purpose = text"),
        *("session.to_dict", "Session.from_dict", "SessionMetadata.from_dict", "ConversationMessage.from_dict"),
    },
    "History of agents": {
        *("CLIConfig", "config.to_cli_config", "CLIExecutor(config).execute"),
        *("validate_model_for_cli", "get_supported_models", "create_default_system_prompt"),
        *("AgentConfig", "SpecializedAgent", "agent.get_system_prompt", "agent.prepare_context"),
        *("agent.get_default_system_prompt", "SystemPromptBuilder", "agent.invoke", "agent.batch_invoke"),
        *("agent.get_session_history", "agent.clear_session_history", "agent.set_session"),
        *("ExploreAgentConfig", "ExploreAgent", "explorer.explore", "explorer.find_implementation"),
        *("explorer.analyze_structure", "explorer.find_usage", "explorer.explain_flow", "explore_codebase"),
        "DecomposeAgent(config).decompose",
    },
    "Data of workflows": {
        *("WorkflowContext", "WorkflowContext.from_dict", "StepResult", "StepStatus", "WorkflowStatus"),
        *("context.inputs", "context.metadata", "context.get", "context.step_results", "context.set_step_result"),
        *("context.get_step_result", "context.get_step_status", "context.set_output", "context.outputs"),
        *("context.resolve_template", "context.resolve_dict", "context.to_dict"),
    },
    "Runs of workflows": {
        *("WorkflowDefinition.from_yaml", "from_file", "from_dict", "workflow.validate", "workflow.get_step"),
        *("WorkflowEngine", "engine.execute", "result.status", "WorkflowStatus", "StepStatus"),
        *("result.step_results[step_id].result", "engine.resume_from_session", "engine.list_workflow_sessions"),
        *("engine.load_from_session", "registry.get(name)(config, inputs).execute", "AgentRegistry.register"),
    },
}


def blocks(kind: str, section: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def rows(section: str) -> Iterator[tuple[list[str], str]]:
    """What stood before, by name, and what takes its place."""
    for before, now in re.findall(r"^\| (`.+?`) \| `(.+?)` \| .*\|$", section, re.MULTILINE):
        yield [re.sub(r"\([^()]*\)$", "", call) for call in re.findall(r"`(.+?)`", before)], now


async def result_of(code: str, names: dict[str, Any]) -> Any:
    """What code gives, None where it is no expression; `await` may stand in it."""
    flags = {"flags": ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, "dont_inherit": True}
    try:
        compiled = compile(code, "migration.md", "eval", **flags)
    except SyntaxError:
        compiled = compile(code, "migration.md", "exec", **flags)
    result = eval(compiled, names)
    return await result if inspect.iscoroutine(result) else result


async def results(heading: str, names: dict[str, Any]) -> dict[str, Any]:
    """What each row of a section gives, run after its block from top to bottom, by what stood before."""
    (block,) = blocks("python", SECTIONS[heading])
    await result_of(block, names)
    gave: dict[str, Any] = {}
    for calls, now in rows(SECTIONS[heading]):
        gave |= dict.fromkeys(calls, await result_of(now, names))
    return gave


def run(*words: str, store: Path) -> str:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MCP_SESSIONS_STORAGE": sqlite_url(store), "PYTHONUTF8": "1"}
    ran = subprocess.run([sys.executable, *words], capture_output=True, encoding="utf-8", env=env, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.parametrize("heading", BEFORE)
def test_each_call_has_its_row(heading: str) -> None:
    table = [line for line in SECTIONS[heading].splitlines() if line.startswith("| `")]
    told = [call for calls, _ in rows(SECTIONS[heading]) for call in calls]
    assert len([*rows(SECTIONS[heading])]) == len(table)
    assert sorted(told) == sorted(BEFORE[heading])


async def test_sessions_for_tools_are_as_the_table_says() -> None:
    names: dict[str, Any] = {}
    gave = await results("Sessions for tools", names)
    with names["manager"] as manager:
        assert names["message"].seq == 1
        assert gave["manager.get_session_statistics"]["total_invocations"] == 1
        assert [one.session_id for one in gave["manager.list_sessions"]] == ["login"]
        assert [one.session_id for one in gave["storage.list_sessions"]] == ["login"]
        assert gave["storage.session_exists"] is True
        assert gave["session.get"] == "certificate"
        assert gave["Session.from_dict"].to_dict() == names["image"]
        assert gave["ConversationMessage.from_dict"] == names["message"]
        ended = gave["manager.complete_session"]
        assert (ended.purpose, ended.total_invocations, ended.message_count) == ("Renew the certificate", 2, 0)
        assert (gave["storage.delete_session"], gave["manager.delete_session"]) == (False, True)
        assert manager.list_sessions() == []


async def test_agents_are_as_the_table_says() -> None:
    names: dict[str, Any] = {}
    gave = await results("History of agents", names)
    with names["agent"] as agent, names["explorer"] as explorer:
        assert gave["agent.prepare_context"] == "Branch: main"
        assert gave["agent.invoke"] == "It is safe."
        assert gave["agent.batch_invoke"] == ["It is safe."] * 2
        asked = {"role": "user", "content": "Is it safe?"}
        assert gave["agent.get_session_history"] == [asked, {"role": "assistant", "content": "It is safe."}]
        assert agent.get_session_history("review") == []
        assert agent.session_id == "review-2"
        assert len(explorer.get_session_history()) == 10
        assert names["parts"].subtopics[0].id == "a"


def test_what_the_text_says_of_the_tool_and_the_function_of_agents_is_so() -> None:
    tool = agent_tools(Reach((), ()))["agent_invoke"]
    told = re.search(r"`agent_invoke`, of the toolset `(\w+)`: its (.+?) stand side by side", AGENTS)
    assert told is not None
    assert told[1] == tool.toolset
    named = set(re.findall(r"`(\w+)`", told[2].replace("(before: `cli_type`)", "")))
    assert named == set(tool.input_schema()["properties"])
    (function,) = re.findall(r"^\| `explore_codebase\((.+?)\)`", AGENTS, re.MULTILINE)
    assert list(inspect.signature(explore_codebase).parameters) == function.split(", ")


async def test_data_of_workflows_are_as_the_table_says() -> None:
    names: dict[str, Any] = {}
    gave = await results("Data of workflows", names)
    with names["manager"] as manager:
        assert gave["context.get"] == 3
        assert gave["context.get_step_result"] == {"open": 3}
        assert set(names["steps"]) == {"step.fetch", "step.count"}
        assert (gave["context.get_step_status"], names["record"].result) == ("ok", {"open": 3})
        assert names["text"] == "3 open in shop"
        assert gave["WorkflowContext.from_dict"]["step.count"] == 3
        assert manager.metadata("run-1").status == "failed"


async def test_runs_of_workflows_are_as_the_table_says() -> None:
    names: dict[str, Any] = {}
    await results("Runs of workflows", names)
    with names["manager"]:
        assert names["step"].id == "count"
        assert names["is_completed"]
        assert names["counted"] == {"function": "count", "item_count": 2, "result": 2}
        assert [one.session_id for one in names["runs"]] == ["triage-1"]
        assert names["context"].get("steps.count.result.result") == 2
        assert names["total"]["result"] == 3.0


def test_shared_keys_are_read_by_their_prefix_and_internal_ones_are_not_shown(tmp_path: Path) -> None:
    (block,) = blocks("python", SECTIONS["Shared keys"])
    shown, steps = run("-c", block, store=tmp_path / "sessions.db").splitlines()
    assert set(shown.split()) == {"agent.explore.seen", "workflow_input", "step.fetch", "step.count", "plan"}
    assert set(steps.split()) == {"step.fetch", "step.count"}


def test_old_folders_are_copied_or_gone_on_with_and_runs_get_the_shared_keys(tmp_path: Path) -> None:
    store, section = tmp_path / "sessions.db", SECTIONS["Old folders"]
    (lines,), (adopt, rename) = blocks("sh", section), blocks("python", section)
    tools = legacy_tree.tree(tmp_path / "server")
    runs = Path("~/.mcp/workflows/sessions").expanduser()
    fetched = {"step_id": "fetch", "status": "completed", "result": {"open": 3}, "error": None}
    failed = {"step_id": "count", "status": "failed", "result": None, "error": "no"}
    data = {
        "workflow_name": "triage",
        "workflow_status": "running",
        "mine": 1,
        "outputs": {"fetch.open": 3},
        "context": {"inputs": {"repo": "shop"}},
        "step_results": {"fetch": fetched, "count": failed},
    }
    legacy_tree.save(runs, legacy_tree.metadata("going", tags=["workflow", "triage"]), data=data)
    legacy_tree.save(runs, legacy_tree.metadata("ended", tags=["workflow"], status="completed"), data=data)

    before = legacy_tree.contents(tools)
    for line in lines.splitlines():
        words = [word.replace("~", str(Path.home())) for word in shlex.split(line)]
        run("-m", "mcp_sessions", *words[1:], store=store)
    assert legacy_tree.contents(tools) == before
    run("-c", rename, store=store)
    with SessionManager(SQLiteSessionStorage(store)) as manager:
        assert len(manager.list_sessions()) == 5
        assert manager.get_session("ended").data == data
        assert manager.get_session("going").data == {
            "workflow.name": "triage",
            "workflow_status": "running",
            "mine": 1,
            "workflow_input": {"repo": "shop"},
            "workflow.context": {"inputs": {"repo": "shop"}},
            "workflow_output": {"fetch.open": 3},
            "workflow.step_results": data["step_results"],
            "step.fetch": {"open": 3},
        }

    sessions = run("-c", adopt, store=store).splitlines()
    assert {*sessions} == {"session_20251105_100000_0a1b2c3d 3", "default 1", "session_20251105_100001_00000000 0"}
    assert (tools / "default" / "log.jsonl").exists()
