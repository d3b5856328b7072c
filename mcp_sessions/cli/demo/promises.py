"""What the server acknowledged, and whether the store keeps it.

A write is a promise once its answer has come. After a kill only the store can say what became of it, so
everything is read back through the tools, page by page, and compared.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import anyio
from mcp import Client, MCPError
from mcp.types import RequestParamsMeta, TextContent

from ...server.adapter import IDEMPOTENCY_KEY

IN_FLIGHT = 32
PAGE = 1000
KEYS_AT_ONCE = 25


class RefusedError(Exception):
    """The server answered a call of the demo with an error."""


@dataclass
class Write:
    """A call that changes something. Its key makes a retry safe, and is the id of its record."""

    key: str
    tool: str
    arguments: dict[str, Any]
    answer: dict[str, Any] | None = None
    """What the server acknowledged it with."""
    sent: bool = False


@dataclass
class Notebook:
    """All writes of one demo, in the order in which they were sent."""

    run: str = field(default_factory=lambda: "demo-" + secrets.token_hex(4))
    writes: list[Write] = field(default_factory=list[Write])
    heard: Callable[[], None] = lambda: None
    """Called at each acknowledgement."""

    def note(self, tool: str, **arguments: Any) -> Write:
        """A new write, with a key of its own."""
        write = Write(f"{self.run}-{len(self.writes) + 1:04}", tool, arguments)
        self.writes.append(write)
        return write

    async def send(self, client: Client, write: Write) -> dict[str, Any]:
        """Send a write; its answer, which is kept. Raises RefusedError, and MCPError where the server is gone."""
        write.sent = True
        answer = await call(client, write.tool, meta={IDEMPOTENCY_KEY: write.key}, **write.arguments)
        write.answer = answer
        self.heard()
        return answer

    async def send_all(self, client: Client, writes: Iterable[Write], *, may_break: bool = False) -> None:
        """Send writes, many at a time; with `may_break` a server may die, and nothing more is sent to it."""
        limiter = anyio.CapacityLimiter(IN_FLIGHT)
        gone = anyio.Event()

        async def send(write: Write) -> None:
            async with limiter:
                if gone.is_set():
                    return
                try:
                    await self.send(client, write)
                except (MCPError, anyio.ClosedResourceError, anyio.BrokenResourceError):
                    if not may_break:
                        raise
                    gone.set()

        async with anyio.create_task_group() as group:
            for write in writes:
                group.start_soon(send, write)

    @property
    def last_seq(self) -> int:
        """The number of the last message that was acknowledged."""
        return max(write.answer["seq"] for write in self.writes if write.answer and "seq" in write.answer)

    @property
    def acknowledged(self) -> int:
        """How many writes have their answer."""
        return sum(write.answer is not None for write in self.writes)

    @property
    def unanswered(self) -> list[Write]:
        """The writes of which nobody knows what became of them."""
        return [write for write in self.writes if write.answer is None]


async def call(client: Client, tool: str, meta: dict[str, Any] | None = None, **arguments: Any) -> dict[str, Any]:
    """The structured result of a tool. Raises RefusedError."""
    result = await client.call_tool(tool, arguments, meta=cast("RequestParamsMeta", meta or {}))
    if result.is_error:
        said = " ".join(block.text for block in result.content if isinstance(block, TextContent))
        raise RefusedError(f"{tool} answered: {said}")
    return dict(result.structured_content or {})


@dataclass(frozen=True)
class Stored:
    """A session as the store has it, all of it."""

    head: dict[str, Any]
    messages: list[dict[str, Any]]
    data: dict[str, Any]
    records: list[dict[str, Any]]
    pages: int
    """How many pages it was read in."""


async def read_back(client: Client, session_id: str, keys: Iterable[str]) -> Stored:
    """The session, and of its keys those named, through the tools."""
    messages, pages = await _paged(client, "session_messages", "messages", session_id=session_id, order="oldest")
    records, more = await _paged(client, "session_invocations", "invocations", session_id=session_id)
    wanted = sorted(set(keys))
    data: dict[str, Any] = {}
    for start in range(0, len(wanted), KEYS_AT_ONCE):
        some = wanted[start : start + KEYS_AT_ONCE]
        # The keys named are given alone: without the head, and without those that nobody asked for.
        data |= (await call(client, "session_get", session_id=session_id, keys=some))["data"]
        pages += 1
    head = (await call(client, "session_get", session_id=session_id))["session"]
    return Stored(head, messages, data, records, pages + more)


async def _paged(client: Client, tool: str, name: str, **arguments: Any) -> tuple[list[dict[str, Any]], int]:
    rows: list[dict[str, Any]] = []
    pages = 0
    while True:
        page = await call(client, tool, limit=PAGE, **arguments)
        rows += page[name]
        pages += 1
        if "next_cursor" not in page:
            return rows, pages
        arguments["cursor"] = page["next_cursor"]


def broken_promises(writes: Iterable[Write], stored: Stored) -> list[str]:
    """What the store lacks or has too often, a sentence each; none if all is as it was acknowledged."""
    writes = list(writes)
    kept = [write for write in writes if write.answer is not None]
    return [
        *_messages_lost(kept, stored),
        *_numbering(stored),
        *_strangers(writes, stored),
        *_keys_lost(kept, stored),
        *_records_lost(kept, stored),
        *_counts(stored),
    ]


def _messages_lost(kept: list[Write], stored: Stored) -> Iterable[str]:
    by_id = {message["message_id"]: message for message in stored.messages}
    for write in kept:
        if write.tool != "session_add_message" or write.answer is None:
            continue
        seq, message_id = write.answer["seq"], write.answer["message_id"]
        found = by_id.get(message_id)
        if found is None:
            yield f"Message {seq} ({message_id}) was acknowledged and is missing."
        elif (found["seq"], found["content"]) != (seq, write.arguments["content"]):
            yield f"Message {seq} ({message_id}) is not as it was acknowledged: it is message {found['seq']} now."


def _numbering(stored: Stored) -> Iterable[str]:
    there = Counter(message["seq"] for message in stored.messages)
    for seq in range(1, stored.head["last_seq"] + 1):
        if there[seq] != 1:
            yield f"There are {there[seq]} messages with the number {seq}, not one."


def _strangers(writes: list[Write], stored: Stored) -> Iterable[str]:
    asked = Counter(write.arguments["content"] for write in writes if write.tool == "session_add_message")
    for content, count in Counter(message["content"] for message in stored.messages).items():
        if count > asked[content]:
            yield f"A message is stored {count} times, and was sent {asked[content]} times: {content[:60]!r}"


def _keys_lost(kept: list[Write], stored: Stored) -> Iterable[str]:
    # The last acknowledged value of a key counts.
    last = {write.arguments["key"]: write.arguments["value"] for write in kept if write.tool == "session_set"}
    for key, value in last.items():
        if key not in stored.data:
            yield f"Key {key} was acknowledged and is missing."
        elif stored.data[key] != value:
            yield f"Key {key} does not hold what was acknowledged."


def _records_lost(kept: list[Write], stored: Stored) -> Iterable[str]:
    records: dict[str, list[dict[str, Any]]] = {}
    for record in stored.records:
        records.setdefault(record["invocation_id"], []).append(record)
    for write in kept:
        found = records.get(write.key, [])
        if len(found) != 1:
            yield f"{write.tool} {write.key} was acknowledged and has {len(found)} records, not one."
        elif (found[0]["tool_name"], found[0]["status"]) != (write.tool, "ok"):
            yield f"The record of {write.tool} {write.key} says {found[0]['tool_name']} {found[0]['status']}."
        elif "preview" not in found[0]["result"] and found[0]["result"] != write.answer:
            yield f"The record of {write.tool} {write.key} has another result than the one acknowledged."
        work = write.arguments.get("invocation_id") if write.tool == "session_record_invocation" else None
        if work is not None and len(records.get(work, [])) != 1:
            yield f"The call {work} was recorded, and has {len(records.get(work, []))} records, not one."
    told = Counter(
        record["result"]["message_id"]
        for record in stored.records
        if record["tool_name"] == "session_add_message" and record["status"] == "ok"
    )
    for message in stored.messages:
        if told.pop(message["message_id"], 0) != 1:
            yield f"Message {message['seq']} has no record of the call that added it."
    for message_id in told:
        yield f"There is a record of message {message_id}, and no message."


def _counts(stored: Stored) -> Iterable[str]:
    work = sum(record["kind"] == "work" for record in stored.records)
    for name, there in (("message_count", len(stored.messages)), ("total_invocations", work)):
        if stored.head[name] != there:
            yield f"The session's {name} is {stored.head[name]}, and there are {there}."
