"""What counts as JSON, and what is refused before it can reach a store."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mcp_sessions._json import MAX_DEPTH, canonical, check_json, decode, encode


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value", [None, True, 0, -1.5, "é", "", [], {}, {"a": [1, {"b": None}]}, (1, 2), 2**1000, nested(MAX_DEPTH)]
)
def test_json_values_pass_unchanged(value: Any) -> None:
    assert check_json(value) is value


@pytest.mark.parametrize(
    ("value", "fact"),
    [
        (math.nan, "NaN"),
        ([math.inf], "infinity"),
        ({"a": -math.inf}, "infinity"),
        ("a\0b", "NUL"),
        ({"a\0": 1}, "NUL"),
        ("\ud800", "surrogate"),
        ({1: 2}, "not a string"),
        ({"a": {1, 2}}, "set"),
        (b"bytes", "bytes"),
        (2**2000, "bits"),
        (nested(MAX_DEPTH + 1), "levels deep"),
        (nested(100_000), "levels deep"),
    ],
)
def test_what_is_not_json_is_refused_with_the_fact(value: Any, fact: str) -> None:
    with pytest.raises(ValueError, match=fact):
        check_json(value)


def test_equal_values_have_one_canonical_text() -> None:
    assert canonical({"b": 1, "a": [True, None]}) == canonical({"a": [True, None], "b": 1}) == '{"a":[true,null],"b":1}'


def test_text_is_compact_and_readable_and_comes_back() -> None:
    assert encode({"ä": [1, 2]}) == '{"ä":[1,2]}'
    assert decode(encode({"ä": [1, 2]})) == {"ä": [1, 2]}
