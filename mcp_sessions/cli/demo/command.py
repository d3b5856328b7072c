"""`mcp-sessions demo`: the command."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from ..exits import Failed
from ..text import counted

if TYPE_CHECKING:
    from .account import Account


@click.command()
@click.option(
    "--keep",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the store in this directory. Without it, in a new one for temporary files.",
)
@click.option("--discard", is_flag=True, help="Remove the store at the end.")
@click.option("--json", "as_json", is_flag=True, help="Print the account as JSON.")
def demo(*, keep: Path | None, discard: bool, as_json: bool) -> None:
    """See it at work: a real server on a store of its own, killed in the middle and started again.

    It looks through the standard library of this Python, keeps what it finds in a session, kills the server while it
    writes, and checks that nothing acknowledged is lost. Your own sessions are not touched. The store is kept, so that
    you can look at it. Exit status 1 if anything is not as it should be.
    """
    if keep is not None and discard:
        raise click.UsageError("--keep and --discard exclude each other.")
    from ...config import sqlite_url

    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
    folder = (keep or Path(tempfile.mkdtemp(prefix="mcp-sessions-demo-"))).resolve()
    url = sqlite_url(folder / "sessions.db")
    kept = False
    try:
        account = _run(url, folder)
        kept = not discard
    finally:
        if keep is None and not kept:
            shutil.rmtree(folder, ignore_errors=True)
    _tell(account, url, kept=kept, as_json=as_json)


def _run(url: str, folder: Path) -> Account:
    import anyio
    from mcp import MCPError

    from ...server.ending import cancelled_by_signal
    from .promises import RefusedError
    from .story import Demo

    async def run() -> Account:
        async with cancelled_by_signal():
            return await Demo(url, folder, _say).run()
        raise click.Abort

    try:
        return anyio.run(run)
    except (BaseExceptionGroup, MCPError, RefusedError) as error:
        raise Failed(f"The demo could not go on: {_first(error)}") from error


def _tell(account: Account, url: str, *, kept: bool, as_json: bool) -> None:
    from .account import print_account, print_json, print_next

    commands = _commands(url, account.session_id) if kept else {}
    if as_json:
        print_json(account, url, commands)
    else:
        print_account(account)
        print_next(commands | _installing())
    if account.faults:
        count = counted(len(account.faults), "thing is", "things are")
        raise Failed(f"{count} not as it should be: {account.faults[0]}")


def _say(text: str) -> None:
    click.echo(text, err=True)


def _first(error: BaseException) -> BaseException:
    """The first error in groups of groups."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error


def _commands(url: str, session_id: str) -> dict[str, str]:
    """What to paste, each with its purpose: the commands look at the demo's store, and not at one's own."""
    program = _program()
    looks = {
        f"{program} ls": "the session, and its fork",
        f"{program} show {session_id}": "its keys, last messages and last calls",
        f"{program} get {session_id} uses.os.replace": "one finding",
        f"{program} doctor": "the store checked",
    }
    if os.name == "nt":
        return {f'$env:MCP_SESSIONS_STORAGE = "{url}"': "for the commands below, in PowerShell", **looks}
    return {f"MCP_SESSIONS_STORAGE={shlex.quote(url)} {command}": purpose for command, purpose in looks.items()}


def _installing() -> dict[str, str]:
    return {f"{_program()} install claude-desktop": "put it into Claude Desktop; also claude-code, cursor, vscode"}


def _program() -> str:
    """How this program was called, as it can be called again."""
    called = Path(sys.argv[0])
    if called.stem != "mcp-sessions":
        words = [sys.executable, "-m", "mcp_sessions"]
    elif shutil.which("mcp-sessions") == str(called.absolute()):
        words = ["mcp-sessions"]
    else:
        words = [str(called)]
    return " ".join(f'"{word}"' if " " in word else word for word in words) if os.name == "nt" else shlex.join(words)
