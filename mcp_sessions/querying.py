"""The query language: `status:failed tag:bug tool:git_log cost>0.5 since:7d words`.

One language for tools, commands and the page: terms narrow, plain words must stand in id, purpose or tags. What
stands in quotes is plain words, or after a sign the value of its term: `tag:"to do" "since: then"`.
"""

from __future__ import annotations

import difflib
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from .errors import InvalidArgumentError
from .models import MOST_USD, known_status

_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d|w)\Z")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_PART = re.compile(r"""(?:([a-z_]+)(:|>=|>|<=|<)(?!//))?(?:"([^"]*)"|'([^']*)'(?!\S)|(\S+))?""")
_FIELDS = {
    "tool": "tool",
    "user": "user_id",
    "since": "updated_after",
    "until": "updated_before",
    "created": "created_after",
    "errors": "has_errors",
    "cost": "min_cost",
}
NAMES = ("status", "tag", "tool", "user", "cost", "since", "until", "created", "errors", "id")


def parse_time(text: str, now: datetime, *, argument: str | None = None) -> datetime:
    """A time: ISO 8601 (a date, or a time that is UTC unless it says otherwise), or an age such as `24h` or `7d`."""
    age = _AGE.match(text.strip().lower())
    try:
        if age is not None:
            return now - timedelta(**{_UNITS[age[2]]: float(age[1])})
        moment = datetime.fromisoformat(text.strip())
        return moment.astimezone(UTC) if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidArgumentError(
            f"'{text[:80]}' is no time. Write an age such as 24h or 7d, or a date such as 2026-11-22T10:00:00Z.",
            argument=argument,
        ) from None


def parse_query(text: str, now: datetime) -> dict[str, Any]:
    """The fields of a Query that a line of the language names. Raises InvalidArgumentError, with what is known."""
    fields: dict[str, Any] = {}
    words: list[str] = []
    for part in _PART.finditer(text):
        name, sign, *values = part.groups()
        value = next((value for value in values if value is not None), "")
        if name is None:
            words += value.split()
        else:
            _term(fields, name, sign, value, now)
    if words:
        fields["text"] = " ".join(words)
    return fields


def _term(fields: dict[str, Any], name: str, sign: str, value: str, now: datetime) -> None:
    if name not in NAMES:
        close = difflib.get_close_matches(name, NAMES, 1)
        hint = f"Did you mean '{close[0]}{sign}{value}'?" if close else f"Known terms: {', '.join(NAMES)}."
        raise _mistake(f"Unknown term '{name}{sign}{value}' in the query. {hint}")
    if not value:
        raise _mistake(f"The term '{name}{sign}' in the query has no value.")
    if (sign != ":") != (name == "cost"):
        right = "cost>0.5" if name == "cost" else f"{name}:{value}"
        raise _mistake(f"'{name}{sign}{value}' in the query: write {right}.")
    if name == "status":
        fields["status"] = (*fields.get("status", ()), *(known_status(one) for one in value.split(",")))
    elif name == "tag":
        fields["tags"] = (*fields.get("tags", ()), value)
        fields["match"] = "all"
    elif name == "id":
        fields["ids"] = (*fields.get("ids", ()), value)
    elif _FIELDS[name] in fields:
        raise _mistake(f"The term '{name}' stands twice in the query. Leave one out.")
    else:
        fields[_FIELDS[name]] = _value(name, sign, value, now)


def _value(name: str, sign: str, value: str, now: datetime) -> Any:
    match name:
        case "since" | "until" | "created":
            return parse_time(value, now, argument="query")
        case "errors":
            return _yes(value)
        case "cost":
            return _cost(sign, value)
        case _:
            return value


def _yes(value: str) -> bool:
    if value.lower() not in ("yes", "true", "1", "no", "false", "0"):
        raise _mistake(f"'errors:{value}' in the query: write errors:yes or errors:no.")
    return value.lower() in ("yes", "true", "1")


def _cost(sign: str, value: str) -> float:
    try:
        cost = float(value)
    except ValueError:
        cost = -1.0
    if sign not in (">", ">=") or not 0 <= cost < MOST_USD:
        raise _mistake(f"'cost{sign}{value}' in the query: write cost>0.5, in USD.")
    # Costs are whole nano-dollars, so "more than" is "at least one more".
    return cost + 1e-9 if sign == ">" else cost


def _mistake(text: str) -> InvalidArgumentError:
    return InvalidArgumentError(text, argument="query")
