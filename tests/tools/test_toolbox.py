"""Toolboxes: how a function becomes a tool, and what of it the wire shows."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest

from mcp_sessions import InvalidArgumentError
from mcp_sessions.calls import Call
from mcp_sessions.tools import SESSION_TOOLS, Toolbox
from mcp_sessions.tools.arguments import Arg
from tests.tools.desk import Desk

box = Toolbox(SESSION_TOOLS)


@box.tool(title="Count words", toolset="work")
def count_words(
    call: Call,
    text: Annotated[str, Arg("what to count in")],
    at_most: int = 10,
    kind: Literal["words", "lines"] | None = None,
    trace: Annotated[bool, Arg(hidden=True)] = False,
) -> Any:
    """Count the words of a text.

    No more than so many.
    """
    call.model = "gpt-4o"
    call.cost = 0.5
    return {"count": min(len(text.split()), at_most)}


def test_a_function_is_a_tool_by_its_name_docstring_and_signature() -> None:
    tool = box["count_words"]
    assert tool.description == "Count the words of a text. No more than so many."
    assert tool.input_schema() == {
        "type": "object",
        "properties": {
            "text": {"type": "string", "description": "what to count in"},
            "at_most": {"type": "integer"},
            "kind": {"type": "string", "enum": ["words", "lines"]},
        },
        "required": ["text"],
    }
    assert count_words.__name__ == "count_words"  # still a plain function


def test_a_tool_of_ones_own_is_recorded_as_work(desk: Desk) -> None:
    assert box.invoke(desk.manager, "count_words", {"text": "a b c", "trace": True}) == {"count": 3}
    (record,) = desk.records()
    assert (record.kind, record.cost, record.result) == ("work", 0.5, {"count": 3})


def test_boxes_are_joined_and_no_name_stands_twice() -> None:
    assert len(list(box)) == 17
    assert "count_words" in box
    assert "count_words" not in SESSION_TOOLS
    with pytest.raises(InvalidArgumentError, match="There is a tool 'count_words' already"):
        box.add([box["count_words"]])


@pytest.mark.parametrize("arguments", [{1: 2}, {None: 1}, {"a\ud800": 1}, {"text": {"a": object()}}, {"text": {1}}])
def test_arguments_that_are_no_json_are_refused_and_on_record(desk: Desk, arguments: dict[Any, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        box.invoke(desk.manager, "count_words", arguments)
    assert desk.records()[0].status.value == "error"
