"""filter: the items for which a condition holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, cast

from pydantic import Field, ValidationInfo, field_validator

from ...errors import ExpressionError
from ..expressions import Expression
from .evaluating import check_expression, evaluate_each
from .operation import Inputs, Operation, items_of

_MATCHES = Expression("text.matches(pattern)")  # does not backtrack, as Python's own would
_NAMES = frozenset(("item", "value", "field"))


class Filter(Operation):
    condition: Literal[
        "equals", "not_equals", "contains", "not_contains", "greater_than", "less_than", "regex", "custom"
    ]
    field: str | None = None
    value: Annotated[Any, Field(validate_default=True)] = None
    keep_matching: bool = True
    expression: Annotated[str | None, Field(validate_default=True)] = None

    @field_validator("value")
    @classmethod
    def _comparable(cls, value: Any, info: ValidationInfo) -> Any:
        match info.data.get("condition"):
            case "contains" | "not_contains" if not isinstance(value, str):
                raise ValueError("should be a text to look for; put a number between quotes")
            case "greater_than" | "less_than" if _number(value) is None:
                raise ValueError("should be a number to compare with")
            case "regex":
                _check_pattern(value)
            case _:
                pass
        return value

    @field_validator("expression")
    @classmethod
    def _evaluable(cls, expression: str | None, info: ValidationInfo) -> str | None:
        if info.data.get("condition") == "custom":
            if expression is None:
                raise ValueError("is missing in its config: 'custom' evaluates it, as in item.age > 30")
            check_expression(expression, _NAMES)
        return expression

    def run(self, inputs: Inputs) -> dict[str, Any]:
        """{filtered_items, removed_count, kept_count, original_count}."""
        items = items_of(inputs)
        kept = [item for item, holds in zip(items, self._holds(items), strict=True) if holds == self.keep_matching]
        return {
            "filtered_items": kept,
            "removed_count": len(items) - len(kept),
            "kept_count": len(kept),
            "original_count": len(items),
        }

    def _holds(self, items: list[Any]) -> list[bool]:
        """Whether the condition holds, for each of the items."""
        looked_at = [self._looked_at(item) for item in items]
        match self.condition:
            case "custom":
                return self._evaluated(items)
            case "regex":
                return evaluate_each(_MATCHES.source, [{"text": str(one)} for one in looked_at], pattern=self.value)
            case "equals" | "not_equals":
                return [(one == self.value) == (self.condition == "equals") for one in looked_at]
            case "contains" | "not_contains":
                return [(self.value in str(one)) == (self.condition == "contains") for one in looked_at]
            case "greater_than":
                return self._compared(looked_at, lambda one, other: one > other)
            case "less_than":
                return self._compared(looked_at, lambda one, other: one < other)

    def _looked_at(self, item: Any) -> Any:
        return cast("dict[str, Any]", item).get(self.field) if self.field and isinstance(item, dict) else item

    def _compared(self, values: list[Any], compare: Callable[[float, float], bool]) -> list[bool]:
        """What is no number is on neither side."""
        bound = float(self.value)
        return [(number := _number(value)) is not None and compare(number, bound) for value in values]

    def _evaluated(self, items: list[Any]) -> list[bool]:
        """It does not hold where the expression gives nothing: an item may lack what it asks for."""
        scopes = [{"item": item} for item in items]
        outcomes = evaluate_each(self.expression or "", scopes, value=self.value, field=self.field)
        return [not isinstance(outcome, ExpressionError) and bool(outcome) for outcome in outcomes]


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _check_pattern(pattern: Any) -> None:
    if not isinstance(pattern, str):
        raise ValueError("should be a regular expression")
    try:
        _MATCHES.evaluate({"text": "", "pattern": pattern})
    except ExpressionError:
        raise ValueError(
            f"cannot be '{pattern[:120]}': it is no regular expression of RE2's syntax (no look-around, no references "
            "back), or too large"
        ) from None
