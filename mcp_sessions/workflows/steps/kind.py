"""Kind: what a step of one kind does, and how its calls stand on record."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..model import Step
    from ..run import Run
    from ..step import Work


def _never(_run: Run, _step: Step) -> bool:
    return False


def _given(_run: Run, _step: Step, given: Mapping[str, Any]) -> dict[str, Any]:
    return dict(given["with"])


def always(_run: Run, _step: Step) -> bool:
    """It is on record from its beginning."""
    return True


@dataclass(frozen=True)
class Kind:
    """What a step of one kind does."""

    run: Callable[[Work], Awaitable[Any]]
    """One attempt; its result. Raises what went wrong."""
    slow: Callable[[Run, Step], bool] = _never
    """Whether it is on record from its beginning: what takes long, or has effects that no commit of ours undoes."""
    holds_slot: bool = True
    """Whether it counts for `max_parallel`."""

    is_own_call: Callable[[Run, Step], bool] = _never
    """Whether its call is that of the tool which it calls: then the step has no record of its own beside it."""
    arguments: Callable[[Run, Step, Mapping[str, Any]], dict[str, Any]] = _given
    """What that tool is called with."""

    def label(self, step: Step) -> str:
        """What records call it: the tool of another server by its name, which is work; else the kind."""
        return step.tool if step.tool is not None and self.is_work(step) else f"workflow.{step.kind}"

    def is_work(self, step: Step) -> bool:
        """Whether its call is work itself; what the others do is recorded by what they call."""
        return step.server is not None

    def recorded(self, step: Step, path: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments in its record."""
        if self.is_work(step):
            return dict(given["with"])
        said = {name: value for name, value in given.items() if value not in (None, {}, [])}
        return {"step": path, **said}
