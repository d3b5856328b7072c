"""Watching: who listens to what, and one thread that looks for what changed, by whichever process.

It looks only while somebody listens. Of what is watched the state last seen is kept, and nothing else.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Hashable

import anyio
import anyio.from_thread
import anyio.lowlevel
from mcp.server.subscriptions import ResourcesListChanged, ResourceUpdated, ServerEvent

from ..errors import InvalidArgumentError, StorageClosedError, StorageError
from ..manager import SessionManager
from ..models import SessionChange
from . import resources

log = logging.getLogger(__name__)
LOOK_S = 0.25
MOST_URIS = 1_000
"""That one listener may watch."""


class Listener:
    """What somebody wants to hear of, and as whom; `deliver` is called on the event loop that this was made on."""

    def __init__(self, deliver: Callable[[ServerEvent], None], *, as_user: str | None = None) -> None:
        self.as_user = as_user
        self.lists = False
        """Whether to hear of sessions that appear or go."""
        self.since = ""
        """The position up to which it was told."""
        self._deliver = deliver
        self._token = anyio.lowlevel.current_token()
        self._lock = threading.Lock()
        self._seen: dict[str, dict[str, Hashable]] = {}
        """State by uri, by session."""

    def __len__(self) -> int:
        """How many resources it watches."""
        return sum(map(len, list(self._seen.values())))

    @property
    def idle(self) -> bool:
        """Whether it wants to hear of nothing."""
        return not self.lists and not self._seen

    def watch(self, manager: SessionManager, uris: Collection[str] = (), *, lists: bool = False) -> None:
        """Hear of what changes from now on; a uri that is no resource never does. Raises InvalidArgumentError for too
        many, and for one that is longer than any resource's: what is watched is kept.
        """
        if len(self) + len(uris) > MOST_URIS:
            raise InvalidArgumentError(f"At most {MOST_URIS:,} resources can be watched at once.", argument="uri")
        most = resources.longest_uri(manager.limits)
        if (length := max(map(len, uris), default=0)) > most:
            raise InvalidArgumentError(
                f"A uri has {length:,} characters; that of a resource has {most:,} at most.", argument="uri"
            )
        new = {uri: session_id for uri in uris if (session_id := resources.session_of(uri)) is not None}
        position = self.since or manager.storage.changes(None).next_cursor or ""
        states = {uri: resources.state(manager, uri, as_user=self.as_user) for uri in new}
        with self._lock:
            self.since = self.since or position
            for uri, session_id in new.items():
                self._seen.setdefault(session_id, {}).setdefault(uri, states[uri])
        self.lists = self.lists or lists

    def unwatch(self, uri: str) -> None:
        """Hear no more of a resource."""
        session_id = resources.session_of(uri) or ""
        with self._lock:
            watched = self._seen.get(session_id, {})
            watched.pop(uri, None)
            if not watched:
                self._seen.pop(session_id, None)

    def tell(self, changes: list[SessionChange], state: Callable[[str, str | None], Hashable]) -> None:
        """Tell of what is new to it in the changes."""
        events: list[ServerEvent] = []
        for change in changes:
            for uri in list(self._seen.get(change.session_id, ())):
                now = state(uri, self.as_user)
                with self._lock:
                    watched = self._seen.get(change.session_id, {})
                    if watched.get(uri, now) != now:
                        watched[uri] = now
                        events.append(ResourceUpdated(uri))
        if self.lists and any(change.created or change.revision is None for change in changes):
            events.append(ResourcesListChanged())
        if events:
            anyio.from_thread.run_sync(self._deliver_all, events, token=self._token)

    def _deliver_all(self, events: list[ServerEvent]) -> None:
        for event in events:
            self._deliver(event)


class Watcher:
    """Tells those who listen, a quarter of a second after a change at most."""

    def __init__(self, manager: SessionManager) -> None:
        self._manager = manager
        self._lock = threading.Lock()
        self._listeners: dict[Listener, None] = {}
        self._thread: threading.Thread | None = None
        self._complaint = ""

    def __len__(self) -> int:
        """How many listen."""
        return len(self._listeners)

    @property
    def resting(self) -> bool:
        """Whether nobody looks."""
        return self._thread is None

    def join(self, listener: Listener) -> None:
        """Tell it from now on; and of what changed since it left, if it had."""
        with self._lock:
            self._listeners[listener] = None
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="mcp-sessions-watcher", daemon=True)
                self._thread.start()

    def leave(self, listener: Listener) -> None:
        """Tell it nothing more."""
        with self._lock:
            self._listeners.pop(listener, None)

    def _run(self) -> None:
        told: object = None
        while True:
            time.sleep(LOOK_S)
            with self._lock:
                listeners = list(self._listeners)
                if not listeners:
                    self._thread = None
                    return
            try:
                now = self._manager.storage.stamp(), listeners
                if now != told:
                    self._look(listeners)
                told, self._complaint = now, ""
            except StorageClosedError:
                pass  # the server is ending
            except StorageError as error:
                self._complain(str(error))
            except Exception as error:  # the door of this thread: one look that fails is not the last
                self._complain(repr(error))

    def _complain(self, text: str) -> None:
        if text != self._complaint:  # once, and not four times a second
            log.error("Clients are not told of changes: %s", text)
        self._complaint = text

    def _look(self, listeners: list[Listener]) -> None:
        # Nearly always all stand at one position: what differs is who has just joined.
        for since in dict.fromkeys(listener.since for listener in listeners):
            self._tell([listener for listener in listeners if listener.since == since], since)

    def _tell(self, listeners: list[Listener], since: str) -> None:
        known: dict[tuple[str, str | None], Hashable] = {}

        def state(uri: str, as_user: str | None) -> Hashable:
            if (uri, as_user) not in known:
                known[uri, as_user] = resources.state(self._manager, uri, as_user=as_user)
            return known[uri, as_user]

        while (page := self._manager.storage.changes(since)).items:
            known.clear()
            since = page.next_cursor or ""
            for listener in listeners:
                try:
                    listener.tell(page.items, state)
                except anyio.RunFinishedError:  # its event loop has ended
                    self.leave(listener)
                listener.since = since
