"""The whole-session API: what every backend gets from the narrow one, once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ..errors import ConflictError, InvocationRecordedError, SessionExistsError, SessionNotFoundError
from ..models import Change, Limits, Query, SessionMetadata, SessionStatus, View, Want, known_status
from ..session import Parts, Session, utc_now
from .heads import Effect, apply

if TYPE_CHECKING:
    from .base import SessionStorage
    from .heads import Committed

EVERYTHING = 1 << 62
INVOCATION_DIR = ".invocation_dir."


def parts_of(view: View) -> Parts:
    """What a working copy holds of a view."""
    return (
        list(view.messages),
        {key: value.value for key, value in view.data.items()},
        [record.invocation_id for record in reversed(view.records) if record.kind == "work"],
    )


def counted(view: View) -> View:
    """A view whose head counts its records, as if they had been committed to it one by one."""
    effect = Effect(records=[(None, record) for record in reversed(view.records)])
    head = view.metadata
    new = apply(dict(head), Change(at=head.updated_at), effect, Limits())
    return view.model_copy(update={"metadata": head.model_copy(update=new)})


class WholeSessions:
    """Sessions as working copies, for programs that read and save them whole; another user's is not there."""

    def save_session(self, session: Session, *, as_user: str | None = None) -> None:
        """Commit what was done to this copy since it was read; one that the store does not know is created.

        Two copies of one session keep both their appends. Raises SessionNotFoundError for a session of another
        user, there or to be created; SessionEndedError, StorageError.
        """
        store = cast("SessionStorage", self)
        change = session.pending().model_copy(update={"as_user": as_user})
        try:
            committed = self._saved(session.session_id, change)
        except SessionNotFoundError:
            if as_user not in (None, session.metadata.user_id):
                hint = f"and it is not created, because its user_id is not '{as_user}'."
                raise SessionNotFoundError(session.session_id, hint=hint) from None
            view = counted(session.whole())
            try:
                metadata = store.restore(view).metadata
            except SessionExistsError:
                if change.expected_created_at is None:
                    raise
                hint = "it was deleted, and another one was made under its id."
                raise SessionNotFoundError(session.session_id, hint=hint) from None
            unsaved = len(change.messages)
            session.saved(metadata, [message.seq for message in view.messages][-unsaved:] if unsaved else [])
        else:
            session.saved(committed.metadata, committed.seqs)

    def _saved(self, session_id: str, change: Change) -> Committed:
        while True:
            try:
                return cast("SessionStorage", self).commit(session_id, change)
            except InvocationRecordedError as other:
                # Another copy was saved with this call; it is counted already.
                there = other.record.invocation_id
                records = tuple(record for record in change.records if record.invocation_id != there)
                change = change.model_copy(update={"records": records})

    def load_session(self, session_id: str, *, as_user: str | None = None) -> Session | None:
        """A working copy of everything in a session, as of one moment; None where there is none."""
        store = cast("SessionStorage", self)
        want = Want(prefix="", messages=EVERYTHING, order="oldest", records=EVERYTHING, as_user=as_user)
        try:
            view = store.read(session_id, want)
        except SessionNotFoundError:
            return None
        return Session(view.metadata, *parts_of(view), stored=True)

    def session_exists(self, session_id: str, *, as_user: str | None = None) -> bool:
        """Whether there is such a session."""
        try:
            cast("SessionStorage", self).read(session_id, Want(as_user=as_user))
        except SessionNotFoundError:
            return False
        return True

    def link_invocation(
        self, session_id: str, invocation_id: str, invocation_dir: str | Path, *, as_user: str | None = None
    ) -> None:
        """Keep, under an internal key, where a call left its files; in files there is a link to it too.

        Raises SessionNotFoundError, SessionEndedError.
        """
        link = {INVOCATION_DIR + invocation_id: str(Path(invocation_dir).absolute())}
        change = Change(at=utc_now(), set=link, active=True, as_user=as_user)
        cast("SessionStorage", self).commit(session_id, change)

    def list_sessions(
        self,
        user_id: str | None = None,
        status: SessionStatus | str | None = None,
        tags: Sequence[str] | None = None,
        limit: int = 100,
        *,
        as_user: str | None = None,
    ) -> list[Session]:
        """The sessions last updated, newest first; with any of the tags. Each reads its parts when they are used."""
        store = cast("SessionStorage", self)
        query = Query(
            as_user=as_user,
            user_id=user_id,
            status=() if status is None else (known_status(status),),
            tags=tuple(tags or ()),
            limit=max(1, min(limit, 1000)),
        )
        found: list[SessionMetadata] = []
        cursor: str | None = None
        while len(found) < limit:
            page = store.find(query, cursor)
            found += page.items
            cursor = page.next_cursor
            if cursor is None:
                break
        return [self._listed(metadata, as_user) for metadata in found[: max(limit, 0)]]

    def _listed(self, metadata: SessionMetadata, as_user: str | None) -> Session:
        def load() -> Parts:
            session = self.load_session(metadata.session_id, as_user=as_user)
            if session is None or session.metadata.created_at != metadata.created_at:
                raise SessionNotFoundError(metadata.session_id, hint="it was deleted after it was listed.")
            return session.conversation, session.data, session.invocation_ids

        return Session(metadata, load=load, stored=True)

    def delete_session(self, session_id: str, *, as_user: str | None = None) -> bool:
        """Remove a session with all that belongs to it; whether there was one."""
        try:
            cast("SessionStorage", self).delete(session_id, Change(at=utc_now(), as_user=as_user))
        except SessionNotFoundError:
            return False
        return True

    def cleanup_sessions(self, cutoff_date: datetime) -> list[str]:
        """Remove the ended sessions that were last updated before a time; their ids. Active ones are left alone."""
        store = cast("SessionStorage", self)
        ended = tuple(status for status in SessionStatus if status is not SessionStatus.ACTIVE)
        removed: list[str] = []
        while True:
            page = store.find(Query(status=ended, updated_before=cutoff_date, reverse=True, limit=1000))
            gone = [metadata.session_id for metadata in page.items if self._removed(metadata)]
            removed += gone
            if page.next_cursor is None or not gone:
                return removed

    def _removed(self, metadata: SessionMetadata) -> bool:
        change = Change(at=utc_now(), expected_revision=metadata.revision, expected_updated_at=metadata.updated_at)
        try:
            cast("SessionStorage", self).delete(metadata.session_id, change)
        except (SessionNotFoundError, ConflictError):
            return False  # it is gone, or was changed meanwhile: reopened, say
        return True
