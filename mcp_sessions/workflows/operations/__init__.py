"""Operations: what a step `operation:` makes of data, without asking anybody.

Each is a value of its configuration, checked when it is made, and a function of the inputs of its step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from pydantic import ValidationError

from ..._json import check_json
from ...errors import InvalidArgumentError
from ..hints import suggestion
from .aggregating import Aggregate
from .comparing import CompareResults, VerifyConsensus
from .filtering import Filter
from .mapping import Map
from .summarizing import Summarize

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from .operation import Operation

OPERATIONS: Mapping[str, type[Operation]] = {
    "aggregate": Aggregate,
    "filter": Filter,
    "map": Map,
    "compare_results": CompareResults,
    "verify_consensus": VerifyConsensus,
    "summarize": Summarize,
}

AGENT_OPERATIONS = ("decompose", "explore")
"""What steps of operations do beside, by asking an agent."""


def run_operation(name: str, config: Mapping[str, Any] | None = None, inputs: Mapping[str, Any] | None = None) -> Any:
    """What an operation gives, as JSON. Takes as long as its limits allow: call it in a thread.

    Raises InvalidArgumentError for an unknown name or key, a value that cannot be used, and what is over a limit.
    """
    kind = _named(name)
    values = _values(name, "config", config)
    given = _values(name, "inputs", inputs)
    try:
        operation = kind.model_validate(values)
    except ValidationError as error:
        raise _refusal(name, kind, error.errors(include_url=False)) from None
    return operation.run(given)


def check_operation(name: str, config: Mapping[str, Any] | None = None) -> None:
    """Raise the InvalidArgumentError that `run_operation` would for what is written in a definition.

    A text with `{{` in it is not known before the step runs, so nothing is said of it.
    """
    kind = _named(name)
    values = _values(name, "config", config)
    try:
        kind.model_validate(values)
    except ValidationError as error:
        faults = [fault for fault in error.errors(include_url=False) if not _is_unknown(fault)]
        if faults:
            raise _refusal(name, kind, faults) from None


def _named(name: str) -> type[Operation]:
    try:
        return OPERATIONS[name]
    except KeyError:
        hint = suggestion(name, OPERATIONS) or f"There are {', '.join(OPERATIONS)}."
        raise InvalidArgumentError(f"Unknown operation '{name[:60]}'. {hint}", argument="operation") from None


def _values(name: str, argument: str, given: Any) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise InvalidArgumentError(f"{name}: its {argument} should be an object of named values.", argument=argument)
    try:
        return dict(check_json(given))
    except ValueError as error:
        raise InvalidArgumentError(f"{name}: its {argument}: a value {error}.", argument=argument) from None


def _is_unknown(fault: ErrorDetails) -> bool:
    value = fault["input"]
    return fault["type"] != "extra_forbidden" and isinstance(value, str) and "{{" in value


def _refusal(name: str, kind: type[Operation], faults: Sequence[ErrorDetails]) -> InvalidArgumentError:
    # An unknown key explains a missing one, so it comes first.
    ordered = sorted(faults, key=lambda fault: fault["type"] != "extra_forbidden")
    sentences = [f"{name}: {_sentence(kind, fault)}" for fault in ordered[:5]]
    return InvalidArgumentError(" ".join(sentences), argument=str(ordered[0]["loc"][0]))


def _sentence(kind: type[Operation], fault: ErrorDetails) -> str:
    key = str(fault["loc"][0])
    if fault["type"] == "extra_forbidden":
        known = ", ".join(kind.model_fields)
        hint = suggestion(key, kind.model_fields) or (f"It takes {known}." if known else "It takes none.")
        return f"unknown key '{key[:60]}' in its config. {hint}"
    choices = [str(choice) for choice in get_args(kind.model_fields[key].annotation)]
    if fault["type"] == "missing":
        return f"'{key}' is missing in its config. It is one of {', '.join(choices)}."
    if fault["type"] == "literal_error":
        given = str(fault["input"])[:60]
        hint = suggestion(given, choices) or f"It is one of {', '.join(choices)}."
        return f"'{key}' cannot be '{given}'. {hint}"
    where = "".join(f"[{part!r}]" for part in fault["loc"][1:])
    message = fault["msg"].removeprefix("Value error, ").removeprefix("Input ").removesuffix(".")
    return f"'{key}'{where} {message[0].lower()}{message[1:]}."
