"""What expressions see of a run: its inputs, its steps, the items of the loops around them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, cast

import anyio.to_thread

from .bounded import Evaluator
from .expressions import Expression, Template
from .model import RESERVED
from .state import PENDING, Done

LARGE = 20_000
"""Bytes, about: expressions over more are evaluated in a process of their own."""


class Frame:
    """Steps that see each other: those of the run, or of one item of a loop."""

    def __init__(self, prefix: str = "", outer: Frame | None = None, items: Mapping[str, Any] | None = None) -> None:
        self.prefix = prefix
        self.outer = outer
        self.items: dict[str, Any] = {**(outer.items if outer is not None else {}), **(items or {})}
        self.done: dict[str, Done] = {}

    def path(self, step_id: str) -> str:
        return self.prefix + step_id

    def steps(self) -> dict[str, Done]:
        """Id -> what is done, as seen from here."""
        return {**(self.outer.steps() if self.outer is not None else {}), **self.done}


class Scope:
    """Evaluates expressions over a run; `outputs` are those of the run, which come at its end."""

    def __init__(
        self,
        inputs: Mapping[str, Any],
        outputs: Mapping[str, Any],
        run: Mapping[str, Any],
        step_ids: Collection[str],
    ) -> None:
        self._inputs = inputs
        self._outputs = outputs
        self._run = run
        self._step_ids = step_ids
        self._evaluator = Evaluator()

    def close(self) -> None:
        """End what evaluates."""
        self._evaluator.close()

    async def resolve(self, template: Template, frame: Frame, secrets: Mapping[str, str]) -> Any:
        """What an author's text gives here and now. Raises ExpressionError."""
        expressions = list(template.expressions())
        if not expressions:
            return template.written
        seen = frame.steps() if any(name in one.names for one in expressions for name in ("steps", "context")) else {}
        scopes = {expression: self._variables(expression, frame, seen, secrets) for expression in expressions}
        slow = {one for one, scope in scopes.items() if one.path is None and (one.heavy or _is_large(scope))}

        def evaluate(expression: Expression) -> Any:
            scope = scopes[expression]
            return self._evaluator.evaluate(expression, scope) if expression in slow else expression.evaluate(scope)

        return await anyio.to_thread.run_sync(template.resolve, evaluate) if slow else template.resolve(evaluate)

    def _variables(
        self, expression: Expression, frame: Frame, seen: Mapping[str, Done], secrets: Mapping[str, str]
    ) -> dict[str, Any]:
        names = expression.names
        whole = "context" in names or ("steps" in names and not expression.steps)
        scope: dict[str, Any] = {name: value for name, value in self._inputs.items() if name not in RESERVED}
        scope |= frame.items
        inputs = self._inputs
        if not whole and expression.reads_inputs_by_name:
            inputs = {name: inputs[name] for name in expression.inputs if name in inputs}
        scope |= {"inputs": inputs, "outputs": self._outputs, "run": self._run}
        if "steps" in names or whole:
            wanted: Iterable[str] = {*self._step_ids, *seen} if whole else expression.steps
            scope["steps"] = {name: seen.get(name, PENDING).seen() for name in wanted}
        if "secrets" in names:
            scope["secrets"] = dict(secrets)
        if "context" in names:
            scope["context"] = {**scope, **self._run}
        return {name: scope[name] for name in names if name in scope}


def _is_large(value: Any) -> bool:
    """Whether CEL would take long to take it over: it takes about 1 us a byte, and holds the interpreter meanwhile."""
    left, todo = LARGE, [value]
    while todo and left > 0:
        one = todo.pop()
        left -= len(one) if isinstance(one, str) else 8
        if isinstance(one, Mapping):
            todo += cast("Mapping[str, Any]", one).values()
        elif isinstance(one, list):
            todo += cast("list[Any]", one)
    return left <= 0
