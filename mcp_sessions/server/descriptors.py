"""The descriptors of stdio, taken for the transport before anything is imported that might print."""

from __future__ import annotations

import os
import sys
from typing import BinaryIO


def take_stdio() -> tuple[BinaryIO, BinaryIO]:
    """The transport's own stdin and stdout; descriptor 0 reads nothing from now on, and 1 writes to stderr."""
    if sys.stderr is None:  # pyright: ignore[reportUnnecessaryComparison] - where it is closed
        os.open(os.devnull, os.O_WRONLY)  # at 2, the lowest that is free, or the transport itself would take its place
    wire_in, wire_out = os.dup(0), os.dup(1)  # not inherited by children
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return os.fdopen(wire_in, "rb"), os.fdopen(wire_out, "wb", buffering=0)
