"""Where sessions are kept."""

from .base import SessionStorage
from .files import FileSystemSessionStorage
from .heads import Committed
from .memory import MemorySessionStorage
from .opening import location, open_storage
from .sqlite import SQLiteSessionStorage

__all__ = [
    "Committed",
    "FileSystemSessionStorage",
    "MemorySessionStorage",
    "SQLiteSessionStorage",
    "SessionStorage",
    "location",
    "open_storage",
]
