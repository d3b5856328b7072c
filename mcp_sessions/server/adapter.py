"""The adapter between the MCP SDK and the toolbox: what is listed, how a call comes in and goes out.

Every handler is wrapped: an exception that leaves one would reach an old client word for word.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable, Collection
from importlib.metadata import version
from typing import Any, TypeVar

import anyio
from anyio.abc import TaskGroup
from mcp import MCPError
from mcp.server import CacheHint
from mcp.server.caching import CacheableMethod
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.types import (
    CONNECTION_CLOSED,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    CompleteRequestParams,
    CompleteResult,
    GetPromptRequestParams,
    GetPromptResult,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    ToolAnnotations,
)
from mcp.types import Tool as ListedTool

from ..drafts import checked_id
from ..errors import InvalidArgumentError, InvalidCursorError, StorageError
from ..manager import SessionManager
from ..tools import Tool, Toolbox
from ..tools.awaiting import Progress, invoke_async
from . import completion, prompts, resources
from .answers import ROOM, answer, broken, refusal
from .ending import InFlight
from .events import ENVELOPE_BYTES, MOST_BYTES, SSE_MESSAGES
from .icons import SESSIONS
from .subscriptions import Subscriptions
from .texts import DESCRIPTION, TITLE, instructions
from .threads import Threads

log = logging.getLogger(__name__)
Context = ServerRequestContext[TaskGroup]
IDEMPOTENCY_KEY = "mcp-sessions/idempotencyKey"
PATIENCE_S = 1.0
AN_HOUR_MS = 3_600_000
_FIXED = CacheHint(ttl_ms=AN_HOUR_MS, scope="public")
_LIVE = CacheHint(ttl_ms=0, scope="private")
CACHE_HINTS: dict[CacheableMethod, CacheHint] = {
    "server/discover": _FIXED,
    "tools/list": _FIXED,
    "prompts/list": _FIXED,
    "resources/templates/list": _FIXED,
    "resources/list": _LIVE,
    "resources/read": _LIVE,
}
P = TypeVar("P")
R = TypeVar("R")


class SessionsServer(Server[TaskGroup]):
    """An MCP server; `subscriptions` knows who is told of what changes, `calls` what is being answered, `threads` where
    the store is asked.
    """

    def __init__(self, subscriptions: Subscriptions, calls: InFlight, threads: Threads, **given: Any) -> None:
        super().__init__("mcp-sessions", lifespan=subscriptions.lifespan, **given)
        self.threads = threads
        self.subscriptions = subscriptions
        self.calls = calls

    def create_initialization_options(
        self, notification_options: NotificationOptions | None = None, *args: Any, **more: Any
    ) -> InitializationOptions:
        """The old era's: where nothing is said, clients are told that the list of resources changes."""
        options = notification_options or NotificationOptions(resources_changed=True)
        return super().create_initialization_options(options, *args, **more)


def build_server(
    manager: SessionManager,
    toolbox: Toolbox,
    toolsets: Collection[str],
    pinned: str | None = None,
    *,
    trusted: bool = False,
) -> SessionsServer:
    """An MCP server over a toolbox; with a `pinned` session, its id may be left out of calls.

    `trusted` clients, as those over stdio, are told all that is known of a store that does not work.
    """
    listed = [_listed(tool, pinned) for tool in toolbox if tool.toolset in toolsets]
    threads = Threads()
    subscriptions, calls = Subscriptions(manager, threads), InFlight()

    async def call_tool(context: Context, params: CallToolRequestParams) -> CallToolResult:
        tool = toolbox.get(params.name)
        arguments = dict(params.arguments or {})
        if tool is not None:
            arguments = tool.lenient(arguments)
            if pinned is not None and (tool.needs_session or tool.opens is not None):
                arguments["session_id"] = arguments.get("session_id") or pinned
        try:
            result = await invoke_async(
                toolbox,
                manager,
                params.name,
                arguments,
                limiter=threads.of(tool),
                progress=_progress(context),
                caller=_caller(context),
                invocation_id=_idempotency_key(context),
                room=ROOM,
                toolsets=toolsets,
            )
        except StorageError:
            raise
        except Exception as error:
            return refusal(_fault_of_key(context, manager.limits.id_chars) or error)
        assert tool is not None
        return answer(tool, arguments, result)

    async def list_resources(context: Context, params: PaginatedRequestParams | None) -> ListResourcesResult:
        await subscriptions.lists(context)
        page = functools.partial(resources.listed, manager, params and params.cursor)
        return await threads.read(page)

    async def read_resource(context: Context, params: ReadResourceRequestParams) -> ReadResourceResult:
        read = functools.partial(
            resources.read,
            manager,
            params.uri,
            revision=context.protocol_version,
            caller=_caller(context),
            most_bytes=_most_bytes(context),
        )
        return await threads.read(read)

    async def get_prompt(context: Context, params: GetPromptRequestParams) -> GetPromptResult:
        get = functools.partial(
            prompts.get,
            manager,
            params.name,
            params.arguments,
            caller=_caller(context),
            toolsets=toolsets,
            pinned=pinned,
        )
        return await threads.read(get)

    async def complete(_context: Context, params: CompleteRequestParams) -> CompleteResult:
        find = functools.partial(completion.complete, manager, params, pinned=pinned)
        return await threads.read(find)

    return SessionsServer(
        subscriptions,
        calls,
        threads,
        version=version("mcp-sessions"),
        title=TITLE,
        description=DESCRIPTION,
        instructions=instructions(toolsets, pinned),
        icons=[SESSIONS],
        cache_hints=CACHE_HINTS,
        on_list_tools=_fixed(ListToolsResult(tools=listed)),
        on_call_tool=_guarded(_in_flight(calls, call_tool), trusted),
        on_list_resources=_guarded(_in_flight(calls, list_resources), trusted),
        on_list_resource_templates=_fixed(ListResourceTemplatesResult(resource_templates=resources.TEMPLATES)),
        on_read_resource=_guarded(_in_flight(calls, read_resource), trusted),
        on_subscribe_resource=_guarded(subscriptions.subscribe, trusted),
        on_unsubscribe_resource=_guarded(subscriptions.unsubscribe, trusted),
        on_subscriptions_listen=_guarded(subscriptions.listen, trusted),
        on_list_prompts=_fixed(ListPromptsResult(prompts=prompts.listed(pinned))),
        on_get_prompt=_guarded(_in_flight(calls, get_prompt), trusted),
        on_completion=_guarded(_in_flight(calls, complete), trusted),
    )


