"""GitHub Copilot: `copilot`, to which the prompt is piped; it answers in text."""

from __future__ import annotations

from .base import Answer
from .program import Program, no_answer


class Copilot(Program):
    """Asks Copilot, which reports neither tokens nor cost."""

    name = "copilot"
    variables = ("GH_TOKEN", "GITHUB_TOKEN", "COPILOT_*")

    def options(self, *, streams: bool) -> list[str]:  # noqa: ARG002 - it always tells as it goes
        # Without --prompt: with it, what is piped would be passed over.
        options = ["--silent", "--no-color", "--no-ask-user"]
        if self._config.skip_permissions:
            options.append("--allow-all-tools")
        return options

    def answer(self, output: str) -> Answer:
        text = output.strip()
        if not text:
            raise no_answer(self.name, output)
        return Answer(text, self._config.model)
