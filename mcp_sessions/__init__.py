"""mcp-sessions: durable sessions for LLM agents, over MCP, Python and a command line.

Names resolve on first use (PEP 562), so importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .default import get_session_manager, set_session_manager
    from .errors import (
        ConfigError,
        ConflictError,
        ExecutorError,
        ExpressionError,
        InvalidArgumentError,
        InvalidCursorError,
        InvocationConflictError,
        InvocationRecordedError,
        InvocationRunningError,
        LimitError,
        MessageConflictError,
        SchemaChangedError,
        SessionEndedError,
        SessionExistsError,
        SessionNotFoundError,
        SessionsError,
        StepError,
        StorageBusyError,
        StorageClosedError,
        StorageDamagedError,
        StorageError,
        UnknownToolError,
        WorkflowDefinitionError,
        WorkflowError,
        WorkflowMismatchError,
        WorkflowMissingError,
        WorkflowNotFoundError,
        WorkflowTakenOverError,
    )
    from .manager import SessionManager
    from .models import ConversationMessage, Invocation, SessionMetadata, SessionStatus
    from .session import Session
    from .storage import FileSystemSessionStorage, MemorySessionStorage, SQLiteSessionStorage, open_storage

__all__ = [
    "ConfigError",
    "ConflictError",
    "ConversationMessage",
    "ExecutorError",
    "ExpressionError",
    "FileSystemSessionStorage",
    "InvalidArgumentError",
    "InvalidCursorError",
    "Invocation",
    "InvocationConflictError",
    "InvocationRecordedError",
    "InvocationRunningError",
    "LimitError",
    "MemorySessionStorage",
    "MessageConflictError",
    "SQLiteSessionStorage",
    "SchemaChangedError",
    "Session",
    "SessionEndedError",
    "SessionExistsError",
    "SessionManager",
    "SessionMetadata",
    "SessionNotFoundError",
    "SessionStatus",
    "SessionsError",
    "StepError",
    "StorageBusyError",
    "StorageClosedError",
    "StorageDamagedError",
    "StorageError",
    "UnknownToolError",
    "WorkflowDefinitionError",
    "WorkflowError",
    "WorkflowMismatchError",
    "WorkflowMissingError",
    "WorkflowNotFoundError",
    "WorkflowTakenOverError",
    "get_session_manager",
    "open_storage",
    "set_session_manager",
]

_HOMES = {
    "ConversationMessage": "models",
    "FileSystemSessionStorage": "storage",
    "Invocation": "models",
    "MemorySessionStorage": "storage",
    "SQLiteSessionStorage": "storage",
    "Session": "session",
    "SessionManager": "manager",
    "SessionMetadata": "models",
    "SessionStatus": "models",
    "get_session_manager": "default",
    "open_storage": "storage",
    "set_session_manager": "default",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("." + _HOMES.get(name, "errors"), __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
