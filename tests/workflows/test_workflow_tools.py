"""workflow_run, workflow_status, workflow_respond: real servers, and what clients may run there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_sessions import SessionManager
from mcp_sessions.errors import InvalidArgumentError
from mcp_sessions.models import Want
from mcp_sessions.storage import SQLiteSessionStorage
from mcp_sessions.tools import SESSION_TOOLS, Toolbox
from mcp_sessions.workflows import WorkflowDefinition, WorkflowEngine, WorkflowStatus
from mcp_sessions.workflows.tools import Offer, workflow_tools
from tests.agents.fakes import RESULT, Fake
from tests.processes import until
from tests.server.pipes import Pipe
from tests.stores import SetClock
from tests.tools.desk import Desk

TOOLSETS = ("--toolsets", "core,records,automation")
GREET = """
name: greet
inputs: {who: {type: string, required: true}}
steps:
  - {id: a, set: "hello {{ inputs.who }}"}
  - {id: ok, approve: "Say '{{ steps.a.result }}'?"}
  - id: say
    if: steps.ok.result.approved
    tool: session_add_message
    with: {role: assistant, content: "{{ steps.a.result }}"}
outputs: {said: "{{ steps.ok.result.approved }}"}
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of workflows."""
    folder = tmp_path / "workflows"
    folder.mkdir()
    (folder / "greet.yaml").write_text(GREET, encoding="utf-8")
    monkeypatch.setenv("MCP_SESSIONS_WORKFLOW_DIR", str(folder))
    return folder


@pytest.fixture
def desk(store: Path) -> Iterator[Desk]:
    clock = SetClock()
    with SessionManager(SQLiteSessionStorage(store), clock=clock) as manager:
        yield Desk(manager, clock)


def test_a_client_runs_a_workflow_answers_it_and_reads_all_of_it_in_one_session(folder: Path, store: Path) -> None:
    with Pipe(store, *TOOLSETS) as server:
        server.shake_hands()
        first = server.structured("workflow_run", workflow="greet", inputs={"who": "Ada"})
        session = first["session_id"]
        assert first == {"session_id": session, "status": "waiting", "waiting_for": {"ok": "Say 'hello Ada'?"}}
        told = server.structured("workflow_status", session_id=session)
        assert [(step["step"], step["status"]) for step in told["steps"]] == [("a", "completed"), ("ok", "waiting")]
    with Pipe(store, *TOOLSETS) as other:  # a restart later, and another client
        other.shake_hands()
        done = other.structured("workflow_respond", session_id=session, step="ok", approved=True, comment="yes")
        assert done == {"session_id": session, "status": "completed", "outputs": {"said": True}}
        assert other.structured("session_get", session_id=session, key="step.a")["value"] == "hello Ada"
        messages = other.structured("session_messages", session_id=session)["messages"]
        assert [one["content"] for one in messages] == ["hello Ada"]
        calls = [one["tool_name"] for one in other.structured("session_invocations", session_id=session)["invocations"]]
        assert {"workflow_run", "workflow_respond", "workflow.set", "session_add_message"} <= set(calls)
        head = other.structured("session_query", tags=["workflow"])["sessions"]
        assert [(one["session_id"], one["status"], one["purpose"]) for one in head] == [
            (session, "completed", "Workflow: greet")
        ]
        again = other.structured("workflow_run", workflow="greet", session_id=session)
        assert again["outputs"] == {"said": True}


def test_a_client_cancels_a_run_and_goes_on_with_it_by_its_session(folder: Path, store: Path) -> None:
    with Pipe(store, "--toolsets", "core,manage,automation") as server:
        server.shake_hands()
        session = server.structured("workflow_run", workflow="greet", inputs={"who": "Ada"})["session_id"]
        server.structured("session_complete", session_id=session, status="abandoned")
        told = server.structured("workflow_status", session_id=session)
        assert (told["status"], told["error"]) == (
            "cancelled",
            "Its session was ended (abandoned) before it was over.",
        )
        assert "session_update with reopen=true, then workflow_run" in told["note"]
        (folder / "greet.yaml").write_text(GREET.replace("hello", "bye"), encoding="utf-8")
        server.structured("session_update", session_id=session, reopen=True)
        again = server.structured("workflow_run", workflow="greet", session_id=session)
        assert (again["status"], again["waiting_for"]) == ("waiting", {"ok": "Say 'hello Ada'?"})  # its own text
        assert (
            server.structured("workflow_respond", session_id=session, step="ok", approved=True)["status"] == "completed"
        )


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"workflow": "gret"}, "There is no workflow 'gret'"),
    ({"workflow": "../greet"}, "There is no workflow '../greet'"),
    ({"workflow": "/etc/passwd"}, "There is no workflow"),
    ({"workflow": GREET}, "and no text of yours (MCP_SESSIONS_WORKFLOW_TEXT)"),
    ({"workflow": '{"name": "w", "steps": []}'}, "and no text of yours"),
    ({"workflow": "greet"}, "Required input 'who' not provided"),
    ({"workflow": "greet", "inputs": {"who": 1}}, "is an integer, not string"),
    ({"workflow": "broken"}, "broken.yaml:1: unknown key 'nam'. Did you mean 'name'?"),
    ({}, "'workflow' of workflow_run is missing"),
]


def test_what_cannot_run_is_told_and_leaves_no_session(folder: Path, store: Path) -> None:
    (folder / "broken.yaml").write_text("nam: w", encoding="utf-8")
    with Pipe(store, *TOOLSETS) as server:
        server.shake_hands()
        for arguments, fact in REFUSED:
            result = server.call("workflow_run", **arguments)
            assert result["isError"]
            assert fact in result["content"][0]["text"]
        assert server.structured("session_query")["sessions"] == []


def test_without_a_directory_nothing_runs_by_name(store: Path) -> None:
    with Pipe(store, *TOOLSETS) as server:
        server.shake_hands()
        text = server.call("workflow_run", workflow="greet")["content"][0]["text"]
    assert "No directory of workflows is configured. Name it in MCP_SESSIONS_WORKFLOW_DIR." in text


def test_a_text_of_a_client_runs_where_it_may_and_starts_no_server(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCP_SESSIONS_WORKFLOW_TEXT", "true")
    with Pipe(store, *TOOLSETS) as server:
        server.shake_hands()
        done = server.structured(
            "workflow_run", workflow="name: w\nsteps: [{id: a, set: 1}]\noutputs: {a: '{{ steps.a.result }}'}"
        )
        assert (done["status"], done["outputs"]) == ("completed", {"a": 1})
        hostile = {"servers": {"x": {"command": "touch", "args": [str(tmp_path / "pwned")]}}}
        for text in (
            {"name": "w", **hostile, "steps": [{"id": "a", "tool": "x/y"}]},
            {"name": "w", "servers_file": "/etc/hosts", "steps": [{"id": "a", "tool": "x/y"}]},
        ):
            told = server.call("workflow_run", workflow=json.dumps(text))
            assert "servers are for workflows of the workflow directory alone" in told["content"][0]["text"]
        told = server.call("workflow_run", workflow='{"name": "w", "steps": [{"id": "c", "workflow": "/etc/hosts"}]}')
        assert told["structuredContent"]["status"] == "failed"
        bad = server.call("workflow_run", workflow="name: w\nsteps: [{id: a, sett: 1}]")["content"][0]["text"]
        assert "<your text>:2: step 'a': unknown key 'sett'. Did you mean 'set'?" in bad
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("key", [".workflow.run", ".workflow.control", ".workflow.step.ok", ".waits_for"])
def test_no_tool_writes_what_the_engine_goes_by(store: Path, desk: Desk, key: str) -> None:
    """Who could, would let a server run programs, or approve in somebody else's name."""
    desk.manager.create_session("s", data={"own": 1})
    for tool, arguments in (
        ("session_set", {"session_id": "s", "key": key, "value": {}}),
        ("session_create", {"session_id": "t", "data": {key: {}}}),
        ("session_unset", {"session_id": "s", "keys": ["own", key]}),
    ):
        with pytest.raises(InvalidArgumentError, match="is kept by the workflow engine"):
            SESSION_TOOLS.invoke(desk.manager, tool, arguments)
    assert not desk.manager.storage.session_exists("t")
    assert desk.manager.get_value("s", "own") == 1


