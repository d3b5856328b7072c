"""Hostile input to every tool, as a client can put it on the wire: a clear answer, and nothing half written."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp.types import INVALID_PARAMS

from mcp_sessions import SessionManager
from mcp_sessions.server.resources import RESOURCE_NOT_FOUND
from mcp_sessions.storage import SQLiteSessionStorage
from mcp_sessions.tools import SESSION_TOOLS
from tests.processes import full_counts
from tests.server.ears import subscribe
from tests.server.pipes import Pipe
from tests.server.ports import Port, head
from tests.server.test_stdio import connect
from tests.storage.looking import made
from tests.stores import SetClock
from tests.tools.desk import EXAMPLES, Desk

DEEP = "[" * 250 + "]" * 250
HOSTILE = [
    "null",
    "true",
    "0",
    "-1",
    "1e999",
    "NaN",
    "-Infinity",
    "1e-400",
    "9007199254740993",
    "1" + "0" * 400,
    "2.5",
    '""',
    '" "',
    '"\\u0000"',
    '"a\\u0000b"',
    '"\\ud800"',
    '"../../etc/passwd"',
    '"/etc/passwd"',
    '"C:\\\\Windows"',
    '"..%2f..%2f"',
    '"a; DROP TABLE sessions; --"',
    "\"' OR '1'='1\"",
    '"NEAR(a b) AND x:y* \\"unclosed"',
    '"%_*?[]"',
    '"\\u202e\\u2028\\n\\r\\t"',
    '"{{ 7*7 }} ${x} %s {0}"',
    '"<script>alert(1)</script>"',
    '"-1"',
    '"24h"',
    '"since:99999999999d"',
    '"cost>1e300 user:x tag:a,b errors:maybe"',
    '"cost>1e12"',
    '"created:0001-01-01 status:active,failed"',
    '"99999999999999999999d"',
    '"0001-01-01T00:00:00+23:59"',
    '"9999-12-31T23:59:59-23:59"',
    '"eyJhIjoxfQ"',
    '"bm90IGEgY3Vyc29y"',
    '"' + "x" * 300 + '"',
    '"' + "é" * 70_000 + '"',
    "[]",
    "{}",
    '[null, 1, "", ["x"]]',
    '["../a", "' + "t" * 100 + '"]',
    "[" + ",".join(f'"{n}"' for n in range(100)) + "]",
    '{"": {"": null}}',
    '{"__proto__": {"x": 1}, "constructor": 1}',
    '{"a\\u0000": 1}',
    '{"k": NaN}',
    DEEP,
    '"' + DEEP + '"',
    '"[\\"\\\\ud800\\"]"',
    '"{\\"a\\": NaN}"',
]
LONG = "k" * 3_000_000
HUGE = ['"' + "x" * 2_000_000 + '"', "[" + "0," * 60_000 + "0]"]


class Wire:
    """A server, a view of its store from outside, and a way to send it arguments that no JSON library would write."""

    def __init__(self, server: Pipe, desk: Desk) -> None:
        self.server = server
        self.desk = desk
        self._last = 0

    def begin(self, tool: str, arguments: dict[str, str]) -> str:
        """Call a tool with arguments that are JSON already."""
        self._last += 1
        number = f"hostile-{self._last}"
        body = ",".join(f"{json.dumps(name)}:{text}" for name, text in arguments.items())
        params = f'{{"name":{json.dumps(tool)},"arguments":{{{body}}}}}'
        line = f'{{"jsonrpc":"2.0","id":"{number}","method":"tools/call","params":{params}}}\n'
        self.server.write(line.encode())
        return number

    def state(self) -> tuple[Any, ...]:
        """What moves with every change of any session, and with every counted call."""
        manager = self.desk.manager
        return manager.storage.changes(None).next_cursor, manager.totals()


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    store = tmp_path_factory.mktemp("hostile") / "sessions.db"
    with SessionManager(SQLiteSessionStorage(store, durability="process"), clock=SetClock()) as manager:
        desk = Desk(manager, SetClock())
        with Pipe(store) as server:
            server.shake_hands()
            yield Wire(server, desk)
            assert server.said_only_json_rpc()
            assert "Traceback" not in server.errors()
        assert {finding.level for finding in manager.check()} == {"ok"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_argument_of_each_tool_may_be_anything(wire: Wire, name: str) -> None:
    arguments = SESSION_TOOLS[name].annotations
    session_id = name.replace("session_", "s-")
    wire.desk.prepare(session_id)
    example = {key: json.dumps(value) for key, value in EXAMPLES[name].items()}
    for turn, argument in enumerate([*arguments, "unknown", "a\0", "x" * 200]):
        # Every argument meets a fifth of them, and each of them an argument of each tool; with full counts all do.
        for value in [*HOSTILE, *HUGE] if full_counts() else [*HOSTILE, *HUGE][turn % 5 :: 5]:
            # Every answer stands alone: what was refused must have left the store as it was.
            before = wire.state()
            sent = {**example, **({"session_id": json.dumps(session_id)} if "session_id" in example else {})}
            if name == "session_create":
                sent.pop("session_id")
            message = wire.server.answer(wire.begin(name, {**sent, argument: value}))
            told = (name, argument, value[:60])
            if "error" in message:
                assert message["error"]["code"] == -32602, (told, message)
                assert wire.state() == before, told
                continue
            result: dict[str, Any] = message["result"]
            text = result["content"][0]["text"]
            assert "Internal error" not in text, (told, text)
            if result.get("isError"):
                assert 10 < len(text) < 3_000, (told, text)
                assert wire.state() == before, told
            elif name in ("session_delete", "session_complete"):
                wire.desk.manager.delete_session(session_id)
                wire.desk.prepare(session_id)


@pytest.fixture(scope="module", params=["stdio", "http"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Port | Path]:
    """What clients connect to: a store with a session, which each opens by a server of its own, or one for all."""
    store = tmp_path_factory.mktemp("served") / "sessions.db"
    made(store, "a")
    if request.param == "stdio":
        yield store
        return
    with Port(store) as port:
        yield port
        assert "Traceback" not in port.errors()


@asynccontextmanager
async def _clients(server: Port | Path, mode: str) -> AsyncIterator[list[Client]]:
    """Two where they share a server."""
    async with AsyncExitStack() as stack:
        if isinstance(server, Port):
            clients = [Client(f"{server.url}/mcp", mode=mode) for _ in range(2)]
        else:
            clients = [connect(server, mode=mode)]
        yield [await stack.enter_async_context(client) for client in clients]


async def test_a_uri_of_megabytes_is_refused(served: Port | Path, mode: str) -> None:
    async with _clients(served, mode) as clients:
        client = clients[0]
        for uri in ("session:///" + LONG, f"session:///a/data/{LONG}", LONG):
            with pytest.raises(MCPError) as unwatched:
                await _watch(client, mode, uri)
            assert unwatched.value.error.code == INVALID_PARAMS
            fact = f"A uri has {len(uri):,} characters; that of a resource has "
            assert unwatched.value.error.message.startswith(fact)
            if mode == "legacy" or isinstance(served, Path):  # else it is in a header too
                with pytest.raises(MCPError) as unread:
                    await client.read_resource(uri)
                assert unread.value.error.code == (RESOURCE_NOT_FOUND if mode == "legacy" else INVALID_PARAMS)
                assert len(str(unread.value.error)) < 10_000
            for one in clients:
                assert (await one.read_resource("session:///a")).contents


def test_a_uri_of_megabytes_in_a_header_is_refused(store: Path) -> None:
    with Port(store) as port:
        with port.connect() as connection:
            with suppress(ConnectionError):  # it is not read to its end
                connection.sendall(head("POST /mcp", b"{}", mcp_method="resources/read", mcp_name=LONG))
                assert connection.recv(65_536).startswith(b"HTTP/1.1 400 ")
        assert port.ask("GET /healthz")[0] == 200


async def test_a_list_of_uris_of_megabytes_is_refused(served: Port | Path) -> None:
    """One that the old era cannot say: there each uri is a request."""
    async with _clients(served, "auto") as clients:
        for many in ([f"session:///a/data/{number}" for number in range(150_000)], ["x"] * 600_000):
            with pytest.raises(MCPError) as refused:
                await _watch(clients[0], "auto", *many)
            assert refused.value.error.code == INVALID_PARAMS
            assert refused.value.error.message == "At most 1,000 resources can be watched at once."
        for one in clients:
            assert (await one.read_resource("session:///a")).contents


async def _watch(client: Client, mode: str, *uris: str) -> None:
    if mode == "legacy":
        await subscribe(client, *uris)
    else:
        async with client.listen(resource_subscriptions=uris):
            pass


@pytest.mark.parametrize("tool", ["", "session_", "../session_get", "session_get\0", "é" * 1000, "__init__", "tool"])
def test_a_tool_may_be_called_anything(wire: Wire, tool: str) -> None:
    message = wire.server.answer(wire.begin(tool, {"session_id": '"a"'}))
    assert message["result"]["isError"]
    assert message["result"]["content"][0]["text"].startswith("Unknown tool")
