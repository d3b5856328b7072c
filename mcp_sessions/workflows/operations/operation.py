"""What operations have in common: how they are configured, and which items they work on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, cast

from pydantic import BaseModel, ConfigDict

from ...errors import InvalidArgumentError

MOST_ITEMS = 10_000

Inputs = Mapping[str, Any]


class Operation(BaseModel, ABC):
    """Its fields are its configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @abstractmethod
    def run(self, inputs: Inputs) -> dict[str, Any]:
        """What it gives. Raises InvalidArgumentError."""


def items_of(inputs: Inputs) -> list[Any]:
    """The input `items`, or all inputs where there is none of that name. Raises InvalidArgumentError."""
    return listed("items", inputs.get("items") if "items" in inputs else list(inputs.values()))


def listed(name: str, value: Any) -> list[Any]:
    """A list as it is, and anything else as its one member. Raises InvalidArgumentError beyond MOST_ITEMS."""
    members = cast("list[Any]", value) if isinstance(value, list) else [value]
    if len(members) > MOST_ITEMS:
        raise InvalidArgumentError(
            f"There are {len(members):,} {name}; an operation takes at most {MOST_ITEMS:,}. "
            "Split them, and run it on each part.",
            argument=name,
        )
    return members