def test_no_tool_writes_what_a_run_goes_by(store: Path, desk: Desk) -> None:
    """Who could, would turn a no into a yes."""
    text = "name: w\nsteps: [{id: a, set: 1}, {id: ok, approve: Well}]"
    anyio.run(WorkflowEngine(desk.manager).execute, WorkflowDefinition.from_yaml(text), None, "r1")
    before = desk.manager.view("r1", Want(prefix="")).data
    for key in ("workflow_input", "workflow_output", "workflow_status", "step.a", "step.ok"):
        for tool, arguments in (("session_set", {"key": key, "value": {}}), ("session_unset", {"keys": [key]})):
            with pytest.raises(InvalidArgumentError, match=f"Key '{key}' is kept by the workflow that session r1 runs"):
                SESSION_TOOLS.invoke(desk.manager, tool, {"session_id": "r1", **arguments})
    with pytest.raises(InvalidArgumentError, match="Name the keys to remove"):
        SESSION_TOOLS.invoke(desk.manager, "session_unset", {"session_id": "r1", "keys": [], "all": True})
    assert desk.manager.view("r1", Want(prefix="")).data == before
    desk.manager.create_session("s")
    SESSION_TOOLS.invoke(desk.manager, "session_set", {"session_id": "s", "key": "step.a", "value": 1})
    assert SESSION_TOOLS.invoke(desk.manager, "session_unset", {"session_id": "s", "keys": [], "all": True})


