"""The kinds of steps, by name."""

from __future__ import annotations

from . import agent, blocks, child, operation, simple, tool
from .kind import Kind, always

KINDS = {
    "tool": Kind(tool.call, always, is_own_call=tool.is_short, arguments=tool.arguments),
    "agent": Kind(agent.ask, always),
    "set": Kind(simple.set_value),
    "operation": Kind(operation.operate, operation.is_slow),
    "approve": Kind(simple.approved, holds_slot=False),
    "sleep": Kind(simple.sleep, always, holds_slot=False),
    "workflow": Kind(child.run, always, holds_slot=False),
    "fail": Kind(simple.fail),
}
COMPOSITES = {"for_each": blocks.for_each, "parallel": blocks.parallel, "switch": blocks.switch}

__all__ = ["COMPOSITES", "KINDS", "Kind"]
