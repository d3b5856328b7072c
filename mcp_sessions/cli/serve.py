"""`mcp-sessions serve`: the MCP server, over stdio or HTTP."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

import click

from .exits import Failed

if TYPE_CHECKING:
    from ..config import Settings
    from ..manager import SessionManager


@click.command()
@click.option(
    "--transport",
    type=click.Choice(["stdio", "http", "sse", "streamable-http"]),
    default="stdio",
    help="stdio (the default); the others are one server, with streamable HTTP at /mcp and SSE at /sse.",
)
@click.option("--host", metavar="HOST", help="The address to bind, for HTTP. Default: 127.0.0.1.")
@click.option("--port", metavar="PORT", type=click.IntRange(0, 65_535), help="The port, for HTTP. Default: 8765.")
@click.option("--session", metavar="ID", help="Pin one session: calls may leave its id out. It is made if need be.")
@click.option(
    "--toolsets", metavar="NAMES", help="The toolsets that are on, with commas: core,manage,records,automation."
)
def serve(transport: str, host: str | None, port: int | None, session: str | None, toolsets: str | None) -> None:
    """Serve sessions to MCP clients: over stdio to the one that started this, until it closes it; over HTTP to any on
    this machine, until Ctrl-C.
    """
    if transport == "stdio":
        if host is not None or port is not None:
            raise click.UsageError("--host and --port are for --transport http.")
        _over_stdio(session, toolsets)
    else:
        if session is not None:
            raise click.UsageError("--session is for stdio: over HTTP each client names its session.")
        _over_http(host, port, toolsets)


def _over_stdio(session: str | None, toolsets: str | None) -> None:
    for name, stream in (("stdin", sys.stdin), ("stdout", sys.stdout)):
        if stream is None:  # pyright: ignore[reportUnnecessaryComparison] - where it is closed
            raise Failed(
                f"{name} is closed, and MCP over stdio needs it. Let an MCP client start this, or give it a pipe."
            )
    from ..server.descriptors import take_stdio

    source, sink = take_stdio()
    with _importing():
        import anyio

        from ..server import stdio
        from ..server.adapter import build_server
        from .toolbox import toolbox

        settings = _settings(toolsets)
        until_the_end = ExitStack()
        tools = toolbox(settings, until_the_end)
    with until_the_end, _opened(settings) as manager:
        if session is not None:
            from ..errors import SessionExistsError

            with suppress(SessionExistsError):  # which another process may make at this moment
                manager.create_session(session)
        server = build_server(manager, tools, settings.toolsets, session, trusted=True)
        anyio.run(stdio.serve, server, source, sink, manager.storage.give_up)


def _over_http(host: str | None, port: int | None, toolsets: str | None) -> None:
    with _importing():
        import anyio

        from ..server import http
        from ..server.adapter import build_server
        from .toolbox import toolbox

        settings = _settings(toolsets)
        until_the_end = ExitStack()
        tools = toolbox(settings, until_the_end)
    _refuse_tokens(settings)
    names = _name(settings, "host", host), _name(settings, "port", port)
    host = settings.host if host is None else host
    port = settings.port if port is None else port
    with until_the_end, http.listen(host, port, names) as bound, _opened(settings) as manager:
        app = http.build_app(build_server(manager, tools, settings.toolsets), manager, host)
        url = http.url_of(bound)
        click.echo(f"Serving MCP at {url}/mcp (streamable HTTP) and {url}/sse (SSE). Ctrl-C ends it.", err=True)
        anyio.run(http.serve, app, bound, manager.storage.give_up)


def _name(settings: Settings, option: str, given: object) -> str:
    """By which an option was given: its own, or that of the setting that says it."""
    return f"MCP_SESSIONS_{option.upper()}" if given is None and option in settings.model_fields_set else f"--{option}"


@contextmanager
def _importing() -> Generator[None]:
    """Import with no look through the 130,000 objects that this makes, and which stay: a seventh of the start."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="mcp-sessions: %(levelname)s: %(message)s")
    gc.disable()
    yield
    gc.freeze()
    gc.enable()


def _settings(toolsets: str | None) -> Settings:
    from ..config import Settings
    from ..errors import ConfigError

    settings = Settings(**({"toolsets": toolsets} if toolsets else {}))
    if not settings.toolsets:
        raise ConfigError("MCP_SESSIONS_TOOLSETS: no tool is on. Name some of core, manage, records, automation.")
    return settings


def _refuse_tokens(settings: Settings) -> None:
    from ..errors import ConfigError

    if settings.tokens or settings.tokens_file is not None or settings.oauth_issuer is not None:
        raise ConfigError(
            "MCP_SESSIONS_TOKENS, TOKENS_FILE or OAUTH_ISSUER is set, but this version cannot ask clients who they "
            "are. Unset it to serve everyone on this machine alike."
        )


@contextmanager
def _opened(settings: Settings) -> Generator[SessionManager]:
    from ..default import manager_from

    with manager_from(settings) as manager:
        manager.interrupt_dead()
        yield manager
