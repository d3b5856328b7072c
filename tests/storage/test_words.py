"""How text is cut into words, and how a hit is shown."""

from __future__ import annotations

import pytest

from mcp_sessions.storage.words import SNIPPET_CHARS, fold, snippet, words


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("Hello, World", ["hello", "world"]),
        ("snake_case and kebab-case", ["snake", "case", "and", "kebab", "case"]),
        ("Crème BRÛLÉE", ["creme", "brulee"]),
        ("Cre\u0300me", ["creme"]),
        ("STRASSE Straße", ["strasse", "strasse"]),
        ("Größe 42km/h", ["große".replace("ß", "ss").replace("ö", "o"), "42km", "h"]),
        ("中文 тест", ["中文", "тест"]),
        ('"quoted" AND (x OR y*) NEAR', ["quoted", "and", "x", "or", "y", "near"]),
        ("… — !", []),
        ("", []),
    ],
)
def test_words_are_runs_of_letters_and_digits_without_case_and_accents(text: str, cut: list[str]) -> None:
    assert words(text) == cut


def test_folding_twice_changes_nothing() -> None:
    assert fold(fold("ÀÉÎ ẞ ß")) == fold("ÀÉÎ ẞ ß")


def test_a_short_text_is_its_own_snippet() -> None:
    assert snippet("a needle", {"needle"}) == "a needle"


@pytest.mark.parametrize("before", [0, 150, 199, 200, 1000, 5000])
@pytest.mark.parametrize("after", [0, 1, 500])
def test_a_snippet_holds_the_word_and_is_bounded(before: int, after: int) -> None:
    text = "x " * (before // 2) + "Néedle" + " y" * after
    shown = snippet(text, {"needle"})
    assert "Néedle" in shown
    assert len(shown) <= SNIPPET_CHARS


def test_a_word_longer_than_a_snippet_is_shown_by_its_beginning() -> None:
    assert snippet("a" * 500, {"a" * 500}).startswith("aaa")
