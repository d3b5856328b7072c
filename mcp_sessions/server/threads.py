"""The threads in which the server asks the core, which blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread

from ..tools import Tool

THREADS = 64
FEW = 8
"""For those that read and may all the same wait for another process; the store has no more connections to read with."""
R = TypeVar("R")


class Threads:
    """Whoever writes may wait for another process, and who reads does not wait behind that."""

    def __init__(self) -> None:
        self._reading = anyio.CapacityLimiter(THREADS)
        self._writing = anyio.CapacityLimiter(THREADS)
        self._catching_up = anyio.CapacityLimiter(FEW)

    def of(self, tool: Tool | None) -> anyio.CapacityLimiter:
        """What bounds the threads in which a tool is called."""
        if tool is None or not tool.reads:
            return self._writing
        return self._catching_up if tool.catches_up else self._reading

    async def read(self, act: Callable[[], R]) -> R:
        """What an act gives that only reads."""
        return await anyio.to_thread.run_sync(act, limiter=self._reading)
