"""Tools of other MCP servers: real servers over stdio and HTTP, their errors, their ends, and what is kept secret."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mcp_sessions import FileSystemSessionStorage, MemorySessionStorage, SessionManager
from mcp_sessions.errors import InvalidArgumentError, WorkflowDefinitionError
from mcp_sessions.workflows import WorkflowDefinition, WorkflowEngine, WorkflowStatus
from mcp_sessions.workflows.secrets import Secrets
from tests.agents.fakes import gone
from tests.processes import until

pytestmark = pytest.mark.anyio
FAKE = Path(__file__).with_name("fake_server.py")
SECRET = "hunter2-hunter2"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def fake(log: Path, **more: Any) -> dict[str, Any]:
    return {"command": sys.executable, "args": [str(FAKE), str(log)], **more}


def seen(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


async def test_a_tool_of_another_server_is_work_and_its_result_is_the_servers(log: Path) -> None:
    with SessionManager(MemorySessionStorage()) as manager:
        result = await WorkflowEngine(manager).execute(
            {
                "name": "w",
                "inputs": {"n": "integer"},
                "servers": {"fake": fake(log)},
                "steps": [
                    {"id": "a", "tool": "fake/add", "with": {"a": "{{ inputs.n }}", "b": 2}},
                    {"id": "b", "tool": "fake/add", "with": {"a": "{{ steps.a.result.sum }}", "b": 1}},
                    {"id": "c", "tool": "fake/same", "with": {"text": "{{ string(steps.b.result.sum) }}"}},
                ],
            },
            {"n": 40},
            "r1",
        )
        assert {path: step.result for path, step in result.step_results.items()} == {
            "a": {"sum": 42},
            "b": {"sum": 43},
            "c": "43",
        }
        records = {one.tool_name: one for one in manager.invocations("r1").items}
        assert set(records) == {"fake/add", "fake/same"}
        assert (records["fake/same"].kind, records["fake/same"].arguments) == ("work", {"text": "43"})
        assert manager.metadata("r1").tools_used == ["fake/add", "fake/same"]
    first, second, _ = seen(log)
    assert first["key"] != second["key"]
    assert first["pid"] == second["pid"]  # one server for the whole run
    until(lambda: gone(first["pid"]))  # and closed with it


async def test_an_interrupted_step_is_sent_again_with_the_same_key(log: Path, tmp_path: Path) -> None:
    definition = WorkflowDefinition.from_dict(
        {
            "name": "w",
            "servers": {"fake": fake(log)},
            "steps": [
                {"id": "a", "tool": "fake/add", "with": {"a": 1, "b": 2}, "retry": {"max_attempts": 2, "delay": 0.01}},
                {"id": "b", "tool": "fake/die", "with": {"marker": str(tmp_path / "m")}},
                {"id": "c", "needs": ["b"], "tool": "fake/add", "with": {"a": 3, "b": 4}},
            ],
        }
    )
    with SessionManager(MemorySessionStorage()) as manager:
        engine = WorkflowEngine(manager)
        failed = await engine.execute(definition, None, "r1")
        error = failed.step_results["b"].error
        assert failed.status is WorkflowStatus.FAILED
        assert error is not None
        assert (error.type, "Server 'fake' went away" in error.message) == ("ServerError", True)
        assert "It said: going down" in error.message
        done = await engine.resume("r1")
        assert (done.status, done.step_results["b"].result) == (WorkflowStatus.COMPLETED, {"result": "alive"})
    assert len({one["key"] for one in seen(log)}) == 2


async def test_a_server_that_died_is_opened_again_by_a_retry(log: Path, tmp_path: Path) -> None:
    result = await WorkflowEngine().execute(
        {
            "name": "w",
            "servers": {"fake": fake(log)},
            "steps": [
                {
                    "id": "a",
                    "tool": "fake/die",
                    "with": {"marker": str(tmp_path / "m")},
                    "retry": {"max_attempts": 2, "delay": 0.01},
                }
            ],
        }
    )
    assert (result.status, result.step_results["a"].attempts) == (WorkflowStatus.COMPLETED, 2)


async def test_a_tool_that_fails_fails_the_step_with_its_words(log: Path) -> None:
    steps = [{"id": "a", "tool": "fake/fail", "with": {"why": "no such branch"}, "on_error": "continue"}]
    steps += [{"id": "b", "tool": "fake/nothing", "on_error": "continue"}]
    steps += [{"id": "c", "tool": "fake/add", "with": {"a": "x"}, "on_error": "continue"}]
    result = await WorkflowEngine().execute({"name": "w", "servers": {"fake": fake(log)}, "steps": steps})
    told = {path: step.error.message for path, step in result.step_results.items() if step.error is not None}
    assert told["a"].startswith("fake/fail: ")
    assert told["a"].endswith(": no such branch")
    assert "nothing" in told["b"]
    assert told["c"].startswith("fake/add: ")


async def test_a_server_that_cannot_be_reached_is_named(tmp_path: Path) -> None:
    servers: dict[str, Any] = {
        "none": {"command": str(tmp_path / "no-such-program")},
        "ends": {"command": sys.executable, "args": ["-c", "import sys; sys.exit('cannot start')"]},
        "closed": {"url": f"http://127.0.0.1:{free_port()}/mcp"},
    }
    for name in servers:
        result = await WorkflowEngine().execute(
            {"name": "w", "servers": servers, "steps": [{"id": "a", "tool": f"{name}/x"}]}
        )
        error = result.step_results["a"].error
        assert error is not None
        assert error.message.startswith(f"Server '{name}' cannot be reached"), error.message
        assert name != "ends" or "cannot start" in error.message


async def test_a_server_over_http_and_one_from_a_file_as_clients_have_it(log: Path, tmp_path: Path) -> None:
    port = free_port()
    with subprocess.Popen(  # noqa: ASYNC220 - it starts, and nothing waits for it here
        [sys.executable, str(FAKE), str(log), "http", str(port)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as web:
        try:
            until(lambda: listens(port))
            file = {
                "mcpServers": {
                    "local": {**fake(log), "disabled": False},
                    "web": {"url": f"http://127.0.0.1:{port}/mcp"},
                }
            }
            (tmp_path / "claude_desktop_config.json").write_text(json.dumps(file), encoding="utf-8")
            definition = WorkflowDefinition.from_dict(
                {
                    "name": "w",
                    "servers_file": "claude_desktop_config.json",
                    "steps": [
                        {"id": "a", "tool": "web/add", "with": {"a": 1, "b": 2}},
                        {"id": "b", "tool": "local/add", "with": {"a": 3, "b": 4}},
                        {"id": "c", "tool": "gone/add", "on_error": "continue"},
                    ],
                },
                base=tmp_path,
            )
            result = await WorkflowEngine().execute(definition)
        finally:
            web.kill()
    assert [result.step_results[path].result for path in "ab"] == [{"sum": 3}, {"sum": 7}]
    assert "There is no server 'gone'" in str(result.step_results["c"].error)


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_a_servers_file_that_cannot_be_read_fails_the_run(tmp_path: Path) -> None:
    steps = {"name": "w", "servers_file": "s.json", "steps": [{"id": "a", "tool": "x/y"}]}
    for text, fact in (
        (None, "cannot be read"),
        ("{}", "has no object `mcpServers`"),
        ('{"mcpServers": {"x": {}}}', "url"),
    ):
        if text is not None:
            (tmp_path / "s.json").write_text(text, encoding="utf-8")
        with pytest.raises(WorkflowDefinitionError, match=fact):
            await WorkflowEngine().execute(WorkflowDefinition.from_dict(steps, base=tmp_path))


async def test_a_secret_reaches_the_server_and_nothing_that_is_stored(log: Path, tmp_path: Path) -> None:
    with SessionManager(FileSystemSessionStorage(tmp_path / "sessions")) as manager:
        engine = WorkflowEngine(manager, secrets={"TOKEN": SECRET, "OTHER": "x" * 9})
        result = await engine.execute(
            {
                "name": "w",
                "servers": {"fake": fake(log, env={"KEY": "${TOKEN}"})},
                "steps": [
                    {"id": "a", "tool": "fake/same", "with": {"text": "Bearer {{ secrets.TOKEN }}"}},
                    {"id": "b", "tool": "fake/told", "with": {"name": "KEY"}},
                    {
                        "id": "c",
                        "tool": "fake/fail",
                        "with": {"why": "bad {{ secrets.TOKEN }}"},
                        "on_error": "continue",
                    },
                    {"id": "d", "set": "{{ steps.a.result }}"},
                ],
            },
            None,
            "r1",
        )
        assert result.step_results["a"].result == "Bearer [redacted]"
        assert result.step_results["b"].result == "KEY is [redacted]"
        assert result.step_results["c"].error is not None
        assert result.step_results["c"].error.message.endswith(": bad [redacted]")
        (record,) = (one for one in manager.invocations("r1", "fake/same").items)
        assert record.arguments == {"text": "Bearer [secret TOKEN]"}
    assert seen(log)[0]["text"] == f"Bearer {SECRET}"
    stored = [file for file in (tmp_path / "sessions").rglob("*") if file.is_file()]
    assert stored
    assert [file for file in stored if SECRET.encode() in file.read_bytes()] == []


async def test_an_answer_that_breaks_its_own_schema_tells_no_secret(tmp_path: Path) -> None:
    servers = {"odd": {"command": sys.executable, "args": [str(FAKE.with_name("odd_server.py"))]}}
    steps = [{"id": "a", "tool": "odd/wrong", "with": {"text": "{{ secrets.TOKEN }}"}}]
    with SessionManager(FileSystemSessionStorage(tmp_path / "sessions")) as manager:
        engine = WorkflowEngine(manager, secrets={"TOKEN": SECRET})
        result = await engine.execute({"name": "w", "servers": servers, "steps": steps}, None, "r1")
    error = result.step_results["a"].error
    assert error is not None
    assert "odd/wrong: " in error.message
    assert "given [redacted]" in error.message
    stored = [file for file in (tmp_path / "sessions").rglob("*") if file.is_file()]
    assert [file for file in stored if SECRET.encode() in file.read_bytes()] == []


def test_a_secret_is_found_within_json_too_and_one_that_is_too_short_is_refused() -> None:
    key = 'line "1"\nlïne \\2'
    secrets = Secrets({"KEY": key})
    for text in (key, json.dumps(key), json.dumps(key, ensure_ascii=False), json.dumps({"a": [key]})):
        assert not any(part in secrets.scrubbed(f"got {text}!") for part in ("line", "ne \\2"))
    with pytest.raises(InvalidArgumentError, match="The secret PIN has under 4 characters"):
        Secrets({"PIN": "123"})


@pytest.mark.parametrize(
    ("env", "text"), [({"KEY": "${HOME}"}, "KEY"), ({"KEY": "a {{ secrets.HOME }}"}, "KEY"), ({}, "{{ secrets.HOME }}")]
)
async def test_a_secret_that_may_not_be_had_is_named_before_anything_runs(
    log: Path, env: dict[str, str], text: str
) -> None:
    steps = [{"id": "a", "tool": "fake/told", "with": {"name": text}}]
    with pytest.raises(WorkflowDefinitionError, match="w: there is no secret 'HOME' that it may have"):
        await WorkflowEngine().execute({"name": "w", "servers": {"fake": fake(log, env=env)}, "steps": steps})
