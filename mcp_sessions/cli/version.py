"""Which version of mcp-sessions this is."""

from __future__ import annotations


def version() -> str:
    """The version that is installed; "unknown" where the package runs without being installed."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("mcp-sessions")
    except PackageNotFoundError:
        return "unknown"
