"""The tools that the conformance suite calls by name, those that ask the client for something.

Until 2025-11-25 a server sent a request of its own; since then it answers that it needs input, and is called again.
"""

from __future__ import annotations

import json
from typing import Any

from mcp import MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp.types import (
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    CallToolRequestParams,
    CallToolResult,
    ClientCapabilities,
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequest,
    ElicitRequestFormParams,
    InputRequest,
    InputRequiredResult,
    ListRootsRequest,
    SamplingCapability,
    SamplingMessage,
    TextContent,
)

from .fixture_tools import Call, Context, said, tool


def sampling(text: str) -> CreateMessageRequest:
    message = SamplingMessage(role="user", content=TextContent(type="text", text=text))
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=[message], max_tokens=100))


def elicitation(message: str, **properties: Any) -> ElicitRequest:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


# until 2025-11-25


@tool("test_sampling", prompt={"type": "string"})
async def ask_model(context: Context, params: CallToolRequestParams) -> CallToolResult:
    """Ask the client's model."""
    answer = await context.session.send_request(
        sampling((params.arguments or {})["prompt"]),
        CreateMessageResult,
        metadata=ServerMessageMetadata(related_request_id=context.request_id),
    )
    return said(f"LLM response: {answer.content}")


async def elicited(context: Context, message: str, **properties: Any) -> CallToolResult:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    answer = await context.session.elicit_form(message, schema, related_request_id=context.request_id)
    return said(f"Elicitation completed: action={answer.action}, content={json.dumps(answer.content)}")


@tool("test_elicitation", message={"type": "string"})
async def ask_user(context: Context, params: CallToolRequestParams) -> CallToolResult:
    """Ask the user."""
    message = (params.arguments or {})["message"]
    return await elicited(context, message, username={"type": "string"}, email={"type": "string"})


@tool("test_elicitation_sep1034_defaults")
async def ask_with_defaults(context: Context, _: CallToolRequestParams) -> CallToolResult:
    """Ask the user, with defaults."""
    return await elicited(
        context,
        "Who are you?",
        name={"type": "string", "default": "John Doe"},
        age={"type": "integer", "default": 30},
        score={"type": "number", "default": 95.5},
        status={"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        verified={"type": "boolean", "default": True},
    )


@tool("test_elicitation_sep1330_enums")
async def let_choose(context: Context, _: CallToolRequestParams) -> CallToolResult:
    """Let the user choose, in the five ways there are."""
    names = ["option1", "option2", "option3"]
    titled = [{"const": f"value{n}", "title": f"Option {n}"} for n in (1, 2, 3)]
    return await elicited(
        context,
        "Choose.",
        untitledSingle={"type": "string", "enum": names},
        titledSingle={"type": "string", "oneOf": titled},
        legacyEnum={"type": "string", "enum": names, "enumNames": ["One", "Two", "Three"]},
        untitledMulti={"type": "array", "items": {"type": "string", "enum": names}},
        titledMulti={"type": "array", "items": {"anyOf": titled}},
    )


# since 2026-07-28

NAME = elicitation("What is your name?", name={"type": "string"})
COLOR = elicitation("What is your favorite color?", color={"type": "string"})
CONFIRM = elicitation("Please confirm", ok={"type": "boolean"})
ROOTS = ListRootsRequest()
ROUNDS: dict[str, list[dict[str, InputRequest]]] = {
    "test_streaming_elicitation": [{"user_name": NAME}],
    "test_input_required_result_elicitation": [{"user_name": NAME}],
    "test_input_required_result_sampling": [{"capital_question": sampling("What is the capital of France?")}],
    "test_input_required_result_list_roots": [{"client_roots": ROOTS}],
    "test_input_required_result_request_state": [{"confirm": CONFIRM}],
    "test_input_required_result_tampered_state": [{"confirm": CONFIRM}],
    "test_input_required_result_multiple_inputs": [
        {"user_name": NAME, "greeting": sampling("Generate a greeting"), "client_roots": ROOTS}
    ],
    "test_input_required_result_multi_round": [{"step1": NAME}, {"step2": COLOR}],
}
STATELESS = list(ROUNDS)[:4]
"""Those whose answers may come without the state that went out with the question."""


def asking(rounds: list[dict[str, InputRequest]], stateless: bool) -> Call:
    async def ask(_: Context, params: CallToolRequestParams) -> CallToolResult | InputRequiredResult:
        """Need input, round after round."""
        answers = params.input_responses or {}
        asked = 1 if stateless and answers else int(params.request_state or 0)
        done = asked if asked and set(rounds[asked - 1]) <= set(answers) else max(asked - 1, 0)
        if done == len(rounds):
            return said("state-ok", *(answer.model_dump_json() for answer in answers.values()))
        return InputRequiredResult(input_requests=rounds[done], request_state=None if stateless else str(done + 1))

    return ask


for name, rounds in ROUNDS.items():
    tool(name)(asking(rounds, name in STATELESS))


@tool("test_input_required_result_capabilities")
async def ask_what_is_known(context: Context, _: CallToolRequestParams) -> CallToolResult | InputRequiredResult:
    """Need only the input that this client can give."""
    known = context.session.client_capabilities or ClientCapabilities()
    questions: dict[str, InputRequest] = {}
    if known.sampling is not None:
        questions["capital_question"] = sampling("What is the capital of France?")
    if known.elicitation is not None:
        questions["user_name"] = NAME
    return InputRequiredResult(input_requests=questions) if questions else said("Nothing to ask.")


@tool("test_missing_capability")
async def refuse(context: Context, _: CallToolRequestParams) -> CallToolResult:
    """Refuse a client that has no model."""
    needed = ClientCapabilities(sampling=SamplingCapability())
    if not context.session.check_client_capability(needed):
        data = {"requiredCapabilities": needed.model_dump(by_alias=True, exclude_none=True)}
        raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, "This tool needs sampling.", data)
    return said("There is a model.")
