"""Secrets of a workflow: known by name alone, given to what needs them, and kept out of what is stored."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

from ..errors import InvalidArgumentError
from ..records import REDACTED

SHORTEST = 4
"""Characters: a shorter one would be found everywhere."""


IN_SERVER = re.compile(r"\$\{(?:env:)?([A-Za-z_]\w*)\}|\{\{\s*secrets\.([A-Za-z_]\w*)\s*\}\}")
"""A secret in the configuration of a server."""


class Secrets:
    """Values by name."""

    def __init__(self, values: Mapping[str, str] | None = None) -> None:
        self._values = dict(values or {})
        for name, value in self._values.items():
            if len(value) < SHORTEST:
                raise InvalidArgumentError(
                    f"The secret {name} has under {SHORTEST} characters: it could not be told from other text."
                )
        shown = {form for value in self._values.values() for form in _forms(value)}
        self._forms = sorted(shown, key=len, reverse=True)

    @classmethod
    def of_environment(cls, names: Iterable[str]) -> Secrets:
        """The variables of these names, of those that are set."""
        return cls({name: os.environ[name] for name in names if name in os.environ})

    def names(self) -> Mapping[str, str]:
        """What stands in records instead of each."""
        return {name: f"[secret {name}]" for name in self._values}

    def values(self) -> Mapping[str, str]:
        """The secrets themselves: for what is sent, and never for what is stored."""
        return self._values

    def filled(self, text: str) -> str:
        """A text of a server's configuration with them. Raises KeyError."""
        return IN_SERVER.sub(lambda found: self._values[found[1] or found[2]], text)

    def scrubbed(self, text: str) -> str:
        """A text without them."""
        for secret in self._forms:
            text = text.replace(secret, REDACTED)
        return text

    def scrub(self, value: Any) -> Any:
        """A JSON value without them, in names too."""
        if not self._values:
            return value
        if isinstance(value, str):
            return self.scrubbed(value)
        if isinstance(value, dict):
            fields = cast("dict[str, Any]", value)
            return {self.scrubbed(name): self.scrub(member) for name, member in fields.items()}
        if isinstance(value, list):
            return [self.scrub(member) for member in cast("list[Any]", value)]
        return value


def _forms(secret: str) -> set[str]:
    """How it may stand in a text: as it is, and within JSON."""
    return {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
