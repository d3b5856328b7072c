"""Expressions over items: of filters and of maps, all items of one at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..bounded import Evaluator
from ..expressions import FUNCTIONS, Expression


def check_expression(source: str, names: frozenset[str]) -> None:
    """Raise ValueError for what is no expression over these names."""
    expression = Expression(source)
    for name in sorted(expression.free - names):
        raise ValueError(f"reads '{name}', which is not known: there are {', '.join(sorted(names))}")
    for name in sorted(expression.functions - FUNCTIONS):
        raise ValueError(f"calls '{name}', which is no function")


def evaluate_each(source: str, scopes: Sequence[Mapping[str, Any]], **shared: Any) -> list[Any]:
    """What an expression gives in each scope, which has what is shared too: a value, or an ExpressionError for none.

    Starts a process, which takes about 0.1 s. Raises InvalidArgumentError where all take too long or make too much.
    """
    if not scopes:
        return []
    with Evaluator() as evaluator:
        return evaluator.evaluate_each(Expression(source), scopes, shared)
