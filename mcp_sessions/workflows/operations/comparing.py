"""compare_results, verify_consensus: how much the answers to one question agree."""

from __future__ import annotations

import time
from difflib import Match, SequenceMatcher
from itertools import combinations
from typing import Any, cast

from ...errors import InvalidArgumentError
from .operation import Inputs, Operation

MOST_RESULTS = 100
MOST_CHARS = 50_000
"""Of each result."""
MOST_S = 10.0
"""Of all pairs together: comparing letters may take a time that grows with more than their square."""
_ENDING = "_result"
_LEVELS = (
    (0.9, "Strong consensus: All models produced highly similar results"),
    (0.75, "Moderate consensus: Models generally agree with minor variations"),
    (0.5, "Weak consensus: Models show some agreement but notable differences"),
    (0.0, "No consensus: Models produced significantly different results"),
)


class CompareResults(Operation):
    def run(self, inputs: Inputs) -> dict[str, Any]:
        """How alike the results are, in pairs and all together, from 0 to 1; empty ones do not take part."""
        named = {name.removesuffix(_ENDING): value for name, value in inputs.items() if name.endswith(_ENDING)}
        if len(named) < 2:
            raise InvalidArgumentError(
                f"compare_results needs at least 2 inputs whose names end with '{_ENDING}'; it has {len(named)}.",
                argument="inputs",
            )
        texts = {name: str(value) for name, value in named.items() if value}
        if len(texts) < 2:
            return {"error": "Need at least 2 model results to compare", "all_similar": False, "similarity_scores": {}}
        _check_size(texts)
        threshold = _threshold(inputs)
        ends_at = time.monotonic() + MOST_S
        scores = {f"{a}_vs_{b}": _similarity(texts[a], texts[b], ends_at) for a, b in combinations(texts, 2)}
        average = sum(scores.values()) / len(scores)
        return {
            "similarity_scores": scores,
            "average_similarity": round(average, 3),
            "threshold": threshold,
            "all_similar": all(score >= threshold for score in scores.values()),
            "model_count": len(texts),
            "differences": _differences(texts),
            "consensus": next(words for least, words in _LEVELS if average >= least),
        }


class VerifyConsensus(Operation):
    def run(self, inputs: Inputs) -> dict[str, Any]:
        """Whether a comparison shows that the results agree, and what to do with them."""
        if "comparison" not in inputs:
            raise InvalidArgumentError(
                "verify_consensus needs the input 'comparison': what compare_results gave.", argument="comparison"
            )
        if not inputs["comparison"]:
            return {"verified": False, "reason": "No comparison data available"}
        threshold = _threshold(inputs)
        verified, average, consensus = _read(inputs["comparison"])
        return {
            "verified": verified,
            "average_similarity": average,
            "threshold": threshold,
            "passed_threshold": average >= threshold,
            "consensus_level": consensus,
            "recommendation": _recommendation(verified, average, threshold),
        }


def _threshold(inputs: Inputs) -> float:
    try:
        threshold = float(inputs.get("threshold", 0.75))
    except (TypeError, ValueError, OverflowError):
        threshold = -1.0
    if not 0 <= threshold <= 1:
        raise InvalidArgumentError("'threshold' should be a number from 0 to 1.", argument="threshold")
    return threshold


def _read(comparison: Any) -> tuple[bool, float, str]:
    """Whether all are similar, how similar on average, and what that is called."""
    if isinstance(comparison, dict):
        found = cast("dict[str, Any]", comparison)
        verified, average = found.get("all_similar", False), found.get("average_similarity", 0.0)
        if isinstance(verified, bool) and isinstance(average, int | float):
            return verified, average, found.get("consensus", "Unknown")
    raise InvalidArgumentError("'comparison' should be what compare_results gave.", argument="comparison")


def _check_size(texts: dict[str, str]) -> None:
    if len(texts) > MOST_RESULTS:
        raise InvalidArgumentError(
            f"There are {len(texts):,} results; compare_results takes at most {MOST_RESULTS}.", argument="inputs"
        )
    for name, text in texts.items():
        if len(text) > MOST_CHARS:
            raise InvalidArgumentError(
                f"{name}{_ENDING} has {len(text):,} characters; compare_results takes at most {MOST_CHARS:,}. "
                "Shorten it.",
                argument=f"{name}{_ENDING}",
            )


class _Matcher(SequenceMatcher[str]):
    """Gives up at a time."""

    def __init__(self, one: str, other: str, ends_at: float) -> None:
        self._ends_at = ends_at
        super().__init__(None, one, other)

    def find_longest_match(self, alo: int = 0, ahi: int | None = None, blo: int = 0, bhi: int | None = None) -> Match:
        if time.monotonic() > self._ends_at:
            raise InvalidArgumentError(
                f"Comparing these results takes over {MOST_S:g} s. Give it fewer or shorter ones.", argument="inputs"
            )
        return super().find_longest_match(alo, ahi, blo, bhi)


def _similarity(one: str, other: str, ends_at: float) -> float:
    """Half letters, a third or so words, the rest lengths; how text is spaced does not count."""
    one, other = " ".join(one.split()), " ".join(other.split())
    letters = _Matcher(one, other, ends_at).ratio()
    words, others = set(one.lower().split()), set(other.lower().split())
    shared = len(words & others) / len(words | others) if words or others else 1.0
    lengths = min(len(one), len(other)) / max(len(one), len(other)) if one or other else 1.0
    return round(0.5 * letters + 0.3 * shared + 0.2 * lengths, 3)


def _differences(texts: dict[str, str]) -> dict[str, Any]:
    words = {name: set(text.lower().split()) for name, text in texts.items()}
    unique: dict[str, list[str]] = {}
    for name, own in words.items():
        alone = own.difference(*(others for other, others in words.items() if other != name))
        if alone:
            unique[name] = sorted(alone)[:10]
    lengths = {name: len(text) for name, text in texts.items()}
    return {
        "unique_words_per_model": unique,
        "text_lengths": lengths,
        "length_variance": max(lengths.values()) - min(lengths.values()),
    }


def _recommendation(verified: bool, average: float, threshold: float) -> str:
    if verified:
        return "Models agree - results are reliable and can be used with high confidence"
    if average >= threshold - 0.1:
        return "Models mostly agree - results are generally reliable with minor variations"
    return "Models disagree significantly - manual review recommended or rerun with different models"
