"""The tools that the conformance suite calls by name, those that ask for nothing.

What any program could bring goes in through the toolbox, and so through the adapter; what only the protocol knows
(pictures, logs, headers) is answered beside it.
"""

from __future__ import annotations

import base64
import io
import json
import wave
from collections.abc import Awaitable, Callable
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.server.subscriptions import InMemorySubscriptionBus, PromptsListChanged, ToolsListChanged
from mcp.types import (
    AudioContent,
    CallToolRequestParams,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    InputRequiredResult,
    TextContent,
    TextResourceContents,
    Tool,
)

from mcp_sessions import InvalidArgumentError
from mcp_sessions.tools import SESSION_TOOLS, Toolbox

Context = ServerRequestContext[Any]
Call = Callable[[Context, CallToolRequestParams], Awaitable[CallToolResult | InputRequiredResult]]

TOOLSET = "test"
TOOLBOX = Toolbox(SESSION_TOOLS)
TOOLS: dict[str, tuple[Tool, Call]] = {}
CHANGES = InMemorySubscriptionBus()
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
EVERY_KEYWORD = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


@TOOLBOX.tool(title="Simple text", toolset=TOOLSET, line=lambda result, _: result["text"])
def test_simple_text(call: Any) -> Any:
    """Say something."""
    return {"text": "This is a simple text response for testing."}


@TOOLBOX.tool(title="Error", toolset=TOOLSET)
def test_error_handling(call: Any) -> Any:
    """Fail."""
    raise InvalidArgumentError("This tool intentionally returns an error for testing.", argument="none")


@TOOLBOX.tool(title="Progress", toolset=TOOLSET)
def test_tool_with_progress(call: Any) -> Any:
    """Report progress."""
    for percent in (0, 50, 100):
        call.progress(percent, 100)
    return {"percent": 100}


def tool(name: str, schema: dict[str, Any] | None = None, **properties: Any) -> Callable[[Call], Call]:
    """Answer calls of a tool with a function. Its arguments are as the schema says, else `properties`, all required."""
    schema = schema or {"type": "object", "properties": properties, "required": list(properties)}

    def add(function: Call) -> Call:
        TOOLS[name] = (Tool(name=name, description=function.__doc__, input_schema=schema), function)
        return function

    return add


def said(*content: ContentBlock | str) -> CallToolResult:
    return CallToolResult(
        content=[TextContent(type="text", text=block) if isinstance(block, str) else block for block in content]
    )


def picture() -> ImageContent:
    return ImageContent(type="image", data=PNG, mime_type="image/png")


def embedded(uri: str, mime_type: str, text: str) -> EmbeddedResource:
    return EmbeddedResource(type="resource", resource=TextResourceContents(uri=uri, mime_type=mime_type, text=text))


@tool("test_image_content")
async def show(_: Context, __: CallToolRequestParams) -> CallToolResult:
    """Show a picture."""
    return said(picture())


@tool("test_audio_content")
async def play(_: Context, __: CallToolRequestParams) -> CallToolResult:
    """Play a sound."""
    sound = io.BytesIO()
    with wave.open(sound, "wb") as out:
        out.setparams((1, 2, 8_000, 0, "NONE", "not compressed"))
        out.writeframes(bytes(16))
    return said(AudioContent(type="audio", data=base64.b64encode(sound.getvalue()).decode(), mime_type="audio/wav"))


@tool("test_embedded_resource")
async def embed(_: Context, __: CallToolRequestParams) -> CallToolResult:
    """Embed a resource."""
    return said(embedded("test://embedded-resource", "text/plain", "This is an embedded resource content."))


@tool("test_multiple_content_types")
async def say_show_and_embed(_: Context, __: CallToolRequestParams) -> CallToolResult:
    """Say, show and embed something."""
    data = json.dumps({"test": "data", "value": 123})
    resource = embedded("test://mixed-content-resource", "application/json", data)
    return said("Multiple content types test:", picture(), resource)


@tool("test_logging_tool")
@tool("test_tool_with_logging")
async def log(context: Context, _: CallToolRequestParams) -> CallToolResult:
    """Log three messages, which clients of the new protocol get when they ask for them."""
    for text in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await context.session.send_log_message("info", text, related_request_id=context.request_id)
    return said("Logged.")


@tool("test_reconnection")
async def close_stream(context: Context, _: CallToolRequestParams) -> CallToolResult:
    """Close the stream before the answer, where an answer can be fetched later."""
    if context.close_sse_stream is not None:
        await context.close_sse_stream()
    return said("Reconnected.")


@tool("test_trigger_tool_change")
async def change_tools(_: Context, __: CallToolRequestParams) -> CallToolResult:
    """Tell that the list of tools changed; ours never does."""
    await CHANGES.publish(ToolsListChanged())
    return said("Told.")


@tool("test_trigger_prompt_change")
async def change_prompts(_: Context, __: CallToolRequestParams) -> CallToolResult:
    """Tell that the list of prompts changed; ours never does."""
    await CHANGES.publish(PromptsListChanged())
    return said("Told.")


@tool("test_header_argument", region={"type": "string", "x-mcp-header": "Region"})
async def take_header(_: Context, params: CallToolRequestParams) -> CallToolResult:
    """Take an argument that stands in a header too."""
    return said(json.dumps(params.arguments))


@tool("json_schema_2020_12_tool", EVERY_KEYWORD)
async def accept_all(_: Context, __: CallToolRequestParams) -> CallToolResult:
    """Have a schema of every keyword."""
    return said("Valid.")
