"""Claude Code: `claude --print`, which answers in JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from ...errors import ExecutorError
from .base import Answer, amount
from .program import SHOWN, Program, json_in, no_answer, used


class Claude(Program):
    """Asks Claude Code, which reports tokens and cost."""

    name = "claude"
    takes = ("claude",)
    variables = ("ANTHROPIC_*", "CLAUDE_*", "AWS_*", "GOOGLE_*", "CLOUD_ML_REGION", "VERTEX_*")

    def options(self, *, streams: bool) -> list[str]:
        options = ["--print", "--output-format", "json"]
        if streams:
            options = ["--print", "--output-format", "stream-json", "--verbose", "--include-partial-messages"]
        if self._config.skip_permissions:
            options.append("--dangerously-skip-permissions")
        return options

    def piece(self, line: str) -> str:
        for event in _events(line):
            match event:
                case {"parent_tool_use_id": str()}:
                    pass  # what a helper of its own says is no part of the answer
                case {"type": "stream_event", "event": {"delta": {"type": "text_delta", "text": str(text)}}}:
                    return text
                case {"type": "stream_event", "event": {"content_block": {"type": "text"}}}:
                    return "\n"  # what it says between two looks at files is not one sentence
                case _:
                    pass
        return ""

    def answer(self, output: str) -> Answer:
        result = next((event for event in _events(output) if event.get("type") == "result"), None)
        if result is None:
            raise no_answer(self.name, output)
        text = result.get("result")
        answer = Answer(
            text=text if isinstance(text, str) else "",
            model=_model(result) or self._config.model,
            usage=used(
                result.get("usage"),
                read="cache_read_input_tokens",
                written="cache_creation_input_tokens",
                apart=True,
            ),
            cost=amount(result.get("total_cost_usd")),
            raw=result,
        )
        if result.get("is_error") or not answer.text:
            subtype = result.get("subtype")
            why = answer.text or (subtype if isinstance(subtype, str) and subtype != "success" else "it says nothing")
            raise ExecutorError(f"{self.name} did not answer: {why[:SHOWN]}", answer=answer)
        return answer


def _events(output: str) -> Iterator[Mapping[str, Any]]:
    """The objects in an output, the last one first: one, an array of them, or one a line."""
    for text in (output, *reversed(output.split("\n"))):
        try:
            value = json_in(text)
        except ValueError:
            continue
        values = cast("list[Any]", value)[::-1] if isinstance(value, list) else [value]
        yield from (one for one in values if isinstance(one, dict))


def _model(result: Mapping[str, Any]) -> str | None:
    """The one that cost most: small ones do errands for it."""
    match result.get("modelUsage"):
        case {**models} if models:
            return max(models, key=lambda name: _cost(models[name]))
        case _:
            return None


def _cost(of_model: Any) -> float:
    match of_model:
        case {"costUSD": cost}:
            return amount(cost) or 0
        case _:
            return 0
