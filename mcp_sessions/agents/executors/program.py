"""Program: what the command-line executors have in common."""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import anyio.to_thread

from ..._json import decode
from ...errors import ExecutorError, InvalidArgumentError
from ...models import TokenUsage, tokens
from ...records import REDACTED, Redactor
from . import process
from .base import AgentTool, Answer, OnText, count

if TYPE_CHECKING:
    from ..config import AgentConfig

SECRET_CHARS = 6
"""A shorter value is no secret, and stands in many words."""
SHOWN = 500
"""Characters of an output that an error shows."""
FAMILIES = {
    "claude": ("claude", "sonnet", "opus", "haiku"),
    "gpt": ("gpt", "o1", "o3", "o4", "codex"),
    "gemini": ("gemini",),
}
"""How the names of models begin."""


class Program(ABC):
    """A program that reads a prompt on stdin and answers on stdout; never through a shell.

    Raises InvalidArgumentError for a model of a family that the program has not.
    """

    name: ClassVar[str]
    takes: ClassVar[tuple[str, ...]] = tuple(FAMILIES)
    """The families of models."""
    variables: ClassVar[tuple[str, ...]] = ()
    """What it gets of the environment beside the usual."""
    ending: ClassVar[tuple[str, ...]] = ()
    """Its last arguments."""

    def __init__(self, config: AgentConfig) -> None:
        self._config = config
        family = next((one for one, names in FAMILIES.items() if (config.model or "").startswith(names)), None)
        if family is not None and family not in self.takes:
            raise InvalidArgumentError(
                f"{self.name} has no model '{config.model}': its models are of {', '.join(self.takes)}.",
                argument="model",
            )

    @abstractmethod
    def options(self, *, streams: bool) -> list[str]:
        """How it answers, and what it may do."""

    @abstractmethod
    def answer(self, output: str) -> Answer:
        """What it wrote, as an answer. Raises ExecutorError for what is none."""

    def piece(self, line: str) -> str:
        """The part of the answer that a line of output tells."""
        return f"{line}\n"

    async def run(self, prompt: str, *, tools: Sequence[AgentTool] = (), on_text: OnText | None = None) -> Answer:
        """Ask. Raises ExecutorError; InvalidArgumentError for a directory that is none."""
        if tools:
            raise InvalidArgumentError(f"{self.name} cannot use tools of ours.", argument="tools")
        config = self._config
        if config.cwd is not None and not config.cwd.is_dir():
            raise InvalidArgumentError(f"cwd {config.cwd} is no directory. Name one that is there.", argument="cwd")

        env = process.passed((*self.variables, *config.env))
        ran = await process.run(
            self._argv(streams=on_text is not None),
            prompt,
            name=self.name,
            env=env,
            cwd=config.cwd,
            timeout_s=config.timeout,
            most_bytes=config.max_output_bytes,
            on_line=None if on_text is None else self._told_to(on_text),
        )
        return await anyio.to_thread.run_sync(self._answer, ran, env)  # megabytes of it may be JSON

    def _argv(self, *, streams: bool) -> list[str]:
        config = self._config
        model = [] if config.model is None else ["--model", config.model]
        directories = [part for path in config.working_directories for part in ("--add-dir", str(path))]
        options = self.options(streams=streams)
        return [self._path(), *options, *model, *directories, *config.additional_cli_args, *self.ending]

    def _told_to(self, on_text: OnText) -> process.OnLine:
        begun = False

        async def tell(line: bytes) -> None:
            nonlocal begun
            piece = self.piece(line.decode(errors="replace"))
            if text := piece if begun else piece.lstrip("\n"):
                begun = True
                await on_text(text)

        return tell

    def _path(self) -> str:
        path = self._config.cli_path
        found = shutil.which(self.name if path is None else path)
        if found is None:
            where = "on the PATH of this process" if path is None else f"at {path}"
            raise ExecutorError(
                f"{self.name} was not found {where}. Install it, or say where it is: in the PATH "
                "(of an MCP server: env in the client's configuration), or in Python by cli_path of AgentConfig.",
                asked=False,
            )
        return str(Path(found).absolute())  # where it runs, a relative path would be another one

    def _answer(self, ran: process.Ran, env: Mapping[str, str]) -> Answer:
        output = ran.stdout.decode(errors="replace")
        if ran.code == 0 and not ran.fault:
            with suppress(ExecutorError):
                return self.answer(output)
        redactor, stderr = Redactor(), ran.stderr
        for name, value in env.items():  # an error is read by others than who has the keys
            if len(value) >= SECRET_CHARS and redactor.is_secret(name):
                stderr, output = stderr.replace(value, REDACTED), output.replace(value, REDACTED)
        raise self._failed(ran, stderr, output) from ran.cause

    def _failed(self, ran: process.Ran, stderr: str, output: str) -> ExecutorError:
        """Why there is no answer, with what the output tells of the cause, and of the cost."""
        answer: Answer | None = None
        why = ""
        try:
            answer = self.answer(output)
        except ExecutorError as error:
            if ran.code == 0 and not ran.fault:
                return error
            if isinstance(error.answer, Answer):
                why, answer = str(error), error.answer
        tail = "" if ran.fault else output.strip()[-SHOWN:]
        said = "\n".join(part for part in (why, stderr or tail) if part)
        return ExecutorError(
            f"{self.name} {ran.fault or f'failed with exit code {ran.code}'}" + (f": {said}" if said else "."),
            exit_code=ran.code,
            stderr=stderr,
            answer=answer,
        )


def json_in(text: str) -> Any:
    """JSON as a program writes it, half an emoji included. Raises ValueError."""
    try:
        return decode(text)
    except ValueError:
        pass
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(str(error)) from None


def used(usage: Any, *, read: str, written: str, apart: bool) -> TokenUsage | None:
    """Tokens as a program reports them, with its names for what came from the cache and went there; `apart` where its
    input leaves these out. None where it does not say.
    """
    if not isinstance(usage, dict):
        return None
    reported = cast("dict[str, Any]", usage)
    given, said = (count(reported.get(f"{name}_tokens")) for name in ("input", "output"))
    cached, kept = (count(reported.get(name)) or 0 for name in (read, written))
    if given is None or said is None:
        return None
    whole = count(given + cached + kept if apart else given)
    return None if whole is None else tokens(whole, said, cached, kept)


def no_answer(name: str, output: str) -> ExecutorError:
    """The error for an output in which there is no answer."""
    return ExecutorError(f"{name} gave no answer. Its output begins: {output[:SHOWN]!r}.")
