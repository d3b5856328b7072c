"""WorkflowDefinition: a workflow, read and checked whole before anything of it runs."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from .._json import check_json
from ..errors import InvalidArgumentError, WorkflowDefinitionError, WorkflowMissingError
from ..models import invalid
from ..tools import Toolbox
from . import legacy
from .checks import Checks, placed
from .expressions import Template
from .hints import suggestion
from .model import Agent, Approve, Case, Defaults, Input, Model, Output, Retry, Server, Spec, Step, Switch
from .reading import Lines, line_of, read
from .secrets import IN_SERVER

FILE_TYPES = (".yaml", ".yml", ".json")
_MODELS: Mapping[str, type[Model]] = {
    "retry": Retry,
    "agent": Agent,
    "approve": Approve,
    "switch": Switch,
    "cases": Case,
    "defaults": Defaults,
    "steps": Step,
    "parallel": Step,
    "default": Step,
    "inputs": Input,
    "outputs": Output,
    "servers": Server,
}
_SCHEDULE = (
    "'schedule' is not done here: nothing of this runs when nobody calls it. Let cron, a systemd timer or CI run "
    "`mcp-sessions workflow run FILE`"
)


class WorkflowDefinition:
    """A workflow: `spec` is what its author wrote, `text` the text of it, which a run keeps.

    Made by `from_yaml`, `from_file` or `from_dict`, which raise WorkflowDefinitionError with all that is wrong.
    """

    def __init__(self, raw: Any, text: str, name: str, base: Path | None) -> None:
        self.text = text
        self.base = base
        """The directory from which other files are found that it names."""
        self._name = name
        self._raw, self.is_legacy = legacy.root(raw)
        self.spec = self._parsed()
        self.steps = {step.id: step for step in self.spec.walk()}
        """Each step by its id, wherever it stands."""
        checks = Checks(self.spec, self._raw, is_legacy=self.is_legacy)
        self.edges = checks.edges
        """id -> the ids in its own list that are done before it."""
        self.handlers = checks.handlers
        """id of a step that is run on an error -> those on whose."""
        self._refuse(checks.faults)

    @classmethod
    def from_yaml(cls, text: str, *, name: str = "<yaml>", base: Path | None = None) -> WorkflowDefinition:
        """From YAML or JSON; `name` is what errors call it."""
        return cls(read(text, name), text, name, base)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> WorkflowDefinition:
        """From a file. Raises FileNotFoundError."""
        file = Path(path)
        try:
            text = file.read_bytes().decode("utf-8-sig")
        except FileNotFoundError:
            raise FileNotFoundError(2, "Workflow file not found", str(file)) from None
        except UnicodeDecodeError as error:
            raise WorkflowDefinitionError(
                [f"{file}: it is not UTF-8 text ({error.reason}). Save it as UTF-8."]
            ) from None
        return cls.from_yaml(text, name=str(file), base=file.absolute().parent)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], *, base: Path | None = None) -> WorkflowDefinition:
        """From what YAML would give."""
        try:
            text = json.dumps(check_json(dict(value)), sort_keys=True)
        except ValueError as error:
            raise WorkflowDefinitionError([f"<dict>: it {error}."]) from None
        return cls.from_yaml(text, name="<dict>", base=base)

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def sha256(self) -> str:
        """Of its text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def get_step(self, step_id: str) -> Step | None:
        """The step of that id, wherever it stands."""
        return self.steps.get(step_id)

    def to_dict(self) -> dict[str, Any]:
        """What was written, under the names of here."""
        return self.spec.model_dump(mode="json", by_alias=True, exclude_unset=True)

    def inputs(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs of a run: those given, checked, and the defaults; what may be left out and is, is None.

        Raises InvalidArgumentError.
        """
        known = self.spec.inputs
        for name in given:
            if name not in known:
                hint = suggestion(name, known) or (f"it takes {', '.join(known)}." if known else "it takes none.")
                raise InvalidArgumentError(f"Unknown input '{name}' of {self.name}: {hint}", argument="inputs")
        values: dict[str, Any] = {}
        for name, rule in known.items():
            value = given.get(name)
            if name not in given:
                if rule.required:
                    raise InvalidArgumentError(f"Required input '{name}' not provided.", argument="inputs")
                value = rule.default
            if value is None and not rule.required:
                values[name] = rule.default
                continue
            if fault := rule.fault(value):
                raise InvalidArgumentError(f"Input '{name}' of {self.name} {fault}.", argument="inputs")
            values[name] = value
        try:
            return check_json(values)
        except ValueError as error:
            raise InvalidArgumentError(f"The inputs of {self.name}: one {error}.", argument="inputs") from None

    def servers(self) -> dict[str, Server]:
        """The MCP servers by name: its own, and those of the file that it names. Raises WorkflowDefinitionError."""
        file = self.spec.servers_file
        found = {} if file is None else servers_of((self.base or Path()) / Path(file).expanduser())
        return found | self.spec.servers

    def secrets(self) -> set[str]:
        """The names of the secrets that its steps and their servers are given. Raises WorkflowDefinitionError."""
        servers = self.servers()
        names: set[str] = set()
        for step in self.steps.values():
            if step.server is None:
                continue
            for expression in Template.of(step.given).expressions():
                names |= expression.secrets
            text = servers[step.server].model_dump_json() if step.server in servers else ""
            names |= {one or other for one, other in IN_SERVER.findall(text)}
        return names

    def check_tools(self, toolbox: Toolbox) -> None:
        """Raise WorkflowDefinitionError for steps whose tool a toolbox has not, or does not take what it is given."""
        faults: list[tuple[int, str]] = []
        for path, step in placed(self.spec.steps, ("steps",)):
            if step.tool is not None and step.server is None and (fault := _fault_of_tool(step, toolbox)):
                faults.append((line_of(self._raw, (*path, "tool")), f"step '{step.id}': {fault}"))
        self._refuse(faults)

    def _parsed(self) -> Spec:
        faults: list[tuple[int, str]] = []
        raw = self._raw
        if not isinstance(raw, Lines):
            raise self._refused([(line_of(raw, ()), "it is no object with `name:` and `steps:`")])
        if "schedule" in raw:
            faults.append((raw.lines.get("schedule", 0), _SCHEDULE))
            del raw["schedule"]
        legacy.modern(raw, lambda line, fact: faults.append((line, fact)))
        if self.is_legacy:
            legacy.results_of_steps(raw)
        try:
            spec = Spec.model_validate(raw)
        except ValidationError as error:
            faults += [self._fault(one) for one in error.errors(include_url=False)]
            raise self._refused(faults) from None
        self._refuse(faults)
        return spec

    def _fault(self, error: ErrorDetails) -> tuple[int, str]:
        path = [part for part in error["loc"] if not isinstance(part, str) or "[" not in part]
        where = _where(self._raw, path)
        fact = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
        line = line_of(self._raw, path)
        if error["type"] == "extra_forbidden":
            model = _model_at(path)
            known = [field.alias or name for name, field in model.model_fields.items()]
            fact = (
                f"unknown key '{path[-1]}'. {suggestion(str(path[-1]), known) or 'Known are ' + ', '.join(known) + '.'}"
            )
            return line, f"{where}{fact}".removesuffix(".")
        if error["type"] == "missing":
            return line, f"{where}'{path[-1]}' is missing"
        told = f"'{path[-1]}' " if path and isinstance(path[-1], str) and error["type"] != "value_error" else ""
        if error["type"] == "value_error" and path and isinstance(path[-1], str) and fact.startswith("is no "):
            told = f"'{path[-1]}' "
        return line, f"{where}{told}{fact[0].lower() + fact[1:]}"

    def _refuse(self, faults: Sequence[tuple[int, str]]) -> None:
        if faults:
            raise self._refused(faults)

    def _refused(self, faults: Sequence[tuple[int, str]]) -> WorkflowDefinitionError:
        ordered = sorted(dict.fromkeys(faults))
        return WorkflowDefinitionError(
            [
                f"{self._name}{f':{line}' if line else ''}: {fact}{'' if fact[-1] in '.?' else '.'}"
                for line, fact in ordered
            ]
        )


def named(name: str, directory: Path | None, base: Path | None) -> WorkflowDefinition:
    """A workflow that another one names: of the directory by its name, else a file beside it.

    Raises WorkflowDefinitionError.
    """
    if directory is not None:
        for ending in FILE_TYPES:
            file = directory / f"{name}{ending}"
            if checked_name(name) and file.is_file():
                return WorkflowDefinition.from_file(file)
        if not directory.is_dir():
            raise WorkflowMissingError([f"The directory of workflows, {directory}, is not there."])
        found = sorted(file.stem for file in directory.glob("*") if file.suffix in FILE_TYPES)
        raise WorkflowMissingError(
            [f"There is no workflow '{name[:80]}' in {directory}: there are {', '.join(found) or 'none'}."]
        )
    file = (base or Path()) / name
    if not file.is_file():
        raise WorkflowMissingError(
            [f"There is no workflow file {file}. A name is a path beside the one that names it."]
        )
    return WorkflowDefinition.from_file(file)


def checked_name(name: str) -> bool:
    """Whether it is the name of a file, and no path."""
    return name not in ("", ".", "..") and not any(mark in name for mark in ("/", "\\", ":", "\0"))


def servers_of(file: Path) -> dict[str, Server]:
    """The `mcpServers` of a file as Claude Desktop has one. Raises WorkflowDefinitionError."""
    try:
        raw: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WorkflowDefinitionError([f"{file}: the servers file cannot be read: {error}."]) from error
    entries = cast("dict[str, Any]", raw).get("mcpServers") if isinstance(raw, dict) else None
    if not isinstance(entries, dict):
        raise WorkflowDefinitionError([f"{file}: it has no object `mcpServers`."])
    servers: dict[str, Server] = {}
    for name, entry in cast("dict[str, Any]", entries).items():
        known = {key: value for key, value in dict(entry).items() if key in Server.model_fields}
        try:
            servers[name] = Server.model_validate(known)
        except ValidationError as error:
            raise WorkflowDefinitionError([str(invalid(error, f"{file}: server '{name}': "))]) from None
    return servers


def _fault_of_tool(step: Step, toolbox: Toolbox) -> str | None:
    name = cast("str", step.tool)
    tool = toolbox.get(name)
    if tool is None:
        known = [one.name for one in toolbox]
        hint = suggestion(name, known) or "a tool of another server is SERVER/TOOL."
        return f"there is no tool '{name}'. {hint}".removesuffix(".")
    for argument in step.given:
        if argument not in tool.annotations:
            hint = suggestion(argument, tool.annotations) or f"It takes {', '.join(tool.advertised)}."
            return f"{name} takes no '{argument}'. {hint}".removesuffix(".")
    for argument, field in tool.arguments.model_fields.items():
        if field.is_required() and argument not in step.given and argument != "session_id":
            return f"{name} needs '{argument}' in `with`"
    return None


def _where(value: Any, path: Sequence[str | int]) -> str:
    """Which step the path leads into."""
    found = ""
    for part in path:
        if isinstance(value, Lines) and part in value:
            value = value[str(part)]
        elif isinstance(value, list) and isinstance(part, int) and part < len(cast("list[Any]", value)):
            value = cast("list[Any]", value)[part]
        else:
            break
        if isinstance(part, int) and isinstance(value, Lines):
            found = f"step '{value['id']}': " if "id" in value else ""
    return found


def _model_at(path: Sequence[str | int]) -> type[Model]:
    for part in reversed(path[:-1]):
        if isinstance(part, str) and part in _MODELS:
            return _MODELS[part]
    return Spec