def test_agents_of_a_workflow_reach_no_more_than_clients_may(
    store: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "code").mkdir()
    monkeypatch.setenv("MCP_SESSIONS_AGENT_ROOTS", str(tmp_path / "code"))
    monkeypatch.setenv("MCP_SESSIONS_AGENT_EXECUTORS", "claude")
    fake = Fake(tmp_path / "bin", "claude", stdout=json.dumps(RESULT))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    text = (
        "name: w\ninputs: {where: string, who: {type: string, default: claude}}\n"
        "steps:\n  - id: a\n    agent: {use: explore, executor: EXECUTOR, cwd: '{{ inputs.where }}'}\n"
        "    with: {question: 'Where?'}"
    )
    (folder / "one.yaml").write_text(text.replace("EXECUTOR", "claude"), encoding="utf-8")
    (folder / "two.yaml").write_text(text.replace("EXECUTOR", "codex"), encoding="utf-8")
    with Pipe(store, *TOOLSETS) as server:
        server.shake_hands()
        outside = server.structured("workflow_run", workflow="one", inputs={"where": "/etc"})
        assert "is not within" in outside["error"]
        other = server.structured("workflow_run", workflow="two", inputs={"where": str(tmp_path / "code")})
        assert "Executor 'codex' is not configured" in other["error"]
        good = server.structured("workflow_run", workflow="one", inputs={"where": str(tmp_path / "code")})
        assert good["status"] == "completed"
    assert fake.seen["cwd"] == str(tmp_path / "code")


def test_runs_may_be_kept_apart_from_the_other_sessions(
    store: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKFLOW_SESSION_STORAGE", "filesystem")
    monkeypatch.setenv("WORKFLOW_SESSION_PATH", str(tmp_path / "runs"))
    with Pipe(store, *TOOLSETS) as server:
        server.shake_hands()
        session = server.structured("workflow_run", workflow="greet", inputs={"who": "Ada"})["session_id"]
        assert server.structured("workflow_status", session_id=session)["status"] == "waiting"
        assert server.structured("session_query")["sessions"] == []
    assert (tmp_path / "runs" / session / "log.jsonl").exists()
    data = json.loads((tmp_path / "runs" / session / "data.json").read_text(encoding="utf-8"))
    assert data["workflow_status"] == "waiting"


def test_a_client_that_gives_up_leaves_a_run_that_can_go_on(store: Path, folder: Path, desk: Desk) -> None:
    (folder / "long.yaml").write_text(
        "name: long\nsteps: [{id: a, set: 1}, {id: b, sleep: 1h}, {id: c, set: 3}]", encoding="utf-8"
    )
    with Pipe(store, *TOOLSETS) as server:
        server.shake_hands()
        number = server.begin("workflow_run", workflow="long", session_id="r1")
        until(lambda: desk.manager.storage.session_exists("r1"))
        until(lambda: bool(desk.records("r1", tool="workflow.sleep", status="running")))
        server.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": number}})
        until(lambda: not desk.records("r1", tool="workflow_run", status="running"))
        until(lambda: not desk.records("r1", tool="workflow.sleep", status="running"))
        told = server.structured("workflow_status", session_id="r1")
    assert told["status"] == "running"
    assert told["note"] == "No process goes on with it. workflow_run with this session_id does."


def test_a_hundred_workflows_hold_up_nobody_and_go_on_after_a_restart(folder: Path, store: Path, desk: Desk) -> None:
    long = "name: long\nsteps: [{id: a, set: 1}, {id: b, sleep: 1h}]"
    (folder / "long.yaml").write_text(long, encoding="utf-8")
    engine = WorkflowEngine(desk.manager)
    with Pipe(store, *TOOLSETS) as server:
        server.shake_hands()
        running = [server.begin("workflow_run", workflow="long", session_id=f"r{number}") for number in range(100)]
        until(lambda: len(desk.records(None, tool="workflow.sleep", status="running")) == 100)
        assert server.structured("session_get", session_id="r0", key="step.a")["value"] == 1
        assert not server.has_answered(running)
        server.close_stdin()
        assert server.end() == 0
    assert {(run.status, run.at_work) for run in engine.list_runs()} == {(WorkflowStatus.RUNNING, False)}
    assert len(engine.list_runs()) == 100


def test_the_tools_are_told_in_few_words() -> None:
    box = workflow_tools(Offer(None))
    assert [tool.name for tool in box] == ["workflow_run", "workflow_status", "workflow_respond"]
    assert len(json.dumps([[tool.name, tool.description, tool.input_schema()] for tool in box])) < 1600
    assert isinstance(box, Toolbox)
