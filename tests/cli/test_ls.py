"""`mcp-sessions ls`: which sessions, in which order, in which form."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mcp_sessions.manager import SessionManager
from mcp_sessions.storage import SQLiteSessionStorage

from .conftest import Program, Run
from .terminals import on_terminal


def ids(run: Run, *args: str) -> list[str]:
    result = run("ls", "--json", *args)
    assert result.exit_code == 0, result.stderr
    return [head["session_id"] for head in json.loads(result.stdout)]


@pytest.mark.parametrize("args", [[], ["--json"], ["status:failed", "--all"]], ids=" ".join)
def test_a_store_that_is_not_there_has_no_sessions_and_is_not_made(place: Path, run: Run, args: list[str]) -> None:
    result = run("ls", *args)
    assert result.exit_code == 0
    assert result.stdout == ("[]\n" if "--json" in args else "")
    assert result.stderr == "There are no sessions yet.\n"
    assert not place.parent.exists()


def test_a_query_that_is_none_is_refused_whether_there_is_a_store_or_not(place: Path, run: Run) -> None:
    refused = run("ls", "status:bogus")
    assert (refused.exit_code, refused.stdout) == (2, "")
    with SessionManager(SQLiteSessionStorage(place)):
        assert run("ls", "status:bogus").stderr == refused.stderr


def test_an_empty_store_has_no_sessions(manager: SessionManager, run: Run) -> None:
    assert run("ls", "--json").stdout == "[]\n"
    assert run("ls").stderr == "There are no sessions yet.\n"
    assert run("ls", "words").stderr == "No session matches.\n"


def test_json_is_an_array_of_heads_one_a_line(manager: SessionManager, run: Run) -> None:
    first = manager.create_session(purpose="first", tags=["a"]).session_id
    second = manager.create_session().session_id
    result = run("ls", "--json")
    assert json.loads(result.stdout) == [manager.metadata(second).to_dict(), manager.metadata(first).to_dict()]
    assert len(result.stdout.splitlines()) == 2


def test_into_a_pipe_go_aligned_lines(manager: SessionManager, run: Run) -> None:
    manager.create_session("short", purpose="a purpose")
    manager.create_session("a-longer-id")
    manager.add_conversation_message("a-longer-id", "user", "hello")
    manager.record_usage("a-longer-id", "gpt-4o", 1000, 500, cost=0.25)
    manager.record_usage("a-longer-id", "nobody-knows", 10, 5)
    manager.complete_session("a-longer-id", "failed")
    lines = run("ls").stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["id", "status", "age", "messages", "calls", "tokens", "cost", "purpose"],
        ["a-longer-id", "failed", "0s", "1", "0", "1.5k", "$0.2500+1?"],
        ["short", "active", "0s", "0", "0", "0", "$0", "a", "purpose"],
    ]
    assert len({line.index(word) for line, word in zip(lines, ("status", "failed", "active"), strict=True)}) == 1
    assert "\t" not in "".join(lines)


def test_a_purpose_is_one_line_and_acts_on_nothing(manager: SessionManager, run: Run) -> None:
    manager.create_session(purpose="two\nlines\x1b]0;title\x07\x9b31m \u202egnirts \x7f[bold]x[/bold]")
    assert len(run("ls").stdout.splitlines()) == 2
    assert run("ls").stdout.endswith("two lines\\x1b]0;title\\x07\\x9b31m \\u202egnirts \\x7f[bold]x[/bold]\n")


def test_a_query_in_one_argument_or_in_several_is_the_same(manager: SessionManager, run: Run) -> None:
    manager.create_session("wanted", purpose="release notes", tags=["a bug"])
    manager.create_session("other", purpose="release", tags=["a"])
    manager.complete_session("other")
    assert ids(run, "status:active release") == ["wanted"]
    assert ids(run, "status:active", "release") == ["wanted"]
    assert ids(run, "release", "tag:a bug") == ["wanted"]
    assert ids(run, "status:completed") == ["other"]
    assert ids(run, "cost>0.5") == []


def test_a_term_that_is_unknown_is_a_usage_mistake(manager: SessionManager, run: Run) -> None:
    result = run("ls", "statos:active")
    assert result.exit_code == 2
    assert result.stderr == "Error: Unknown term 'statos:active' in the query. Did you mean 'status:active'?\n"


def test_order_and_reverse(manager: SessionManager, run: Run) -> None:
    for name, cost in (("cheap", 0.1), ("dear", 5.0), ("middle", 1.0)):
        manager.create_session(name)
        manager.record_usage(name, "m", 1, cost=cost)
    assert ids(run) == ["middle", "dear", "cheap"]
    assert ids(run, "--reverse") == ["cheap", "dear", "middle"]
    assert ids(run, "--order", "cost") == ["dear", "middle", "cheap"]
    assert ids(run, "--order", "cost", "--reverse") == ["cheap", "middle", "dear"]


def test_a_limit_is_told_and_all_goes_over_every_page(place: Path, run: Run) -> None:
    with SessionManager(SQLiteSessionStorage(place, durability="process")) as manager:
        for number in range(1003):
            manager.create_session(f"s{number}")
    assert ids(run, "--limit", "2") == ["s1002", "s1001"]
    assert len(ids(run)) == 50
    assert ids(run, "--all") == [f"s{number}" for number in range(1002, -1, -1)]
    assert len(ids(run, "--limit", "1001")) == 1001
    result = run("ls", "--limit", "3")
    assert len(result.stdout.splitlines()) == 4
    assert result.stderr == "There are more than these 3: --all lists all, --limit more.\n"
    assert run("ls", "--limit", "1003").stderr == ""
    assert run("ls", "--limit", "0").exit_code == 2


def test_a_wide_terminal_gets_a_table_with_whole_ids(manager: SessionManager) -> None:
    session_id = manager.create_session(purpose="red \x1b[31m [bold]x[/bold] :smile:").session_id
    shown = on_terminal("ls", columns=160)
    assert session_id in shown
    assert "\x1b[32mactive" in shown
    assert "red \\x1b[31m [bold]x[/bold] :smile:" in shown
    assert "tokens" in shown


def test_a_narrow_terminal_gets_ids_that_show_understands(manager: SessionManager, program: Program) -> None:
    session_id = manager.create_session(purpose="a purpose that is longer than there is room for it").session_id
    manager.create_session("chosen-by-its-caller")
    lines = re.sub(r"\x1b\[[\d;]*m", "", on_terminal("ls", columns=80)).splitlines()
    assert len(lines) == 3
    assert all(len(line) <= 80 for line in lines)
    assert lines[1].startswith("chosen-by-its-caller ")
    (row,) = [line for line in lines if line.startswith(session_id[:12] + " ")]
    assert "a purpose" in row
    assert row.rstrip().endswith("…")
    assert json.loads(program("show", row.split()[0], "--json").stdout)["session"]["session_id"] == session_id


@pytest.mark.parametrize("setting", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_colours_can_be_refused(manager: SessionManager, setting: dict[str, str]) -> None:
    manager.create_session(purpose="plain")
    shown = on_terminal("ls", columns=120, **setting)
    assert "plain" in shown
    assert "\x1b" not in shown
