"""The feed of changes: which sessions changed since a position, by whoever, deletions too."""

from __future__ import annotations

from ..models import Alter, Query
from ..storage.base import SessionStorage
from .making import called, does, head, read_all, said, say
from .store import Store


def _since(storage: SessionStorage, position: str | None) -> dict[str, int | None]:
    changes = storage.changes(position).items
    since = {change.session_id: change.revision for change in changes}
    assert len(since) == len(changes), "a session comes twice"
    return since


def _now(storage: SessionStorage) -> str:
    page = storage.changes(None)
    assert page.items == []
    assert page.next_cursor is not None
    return page.next_cursor


class Changes(Store):
    def test_the_beginning_of_an_empty_store_has_no_changes(self, storage: SessionStorage) -> None:
        page = storage.changes("")
        assert page.items == []
        assert _since(storage, page.next_cursor) == {}

    def test_each_changed_session_comes_once_with_its_revision_now(self, storage: SessionStorage) -> None:
        storage.create(head("a"))
        storage.create(head("b"))
        position = _now(storage)
        for n in range(3):
            storage.commit("a", does(set={"k": n}))
        assert _since(storage, position) == {"a": 4}
        assert _since(storage, "") == {"a": 4, "b": 1}
        assert _since(storage, _now(storage)) == {}

    def test_every_way_to_change_a_session_is_a_change(self, storage: SessionStorage) -> None:
        storage.create(head("a"), say(said("m")))
        for change in (
            say(said("n")),
            does(set={"k": 1}),
            does(remove=("k",)),
            does(retract=((1, 1),)),
            does(alter=Alter(purpose="p")),
        ):
            position = _now(storage)
            revision = storage.commit("a", change).revision
            assert _since(storage, position) == {"a": revision}

    def test_a_fork_a_restored_and_a_created_session_are_changes(self, storage: SessionStorage) -> None:
        storage.create(head("a"), say(said("m")))
        storage.commit("a", does(set={"k": 1}))
        position = _now(storage)
        storage.fork("a", None, head("child"), does())
        assert _since(storage, position) == {"child": 1}
        view = read_all(storage, "a")
        storage.delete("a", does())
        position = _now(storage)
        storage.restore(view)
        assert _since(storage, position) == {"a": 2}

    def test_records_alone_are_no_change(self, storage: SessionStorage) -> None:
        storage.create(head("a"))
        position = _now(storage)
        storage.commit("a", does(records=(called("c"),)))
        assert _since(storage, position) == {}

    def test_the_parts_of_a_commit_are_changes_of_their_sessions(self, storage: SessionStorage) -> None:
        storage.create(head("a"))
        storage.create(head("b"))
        position = _now(storage)
        storage.commit("a", does(set={"k": 1}, also=(("b", does(set={"k": 1})),)))
        assert _since(storage, position) == {"a": 2, "b": 2}

    def test_a_deleted_session_is_a_change_without_a_revision(self, storage: SessionStorage) -> None:
        storage.create(head("a"))
        storage.create(head("b"))
        position = _now(storage)
        storage.delete("b", does())
        assert _since(storage, position) == {"b": None}
        later = _now(storage)
        assert _since(storage, later) == {}
        storage.create(head("b"))
        assert _since(storage, position) == {"b": 1}
        storage.delete("b", does())
        assert _since(storage, position) == {"b": None}
        assert _since(storage, later) == {"b": None}

    def test_the_stamp_differs_after_every_change_by_whichever_handle(self, storage: SessionStorage) -> None:
        with self.another(storage) as other:
            stamps = [(storage.stamp(), other.stamp())]
            for writer in (storage, other):
                for change in (
                    lambda writer=writer: writer.create(head("a")),
                    lambda writer=writer: writer.commit("a", does(set={"k": 1})),
                    lambda writer=writer: writer.commit("a", say(said("m"))),
                    lambda writer=writer: writer.delete("a", does()),
                ):
                    change()
                    stamps.append((storage.stamp(), other.stamp()))
                    assert stamps[-1][0] != stamps[-2][0]
                    assert stamps[-1][1] != stamps[-2][1]

    def test_a_session_made_since_the_position_is_told_from_one_that_was_there(self, storage: SessionStorage) -> None:
        def created(since: str) -> dict[str, bool]:
            return {change.session_id: change.created for change in storage.changes(since).items}

        storage.create(head("a"), say(said("m")))
        position = _now(storage)
        storage.create(head("b"))
        storage.fork("a", None, head("child"), does())
        for session_id in ("a", "b"):
            storage.commit(session_id, does(set={"k": 1}))
        assert created(position) == {"a": False, "b": True, "child": True}
        assert created("") == {"a": True, "b": True, "child": True}
        later = _now(storage)
        storage.delete("child", does())
        storage.commit("b", does(set={"k": 2}))
        assert created(later) == {"b": False, "child": False}
        storage.create(head("child"))
        assert created(later) == {"b": False, "child": True}

    def test_a_session_made_since_the_position_is_so_on_whatever_page_it_comes(self, storage: SessionStorage) -> None:
        storage.create(head("old"))
        position = _now(storage)
        for session_id in ("a", "b", "old", "a"):
            if session_id == "old" or storage.session_exists(session_id):
                storage.commit(session_id, does(set={"k": 1}))
            else:
                storage.create(head(session_id))
        seen: dict[str, bool] = {}
        while page := storage.changes(position, limit=1).items:
            seen |= {change.session_id: change.created for change in page}
            position = storage.changes(position, limit=1).next_cursor or ""
        assert seen == {"b": True, "old": False, "a": True}

    def test_pages_of_changes_join_into_all_of_them(self, storage: SessionStorage) -> None:
        for n in range(7):
            storage.create(head(f"s{n}"))
        storage.commit("s2", does(set={"k": 1}))
        storage.delete("s4", does())
        seen: list[str] = []
        position = ""
        while page := storage.changes(position, limit=2).items:
            seen += [change.session_id for change in page]
            position = storage.changes(position, limit=2).next_cursor or ""
        assert seen == ["s0", "s1", "s3", "s5", "s6", "s2", "s4"]

    def test_a_follower_misses_nothing(self, storage: SessionStorage) -> None:
        known: dict[str, int | None] = {}
        position: str | None = ""
        for n in range(6):
            storage.create(head(f"s{n}"))
            storage.commit("s0", does(set={"n": n}))
            if n % 3 == 2:
                storage.delete(f"s{n}", does())
            page = storage.changes(position, limit=1)
            known |= {change.session_id: change.revision for change in page.items}
            position = page.next_cursor
        known |= {change.session_id: change.revision for change in storage.changes(position).items}
        assert {name: revision for name, revision in known.items() if revision is not None} == {
            found.session_id: found.revision for found in storage.find(Query()).items
        }

    def test_commits_of_another_handle_are_seen(self, storage: SessionStorage) -> None:
        storage.create(head("a"))
        storage.create(head("b"))
        position = _now(storage)
        with self.another(storage) as other:
            other.commit("a", does(set={"k": 1}))
            other.delete("b", does())
            assert _since(storage, position) == {"a": 2, "b": None}
            assert _since(other, position) == {"a": 2, "b": None}
