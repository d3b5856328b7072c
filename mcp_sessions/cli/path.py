"""`mcp-sessions path`: where the sessions are kept."""

from __future__ import annotations

import click

from .text import json_text, one_line, without_password


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print {url, path, exists} as JSON.")
def path(*, as_json: bool) -> None:
    """Print where the sessions are kept: a path, or the url of a store that is not a file.

    Passwords in a url are left out. Nothing is created. MCP_SESSIONS_STORAGE names another place.
    """
    from ..config import Settings
    from ..storage import location

    url = Settings().storage
    place = location(url)
    if as_json:
        found = {"path": None, "exists": None} if place is None else {"path": str(place), "exists": place.exists()}
        click.echo(json_text({"url": without_password(url), **found}))
    else:
        click.echo(one_line(without_password(url)) if place is None else str(place))
