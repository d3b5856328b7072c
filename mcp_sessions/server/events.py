"""Server-sent events: which answers need not be one, and how long those may be that are.

An answer as JSON is quicker to write and to read, and has no length at which a client gives up.
"""

from __future__ import annotations

import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 1 << 20
"""Of an event that the official Python client takes; at a longer one it gives up its whole connection over SSE."""
ENVELOPE_BYTES = 16 << 10
"""What an event has beside the text that is read: its uri above all, and the request's id."""
SSE_MESSAGES = "/messages/"
"""Where clients over SSE post their requests; the answers are events."""
_ANSWER = re.compile(
    rb'event: message\r\ndata: (\{"jsonrpc":"2\.0","id":(?:-?\d+|"(?:[^"\\]|\\.)*"),"(?:result|error)":.*\})\r\n\r\n\Z',
    re.DOTALL,
)
"""An event that is an answer, as the SDK writes it; what comes otherwise stays an event."""


class AsJson:
    """An application that answers as JSON where its stream would begin with the answer.

    So the SDK does for the new era, and for the old one only if no call is ever to tell how far it is.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            send = _Waiting(send)
        await self._app(scope, receive, send)


class _Waiting:
    """Sends the head of a stream when it is known what comes first."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._head: Message | None = None
        self._answered = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and _is_stream(message):
            self._head = message
        elif self._head is not None:
            head, self._head = self._head, None
            answer = _ANSWER.match(message.get("body", b""))
            if answer is not None:
                self._answered = True
                headers = MutableHeaders(raw=head["headers"])
                headers["content-type"] = "application/json"
                headers["content-length"] = str(len(answer[1]))
                message = {"type": "http.response.body", "body": answer[1]}
            await self._send(head)
            await self._send(message)
        elif not self._answered:  # an answer is the last event
            await self._send(message)


def _is_stream(head: Message) -> bool:
    return Headers(raw=head["headers"]).get("content-type", "").startswith("text/event-stream")
