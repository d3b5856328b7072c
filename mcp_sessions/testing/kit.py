"""The conformance kit: each promise of a storage backend as a named test.

    class TestMine(StorageKit):
        def open(self, folder: Path) -> SessionStorage:
            return MyStorage(folder / "store")

A store that ends with its handle overrides `another` too. Random histories are compared with MemorySessionStorage,
the reference; their number grows with SESSIONS_TEST_COUNTS=full.
"""

from __future__ import annotations

from . import histories
from .kit_backups import Backups
from .kit_changes import Changes
from .kit_conditions import Conditions
from .kit_deletion import Deletion
from .kit_forks import Forks
from .kit_handles import Handles
from .kit_heads import Heads
from .kit_keys import Keys
from .kit_listings import Listings
from .kit_messages import Messages
from .kit_records import Records
from .kit_search import Search
from .kit_totals import Sums
from .kit_whole import WholeSession


class StorageKit(
    Heads,
    Conditions,
    Messages,
    Keys,
    Records,
    Listings,
    Search,
    Sums,
    Changes,
    Forks,
    Deletion,
    WholeSession,
    Backups,
    Handles,
):
    """Everything that a backend promises."""

    def test_random_histories_are_answered_as_memory_answers_them(self) -> None:
        histories.compare(self.open_quickly)
