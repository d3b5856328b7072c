"""DecomposeAgent: takes a question apart into subtopics that can be looked into one by one."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, Literal, cast

import anyio.to_thread
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, computed_field

from ..errors import ExecutorError, InvalidArgumentError
from ..models import invalid
from ..session import derived_id
from .agent import SpecializedAgent

MOST_SUBTOPICS = 50
INSTRUCTIONS = """\
You take a question apart into subtopics that can be explored independently of one another.

- Together the subtopics cover the question; they do not overlap.
- Each exploration_task can be carried out by somebody who has seen none of the others.

Answer with one JSON object and nothing else:
{"reasoning": "why these", "subtopics": [{"id": "short_id", "title": "…", "exploration_task": "…", \
"importance": "high|medium|low", "expected_findings": "…"}]}"""
Line = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]


class Subtopic(BaseModel):
    """One part of a question, which can be looked into by itself."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: Line
    title: Line
    exploration_task: Line
    importance: Literal["high", "medium", "low"]
    expected_findings: str = ""


class Decomposition(BaseModel):
    """A question, taken apart."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    reasoning: str = ""
    subtopics: Annotated[tuple[Subtopic, ...], Field(min_length=1)]

    @computed_field
    @property
    def subtopic_count(self) -> int:
        """How many there are."""
        return len(self.subtopics)


class DecomposeAgent(SpecializedAgent):
    """Takes questions apart."""

    def get_system_prompt(self) -> str:
        return INSTRUCTIONS

    async def decompose(
        self, question: str, min_subtopics: int = 2, max_subtopics: int = 6, **how: Any
    ) -> Decomposition:
        """The subtopics of a question, at least and at most so many, each with an id of its own.

        Where the answer is none, it is asked once more, and told what was wrong. The conversation is left alone; each
        question is on record. Raises ExecutorError where the second answer is none either; InvalidArgumentError.
        """
        if not 1 <= min_subtopics <= max_subtopics <= MOST_SUBTOPICS:
            raise InvalidArgumentError(
                f"min_subtopics {min_subtopics} and max_subtopics {max_subtopics} are no range within 1 to "
                f"{MOST_SUBTOPICS}.",
                argument="min_subtopics",
            )
        prompt = f"Take this question apart into {min_subtopics} to {max_subtopics} subtopics:\n\n{question}"
        answer = await self.invoke(prompt, include_history=False, **how)
        read = partial(parsed, least=min_subtopics, most=max_subtopics)
        try:
            return await anyio.to_thread.run_sync(read, answer)  # which may have megabytes
        except ValueError as fault:
            once_more = f"{prompt}\n\nAn answer before could not be used: {fault} It was:\n\n{answer[:4000]}"
        if how.get("invocation_id") is not None:  # it is another call
            how["invocation_id"] = again(how["invocation_id"])
        answer = await self.invoke(once_more, include_history=False, **how)
        try:
            return await anyio.to_thread.run_sync(read, answer)
        except ValueError as fault:
            raise ExecutorError(
                f"{self.executor.name} answered twice with what is no decomposition: {fault} Its answer begins "
                f"{answer[:200]!r}. Ask another model, or put the question in other words."
            ) from None


def again(invocation_id: str) -> str:
    """The id of the second attempt of a question."""
    return derived_id("inv", invocation_id, "again")


def parsed(text: str, least: int = 1, most: int = MOST_SUBTOPICS) -> Decomposition:
    """A decomposition from an answer: raw JSON, or in a fence. Raises ValueError that says what is wrong."""
    try:
        value = Decomposition.model_validate(_object_in(text))
    except ValidationError as error:
        raise invalid(error) from None
    if not least <= value.subtopic_count <= most:
        raise InvalidArgumentError(f"It has {value.subtopic_count} subtopics, not {least} to {most}.")
    if len({subtopic.id for subtopic in value.subtopics}) < value.subtopic_count:
        raise InvalidArgumentError("Two subtopics have one id.")
    return value


def _object_in(text: str) -> Any:
    """The JSON object in a text: the whole of it, what is in its first fence, or from the first brace to the last.

    Raises ValueError where there is none.
    """
    fenced = text.split("```", 2)[1:2]
    for part in (text, *(fence.partition("\n")[2] for fence in fenced), text[text.find("{") : text.rfind("}") + 1]):
        with suppress(ValueError, RecursionError):
            value = json.loads(part)
            if isinstance(value, dict):
                return cast("dict[str, Any]", value)
    raise InvalidArgumentError("It is no JSON object.")
