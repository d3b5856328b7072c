"""`agent_invoke`: what clients reach of agents, and what is left where it ends early. Real servers, real programs."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_sessions import SessionManager
from mcp_sessions.agents import tools as agent_tool
from mcp_sessions.agents.tools import Reach, agent_tools
from mcp_sessions.errors import ExecutorError, InvalidArgumentError, SessionEndedError, SessionNotFoundError
from mcp_sessions.storage import SQLiteSessionStorage
from mcp_sessions.tools import SESSION_TOOLS, Toolbox
from mcp_sessions.tools.awaiting import invoke_async
from tests.agents.fakes import EVENTS, RESULT, Fake, gone, lines
from tests.processes import until
from tests.server.pipes import Pipe
from tests.stores import SetClock
from tests.tools.desk import Desk

TOOLSETS = ("--toolsets", "core,records,automation")
ANSWER = json.dumps(RESULT)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


@pytest.fixture
def desk(store: Path) -> Iterator[Desk]:
    """Somebody else who works on the store of the server."""
    clock = SetClock()
    with SessionManager(SQLiteSessionStorage(store), clock=clock) as manager:
        yield Desk(manager, clock)


def messages(desk: Desk, session_id: str) -> list[tuple[str, str]]:
    return [(one.role, one.content) for one in desk.manager.messages(session_id, order="oldest").items]


def test_an_agent_answers_over_mcp_and_goes_on_with_the_conversation(
    programs: Path, code: Path, store: Path, desk: Desk
) -> None:
    fake = Fake(programs, "claude", stdout=ANSWER)
    with Pipe(store, *TOOLSETS) as server:
        server.shake_hands()
        first = server.structured("agent_invoke", operation="find_implementation", prompt="login")
        session = first["session_id"]
        assert first == {
            "session_id": session,
            "operation": "find_implementation",
            "result": "It is in auth.py:3.",
            "invocation_id": first["invocation_id"],
            "cost": 0.0787,
        }
        asks = "Find the implementation of: login"
        assert f"Codebase Path: {code}" in fake.seen["stdin"]
        assert fake.seen["cwd"] == str(code)
        server.structured(
            "agent_invoke", operation="explore", prompt="And logout?", session_id=session, codebase_path="lib"
        )
        assert fake.seen["cwd"] == str(code / "lib")
        assert f"**User**: {asks}" in fake.seen["stdin"]
        assert "**Assistant**: It is in auth.py:3." in fake.seen["stdin"]
        stats = server.structured("session_stats", session_id=session)["totals"]
    assert [role for role, _ in messages(desk, session)] == ["user", "assistant"] * 2
    assert desk.head(session).purpose == "find_implementation: login"
    two, one = desk.records(session, tool="agent_invoke")
    assert (one.invocation_id, one.kind, one.caller, one.status) == (first["invocation_id"], "work", "mcp:pipe", "ok")
    assert (one.model, one.cost, one.cost_source) == ("claude-sonnet-4-5", 0.0787, "reported")
    assert one.refs == {"result.result": "message:2"}
    assert two.refs == {"arguments.prompt": "message:3", "result.result": "message:4"}
    assert stats["estimated_cost"] == pytest.approx(2 * 0.0787)
    assert (stats["token_usage"]["input"], stats["token_usage"]["output"]) == (650, 120)


def test_a_session_that_is_named_and_not_there_is_made(programs: Path, code: Path, store: Path, desk: Desk) -> None:
    Fake(programs, "codex", stdout=lines(*EVENTS))
    with Pipe(store, *TOOLSETS) as server:
        server.shake_hands()
        how = {"operation": "analyze_structure", "prompt": "", "session_id": "mine", "executor": "codex"}
        assert server.structured("agent_invoke", **how, model="gpt-5")["cost"] > 0  # estimated from its tokens
        assert "cost" not in server.structured("agent_invoke", **how)  # nobody knows of which model they were
    assert "the whole codebase" in messages(desk, "mine")[0][1]
    assert [record.cost_source for record in desk.records("mine")] == ["unknown", "estimated"]


def test_the_tool_is_off_unless_it_is_turned_on(store: Path) -> None:
    with Pipe(store) as server:
        server.shake_hands()
        assert "agent_invoke" not in {tool["name"] for tool in server.ask("tools/list")["result"]["tools"]}
        refusal = server.call("agent_invoke", operation="explore", prompt="q")
        assert "toolset 'automation', which is off" in refusal["content"][0]["text"]
    with Pipe(store, "--toolsets", "automation") as server:
        server.shake_hands()
        (tool,) = server.ask("tools/list")["result"]["tools"]
        assert tool["inputSchema"]["required"] == ["operation", "prompt"]
        assert 40 <= len(tool["description"]) <= 300
        assert "readOnlyHint" not in tool["annotations"] or not tool["annotations"]["readOnlyHint"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"prompt": "q"}, "'operation' of agent_invoke is missing"),
        ({"operation": "explore"}, "'prompt' of agent_invoke is missing"),
        ({"operation": "delete", "prompt": "q"}, "'operation' should be 'explore', 'find_implementation'"),
        ({"operation": "explore", "prompt": " "}, "say what to explore"),
        ({"operation": "explore", "prompt": "q", "executor": "bash"}, "'bash' is not configured: there are claude"),
        ({"operation": "explore", "prompt": "q", "model": "--help"}, "model"),
        ({"operation": "explore", "prompt": "q", "codebase_path": "../bin"}, "is not within"),
        ({"operation": "explore", "prompt": "q", "codebase_path": "/"}, "MCP_SESSIONS_AGENT_ROOTS"),
        ({"operation": "explore", "prompt": "q", "codebase_path": "out"}, "is not within"),
        ({"operation": "explore", "prompt": "q", "codebase_path": "none"}, "is no directory"),
        ({"operation": "explore", "prompt": "q", "cwd": "/"}, "Unknown argument 'cwd'"),
    ],
)
def test_nothing_is_run_for_a_call_that_asks_for_more_than_it_may(
    arguments: dict[str, str], told: str, programs: Path, code: Path, store: Path, desk: Desk
) -> None:
    fake = Fake(programs, "claude", stdout=ANSWER)
    (code / "out").symlink_to(programs)
    with Pipe(store, *TOOLSETS) as server:
        server.shake_hands()
        refusal = server.call("agent_invoke", **arguments)
        assert refusal["isError"]
        assert told in refusal["content"][0]["text"]
    assert not fake.path.with_suffix(".seen").exists()
    assert desk.manager.query().items == [] or messages(desk, desk.manager.query().items[0].session_id) == []


def test_without_directories_and_executors_nothing_is_run() -> None:
    with pytest.raises(InvalidArgumentError, match="MCP_SESSIONS_AGENT_ROOTS"):
        Reach(("claude",), ()).directory(None, "claude")
    with pytest.raises(InvalidArgumentError, match="MCP_SESSIONS_AGENT_EXECUTORS"):
        Reach((), ()).executor(None)
    assert Reach(("model:test",), ()).directory(None, "model:test") is None


def test_a_program_that_fails_is_told_and_leaves_no_message(
    programs: Path, code: Path, store: Path, desk: Desk
) -> None:
    Fake(programs, "claude", code=1, stderr="not logged in")
    with Pipe(store, *TOOLSETS) as server:
        server.shake_hands()
        refusal = server.call("agent_invoke", operation="explore", prompt="q", session_id="a")
    assert refusal["isError"]
    assert refusal["content"][0]["text"] == "claude failed with exit code 1: not logged in"
    assert messages(desk, "a") == []
    (record,) = desk.records("a")
    assert record.error is not None
    assert (record.status, record.error.type) == ("error", "ExecutorError")


def test_a_call_is_on_record_while_it_runs_and_as_interrupted_where_the_server_was_killed(
    programs: Path, code: Path, store: Path, desk: Desk
) -> None:
    fake = Fake(programs, "claude", children=True, hangs=True)
    with Pipe(store, *TOOLSETS) as server:
        server.shake_hands()
        server.begin("agent_invoke", operation="explore", prompt="q", session_id="a")
        started = fake.started()
        (record,) = desk.records("a")
        assert record.status == "running"
        server.kill()
    for pid in started:  # of a server that is killed, nobody is left to end them
        os.kill(pid, signal.SIGKILL)
    with Pipe(store, *TOOLSETS) as server:
        server.shake_hands()
        (told,) = server.structured("session_invocations", session_id="a")["invocations"]
        assert told["status"] == "interrupted"
        assert server.structured("session_get", session_id="a", messages=9)["messages"] == []


@pytest.mark.parametrize("how", ["cancelled", "stdin", "SIGTERM"])
def test_a_call_that_ends_early_leaves_no_process_and_no_message(
    how: str, programs: Path, code: Path, store: Path, desk: Desk
) -> None:
    fake = Fake(programs, "claude", children=True, hangs=True)
    with Pipe(store, *TOOLSETS) as server:
        server.shake_hands()
        number = server.begin("agent_invoke", operation="explore", prompt="q", session_id="a")
        started = fake.started()
        if how == "cancelled":
            server.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": number}})
            until(lambda: desk.records("a")[0].status != "running")
        elif how == "stdin":
            server.close_stdin()
            assert server.end() == 0
        else:
            server.signal(signal.SIGTERM)
            assert server.end() == 0
        assert all(map(gone, started))
    assert [record.status for record in desk.records("a", tool="agent_invoke")] == ["cancelled"]
    assert messages(desk, "a") == []


def test_a_hundred_agents_hold_up_nobody(programs: Path, code: Path, store: Path, desk: Desk) -> None:
    Fake(programs, "claude", hangs=True)
    with Pipe(store, *TOOLSETS) as server:
        server.shake_hands()
        running = [
            server.begin("agent_invoke", operation="explore", prompt="q", session_id=f"a{number}")
            for number in range(100)
        ]
        until(lambda: len(desk.records(None, tool="agent_invoke", status="running")) == 100)
        server.structured("session_set", session_id="a0", key="k", value=1)
        assert server.structured("session_get", session_id="a0", key="k")["value"] == 1
        assert not server.has_answered(running)
        server.close_stdin()
        assert server.end() == 0
    assert {record.status for record in desk.records(None, tool="agent_invoke")} == {"cancelled"}


# within this process


@pytest.fixture
def box(programs: Path, code: Path) -> Toolbox:
    return Toolbox([*SESSION_TOOLS, *agent_tools(Reach(("claude", "model:test"), (code,), timeout_s=60))])


async def asked(box: Toolbox, manager: SessionManager, how: dict[str, Any] | None = None, **arguments: Any) -> Any:
    arguments = {"operation": "explore", "prompt": "q", "session_id": "a"} | arguments
    return await invoke_async(box, manager, "agent_invoke", arguments, limiter=anyio.CapacityLimiter(4), **(how or {}))


@pytest.mark.anyio
async def test_a_client_is_told_that_it_goes_on(
    box: Toolbox, manager: SessionManager, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Fake(programs, "claude", hangs=True)
    monkeypatch.setattr(agent_tool, "PULSE_S", 0.01)
    heard: list[tuple[float, float | None]] = []
    enough = anyio.Event()

    async def hear(done: float, total: float | None) -> None:
        heard.append((done, total))
        if len(heard) == 3:
            enough.set()

    async with anyio.create_task_group() as group:
        group.start_soon(partial(asked, box, manager, {"progress": hear}))
        await enough.wait()
        group.cancel_scope.cancel()
    assert [total for _, total in heard[:3]] == [60.0] * 3


@pytest.mark.anyio
async def test_the_same_call_is_made_once_and_its_answer_is_kept_whole(
    box: Toolbox, manager: SessionManager, programs: Path
) -> None:
    long = "word " * 40_000
    fake = Fake(programs, "claude", stdout=json.dumps({**RESULT, "result": long}))
    first = await asked(box, manager, {"invocation_id": "one"})
    fake.path.unlink()
    assert await asked(box, manager, {"invocation_id": "one"}) == first
    assert first["result"] == long
    assert manager.metadata("a").message_count == 2


@pytest.mark.anyio
async def test_an_answer_that_has_no_room_is_cut_and_says_where_it_is(
    box: Toolbox, manager: SessionManager, programs: Path
) -> None:
    Fake(programs, "claude", stdout=json.dumps({**RESULT, "result": "word " * 40_000}))
    result = await asked(box, manager, {"room": 10_000})
    assert len(json.dumps(result)) <= 10_000
    assert result["note"] == "Cut: all 200,000 characters are the last message of session:///a"
    assert len(manager.messages("a", limit=1).items[0].content) == 200_000


@pytest.mark.anyio
async def test_a_session_that_is_not_the_callers_or_has_ended_is_refused_before_anybody_is_asked(
    box: Toolbox, manager: SessionManager, programs: Path
) -> None:
    fake = Fake(programs, "claude", stdout=ANSWER)
    manager.create_session("a", user_id="ada")
    with pytest.raises(SessionNotFoundError):
        await asked(box, manager, {"as_user": "bob"})
    await asked(box, manager, {"as_user": "ada"}, executor="model:test")
    manager.complete_session("a")
    with pytest.raises(SessionEndedError):
        await asked(box, manager, {"as_user": "ada"})
    assert not fake.path.with_suffix(".seen").exists()


@pytest.mark.anyio
async def test_an_error_of_an_executor_is_its_own_and_not_a_group(
    box: Toolbox, manager: SessionManager, programs: Path
) -> None:
    Fake(programs, "claude", stdout="")
    with pytest.raises(ExecutorError, match="gave no answer"):
        await asked(box, manager)
