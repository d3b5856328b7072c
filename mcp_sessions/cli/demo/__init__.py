"""`mcp-sessions demo`: the main job on real input, with a server that is killed while it writes."""

from .command import demo

__all__ = ["demo"]
