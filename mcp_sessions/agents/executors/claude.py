"""Claude Code: `claude --print`, which answers in JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from ..._json import decode
from ...errors import ExecutorError
from ...models import tokens
from .base import Answer
from .program import Program, no_answer

if TYPE_CHECKING:
    from ..config import AgentConfig


class Claude(Program):
    """Asks Claude Code, which reports tokens and cost."""

    name = "claude"
    takes = ("claude",)
    variables = ("ANTHROPIC_*", "CLAUDE_*", "AWS_*", "GOOGLE_*", "CLOUD_ML_REGION", "VERTEX_*")

    def options(self, config: AgentConfig, *, streams: bool) -> list[str]:
        options = ["--print", "--output-format", "json"]
        if streams:
            options = ["--print", "--output-format", "stream-json", "--verbose", "--include-partial-messages"]
        if config.skip_permissions:
            options.append("--dangerously-skip-permissions")
        if config.model is not None:
            options += ["--model", config.model]
        for directory in config.working_directories:
            options += ["--add-dir", str(directory)]
        return [*options, *config.additional_cli_args]

    def piece(self, line: str) -> str:
        for event in _events(line):
            match event:
                case {"type": "stream_event", "event": {"delta": {"type": "text_delta", "text": str(text)}}}:
                    return text
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
            usage=_usage(result),
            cost=_number(result.get("total_cost_usd")),
            raw=result,
        )
        if result.get("is_error") or not isinstance(text, str):
            why = answer.text or result.get("subtype") or "it does not say why"
            raise ExecutorError(f"{self.name} did not answer: {why}", answer=answer)
        return answer


def _events(output: str) -> Iterator[Mapping[str, Any]]:
    """The objects in an output, the last one first: one, an array of them, or one a line."""
    for text in (output, *reversed(output.splitlines())):
        try:
            value = decode(text)
        except ValueError:
            continue
        values = cast("list[Any]", value)[::-1] if isinstance(value, list) else [value]
        yield from (one for one in values if isinstance(one, dict))


def _usage(result: Mapping[str, Any]) -> Any:
    match result.get("usage"):
        case {"input_tokens": int(fresh), "output_tokens": int(output), **more}:
            read, written = (_count(more, f"cache_{how}_input_tokens") for how in ("read", "creation"))
            return tokens(fresh + read + written, output, read, written)
        case _:
            return None


def _count(usage: Mapping[str, Any], name: str) -> int:
    count = usage.get(name)
    return count if isinstance(count, int) else 0


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
            return _number(cost) or 0
        case _:
            return 0


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
