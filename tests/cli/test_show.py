"""`mcp-sessions show`: one session, and which one an ID means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mcp_sessions.manager import SessionManager
from mcp_sessions.storage import SQLiteSessionStorage
from mcp_sessions.tools import invoke

from .conftest import Run


@pytest.fixture
def session_id(manager: SessionManager) -> str:
    """A session with some of everything."""
    session_id = manager.create_session(
        "ses-main", purpose="find the leak", tags=["bug", "memory"], user_id="ada", custom_metadata={"pr": 7}
    ).session_id
    for number in range(1, 13):
        manager.add_conversation_message(session_id, "user", f"message {number}")
    for number in range(12):
        invoke(manager, "session_set", {"session_id": session_id, "key": f"key{number}", "value": {"n": number}})
    with pytest.raises(OSError, match="no such"), manager.call("read_file", session_id, {"path": "a"}, "agent:x"):
        raise OSError("no such file")
    manager.record_usage(session_id, "gpt-4o", 1000, 200, 400, cost=0.5)
    manager.complete_session(session_id, summary="It was\nthe cache.")
    return session_id


def shown(run: Run, *args: str) -> str:
    result = run("show", *args)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


def whole(run: Run, *args: str) -> dict[str, Any]:
    return json.loads(shown(run, *args, "--json"))


def test_it_shows_head_summary_keys_last_messages_and_last_calls(session_id: str, run: Run) -> None:
    text = shown(run, session_id)
    facts = dict(line.split(maxsplit=1) for line in text.split("\n\n")[0].splitlines())
    assert facts["session"] == "ses-main"
    assert facts["status"] == "completed"
    assert facts["tags"] == "bug, memory"
    assert facts["messages"] == "12"
    assert facts["calls"].startswith("1, 1 failed, ")
    assert facts["tokens"] == "1,000 in (400 read from the cache, 0 written to it), 200 out"
    assert facts["cost"] == "$0.5000"
    assert facts["metadata"] == '{"pr": 7}'
    assert "Summary\nIt was\nthe cache.\n" in text
    assert "12 keys\nkey0, key1, key10, " in text
    assert "Messages 3 to 12\n3  " in text
    assert "message 2\n" not in text
    assert "user  message 12\n" in text
    calls = text.partition("Last 10 calls\n")[2].splitlines()
    assert calls[0].split() == ["started", "took", "status", "caller", "tool", "error"]
    assert calls[-1].split()[2:] == ["error", "agent:x", "read_file", "no", "such", "file"]
    assert len(calls) == 11


def test_calls_within_calls_are_set_in(manager: SessionManager, run: Run) -> None:
    manager.create_session("s")
    for tool, around in (("outer", None), ("inner", "outer"), ("innermost", "inner"), ("beside", None)):
        with manager.call(tool, "s", invocation_id=tool, parent_id=around, slow=True):
            pass
    lines = shown(run, "s").partition("Last 4 calls\n")[2].splitlines()
    place = lines[0].index("tool")
    assert [line[place:] for line in lines[1:]] == ["outer", "  inner", "    innermost", "beside"]


def test_how_much_is_shown_can_be_chosen(session_id: str, run: Run) -> None:
    text = shown(run, session_id, "--messages", "1", "--calls", "all", "--data")
    assert "Messages 12 to 12\n" in text
    assert "Last 13 calls\n" in text
    assert 'key3 (version 17): {"n": 3}\n' in text
    text = shown(run, session_id, "--messages", "0", "--calls", "0")
    assert "Messages " not in text
    assert "Last " not in text
    assert "message 1\n" in shown(run, session_id, "--messages", "all")


@pytest.mark.parametrize("number", ["-1", "x", "1.5", ""])
def test_a_number_that_is_none_is_a_usage_mistake(session_id: str, run: Run, number: str) -> None:
    result = run("show", session_id, "--messages", number)
    assert result.exit_code == 2
    assert "neither a number nor all" in result.stderr


def test_long_values_are_shortened_unless_full(manager: SessionManager, run: Run) -> None:
    long = "word " * 1000
    manager.create_session("s", data={"note": long})
    manager.add_conversation_message("s", "assistant", long + "\nlast line")
    with manager.call("run_tests", "s", {"only": "fast"}):
        pass
    short = shown(run, "s", "--data")
    assert "… (5,010 characters)" in short
    assert "… (5,002 characters)" in short
    assert len(short) < 1500
    assert '"only"' not in short
    full = shown(run, "s", "--data", "--full")
    assert f"{long}\nlast line\n" in full
    assert f'"{long}"' in full
    assert '"only": "fast"' in full


def test_stored_text_does_not_act_on_the_terminal(manager: SessionManager, run: Run) -> None:
    evil = "a\x1b[2J\x9b31m\u202eb\rc"
    manager.create_session("s", purpose=evil, tags=[evil], custom_metadata={evil: evil}, data={evil: evil})
    manager.add_conversation_message("s", "tool", f"{evil}\r\nnext", tool_name=evil)
    with pytest.raises(ValueError, match="x"), manager.call(evil, "s", {evil: evil}, evil):
        raise ValueError(evil + "x")
    manager.complete_session("s", summary=evil)
    for args in ([], ["--data"], ["--full", "--data"], ["--json"]):
        text = shown(run, "s", *args)
        assert not set(text) & set("\x1b\x9b\u202e\r"), args
    assert "\nnext\n" in shown(run, "s", "--full")


def test_json_is_all_of_it(manager: SessionManager, session_id: str, run: Run) -> None:
    everything = whole(run, session_id)
    assert everything["session"] == manager.metadata(session_id).to_dict()
    assert everything["data"] == {
        f"key{number}": {"value": {"n": number}, "version": 14 + number} for number in range(12)
    }
    assert [message["seq"] for message in everything["messages"]] == list(range(1, 13))
    assert [record["tool_name"] for record in everything["invocations"]] == ["session_set"] * 12 + ["read_file"]
    assert whole(run, session_id, "--messages", "2", "--calls", "0")["messages"] == everything["messages"][-2:]


def test_json_goes_over_every_page(manager: SessionManager, run: Run) -> None:
    manager.create_session("s")
    for number in range(1001):
        invoke(manager, "session_get", {"session_id": "s", "key": f"k{number}"})
    manager.reads.flush()
    keys = [record["arguments"]["key"] for record in whole(run, "s")["invocations"]]
    assert keys == [f"k{number}" for number in range(1001)]


def test_a_session_is_known_by_its_beginning_or_as_the_latest(manager: SessionManager, run: Run) -> None:
    for name in ("alpha-1", "alpha-2", "beta", "bet"):
        manager.create_session(name)
    manager.set_value("alpha-1", "k", 1)
    assert whole(run, "alpha-2")["session"]["session_id"] == "alpha-2"
    assert whole(run, "beta")["session"]["session_id"] == "beta"
    assert whole(run, "bet")["session"]["session_id"] == "bet"
    assert whole(run, "-")["session"]["session_id"] == "alpha-1"


def test_a_beginning_of_several_is_a_usage_mistake_that_names_them(manager: SessionManager, run: Run) -> None:
    manager.create_session("alpha-1", purpose="one")
    manager.create_session("alpha-2")
    manager.create_session("x-alpha")
    result = run("show", "alpha")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == (
        "Error: Several sessions have an ID that begins with alpha: alpha-2, alpha-1 (one). Write more of it.\n"
    )


def test_many_that_only_contain_the_letters_hide_none_that_begins_with_them(place: Path, run: Run) -> None:
    with SessionManager(SQLiteSessionStorage(place, durability="process")) as manager:
        manager.create_session("abc-old")
        for _ in range(1001):
            manager.create_session(purpose="about abc")
    assert whole(run, "abc", "--messages", "0")["session"]["session_id"] == "abc-old"


@pytest.mark.parametrize(
    ("meant", "hint"),
    [
        ("alhpa", "did you mean alpha (release notes)?"),
        ("notes", "did you mean alpha (release notes)?"),
        ("zzz", "`mcp-sessions ls` lists the sessions."),
    ],
)
def test_a_session_that_is_not_there_is_not_found_with_near_ones(
    manager: SessionManager, run: Run, meant: str, hint: str
) -> None:
    manager.create_session("alpha", purpose="release notes")
    result = run("show", meant)
    assert result.exit_code == 3
    assert result.stdout == ""
    assert result.stderr == f"Error: Session {meant} not found: {hint}\n"


@pytest.mark.parametrize(
    "command", [["show", "x"], ["get", "x"], ["get", "x", "k"], ["set", "x", "k", "1"]], ids=" ".join
)
def test_without_a_store_nothing_is_found_and_none_is_made(place: Path, run: Run, command: list[str]) -> None:
    result = run(*command)
    assert result.exit_code == 3
    assert result.stderr == "Error: Session x not found: there are no sessions yet.\n"
    assert not place.parent.exists()


def test_an_empty_store_has_no_latest_session(manager: SessionManager, run: Run) -> None:
    assert run("show", "-").exit_code == 3
    assert run("show", "").exit_code == 2
