"""`mcp-sessions get` and `set`: values of keys, by hand."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from typing import Any

import pytest

from mcp_sessions.manager import SessionManager

from .conftest import ROOT, Program, Run


@pytest.fixture
def session_id(manager: SessionManager) -> str:
    data = {"plan": {"steps": [1, 2.5, None, True], "für": "x"}, "note": "two\nlines \x1b[31m\x9b", ".hidden": 1}
    return manager.create_session("ses-1", data=data).session_id


def test_get_prints_a_value_as_json(session_id: str, run: Run) -> None:
    result = run("get", session_id, "plan")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"steps": [1, 2.5, None, True], "für": "x"}
    assert "für" in result.stdout


def test_get_raw_prints_a_string_as_it_is(session_id: str, program: Program) -> None:
    assert program("get", session_id, "note", "--raw").stdout == "two\nlines \x1b[31m\x9b\n"
    assert json.loads(program("get", session_id, "plan", "--raw").stdout)["steps"][0] == 1


@pytest.mark.parametrize("option", ["--raw", "--json"])
def test_on_a_terminal_a_value_does_not_act(session_id: str, option: str) -> None:
    controller, terminal = pty.openpty()
    subprocess.run(
        [sys.executable, "-m", "mcp_sessions", "get", session_id, "note", option],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        check=True,
    )
    written = os.read(controller, 65536).decode()
    os.close(controller)
    os.close(terminal)
    assert "lines" in written
    assert not set(written) & set("\x1b\x9b")


def test_get_json_tells_the_version(manager: SessionManager, session_id: str, run: Run) -> None:
    version = manager.set_value(session_id, "plan", []).version
    answer = json.loads(run("get", session_id, "plan", "--json").stdout)
    assert answer == {"session_id": session_id, "key": "plan", "version": version, "value": []}


def test_get_without_a_key_lists_the_keys(session_id: str, run: Run) -> None:
    assert run("get", session_id).stdout == "note\nplan\n"
    keys = json.loads(run("get", session_id, "--json").stdout)
    assert [entry["key"] for entry in keys] == ["note", "plan"]
    assert all(entry["version"] == keys[0]["version"] for entry in keys)


def test_names_of_keys_are_one_a_line_and_act_on_nothing(manager: SessionManager, run: Run) -> None:
    manager.create_session("s", data={"two\nlines\x9b31m": 1})
    assert run("get", "s").stdout == "two lines\\x9b31m\n"


def test_an_internal_key_is_shown_when_it_is_named(session_id: str, run: Run) -> None:
    assert run("get", session_id, ".hidden").stdout == "1\n"


@pytest.mark.parametrize(
    ("key", "hint"), [("plam", "did you mean 'plan'? It has note, plan."), ("zzz", "it has note, plan.")]
)
def test_a_key_that_is_not_there_is_not_found_and_names_those_that_are(
    session_id: str, run: Run, key: str, hint: str
) -> None:
    result = run("get", session_id, key)
    assert result.exit_code == 3
    assert result.stdout == ""
    assert result.stderr == f"Error: Session ses-1 has no key '{key}': {hint}\n"


def test_a_session_without_keys_says_so(manager: SessionManager, run: Run) -> None:
    manager.create_session("empty")
    assert run("get", "empty", "k").stderr == "Error: Session empty has no key 'k': it has none yet.\n"
    assert run("get", "empty").stdout == ""


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, null]}', {"a": [1, None]}),
        ("-5", -5),
        ("--string", None),
        ("true", True),
        ('"quoted"', "quoted"),
        ("plain words", "plain words"),
        ("[1", "[1"),
        ("NaN", "NaN"),
        ("-Infinity", "-Infinity"),
        ("", ""),
        ("[" * 100_000, "[" * 100_000),
        ("9" * 5000, "9" * 5000),
    ],
    ids=lambda part: repr(part)[:20],
)
def test_set_takes_json_or_else_text(manager: SessionManager, session_id: str, run: Run, text: str, value: Any) -> None:
    result = run("set", session_id, "new", text)
    if text == "--string":
        assert result.exit_code == 2  # an option, so the value is missing
        return
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    assert manager.get_value(session_id, "new") == value


def test_set_string_takes_text_only(manager: SessionManager, session_id: str, run: Run) -> None:
    assert run("set", session_id, "new", "[1]", "--string").exit_code == 0
    assert manager.get_value(session_id, "new") == "[1]"


def test_set_is_a_recorded_call_of_the_command_line(manager: SessionManager, session_id: str, run: Run) -> None:
    answer = json.loads(run("set", "ses", "answer", "42", "--json").stdout)
    assert answer == {"session_id": session_id, "key": "answer", "version": manager.metadata(session_id).revision}
    (record,) = manager.invocations(session_id).items
    assert (record.tool_name, record.caller, record.status.value) == ("session_set", "cli", "ok")
    assert record.result == {"session_id": session_id, "key": "answer", "version": answer["version"]}


def test_reading_by_hand_is_not_recorded(manager: SessionManager, session_id: str, run: Run) -> None:
    for args in (["ls"], ["show", "-"], ["get", "-", "plan"], ["get", "-"]):
        assert run(*args).exit_code == 0
    assert manager.invocations().items == []


def test_set_under_a_condition_that_fails_changes_nothing(manager: SessionManager, session_id: str, run: Run) -> None:
    assert run("set", session_id, "plan", "1", "--if-version", "0").exit_code == 1
    assert manager.get_value(session_id, "plan")["für"] == "x"
    assert run("set", session_id, "fresh", "1", "--if-version", "0").exit_code == 0
    assert manager.get_value(session_id, "fresh") == 1


def test_set_in_an_ended_session_fails_and_says_so(manager: SessionManager, session_id: str, run: Run) -> None:
    manager.complete_session(session_id)
    result = run("set", session_id, "plan", "1")
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: Session ses-1 is completed, so it no longer changes.")


def test_a_key_that_is_too_long_is_a_usage_mistake(session_id: str, run: Run) -> None:
    result = run("set", session_id, "k" * 300, "1")
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
