"""Codex: `codex exec --json`, which tells events, one a line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...errors import ExecutorError
from ...models import TokenUsage
from .base import Answer
from .program import SHOWN, Program, json_in, no_answer, used


class Codex(Program):
    """Asks Codex, which reports tokens and no cost. It may read, unless permissions are skipped."""

    name = "codex"
    takes = ("gpt",)
    variables = ("OPENAI_*", "CODEX_*", "AZURE_OPENAI_*")
    ending = ("-",)

    def options(self, *, streams: bool) -> list[str]:  # noqa: ARG002 - it always tells as it goes
        options = ["exec", "--json", "--skip-git-repo-check"]
        if self._config.skip_permissions:
            options.append("--dangerously-bypass-approvals-and-sandbox")
        else:
            options += ["--sandbox", "read-only"]
        return options

    def piece(self, line: str) -> str:
        return "".join(f"{text}\n" for text in map(_said, _events(line)) if text)

    def answer(self, output: str) -> Answer:
        text: str | None = None
        usage: TokenUsage | None = None
        failure: str | None = None
        for event in _events(output):
            text = _said(event) or text
            match event:
                case {"type": "turn.completed", **more}:
                    failure = None
                    usage = used(
                        more.get("usage"), read="cached_input_tokens", written="cache_write_input_tokens", apart=False
                    )
                case {"type": "turn.failed", "error": {"message": str(message)}}:
                    failure = message
                case {"type": "error", "message": str(message)}:
                    failure = message
                case _:
                    pass
        answer = Answer(text or "", self._config.model, usage, raw=output)
        if failure is not None:
            raise ExecutorError(f"{self.name} did not answer: {failure[:SHOWN]}", answer=answer)
        if text is None:
            raise no_answer(self.name, output)
        return answer


def _events(output: str) -> Iterator[Mapping[str, Any]]:
    for line in output.split("\n"):
        try:
            event = json_in(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            yield event


def _said(event: Mapping[str, Any]) -> str | None:
    match event:
        case {"type": "item.completed", "item": {"type": "agent_message", "text": str(text)}}:
            return text
        case _:
            return None
