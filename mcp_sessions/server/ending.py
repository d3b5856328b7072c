"""How a server ends: SIGTERM and SIGINT ask for it, what is in flight may finish for a moment and is cancelled then,
and soon nothing waits for other processes any longer.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager

import anyio

ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT") if hasattr(signal, name)]
"""The last two come of a terminal that is closed, and of Ctrl-\\; Windows has neither. Those that were ignored when the
process began stay so: that is what `nohup` does, and a shell to what it runs in the background.
"""
PATIENCE_S = 0.5
"""How long calls may wait for another process at the end: those that are given up can still be answered."""


class InFlight:
    """What has begun and not ended: it can be waited for, and cancelled."""

    def __init__(self) -> None:
        self._scopes = set[anyio.CancelScope]()
        self._nothing: anyio.Event | None = None

    @contextmanager
    def one(self) -> Generator[None]:
        """One more until the block ends; where `cancel` ended it, what stands behind the block goes on."""
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.remove(scope)
                if not self._scopes and self._nothing is not None:
                    self._nothing.set()

    async def nothing(self) -> None:
        """Wait until there is nothing in flight."""
        while self._scopes:
            self._nothing = anyio.Event()
            await self._nothing.wait()

    def cancel(self) -> None:
        """End what is in flight."""
        for scope in self._scopes:
            scope.cancel()


@asynccontextmanager
async def cancelled_by_signal(give_up: Callable[[], None] | None = None) -> AsyncGenerator[None]:
    """Cancel the block at a signal that asks for the end; what stands behind it goes on. While the block ends, no other
    one cuts it off; soon `give_up` is called, from a thread, so that it waits for no other process. Its errors come in
    a group.
    """
    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:

            def end(_signal: int) -> None:
                scope.cancel()
                if give_up is not None:
                    soon(give_up)

            group.start_soon(on_signal, end)
            yield
        group.cancel_scope.cancel()


async def on_signal(act: Callable[[int], object]) -> None:
    """Call `act` with each signal that asks for the end. Cancel it only when all has ended that is not to be cut off:
    from then on a signal ends the process at once.
    """
    heeded = [one for one in ENDING if signal.getsignal(one) is not signal.SIG_IGN]
    try:
        with anyio.open_signal_receiver(*heeded) as signals:
            async for caught in signals:
                act(caught)
    except NotImplementedError:
        pass  # Windows: its event loop knows no signals, and Ctrl-C cancels from outside


def soon(give_up: Callable[[], None]) -> None:
    """Call it in a moment, from a thread that nobody waits for."""
    last = threading.Timer(PATIENCE_S, give_up)
    last.daemon = True
    last.start()
