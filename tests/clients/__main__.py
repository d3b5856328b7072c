"""`python -m tests.clients FOLDER`: our server before clients that are not ours, a line for each.

FOLDER is where package.json of this folder was installed and its programs were copied to. The suites run side by side,
on one server over HTTP, one with the fixtures of the conformance suite, and many over stdio, which all share one store.
Exit status 1 when a client meets anything that is not expected.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from mcp_sessions.server.resources import TEMPLATES
from mcp_sessions.tools import SESSION_TOOLS
from tests.server.pipes import SERVE, environment
from tests.server.ports import Port

from . import conformance
from .node import Node, UnexpectedError

FIXTURES = ("-m", "tests.clients.fixture_server")
TOOLS = [tool.name for tool in SESSION_TOOLS]
PROMPTS = ["resume_session", "summarize_session"]


def main() -> int:
    node, failed = Node(Path(sys.argv[1]).resolve()), False
    with (
        tempfile.TemporaryDirectory() as folder,
        Port(store := Path(folder) / "sessions.db") as plain,
        Port(store, command=FIXTURES) as fixtures,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        runs = {name: pool.submit(timed, suite) for name, suite in suites(node, store, plain.url, fixtures.url).items()}
        for name, run in runs.items():
            try:
                print(f"{name}: {run.result()}", flush=True)
            except UnexpectedError as error:
                failed = True
                print(f"{name}: FAILED\n{error}", flush=True)
        if failed:
            print(f"the server said\n{plain.errors()}and the one with the fixtures\n{fixtures.errors()}", flush=True)
    return 1 if failed else 0


def suites(node: Node, store: Path, plain: str, fixtures: str) -> dict[str, Callable[[], str]]:
    """By name; each tells in a few words what it did, or raises UnexpectedError."""
    settings = {name: value for name, value in environment(store).items() if name.startswith(("MCP_", "PYTHON"))}
    pairs = [word for name, value in settings.items() for word in ("-e", f"{name}={value}")]
    stdio = {"command": sys.executable, "args": SERVE, "env": settings}
    ways: dict[str, tuple[dict[str, Any], list[str]]] = {
        "streamable HTTP": ({"url": f"{plain}/mcp"}, ["--server-url", f"{plain}/mcp"]),
        "SSE": ({"url": f"{plain}/sse"}, ["--server-url", f"{plain}/sse", "--transport", "sse"]),
        "stdio": (stdio, [*pairs, sys.executable, "--", *SERVE]),
    }
    old = {"version": "2025-11-25"}
    auto = {"version": "2026-07-28", "options": {"versionNegotiation": {"mode": "auto"}}}
    found: dict[str, Callable[[], str]] = {}
    for name, (how, target) in ways.items():
        found[f"Inspector over {name}"] = partial(inspected, node, target, f"inspected-{name.split()[0].lower()}")
        found[f"TypeScript SDK 1.x over {name}"] = partial(walked, node, "sdk1.mjs", {**how, **old})
        found[f"TypeScript SDK 2.x over {name}"] = partial(walked, node, "sdk2.mjs", {**how, **old})
        found[f"TypeScript SDK 2.x, auto, over {name}"] = partial(walked, node, "sdk2.mjs", {**how, **auto})
    for revision in conformance.NEED_NO_FIXTURE:
        with_fixtures, as_it_is = (conformance.with_fixtures, fixtures), (conformance.as_it_is, plain)
        for suite, url in (with_fixtures, as_it_is):
            label = suite.__name__.replace("_", " ")
            found[f"conformance {revision}, {label}"] = partial(suite, node, f"{url}/mcp", revision)
    return found


def timed(suite: Callable[[], str]) -> str:
    begin = time.monotonic()
    return f"{suite()} ({time.monotonic() - begin:.1f} s)"


def walked(node: Node, program: str, how: Mapping[str, Any]) -> str:
    """The journey of journey.mjs."""
    node.run(program, json.dumps({**how, "tools": TOOLS, "templates": len(TEMPLATES)}))
    return how["version"]


def inspected(node: Node, target: list[str], session_id: str) -> str:
    """What a developer does first, in the Inspector, and once in the new protocol."""
    requests = 0

    def ask(method: str, *args: str, exits: int = 0) -> dict[str, Any]:
        nonlocal requests
        requests += 1
        ran = node.run(
            "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js",
            *("--cli", "--method", method, *args, "--format", "json", "-q", *target),
            exits=exits,
        )
        return json.loads(ran.stdout)["result"]

    def call(tool: str, *args: str, exits: int = 0) -> dict[str, Any]:
        return ask("tools/call", "--tool-name", tool, *args, exits=exits)

    here = f"session_id={session_id}"
    expect([tool["name"] for tool in ask("tools/list", "--strict")["tools"]], TOOLS)
    created = call("session_create", "--tool-args-json", json.dumps({"session_id": session_id, "tags": ["it"]}))
    expect(created["structuredContent"]["session_id"], session_id)
    call("session_add_message", "--tool-arg", here, "role=user", "content=A message")
    read = call("session_get", "--tool-arg", here, "messages=1", "--protocol-era", "modern")
    expect(read["structuredContent"]["messages"][0]["content"], "A message")
    expect(call("session_get", "--tool-arg", "session_id=nobody", exits=5)["isError"], True)
    expect(f"session:///{session_id}" in {one["uri"] for one in ask("resources/list")["resources"]}, True)
    expect(len(ask("resources/templates/list")["resourceTemplates"]), len(TEMPLATES))
    (content,) = ask("resources/read", "--uri", f"session:///{session_id}/messages")["contents"]
    expect([message["content"] for message in json.loads(content["text"])], ["A message"])
    expect([prompt["name"] for prompt in ask("prompts/list")["prompts"]], PROMPTS)
    prompt = ask("prompts/get", "--prompt-name", "resume_session", "--prompt-args", here)
    expect("A message" in json.dumps(prompt["messages"]), True)
    return f"{requests} requests"


def expect(is_so: object, should_be: object) -> None:
    if is_so != should_be:
        raise UnexpectedError(f"expected {should_be!r}, not {is_so!r}")


if __name__ == "__main__":
    sys.exit(main())
