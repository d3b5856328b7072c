"""Executors: what an agent asks. Programs, models behind an API, and scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import InvalidArgumentError
from .claude import Claude
from .codex import Codex
from .copilot import Copilot

if TYPE_CHECKING:
    from ..config import AgentConfig
    from .base import Executor

PROGRAMS = {program.name: program for program in (Claude, Codex, Copilot)}
MODEL = "model:"
"""Begins the name of a model behind an API."""


def executor_for(config: AgentConfig) -> Executor:
    """What a configuration asks. Raises InvalidArgumentError for a name that nobody has, and for what it cannot do."""
    executor = config.executor if config.executor is not None else config.cli_type.value
    if not isinstance(executor, str):
        return executor
    if executor.startswith(MODEL):
        from .models import ModelExecutor

        if config.model is not None:
            raise InvalidArgumentError(f"{executor} is the model already: leave model out.", argument="model")
        return ModelExecutor(executor.removeprefix(MODEL), timeout_s=config.timeout)
    program = PROGRAMS.get(executor)
    if program is None:
        raise InvalidArgumentError(
            f"Executor '{executor[:80]}' is not known: there are {', '.join(PROGRAMS)} and model:PROVIDER:NAME.",
            argument="executor",
        )
    if config.tools:
        raise InvalidArgumentError(
            f"{executor} cannot use tools of ours: leave them out, or ask a model (model:PROVIDER:NAME).",
            argument="tools",
        )
    return program(config)
