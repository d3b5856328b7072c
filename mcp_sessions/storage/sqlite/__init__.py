"""Sessions in one SQLite file."""

from .storage import SQLiteSessionStorage

__all__ = ["SQLiteSessionStorage"]
