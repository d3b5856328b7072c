"""Claims: which process goes on with a run.

Whoever goes on with one has its turn, which stands in its session: each commit of the run asks that the turn is still
the same. A turn ends when its process lets go, has died, or was silent for `SILENT_S`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import cast

import anyio
import anyio.to_thread

from .._json import time_text
from ..errors import ConflictError
from ..manager import WAITS_FOR, SessionManager
from ..models import View, Want
from .run import BEAT_S
from .state import BEAT, CLAIM, STATUS, TIME, WorkflowStatus, status_of

SILENT_S = 3 * BEAT_S
"""After how long without a sign a living process is taken for one that will not go on."""
POLL_S = 0.2
_TURNS: set[str] = set()
"""The tokens of the turns that tasks of this process have."""


@dataclass
class Turn:
    """Who goes on with a run: a task of this process."""

    token: str
    fence: int
    """The version of the claim."""
    given_up: bool = False
    """Whether a commit of the run has ended it."""


class Claims:
    """Claims runs in the sessions of a manager."""

    def __init__(self, manager: SessionManager) -> None:
        self._manager = manager

    def is_taken(self, view: View) -> bool:
        """Whether a living process is at work on a run; where that is this one, whether it really is."""
        storage = self._manager.storage
        claim = view.data[CLAIM].value if CLAIM in view.data else None
        if claim is None or not storage.alive(claim["owner"]):
            return False
        return claim["owner"] != storage.owner() or claim["turn"] in _TURNS

    @asynccontextmanager
    async def turn(
        self, session_id: str, as_user: str | None, *, even_over: bool = False
    ) -> AsyncGenerator[Turn | None]:
        """A turn of the task that asks, once nobody else has one; None where there is nothing to go on with."""
        turn = await self._taken(session_id, as_user, even_over)
        if turn is None:
            yield None
            return
        try:
            yield turn
        finally:
            try:
                if not turn.given_up:
                    with anyio.CancelScope(shield=True):
                        await anyio.to_thread.run_sync(self._let_go, session_id, turn, as_user)
            finally:
                _TURNS.discard(turn.token)

    async def _taken(self, session_id: str, as_user: str | None, even_over: bool) -> Turn | None:
        sign: tuple[int, int] | None = None
        silent_since = anyio.current_time()

        def look() -> tuple[View, bool]:
            view = self._manager.view(session_id, Want(keys=(STATUS, CLAIM, BEAT, TIME), as_user=as_user))
            return view, self.is_taken(view)

        while True:
            view, taken = await anyio.to_thread.run_sync(look)
            if status_of(view).over and not even_over:
                return None
            now = (_version(view, CLAIM), _version(view, BEAT))
            if now != sign:
                sign, silent_since = now, anyio.current_time()
            if not taken or anyio.current_time() - silent_since >= SILENT_S:
                with suppress(ConflictError), anyio.CancelScope(shield=True):
                    return await anyio.to_thread.run_sync(self._take, view, as_user)
                continue
            await anyio.sleep(POLL_S)

    def _take(self, view: View, as_user: str | None) -> Turn:
        """Raises ConflictError where somebody else was faster."""
        manager = self._manager
        token = manager.make_id("turn")
        draft = manager.draft()
        draft.set_value(CLAIM, {"owner": manager.storage.owner(), "turn": token}, _version(view, CLAIM))
        if status_of(view) is WorkflowStatus.WAITING:
            draft.set_value(STATUS, WorkflowStatus.RUNNING.value)
            draft.unset([WAITS_FOR])
            if TIME in view.data:
                draft.set_value(TIME, {**view.data[TIME].value, "since": time_text(manager.clock())})
        change = draft.change(manager.clock(), as_user=as_user, active=False)
        _TURNS.add(token)
        try:
            receipt = manager.storage.commit(view.metadata.session_id, change)
        except BaseException:
            _TURNS.discard(token)
            raise
        return Turn(token, cast("int", receipt.revision))

    def _let_go(self, session_id: str, turn: Turn, as_user: str | None) -> None:
        """Leave a run that is not over to whoever goes on with it next, unless it is another's already."""
        draft = self._manager.draft()
        draft.set_value(CLAIM, None, turn.fence)
        try:
            self._manager.storage.commit(session_id, draft.change(self._manager.clock(), as_user=as_user, active=False))
        except (ConflictError, LookupError):
            return


def _version(view: View, key: str) -> int:
    return view.data[key].version if key in view.data else 0
