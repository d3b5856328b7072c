"""The query language: `status:failed tag:bug tool:git_log cost>0.5 since:7d words`.

One language for tools, commands and the page: terms narrow, plain words must stand in id, purpose or tags.
"""

from __future__ import annotations

import difflib
import re
import shlex
from datetime import UTC, datetime, timedelta
from typing import Any

from .errors import InvalidArgumentError
from .models import SessionStatus

_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d|w)\Z")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_TERM = re.compile(r"([a-z_]+)(:|>=|>|<=|<)(.*)\Z", re.DOTALL)
NAMES = ("status", "tag", "tool", "user", "cost", "since", "until", "created", "errors", "id")


def parse_time(text: str, now: datetime, *, argument: str | None = None) -> datetime:
    """A time: ISO 8601 (a date, or a time that is UTC unless it says otherwise), or an age such as `24h` or `7d`."""
    age = _AGE.match(text.strip().lower())
    try:
        if age is not None:
            return now - timedelta(**{_UNITS[age[2]]: float(age[1])})
        moment = datetime.fromisoformat(text.strip())
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidArgumentError(
            f"'{text[:80]}' is no time. Write an age such as 24h or 7d, or a date such as 2026-11-22T10:00:00Z.",
            argument=argument,
        ) from None


def parse_query(text: str, now: datetime) -> dict[str, Any]:
    """The fields of a Query that a line of the language names. Raises InvalidArgumentError, with what is known."""
    fields: dict[str, Any] = {}
    words: list[str] = []
    try:
        parts = shlex.split(text, posix=True)
    except ValueError:
        parts = text.split()
    for part in parts:
        term = _TERM.match(part)
        if term is None or "://" in part:
            words.append(part)
        else:
            _term(fields, term[1], term[2], term[3], now)
    if words:
        fields["text"] = " ".join(words)
    return fields


def _term(fields: dict[str, Any], name: str, sign: str, value: str, now: datetime) -> None:
    if name not in NAMES:
        close = difflib.get_close_matches(name, NAMES, 1)
        hint = f"Did you mean '{close[0]}{sign}{value}'?" if close else f"Known terms: {', '.join(NAMES)}."
        raise InvalidArgumentError(f"Unknown term '{name}{sign}{value}' in the query. {hint}", argument="query")
    if not value:
        raise InvalidArgumentError(f"The term '{name}{sign}' in the query has no value.", argument="query")
    if (sign != ":") != (name == "cost"):
        right = "cost>0.5" if name == "cost" else f"{name}:{value}"
        raise InvalidArgumentError(f"'{name}{sign}{value}' in the query: write {right}.", argument="query")
    match name:
        case "status":
            fields["status"] = (*fields.get("status", ()), *(parse_status(one) for one in value.split(",")))
        case "tag":
            fields["tags"] = (*fields.get("tags", ()), value)
            fields["match"] = "all"
        case "tool":
            fields["tool"] = value
        case "user":
            fields["user_id"] = value
        case "id":
            fields["ids"] = (*fields.get("ids", ()), value)
        case "since":
            fields["updated_after"] = parse_time(value, now, argument="query")
        case "until":
            fields["updated_before"] = parse_time(value, now, argument="query")
        case "created":
            fields["created_after"] = parse_time(value, now, argument="query")
        case "errors":
            fields["has_errors"] = _yes(value)
        case _:
            _cost(fields, sign, value)


def parse_status(text: str) -> SessionStatus:
    """A status by its name."""
    try:
        return SessionStatus(text)
    except ValueError:
        known = ", ".join(status.value for status in SessionStatus)
        raise InvalidArgumentError(f"'{text[:80]}' is no status; it is one of {known}.", argument="status") from None


def _yes(value: str) -> bool:
    if value.lower() not in ("yes", "true", "1", "no", "false", "0"):
        raise InvalidArgumentError(f"'errors:{value}' in the query: write errors:yes or errors:no.", argument="query")
    return value.lower() in ("yes", "true", "1")


def _cost(fields: dict[str, Any], sign: str, value: str) -> None:
    try:
        cost = float(value)
    except ValueError:
        cost = -1.0
    if sign not in (">", ">=") or not 0 <= cost < float("inf"):
        raise InvalidArgumentError(f"'cost{sign}{value}' in the query: write cost>0.5, in USD.", argument="query")
    # Costs are whole nano-dollars, so "more than" is "at least one more".
    fields["min_cost"] = cost + 1e-9 if sign == ">" else cost
