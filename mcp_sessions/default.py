"""The default manager, for scripts: made from the settings when it is first asked for.

It is the only module-level state that changes.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

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


def manager_from(settings: Settings) -> SessionManager:
    """A manager as the settings say. Raises ConfigError, StorageError."""
    limits = settings.limits()
    return SessionManager(
        open_storage(settings.storage, durability=settings.durability, limits=limits),
        limits=limits,
        redact=settings.redact,
        abandon_after=settings.abandon_after,
    )
