"""`mcp-sessions path`: where the sessions are kept."""

from __future__ import annotations

import re

import click

from .text import json_text, one_line

_PASSWORD = re.compile(r"(?<=://)([^/?#@:]*):[^/?#]*@")
_SECRET_FIELD = re.compile(r"([?&](?:password|sslpassword|passfile)=)[^&#]*", re.IGNORECASE)


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
        exists = None if place is None else place.exists()
        click.echo(json_text({"url": without_password(url), "path": place and str(place), "exists": exists}))
    else:
        click.echo(one_line(without_password(url)) if place is None else str(place))


def without_password(url: str) -> str:
    """The url of a store as it may be shown."""
    return _SECRET_FIELD.sub(r"\1***", _PASSWORD.sub(r"\1:***@", url))
