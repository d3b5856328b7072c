"""The server on stdio, as real processes see it: both eras, its options, bad lines, and how it ends."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters
from mcp.types import Implementation

from tests.processes import LONG_S, until
from tests.server.conftest import text_of
from tests.server.pipes import HANDSHAKE, SERVE, Pipe, environment, program
from tests.tools.desk import Desk

BROKEN = [
    b"",
    b"   ",
    b"not json",
    b'{"jsonrpc":"2.0","id":1,"method":"ping"',
    b"{}",
    b"[]",
    b"null",
    b"5",
    b'"text"',
    b"\xff\xfe\x00",
    b'{"jsonrpc":"2.0","id":7,"method":"ping","params":{"a":"\xff"}}',
    b'[{"jsonrpc":"2.0","id":7,"method":"ping"},{"jsonrpc":"2.0","id":8,"method":"ping"}]',
    b'{"jsonrpc":"2.0","id":7}',
    b'{"jsonrpc":"2.0","id":null,"method":"ping"}',
    b'{"jsonrpc":"2.0","id":true,"method":"ping","params":5}',
    b'{"id":7,"result":{}}',
    b'{"jsonrpc":"2.0","id":99,"result":{}}',
    b'{"jsonrpc":"2.0","method":"notifications/nobody-knows","params":{"a":[1]}}',
    b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":[]}}',
    b"\x00" * 100,
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"x" * 3_000_000,
    b'{"jsonrpc":"2.0","id":7,"method":"x","params":{"n":' + b"9" * 5_000 + b"}}",
    "\ufeff".encode() + b'{"jsonrpc":"2.0"}',
]


def connect(store: Path, *args: str, name: str = "Test Client", mode: str = "auto") -> Client:
    server = StdioServerParameters(command=sys.executable, args=[*SERVE, *args], env=environment(store))
    return Client(server, mode=mode, client_info=Implementation(name=name, version="1"))


async def test_a_client_works_in_either_era_and_is_told_how(store: Path, desk: Desk, mode: str) -> None:
    async with connect(store, mode=mode) as client:
        assert (client.protocol_version >= "2026") == (mode == "auto")
        assert client.instructions is not None
        assert client.instructions.startswith("Sessions keep a task's messages")
        assert "session_query (status=active, tags) first" in client.instructions
        assert len(client.instructions) < 2_048
        assert client.server_info is not None
        assert (client.server_info.name, client.server_info.title) == ("mcp-sessions", "Sessions")
        assert len((await client.list_tools()).tools) == 16
        result = await client.call_tool("session_create", {"session_id": "a", "purpose": "x"})
        assert text_of(result) == 'Created a "x" (active).'
        await client.call_tool("session_get", {"session_id": "a"})
    assert {record.caller for record in desk.records("a")} == {"mcp:Test Client"}
    assert [record.tool_name for record in desk.records("a")] == ["session_get", "session_create"]


async def test_toolsets_choose_what_is_listed_and_a_call_to_the_rest_says_so(store: Path) -> None:
    async with connect(store, "--toolsets", "core,records") as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert len(names) == 11
        assert "session_delete" not in names
        result = await client.call_tool("session_delete", {"session_id": "a", "confirm": True})
        assert text_of(result) == "session_delete is in toolset 'manage', which is off (MCP_SESSIONS_TOOLSETS)."


async def test_a_pinned_session_is_made_and_may_be_left_out(store: Path, desk: Desk) -> None:
    async with connect(store, "--session", "billing") as client:
        assert client.instructions is not None
        assert "The session for this work is billing" in client.instructions
        for nothing in ({}, {"session_id": None}, {"session_id": ""}):
            result = await client.call_tool("session_set", {"key": "k", "value": 1, **nothing})
            assert result.structured_content is not None, text_of(result)
            assert result.structured_content["session_id"] == "billing"
        desk("session_create", session_id="other")
        result = await client.call_tool("session_set", {"key": "k", "value": 1, "session_id": "other"})
        assert result.structured_content is not None
        assert result.structured_content["session_id"] == "other"
        everywhere = await client.call_tool("session_query", {})
        assert everywhere.structured_content is not None
        assert len(everywhere.structured_content["sessions"]) == 2
    assert desk.head("billing").revision == 4


def test_an_option_that_cannot_be_used_ends_it_at_once(store: Path) -> None:
    with Pipe(store, "--session", "../x") as server:
        assert server.listen().end() == 2
        assert "session_id '../x' is not an id" in server.errors()
        assert server.said == []


@pytest.mark.parametrize(("redirected", "name"), [("<&-", "stdin"), ("<&- >&-", "stdin"), (">&- </dev/null", "stdout")])
def test_a_server_without_stdin_or_stdout_says_so_and_ends(store: Path, redirected: str, name: str) -> None:
    """It said "Bad file descriptor", and without stdout it wrote to its own stdin and never ended."""
    done = in_shell(store, redirected)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: {name} is closed, and MCP over stdio needs it.")
    assert not store.exists()


def test_without_stderr_the_transport_does_not_take_its_place(store: Path) -> None:
    """Every print goes where stderr is: then that was the transport's own stdin."""
    taken = "from mcp_sessions.server.descriptors import take_stdio; source, sink = take_stdio()"
    told = "sink.write(repr(min(source.fileno(), sink.fileno()) > 2).encode())"
    assert in_shell(store, "2>&-", "-c", f"{taken}; {told}").stdout == "True"


