"""Several processes on one store: killed, at once, each under its own name, and for a long time."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.types import INTERNAL_ERROR

from mcp_sessions.config import sqlite_url
from mcp_sessions.models import ConversationMessage, Invocation
from mcp_sessions.storage import SQLiteSessionStorage
from mcp_sessions.storage.sqlite import readers
from tests.processes import Child, full_counts, until
from tests.server.pipes import Pipe, environment, program
from tests.server.test_stdio import connect
from tests.storage.looking import made
from tests.storage.programs import append, hold_gate, hold_lock
from tests.tools.desk import Desk

ROUNDS = 4 if full_counts() else 2
WRITERS = 3


def everything(desk: Desk, session_id: str) -> tuple[list[ConversationMessage], list[Invocation]]:
    """All messages, oldest first, and all records, newest first."""
    messages: list[ConversationMessage] = []
    records: list[Invocation] = []
    cursor: str | None = ""
    while cursor is not None:
        page = desk.manager.messages(session_id, 1000, cursor or None, "oldest")
        messages, cursor = messages + page.items, page.next_cursor
    cursor = ""
    while cursor is not None:
        found = desk.manager.invocations(session_id, "session_add_message", None, 1000, cursor or None)
        records, cursor = records + found.items, found.next_cursor
    return messages, records


def write_on(server: Pipe, name: str, told: list[dict[str, Any]], enough: threading.Event, at_least: int) -> None:
    """Append until it is enough, eight calls under way at a time; keep what was acknowledged."""
    waiting: list[int] = []
    count = 0
    try:
        while not enough.is_set() or len(told) < at_least:
            waiting.append(server.begin("session_add_message", session_id="a", role="user", content=f"{name} {count}"))
            count += 1
            if len(waiting) == 8:
                told.append(server.answer(waiting.pop(0))["result"]["structuredContent"])
        told.extend(server.answer(number)["result"]["structuredContent"] for number in waiting)
    except (AssertionError, BrokenPipeError):
        if name != "victim":
            raise


def test_a_server_killed_while_three_write_loses_nothing_it_acknowledged(store: Path, desk: Desk) -> None:
    desk("session_create", session_id="a")
    told: list[dict[str, Any]] = []
    servers = [Pipe(store, name=f"writer {number}") for number in range(WRITERS)]
    victims = [Pipe(store, name="victim")]
    try:
        for server in servers:
            server.shake_hands()
        for number in range(ROUNDS):
            victim = victims.pop().shake_hands()
            if number < ROUNDS - 1:
                victims.append(Pipe(store, name="victim"))  # it starts while the others write
            parts: list[list[dict[str, Any]]] = [[] for _ in range(WRITERS + 1)]
            enough = threading.Event()
            threads = [
                threading.Thread(target=write_on, args=(server, f"writer {n}", parts[n], enough, 10))
                for n, server in enumerate(servers)
            ]
            last = threading.Thread(target=write_on, args=(victim, "victim", parts[-1], threading.Event(), 1))
            for thread in (*threads, last):
                thread.start()
            until(lambda acknowledged=parts[-1]: len(acknowledged) >= 10)
            victim.kill()
            enough.set()
            for thread in (*threads, last):
                thread.join()
            assert all(len(part) >= 10 for part in parts)
            told += [entry for part in parts for entry in part]
            with victim:
                assert victim.said_only_json_rpc()
    finally:
        for server in (*servers, *victims):
            server.__exit__(None, None, None)
    messages, records = everything(desk, "a")
    assert [message.seq for message in messages] == list(range(1, len(messages) + 1))
    kept = {message.seq: message.message_id for message in messages}
    assert len(told) >= ROUNDS * (WRITERS + 1) * 10
    assert all(kept[entry["seq"]] == entry["message_id"] for entry in told)
    assert len({entry["seq"] for entry in told}) == len(told)
    assert sorted(record.result["seq"] for record in records) == sorted(kept)
    assert all(kept[record.result["seq"]] == record.result["message_id"] for record in records)
    assert {finding.level for finding in desk.manager.check()} == {"ok"}


@pytest.mark.parametrize("ending", [signal.SIGTERM, None])
@pytest.mark.parametrize("begun", [0, 1, 70], ids="{} calls".format)
def test_who_holds_the_gate_does_not_hold_up_the_end(store: Path, desk: Desk, begun: int, ending: int | None) -> None:
    """A call waited for it thirty seconds, and so did the records of reads when the server closed."""
    desk("session_create", session_id="a")
    with Pipe(store) as server:
        server.shake_hands()
        server.structured("session_set", session_id="a", key="k", value=1)
        with Child(hold_gate, str(store)) as holder:
            assert holder.hear() == "inside"
            server.structured("session_get", session_id="a")
            numbers = [server.begin("session_set", session_id="a", key="k", value=2) for _ in range(begun)]
            server.ask("ping")  # so all were accepted
            asked = time.monotonic()
            if ending is None:
                server.close_stdin()
            else:
                server.signal(ending)
            server.end()
            assert time.monotonic() - asked < 10  # it is to be two, on a machine that has nothing else to do
            answers = {message["id"]: message for message in server.rest()}
            if begun == 1:
                error = answers[numbers[0]]["error"]
                assert error["code"] == INTERNAL_ERROR
                assert f"is held by process {holder.pid} " in error["message"]
            assert not any("result" in answers.get(number, {}) for number in numbers)
            holder.tell()
            assert holder.hear()["seq"] == 1
            holder.ends_well()
    assert desk("session_get", session_id="a", key="k")["value"] == 1
    assert {record.tool_name for record in desk.records("a")} >= {"session_create", "session_set"}


@pytest.mark.parametrize("begun", [0, 1, 70], ids="{} calls".format)
def test_a_foreign_program_that_has_locked_the_store_does_not_hold_up_the_end(
    store: Path, desk: Desk, begun: int
) -> None:
    desk("session_create", session_id="a")
    with Pipe(store) as server:
        server.shake_hands()
        server.structured("session_set", session_id="a", key="k", value=1)
        with Child(hold_lock, str(store)) as holder:
            assert holder.hear() == "locked"
            server.structured("session_get", session_id="a")
            numbers = [server.begin("session_set", session_id="a", key="k", value=2) for _ in range(begun)]
            server.ask("ping")  # so all were accepted
            asked = time.monotonic()
            server.signal(signal.SIGTERM)
            server.end()
            assert time.monotonic() - asked < 10  # it is to be two, on a machine that has nothing else to do
            answers = {message["id"]: message for message in server.rest()}
            if begun == 1:
                error = answers[numbers[0]]["error"]
                assert error["code"] == INTERNAL_ERROR
                assert "is held by another process, and this process is ending" in error["message"]
            assert not any("result" in answers.get(number, {}) for number in numbers)
            holder.tell()
            holder.ends_well()
    assert desk("session_get", session_id="a", key="k")["value"] == 1


@pytest.mark.parametrize(
    ("tool", "arguments"), [("session_invocations", {}), ("session_search", {"text": "message", "session_id": "a"})]
)
def test_reads_are_answered_while_those_that_write_first_wait_for_another_process(
    store: Path, tool: str, arguments: dict[str, Any]
) -> None:
    """They had all threads: nothing was read for half a minute."""
    made(store, "a")
    with Child(append, str(store), "a", "message", 0) as writer:
        assert writer.hear() == "ready"
        writer.tell()
        writer.hear()
        writer.kill()  # so that what it has said stands in no index yet
    with Child(hold_gate, str(store)) as holder:
        assert holder.hear() == "inside"
        with Pipe(store) as server:
            server.shake_hands()
            server.structured("session_get", session_id="a")  # whose record is to be written
            waiting = [server.begin(tool, **arguments) for _ in range(70)]
            assert server.structured("session_get", session_id="a")["session"]["session_id"] == "a"
            assert not server.has_answered(waiting)
            holder.tell()
            for number in waiting:
                assert not server.answer(number)["result"].get("isError")


@pytest.mark.parametrize("hold", [hold_gate, hold_lock])
def test_slow_calls_end_with_their_server_although_they_cannot_be_recorded(
    store: Path, desk: Desk, hold: Callable[[str], None]
) -> None:
    """The record of their end waited for half a minute."""
    desk("session_create", session_id="a")
    with Pipe(store, command=program("serve_more", sqlite_url(store))) as server:
        server.shake_hands()
        server.begin("waiting", session_id="a")
        until(lambda: bool(desk.records("a", tool="waiting")))
        with Child(hold, str(store)) as holder:
            assert holder.hear()
            asked = time.monotonic()
            server.signal(signal.SIGTERM)
            server.end()
            assert time.monotonic() - asked < 10
            holder.kill()
    desk.manager.interrupt_dead()
    assert [record.status.value for record in desk.records("a", tool="waiting")] == ["interrupted"]


def test_four_servers_append_a_hundred_each_and_all_are_kept(store: Path, desk: Desk) -> None:
    desk("session_create", session_id="a")
    servers = [Pipe(store, name=f"writer {number}") for number in range(4)]
    told: list[dict[str, Any]] = []
    try:
        for server in servers:
            server.listen()
        for server in servers:
            server.shake_hands()
        numbers = [
            (server, server.begin("session_add_message", session_id="a", role="user", content=f"{count}"))
            for count in range(100)
            for server in servers
        ]
        told = [server.answer(number)["result"]["structuredContent"] for server, number in numbers]
    finally:
        for server in servers:
            server.__exit__(None, None, None)
    messages, records = everything(desk, "a")
    assert [message.seq for message in messages] == sorted(entry["seq"] for entry in told) == list(range(1, 401))
    assert sorted(told, key=lambda entry: entry["seq"]) == sorted(
        (record.result for record in records), key=lambda result: result["seq"]
    )
    assert Counter(record.caller for record in records) == {f"mcp:writer {number}": 100 for number in range(4)}
    assert {record.status.value for record in records} == {"ok"}


async def test_two_clients_the_command_line_and_a_script_write_one_session(store: Path, desk: Desk) -> None:
    count = 5
    desk("session_create", session_id="a")

    def run(*args: str) -> None:
        subprocess.run([sys.executable, *args], env=environment(store), check=True, capture_output=True)

    async def by_client(name: str, mode: str) -> None:
        async with connect(store, name=name, mode=mode) as client:
            for number in range(count):
                arguments = {"session_id": "a", "key": f"{name}-{number}", "value": number}
                result = await client.call_tool("session_set", arguments)
                assert not result.is_error

    def by_command_line() -> None:
        for number in range(2):
            run("-m", "mcp_sessions", "set", "a", f"cli-{number}", str(number))

    async with anyio.create_task_group() as group:
        group.start_soon(by_client, "Claude Desktop", "legacy")
        group.start_soon(by_client, "Cursor", "auto")
        group.start_soon(anyio.to_thread.run_sync, by_command_line)
        group.start_soon(anyio.to_thread.run_sync, run, *program("write_keys", sqlite_url(store), "a", str(count)))
    callers = Counter(record.caller for record in desk.records("a", tool="session_set"))
    assert callers == {"mcp:Claude Desktop": count, "mcp:Cursor": count, "cli": 2, "python": count}
    assert len(desk("session_get", session_id="a")["data"]) == 3 * count + 2
    assert desk.head().revision == 1 + 3 * count + 2


def resources_of(pid: int, store: Path) -> tuple[int, int, int, int]:
    """Descriptors of the store's files, other ones, threads, and kilobytes of memory of a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines())
    files: list[str] = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed meanwhile
            files.append(str(path.readlink()))
    of_store = sum(file.startswith(str(store)) for file in files)
    return of_store, len(files) - of_store, int(status["Threads"]), int(status["VmRSS"].split()[0])


