"""The door of event loops: `invoke`, awaited.

The core blocks, so a call is made in a thread. A slow tool runs on the loop, with threads for its record alone: a
hundred of them hold up nobody. What a cancelled call has committed stands; else it is on record as cancelled.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread

from ..calls import Call
from ..errors import SessionExistsError, SessionNotFoundError
from ..manager import SessionManager
from .toolbox import Toolbox, completed, hinted

R = TypeVar("R")
Progress = Callable[[float, float | None], Coroutine[Any, Any, None]]


async def invoke_async(
    toolbox: Toolbox,
    manager: SessionManager,
    name: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    limiter: anyio.CapacityLimiter,
    progress: Progress | None = None,
    **how: Any,
) -> Any:
    """`toolbox.invoke`, with its keywords, from an event loop; slow tools too.

    `limiter` bounds the threads; `progress` is told how much is done, and of how much, by tools that say so.
    """
    call, act = toolbox.prepared(manager, name, arguments, **how)
    call.check_cancelled = anyio.from_thread.check_cancelled
    tool = toolbox.get(name)
    if tool is not None and tool.slow:
        call.tell = progress or call.tell
        try:
            return await awaited(call, act, limiter)
        except (SessionNotFoundError, SessionExistsError) as error:
            raise await anyio.to_thread.run_sync(hinted, call, error, limiter=limiter) from error
    if progress is not None:
        call.progress = functools.partial(anyio.from_thread.run, progress)
    return await _begun(call, functools.partial(completed, call, act), limiter)


async def awaited(call: Call, act: Callable[[], Awaitable[Any]], limiter: anyio.CapacityLimiter | None = None) -> Any:
    """Make a slow call that was prepared; its result. `act` gives it, and may stage what is to be committed with it."""
    call.check_cancelled = anyio.from_thread.check_cancelled
    try:
        await _started(call, limiter)
        if call.replayed:
            return call.result
        call.result = await act()
    except BaseException as error:
        await _surely(functools.partial(call.fail, error), limiter)
        raise
    await _surely(call.finish, limiter)
    return call.result


async def _started(call: Call, limiter: anyio.CapacityLimiter | None) -> None:
    """Start the call, and hold no thread while it waits for another one of its id."""
    steps = call.starting()
    while (pause_s := await anyio.to_thread.run_sync(next, steps, None, limiter=limiter)) is not None:  # noqa: ASYNC110
        await anyio.sleep(pause_s)  # it may run in another process, which tells nobody when it ends


async def _begun(call: Call, begin: Callable[[], R], limiter: anyio.CapacityLimiter | None) -> R:
    """Begin the call in a thread; one that is cancelled before there is one for it is put on record so."""
    has_begun = False

    def run() -> R:
        nonlocal has_begun
        has_begun = True
        return begin()

    try:
        return await anyio.to_thread.run_sync(run, limiter=limiter)
    except anyio.get_cancelled_exc_class() as error:
        if not has_begun:
            await _surely(functools.partial(call.fail, error), limiter)
        raise


async def _surely(function: Callable[[], object], limiter: anyio.CapacityLimiter | None) -> None:
    """In a thread, also where the caller has been cancelled."""
    with anyio.CancelScope(shield=True):
        await anyio.to_thread.run_sync(function, limiter=limiter)