def in_shell(store: Path, redirected: str, *command: str) -> subprocess.CompletedProcess[str]:
    """A server, or another command of Python, without descriptors that only a shell can take away."""
    line = f"exec {shlex.join([sys.executable, *(command or SERVE)])} {redirected}"
    return subprocess.run(
        ["/bin/sh", "-c", line],
        env=environment(store),
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=LONG_S,
    )


def test_a_retry_with_its_key_is_made_once(store: Path) -> None:
    params = {
        "name": "session_create",
        "arguments": {"purpose": "x"},
        "_meta": {"mcp-sessions/idempotencyKey": "once"},
    }
    with Pipe(store) as server:
        first = server.shake_hands().ask("tools/call", params)["result"]
    with Pipe(store) as server:
        assert server.shake_hands().ask("tools/call", params)["result"] == first
        assert len(server.structured("session_query")["sessions"]) == 1


# bad lines


def test_broken_lines_are_passed_over_in_silence(store: Path, desk: Desk) -> None:
    with Pipe(store) as server:
        for line in BROKEN:  # before the first request, which decides the era, and after it
            server.write(line + b"\n")
        server.shake_hands()
        for line in BROKEN:
            server.write(line + b"\n")
        assert server.ask("ping")["result"] == {}
        assert server.structured("session_create", session_id="a")["session_id"] == "a"
        assert len(server.said) == 3
        assert "Traceback" not in server.errors()
    assert [record.tool_name for record in desk.records()] == ["session_create"]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"method": "nobody/knows"}, -32601),
        ({"method": "logging/setLevel", "params": {"level": "info"}}, -32601),
        ({"method": "resources/read", "params": {"uri": "session:///nobody"}}, -32002),
        ({"method": "resources/read", "params": {"uri": 5}}, -32602),
        ({"method": "tools/call"}, -32602),
        ({"method": "tools/call", "params": {"name": 5}}, -32602),
        ({"method": "tools/call", "params": {"name": "session_query", "arguments": []}}, -32602),
        ({"method": "tools/call", "params": {"arguments": {}}}, -32602),
        ({"method": "tools/list", "params": {"cursor": 5}}, -32602),
        ({"method": "ping", "params": [1]}, -32600),
        ({"method": 5}, -32600),
        ({"method": "ping", "jsonrpc": "1.0"}, -32600),
    ],
)
def test_a_request_that_cannot_be_one_is_answered_with_its_error(
    shaken: Pipe, message: dict[str, Any], code: int
) -> None:
    number = f"wrong-{code}-{json.dumps(message)}"
    shaken.send({"jsonrpc": "2.0", "id": number, **message})
    assert shaken.answer(number)["error"]["code"] == code


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('"half of an emoji \\ud83d"', "half of a surrogate pair"),
        ("[" * 300 + "]" * 300, "nested more than 100 levels deep"),
        ("[" * 150 + "]" * 150, "nested more than 100 levels deep"),
        ("1" + "0" * 4_000, "bits; at most 1024 are kept"),
        ("NaN", "NaN or an infinity"),
        ("-Infinity", "NaN or an infinity"),
        ("1e999", "NaN or an infinity"),
        ('"\\u0000"', "NUL character"),
        ('{"\\u0000": 1}', "NUL character"),
        ('{"\\udc00": 1}', "half of a surrogate pair"),
    ],
)
def test_what_json_can_say_and_a_store_cannot_keep_is_answered(shaken: Pipe, text: str, sentence: str) -> None:
    """Such a line was dropped where the SDK's parser refused it, and the client waited for ever."""
    call = '{"name":"session_set","arguments":{"session_id":"a","key":"k","value":%s}}'
    number = f"value-{text[:20]!r}-{len(text)}"
    line = f'{{"jsonrpc":"2.0","id":{json.dumps(number)},"method":"tools/call","params":{call % text}}}\n'
    shaken.write(line.encode())
    result = shaken.answer(number)["result"]
    assert result["isError"]
    assert sentence in result["content"][0]["text"]


