"""The default manager, for scripts: made from the settings when it is first asked for.

It is the only module-level state that changes.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from .errors import ConfigError
from .manager import SessionManager
from .storage import open_storage

if TYPE_CHECKING:
    from .config import Settings

_lock = threading.Lock()
_manager: SessionManager | None = None


def get_session_manager() -> SessionManager:
    """The default manager. Raises ConfigError for settings that cannot be used, StorageError."""
    global _manager  # noqa: PLW0603 - the one default there is
    with _lock:
        if _manager is None:
            from .config import Settings

            _manager = manager_from(Settings())
        return _manager


def set_session_manager(manager: SessionManager | None) -> None:
    """Make this the default manager; None: the next one asked for is made from the settings. Closes none."""
    global _manager  # noqa: PLW0603 - the one default there is
    with _lock:
        _manager = manager


def workflow_storage(settings: Settings) -> str | None:
    """The url of the store of workflow runs; None where they are kept with the other sessions. Raises ConfigError."""
    where, path = settings.workflow_session_storage, settings.workflow_session_path
    if where == "memory":
        return "memory:"
    if where == "filesystem":
        if path is None:
            raise ConfigError("WORKFLOW_SESSION_STORAGE is filesystem, and WORKFLOW_SESSION_PATH does not say where.")
        return path.expanduser().absolute().as_uri()
    if where is None and path is not None:
        return path.expanduser().absolute().as_uri()
    return where


def manager_from(settings: Settings, url: str | None = None) -> SessionManager:
    """A manager as the settings say, of their store or another. Raises ConfigError, StorageError."""
    limits = settings.limits()
    return SessionManager(
        open_storage(url or settings.storage, durability=settings.durability, limits=limits),
        limits=limits,
        redact=settings.redact,
        abandon_after=settings.abandon_after,
    )
