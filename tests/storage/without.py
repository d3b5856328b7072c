"""pytest where the system lacks something: `python -m tests.storage.without fcntl,os.symlink TESTS...`."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from typing import Any, cast

import pytest

PARTS = ("fcntl", "os.fdatasync", "os.symlink")


def take_away(part: str) -> None:
    """A function of `os` is deleted; a module can no longer be imported, by anybody."""
    if part.startswith("os."):
        delattr(os, part.removeprefix("os."))
    else:
        cast("dict[str, Any]", sys.modules)[part] = None


def import_all() -> int:
    """Import every module of the package; how many there are."""
    import mcp_sessions

    names = [module.name for module in pkgutil.walk_packages(mcp_sessions.__path__, "mcp_sessions.")]
    return len([importlib.import_module(name) for name in names if not name.endswith("__main__")])


if __name__ == "__main__":
    parts = sys.argv[1].split(",")
    for part in parts:
        take_away(part)
    # In this process: workers of xdist would have what is taken away here.
    failed = pytest.main(["-n0", "-x", "-q", "-p", "no:cacheprovider", *sys.argv[2:]])
    if "fcntl" in parts:  # what is not ours may have it: mcp needs it wherever it is not on Windows
        del sys.modules["fcntl"]
        importlib.import_module("mcp.server.stdio")
        take_away("fcntl")
    print(f"{import_all()} modules without {sys.argv[1]}")  # after pytest, which rewrites the asserts of the kit
    sys.exit(failed)
