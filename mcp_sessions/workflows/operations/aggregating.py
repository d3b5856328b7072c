"""aggregate: one value out of many."""

from __future__ import annotations

import math
from collections import Counter
from typing import Annotated, Any, Literal, cast

from pydantic import Field

from .operation import Inputs, Operation, items_of

_FAILURES = {
    "sum": "Cannot sum non-numeric values",
    "avg": "Cannot average non-numeric values",
    "min": "Cannot find min of incomparable values",
    "max": "Cannot find max of incomparable values",
}


class Aggregate(Operation):
    function: Literal["sum", "avg", "count", "min", "max", "group_by", "concat"]
    field: str | None = None
    separator: Annotated[str, Field(max_length=1_000)] = ", "

    def run(self, inputs: Inputs) -> dict[str, Any]:
        """{function, item_count, result}; nulls are left out. What cannot be computed is told in the result."""
        items = items_of(inputs)
        try:
            result = self._result([item for item in items if item is not None])
        except (TypeError, ValueError, OverflowError):
            result = {"error": _FAILURES[self.function]}
        return {"function": self.function, "item_count": len(items), "result": result}

    def _result(self, items: list[Any]) -> Any:
        match self.function:
            case "sum":
                return _sum(items)
            case "avg":
                return _sum(items) / len(items) if items else 0
            case "count":
                return len(items)
            case "min":
                return min(items, default=None)
            case "max":
                return max(items, default=None)
            case "group_by":
                return _groups(items, self.field) if self.field else dict(Counter(map(str, items)))
            case "concat":
                return self.separator.join(map(str, items))


def _sum(items: list[Any]) -> float:
    total = sum(map(float, items))
    if not math.isfinite(total):
        raise ValueError
    return total


def _groups(items: list[Any], field: str) -> dict[str, list[Any]]:
    """The objects that have the field, by its value."""
    groups: dict[str, list[Any]] = {}
    for item in items:
        if isinstance(item, dict) and field in item:
            groups.setdefault(str(cast("dict[str, Any]", item)[field]), []).append(item)
    return groups
