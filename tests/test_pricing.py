"""Costs, against published prices: dollars per million tokens are milli-dollars per thousand."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mcp_sessions.models import TokenUsage, tokens
from mcp_sessions.pricing import LONGEST_MODEL_NAME, estimate

AT = datetime(2026, 11, 1, 12, tzinfo=UTC)
MILLI = 10**6


@pytest.mark.parametrize(
    ("model", "nano_dollars"),
    [
        ("claude-sonnet-4-5", 34_200_000),  # 6,000 at $3, 4,000 at $0.30, 1,000 at $15
        ("claude-sonnet-4-5-20250929", 34_200_000),
        ("gpt-4o", 30_000_000),  # 6,000 at $2.50, 4,000 at $1.25, 1,000 at $10
    ],
)
def test_tokens_from_the_cache_are_part_of_the_input_and_cost_less(model: str, nano_dollars: int) -> None:
    assert estimate(model, tokens(input=10_000, output=1_000, cache_read=4_000), AT) == nano_dollars


def test_tokens_into_the_cache_cost_more() -> None:
    plain = estimate("claude-sonnet-4-5", tokens(input=1_000), AT)
    cached = estimate("claude-sonnet-4-5", tokens(input=1_000, cache_write=1_000), AT)
    assert (plain, cached) == (3 * MILLI, 3.75 * MILLI)


def test_a_long_call_costs_more_than_two_halves_of_it() -> None:
    """The price of a long context holds for one call: a session's sum must not be priced."""
    whole = estimate("claude-sonnet-4-5", tokens(input=300_000), AT)
    half = estimate("claude-sonnet-4-5", tokens(input=150_000), AT)
    assert (half, whole) == (450 * MILLI, 1_800 * MILLI)


def test_a_call_costs_what_it_cost_on_its_day() -> None:
    before, after = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)
    costs = [estimate("claude-sonnet-4-6", tokens(input=300_000), at) for at in (before, after)]
    assert costs == [1_800 * MILLI, 900 * MILLI]


@pytest.mark.parametrize("model", ["llama3.2", "qwen2.5:7b", "no such model", ""])
def test_a_model_that_is_not_on_the_list_has_no_known_cost(model: str) -> None:
    assert estimate(model, tokens(input=1_000, output=1_000), AT) is None


@pytest.mark.parametrize("model", ["mistral-ocr-2512", "tts-1"])
def test_a_model_with_a_price_per_page_or_second_has_no_known_cost(model: str) -> None:
    """The list answers 0 for the tokens of these."""
    for usage in (tokens(input=1_000), tokens(output=1_000), tokens(input=1_000, output=1_000)):
        assert estimate(model, usage, AT) is None


def test_tokens_of_a_kind_that_has_no_price_have_no_known_cost() -> None:
    assert estimate("voyage-3", tokens(input=1_000), AT) == 0.06 * MILLI
    assert estimate("voyage-3", tokens(input=1_000, output=1), AT) is None


@pytest.mark.parametrize(
    "usage",
    [tokens(input=10, cache_read=11), tokens(input=10, cache_read=6, cache_write=6), tokens(input=-1)],
)
def test_a_usage_that_cannot_be_has_no_known_cost(usage: TokenUsage) -> None:
    assert estimate("claude-sonnet-4-5", usage, AT) is None


def test_no_tokens_of_a_known_model_cost_nothing() -> None:
    assert estimate("claude-sonnet-4-5", tokens(), AT) == 0


def test_a_name_that_would_fill_the_memory_is_not_looked_up() -> None:
    assert estimate("claude-sonnet-4-5-".ljust(LONGEST_MODEL_NAME, "x"), tokens(input=1_000), AT) is not None
    assert estimate("claude-sonnet-4-5-".ljust(LONGEST_MODEL_NAME + 1, "x"), tokens(input=1_000), AT) is None


def test_a_price_is_found_without_the_network_and_the_list_is_not_imported_before() -> None:
    program = """
import sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        raise SystemExit(f"{event} {arguments}")

sys.addaudithook(refuse)
from datetime import UTC, datetime
from mcp_sessions.models import tokens
from mcp_sessions.pricing import estimate
assert "genai_prices" not in sys.modules
assert estimate("gpt-4o", tokens(input=1_000), datetime.now(UTC)) > 0
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[1],
        check=False,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
