"""Workflows: steps that call tools, ask agents and wait for people, each run of them a session."""

from __future__ import annotations

from ..errors import ConfigError

try:
    import cel as _cel
    import yaml as _yaml
except ImportError as error:
    raise ConfigError(
        "Workflows need packages of an extra. Install it: pip install 'mcp-sessions[workflows]'"
    ) from error

from .context import WorkflowContext
from .definition import WorkflowDefinition
from .engine import WorkflowEngine, WorkflowExecutionResult
from .run import Event
from .state import StepResult, StepStatus, WorkflowStatus

del _cel, _yaml

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
