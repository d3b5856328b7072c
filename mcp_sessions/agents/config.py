"""AgentConfig: what an agent asks, where it works, and where its history is kept."""

from __future__ import annotations

import os
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ..models import Id, invalid
from .executors.base import Executor

T = TypeVar("T")
PROMPT_CHARS = 200_000
OUTPUT_BYTES = 16 << 20
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@\[\]-]{0,199}")


def _name_of_model(text: str) -> str:
    """Never one that a program would take for an option."""
    if not _MODEL_NAME.fullmatch(text):
        raise ValueError(f"'{text[:80]}' is no name of a model: letters, digits and . _ : / @ [ ] -, a letter first")
    return text


def _passable(value: T) -> T:
    """What can be an argument of a program."""
    if "\0" in str(value):
        raise ValueError(f"{str(value)[:80]!r} has a NUL, which no program can be given")
    try:
        os.fsencode(str(value))
    except UnicodeEncodeError:
        raise ValueError(f"{str(value)[:80]!r} has half of a surrogate pair, which no program can be given") from None
    return value


def _not_a_class(executor: T) -> T:
    if isinstance(executor, type):
        raise ValueError(f"{executor.__name__} is the class: give an executor of it")
    return executor


def _some(values: Any) -> Any:
    """None counts as none of them."""
    return () if values is None else values


def _named(path: Any) -> Any:
    """An empty text would be the directory one is in."""
    if path == "":
        raise ValueError("an empty text is no directory: leave it out to keep sessions in memory")
    return path


def _at_home(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"{path}: {error}") from None


ModelName = Annotated[str, AfterValidator(_name_of_model)]
Asked = Annotated[Executor, AfterValidator(_not_a_class)]
Argument = Annotated[str, AfterValidator(_passable)]
Place = Annotated[Path, AfterValidator(_passable)]
Kept = Annotated[Place, BeforeValidator(_named), AfterValidator(_at_home)]


class CLIType(StrEnum):
    CLAUDE = "claude"
    CODEX = "codex"
    COPILOT = "copilot"


class AgentConfig(BaseModel):
    """What an agent asks, where it works, and where its history is kept.

    `executor` is asked where it is given: an Executor, or the name of one (`claude`, `codex`, `copilot`,
    `model:PROVIDER:NAME`); else the program of `cli_type`. Raises InvalidArgumentError.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, protected_namespaces=())

    cli_type: CLIType = CLIType.COPILOT
    executor: Asked | str | None = Field(default=None, union_mode="left_to_right")
    model: ModelName | None = None
    """None: the one that the executor takes by itself."""
    session_id: Id | None = None
    """`default` where none is given."""
    session_storage_path: Kept | None = None
    """Where sessions are kept as files; None: in memory, or in the manager that the agent was given."""
    include_session_in_prompt: bool = False
    """Whether the executor is told the session's id, and where it is kept."""
    skip_permissions: bool = False
    """Whether a program does what it likes without asking; a program that may not ask does less."""
    cli_path: Place | None = None
    """The program; by default the one of that name on the PATH."""
    timeout: Annotated[float, Field(gt=0)] | None = None
    """Seconds that one answer may take; None: as long as it takes."""
    cwd: Place | None = None
    """Where a program runs; by default where this one does."""
    working_directories: Annotated[tuple[Place, ...], BeforeValidator(_some)] = ()
    """Other directories that a program may look into."""
    additional_cli_args: Annotated[tuple[Argument, ...], BeforeValidator(_some)] = ()
    """Given to a program as they stand, before the prompt."""
    tools: tuple[str, ...] = ()
    """Names of tools that the executor may call, where it can: models behind an API."""
    env: tuple[str, ...] = ()
    """Names of variables that a program gets beside the usual ones; `*` stands for any ending."""
    max_prompt_chars: Annotated[int, Field(gt=0)] = PROMPT_CHARS
    """What a prompt may have; beyond it the oldest turns are left out."""
    max_output_bytes: Annotated[int, Field(gt=0)] = OUTPUT_BYTES
    """What a program may write before it is ended."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise invalid(error, "AgentConfig: ") from None
