"""`mcp-sessions set`: a key's value, written through the same door as any other caller's."""

from __future__ import annotations

import json
from typing import Any, NoReturn

import click

from .store import store_with
from .text import json_text, one_line

CALLER = "cli"


# What looks like an option may be a value: `set ID KEY -5`.
@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("session", metavar="ID")
@click.argument("key")
@click.argument("value")
@click.option("--string", "as_string", is_flag=True, help="VALUE is text, even if it could be JSON.")
@click.option(
    "--if-version",
    metavar="N",
    type=click.IntRange(min=0),
    help="Only if the key is still at version N; 0: only if it does not exist.",
)
@click.option("--json", "as_json", is_flag=True, help="Print {session_id, key, version} as JSON.")
def set_value(*, session: str, key: str, value: str, as_string: bool, if_version: int | None, as_json: bool) -> None:
    """Set KEY of session ID to VALUE: JSON, or else text.

    ID is a session's id, the beginning of one, or - for the one last updated. The call is on the session's record as
    one of caller "cli".
    """
    with store_with(session) as (manager, head):
        from ..tools import invoke

        arguments: dict[str, Any] = {
            "session_id": head.session_id,
            "key": key,
            "value": value if as_string else _parsed(value),
        }
        if if_version is not None:
            arguments["expected_version"] = if_version
        result = invoke(manager, "session_set", arguments, caller=CALLER)
    if as_json:
        click.echo(json_text({name: result[name] for name in ("session_id", "key", "version")}))
    else:
        click.echo(f"{one_line(key)} of session {head.session_id} is set, at version {result['version']}.", err=True)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return text


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
