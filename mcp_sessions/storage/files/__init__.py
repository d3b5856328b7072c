"""Sessions as files: per session a folder, a log that is the truth, and views for people."""

from .storage import FileSystemSessionStorage

__all__ = ["FileSystemSessionStorage"]
