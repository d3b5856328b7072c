"""Search: words folded, all of them, newest first; and whose messages are found."""

from __future__ import annotations

import pytest

from ..models import Alter, Query, SessionStatus
from ..storage.base import SessionStorage
from .making import at, does, head, hits, joined, read_all, said, say
from .store import Store


class Search(Store):
    @pytest.mark.parametrize(
        ("content", "text"),
        [
            ("Hello world", "hello"),
            ("hello world", "HELLO"),
            ("un café noir", "cafe"),
            ("un cafe noir", "CAFÉ"),
            ("cafe\u0301", "caf\u00e9"),
            ("ΣΊΣΥΦΟΣ", "σισυφος"),
            ("snake_case_name", "case"),
            ("path/to/file.py", "file"),
            ("a-b c'd", "b d"),
            ("error 404!", "404"),
            ("日本語", "日本語"),
            ("Привет, мир", "МИР"),
            ("NEAR the OR of AND", "near and or"),
            ("x" * 5000 + " tail", "tail"),
        ],
    )
    def test_words_are_found_whatever_their_case_and_accents(
        self, storage: SessionStorage, content: str, text: str
    ) -> None:
        _said(storage, "something else", content)
        assert hits(storage, text) == [("s", 2)]

    @pytest.mark.parametrize(
        "text", ["hell", "ello", "word", "worlds", "hello there", "helloworld", "42", "é", "hello zebra"]
    )
    def test_only_whole_words_and_all_of_them_count(self, storage: SessionStorage, text: str) -> None:
        _said(storage, "Hello world", "zebra")
        assert hits(storage, text) == []

    def test_all_words_must_stand_in_one_message_in_any_order(self, storage: SessionStorage) -> None:
        _said(storage, "red apple", "green apple", "apple, red and round", "red")
        assert hits(storage, "apple red") == [("s", 3), ("s", 1)]
        assert hits(storage, "red red red apple") == [("s", 3), ("s", 1)]

    @pytest.mark.parametrize(
        "text",
        [
            *('"apple"', "apple*", "-apple", "^apple", "words:apple", "apple)", "(apple", '""apple', "{apple} : +"),
            *("apple'; DROP TABLE search; --", "NEAR(apple", "scope : apple", "\\apple", "a\u0300pple", "\0apple"),
        ],
    )
    def test_syntax_is_plain_text(self, storage: SessionStorage, text: str) -> None:
        _said(storage, "an apple; drop table search words scope near")
        assert hits(storage, text) == [("s", 1)]

    @pytest.mark.parametrize("text", ["", "  ", "!?", '"', "*", "_", "--", "\u0301", "\0", "\U0001f600"])
    def test_without_a_word_nothing_is_found(self, storage: SessionStorage, text: str) -> None:
        _said(storage, "an apple", text.replace("\0", "") or "x")
        assert storage.search(text, Query()).items == []

    def test_the_words_or_and_not_are_words(self, storage: SessionStorage) -> None:
        _said(storage, "apple", "pear", "apple or pear", "apple not pear")
        assert hits(storage, "apple OR pear") == [("s", 3)]
        assert hits(storage, "apple NOT pear") == [("s", 4)]

    def test_the_newest_message_comes_first_across_sessions(self, storage: SessionStorage) -> None:
        storage.create(head("s"), say(said("a", "word", second=5), said("b", "word", second=1)))
        storage.create(head("t"), say(said("c", "word", second=3)))
        assert hits(storage, "word") == [("s", 1), ("t", 1), ("s", 2)]
        assert hits(storage, "word", reverse=True) == [("s", 2), ("t", 1), ("s", 1)]

    def test_messages_of_one_millisecond_come_in_the_order_of_their_commits(self, storage: SessionStorage) -> None:
        storage.create(head("s"), say(said("a", "word", second=1.0009)))
        storage.create(head("t"), say(said("b", "word", second=1.0001)))
        storage.commit("s", say(said("c", "word", second=1.0005)))
        assert hits(storage, "word") == [("s", 2), ("t", 1), ("s", 1)]

    @pytest.mark.parametrize("reverse", [False, True], ids=["down", "up"])
    @pytest.mark.parametrize("limit", [1, 3, 10])
    def test_pages_of_hits_join_into_all_of_them(self, storage: SessionStorage, reverse: bool, limit: int) -> None:
        for name in "st":
            storage.create(head(name), say(*(said(f"m{n}", "word", second=n // 3) for n in range(10))))
        query = Query(reverse=reverse, limit=limit)
        found = joined(lambda cursor: storage.search("word", query, cursor))
        assert [(hit.session_id, hit.seq) for hit in found] == hits(storage, "word", reverse=reverse)
        assert len(found) == 20

    def test_hits_that_stay_come_exactly_once_while_messages_come_and_go(self, storage: SessionStorage) -> None:
        _said(storage, *["word"] * 7)
        first = storage.search("word", Query(limit=2))
        storage.commit("s", does(retract=((6, 7), (3, 3)), messages=(said("new", "word", second=50),)))
        rest = joined(lambda cursor: storage.search("word", Query(limit=2), cursor or first.next_cursor))
        assert [hit.seq for hit in [*first.items, *rest]] == [7, 6, 5, 4, 2, 1]

    def test_a_hit_says_where_it_stands(self, storage: SessionStorage) -> None:
        storage.create(head(purpose="Shopping"), say(said("m", "an Apple", second=3, role="tool")))
        (hit,) = storage.search("apple", Query()).items
        assert (hit.session_id, hit.purpose, hit.seq, hit.role) == ("s", "Shopping", 1, "tool")
        assert (hit.snippet, hit.timestamp) == ("an Apple", at(3))

    @pytest.mark.parametrize("place", ["start", "middle", "end"])
    def test_a_snippet_is_short_and_shows_the_word(self, storage: SessionStorage, place: str) -> None:
        before = {"start": 0, "middle": 3000, "end": 6000}[place]
        _said(storage, "lorem " * before + "Äpple " + "ipsum " * (6000 - before))
        (hit,) = storage.search("apple", Query()).items
        assert "Äpple" in hit.snippet
        assert len(hit.snippet) <= 200

    # whose messages

    def test_a_search_stays_within_the_sessions_of_its_query(self, storage: SessionStorage) -> None:
        _three(storage)
        assert hits(storage, "word") == [("c", 1), ("b", 1), ("a", 1)]
        assert hits(storage, "word", ids=("a", "c", "unknown")) == [("c", 1), ("a", 1)]
        assert hits(storage, "word", ids=("unknown",)) == []
        assert hits(storage, "word", user_id="ana") == [("a", 1)]
        assert hits(storage, "word", as_user="bob") == [("b", 1)]
        assert hits(storage, "word", as_user="bob", user_id="ana") == []
        assert hits(storage, "word", as_user="") == []
        assert hits(storage, "word", tags=("red",)) == [("b", 1), ("a", 1)]
        assert hits(storage, "word", tags=("red", "hot"), match="all") == [("b", 1)]
        assert hits(storage, "word", status=(SessionStatus.FAILED,)) == [("c", 1)]
        assert hits(storage, "word", text="tea") == [("c", 1)]

    def test_names_that_look_like_the_index_find_nothing(self, storage: SessionStorage) -> None:
        _three(storage)
        for text in ("ana", "s1", "s2", "u616e61", "a"):
            assert hits(storage, text) == []

    def test_what_is_committed_is_found_at_once(self, storage: SessionStorage) -> None:
        storage.create(head())
        for n in range(1, 6):
            storage.commit("s", say(said(f"m{n}", f"word{n} word")))
            assert hits(storage, f"word{n}") == [("s", n)]
        assert len(hits(storage, "word")) == 5

    def test_what_many_said_is_all_found(self, storage: SessionStorage) -> None:
        messages = tuple(said(f"m{n}", f"word {n}", second=n) for n in range(600))
        storage.create(head(), say(*messages))
        assert hits(storage, "word", limit=1000) == [("s", seq) for seq in range(600, 0, -1)]
        storage.commit("s", does(retract=((1, 598),)))
        assert hits(storage, "word") == [("s", 600), ("s", 599)]

    def test_a_forks_messages_are_found_in_both(self, storage: SessionStorage) -> None:
        _three(storage)
        storage.fork("a", None, head("child", user_id="zoe"), does())
        assert sorted(hits(storage, "word", ids=("a", "child"))) == [("a", 1), ("child", 1)]
        assert hits(storage, "word", as_user="zoe") == [("child", 1)]
        storage.commit("a", does(retract=((1, 1),)))
        assert hits(storage, "word", ids=("a", "child")) == [("child", 1)]

    def test_a_deleted_sessions_messages_are_not_found(self, storage: SessionStorage) -> None:
        _three(storage)
        assert len(hits(storage, "word")) == 3
        storage.delete("b", does())
        assert hits(storage, "word") == [("c", 1), ("a", 1)]
        storage.create(head("b"))
        assert hits(storage, "word", ids=("b",)) == []

    def test_a_restored_sessions_messages_are_found(self, storage: SessionStorage) -> None:
        _three(storage)
        view = read_all(storage, "a")
        storage.delete("a", does())
        storage.restore(view)
        assert hits(storage, "word", as_user="ana") == [("a", 1)]


def _said(storage: SessionStorage, *contents: str) -> None:
    storage.create(head(), say(*(said(f"m{n}", text, second=n) for n, text in enumerate(contents, 1))))


def _three(storage: SessionStorage) -> None:
    storage.create(head("a", user_id="ana", tags=["red"]), say(said("1", "word", second=1)))
    storage.create(head("b", user_id="bob", tags=["red", "hot"]), say(said("1", "word", second=2)))
    storage.create(head("c", purpose="Tea"), say(said("1", "word", second=3), said("2", "other", second=4)))
    storage.commit("c", does(alter=Alter(status=SessionStatus.FAILED)))
