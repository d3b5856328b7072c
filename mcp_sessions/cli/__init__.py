"""The command line, the composition root: `mcp-sessions COMMAND`.

A command's module is imported when the command runs, because `ls` must not wait for what only `serve` needs. So
the list of commands stands here, and not in the modules.
"""

from __future__ import annotations

import io
import logging
import sys
from importlib import import_module
from typing import Any, NamedTuple, cast

import click

from ..errors import SessionsError
from .exits import Failed, ended
from .version import version

log = logging.getLogger(__name__)


class _Place(NamedTuple):
    """Where a command is, and what `--help` says of it."""

    module: str
    name: str
    help: str


COMMANDS = {
    "serve": _Place("serve", "serve", "Run the MCP server, over stdio or HTTP."),
    "demo": _Place("demo", "demo", "See it at work: a real server, killed and started again."),
    "install": _Place("install", "install", "Put mcp-sessions into the configuration of an MCP client."),
    "ls": _Place("ls", "ls", "List sessions."),
    "show": _Place("show", "show", "Show one session: head, keys, last messages, last calls."),
    "get": _Place("get", "get", "Print the value of a key, or list the keys of a session."),
    "set": _Place("set", "set_value", "Set a key of a session."),
    "agent": _Place("agent", "agent", "Ask an agent about a codebase."),
    "workflow": _Place("workflow", "workflow", "Run workflows, and see to their runs."),
    "import": _Place("importing", "importing", "Copy sessions from elsewhere into the store."),
    "backup": _Place("backup", "backup", "Copy the whole store into a file, while others write."),
    "doctor": _Place("doctor", "doctor", "Check the settings, the store and the MCP clients."),
    "path": _Place("path", "path", "Print where the sessions are kept."),
}


class _Commands(click.Group):
    """The commands, each imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        place = COMMANDS.get(cmd_name)
        return None if place is None else getattr(import_module("." + place.module, __name__), place.name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        with formatter.section("Commands"):
            formatter.write_dl([(name, place.help) for name, place in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SessionsError as error:
            raise ended(error) from error
        except BrokenPipeError:
            raise  # whoever read our output has gone: click ends quietly
        except OSError as error:
            raise Failed(f"{error.filename or 'The system refused'}: {error.strerror or error}.") from error
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:  # the door of the command line: one line, whatever went wrong
            log.debug("%s failed", ctx.invoked_subcommand, exc_info=error)
            report = "This is a fault of mcp-sessions: please report it, with what `mcp-sessions doctor` says."
            raise Failed(f"{_told(error)} {report}") from error


def _told(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return f"{type(error).__name__}: {error}."


def _print_version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"mcp-sessions {version()}")
        ctx.exit()


@click.group(cls=_Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the version."
)
@click.pass_context
def main(ctx: click.Context) -> None:
    """Durable sessions for LLM agents, over MCP, Python and this command line.

    Without a command it serves MCP over stdio when its input is not a terminal. What you asked for goes to stdout,
    all talk to stderr. Exit status: 0 done, 1 failed, 2 an argument or a setting that cannot be used, 3 not found.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A pipe on Windows may not know a letter; then its escape is better than no answer.
            stream.reconfigure(errors="backslashreplace")
    if ctx.invoked_subcommand is not None:
        return
    if sys.stdin is None or sys.stdin.isatty():  # pyright: ignore[reportUnnecessaryComparison] - None where it is closed
        click.echo(ctx.get_help())
        return
    serve = main.get_command(ctx, "serve")
    assert serve is not None
    with serve.make_context("serve", [], parent=ctx) as serving:
        serve.invoke(serving)
