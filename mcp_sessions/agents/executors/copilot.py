"""GitHub Copilot: `copilot`, to which the prompt is piped; it answers in text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import Answer
from .program import Program, no_answer

if TYPE_CHECKING:
    from ..config import AgentConfig


class Copilot(Program):
    """Asks Copilot, which reports neither tokens nor cost."""

    name = "copilot"
    variables = ("GH_TOKEN", "GITHUB_TOKEN", "COPILOT_*")

    def options(self, config: AgentConfig, *, streams: bool) -> list[str]:  # noqa: ARG002 - it always tells as it goes
        # Without --prompt: with it, what is piped would be passed over.
        options = ["--silent", "--no-color", "--no-ask-user"]
        if config.skip_permissions:
            options.append("--allow-all-tools")
        if config.model is not None:
            options += ["--model", config.model]
        for directory in config.working_directories:
            options += ["--add-dir", str(directory)]
        return [*options, *config.additional_cli_args]

    def answer(self, output: str) -> Answer:
        text = output.strip()
        if not text:
            raise no_answer(self.name, output)
        return Answer(text, self._config.model)
