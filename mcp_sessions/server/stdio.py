"""Stdio: JSON-RPC on descriptors of our own, which no print and no child process can reach.

Reading and writing have threads that are never waited for, so a signal ends the server although nobody closed stdin
and nobody reads stdout. The lines are parsed here, and not by the SDK's transport, so that what JSON can say and its
parser refuses (half an emoji, 200 levels) is answered, and so that answers that are due go out before the end.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, BinaryIO, Self

import anyio
import anyio.from_thread
import anyio.lowlevel
from anyio.abc import ObjectReceiveStream, ObjectSendStream
from mcp.server.lowlevel import Server
from mcp.shared.message import SessionMessage
from mcp.types import (
    INVALID_REQUEST,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    jsonrpc_message_adapter,
)
from pydantic_core import PydanticSerializationError

from .ending import on_signal, soon

log = logging.getLogger(__name__)
GRACE_S = 1.25
"""How long answers that are due at the end are waited for; an MCP client kills after two seconds."""


async def serve(server: Server[Any], source: BinaryIO, sink: BinaryIO, give_up: Callable[[], None]) -> None:
    """Serve until stdin ends, nobody reads stdout, or SIGTERM or SIGINT comes; calls that were accepted are finished,
    and answered if that takes little more than a second; a second signal cancels them at once. Soon after the end
    `give_up` is called, from a thread, also where this has returned by then: nothing is to wait for other processes any
    longer.
    """
    to_server, from_client = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    from_server, to_client = anyio.create_memory_object_stream[SessionMessage](0)
    due, reading, finishing = _Due(), anyio.CancelScope(), anyio.CancelScope()

    def end(_signal: int) -> None:
        if reading.cancel_called:
            finishing.cancel()
        reading.cancel()

    async def take_in() -> None:
        async with to_server, from_server.clone() as answers:
            with reading:
                async with _lines(source) as lines:
                    async for line in lines:
                        await _pass_on(line, to_server, answers, due)
            soon(give_up)
            with finishing, anyio.move_on_after(GRACE_S):
                await due.nothing()

    async def give_out() -> None:
        async with to_client, _Wire(sink) as wire:
            async for message in to_client:
                try:
                    await wire.write(message.message)
                except OSError:  # the client has gone
                    reading.cancel()
                    due.forget()
                    return
                due.answered(message.message)

    async with anyio.create_task_group() as group:
        group.start_soon(on_signal, end)
        group.start_soon(take_in)
        group.start_soon(give_out)
        await server.run(from_client, from_server, server.create_initialization_options())
        group.cancel_scope.cancel()


async def _pass_on(
    line: bytes,
    to_server: ObjectSendStream[SessionMessage | Exception],
    answers: ObjectSendStream[SessionMessage],
    due: _Due,
) -> None:
    message = parsed(line)
    try:
        if isinstance(message, JSONRPCError):
            await answers.send(SessionMessage(message))
        elif message is not None:
            due.accepted(message)
            await to_server.send(SessionMessage(message))
        elif line.strip():
            log.warning("A line on stdin is not a JSON-RPC message, and was passed over")
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass  # the server has ended


def parsed(line: bytes) -> JSONRPCMessage | None:
    """The message in a line; the error to answer with where it is a request that cannot be one; None for the rest."""
    try:
        return jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValueError:
        pass
    try:
        value = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    try:
        # What was refused as text may be a message all the same: then the tools say what is wrong with it.
        return jsonrpc_message_adapter.validate_python(value, by_name=False)
    except ValueError:
        pass
    match value:
        case {"id": int() | str() as id, "method": _} if not isinstance(id, bool):
            return JSONRPCError(jsonrpc="2.0", id=id, error=ErrorData(code=INVALID_REQUEST, message="Invalid request"))
        case _:
            return None


class _Due:
    """The requests that were accepted and are not answered yet."""

    def __init__(self) -> None:
        self._ids = Counter[str]()
        self._nothing = anyio.Event()
        self._nothing.set()

    def accepted(self, message: JSONRPCMessage) -> None:
        if isinstance(message, JSONRPCRequest) and message.method != "subscriptions/listen":  # which goes on to the end
            if not self._ids:
                self._nothing = anyio.Event()
            self._ids[str(message.id)] += 1
        elif isinstance(message, JSONRPCNotification) and message.method == "notifications/cancelled":
            self._remove((message.params or {}).get("requestId"))  # what was cancelled is not answered

    def answered(self, message: JSONRPCMessage) -> None:
        if isinstance(message, (JSONRPCResponse, JSONRPCError)):
            self._remove(message.id)

    def forget(self) -> None:
        self._ids.clear()
        self._nothing.set()

    async def nothing(self) -> None:
        await self._nothing.wait()

    def _remove(self, id: Any) -> None:
        key = str(id)
        if self._ids[key] > 1:
            self._ids[key] -= 1
        else:
            del self._ids[key]  # a Counter passes over what is not there
        if not self._ids:
            self._nothing.set()


@asynccontextmanager
async def _lines(source: BinaryIO) -> AsyncGenerator[ObjectReceiveStream[bytes]]:
    """The lines of stdin as they come."""
    send, receive = anyio.create_memory_object_stream[bytes](32)
    token = anyio.lowlevel.current_token()

    def pump() -> None:
        try:
            for line in source:
                anyio.from_thread.run(send.send, line, token=token)
            anyio.from_thread.run_sync(send.close, token=token)
        except (RuntimeError, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            pass  # the server has ended

    threading.Thread(target=pump, name="mcp-sessions-stdin", daemon=True).start()
    async with receive:
        yield receive


def _line(message: JSONRPCMessage) -> bytes:
    try:
        return message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"
    except PydanticSerializationError:  # it repeats half an emoji that was sent
        return json.dumps(message.model_dump(mode="json", by_alias=True, exclude_unset=True)).encode() + b"\n"


class _Wire:
    """Stdout: whole lines, in order."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink
        self._todo = queue.SimpleQueue[tuple[bytes, anyio.Event] | None]()
        self._error: OSError | None = None

    async def __aenter__(self) -> Self:
        self._token = anyio.lowlevel.current_token()
        threading.Thread(target=self._serve, name="mcp-sessions-stdout", daemon=True).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._todo.put(None)

    async def write(self, message: JSONRPCMessage) -> None:
        """Write a message. Raises OSError where nobody reads any more."""
        written = anyio.Event()
        self._todo.put((_line(message), written))
        await written.wait()
        if self._error is not None:
            raise self._error

    def _serve(self) -> None:
        while (todo := self._todo.get()) is not None:
            data, written = todo
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(self._sink.fileno(), view) :]
            except OSError as error:
                self._error = error
            try:
                anyio.from_thread.run_sync(written.set, token=self._token)
            except RuntimeError:
                return  # the server has ended
