"""WorkflowContext: the data of a run as a value, for code of one's own around a run or without one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, cast

from ..manager import SessionManager
from ..models import Want
from ..session import Session
from .bounded import Evaluator
from .expressions import Expression, Template, look_up
from .state import INPUT, OUTPUT, RESULT, RUN, STATE, Done, StepResult, StepState, StepStatus, steps_of


class WorkflowContext:
    """Inputs, results of steps, outputs; and what templates give over them.

    Only the template that is handed in is read as one: what stands in the data never is.
    """

    def __init__(
        self,
        inputs: Mapping[str, Any] | None = None,
        workflow_id: str | None = None,
        execution_id: str | None = None,
    ) -> None:
        self.inputs: dict[str, Any] = dict(inputs or {})
        self.workflow_id = workflow_id
        self.execution_id = execution_id
        self.step_results: dict[str, StepResult] = {}
        self.outputs: dict[str, Any] = {}

    @classmethod
    def from_session(cls, manager: SessionManager, session_id: str, *, as_user: str | None = None) -> Self:
        """Of the run in a session; of one without a run, what stands under the keys of one.

        Raises SessionNotFoundError.
        """
        data = manager.view(session_id, Want(keys=(INPUT, OUTPUT, RUN), as_user=as_user)).data
        states = manager.view(session_id, Want(prefix=STATE, as_user=as_user)).data
        results = manager.view(session_id, Want(prefix=RESULT, as_user=as_user)).data
        run: dict[str, Any] = data[RUN].value if RUN in data else {}
        context = cls(data[INPUT].value if INPUT in data else {}, run.get("name"), run.get("execution_id"))
        context.outputs = dict(data[OUTPUT].value) if OUTPUT in data else {}
        done = steps_of(states, results)
        for key, value in results.items():
            completed = Done(StepState(status=StepStatus.COMPLETED), value.value)
            done.setdefault(key.removeprefix(RESULT), completed)
        context.step_results = {path: StepResult.of(path, one) for path, one in done.items()}
        return context

    def to_session(self, session: Session) -> None:
        """Put the inputs, results and outputs into a working copy, under the keys of a run."""
        session.set(INPUT, self.inputs)
        session.set(OUTPUT, self.outputs)
        for path, step in self.step_results.items():
            if step.result is not None:
                session.set(RESULT + path, step.result)

    def get(self, path: str, default: Any = None) -> Any:
        """What stands at a path such as `inputs.repo` or `steps.plan.result.parts[0]`, else the default."""
        return look_up(self._scope(), path, default)

    def set_step_result(self, step_id: str, result: Any) -> None:
        """What a step gave, or all of how it went: a StepResult."""
        if not isinstance(result, StepResult):
            result = StepResult(step_id=step_id, status=StepStatus.COMPLETED, result=result)
        self.step_results[step_id] = result

    def get_step_result(self, step_id: str) -> StepResult | None:
        """How a step went; None where it is not known."""
        return self.step_results.get(step_id)

    def get_step_status(self, step_id: str) -> StepStatus | None:
        """Likewise, its status alone."""
        found = self.step_results.get(step_id)
        return None if found is None else found.status

    def set_output(self, name: str, value: Any) -> None:
        """An output of the run."""
        self.outputs[name] = value

    def resolve_template(self, template: str) -> Any:
        """What a template gives; a text that is one expression keeps its type. Raises ExpressionError."""
        return self._resolved(template)

    def resolve_dict(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Likewise, of all texts in an object, in lists and objects in it too."""
        return cast("dict[str, Any]", self._resolved(dict(data)))

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "inputs": self.inputs,
            "workflow_id": self.workflow_id,
            "execution_id": self.execution_id,
            "step_results": {path: step.to_dict() for path, step in self.step_results.items()},
            "outputs": self.outputs,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Out of what `to_dict` gave."""
        context = cls(data["inputs"], data.get("workflow_id"), data.get("execution_id"))
        steps: Mapping[str, Any] = data.get("step_results", {})
        context.step_results = {path: StepResult.model_validate(step) for path, step in steps.items()}
        context.outputs = dict(data.get("outputs", {}))
        return context

    def _resolved(self, written: Any) -> Any:
        scope = self._scope()
        with Evaluator() as evaluator:

            def evaluate(expression: Expression) -> Any:
                known = {name: scope[name] for name in expression.names if name in scope}
                return evaluator.evaluate(expression, known) if expression.heavy else expression.evaluate(known)

            return Template.of(written).resolve(evaluate)

    def _scope(self) -> dict[str, Any]:
        steps: dict[str, Any] = {}
        for path, step in self.step_results.items():
            state = StepState(status=step.status, error=step.error)
            steps[path] = Done(state, step.result).seen()
        run = {"execution_id": self.execution_id, "name": self.workflow_id}
        scope = {**self.inputs, "inputs": self.inputs, "steps": steps, "outputs": self.outputs, "run": run}
        return {**scope, "context": {**scope, **run}}
