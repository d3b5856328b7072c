"""What a store may keep beside the file: a ledger, which is told of every row, and whose entries are the truth.

The files backend keeps its logs so: a transaction first brings the rows up to date with them, then tells each row
that it writes, and is committed once the logs have taken it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ...models import ConversationMessage, Invocation, SessionMetadata
from .driver import Db


class Ledger(Protocol):
    """Called inside write transactions alone, so by one thread of one process at a time."""

    # the transaction

    def begin(self, db: Db) -> None:
        """It has begun; what an earlier attempt told is forgotten. Brings the rows up to date."""
        ...

    def seal(self, db: Db) -> None:
        """It is to be committed: take what was told, durably. Raises OSError, StorageError; then nothing is."""
        ...

    def settle(self) -> None:
        """It is committed."""
        ...

    def undo(self) -> None:
        """It is not, whatever was sealed."""
        ...

    # its rows; `slot` is the place of one among those of its millisecond

    def touch(self, db: Db, session_id: str) -> None:
        """A session is about to be looked at, to be written. Raises StorageError where it cannot be."""
        ...

    def created(self, sid: int, metadata: SessionMetadata) -> None: ...
    def altered(self, sid: int, fields: Mapping[str, Any], position: int | None) -> None: ...
    def said(
        self,
        sid: int,
        slot: int,
        seq: int,
        message: ConversationMessage,
        more: str | None,
        given: bool,
        revision: int,
    ) -> None:
        """`more`: those of its fields that `rows.more_of` tells, as JSON."""
        ...

    def retracted(self, sid: int, seq: int, message_id: str, fingerprint: str | None) -> None: ...
    def keyed(self, sid: int, key: str, version: int, text: str | None) -> None: ...
    def recorded(
        self, sid: int | None, slot: int, record: Invocation, revision: int | None, numbers: str | None, body: str
    ) -> None:
        """`body`: those of its fields that `rows.body_of` tells, as JSON."""
        ...

    def deleted(self, sid: int, session_id: str, position: int) -> None: ...
