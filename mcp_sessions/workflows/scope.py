"""What expressions see of a run: its inputs, its steps, the items of the loops around them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import Any

import anyio.to_thread

from .bounded import Evaluator
from .expressions import Expression, Template
from .model import RESERVED
from .state import PENDING, Done


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
        evaluate = partial(self._evaluate, frame, seen, secrets)
        if any(expression.heavy for expression in expressions):
            return await anyio.to_thread.run_sync(template.resolve, evaluate)
        return template.resolve(evaluate)

    def _evaluate(
        self, frame: Frame, seen: Mapping[str, Done], secrets: Mapping[str, str], expression: Expression
    ) -> Any:
        scope = self._variables(expression, frame, seen, secrets)
        return self._evaluator.evaluate(expression, scope) if expression.heavy else expression.evaluate(scope)

    def _variables(
        self, expression: Expression, frame: Frame, seen: Mapping[str, Done], secrets: Mapping[str, str]
    ) -> dict[str, Any]:
        names = expression.names
        whole = "context" in names or ("steps" in names and not expression.steps)
        scope: dict[str, Any] = {name: value for name, value in self._inputs.items() if name not in RESERVED}
        scope |= frame.items
        scope |= {"inputs": self._inputs, "outputs": self._outputs, "run": self._run}
        if "steps" in names or whole:
            wanted: Iterable[str] = {*self._step_ids, *seen} if whole else expression.steps
            scope["steps"] = {name: seen.get(name, PENDING).seen() for name in wanted}
        if "secrets" in names:
            scope["secrets"] = dict(secrets)
        if "context" in names:
            scope["context"] = {**scope, **self._run}
        return {name: scope[name] for name in names if name in scope}
