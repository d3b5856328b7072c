"""Subscriptions: clients of both eras hear what changed.

A client of the new era opens a stream for it. One of the old era subscribes to resources, and hears of the list once
it has asked for it, over its connection: over stdio and SSE the only one of its lifespan, over HTTP the GET that it
keeps open. What changed while that was closed it is told when it opens the next one.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Generator
from contextlib import asynccontextmanager, contextmanager

import anyio
from anyio.abc import TaskGroup
from mcp import MCPError
from mcp.server.context import ServerRequestContext
from mcp.server.streamable_http import MCP_SESSION_ID_HEADER
from mcp.server.streamable_http_manager import DEFAULT_SESSION_IDLE_TIMEOUT
from mcp.server.subscriptions import ListenHandler, ResourceUpdated, ServerEvent, SubscriptionBus
from mcp.types import (
    INVALID_PARAMS,
    EmptyResult,
    SubscribeRequestParams,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
    UnsubscribeRequestParams,
)
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

from ..errors import InvalidArgumentError
from ..manager import SessionManager
from .threads import Threads
from .watching import Listener, Watcher

log = logging.getLogger(__name__)
Context = ServerRequestContext[TaskGroup]


class Subscriptions:
    """Who has subscribed to what, in this process."""

    def __init__(self, manager: SessionManager, threads: Threads) -> None:
        self.watcher = Watcher(manager)
        self._manager = manager
        self._threads = threads
        self._clients: dict[str | int, _Client] = {}
        """Of the old era."""
        self._open = Counter[str | int]()
        """Of them, those over HTTP that can be reached now."""

    def __len__(self) -> int:
        """How many clients of the old era have subscribed."""
        return len(self._clients)

    @asynccontextmanager
    async def lifespan(self, _server: object) -> AsyncGenerator[TaskGroup]:
        """The tasks that tell clients, until the lifespan ends."""
        async with anyio.create_task_group() as tasks:
            try:
                yield tasks
            finally:
                tasks.cancel_scope.cancel()
                for key in [key for key, client in self._clients.items() if client.tasks is tasks]:
                    self.forget(key)

    async def listen(self, context: Context, params: SubscriptionsListenRequestParams) -> SubscriptionsListenResult:
        """The new era: one request is one stream, and ends with it."""
        stream = _Stream()
        listener = Listener(stream.deliver)
        wanted = params.notifications
        lists = wanted.resources_list_changed is True
        await self._watch(listener, wanted.resource_subscriptions or (), lists=lists)
        if not listener.idle:
            self.watcher.join(listener)
        try:
            return await ListenHandler(stream)(context, params)
        finally:
            self.watcher.leave(listener)

    async def subscribe(self, context: Context, params: SubscribeRequestParams) -> EmptyResult:
        """The old era: from now on the client hears of one more resource."""
        await self._add(context, (params.uri,))
        return EmptyResult()

    async def unsubscribe(self, context: Context, params: UnsubscribeRequestParams) -> EmptyResult:
        """The old era: no more of it."""
        client = self._clients.get(_key(context))
        if client is not None:
            client.listener.unwatch(params.uri)
            if client.listener.idle:
                client.stop()
        return EmptyResult()

    async def lists(self, context: Context) -> None:
        """A client asks for the list, before it is read: one of the old era hears of its changes from now on."""
        client = self._clients.get(_key(context))
        if context.protocol_version in HANDSHAKE_PROTOCOL_VERSIONS and (client is None or not client.listener.lists):
            await self._add(context, lists=True)

    @contextmanager
    def reached(self, key: str) -> Generator[None]:
        """While a client over HTTP keeps a stream open for what the server says by itself."""
        self._open[key] += 1
        if key in self._clients:
            self._clients[key].start()
        try:
            yield
        finally:
            self._open[key] -= 1
            if not self._open[key]:
                del self._open[key]
                if key in self._clients:
                    self._clients[key].stop()
                self._expire()

    def forget(self, key: str | int) -> None:
        """A client is gone for good."""
        client = self._clients.pop(key, None)
        if client is not None:
            client.stop()

    async def _add(self, context: Context, uris: Collection[str] = (), *, lists: bool = False) -> None:
        key = _key(context)
        client = self._clients.get(key)
        if client is None:
            self._expire()
            client = self._clients[key] = _Client(context, self.watcher)
        await self._watch(client.listener, uris, lists=lists)
        if self._clients.get(key) is client and (key in self._open or not isinstance(key, str)):
            client.start()

    async def _watch(self, listener: Listener, uris: Collection[str], *, lists: bool) -> None:
        try:
            await self._threads.read(lambda: listener.watch(self._manager, uris, lists=lists))
        except InvalidArgumentError as error:
            raise MCPError(INVALID_PARAMS, str(error)) from error

    def _expire(self) -> None:
        """Forget who has not been reached for as long as the SDK keeps his connection."""
        gone = time.monotonic() - DEFAULT_SESSION_IDLE_TIMEOUT
        for key in [key for key, client in self._clients.items() if not client.running and client.left_at < gone]:
            self.forget(key)


def _key(context: Context) -> str | int:
    """What stands for a connection of the old era, for it has no name: over HTTP its id, else its lifespan's."""
    headers = getattr(context.request, "headers", {})
    return headers.get(MCP_SESSION_ID_HEADER) or id(context.lifespan_context)


class _Stream(SubscriptionBus):
    """The bus of one stream; what happens before it is opened waits."""

    def __init__(self) -> None:
        self._early: list[ServerEvent] = []
        self._listener = self._early.append

    def deliver(self, event: ServerEvent) -> None:
        self._listener(event)

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        self._listener = listener
        for event in self._early:
            listener(event)
        return lambda: None

    async def publish(self, event: ServerEvent) -> None:
        self.deliver(event)


class _Client:
    """A client of the old era: what is new goes to it one by one, each once, however slowly it reads."""

    def __init__(self, context: Context, watcher: Watcher) -> None:
        self.tasks = context.lifespan_context
        self.listener = Listener(self._deliver)
        self.left_at = time.monotonic()
        self._session = context.session
        self._watcher = watcher
        self._due: dict[ServerEvent, None] = {}
        self._some = anyio.Event()
        self._scope: anyio.CancelScope | None = None

    @property
    def running(self) -> bool:
        return self._scope is not None

    def start(self) -> None:
        """Tell it from now on, and what it has not been told yet."""
        if self._scope is None and not self.listener.idle:
            self._scope = anyio.CancelScope()
            self._watcher.join(self.listener)
            self.tasks.start_soon(self._serve, self._scope)

    def stop(self) -> None:
        """Tell it nothing until the next start."""
        if self._scope is not None:
            self._watcher.leave(self.listener)
            self._scope.cancel()
            self._scope = None
            self.left_at = time.monotonic()

    def _deliver(self, event: ServerEvent) -> None:
        self._due[event] = None
        self._some.set()

    async def _serve(self, scope: anyio.CancelScope) -> None:
        with scope:
            try:
                while True:
                    while self._due:
                        await self._send(next(iter(self._due)))
                    self._some = anyio.Event()
                    await self._some.wait()
            except Exception:  # or all others would be told nothing more either
                log.exception("A client is not told of changes any longer")
                self.stop()

    async def _send(self, event: ServerEvent) -> None:
        del self._due[event]
        if isinstance(event, ResourceUpdated):
            await self._session.send_resource_updated(event.uri)
        else:
            await self._session.send_resource_list_changed()
