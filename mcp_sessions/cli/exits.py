"""How a command ends when it cannot do what it was asked: one line on stderr, and a status that says why."""

from __future__ import annotations

import click

from ..errors import (
    ConfigError,
    InvalidArgumentError,
    SessionNotFoundError,
    SessionsError,
    WorkflowDefinitionError,
    WorkflowMissingError,
    WorkflowNotFoundError,
)
from .text import one_line, without_password


class Failed(click.ClickException):
    """The end of a command: `Error: …` on one line, exit status 1."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(one_line(without_password(message)))


class Misused(Failed):
    """An argument or a setting that cannot be used."""

    exit_code = 2


class Missing(Failed):
    """A session, a key or a workflow that is not there."""

    exit_code = 3


def ended(error: SessionsError) -> Failed:
    """The end that an error of ours makes."""
    if isinstance(error, (SessionNotFoundError, WorkflowNotFoundError, WorkflowMissingError)):
        return Missing(str(error))
    if isinstance(error, (InvalidArgumentError, ConfigError, WorkflowDefinitionError)):
        return Misused(str(error))
    return Failed(str(error))
