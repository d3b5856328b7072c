"""The official conformance suite: what of it must pass, and what is expected not to.

A scenario that the suite runs without scoring it must pass too, unless it is listed here; and one that is listed must
still fail.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from .node import Node, UnexpectedError

Checks = list[dict[str, Any]]

EXPECTED = {
    # an extension, which the SDK does not serve
    "tasks-capability-negotiation": "FAILURE",
    "tasks-dispatch-and-envelope": "FAILURE",
    "tasks-lifecycle": "FAILURE",
    "tasks-mrtr-composition": "FAILURE",
    "tasks-mrtr-input": "FAILURE",
    "tasks-request-headers": "FAILURE",
    "tasks-request-state-removal": "FAILURE",
    "tasks-required-task-error": "FAILURE",
    "tasks-wire-fields": "FAILURE",
}
IN_BOTH = {
    "dns-rebinding-protection",
    "prompts-list",
    "resources-list",
    "server-sse-multiple-streams",
    "tools-list",
}
NEED_NO_FIXTURE = {
    "2025-11-25": IN_BOTH
    | {"ping", "resources-subscribe", "resources-unsubscribe", "server-initialize", "server-session-lifecycle"},
    "2026-07-28": IN_BOTH
    | {
        "caching",
        "http-header-validation",
        "input-required-result-unsupported-methods",
        "sep-2164-resource-not-found",
        "server-stateless",
    },
}
BUT_FOR = {
    "sep-2575-missing-capability-http-400",
    "sep-2575-server-rejects-undeclared-capability",
    "sep-2575-server-sends-prompts-list-changed-on-subscription",
    "sep-2575-server-sends-tools-list-changed-on-subscription",
}
"""Checks in those scenarios: no tool of ours asks the client for anything, and our tools and prompts never change."""


def with_fixtures(node: Node, url: str, revision: str) -> str:
    """All that the suite runs for a revision, against a server with its fixtures."""
    scenarios, complaint = _run(node, url, revision)
    wrong = [name for name in scenarios if _worst(scenarios[name]) != EXPECTED.get(name)]
    if wrong or complaint:
        raise UnexpectedError("\n".join(_told(name, scenarios[name]) for name in wrong) or complaint)
    return f"{len(scenarios)} scenarios, of which {len(scenarios.keys() & EXPECTED.keys())} are expected not to pass"


def as_it_is(node: Node, url: str, revision: str) -> str:
    """What needs no fixture, against a server as users start it."""
    scenarios, complaint = _run(node, url, revision)
    names = NEED_NO_FIXTURE[revision]
    if names - scenarios.keys():
        raise UnexpectedError(complaint)
    wrong = [name for name in sorted(names) if _worst(scenarios[name], BUT_FOR) is not None]
    if wrong:
        raise UnexpectedError("\n".join(_told(name, scenarios[name]) for name in wrong))
    return f"{len(names)} scenarios"


def _run(node: Node, url: str, revision: str) -> tuple[dict[str, Checks], str]:
    """The checks of each scenario, and what the suite said where a scored one failed."""
    with tempfile.TemporaryDirectory() as out:
        ran = node.run(
            "node_modules/@modelcontextprotocol/conformance/dist/index.js",
            *("server", "--url", url, "--requirements", revision, "-o", out),
            exits=None,
        )
        scenarios = {
            re.sub(r"^server-(.+?)-\d{4}-\d\d-\d\dT.*", r"\1", path.parent.name): json.loads(path.read_bytes())
            for path in Path(out).glob("*/checks.json")
        }
    if not scenarios:
        raise UnexpectedError(ran.stdout + ran.stderr)
    return scenarios, ran.stdout + ran.stderr if ran.returncode else ""


def _worst(checks: Checks, but_for: Collection[str] = ()) -> str | None:
    statuses = {check["status"] for check in checks if check["id"] not in but_for}
    return next((status for status in ("FAILURE", "WARNING") if status in statuses), None)


def _told(name: str, checks: Checks) -> str:
    bad = [check for check in checks if check["status"] in ("FAILURE", "WARNING")]
    return f"{name}, of which {EXPECTED.get(name, 'success')} is expected: {json.dumps(bad, indent=1)}"