@pytest.mark.parametrize(
    ("number", "method", "params"),
    [
        ("half \ud83d", "half \ud83d", {}),
        ("method", "half \ud83d", {}),
        ("resource", "resources/read", {"uri": "session:///\ud83d"}),
        ("prompt", "prompts/get", {"name": "half \ud83d"}),
        ("argument", "prompts/get", {"name": "resume_session", "arguments": {"half \ud83d": "x"}}),
    ],
)
def test_what_a_client_sent_is_repeated_to_it_even_if_it_is_half_an_emoji(
    shaken: Pipe, number: str, method: str, params: dict[str, Any]
) -> None:
    """The answer could not be written, and the server ended."""
    shaken.send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
    assert "\\ud83d" in json.dumps(shaken.answer(number)["error"])
    assert shaken.ask("ping")["result"] == {}


@pytest.fixture(scope="module")
def shaken(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One server for all the lines that it survives."""
    with Pipe(tmp_path_factory.mktemp("shaken") / "sessions.db", "--session", "a") as server:
        server.shake_hands()
        yield server
        assert server.said_only_json_rpc()
        assert "Traceback" not in server.errors()


# many, and the end


def test_sixty_four_calls_at_once_are_all_answered(shaken: Pipe) -> None:
    numbers = [shaken.begin("session_add_message", role="user", content=f"m{n}") for n in range(64)]
    seqs = [shaken.answer(number)["result"]["structuredContent"]["seq"] for number in numbers]
    assert sorted(seqs) == list(range(1, 65))


def test_ctrl_c_ends_it_with_everything_written(store: Path, desk: Desk) -> None:
    with Pipe(store, "--session", "a") as server:
        server.shake_hands()
        server.structured("session_set", key="k", value=1)
        server.structured("session_get")
        server.signal(signal.SIGINT)
        assert server.end() == 0
        assert server.errors() == ""
    assert [record.tool_name for record in desk.records("a")] == ["session_get", "session_set"]


def test_calls_that_were_accepted_are_finished_and_answered_at_sigterm(store: Path, desk: Desk) -> None:
    with Pipe(store, "--session", "a") as server:
        server.shake_hands()
        numbers = [server.begin("session_add_message", role="user", content=f"m{n}") for n in range(40)]
        server.answer(numbers[0])  # so it has begun
        server.signal(signal.SIGTERM)
        assert server.end() == 0
        answered = [message for message in server.rest() if message.get("id") in numbers]
        assert server.errors() == ""
    assert all("result" in message for message in answered)
    assert len(answered) + 1 == desk.head("a").message_count


def test_lines_from_a_shell_are_answered_before_the_end(store: Path) -> None:
    """`printf … | mcp-sessions serve`, as people try it out: calls were made, and answered "Connection closed"."""
    with Pipe(store, "--session", "a") as server:
        server.send({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": HANDSHAKE})
        server.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        for number in range(40):
            server.begin("session_add_message", role="user", content=f"m{number}")
        server.close_stdin()
        answers = server.listen().rest()
        assert server.end() == 0
        assert server.errors() == ""
    seqs = [answer["result"]["structuredContent"]["seq"] for answer in answers if answer["id"]]
    assert sorted(seqs) == list(range(1, 41))


@pytest.mark.parametrize("ending", [signal.SIGTERM, None])
def test_a_client_that_reads_nothing_does_not_hold_up_the_end(store: Path, desk: Desk, ending: int | None) -> None:
    desk("session_create", session_id="a", data={"k": "x" * 30_000})
    desk("session_add_message", session_id="a", role="user", content="begun")
    with Pipe(store) as server:
        server.send({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HANDSHAKE})
        server.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        for _ in range(40):  # more than a pipe holds
            server.begin("session_get", session_id="a", key="k")
        server.begin("session_add_message", session_id="a", role="user", content="last")
        until(lambda: desk.head().message_count == 2)
        if ending is None:
            server.close_stdin()
        else:
            server.signal(ending)
        assert server.end() == 0
        assert "Traceback" not in server.errors()


def test_a_client_that_closes_its_end_ends_the_server(store: Path, desk: Desk) -> None:
    desk("session_create", session_id="a")
    with Pipe(store) as server:
        server.send({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HANDSHAKE})
        server.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        assert server.process.stdout is not None
        assert b'"id":1' in server.process.stdout.readline()
        server.process.stdout.close()
        server.begin("session_set", session_id="a", key="k", value=1)
        assert server.end() == 0
        assert server.errors() == ""
    assert desk.head().revision == 2


def test_a_loop_without_signals_serves_too(store: Path) -> None:
    """Windows: its event loop refuses signal handlers, and the server did not start."""
    with Pipe(store, command=program("serve_without_signals")) as server:
        server.shake_hands()
        assert server.structured("session_create", session_id="a")["session_id"] == "a"
        server.close_stdin()
        assert server.end() == 0
        assert server.errors() == ""


def test_a_cancelled_call_is_finished_and_not_answered(store: Path, desk: Desk) -> None:
    with Pipe(store, "--session", "a") as server:
        server.shake_hands()
        numbers = [server.begin("session_add_message", role="user", content=f"m{n}") for n in range(30)]
        for number in numbers:
            params = {"requestId": number, "reason": "enough"}
            server.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})
        assert server.ask("ping")["result"] == {}
        server.close_stdin()
        assert server.end() == 0
        assert server.errors() == ""
    for record in desk.records("a"):
        assert record.status.value in ("ok", "cancelled")
    assert desk.head("a").message_count == len([one for one in desk.records("a") if one.status.value == "ok"])


@pytest.mark.parametrize("key", [5, "", "../x", "x" * 129, {"a": 1}])
def test_an_idempotency_key_that_is_none_is_refused_by_its_name(shaken: Pipe, key: Any) -> None:
    call = {"name": "session_set", "arguments": {"session_id": "a", "key": "k", "value": 1}}
    result = shaken.ask("tools/call", {**call, "_meta": {"mcp-sessions/idempotencyKey": key}})["result"]
    assert result["isError"]
    assert result["content"][0]["text"].startswith("mcp-sessions/idempotencyKey in _meta ")


def test_a_write_is_told_in_one_line_of_bounded_length(shaken: Pipe) -> None:
    result = shaken.call("session_create", purpose="one\ntwo\r\n\u2028three " + "x" * 10_000)
    (content,) = result["content"]
    assert len(content["text"].splitlines()) == 1
    assert len(content["text"]) < 300
    assert content["text"].endswith(" (active).")


def test_processes_that_pin_one_session_at_once_all_start(store: Path) -> None:
    """Each looked, and then made it: all but one ended with "already exists"."""
    with ExitStack() as stack:
        servers = [stack.enter_context(Pipe(store, "--session", "billing")) for _ in range(4)]
        for server in servers:
            server.shake_hands()
        assert [server.structured("session_get")["session_id"] for server in servers] == ["billing"] * 4


def test_without_any_tool_it_does_not_start(store: Path) -> None:
    with Pipe(store, "--toolsets", "[]") as server:
        assert server.listen().end() == 2
        assert "no tool is on" in server.errors()
        assert server.said == []
