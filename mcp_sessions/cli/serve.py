"""`mcp-sessions serve`: the MCP server, over stdio."""

from __future__ import annotations

import gc
import logging
import sys
from contextlib import suppress

import click

from .exits import Failed


@click.command()
@click.option("--session", metavar="ID", help="Pin one session: calls may leave its id out. It is made if need be.")
@click.option("--toolsets", metavar="NAMES", help="The toolsets that are on, with commas: core,manage,records.")
def serve(session: str | None, toolsets: str | None) -> None:
    """Serve sessions to an MCP client over stdio, until the client closes it."""
    for name, stream in (("stdin", sys.stdin), ("stdout", sys.stdout)):
        if stream is None:  # pyright: ignore[reportUnnecessaryComparison]
            raise Failed(
                f"{name} is closed, and MCP over stdio needs it. Let an MCP client start this, or give it a pipe."
            )
    from ..server.descriptors import take_stdio

    source, sink = take_stdio()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="mcp-sessions: %(levelname)s: %(message)s")

    # Importing makes 130,000 objects, which stay: looking through them for garbage would be a seventh of the start.
    gc.disable()
    import anyio

    from ..config import Settings
    from ..default import manager_from
    from ..errors import ConfigError, SessionExistsError
    from ..server import stdio
    from ..server.adapter import build_server
    from ..tools import SESSION_TOOLS

    gc.freeze()
    gc.enable()
    settings = Settings(**({"toolsets": toolsets} if toolsets else {}))
    if not any(tool.toolset in settings.toolsets for tool in SESSION_TOOLS):
        raise ConfigError(
            f"MCP_SESSIONS_TOOLSETS: no tool is on, for this version has none in '{','.join(settings.toolsets)}'. "
            "Name some of core, manage, records."
        )
    with manager_from(settings) as manager:
        if session is not None:
            with suppress(SessionExistsError):  # which another process may make at this moment
                manager.create_session(session)
        manager.interrupt_dead()
        server = build_server(manager, SESSION_TOOLS, settings.toolsets, session, trusted=True)
        anyio.run(stdio.serve, server, source, sink, manager.storage.give_up)
