"""What a definition is made of, as values, and the JSON Schema of it.

Names are the short form's; `legacy` gives older ones their names of here before anything is looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, cast, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from ..agents.explore import Operation
from ..models import Text
from .expressions import Template

KINDS = (
    *("tool", "agent", "set", "operation", "for_each", "parallel"),
    *("switch", "approve", "sleep", "workflow", "fail"),
)
COMPOSITE = frozenset(("for_each", "parallel", "switch"))
RESERVED = frozenset(("inputs", "steps", "outputs", "run", "context", "secrets"))
"""What expressions know by name; no input and no item may take one of these."""
_NUMBER = r"(\d+(?:\.\d+)?)"
_CLOCK = re.compile(r"\s*".join(rf"(?:{_NUMBER}\s*{unit})?" for unit in "dhms"), re.IGNORECASE)
_ISO = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+(?:\.\d+)?)H)?(?:(\d+(?:\.\d+)?)M)?(?:(\d+(?:\.\d+)?)S)?)?", re.IGNORECASE)
_MILLISECONDS = re.compile(r"(\d+)\s*ms", re.IGNORECASE)
LONGEST_S = 366 * 86_400


def seconds(value: Any) -> Any:
    """`30`, `30s`, `1.5m`, `1h30m`, `7d`, `250ms`, `PT30S`, as seconds. Raises ValueError."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        total = float(value)
    elif isinstance(value, str) and (text := value.strip()):
        if match := _MILLISECONDS.fullmatch(text):
            total = int(match[1]) / 1000
        elif match := (_CLOCK.fullmatch(text) or _ISO.fullmatch(text)):
            total = sum(float(part) * unit for part, unit in zip(match.groups("0"), (86_400, 3600, 60, 1), strict=True))
        else:
            total = float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else -1.0
    else:
        total = -1.0
    if not 0 <= total <= LONGEST_S:
        raise ValueError("is no duration: seconds, or 30s, 5m, 1h30m, 7d, PT30S; at most a year")
    return total


def _some_time(value: float) -> float:
    if value <= 0:
        raise ValueError("is no time: it is more than 0 s")
    return value


_TIME = "|".join(
    (
        r"\d+(\.\d+)?",
        r"\d+\s*[mM][sS]",
        r"\s*".join(rf"(\d+(\.\d+)?\s*[{unit}{unit.upper()}])?" for unit in "dhms"),
        r"[pP](\d+[dD])?([tT](\d+(\.\d+)?[hH])?(\d+(\.\d+)?[mM])?(\d+(\.\d+)?[sS])?)?",
    )
)
_DURATION: dict[str, Any] = {
    "anyOf": [
        {"type": "number", "minimum": 0, "maximum": LONGEST_S},
        {"type": "string", "pattern": rf"^\s*(?=\S)({_TIME})\s*$", "examples": ["30s", "5m", "1h30m"]},
    ]
}
_EXPRESSION: dict[str, Any] = {"type": "string", "pattern": r"\{\{"}
Duration = Annotated[float, BeforeValidator(seconds), WithJsonSchema(_DURATION)]
TimeLimit = Annotated[
    Duration,
    AfterValidator(_some_time),
    WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0, "maximum": LONGEST_S}, _DURATION["anyOf"][1]]}),
]
StepId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
Templated = Annotated[str, StringConstraints(min_length=1, max_length=100_000)]


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_by_alias=True, validate_by_name=True)


@dataclass(frozen=True, eq=False)
class OrShort:
    """A short form beside the long one, for the JSON Schema."""

    schema: Mapping[str, Any]

    def __get_pydantic_json_schema__(self, core: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [dict(self.schema), handler(core)]}


Kind = Literal["string", "integer", "number", "boolean", "list", "array", "object", "any"]
"""The types of values, as definitions call them."""


