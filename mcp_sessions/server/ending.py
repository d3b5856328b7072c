"""How a server ends: SIGTERM and SIGINT ask for it, and soon after nothing waits for other processes any longer."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import anyio

PATIENCE_S = 0.75
"""How long calls may wait for another process at the end: those that are given up can still be answered."""


async def on_signal(act: Callable[[int], bool]) -> None:
    """Call `act` with each signal that asks for the end, until it says that it has heard enough."""
    try:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for caught in signals:
                if act(caught):
                    return
    except NotImplementedError:
        pass  # Windows: its event loop knows no signals, and Ctrl-C cancels from outside


def soon(give_up: Callable[[], None]) -> None:
    """Call it in a moment, from a thread that nobody waits for."""
    last = threading.Timer(PATIENCE_S, give_up)
    last.daemon = True
    last.start()
