"""`mcp-sessions workflow`: run, look, answer, cancel; as a person at a shell does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mcp_sessions.manager import SessionManager
from tests.agents.fakes import Fake
from tests.processes import until

from .conftest import ROOT, Program, Run
from .terminals import on_terminal

GREET = """
name: greet
inputs: {who: {type: string, required: true}, times: {type: integer, default: 1}}
steps:
  - {id: a, set: "hello {{ inputs.who }} {{ inputs.times }}"}
  - {id: ok, approve: "Say '{{ steps.a.result }}'?"}
  - {id: b, if: steps.ok.result.approved, set: "{{ steps.ok.result.comment }}"}
outputs: {comment: "{{ steps.b.result }}"}
"""


@pytest.fixture(autouse=True)
def greet(tmp_path: Path) -> Path:
    file = tmp_path / "greet.yaml"
    file.write_text(GREET, encoding="utf-8")
    return file


def test_a_run_waits_is_looked_at_answered_and_completed(place: Path, run: Run) -> None:
    first = run("workflow", "run", "greet.yaml", "--input", "who=Ada", "--input", "times=2", "--session-id", "r1")
    assert (first.exit_code, first.stdout) == (1, "{}\n")
    assert "ok asks: Say 'hello Ada 2'?" in first.stderr
    assert "mcp-sessions workflow respond r1 ok --approve (or --reject)" in first.stderr
    shown = run("workflow", "status", "r1")
    assert [line.split()[:2] for line in shown.stdout.splitlines()[2:4]] == [["a", "completed"], ["ok", "waiting"]]
    assert run("workflow", "status", "-").stdout == shown.stdout
    done = run("workflow", "respond", "r1", "ok", "--approve", "--comment", "fine")
    assert (done.exit_code, json.loads(done.stdout)) == (0, {"comment": "fine"})
    told = json.loads(run("workflow", "status", "r", "--json").stdout)
    assert (told["status"], told["step_results"]["ok"]["result"]["by"]) == ("completed", "cli")
    assert run("workflow", "resume", "r1").exit_code == 0
    again = run("workflow", "resume", "r1", "--from", "b", "--json")
    assert (again.exit_code, json.loads(again.stdout)["outputs"]) == (0, {"comment": "fine"})


def test_validate_tells_each_line_and_ends_with_2(run: Run, tmp_path: Path) -> None:
    good = run("workflow", "validate", "greet.yaml")
    assert (good.exit_code, good.stdout) == (0, "greet.yaml: greet is fine: 3 steps.\n")
    (tmp_path / "bad.yaml").write_text(GREET.replace("approve:", "aprove:").replace("steps.a.", "steps.x."), "utf-8")
    bad = run("workflow", "validate", "bad.yaml")
    assert (bad.exit_code, bad.stdout) == (2, "")
    assert bad.stderr.startswith("bad.yaml:6: step 'ok': unknown key 'aprove'. Did you mean 'approve'?\n")
    told = json.loads(run("workflow", "validate", "bad.yaml", "--json").stdout)
    assert (told["valid"], told["faults"]) == (False, bad.stderr.splitlines())
    (tmp_path / "tool.yaml").write_text("steps: [{id: a, tool: session_gt, with: {session_id: x}}]", encoding="utf-8")
    assert "Did you mean 'session_get'?" in run("workflow", "validate", "tool.yaml").stderr


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("steps: [{id: a, workflow: none.yaml}]", "There is no workflow file"),
        ("steps: [{id: a, agent: {executor: cluade}, with: {prompt: x}}]", "asks the executor 'cluade'"),
        ("servers_file: none.json\nsteps: [{id: a, tool: x/y}]", "the servers file cannot be read"),
        ("servers: {x: {command: x}}\nsteps: [{id: a, tool: x/y, with: {k: '{{ secrets.K }}'}}]", None),
    ],
)
def test_validate_looks_at_what_a_run_needs_but_for_secrets(
    run: Run, tmp_path: Path, text: str, told: str | None
) -> None:
    (tmp_path / "w.yaml").write_text(text, encoding="utf-8")
    result = run("workflow", "validate", "w.yaml")
    assert (result.exit_code, (told or "") in result.stderr) == (2 if told else 0, True), result.stderr


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (("run", "none.yaml"), 3, "none.yaml: Workflow file not found."),
        (("run", "greet.yaml"), 2, "Required input 'who' not provided."),
        (("run", "greet.yaml", "--input", "who"), 2, "is no NAME=VALUE"),
        (("run", "greet.yaml", "--input", "whom=x"), 2, "Unknown input 'whom' of greet: Did you mean 'who'?"),
        (("run", "greet.yaml", "--input", "who=x", "--input", "times=x"), 2, "'x' is not integer"),
        (("run", "greet.yaml", "--input", "who=x", "--session-id", "../x"), 2, "--session-id '../x' is not an id"),
        (("status", "none"), 3, "Session none not found"),
        (("respond", "plain", "a", "--approve"), 3, "Session plain has no run of a workflow"),
        (("respond", "plain", "a"), 2, "Say --approve or --reject."),
    ],
)
def test_what_cannot_be_done_says_why(
    args: tuple[str, ...], code: int, told: str, manager: SessionManager, run: Run
) -> None:
    manager.create_session("plain")
    result = run("workflow", *args)
    assert (result.exit_code, told in result.stderr) == (code, True), result.stderr


def test_a_failed_run_ends_with_1_and_a_cancelled_one_stays_so(place: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "fails.yaml").write_text("name: f\nsteps: [{id: a, fail: 'no way'}]", encoding="utf-8")
    failed = run("workflow", "run", "fails.yaml", "--session-id", "f1")
    assert failed.exit_code == 1
    assert "Step 'a' failed: no way" in failed.stderr
    run("workflow", "run", "greet.yaml", "--input", "who=x", "--session-id", "r1")
    assert "Session r1: cancelled." in run("workflow", "cancel", "r1", "--reason", "enough").stderr
    assert json.loads(run("workflow", "cancel", "r1", "--json").stdout)["error"] == "enough"
    listed = json.loads(run("workflow", "ls", "--json").stdout)
    assert [(one["session_id"], one["status"]) for one in listed] == [("r1", "cancelled"), ("f1", "failed")]
    assert [line.split()[0] for line in run("workflow", "ls", "--workflow", "f").stdout.splitlines()] == [
        "SESSION",
        "f1",
    ]


def test_before_the_first_run_nothing_is_made(place: Path, run: Run) -> None:
    assert "There are no runs yet" in run("workflow", "ls").stderr
    assert json.loads(run("workflow", "ls", "--json").stdout) == []
    assert not place.exists()


def test_a_name_is_looked_for_in_the_directory_of_workflows(
    place: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "one.yaml").write_text("name: one\nsteps: [{id: a, set: 1}]", encoding="utf-8")
    monkeypatch.setenv("MCP_SESSIONS_WORKFLOW_DIR", str(tmp_path / "flows"))
    assert run("workflow", "run", "one").exit_code == 0
    none = run("workflow", "run", "two")
    assert (none.exit_code, "There is no workflow 'two'" in none.stderr) == (3, True)
    monkeypatch.setenv("MCP_SESSIONS_WORKFLOW_DIR", str(tmp_path / "flaws"))
    assert f"The directory of workflows, {tmp_path / 'flaws'}, is not there." in run("workflow", "run", "one").stderr


def test_runs_go_where_the_settings_say(place: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKFLOW_SESSION_PATH", str(tmp_path / "runs"))
    run("workflow", "run", "greet.yaml", "--input", "who=x", "--session-id", "r1")
    assert (tmp_path / "runs" / "r1" / "log.jsonl").exists()
    assert run("workflow", "status", "r1").exit_code == 0
    assert not place.exists()
    monkeypatch.setenv("WORKFLOW_SESSION_STORAGE", "memory")
    lost = run("workflow", "run", "greet.yaml", "--input", "who=x")
    assert (lost.exit_code, lost.stdout) == (1, "")
    assert "The run waits for a person (ok), and is gone with this process: its store is memory." in lost.stderr
    monkeypatch.setenv("WORKFLOW_SESSION_STORAGE", "filesystem")
    monkeypatch.delenv("WORKFLOW_SESSION_PATH")
    refused = run("workflow", "run", "greet.yaml", "--input", "who=x")
    assert (refused.exit_code, "WORKFLOW_SESSION_PATH does not say where" in refused.stderr) == (2, True)


def test_an_agent_of_a_workflow_is_the_one_of_the_settings_and_has_their_time(
    tmp_path: Path, manager: SessionManager, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Fake(tmp_path / "bin", "copilot", hangs=True)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("MCP_SESSIONS_AGENT_EXECUTORS", "copilot,claude")
    monkeypatch.setenv("MCP_SESSIONS_AGENT_TIMEOUT", "2")
    monkeypatch.setenv("MCP_SESSIONS_AGENT_ROOTS", str(tmp_path / "bin"))  # for clients, and not for who sits here
    text = "steps: [{id: a, agent: {instructions: Be brief., cwd: .}, with: {prompt: Well}}]"
    (tmp_path / "ask.yaml").write_text(text, encoding="utf-8")
    failed = program("workflow", "run", "ask.yaml", "--session-id", "r1")
    assert (failed.returncode, "2 s" in failed.stderr) == (1, True), failed.stderr
    assert fake.seen["cwd"] == str(tmp_path)


def test_the_schema_is_json(run: Run) -> None:
    schema = json.loads(run("workflow", "schema").stdout)
    assert schema["title"] == "mcp-sessions workflow"
    assert {"name", "steps", "outputs"} <= schema["properties"].keys()


def test_on_a_terminal_the_steps_are_shown_as_they_go(place: Path, tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text("name: two\nsteps: [{id: first, set: 1}, {id: second, sleep: 200ms}]", "utf-8")
    shown = on_terminal("workflow", "run", "two.yaml", columns=80)
    assert "first" in shown
    assert "completed" in shown


def test_ctrl_c_leaves_a_run_that_goes_on(manager: SessionManager, tmp_path: Path, program: Program) -> None:
    (tmp_path / "long.yaml").write_text(
        "name: l\nsteps: [{id: a, set: 1}, {id: b, sleep: 2s}, {id: c, set: 3}]", "utf-8"
    )
    with subprocess.Popen(
        [sys.executable, "-m", "mcp_sessions", "workflow", "run", "long.yaml", "--session-id", "r1"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        until(lambda: manager.storage.session_exists("r1") and bool(manager.invocations("r1", "workflow.sleep").items))
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "The run stays where it is. Go on with it: mcp-sessions workflow resume r1" in errors
    assert "No process goes on with it" in program("workflow", "status", "r1").stderr
    assert program("workflow", "resume", "r1").returncode == 0