class Retry(Model):
    """How often a step is tried, and how long it waits between."""

    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    backoff: Literal["fixed", "exponential"] = "exponential"
    delay: Duration = 1.0
    """Before the second attempt."""
    multiplier: Annotated[float, Field(ge=1, le=100, strict=False)] = 2.0
    max_delay: Duration = 300.0
    jitter: Annotated[float, Field(ge=0, le=1, strict=False)] = 0.0
    """By which part of it a delay is made shorter, at most, by chance."""
    never: bool = False
    """Nor after the process died in it: then a person says whether it is run again."""

    def delay_s(self, failures: int, chance: float) -> float:
        """How long to wait after so many failures; `chance` is 0 to 1."""
        grown = self.delay * (self.multiplier ** (failures - 1) if self.backoff == "exponential" else 1)
        return min(grown, self.max_delay) * (1 - self.jitter * chance)


def _retry(value: Any) -> Any:
    if value == "never":
        return {"max_attempts": 1, "never": True}
    return {"max_attempts": value} if isinstance(value, int) and not isinstance(value, bool) else value


RetryRule = Annotated[
    Retry,
    BeforeValidator(_retry),
    OrShort({"anyOf": [{"const": "never"}, {"type": "integer", "minimum": 1, "maximum": 100}]}),
]


class Input(Model):
    """An input of the workflow."""

    type: Kind = "any"
    required: bool = False
    default: Any = None
    description: str = ""
    enum: list[Any] | None = None

    def fault(self, value: Any) -> str | None:
        """Why it cannot be this; None where it can."""
        if fact := not_of(value, self.type):
            return fact
        if self.enum is not None and value not in self.enum:
            return f"is not one of {', '.join(map(str, self.enum))}"
        return None