def test_thousands_of_calls_leave_a_server_as_it_was(store: Path) -> None:
    rounds, at_once, own_threads = 98 if full_counts() else 8, 20, 8
    with Pipe(store, "--session", "a") as server:
        server.shake_hands()

        def hundred_calls() -> None:
            numbers: list[int] = []
            for number in range(25):
                numbers += [
                    server.begin("session_add_message", role="user", content=f"m{number}"),
                    server.begin("session_set", key=f"k{number}", value=number),
                    server.begin("session_get", messages=5),
                    server.begin("session_get", key=5),
                ]
                if len(numbers) == at_once:
                    for one in numbers:
                        server.answer(one)
                    numbers = []
            for one in numbers:
                server.answer(one)

        for _ in range(12):  # until it has most of what it ever keeps
            hundred_calls()
        before = resources_of(server.process.pid, store)
        for _ in range(rounds):
            hundred_calls()
        after = resources_of(server.process.pid, store)
    connections = readers.MOST + 1
    assert after[0] <= 2 * connections + 2  # the file and the log of each, the gate, the shared memory
    assert after[1] <= before[1] + 2
    assert after[2] <= at_once + own_threads
    assert after[3] - before[3] < 16_000, f"{after[3] - before[3]} KB more after {rounds * 100} calls"
    with SQLiteSessionStorage(store) as storage:
        assert {finding.level for finding in storage.check()} == {"ok"}
