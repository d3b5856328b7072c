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

from .conftest import ROOT, Program
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
    assert json.loads(ran.stdout) == {"reasoning": "r", "subtopics": subtopics}
    assert "cost unknown" in ran.stderr


def test_on_a_terminal_an_answer_is_shown_as_it_comes_and_does_not_act(programs: Path, place: Path) -> None:
    deltas = (
        {"type": "stream_event", "event": {"delta": {"type": "text_delta", "text": text}}}
        for text in ("It is\n", "in \x1b[31mauth.py")
    )
    fake = Fake(programs, "claude", stdout=lines(*deltas, RESULT))
    shown = on_terminal("agent", "explore", "Where?", columns=80)
    assert shown.startswith("It is\r\nin \\x1b[31mauth.py\r\nSession ")
    assert "stream-json" in fake.seen["argv"]


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (("explore",), 2, "Missing argument 'QUESTION'"),
        (("delete", "x"), 2, "OPERATION"),
        (("explore", "q", "--executor", "vim"), 2, "Executor 'vim' is not known"),
        (("explore", "q", "--model", "--version"), 2, "model"),
        (("explore", "q", "--path", "nowhere"), 2, "is no directory"),
        (("explore", "q", "--session", "../x"), 2, "--session '../x' is not an id"),
        (("explore", "q"), 1, "claude failed with exit code 1: not logged in"),
    ],
)
def test_what_cannot_be_is_an_error_of_one_line(
    args: tuple[str, ...], code: int, told: str, programs: Path, place: Path, program: Program
) -> None:
    Fake(programs, "claude", code=1, stderr="not logged in")
    ran = program("agent", *args)
    assert ran.returncode == code
    assert ran.stdout == ""
    assert told in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
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