def _fixed(result: R) -> Callable[[Context, PaginatedRequestParams | None], Awaitable[R]]:
    """A handler of a list that is always the same, and one page."""

    async def fixed(_context: Context, params: PaginatedRequestParams | None) -> R:
        if params is not None and params.cursor is not None:
            raise MCPError(INVALID_PARAMS, str(InvalidCursorError("is not one that was given out")))
        return result

    return fixed


def _in_flight(calls: InFlight, handler: Callable[[Context, P], Awaitable[R]]) -> Callable[[Context, P], Awaitable[R]]:
    async def in_flight(context: Context, params: P) -> R:
        with calls.one():
            return await handler(context, params)
        raise MCPError(CONNECTION_CLOSED, "The server ended before the call did, which was cancelled. Call again.")

    return in_flight


def _guarded(handler: Callable[[Context, P], Awaitable[R]], trusted: bool) -> Callable[[Context, P], Awaitable[R]]:
    @functools.wraps(handler)
    async def guarded(context: Context, params: P) -> R:
        try:
            return await handler(context, params)
        except MCPError:
            raise
        except StorageError as error:
            raise broken(error, trusted=trusted) from error
        except Exception as error:  # the door of the protocol: nothing of the inside leaves
            log.exception("A request of method %s failed", context.method)
            raise MCPError(INTERNAL_ERROR, "Internal error") from error

    return guarded


def _listed(tool: Tool, pinned: str | None) -> ListedTool:
    return ListedTool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=tool.input_schema(pinned=pinned is not None and tool.needs_session),
        output_schema=dict(tool.output),
        annotations=ToolAnnotations(
            title=tool.title,
            read_only_hint=tool.reads,
            destructive_hint=tool.destructive,
            idempotent_hint=tool.idempotent or tool.reads,
            open_world_hint=tool.open_world,
        ),
    )


def _caller(context: Context) -> str:
    client = context.session.client_params
    if client is None:
        return "mcp"
    return f"mcp:{(client.client_info.title or client.client_info.name)[:120]}"


def _most_bytes(context: Context) -> int | None:
    """Of a text, as JSON writes it, in an answer to this request; None where any length can be sent."""
    if context.request is None or not context.request.url.path.startswith(SSE_MESSAGES):
        return None
    return MOST_BYTES - ENVELOPE_BYTES


def _progress(context: Context) -> Progress:
    """What tells a client that asked for it how far its call is; one that does not read is not waited for."""

    async def tell(done: float, total: float | None) -> None:
        with anyio.move_on_after(PATIENCE_S):
            await context.session.report_progress(done, total)

    return tell


def _idempotency_key(context: Context) -> str | None:
    key = _given_key(context)
    return key if key is None or isinstance(key, str) else ""  # which is no id, so the call is refused


def _given_key(context: Context) -> Any:
    meta: dict[str, Any] = dict(context.meta or {})
    return meta.get(IDEMPOTENCY_KEY)


def _fault_of_key(context: Context, max_chars: int) -> InvalidArgumentError | None:
    """What is wrong with the call's idempotency key, by the name that clients know."""
    key = _given_key(context)
    if key is None:
        return None
    if not isinstance(key, str):
        return InvalidArgumentError(f"{IDEMPOTENCY_KEY} in _meta is not text.", argument=IDEMPOTENCY_KEY)
    try:
        checked_id(key, f"{IDEMPOTENCY_KEY} in _meta", max_chars)
    except InvalidArgumentError as error:
        return error
    return None
