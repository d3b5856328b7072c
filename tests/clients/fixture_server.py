"""`python -m tests.clients.fixture_server`: what `mcp-sessions serve --transport http` runs, with the fixtures.

What is not called by the name of a fixture goes to our own handlers, as it is.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from mcp.server.lowlevel import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.subscriptions import ListenHandler
from mcp.shared.exceptions import MCPDeprecationWarning
from mcp.types import (
    BlobResourceContents,
    CallToolRequestParams,
    CompleteRequestParams,
    CompleteResult,
    Completion,
    ContentBlock,
    ElicitResult,
    EmptyResult,
    GetPromptRequestParams,
    GetPromptResult,
    InputRequiredResult,
    Prompt,
    PromptArgument,
    PromptMessage,
    PromptReference,
    ReadResourceRequestParams,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    SetLevelRequestParams,
    SubscriptionsListenRequestParams,
    TextResourceContents,
)

from mcp_sessions.config import Settings
from mcp_sessions.default import manager_from
from mcp_sessions.server import http
from mcp_sessions.server.adapter import build_server

from .fixture_questions import elicitation
from .fixture_tools import CHANGES, PNG, TOOLBOX, TOOLS, TOOLSET, Context, embedded, picture, said

Get = Callable[[GetPromptRequestParams], GetPromptResult | InputRequiredResult]

TEXT, PICTURE, WATCHED = "test://static-text", "test://static-binary", "test://watched-resource"
TEMPLATE = "test://template/{id}/data"


def main() -> None:
    warnings.simplefilter("ignore", MCPDeprecationWarning)  # the old protocol is tested too
    settings = Settings()
    with http.listen("127.0.0.1", 0) as bound, manager_from(settings) as manager:
        server = build_server(manager, TOOLBOX, (*settings.toolsets, TOOLSET))
        add_fixtures(server)
        print(f"Serving at {http.url_of(bound)}/mcp", file=sys.stderr, flush=True)
        anyio.run(http.serve, http.build_app(server, manager), bound, manager.storage.give_up)


def add_fixtures(server: Server[Any]) -> None:
    server.middleware.append(RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience=server.name))
    list_too(server, "tools/list", "tools", [listed for listed, _ in TOOLS.values()])
    list_too(server, "prompts/list", "prompts", [listed for listed, _ in PROMPTS.values()])
    list_too(server, "resources/list", "resources", [Resource(uri=uri, name=uri) for uri in (TEXT, PICTURE, WATCHED)])
    template = ResourceTemplate(uri_template=TEMPLATE, name="template")
    list_too(server, "resources/templates/list", "resource_templates", [template])

    async def call_tool(context: Context, params: CallToolRequestParams) -> Any:
        return await TOOLS[params.name][1](context, params)

    async def get_prompt(_: Context, params: GetPromptRequestParams) -> Any:
        return PROMPTS[params.name][1](params)

    async def read(_: Context, params: ReadResourceRequestParams) -> Any:
        return ReadResourceResult(contents=[contents(params.uri)])

    async def complete(_: Context, __: CompleteRequestParams) -> Any:
        return CompleteResult(completion=Completion(values=["paris", "park", "party"], total=3, has_more=False))

    async def accept(_: Context, __: SetLevelRequestParams) -> EmptyResult:
        return EmptyResult()

    def of_lists(params: SubscriptionsListenRequestParams) -> bool:
        return bool(params.notifications.tools_list_changed or params.notifications.prompts_list_changed)

    answer_for(server, "tools/call", call_tool, lambda params: params.name in TOOLS)
    answer_for(server, "prompts/get", get_prompt, lambda params: params.name in PROMPTS)
    answer_for(server, "resources/read", read, lambda params: is_readable(params.uri))
    answer_for(
        server,
        "completion/complete",
        complete,
        lambda params: isinstance(params.ref, PromptReference) and params.ref.name in PROMPTS,
    )
    answer_for(server, "subscriptions/listen", ListenHandler(CHANGES), of_lists)
    server.add_request_handler("logging/setLevel", SetLevelRequestParams, accept)


def list_too(server: Server[Any], method: str, field: str, more: list[Any]) -> None:
    """List more on the first page of ours."""
    ours = server.get_request_handler(method)
    assert ours is not None, method

    async def listing(context: Context, params: Any) -> Any:
        page: Any = await ours.handler(context, params)
        return page if params.cursor else page.model_copy(update={field: [*getattr(page, field), *more]})

    server.add_request_handler(method, ours.params_type, listing)


def answer_for(
    server: Server[Any],
    method: str,
    fixture: Callable[[Context, Any], Awaitable[Any]],
    is_fixture: Callable[[Any], bool],
) -> None:
    ours = server.get_request_handler(method)
    assert ours is not None, method

    async def answer(context: Context, params: Any) -> Any:
        return await (fixture if is_fixture(params) else ours.handler)(context, params)

    server.add_request_handler(method, ours.params_type, answer)


# resources


def is_readable(uri: str) -> bool:
    before, after = TEMPLATE.split("{id}")
    return uri in (TEXT, PICTURE, WATCHED) or (uri.startswith(before) and uri.endswith(after))


def contents(uri: str) -> TextResourceContents | BlobResourceContents:
    if uri == PICTURE:
        return BlobResourceContents(uri=uri, mime_type="image/png", blob=PNG)
    if uri in (TEXT, WATCHED):
        return TextResourceContents(uri=uri, mime_type="text/plain", text="This is the content of a static resource.")
    number = uri.split("/")[3]
    text = json.dumps({"id": number, "templateTest": True, "data": f"Data for ID: {number}"})
    return TextResourceContents(uri=uri, mime_type="application/json", text=text)


# prompts


def prompted(*content: ContentBlock | str) -> GetPromptResult:
    return GetPromptResult(messages=[PromptMessage(role="user", content=block) for block in said(*content).content])


def simple(_: GetPromptRequestParams) -> GetPromptResult:
    return prompted("This is a simple prompt for testing.")


def with_arguments(params: GetPromptRequestParams) -> GetPromptResult:
    given = params.arguments or {}
    return prompted(f"Prompt with arguments: arg1={given['arg1']!r}, arg2={given['arg2']!r}")


def with_resource(params: GetPromptRequestParams) -> GetPromptResult:
    resource = embedded((params.arguments or {})["resourceUri"], "text/plain", "Embedded resource content for testing.")
    return prompted(resource, "Please process the embedded resource above.")


def with_picture(_: GetPromptRequestParams) -> GetPromptResult:
    return prompted(picture(), "Please analyze the image above.")


def asking_first(params: GetPromptRequestParams) -> GetPromptResult | InputRequiredResult:
    answer = (params.input_responses or {}).get("user_context")
    if not isinstance(answer, ElicitResult):
        question = elicitation("What context should the prompt use?", context={"type": "string"})
        return InputRequiredResult(input_requests={"user_context": question})
    return prompted(f"Context: {json.dumps(answer.content)}")


def prompt(name: str, *arguments: str) -> Prompt:
    required = [PromptArgument(name=argument, required=True) for argument in arguments]
    return Prompt(name=name, description="A fixture.", arguments=required)


PROMPTS: dict[str, tuple[Prompt, Get]] = {
    listed.name: (listed, get)
    for listed, get in (
        (prompt("test_simple_prompt"), simple),
        (prompt("test_prompt_with_arguments", "arg1", "arg2"), with_arguments),
        (prompt("test_prompt_with_embedded_resource", "resourceUri"), with_resource),
        (prompt("test_prompt_with_image"), with_picture),
        (prompt("test_input_required_result_prompt"), asking_first),
    )
}

if __name__ == "__main__":
    main()
