"""Where sessions are kept."""

from .base import SessionStorage
from .heads import Committed
from .memory import MemorySessionStorage
from .opening import location, open_storage
from .sqlite import SQLiteSessionStorage

__all__ = ["Committed", "MemorySessionStorage", "SQLiteSessionStorage", "SessionStorage", "location", "open_storage"]
