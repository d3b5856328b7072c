"""`mcp-sessions get`: a key's value, or which keys there are."""

from __future__ import annotations

import difflib
import sys

import click

from ..drafts import checked_text
from ..models import Want
from .exits import Missing
from .store import LONGEST, store_with
from .text import json_text, lines, one_line


@click.command()
@click.argument("session", metavar="ID")
@click.argument("key", required=False)
@click.option("--raw", is_flag=True, help="Print a string as it is, without quotes and escapes.")
@click.option("--json", "as_json", is_flag=True, help="Print {session_id, key, version, value}; keys as an array.")
def get(*, session: str, key: str | None, raw: bool, as_json: bool) -> None:
    """Print the value of KEY in session ID as JSON; without KEY, the names of its keys, one a line.

    ID is a session's id, the beginning of one, or - for the one last updated. A session or key that is not there is
    exit status 3. With --json the keys are an array of {key, version}.
    """
    with store_with(session) as (manager, head):
        if key is None:
            view = manager.view(head.session_id, Want(names=True, prefix="" if as_json else None))
            if as_json:
                click.echo(json_text([{"key": name, "version": view.data[name].version} for name in view.names]))
            else:
                for name in view.names:
                    click.echo(one_line(name))
            return
        checked_text(key, "The key", LONGEST)
        view = manager.view(head.session_id, Want(keys=(key,), names=True))
    found = view.data.get(key)
    if found is None:
        raise Missing(f"Session {head.session_id} has no key '{key}': {_hint(key, view.names)}")
    if as_json:
        answer = {"session_id": head.session_id, "key": key, "version": found.version, "value": found.value}
        click.echo(json_text(answer))
    elif raw and isinstance(found.value, str):
        # Into a file or a pipe it goes as it is (echo would drop escape sequences); a terminal would act on them.
        sys.stdout.write((lines(found.value) if sys.stdout.isatty() else found.value) + "\n")
        sys.stdout.flush()
    else:
        click.echo(json_text(found.value, indent=2))


def _hint(key: str, names: list[str]) -> str:
    if not names:
        return "it has none yet."
    close = difflib.get_close_matches(key, names, 1)
    listed = ", ".join(names[:10]) + (f" and {len(names) - 10:,} more" if len(names) > 10 else "")
    return f"did you mean '{close[0]}'? It has {listed}." if close else f"it has {listed}."
