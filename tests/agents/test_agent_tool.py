"""`agent_invoke`: what clients reach of agents, and what is left where it ends early. Real servers, real programs."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from mcp import Client

from mcp_sessions import SessionManager
from mcp_sessions.agents import tools as agent_tool
from mcp_sessions.agents.tools import Reach, agent_tools
from mcp_sessions.errors import ExecutorError, InvalidArgumentError, SessionEndedError, SessionNotFoundError
from mcp_sessions.storage import SQLiteSessionStorage
from mcp_sessions.tools import SESSION_TOOLS, Toolbox
from mcp_sessions.tools.awaiting import invoke_async
from tests.agents.fakes import EVENTS, RESULT, Fake, commands, gone, lines
from tests.processes import until
from tests.server.pipes import Pipe, program
from tests.server.ports import Port
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


def test_where_a_session_is_pinned_the_agent_works_in_it(programs: Path, code: Path, store: Path, desk: Desk) -> None:
    Fake(programs, "claude", stdout=ANSWER)
    with Pipe(store, *TOOLSETS, "--session", "pinned") as server:
        server.shake_hands()
        assert server.structured("agent_invoke", operation="explore", prompt="q")["session_id"] == "pinned"
    assert len(messages(desk, "pinned")) == 2


def test_the_tool_is_off_unless_it_is_turned_on(store: Path) -> None:
    with Pipe(store) as server:
        server.shake_hands()
        assert "agent_invoke" not in {tool["name"] for tool in server.ask("tools/list")["result"]["tools"]}
        refusal = server.call("agent_invoke", operation="explore", prompt="q")
        assert "toolset 'automation', which is off" in refusal["content"][0]["text"]
    with Pipe(store, "--toolsets", "automation") as server:
        server.shake_hands()
        tool, *workflows = server.ask("tools/list")["result"]["tools"]
        assert [one["name"] for one in workflows] == ["workflow_run", "workflow_status", "workflow_respond"]
        assert tool["inputSchema"]["required"] == ["operation", "prompt"]
        assert 40 <= len(tool["description"]) <= 300
        assert not tool["annotations"]["readOnlyHint"]
        reaching = [one["name"] for one in (tool, *workflows) if one["annotations"]["openWorldHint"]]
        assert reaching == ["agent_invoke", "workflow_run", "workflow_respond"]


TOO_MUCH: list[tuple[dict[str, str], str]] = [
    ({"prompt": "q"}, "'operation' of agent_invoke is missing"),
    ({"operation": "explore"}, "'prompt' of agent_invoke is missing"),
    ({"operation": "delete", "prompt": "q"}, "'operation' should be 'explore', 'find_implementation'"),
    ({"operation": "explore", "prompt": " "}, "say what to explore"),
    ({"operation": "explore", "prompt": "q", "executor": "bash"}, "'bash' is not configured: there are claude"),
    ({"operation": "explore", "prompt": "q", "model": "--help"}, "'--help' is no name of a model"),
    ({"operation": "explore", "prompt": "q", "model": "gpt-5"}, "claude has no model 'gpt-5'"),
    ({"operation": "explore", "prompt": "q", "codebase_path": "x" * 300}, "cannot be looked at"),
    ({"operation": "explore", "prompt": "q", "codebase_path": "../bin"}, "is not within"),
    ({"operation": "explore", "prompt": "q", "codebase_path": "/"}, "MCP_SESSIONS_AGENT_ROOTS"),
    ({"operation": "explore", "prompt": "q", "codebase_path": "out"}, "is not within"),
    ({"operation": "explore", "prompt": "q", "codebase_path": "none"}, "is no directory"),
    ({"operation": "explore", "prompt": "q", "cwd": "/"}, "Unknown argument 'cwd'"),
]


def test_nothing_is_run_for_a_call_that_asks_for_more_than_it_may(
    programs: Path, code: Path, store: Path, desk: Desk
) -> None:
    fake = Fake(programs, "claude", stdout=ANSWER)
    (code / "out").symlink_to(programs)
    with Pipe(store, *TOOLSETS) as server:
        server.shake_hands()
        for arguments, fault in TOO_MUCH:
            assert fault in told(server, **arguments)
    assert not fake.path.with_suffix(".seen").exists()
    assert desk.manager.query().items == []


def test_without_directories_and_executors_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(InvalidArgumentError, match="MCP_SESSIONS_AGENT_ROOTS"):
        Reach(("claude",), ()).directory(None, "claude")
    with pytest.raises(InvalidArgumentError, match="MCP_SESSIONS_AGENT_EXECUTORS"):
        Reach((), ()).executor(None)
    assert Reach(("model:test",), ()).directory(None, "model:test") is None
    assert Reach(("claude",), (Path("~"),)).directory(None, "claude") == tmp_path.resolve()


@pytest.mark.parametrize(
    ("root", "told"),
    [
        ("~no-such-user/code", "cannot be looked at"),
        ("/nowhere", "is no directory"),
        ("/caf\udce9", "cannot be looked at"),
    ],
)
def test_a_root_that_is_none_is_told_when_the_server_starts(root: str, told: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"MCP_SESSIONS_AGENT_ROOTS: .*{told}"):
        Reach(("claude",), (Path(root),))


@pytest.mark.anyio
async def test_nothing_is_begun_where_the_first_root_has_gone_since(
    box: Toolbox, manager: SessionManager, code: Path
) -> None:
    shutil.rmtree(code)
    with pytest.raises(InvalidArgumentError, match="is no directory"):
        await asked(box, manager)
    assert manager.query().items == []


@pytest.mark.anyio
async def test_a_session_has_a_purpose_though_its_first_call_failed(
    box: Toolbox, manager: SessionManager, programs: Path
) -> None:
    Fake(programs, "claude", code=1)
    with pytest.raises(ExecutorError):
        await asked(box, manager, {"invocation_id": "one"})
    Fake(programs, "claude", stdout=ANSWER)
    await asked(box, manager, {"invocation_id": "one"})
    await asked(box, manager, prompt="another")
    assert manager.metadata("a").purpose == "explore: q"


def test_an_executor_that_nobody_knows_is_told_when_the_server_starts() -> None:
    with pytest.raises(InvalidArgumentError, match="MCP_SESSIONS_AGENT_EXECUTORS: Executor 'vim' is not known"):
        Reach(("claude", "vim"), ())


def test_what_is_set_for_agents_holds_for_clients(
    programs: Path, code: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"EXECUTORS": "copilot", "ENV": "MY_*", "PROMPT_CHARS": "2000", "OUTPUT_BYTES": "3000", "TIMEOUT": "1s"}
    for name, value in settings.items():
        monkeypatch.setenv(f"MCP_SESSIONS_AGENT_{name}", value)
    monkeypatch.setenv("MY_KEY", "mine")
    monkeypatch.setenv("YOUR_KEY", "yours")
    how = {"operation": "explore", "session_id": "a"}
    with Pipe(store, *TOOLSETS) as server:
        server.shake_hands()
        fake = Fake(programs, "copilot", stdout="It is there.")
        for _ in range(9):
            server.structured("agent_invoke", prompt="Where is it? " * 20, **how)
        assert fake.seen["env"]["MY_KEY"] == "mine"
        assert "YOUR_KEY" not in fake.seen["env"]
        assert 1500 < len(fake.seen["stdin"]) <= 2000
        assert "'claude' is not configured: there are copilot" in told(server, prompt="q", executor="claude", **how)
        Fake(programs, "copilot", stdout="x" * 3001)
        assert "more than 3,000 bytes" in told(server, prompt="q", **how)
        Fake(programs, "copilot", hangs=True)
        assert "copilot timed out after 1 seconds" in told(server, prompt="q", **how)


def told(server: Pipe, **arguments: Any) -> str:
    """The text of a refusal."""
    refusal = server.call("agent_invoke", **arguments)
    assert refusal["isError"]
    return refusal["content"][0]["text"]


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


def test_a_client_is_told_where_an_answer_is_that_its_session_cannot_take(
    programs: Path, code: Path, store: Path, desk: Desk
) -> None:
    fake = Fake(programs, "claude", stdout=ANSWER, held=True)
    with Pipe(store, *TOOLSETS) as server:
        server.shake_hands()
        asked = server.begin("agent_invoke", operation="explore", prompt="q", session_id="a")
        fake.waits()
        desk.manager.complete_session("a")
        fake.release()
        (content,) = server.answer(asked)["result"]["content"]
    (record,) = desk.records("a", tool="agent_invoke")
    kept = f"What was answered is kept as the result of its record. (invocation {record.invocation_id})"
    assert content["text"].endswith(kept)
    assert record.result == "It is in auth.py:3."


def test_signals_that_come_again_end_at_once_what_runs_and_leave_no_process(
    programs: Path, code: Path, store: Path, desk: Desk
) -> None:
    """The second one ended the server alone, and all that it had started went on."""
    fake = Fake(programs, "claude", children=True, hangs=True)
    with Pipe(store, command=program("serve_with_grace", *TOOLSETS)) as server:
        server.shake_hands()
        server.begin("agent_invoke", operation="explore", prompt="q", session_id="a")
        started = fake.started()

        def ended() -> bool:
            server.signal(signal.SIGTERM)
            return all(map(gone, started)) or server.process.poll() is not None

        until(ended)
        server.end()
        assert all(map(gone, started))
    assert [record.status for record in desk.records("a", tool="agent_invoke")] == ["cancelled"]


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


def test_a_call_that_is_sent_again_and_again_while_it_runs_is_one_and_holds_up_nobody(
    programs: Path, code: Path, store: Path, desk: Desk
) -> None:
    """Each that waited for the first had a thread: sixty-four of them stopped all other agents."""
    fake = Fake(programs, "claude", hangs=True)
    call = {
        "name": "agent_invoke",
        "arguments": {"operation": "explore", "prompt": "q"},
        "_meta": {"mcp-sessions/idempotencyKey": "one"},
    }
    with Pipe(store, *TOOLSETS) as server:
        server.shake_hands()
        running = [server.request("tools/call", call) for _ in range(70)]
        until(lambda: bool(desk.records(None, tool="agent_invoke", status="running")))
        fake.waits()
        assert sum(str(fake.path) in command for command in commands()) == 1
        server.begin("agent_invoke", operation="explore", prompt="q", session_id="other")
        until(lambda: len(desk.records(None, tool="agent_invoke", status="running")) == 2)
        server.structured("session_create", session_id="b")
        assert not server.has_answered(running)
        server.close_stdin()
        assert server.end() == 0
    assert len(desk.manager.query().items) == 3
    assert {record.status for record in desk.records(None, tool="agent_invoke")} == {"cancelled"}


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_over_http_a_client_hears_that_it_goes_on_and_may_give_it_up(
    mode: str, programs: Path, code: Path, store: Path, desk: Desk
) -> None:
    fake = Fake(programs, "claude", children=True, hangs=True)
    heard: list[tuple[float, float | None]] = []
    enough = anyio.Event()

    async def hear(done: float, total: float | None, _message: str | None) -> None:
        heard.append((done, total))
        enough.set()

    with Port(store, *TOOLSETS) as port:
        async with Client(f"{port.url}/mcp", mode=mode) as client:
            arguments = {"operation": "explore", "prompt": "q", "session_id": "a"}
            async with anyio.create_task_group() as group:
                group.start_soon(partial(client.call_tool, "agent_invoke", arguments, progress_callback=hear))
                await enough.wait()
                group.cancel_scope.cancel()
            await anyio.to_thread.run_sync(until, lambda: all(map(gone, fake.started())))
            await anyio.to_thread.run_sync(until, lambda: desk.records("a")[0].status == "cancelled")
            Fake(programs, "claude", stdout=ANSWER)
            result = await client.call_tool("agent_invoke", arguments)
            assert result.structured_content is not None
            assert result.structured_content["result"] == RESULT["result"]
    assert heard[0][0] >= 2
    assert heard[0][1] == 600
    assert messages(desk, "a") == [("user", "q"), ("assistant", RESULT["result"])]
    cancelled = desk.records("a")[-1].error
    assert cancelled is not None
    assert cancelled.message == "The call was cancelled before it ended."


# within this process


@pytest.fixture
def box(programs: Path, code: Path) -> Toolbox:
    return Toolbox([*SESSION_TOOLS, *agent_tools(Reach(("claude", "model:test"), (code,), timeout_s=60))])


async def asked(box: Toolbox, manager: SessionManager, how: dict[str, Any] | None = None, **arguments: Any) -> Any:
    arguments = {"operation": "explore", "prompt": "q", "session_id": "a"} | arguments
    arguments = {name: value for name, value in arguments.items() if value is not None}
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
async def test_a_client_that_hears_nothing_any_more_is_answered_all_the_same(
    box: Toolbox, manager: SessionManager, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Fake(programs, "claude", stdout=ANSWER)
    monkeypatch.setattr(agent_tool, "PULSE_S", 0.01)
    tried: list[float] = []

    async def hear(done: float, _total: float | None) -> None:
        tried.append(done)
        raise anyio.ClosedResourceError

    assert (await asked(box, manager, {"progress": hear}))["result"] == RESULT["result"]
    assert tried


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
async def test_a_call_that_makes_its_session_makes_one_however_often_it_is_sent(
    box: Toolbox, manager: SessionManager, programs: Path
) -> None:
    Fake(programs, "claude", stdout=ANSWER)
    how = {"invocation_id": "one"}
    first, again = [await asked(box, manager, how, session_id=None) for _ in range(2)]
    assert first == again
    assert [head.session_id for head in manager.query().items] == [first["session_id"]]


@pytest.mark.anyio
async def test_an_answer_that_has_no_room_is_cut_and_says_where_it_is(
    box: Toolbox, manager: SessionManager, programs: Path
) -> None:
    Fake(programs, "claude", stdout=json.dumps({**RESULT, "result": "word " * 40_000}))
    result = await asked(box, manager, {"room": 10_000, "invocation_id": "one"})
    assert len(json.dumps(result)) <= 10_000
    assert result["note"] == "Cut: all 200,000 characters are the message of this seq in session:///a/messages"
    manager.add_conversation_message("a", "user", "Thanks.")
    assert await asked(box, manager, {"room": 10_000, "invocation_id": "one"}) == result
    (message,) = [one for one in manager.messages("a").items if one.seq == result["seq"]]
    assert len(message.content) == 200_000


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
