"""`mcp-sessions agent`: a question about a codebase, asked of a real program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mcp_sessions.manager import SessionManager
from tests.agents.fakes import RESULT, Fake, gone, lines
from tests.processes import Child, until
from tests.storage.programs import hold_lock

from .conftest import ROOT, Program, Run
from .terminals import on_terminal

ANSWER = json.dumps(RESULT)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def test_a_question_is_answered_and_its_session_goes_on(
    programs: Path, tmp_path: Path, manager: SessionManager, program: Program
) -> None:
    fake = Fake(programs, "claude", stdout=ANSWER)
    (tmp_path / "code").mkdir()
    first = program("agent", "explore", "Where is login?", "--path", "code", "--session", "mine")
    assert (first.returncode, first.stdout) == (0, "It is in auth.py:3.\n")
    assert first.stderr.startswith("Session mine: claude-sonnet-4-5, ")
    assert first.stderr.endswith(" s, 0.0787 USD (reported).\n")
    assert fake.seen["cwd"] == str(tmp_path / "code")
    second = program("agent", "find-usage", "login", "--session", "mine", "--json")
    told = json.loads(second.stdout)
    record = manager.invocations("mine").items[0]
    assert told == {
        "session_id": "mine",
        "operation": "find_usage",
        "result": "It is in auth.py:3.",
        "invocation_id": record.invocation_id,
        "cost": 0.0787,
    }
    assert "**User**: Where is login?" in fake.seen["stdin"]
    assert (record.caller, manager.metadata("mine").message_count) == ("agent:explore", 4)


def test_a_question_is_taken_apart(programs: Path, manager: SessionManager, program: Program) -> None:
    subtopics = [
        {"id": name, "title": "t", "exploration_task": "e", "importance": "low", "expected_findings": ""}
        for name in "ab"
    ]
    Fake(programs, "copilot", stdout=json.dumps({"reasoning": "r", "subtopics": subtopics}))
    ran = program("agent", "decompose", "Why?", "--executor", "copilot")
    taken_apart = {"reasoning": "r", "subtopics": subtopics, "subtopic_count": 2}
    assert json.loads(ran.stdout) == taken_apart
    assert "cost unknown" in ran.stderr
    answers = [json.dumps({**RESULT, "result": text}) for text in ("I cannot.", json.dumps(taken_apart))]
    Fake(programs, "claude", answers=answers)
    told = json.loads(program("agent", "decompose", "Why?", "--session", "mine", "--json").stdout)
    again, first = manager.invocations("mine").items
    assert (told["result"], told["invocation_id"], told["cost"]) == (taken_apart, first.invocation_id, 2 * 0.0787)
    assert again.status == first.status == "ok"


def test_on_a_terminal_an_answer_is_shown_as_it_comes_and_does_not_act(programs: Path, place: Path) -> None:
    deltas = (
        {"type": "stream_event", "event": {"delta": {"type": "text_delta", "text": text}}}
        for text in ("It is\n", "in \x1b[31mauth.py")
    )
    fake = Fake(programs, "claude", stdout=lines(*deltas, RESULT))
    shown = on_terminal("agent", "explore", "Where?", columns=80)
    assert shown.startswith("It is\r\nin \\x1b[31mauth.py\r\nSession ")
    assert "stream-json" in fake.seen["argv"]


def test_on_a_terminal_an_answer_that_comes_at_once_is_shown_too(programs: Path, place: Path) -> None:
    Fake(programs, "claude", stdout=json.dumps({**RESULT, "result": "It is\x1b[31m here."}))
    assert on_terminal("agent", "explore", "Where?", columns=80).startswith("It is\\x1b[31m here.\r\nSession ")


def test_what_is_set_for_agents_holds_for_the_command(programs: Path, program: Program) -> None:
    fake = Fake(programs, "copilot", stdout="There.")
    settings = {f"MCP_SESSIONS_AGENT_{name}": value for name, value in (("EXECUTORS", "copilot"), ("ENV", "MY_KEY"))}
    ran = program("agent", "explore", "Where?", MY_KEY="mine", YOUR_KEY="yours", **settings)
    assert ran.stdout == "There.\n"
    assert fake.seen["env"]["MY_KEY"] == "mine"
    assert "YOUR_KEY" not in fake.seen["env"]
    for name, value, told in (("OUTPUT_BYTES", "3", "more than 3 bytes"), ("TIMEOUT", "1s", "timed out after 1 sec")):
        Fake(programs, "copilot", stdout="There.", hangs=True)
        ran = program("agent", "explore", "Where?", "--executor", "copilot", **{f"MCP_SESSIONS_AGENT_{name}": value})
        assert (ran.returncode, ran.stdout) == (1, "")
        assert told in ran.stderr


def test_where_no_executor_is_configured_only_one_that_is_named_is_asked(
    programs: Path, manager: SessionManager, program: Program
) -> None:
    fake = Fake(programs, "copilot", stdout="There.")
    none = {"MCP_SESSIONS_AGENT_EXECUTORS": ","}
    ran = program("agent", "explore", "Where?", **none)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "No executor is configured. Name some in MCP_SESSIONS_AGENT_EXECUTORS" in ran.stderr
    assert not fake.path.with_suffix(".seen").exists()
    assert manager.query().items == []
    assert program("agent", "explore", "Where?", "--executor", "copilot", **none).stdout == "There.\n"


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (("explore",), 2, "Missing argument 'QUESTION'"),
        (("delete", "x"), 2, "OPERATION"),
        (("explore", "q", "--executor", "vim"), 2, "Executor 'vim' is not known"),
        (("explore", "q", "--model", "--version"), 2, "model"),
        (("explore", "q", "--path", "nowhere"), 2, "Directory 'nowhere' does not exist"),
        (("find-usage", " "), 2, "QUESTION is empty: say what to find usage"),
        (("explore", "q", "--session", "../x"), 2, "--session '../x' is not an id"),
        (("explore", "q"), 1, "claude failed with exit code 1: not logged in"),
    ],
)
def test_what_cannot_be_is_an_error_of_one_line(
    args: tuple[str, ...], code: int, told: str, programs: Path, manager: SessionManager, run: Run
) -> None:
    Fake(programs, "claude", code=1, stderr="not logged in")
    ran = run("agent", *args)
    assert ran.exit_code == code
    assert ran.stdout == ""
    assert told in ran.stderr
    assert len(manager.query().items) == (code == 1)  # where nobody was asked, no session is left


@pytest.mark.parametrize("next_one", ["agent explore Where? --session b", "workflow run next.yaml"])
def test_a_question_whose_command_was_killed_is_on_record_as_interrupted_after_the_next_command(
    next_one: str, programs: Path, manager: SessionManager, program: Program, tmp_path: Path
) -> None:
    (tmp_path / "next.yaml").write_text("name: next\nsteps: [{id: one, set: 1}]\n", encoding="utf-8")
    next_one = next_one.replace("next.yaml", str(tmp_path / "next.yaml"))
    fake = Fake(programs, "claude", children=True, hangs=True)
    ask = [sys.executable, "-m", "mcp_sessions", "agent", "explore", "Where?", "--session", "a"]
    with subprocess.Popen(ask, env={**os.environ, "PYTHONPATH": str(ROOT)}) as asking:
        started = fake.started()
        asking.kill()
    for pid in started:  # of a command that is killed, nobody is left to end them
        os.kill(pid, signal.SIGKILL)
    assert manager.invocations("a").items[0].status == "running"
    Fake(programs, "claude", stdout=ANSWER)
    assert program(*next_one.split()).returncode == 0
    assert manager.invocations("a").items[0].status == "interrupted"


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_question_that_is_given_up_leaves_no_process(by: int, programs: Path, manager: SessionManager) -> None:
    fake = Fake(programs, "claude", children=True, hangs=True)
    asking = subprocess.Popen(
        [sys.executable, "-m", "mcp_sessions", "agent", "explore", "q", "--session", "mine"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    started = fake.started()
    asking.send_signal(by)
    _, talk = asking.communicate()
    assert asking.returncode == 1
    assert b"Aborted" in talk
    assert all(map(gone, started))
    assert [record.status for record in manager.invocations("mine").items] == ["cancelled"]
    assert manager.metadata("mine").message_count == 0


def test_at_its_end_it_is_not_cut_off_by_a_second_signal_and_waits_for_no_other_process(
    programs: Path, place: Path, manager: SessionManager
) -> None:
    """The second signal ended the command alone, and what the first one had to end went on."""
    fake = Fake(programs, "claude", children=True, hangs=True)
    asking = subprocess.Popen(
        [sys.executable, "-m", "mcp_sessions", "agent", "explore", "q", "--session", "mine"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    started = fake.started()
    with Child(hold_lock, str(place)) as holder:
        assert holder.hear() == "locked"
        asking.send_signal(signal.SIGTERM)
        until(lambda: all(map(gone, started)))  # so the first one was heard
        asking.send_signal(signal.SIGTERM)
        _, talk = asking.communicate()
    assert asking.returncode == 1
    assert talk.splitlines()[-1].endswith(
        "is held by another process, and this process is ending. Nothing was written. Retry."
    )
    manager.interrupt_dead()
    assert [record.status for record in manager.invocations("mine").items] == ["interrupted"]


def test_a_signal_that_was_ignored_from_the_beginning_ends_nothing(programs: Path, place: Path) -> None:
    """Under `nohup` it was aborted when the terminal was closed."""
    fake = Fake(programs, "claude", stdout=ANSWER, held=True)
    deaf = ["sh", "-c", 'trap "" HUP INT QUIT; exec "$@"', "sh"]
    asking = subprocess.Popen(
        [*deaf, sys.executable, "-m", "mcp_sessions", "agent", "explore", "q"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    fake.waits()
    for by in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        asking.send_signal(by)
    fake.release()
    assert (asking.communicate()[0], asking.returncode) == ("It is in auth.py:3.\n", 0)
