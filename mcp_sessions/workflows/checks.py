"""What must hold between the parts of a definition: ids, needs, expressions, cycles."""

from __future__ import annotations

import graphlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast, get_args

from ..errors import ExpressionError, InvalidArgumentError
from .expressions import FUNCTIONS, Expression, Template
from .hints import suggestion
from .model import QUESTIONS, RESERVED, Agent, Kind, Spec, Step, seconds, whole
from .operations import AGENT_OPERATIONS, OPERATIONS, check_operation
from .reading import line_of

Path = tuple[str | int, ...]


def placed(steps: Sequence[Step], path: Path) -> Iterator[tuple[Path, Step]]:
    """All steps, those within others too, each with the path at which it stands."""
    for index, step in enumerate(steps):
        here = (*path, index)
        yield here, step
        for inner, block in blocks(step, here):
            yield from placed(block, inner)


def blocks(step: Step, path: Path) -> Iterator[tuple[Path, Sequence[Step]]]:
    """The lists of steps in a step, each with its path."""
    if step.kind == "for_each":
        yield (*path, "steps"), step.steps
    elif step.kind == "parallel":
        yield (*path, "parallel"), step.parallel or ()
    elif step.switch is not None:
        for index, case in enumerate(step.switch.cases):
            yield (*path, "switch", "cases", index, "steps"), case.steps
        yield (*path, "switch", "default"), step.switch.default


