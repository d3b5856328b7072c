"""Keys: versioned by the revision that wrote them; internal ones shown to those who ask."""

from __future__ import annotations

from typing import Any

import pytest

from ..errors import ConflictError
from ..models import Limits, Value, Want
from ..storage.base import SessionStorage
from .making import does, head, read_all, said, say, values
from .store import Store


def _keys(storage: SessionStorage, **want: Any) -> dict[str, Any]:
    return {key: value.value for key, value in storage.read("s", Want(**want)).data.items()}


class Keys(Store):
    @pytest.mark.parametrize(
        "value",
        [None, True, False, 0, -1, 2**70, 0.1, 1e300, "", "text", "Zoë \U0001f600", [], {}, [1, [2, {"a": None}]]],
        ids=repr,
    )
    def test_every_json_value_is_kept(self, storage: SessionStorage, value: Any) -> None:
        storage.create(head(), does(set={"k": value}))
        kept = storage.read("s", Want(keys=("k",))).data["k"]
        assert kept == Value(value=value, version=1)
        assert type(kept.value) is type(value)

    @pytest.mark.parametrize("key", ["", "a b", "Ünï", "a.b", "%", "_", "x" * 256, "'; --", "\U0001f600"])
    def test_every_name_is_kept(self, storage: SessionStorage, key: str) -> None:
        storage.create(head(), does(set={key: 1, "other": 2}))
        assert _keys(storage, keys=(key,)) == {key: 1}
        assert storage.commit("s", does(remove=(key,))).removed == [key]
        assert values(storage) == {"other": 2}

    @pytest.mark.parametrize("some", [1, 2, 4, 100])
    def test_keys_by_name_join_into_all_of_them(self, storage: SessionStorage, some: int) -> None:
        names = ["", "!", ".i", "A", "a", "a b", "é", "\uffee", "\U0001f600"]
        storage.create(head(), does(set={**dict.fromkeys(reversed(names), 1), "gone": 2}))
        storage.commit("s", does(remove=("gone",)))
        found: list[str] = []
        while page := list(_keys(storage, any_keys=some, after_key=found[-1] if found else None)):
            assert len(page) <= some
            found += page
            assert len(found) <= len(names)
        assert found == names
        assert _keys(storage, any_keys=2, after_key="b", keys=("A",)) == {"A": 1, "é": 1, "\uffee": 1}

    @pytest.mark.parametrize(("chars", "found"), [(0, ""), (3, "a"), (11, "a"), (12, "ab"), (19, "ab"), (20, "abc")])
    def test_keys_with_a_beginning_are_read_up_to_a_length(
        self, storage: SessionStorage, chars: int, found: str
    ) -> None:
        storage.create(head(), does(set={"a": 123, "b": "7 chars", "c": {"é": 12}, "gone": 1, ".i": 1}))
        storage.commit("s", does(remove=("gone",)))
        assert "".join(_keys(storage, prefix="", prefix_chars=chars)) == found
        assert list(_keys(storage, prefix=".", prefix_chars=chars, keys=("b",))) == [*([".i"] if chars else []), "b"]

    def test_a_version_is_the_revision_that_wrote_it(self, storage: SessionStorage) -> None:
        storage.create(head())
        storage.commit("s", does(set={"a": 1, "b": 1}))
        storage.commit("s", say(said("m")))
        storage.commit("s", does(set={"b": 2}))
        assert read_all(storage).data == {"a": Value(value=1, version=2), "b": Value(value=2, version=4)}

    def test_setting_a_key_to_what_it_is_makes_a_new_version(self, storage: SessionStorage) -> None:
        storage.create(head(), does(set={"a": 1}))
        storage.commit("s", does(set={"a": 1}))
        assert read_all(storage).data["a"].version == 2

    def test_a_removed_key_is_gone_from_every_reading(self, storage: SessionStorage) -> None:
        storage.create(head(), does(set={"a": 1, "b": 2, ".i": 3}))
        committed = storage.commit("s", does(remove=("a", ".i", "unknown")))
        assert committed.removed == ["a", ".i"]
        assert values(storage) == {"b": 2}
        assert read_all(storage).names == ["b"]
        assert _keys(storage, keys=("a", ".i"), prefix=".") == {}

    def test_a_removed_key_set_again_goes_on_in_versions(self, storage: SessionStorage) -> None:
        storage.create(head(), does(set={"a": 1}))
        storage.commit("s", does(remove=("a",)))
        assert storage.commit("s", does(remove=("a",))).removed == []
        storage.commit("s", does(set={"a": 2}))
        assert read_all(storage).data == {"a": Value(value=2, version=3)}

    def test_a_removed_key_is_as_one_that_never_was_to_a_condition(self, storage: SessionStorage) -> None:
        storage.create(head(), does(set={"a": 1}))
        storage.commit("s", does(remove=("a",)))
        with pytest.raises(ConflictError, match="does not exist"):
            storage.commit("s", does(set={"a": 2}, expected_versions={"a": 2}))
        storage.commit("s", does(set={"a": 2}, expected_versions={"a": 0}))
        assert values(storage) == {"a": 2}

    def test_a_key_removed_and_set_in_one_change_is_set(self, storage: SessionStorage) -> None:
        storage.create(head(), does(set={"a": 1}))
        committed = storage.commit("s", does(set={"a": 2}, remove=("a",)))
        assert committed.removed == ["a"]
        assert read_all(storage).data == {"a": Value(value=2, version=2)}

    def test_removing_all_spares_the_internal_keys(self, storage: SessionStorage) -> None:
        storage.create(head(), does(set={"b": 1, "a": 1, ".i": 1}))
        committed = storage.commit("s", does(remove_all=True, set={"c": 1}))
        assert committed.removed == ["a", "b"]
        assert values(storage) == {"c": 1}
        assert _keys(storage, prefix=".") == {".i": 1}

    def test_internal_keys_are_shown_only_by_name_or_prefix(self, storage: SessionStorage) -> None:
        storage.create(head(), does(set={"a": 1, ".run.x": 2, ".other": 3}))
        assert _keys(storage, prefix="") == {"a": 1}
        assert storage.read("s", Want(names=True)).names == ["a"]
        assert _keys(storage, keys=(".run.x",)) == {".run.x": 2}
        assert _keys(storage, prefix=".run.") == {".run.x": 2}
        assert _keys(storage, prefix=".") == {".run.x": 2, ".other": 3}

    def test_a_prefix_is_compared_to_the_letter(self, storage: SessionStorage) -> None:
        storage.create(head(), does(set={"step.1": 1, "step.2": 2, "steps": 3, "Step.1": 4, "st%": 5, "step_1": 6}))
        assert _keys(storage, prefix="step.") == {"step.1": 1, "step.2": 2}
        assert _keys(storage, prefix="st%") == {"st%": 5}
        assert _keys(storage, prefix="step_") == {"step_1": 6}
        assert _keys(storage, prefix="z") == {}

    def test_keys_come_in_order_each_once(self, storage: SessionStorage) -> None:
        storage.create(head(), does(set={"b": 1, "a": 2, "é": 3, "Z": 4}))
        view = storage.read("s", Want(keys=("b", "unknown", "b"), prefix="", names=True))
        assert list(view.data) == view.names == ["Z", "a", "b", "é"]

    def test_nothing_is_read_of_the_keys_unless_it_is_wanted(self, storage: SessionStorage) -> None:
        storage.create(head(), does(set={"a": 1}))
        view = storage.read("s", Want(messages=1))
        assert (view.data, view.names) == ({}, [])

    def test_the_session_as_of_an_older_message_keeps_its_versions(self, storage: SessionStorage) -> None:
        storage.create(head())
        for n in range(1, 4):
            storage.commit("s", does(messages=(said(f"m{n}"),), set={"k": n}))
        storage.commit("s", does(remove=("k",), messages=(said("m4"),)))
        for n, data in ((1, {"k": 1}), (2, {"k": 2}), (3, {"k": 3}), (4, {})):
            storage.fork("s", n, head(f"child{n}"), does())
            assert values(storage, f"child{n}") == data

    def test_the_newest_versions_of_a_key_are_kept_and_no_more(self, storage: SessionStorage) -> None:
        kept = Limits().key_versions
        storage.create(head())
        for n in range(1, kept + 3):
            storage.commit("s", does(messages=(said(f"m{n}"),), set={"k": n}))
        oldest = storage.fork("s", 1, head("a"), does())
        assert values(storage, "a") == {"k": 3}
        assert oldest.note is not None
        assert "newer than message 1" in oldest.note
        third = storage.fork("s", 3, head("b"), does())
        assert (values(storage, "b"), third.note) == ({"k": 3}, None)
