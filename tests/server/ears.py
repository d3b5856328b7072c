"""Clients that listen, in either era: what they hear is kept in order."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.client.session import IncomingMessage
from mcp.client.subscriptions import ResourceUpdated, Subscription, SubscriptionLost
from mcp.shared.exceptions import MCPDeprecationWarning
from mcp.types import ResourceListChangedNotification, ResourceUpdatedNotification

from tests.processes import LONG_S

THE_LIST = "the list"


class Ear:
    """`heard` holds uris, and THE_LIST for the list."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self._more = anyio.Event()

    async def until(self, heard: str) -> list[str]:
        """What came up to the first of these, which is taken out."""
        with anyio.fail_after(LONG_S):
            while heard not in self.heard:
                await self._more.wait()
        place = self.heard.index(heard) + 1
        came, self.heard = self.heard[:place], self.heard[place:]
        return came

    def hear(self, what: str) -> None:
        self.heard.append(what)
        self._more.set()
        self._more = anyio.Event()

    async def take(self, message: IncomingMessage) -> None:
        """What a client of the old era is told."""
        if isinstance(message, ResourceUpdatedNotification):
            self.hear(message.params.uri)
        elif isinstance(message, ResourceListChangedNotification):
            self.hear(THE_LIST)

    async def follow(self, subscription: Subscription) -> None:
        """What a client of the new era is told, until its server ends."""
        with suppress(SubscriptionLost):
            async for event in subscription:
                self.hear(event.uri if isinstance(event, ResourceUpdated) else THE_LIST)


async def subscribe(client: Client, uri: str) -> None:
    """As clients of the old era do."""
    with pytest.warns(MCPDeprecationWarning):
        await client.subscribe_resource(uri)


async def unsubscribe(client: Client, uri: str) -> None:
    """As clients of the old era do."""
    with pytest.warns(MCPDeprecationWarning):
        await client.unsubscribe_resource(uri)


@asynccontextmanager
async def listening(server: Any, mode: str, *uris: str, lists: bool = False) -> AsyncIterator[tuple[Client, Ear]]:
    """A client of a server that listens, and what it hears."""
    ear = Ear()
    handler = ear.take if mode == "legacy" else None
    async with Client(server, mode=mode, message_handler=handler) as client:
        if mode == "legacy":
            for uri in uris:
                await subscribe(client, uri)
            if lists:
                await client.list_resources()
            yield client, ear
        else:
            async with client.listen(resource_subscriptions=uris, resources_list_changed=lists) as subscription:
                async with anyio.create_task_group() as group:
                    group.start_soon(ear.follow, subscription)
                    yield client, ear
                    group.cancel_scope.cancel()
