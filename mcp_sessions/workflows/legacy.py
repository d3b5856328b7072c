"""Other names for what stands in a definition: of earlier engines, and those that hands write by themselves."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, cast

from .model import STEP_NAMES
from .reading import Lines, Listed

Fault = Callable[[int, str], None]
_KIND_NAMES = {"items": "for_each", "item_var": "as", "max_concurrency": "max_parallel"}
_BARE_STEP = re.compile(r"(\{\{\s*steps\.[A-Za-z_]\w*)(\s*\}\})")
NOT_YET = "is of no kind that there is: agent, transform, loop, parallel, conditional are the older names"


def modern(raw: Lines, fault: Fault) -> bool:
    """Give everything in a definition its name of now, in place; whether it had the older root, without which it is
    taken as it is.
    """
    for step in _steps(raw.get("steps")):
        _step(step, fault)
    handling = raw.pop("error_handling", None)
    if isinstance(handling, Lines):
        defaults = raw.setdefault("defaults", Lines(handling.line))
        if "on_failure" in handling:
            defaults["on_error"] = "continue" if handling["on_failure"] == "continue" else "stop"
        if "retry_policy" in handling:
            _retry(handling["retry_policy"])
            defaults["retry"] = handling["retry_policy"]
    return handling is not None


def results_of_steps(value: Any) -> Any:
    """What was written for the engine in which `{{ steps.x }}` is the result of x, for this one."""
    if isinstance(value, str):
        return _BARE_STEP.sub(r"\1.result\2", value)
    if isinstance(value, Lines):
        for name in list(value):
            value[name] = results_of_steps(value[name])
    elif isinstance(value, Listed):
        value[:] = [results_of_steps(member) for member in value]
    return value


def _steps(value: Any) -> list[Lines]:
    return [step for step in value if isinstance(step, Lines)] if isinstance(value, Listed) else []


def _step(step: Lines, fault: Fault) -> None:
    kind = step.pop("type", None)
    if kind is not None:
        turn = _KINDS.get(str(kind))
        if turn is None:
            fault(step.line, f"step '{step.get('id')}': type '{kind}' {NOT_YET}")
        else:
            turn(step, fault)
    for old, new in STEP_NAMES.items():
        if old in step and new not in step:
            step.renamed(old, new)
    if isinstance(step.get("needs"), str):
        step["needs"] = [step["needs"]]
    _retry(step.get("retry"))
    if step.get("on_error") == "retry":
        step["on_error"] = "stop"
        step.setdefault("retry", 3)
    for inner in _inner(step):
        _step(inner, fault)


def _inner(step: Lines) -> list[Lines]:
    found = _steps(step.get("steps")) + _steps(step.get("parallel"))
    switch = step.get("switch")
    if isinstance(switch, Listed):  # the short form: cases, the last one perhaps without a condition
        step["switch"] = switch = _switch(switch)
    if isinstance(switch, Lines):
        for case in _steps(switch.get("cases")):
            found += _steps(case.get("steps"))
        found += _steps(switch.get("default"))
    return found


def _switch(cases: Listed) -> Lines:
    made = Lines(cases.line)
    rest = Listed(cases.line)
    for case in cases:
        if isinstance(case, Lines) and "if" not in case and ("else" in case or "default" in case or "steps" in case):
            made["default"] = case.get("else", case.get("default", case.get("steps")))
        else:
            if isinstance(case, Lines) and "then" in case:
                case.renamed("then", "steps")
            rest.append(case)
            rest.lines.append(getattr(case, "line", cases.line))
    made["cases"] = rest
    return made


def _retry(value: Any) -> None:
    if isinstance(value, Lines) and "backoff_multiplier" in value:
        value.renamed("backoff_multiplier", "multiplier")


def _agent(step: Lines, _fault: Fault) -> None:
    config = step.pop("config", None)
    made = Lines(step.line)
    made["use"] = step.get("agent", "explore")
    if "operation" in step:
        made.put("operation", step.pop("operation"), step.lines.get("operation", step.line))
    if isinstance(config, Lines):
        for old, new in (("cli_type", "executor"), ("model", "model"), ("cwd", "cwd")):
            if old in config:
                made.put(new, config[old], config.lines.get(old, step.line))
    made.setdefault("executor", "claude")
    step.put("agent", made, step.lines.get("agent", step.line))


def _transform(step: Lines, fault: Fault) -> None:
    if "script" in step:
        fault(
            step.lines.get("script", step.line),
            f"step '{step.get('id')}': a script is never run; `set` has expressions",
        )
        step.pop("script")
        step["set"] = None
        return
    config = step.get("config")
    if isinstance(config, Lines) and "operation" in config:
        line = config.lines.get("operation", step.line)
        if config["operation"] == "summarize":  # which writes no file
            for gone in ("session_dir", "output_file"):
                config.pop(gone, None)
        step.put("operation", config.pop("operation"), line)


def _loop(step: Lines, _fault: Fault) -> None:
    for old, new in _KIND_NAMES.items():
        if old in step:
            step.renamed(old, new)


def _parallel(step: Lines, _fault: Fault) -> None:
    _loop(step, _fault)
    if "steps" in step:
        step.renamed("steps", "parallel")


def _conditional(step: Lines, _fault: Fault) -> None:
    switch, case, cases = Lines(step.line), Lines(step.line), Listed(step.line)
    for old, new in (("condition", "if"), ("then", "steps")):
        if old in step:
            case.put(new, step.pop(old), step.lines.get(old, step.line))
    cases.append(case)
    cases.lines.append(step.line)
    switch["cases"] = cases
    if "else" in step:
        switch.put("default", step.pop("else"), step.lines.get("else", step.line))
    step.put("switch", switch, step.line)


_KINDS: dict[str, Callable[[Lines, Fault], None]] = {
    "agent": _agent,
    "transform": _transform,
    "loop": _loop,
    "parallel": _parallel,
    "conditional": _conditional,
}


def root(value: Any) -> tuple[Any, bool]:
    """What stands under the older root `workflow:`, and whether it does."""
    if isinstance(value, Lines) and isinstance(value.get("workflow"), Lines) and "steps" not in value:
        return cast("Lines", value["workflow"]), True
    return value, False
