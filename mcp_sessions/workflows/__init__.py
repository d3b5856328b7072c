"""Workflows: steps that call tools, ask agents and wait for people, each run of them a session.

Names are imported when they are first used: what evaluates expressions in a process of its own needs none of them.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError

if TYPE_CHECKING:
    from .context import WorkflowContext
    from .definition import WorkflowDefinition
    from .engine import WorkflowEngine, WorkflowExecutionResult
    from .run import Event
    from .state import StepResult, StepStatus, WorkflowStatus

__all__ = [
    "Event",
    "StepResult",
    "StepStatus",
    "WorkflowContext",
    "WorkflowDefinition",
    "WorkflowEngine",
    "WorkflowExecutionResult",
    "WorkflowStatus",
]
_PLACES = {
    "Event": "run",
    "StepResult": "state",
    "StepStatus": "state",
    "WorkflowContext": "context",
    "WorkflowDefinition": "definition",
    "WorkflowEngine": "engine",
    "WorkflowExecutionResult": "engine",
    "WorkflowStatus": "state",
}

if find_spec("cel") is None or find_spec("yaml") is None:
    raise ConfigError("Workflows need packages of an extra. Install it: pip install 'mcp-sessions[workflows]'")


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("." + _PLACES[name], __name__), name)


def __dir__() -> list[str]:
    return __all__
