"""Executor: what an agent asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from ...models import MOST_TOKENS, MOST_USD, TokenUsage

OnText = Callable[[str], Awaitable[None]]
"""Is told what was said so far, a piece at a time, by executors that hear it piece by piece."""


@dataclass(frozen=True)
class Answer:
    """What an executor said, and what it reports of it; what it does not report is None."""

    text: str
    model: str | None = None
    usage: TokenUsage | None = None
    """`input` is the total, cached tokens included."""
    cost: float | None = None
    """USD, as reported and never estimated."""
    raw: Any = field(default=None, repr=False)
    """All that it said, as its executor has it: text, parsed JSON, or the messages of pydantic-ai."""


@dataclass(frozen=True)
class AgentTool:
    """A tool that the executor may call while it looks for an answer."""

    name: str
    description: str
    schema: Mapping[str, Any]
    call: Callable[[Mapping[str, Any]], Awaitable[Any]]
    """With arguments; raises what the tool raises."""


@runtime_checkable
class Executor(Protocol):
    """Answers a prompt: a program, a model behind an API, or a script."""

    @property
    def name(self) -> str:
        """Who answers, as records name it: `claude`, `model:openai:gpt-5`."""
        ...

    async def run(self, prompt: str, *, tools: Sequence[AgentTool] = (), on_text: OnText | None = None) -> Answer:
        """Ask. Raises ExecutorError where there is no answer; InvalidArgumentError for tools that it cannot use.

        Where it is cancelled, nothing of it goes on.
        """
        ...


def count(value: Any) -> int | None:
    """A number of tokens that is reported; None where it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS else None


def amount(value: Any) -> float | None:
    """USD that is reported; None where it is no amount."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= MOST_USD:
        return float(value)
    return None