class Checks:
    """Looks through a whole definition; `faults` are (line, fact)."""

    def __init__(self, spec: Spec, raw: Any, *, is_legacy: bool = False) -> None:
        self.spec = spec
        self._is_legacy = is_legacy
        self.faults: list[tuple[int, str]] = []
        self.edges: dict[str, frozenset[str]] = {}
        self.handlers: dict[str, frozenset[str]] = {}
        self._raw = raw
        self._loops: dict[str, tuple[str, ...]] = {}
        """id -> the for_each steps around it."""
        self._ids(spec.steps, ("steps",), ())
        self._inputs()
        self._block(spec.steps, ("steps",), {})
        self._outputs()

    def _fault(self, path: Path, fact: str) -> None:
        self.faults.append((line_of(self._raw, path), fact))

    def _ids(self, steps: Sequence[Step], path: Path, loops: tuple[str, ...]) -> None:
        for index, step in enumerate(steps):
            here = (*path, index)
            if step.id in self._loops:
                self._fault((*here, "id"), f"the id '{step.id}' stands twice")
            self._loops[step.id] = loops
            within = (*loops, step.id) if step.kind == "for_each" else loops
            for inner, block in blocks(step, here):
                self._ids(block, inner, within)

    def _inputs(self) -> None:
        for name, rule in self.spec.inputs.items():
            path = ("inputs", name)
            if name in RESERVED:
                self._fault(path, f"no input may be called '{name}': expressions know something else by that name")
            if rule.default is not None and (fault := rule.fault(rule.default)):
                self._fault((*path, "default"), f"the default of input '{name}' {fault}")

    def _block(self, steps: Sequence[Step], path: Path, items: Mapping[str, str], *, at_once: bool = False) -> None:
        """One list of steps: what each needs, and what is in it. `items`: names of loops' items."""
        ids = {step.id: index for index, step in enumerate(steps)}
        handlers: dict[str, set[str]] = {}
        edges: dict[str, set[str]] = {step.id: set() for step in steps}
        for index, step in enumerate(steps):
            here = (*path, index)
            self._step(step, here, items)
            self._needs(step, here, ids, edges)
            self._on_error(step, here, ids, handlers)
        members = {inner.id: step.id for step in steps for inner in step.walk()}
        for step in steps:
            for inner in step.walk():
                for other in self._read(inner):
                    if other in members and members[other] != step.id:
                        edges[step.id].add(members[other])
        if not at_once and not any(step.needs for step in steps):
            self._in_order(steps, handlers, edges)
        self._cycle(path, ids, edges, handlers)
        self.edges |= {name: frozenset(needed) for name, needed in edges.items()}
        self.handlers |= {name: frozenset(of) for name, of in handlers.items()}

    @staticmethod
    def _in_order(steps: Sequence[Step], handlers: Mapping[str, set[str]], edges: dict[str, set[str]]) -> None:
        """Where nobody says what they need, each step needs the one before it."""
        before = None
        for step in steps:
            if step.id in handlers:
                continue
            if before is not None:
                edges[step.id].add(before)
            before = step.id

    def _needs(self, step: Step, here: Path, ids: Mapping[str, int], edges: dict[str, set[str]]) -> None:
        for index, needed in enumerate(step.needs):
            if needed in ids:
                edges[step.id].add(needed)
                continue
            fact = "stands in another list of steps" if needed in self._loops else "is no step"
            hint = suggestion(needed, ids)
            self._fault(
                (*here, "needs", index), f"step '{step.id}' needs '{needed}', which {fact}{'. ' + hint if hint else ''}"
            )

    def _on_error(self, step: Step, here: Path, ids: Mapping[str, int], handlers: dict[str, set[str]]) -> None:
        target = step.on_error
        if target in (None, "stop", "continue"):
            return
        if target not in ids or target == step.id:
            hint = suggestion(target, ["stop", "continue", *ids]) if target != step.id else ""
            self._fault(
                (*here, "on_error"),
                f"step '{step.id}': on_error is stop, continue or another step of its list, not '{target}'"
                + (f". {hint}" if hint else ""),
            )
            return
        handlers.setdefault(target, set()).add(step.id)

    def _cycle(
        self, path: Path, ids: Mapping[str, int], edges: dict[str, set[str]], handlers: Mapping[str, set[str]]
    ) -> None:
        graph = {name: edges[name] | handlers.get(name, set()) for name in ids}
        try:
            graphlib.TopologicalSorter(graph).prepare()
        except graphlib.CycleError as error:
            around = " -> ".join(reversed(error.args[1]))
            self._fault((*path, ids[error.args[1][0]]), f"the steps wait for each other: {around}")

    # one step

    def _step(self, step: Step, here: Path, items: Mapping[str, str]) -> None:
        self._kind(step, here)
        for place, written in _written(step):
            secret = place == "with" and step.server is not None
            self._template((*here, place), f"step '{step.id}'", written, items, step, secrets=secret)
        if step.condition is not None:
            self._template((*here, "if"), f"step '{step.id}': if", whole(step.condition), items, step)
        if step.kind == "for_each":
            names = (step.item, f"{step.item}_index")
            for name in names:
                if name in RESERVED or name in items or name in self.spec.inputs:
                    self._fault((*here, "as"), f"step '{step.id}': '{name}' is taken; give `as` another name")
            items = {**items, **dict.fromkeys(names, step.id)}
        for case_index, case in enumerate(step.switch.cases if step.switch is not None else ()):
            place = (*here, "switch", "cases", case_index, "if")
            self._template(place, f"step '{step.id}'", whole(case.condition), items, step)
        for inner, block in blocks(step, here):
            self._block(block, inner, items, at_once=step.kind == "parallel")

    def _kind(self, step: Step, here: Path) -> None:
        agent = step.agent
        who = () if agent is None else (("executor", agent.executor), ("model", agent.model))
        for name, text in (("tool", step.tool), ("operation", step.operation), ("workflow", step.workflow), *who):
            if text is not None and "{{" in text:
                place = ("agent", name) if name in ("executor", "model") else (name,)
                self._fault(
                    (*here, *place), f"step '{step.id}': {name} takes no expression: what runs is never computed"
                )
        if step.operation is not None:
            self._operation(step, here)
        if agent is not None and not self._is_legacy:
            self._question(step, agent, here)
        if step.server is not None and step.server not in self.spec.servers and self.spec.servers_file is None:
            hint = suggestion(step.server, self.spec.servers) or "`servers:` names them."
            self._fault(
                (*here, "tool"), f"step '{step.id}': there is no server '{step.server}'. {hint}".removesuffix(".")
            )
        if step.kind == "sleep" and not (isinstance(step.sleep, str) and "{{" in step.sleep):
            try:
                seconds(step.sleep)
            except ValueError as error:
                self._fault((*here, "sleep"), f"step '{step.id}': sleep {error}")

    def _question(self, step: Step, agent: Agent, here: Path) -> None:
        if agent.use == "summarize" or (agent.use == "explore" and agent.operation == "analyze_structure"):
            return
        names = {"explore": (*QUESTIONS[agent.operation], "prompt"), "decompose": ("question", "prompt")}
        known = names.get(agent.use, ("prompt", "question"))
        if not any(name in step.given for name in known):
            self._fault((*here, "agent"), f"step '{step.id}': an agent is asked something: `with` needs '{known[0]}'")

    def _operation(self, step: Step, here: Path) -> None:
        name = step.operation or ""
        if name in AGENT_OPERATIONS:
            return
        if name not in OPERATIONS:
            hint = suggestion(name, (*OPERATIONS, *AGENT_OPERATIONS))
            known = ", ".join((*OPERATIONS, *AGENT_OPERATIONS))
            self._fault(
                (*here, "operation"),
                f"step '{step.id}': unknown operation '{name}'. {hint or f'Known are {known}.'}".removesuffix("."),
            )
            return
        try:
            check_operation(name, step.config)
        except (InvalidArgumentError, ExpressionError) as error:
            self._fault((*here, "config"), f"step '{step.id}': {error}".removesuffix("."))

    def _template(
        self,
        path: Path,
        where: str,
        written: Any,
        items: Mapping[str, str],
        step: Step | None,
        *,
        secrets: bool = False,
    ) -> None:
        for place, text in _texts(written, path):
            try:
                found = list(Template.of(text).expressions())
            except ExpressionError as error:
                self._fault(place, f"{where}: {error}".removesuffix("."))
                continue
            for expression in found:
                if fact := self._unknown(expression, items, step, secrets):
                    self._fault(place, f"{where}: {fact}".removesuffix("."))

    def _unknown(
        self, expression: Expression, items: Mapping[str, str], step: Step | None, secrets: bool
    ) -> str | None:
        """What it reads or calls that is not there."""
        known = {*RESERVED, *items, *self.spec.inputs}
        shown = f"{{{{ {expression.source} }}}}"
        for name in sorted(expression.free - known):
            return f"{shown} reads '{name}', which is not known. {suggestion(name, known)}".strip()
        for name in sorted(expression.functions - FUNCTIONS):
            return f"{shown} calls '{name}', which is no function. {suggestion(name, FUNCTIONS)}".strip()
        for name in sorted(expression.inputs - self.spec.inputs.keys()):
            return f"there is no input '{name}'. {suggestion(name, self.spec.inputs)}".strip()
        unseen = (fact for name in sorted(expression.steps) if (fact := self._unseen(name, step)))
        if fact := next(unseen, None):
            return fact
        if "secrets" in expression.names and not secrets:
            return "secrets are for `with` of a tool of another server, and for `servers`: elsewhere they would be kept"
        return None

    def _unseen(self, name: str, step: Step | None) -> str | None:
        """Why a step cannot read that one."""
        if name not in self._loops:
            return f"there is no step '{name}'. {suggestion(name, self._loops)}".strip()
        around = () if step is None else self._loops[step.id]
        if self._loops[name] != around[: len(self._loops[name])]:
            loop = self._loops[name][-1]
            return f"step '{name}' is within '{loop}', once for each item: read steps.{loop}.items"
        if step is not None and name in {inner.id for inner in step.walk()}:
            return f"it reads '{name}', which is not done when it begins"
        return None

    def _read(self, step: Step) -> frozenset[str]:
        """The steps whose results it reads by name."""
        texts = [text for _, written in _written(step) for _, text in _texts(written, ())]
        conditions = [
            step.condition,
            *(case.condition for case in (step.switch.cases if step.switch is not None else ())),
        ]
        found: set[str] = set()
        for text in (*texts, *(whole(one) for one in conditions if one is not None)):
            try:
                template = Template.of(text)
            except ExpressionError:
                continue
            for expression in template.expressions():
                found |= expression.steps
        return frozenset(found)

    def _outputs(self) -> None:
        of_steps = {name for step in self.spec.walk() for name in step.outputs}
        for name, output in self.spec.outputs.items():
            if "value" not in output.model_fields_set and name not in of_steps and not self._is_legacy:
                fact = f"output '{name}' has no value: `value` gives it one, or an output of that name of a step"
                self._fault(("outputs", name), fact)
            if output.type not in get_args(Kind) and not self._is_legacy:
                hint = suggestion(output.type, get_args(Kind)) or f"There are {', '.join(get_args(Kind))}."
                self._fault(("outputs", name), f"output '{name}': there is no type '{output.type}'. {hint}")
            self._template(("outputs", name), f"output '{name}'", output.value, {}, None)


def _written(step: Step) -> list[tuple[str, Any]]:
    """What of a step may have expressions, and where it stands."""
    agent, approve = step.agent, step.approve
    return [
        ("with", step.given),
        ("config", step.config),
        ("set", step.set),
        ("for_each", step.for_each),
        ("sleep", step.sleep),
        ("fail", step.fail),
        ("agent", [agent.cwd, agent.instructions] if agent is not None else None),
        ("approve", approve.message if approve is not None else None),
    ]


def _texts(written: Any, path: Path) -> Iterator[tuple[Path, str]]:
    """The texts in it that have expressions."""
    if isinstance(written, str):
        if "{{" in written:
            yield path, written
    elif isinstance(written, Mapping):
        for name, member in cast("Mapping[str, Any]", written).items():
            yield from _texts(member, (*path, name))
    elif isinstance(written, list):
        for index, member in enumerate(cast("list[Any]", written)):
            yield from _texts(member, (*path, index))
