"""Models behind an API, through pydantic-ai: any of its providers, as `model:PROVIDER:NAME`.

It is an extra of its own (`models`), and takes a second to import: so it is imported when a model is asked.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from ...errors import ExecutorError, SessionsError, StorageError
from ...models import TokenUsage, tokens
from .base import AgentTool, Answer, OnText
from .program import SHOWN

if TYPE_CHECKING:
    from pydantic_ai.models import Model
    from pydantic_ai.tools import Tool

INSTALL = "python -m pip install 'mcp-sessions[models]'"


class ModelExecutor:
    """Asks a model; it may use the tools that it is lent.

    `model` is a name as pydantic-ai knows it (`anthropic:claude-sonnet-5-5`), or one of its models.
    """

    def __init__(self, model: str | Model, *, timeout_s: float | None = None) -> None:
        self._model = model
        self._timeout_s = timeout_s

    @property
    def name(self) -> str:
        return f"model:{self._model if isinstance(self._model, str) else self._model.model_name}"

    async def run(self, prompt: str, *, tools: Sequence[AgentTool] = (), on_text: OnText | None = None) -> Answer:
        """Ask. Raises ExecutorError; StorageError where a tool could not do its work."""
        ai, agent = await anyio.to_thread.run_sync(self._agent, tools)  # the first time it takes half a second
        handler = None if on_text is None else _handler(on_text)
        used = ai.RunUsage()
        cause: Exception | None = None
        try:
            with anyio.move_on_after(self._timeout_s) as scope:
                result = await agent.run(prompt, event_stream_handler=handler, usage=used)
                return Answer(
                    text=result.output,
                    model=result.response.model_name,
                    usage=_tokens(used),
                    raw=result.all_messages(),
                )
            assert scope.cancelled_caught
            why = f"timed out after {self._timeout_s:g} seconds."
        except StorageError:
            raise
        except Exception as error:  # noqa: BLE001 - a provider raises what it likes, and what it did is to be paid
            cause = error
            why = f"did not answer: {(str(error) or type(error).__name__)[:SHOWN]}"
        spent = Answer("", self.name.removeprefix("model:"), _tokens(used)) if used.requests else None
        raise ExecutorError(f"{self.name} {why}", answer=spent) from cause

    def _agent(self, tools: Sequence[AgentTool]) -> tuple[Any, Any]:
        """pydantic-ai, and an agent of it."""
        ai = self._imported()
        try:
            return ai, ai.Agent(self._model, tools=[_tool(tool) for tool in tools])
        except (ai.exceptions.UserError, ImportError, ValueError) as error:
            raise ExecutorError(f"{self.name} cannot be asked: {error}", asked=False) from error

    def _imported(self) -> Any:
        try:
            return import_module("pydantic_ai")
        except ImportError as error:
            told = f"{self.name} needs pydantic-ai, which is not installed: {INSTALL}"
            raise ExecutorError(told, asked=False) from error


def _tokens(used: Any) -> TokenUsage:
    return tokens(used.input_tokens, used.output_tokens, used.cache_read_tokens, used.cache_write_tokens)


def _tool(tool: AgentTool) -> Tool[Any]:
    from pydantic_ai import ModelRetry, Tool

    async def use(**arguments: Any) -> Any:
        try:
            return await tool.call(arguments)
        except StorageError:
            raise
        except SessionsError as error:
            raise ModelRetry(str(error)) from error  # the model may mend what it asked for

    return Tool.from_schema(use, tool.name, tool.description, dict(tool.schema))


def _handler(on_text: OnText) -> Any:
    from pydantic_ai import messages

    async def tell(_context: Any, events: AsyncIterable[Any]) -> None:
        async for event in events:
            match event:
                case messages.PartStartEvent(part=messages.TextPart(content=text)) if text:
                    await on_text(text)
                case messages.PartDeltaEvent(delta=messages.TextPartDelta(content_delta=text)):
                    await on_text(text)
                case _:
                    pass

    return tell
