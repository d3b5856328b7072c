"""An executor that answers as it is told: for tests, examples, and to see an agent at work without a model."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence

from ...errors import ExecutorError
from .base import AgentTool, Answer, OnText

Reply = str | Answer | Exception
Script = Callable[[str, Sequence[AgentTool]], Reply | Awaitable[Reply]]


class Scripted:
    """Gives these answers, one after the other, or what a function of the prompt and the tools returns.

    An exception is raised. `prompts` are those that it was asked.
    """

    name = "scripted"

    def __init__(self, answers: Iterable[Reply] | Script) -> None:
        self._script = answers if callable(answers) else None
        self._answers = iter(()) if callable(answers) else iter(answers)
        self.prompts: list[str] = []

    async def run(self, prompt: str, *, tools: Sequence[AgentTool] = (), on_text: OnText | None = None) -> Answer:
        """The next answer. Raises ExecutorError where there is none left."""
        self.prompts.append(prompt)
        reply = next(self._answers, None) if self._script is None else self._script(prompt, tools)
        if inspect.isawaitable(reply):
            reply = await reply
        if reply is None:
            raise ExecutorError("The script has no answer left.")
        if isinstance(reply, Exception):
            raise reply
        answer = reply if isinstance(reply, Answer) else Answer(reply)
        if on_text is not None:
            await on_text(answer.text)
        return answer
