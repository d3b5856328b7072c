"""open_storage: the only place that knows all backends."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from ..errors import ConfigError
from ..models import Limits
from .base import SessionStorage
from .files import FileSystemSessionStorage
from .memory import MemorySessionStorage
from .sqlite import SQLiteSessionStorage

KNOWN = "memory:, sqlite:///abs/path.db and file:///abs/folder"

_WITH_PATH = ("sqlite", "file")


def open_storage(
    url: str, *, durability: Literal["full", "process"] = "full", limits: Limits | None = None
) -> SessionStorage:
    """The storage that a url names: `memory:`, `sqlite:///abs/path.db` or `file:///abs/folder`.

    Paths are absolute; any number of leading slashes is one; percent-escapes are decoded. Raises ConfigError for a
    url that names none, StorageError where it cannot be opened.
    """
    path = checked_location(url)
    if path is None:
        return MemorySessionStorage(limits=limits)
    if url.startswith("file:"):
        return FileSystemSessionStorage(path, durability=durability, limits=limits)
    return SQLiteSessionStorage(path, durability=durability, limits=limits)


def checked_location(url: str) -> Path | None:
    """The file or folder behind a storage url; None for memory. Raises ConfigError for one that names no storage."""
    scheme, colon, _ = url.partition(":")
    if not colon:
        raise ConfigError(f"'{url}' is not a storage url; it is one of {KNOWN}.")
    if scheme not in ("memory", *_WITH_PATH):
        # What stands behind the scheme may hold a password.
        raise ConfigError(f"'{scheme[:20]}:…' names no storage that this version has; it is one of {KNOWN}.")
    return location(url)


def location(url: str) -> Path | None:
    """The file or folder behind a storage url, whether it exists or not; None for a store that is no file.

    Raises ConfigError for a url with a path that is not absolute.
    """
    scheme, _, rest = url.partition(":")
    return Path(path_of(rest, url)) if scheme in _WITH_PATH else None


def path_of(rest: str, url: str) -> str:
    """The absolute path behind `scheme:`. Raises ConfigError for one that is not."""
    path = unquote(rest)
    if "\0" in path or not path.startswith("/") or not path.strip("/"):
        like = "file:///abs/folder" if url.startswith("file:") else "sqlite:///abs/path.db"
        raise ConfigError(f"'{url}' has no absolute path; write {like}.")
    path = "/" + path.lstrip("/")
    if os.name == "nt" and re.match(r"/[A-Za-z]:", path):
        path = path[1:]
    return path
