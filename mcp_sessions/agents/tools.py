"""The tool of agents: `agent_invoke`."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import anyio
import anyio.to_thread

from ..calls import Call, Number
from ..errors import InvalidArgumentError
from ..models import Text
from ..tools import Toolbox
from ..tools import outputs as out
from ..tools.arguments import Arg, Name, SessionId
from ..tools.fitting import FRAME, fitted, size
from .config import OUTPUT_BYTES, PROMPT_CHARS, AgentConfig
from .executors import MODEL, executor_for
from .explore import ExploreAgent, ExploreAgentConfig, Operation, question
from .waiting import first_error

PULSE_S = 2.0
"""How often a client is told that it goes on."""
MOST_PURPOSE = 200


@dataclass(frozen=True)
class Reach:
    """Which agents there are, what they may reach, and how they are bounded."""

    executors: tuple[str, ...]
    """By name, the first one where a call names none."""
    roots: tuple[Path, ...]
    """Directories in which, and below which, programs may run; the first one where a call names none."""
    timeout_s: float | None = None
    env: tuple[str, ...] = ()
    prompt_chars: int = PROMPT_CHARS
    output_bytes: int = OUTPUT_BYTES
    for_clients: bool = True
    """False for who may start any program himself: then other executors and directories are reached too."""

    def __post_init__(self) -> None:
        for name in self.executors:
            try:
                executor_for(AgentConfig(executor=name))
            except InvalidArgumentError as error:
                raise InvalidArgumentError(f"MCP_SESSIONS_AGENT_EXECUTORS: {error}") from None
        try:
            roots = tuple(_directory(path) for path in self.roots)
        except InvalidArgumentError as error:
            raise InvalidArgumentError(f"MCP_SESSIONS_AGENT_ROOTS: {error}") from None
        object.__setattr__(self, "roots", roots)

    def config(
        self,
        operation: Operation,
        prompt: str,
        session_id: str | None = None,
        codebase_path: str | None = None,
        executor: str | None = None,
        model: str | None = None,
    ) -> ExploreAgentConfig:
        """How an agent is asked. Raises InvalidArgumentError for what is not to be asked, or not there."""
        if not prompt.strip() and operation != "analyze_structure":
            raise InvalidArgumentError(f"Argument 'prompt' is empty: say what to {operation}.", argument="prompt")
        config = ExploreAgentConfig(model=model, session_id=session_id, **self.settings(executor, codebase_path))
        executor_for(config)
        return config

    def settings(self, executor: str | None, directory: str | None) -> dict[str, Any]:
        """What an AgentConfig says of it. Raises InvalidArgumentError for whom and what is not to be reached."""
        name = self.executor(executor)
        return {
            "executor": name,
            "cwd": self.directory(directory, name),
            "timeout": self.timeout_s,
            "env": self.env,
            "max_prompt_chars": self.prompt_chars,
            "max_output_bytes": self.output_bytes,
        }

    def executor(self, name: str | None) -> str:
        """One that is configured. Raises InvalidArgumentError for any other."""
        if name is not None and not self.for_clients:
            return name
        if not self.executors:
            raise InvalidArgumentError(
                "No executor is configured. Name some in MCP_SESSIONS_AGENT_EXECUTORS, as in claude,codex.",
                argument="executor",
            )
        if name is not None and name not in self.executors:
            raise InvalidArgumentError(
                f"Executor '{name[:80]}' is not configured: there are {', '.join(self.executors)}. "
                "MCP_SESSIONS_AGENT_EXECUTORS names them.",
                argument="executor",
            )
        return self.executors[0] if name is None else name

    def directory(self, path: str | None, executor: str) -> Path | None:
        """One under a root, links resolved; a model needs none. Raises InvalidArgumentError for any other."""
        if not self.for_clients:
            return None if path is None else _directory(Path(path))
        if path is None and executor.startswith(MODEL):
            return None
        if not self.roots:
            raise InvalidArgumentError(
                "No directory is configured for agents. Name some in MCP_SESSIONS_AGENT_ROOTS.",
                argument="codebase_path",
            )
        within = partial(_directory, within=self.roots)
        return within(self.roots[0]) if path is None else within(self.roots[0] / path, path)


def _directory(path: Path, named: str | None = None, within: Sequence[Path] | None = None) -> Path:
    """One that is there, links resolved, in or below one of those. Raises InvalidArgumentError for any other."""
    shown = f"'{(str(path) if named is None else named)[:200]}'".encode(errors="replace").decode()
    try:
        found = path.expanduser().resolve()
        str(found).encode()
        is_there = found.is_dir()
    except (OSError, RuntimeError, ValueError) as error:
        told = f"{shown} cannot be looked at: {error}."
        raise InvalidArgumentError(told, argument="codebase_path") from None
    if within is not None and not any(found.is_relative_to(root) for root in within):
        raise InvalidArgumentError(
            f"{shown} is not within {', '.join(map(str, within))}, the directories for agents. "
            "MCP_SESSIONS_AGENT_ROOTS names them.",
            argument="codebase_path",
        )
    if not is_there:
        raise InvalidArgumentError(f"{shown} is no directory.", argument="codebase_path")
    return found


def agent_tools(reach: Reach) -> Toolbox:
    """The tools of agents, for clients that may reach so much."""
    box = Toolbox()

    @box.tool(
        title="Ask an agent",
        toolset="automation",
        kind="work",
        open_world=True,
        opens=reach.config,
        output=out.result(
            {"cost": out.NUMBER, "seq": out.INTEGER, "note": out.TEXT},
            session_id=out.TEXT,
            operation=out.TEXT,
            result=out.TEXT,
            invocation_id=out.TEXT,
        ),
    )
    async def agent_invoke(
        call: Call,
        operation: Operation,
        prompt: Annotated[Text, Arg("'' analyzes the whole codebase")],
        session_id: Annotated[SessionId | None, Arg("made if there is none; left out: a new one")] = None,
        codebase_path: Name | None = None,
        executor: Name | None = None,
        model: Name | None = None,
    ) -> Any:
        """Ask an agent about a codebase; it remembers the session's conversation. Takes minutes. Costs money."""
        session = call.session_id  # which it has by now

        def opened() -> ExploreAgent:
            config = reach.config(operation, prompt, session, codebase_path, executor, model)
            return ExploreAgent(config, call.manager, as_user=call.as_user)

        agent = await anyio.to_thread.run_sync(opened)
        where = agent.config.cwd
        turn = agent.turn(call, question(operation, prompt), codebase_path=None if where is None else str(where))
        answer = await _telling(call, turn, reach.timeout_s)
        assert session is not None
        head = await anyio.to_thread.run_sync(partial(call.manager.metadata, session, as_user=call.as_user))
        if head.purpose is None:
            call.draft.alter(purpose=f"{operation}: {prompt}"[:MOST_PURPOSE])
        cost, _ = await anyio.to_thread.run_sync(call.priced)  # which reads a price list for the first time
        call.result_ref = "result", "message:seq.1"
        result: dict[str, Any] = {"session_id": session, "operation": operation, "result": answer.text}
        if call.room is not None and size(answer.text) > call.room - 2 * FRAME:
            result["result"] = fitted(answer.text, call.room - 2 * FRAME)
            result["seq"] = Number("seq.1")
            result["note"] = (
                f"Cut: all {len(answer.text):,} characters are the message of this seq in session:///{session}/messages"
            )
        result["invocation_id"] = call.invocation_id
        return result if cost is None else {**result, "cost": cost}

    return box


async def _telling(call: Call, act: Awaitable[Any], total_s: float | None) -> Any:
    """Tell the caller, while it goes on, how many seconds it took."""
    begin = anyio.current_time()

    async def tell() -> None:
        while True:
            await anyio.sleep(PULSE_S)
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):  # nobody hears it
                await call.tell(round(anyio.current_time() - begin, 1), total_s)

    result = None
    with first_error():
        async with anyio.create_task_group() as group:
            group.start_soon(tell)
            result = await act
            group.cancel_scope.cancel()
    return result