_TYPES: Mapping[str, tuple[type[Any], ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "list": (list,),
    "array": (list,),
    "object": (dict,),
}
_NAMES: Mapping[type[Any], str] = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


def is_of(value: Any, kind: str) -> bool:
    """Whether a JSON value is of a type, by the name that definitions give it; of one that they do not know too."""
    if isinstance(value, bool) and kind in ("integer", "number"):
        return False
    return isinstance(value, _TYPES.get(kind, (object,)))


def not_of(value: Any, kind: str) -> str | None:
    """What a JSON value is that is not of a type; None where it is."""
    if is_of(value, kind):
        return None
    return f"is {_NAMES.get(cast('type[Any]', type(value)), 'something else')}, not {kind}"


class Output(Model):
    """An output of the workflow; without a value it is what a step calls so among its `outputs`."""

    value: Any = None
    type: str = "any"
    description: str = ""


class Server(Model):
    """An MCP server, as clients configure it: a program, or a url."""

    command: str | None = None
    args: list[str] = []
    env: dict[str, str] = {}
    cwd: str | None = None
    url: str | None = None
    headers: dict[str, str] = {}
    type: Literal["stdio", "http", "streamable-http", "sse"] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Server:
        if (self.command is None) == (self.url is None):
            raise ValueError("needs either a command or a url")
        return self


QUESTIONS: Mapping[Operation, tuple[str, ...]] = {
    "explore": ("question",),
    "find_implementation": ("feature_or_function", "question"),
    "analyze_structure": ("component_or_module", "question"),
    "find_usage": ("symbol", "question"),
    "explain_flow": ("flow_description", "question"),
}
"""Under which names an operation finds its question in `with`."""
_OF_AGENTS = {
    "operation": ("explore",),
    "instructions": ("ask", "summarize"),
    "output": ("ask", "summarize"),
    "history": ("ask", "explore", "summarize"),
}


class Agent(Model):
    """Who is asked, and how."""

    use: Literal["ask", "explore", "decompose", "summarize"] = "ask"
    operation: Operation = "explore"
    executor: str | None = None
    """claude, codex, copilot, model:PROVIDER:NAME, or one that the engine was given."""
    model: str | None = None
    instructions: str = ""
    """Of `ask`: what it is told before the question."""
    output: Annotated[dict[str, Kind], Field(min_length=1)] | None = None
    """Of `ask`: the fields of a JSON object that the answer must be, and their types."""
    cwd: str | None = None
    tools: list[str] = []
    history: bool = False
    """Whether it is told the conversation so far."""

    @model_validator(mode="after")
    def _known(self) -> Agent:
        for name, uses in _OF_AGENTS.items():
            if name in self.model_fields_set and self.use not in uses:
                raise ValueError(f"has {name}, which an agent with `use: {self.use}` does not know")
        return self


def _agent(value: Any) -> Any:
    return {"use": value} if isinstance(value, str) else value


class Approve(Model):
    """A question to a person."""

    message: Templated = "Go on?"
    timeout: Duration | None = None
    on_timeout: Literal["reject", "fail"] = "reject"


def _approve(value: Any) -> Any:
    return {"message": value} if isinstance(value, str) else value


class Case(Model):
    """One way to go on, and when."""

    condition: Annotated[Templated | bool, Field(alias="if")]
    steps: Annotated[list[Step], Field(min_length=1)]


class Switch(Model):
    """The first case that holds, else the default."""

    cases: Annotated[list[Case], Field(min_length=1)]
    default: list[Step] = []


class Step(Model):
    """One step: an id, one kind, and how it is run."""

    id: StepId
    description: str = ""
    needs: list[str] = []
    condition: Annotated[Templated | bool | None, Field(alias="if")] = None
    given: Annotated[dict[str, Any], Field(alias="with")] = {}
    retry: RetryRule | None = None
    timeout: TimeLimit | None = None
    on_error: str | None = None
    """stop, continue, or the id of a step that is run then."""
    outputs: dict[str, str] = {}
    """Outputs of the workflow, `ID.NAME`: each the path of a member of the result, or `result`."""

    tool: Annotated[str, Field(min_length=1)] | None = None
    agent: (
        Annotated[Agent, BeforeValidator(_agent), OrShort({"enum": ["ask", "explore", "decompose", "summarize"]})]
        | None
    ) = None
    set: Any = None
    operation: str | None = None
    config: dict[str, Any] = {}
    for_each: Templated | list[Any] | None = None
    item: Annotated[StepId, Field(alias="as")] = "item"
    max_parallel: Annotated[int, Field(ge=1, le=1000)] | None = None
    steps: list[Step] = []
    parallel: list[Step] | None = None
    switch: Switch | None = None
    approve: Annotated[Approve, BeforeValidator(_approve), OrShort({"type": "string", "minLength": 1})] | None = None
    sleep: Annotated[str | float | int, WithJsonSchema({"anyOf": [*_DURATION["anyOf"], _EXPRESSION]})] | None = None
    workflow: Annotated[str, Field(min_length=1)] | None = None
    fail: Templated | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Step:
        kinds = [kind for kind in KINDS if kind in self.model_fields_set]
        if len(kinds) != 1:
            told = f"has {' and '.join(kinds)}" if kinds else "has no kind"
            raise ValueError(f"{told}: a step has exactly one of {', '.join(KINDS)}")
        only = {"steps": "for_each", "item": "for_each", "config": "operation"}
        for name, kind in only.items():
            if name in self.model_fields_set and kinds != [kind]:
                raise ValueError(f"has '{'as' if name == 'item' else name}', which is for {kind} alone")
        if kinds[0] in COMPOSITE and {"timeout", "retry"} & self.model_fields_set:
            raise ValueError(f"has a timeout or a retry, which are for the steps within {kinds[0]}")
        if kinds == ["approve"] and "timeout" in self.model_fields_set:
            raise ValueError("has a timeout: that of a question stands in `approve`")
        if kinds[0] in ("approve", "sleep") and self.retry is not None:
            raise ValueError(f"has a retry: {kinds[0]} is not tried, it waits")
        if kinds[0] in ("set", "approve", "sleep", "fail") and self.given:
            raise ValueError(f"has `with`, which {kinds[0]} does not read")
        if kinds == ["for_each"] and not self.steps:
            raise ValueError("has for_each, and no steps")
        return self

    @cached_property
    def kind(self) -> str:
        """Which of KINDS it is."""
        return next(kind for kind in KINDS if kind in self.model_fields_set)

    @cached_property
    def blocks(self) -> tuple[tuple[Step, ...], ...]:
        """The lists of steps in it."""
        if self.kind == "for_each":
            return (tuple(self.steps),)
        if self.kind == "parallel":
            return (tuple(self.parallel or ()),)
        if self.switch is not None:
            return (*(tuple(case.steps) for case in self.switch.cases), tuple(self.switch.default))
        return ()

    @cached_property
    def template(self) -> Template:
        """All that it is given, and what its kind says."""
        return Template.of(
            {
                "with": self.given,
                "config": self.config,
                "set": self.set,
                "for_each": self.for_each,
                "message": self.approve.message if self.approve is not None else None,
                "sleep": self.sleep,
                "fail": self.fail,
                "cwd": self.agent.cwd if self.agent is not None else None,
                "instructions": self.agent.instructions if self.agent is not None else None,
            }
        )

    @cached_property
    def when(self) -> Template | None:
        """Whether it is run at all."""
        return None if self.condition is None else condition(self.condition)

    def walk(self) -> Iterator[Step]:
        """It, and all steps in it."""
        yield self
        for block in self.blocks:
            for step in block:
                yield from step.walk()

    @property
    def server(self) -> str | None:
        """The MCP server of its tool; None where the tool is one of ours."""
        return None if self.tool is None or "/" not in self.tool else self.tool.partition("/")[0]


def condition(written: str | bool) -> Template:
    """The template of a condition."""
    return Template.of(whole(written))


def whole(written: str | bool) -> str | bool:
    """A condition with its braces; a text without them is one expression."""
    return written if isinstance(written, bool) or "{{" in written else f"{{{{ {written} }}}}"


class Defaults(Model):
    """What holds for steps that say nothing else."""

    retry: RetryRule | None = None
    timeout: TimeLimit | None = None
    on_error: Literal["stop", "continue"] = "stop"


def _input(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


def _output(value: Any) -> dict[str, Any]:
    if isinstance(value, dict) and value.keys() <= Output.model_fields.keys():
        return cast("dict[str, Any]", value)
    return {"value": value}


class Spec(Model):
    """A workflow, as its author wrote it."""

    name: Annotated[Text, StringConstraints(min_length=1, max_length=64, pattern=r"\S")] = "unnamed"
    version: Annotated[
        str,
        BeforeValidator(lambda value: value if isinstance(value, str) else str(value)),
        OrShort({"type": "number"}),
    ] = "1"
    description: str = ""
    inputs: dict[StepId, Annotated[Input, BeforeValidator(_input), OrShort({"enum": list(get_args(Kind))})]] = {}
    outputs: dict[str, Annotated[Output, BeforeValidator(_output), OrShort({})]] = {}
    servers: dict[str, Server] = {}
    servers_file: str | None = None
    """A file with `mcpServers`, as Claude Desktop has one."""
    defaults: Defaults = Defaults()
    timeout: TimeLimit | None = None
    max_parallel: Annotated[int, Field(ge=1, le=1000)] = 8
    """How many steps are at work at once."""
    metadata: dict[str, Any] = {}
    steps: Annotated[list[Step], Field(min_length=1)]

    def walk(self) -> Iterator[Step]:
        """All steps, those within others too."""
        for step in self.steps:
            yield from step.walk()


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a definition, for editors."""
    schema = Spec.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "mcp-sessions workflow"
    step = schema["$defs"]["Step"]
    step["oneOf"] = [{"required": [kind]} for kind in KINDS]
    properties = step["properties"]
    properties["needs"] = {"anyOf": [properties["needs"], {"type": "string"}]}
    properties["switch"] = {"anyOf": [properties["switch"], _SHORT_SWITCH]}
    for old, name in STEP_NAMES.items():
        properties[old] = {**properties[name], "deprecated": True}
    schema["properties"]["workflow"] = {
        "type": "object",
        "description": "All of it, in older files.",
        "deprecated": True,
    }
    schema["anyOf"] = [{"required": schema.pop("required")}, {"required": ["workflow"]}]
    return schema


STEP_NAMES = {"depends_on": "needs", "when": "if", "condition": "if", "inputs": "with", "name": "description"}
"""Older and other names of what a step has."""
_STEPS = {"type": "array", "items": {"$ref": "#/$defs/Step"}}
_SHORT_SWITCH = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "properties": {"if": {"type": ["string", "boolean"]}}
        | dict.fromkeys(("then", "steps", "else", "default"), _STEPS),
        "additionalProperties": False,
    },
}
