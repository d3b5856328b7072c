"""Toolbox: tools by name, and `invoke`, the one door to them.

MCP, agents, workflows and scripts all come through `invoke`, so every call is checked, recorded and committed in
the same way, bad arguments and unknown tools included.
"""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic_core import ErrorDetails

from ..calls import Call
from ..drafts import checked_id
from ..errors import InvalidArgumentError, SessionExistsError, SessionNotFoundError, UnknownToolError
from ..manager import SessionManager
from ..models import Query, SessionMetadata, SessionStatus
from .arguments import blank_is_absent, can_be_text, is_hidden, required, schema_of

Toolset = Literal["core", "manage", "records", "automation"]
Function = Callable[..., Any]
AN_ID = "should be an id: 1 to 128 letters, digits, '.', '_' or '-', beginning with a letter or digit"
AUTOMATION = ("agent_invoke", "workflow_run", "workflow_status", "workflow_respond")
"""The tools of a toolset that is not always there."""


@dataclass(frozen=True)
class Tool:
    """A plain function over a call, and what hosts and models are told about it."""

    name: str
    title: str
    description: str
    toolset: str
    function: Function
    arguments: type[BaseModel]
    annotations: Mapping[str, Any]
    """name -> type, of every argument."""
    output: Mapping[str, Any]
    """Schema of the result."""
    line: Callable[[Mapping[str, Any], Mapping[str, Any]], str] | None
    """The result in one line, from result and arguments; None where it is told as JSON."""
    reads: bool = False
    catches_up: bool = False
    """A read before which what waits to be written is: it may wait for another process, as a write does."""
    destructive: bool = False
    idempotent: bool = False
    open_world: bool = False
    """It reaches what is not ours: programs, models, other servers."""
    new_session: bool = False
    """It makes, forks or removes sessions, so a caller's invocation id is unique within the user."""
    kind: Literal["session", "work"] = "session"
    slow: bool = False
    """Its function is `async def`: it runs on an event loop, and is on record as running from its beginning."""
    opens: Callable[..., object] | None = None
    """It works in a session, which is made where there is none, unless this raises for its arguments."""
    manager: Callable[[], SessionManager] | None = None
    """Where its sessions are kept; None: where those of the others are."""
    advertised: tuple[str, ...] = field(default=())

    @property
    def needs_session(self) -> bool:
        """Whether each call must name a session."""
        field = self.arguments.model_fields.get("session_id")
        return field is not None and field.is_required()

    def input_schema(self, *, pinned: bool = False) -> dict[str, Any]:
        """The flat schema of the advertised arguments; with a pinned session its id is not required."""
        fields = self.arguments.model_fields
        needed = [
            name for name in self.advertised if fields[name].is_required() and not (pinned and name == "session_id")
        ]
        properties = {name: schema_of(self.annotations[name]) for name in self.advertised}
        return {"type": "object", "properties": properties, **({"required": needed} if needed else {})}

    def parse(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments, checked. Raises InvalidArgumentError that names what is wrong, and what would be right."""
        try:
            return vars(self.arguments.model_validate(dict(arguments)))
        except ValidationError as error:
            # An unknown argument explains a missing one, so it comes first.
            faults = sorted(error.errors(include_url=False), key=lambda fault: fault["type"] != "extra_forbidden")
            sentences = dict.fromkeys(self._sentence(fault) for fault in faults)
            first = str(faults[0]["loc"][0]) if faults[0]["loc"] else None
            raise InvalidArgumentError(" ".join(list(sentences)[:5]), argument=first) from None

    def lenient(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments with what hosts are known to do to them undone: for the MCP door alone.

        JSON text where no text can be is parsed, and 20.0 is the integer 20; null for an optional argument counts as
        left out, and an empty text for one that can be no text, or is an id, an enum, a time, a name or a cursor.
        """
        mended: dict[str, Any] = {}
        for name, value in arguments.items():
            annotation = self.annotations.get(name)
            if annotation is None:
                if name != "toolCallId":  # added by some versions of n8n
                    mended[name] = value
                continue
            optional = not self.arguments.model_fields[name].is_required()
            if optional and (value is None or (value == "" and blank_is_absent(annotation))):
                continue
            mended[name] = _as_meant(value, annotation)
        return mended

    def _sentence(self, fault: ErrorDetails) -> str:
        name = str(fault["loc"][0]) if fault["loc"] else "arguments"
        if fault["type"] == "extra_forbidden":
            close = difflib.get_close_matches(name, self.annotations, 1, 0.5)
            near = close[0] if close else next((known for known in self.annotations if known.endswith(name)), None)
            hint = f"did you mean '{near}'?" if near else f"{self.name} takes {', '.join(self.advertised)}."
            return f"Unknown argument '{name[:60]}': {hint}"
        if fault["type"] == "missing":
            return f"Argument '{name}' of {self.name} is missing."
        kind, _ = required(self.annotations.get(name, str))
        where = "".join(f"[{part!r}]" for part in fault["loc"][1:])
        message = fault["msg"].removeprefix("Value error, ").removeprefix("Input ")
        message = AN_ID if fault["type"] == "string_pattern_mismatch" else message[0].lower() + message[1:]
        got = fault.get("input")
        shown = f", not {_shown(got)}" if kind is not None and "should be" in message else ""
        return f"Argument '{name}'{where} {message}{shown}."


def _as_meant(value: Any, annotation: Any) -> Any:
    if isinstance(value, str) and not can_be_text(annotation):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return value
    # JSON Schema counts 20.0 as an integer, and some hosts know no other numbers.
    if isinstance(value, float) and value.is_integer() and required(annotation)[0] is int:
        return int(value)
    return value


def _shown(value: Any) -> str:
    """A value as an error shows it: of an object or a list its kind alone, for there secrets may stand."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, (list, tuple)):
        return "an array"
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        return "a text of JSON"
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


class Toolbox:
    """Tools by name, in the order in which they are shown."""

    def __init__(self, tools: Iterable[Tool] = ()) -> None:
        self._tools = {tool.name: tool for tool in tools}

    def __iter__(self) -> Iterator[Tool]:
        return iter(self._tools.values())

    def __contains__(self, name: object) -> bool:
        return name in self._tools

    def __getitem__(self, name: str) -> Tool:
        try:
            return self._tools[name]
        except KeyError:
            raise UnknownToolError(name, f"Unknown tool '{name[:80]}': {self._hint(name)}") from None

    def get(self, name: str) -> Tool | None:
        """The tool of that name, if there is one."""
        return self._tools.get(name)

    def add(self, tools: Iterable[Tool]) -> None:
        """More tools. Raises InvalidArgumentError for a name that is taken."""
        for tool in tools:
            if tool.name in self._tools:
                raise InvalidArgumentError(f"There is a tool '{tool.name}' already.", argument="name")
            self._tools[tool.name] = tool

    def tool(
        self,
        *,
        title: str,
        toolset: str = "",
        output: Mapping[str, Any] | None = None,
        line: Callable[[Mapping[str, Any], Mapping[str, Any]], str] | None = None,
        reads: bool = False,
        catches_up: bool = False,
        destructive: bool = False,
        idempotent: bool = False,
        open_world: bool = False,
        new_session: bool = False,
        kind: Literal["session", "work"] = "work",
        opens: Callable[..., object] | None = None,
        manager: Callable[[], SessionManager] | None = None,
    ) -> Callable[[Function], Function]:
        """Make a function a tool: its name, docstring and signature are the tool's; its first argument is the Call.

        A slow one is `async def`, and does not block: its commits go through threads. Where `opens` is given, which
        gets the arguments and raises for those that cannot be, its session is made if there is none. With a `manager`
        of its own, its sessions are kept there.
        """

        def add(function: Function) -> Function:
            hints = get_type_hints(function, include_extras=True)
            parameters = list(inspect.signature(function).parameters.values())[1:]
            annotations = {parameter.name: hints[parameter.name] for parameter in parameters}
            fields: dict[str, Any] = {
                parameter.name: (
                    annotations[parameter.name],
                    ... if parameter.default is inspect.Parameter.empty else parameter.default,
                )
                for parameter in parameters
            }
            model = create_model(
                function.__name__,
                __config__=ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True),
                **fields,
            )
            self.add(
                [
                    Tool(
                        name=function.__name__,
                        title=title,
                        description=" ".join((function.__doc__ or "").split()),
                        toolset=toolset,
                        function=function,
                        arguments=model,
                        annotations=annotations,
                        output=output or {"type": "object"},
                        line=line,
                        reads=reads,
                        catches_up=catches_up,
                        destructive=destructive,
                        idempotent=idempotent,
                        open_world=open_world,
                        new_session=new_session,
                        kind=kind,
                        slow=inspect.iscoroutinefunction(function),
                        opens=opens,
                        manager=manager,
                        advertised=tuple(name for name in annotations if not is_hidden(annotations[name])),
                    )
                ]
            )
            return function

        return add

    def invoke(
        self,
        manager: SessionManager,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        caller: str = "python",
        invocation_id: str | None = None,
        as_user: str | None = None,
        room: int | None = None,
        toolsets: Collection[str] | None = None,
    ) -> Any:
        """Call a tool: arguments checked, change and record one commit, the result as a dict.

        `invocation_id` makes a retry safe: the same call is made once. `room` bounds a result, in characters of
        JSON; programs get everything. `toolsets` are those that are on; None is all. Raises UnknownToolError,
        InvalidArgumentError and what the tool raises; TypeError for a slow tool, which is awaited (`invoke_async`).
        """
        tool = self.get(name)
        if tool is not None and tool.slow:
            raise TypeError(f"{name} is slow: await invoke_async, of mcp_sessions.tools.awaiting, on an event loop.")
        return completed(
            *self.prepared(
                manager,
                name,
                arguments,
                caller=caller,
                invocation_id=invocation_id,
                as_user=as_user,
                room=room,
                toolsets=toolsets,
            )
        )

    def prepared(
        self,
        manager: SessionManager,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        caller: str = "python",
        invocation_id: str | None = None,
        as_user: str | None = None,
        room: int | None = None,
        toolsets: Collection[str] | None = None,
        parent_id: str | None = None,
        within: str | None = None,
    ) -> tuple[Call, Callable[[], Any]]:
        """A call that has not begun, and what the tool does in it: of a slow one, an awaitable. As `invoke`; it is made
        under the call `parent_id`, and of a tool that knows no sessions put on record in the session `within`.
        """
        arguments = arguments if arguments is not None else {}
        tool = self.get(name)
        opens = None if tool is None else tool.opens

        def check() -> None:
            if opens is not None:
                opens(**self._on(name, toolsets).parse(arguments))

        if tool is not None and tool.manager is not None:
            manager = tool.manager()
        if tool is None or "session_id" in tool.annotations:
            within = None
        call = manager.call(
            name,
            _named_session(arguments) or within,
            arguments,
            caller,
            invocation_id,
            slow=tool is not None and tool.slow,
            kind=tool.kind if tool is not None else "session",
            reads=tool is not None and tool.reads,
            new_session=tool is not None and tool.new_session,
            opens=None if opens is None else check,
            as_user=as_user,
            parent_id=parent_id,
        )
        call.room = room

        def act() -> Any:
            tool = self._on(name, toolsets)
            return tool.function(call, **tool.parse(arguments))

        return call, act

    def _on(self, name: str, toolsets: Collection[str] | None) -> Tool:
        tool = self[name]
        if toolsets is not None and tool.toolset not in toolsets:
            raise UnknownToolError(
                name, f"{name} is in toolset '{tool.toolset}', which is off (MCP_SESSIONS_TOOLSETS)."
            )
        return tool

    def _hint(self, name: str) -> str:
        if name in AUTOMATION:
            return "it is in toolset 'automation', which is off (MCP_SESSIONS_TOOLSETS)."
        close = difflib.get_close_matches(name, self._tools, 1)
        return f"did you mean '{close[0]}'?" if close else f"there are {', '.join(self._tools)}."


def completed(call: Call, act: Callable[[], Any]) -> Any:
    """Make a call that was prepared; its result. Raises what `invoke` does."""
    try:
        with call:
            if not call.replayed:
                call.result = act()
    except (SessionNotFoundError, SessionExistsError) as error:
        raise hinted(call, error) from error
    return call.result


def hinted(call: Call, error: SessionNotFoundError | SessionExistsError) -> SessionNotFoundError | SessionExistsError:
    """The error, with the sessions that the caller may have meant."""
    if isinstance(error, SessionExistsError):
        return SessionExistsError(error.session_id, hint=_existing(call, error.session_id))
    return SessionNotFoundError(error.session_id, hint=latest_active(call.manager, call.as_user))


def _named_session(arguments: Mapping[str, Any]) -> str | None:
    try:
        return checked_id(arguments.get("session_id"), "session_id")
    except InvalidArgumentError:
        return None


def latest_active(manager: SessionManager, as_user: str | None) -> str:
    """The sessions that the caller may have meant."""
    query = Query(status=(SessionStatus.ACTIVE,), as_user=as_user, limit=3)
    active = manager.query(query).items
    if not active:
        return "you have no active session. session_query finds ended ones, session_create makes a new one."
    now = manager.clock()
    return (
        f"your latest active: {'; '.join(described(head, now) for head in active)}. Use one of these, or session_query."
    )


def _existing(call: Call, session_id: str) -> str:
    try:
        head = call.manager.metadata(session_id, as_user=call.as_user)
    except SessionNotFoundError:
        return ". Choose another id."
    return f" ({head.status.value}, {head.message_count} messages). Resume it with session_get, or choose another id."


def described(head: SessionMetadata, now: datetime) -> str:
    """A session in a few words: `ses_… "Move billing" (2 h ago)`."""
    purpose = f' "{head.purpose[:60]}"' if head.purpose else ""
    return f"{head.session_id}{purpose} ({ago(now, head.updated_at)})"


def ago(now: datetime, then: datetime) -> str:
    """How long ago, in one unit."""
    seconds = max(0, int((now - then).total_seconds()))
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def noted(result: Mapping[str, Any]) -> str:
    """The note of a result, to end its line with."""
    return f" Note: {result['note']}" if "note" in result else ""
