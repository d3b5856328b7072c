"""mcp-sessions: durable sessions for LLM agents, over MCP, Python and a command line.

Names resolve on first use (PEP 562), so importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .storage import MemorySessionStorage as MemorySessionStorage
    from .storage import SQLiteSessionStorage as SQLiteSessionStorage
    from .storage import open_storage as open_storage

_HOMES = {
    "MemorySessionStorage": "storage",
    "SQLiteSessionStorage": "storage",
    "open_storage": "storage",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
