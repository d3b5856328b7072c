"""`mcp-sessions ls`: the sessions, newest first."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING

import click

from ..querying import parse_query
from ..session import utc_now
from .store import heads, store
from .table import Column, on_terminal, print_table, terminal_width
from .text import age, amount, json_text, money, one_line, shortened

if TYPE_CHECKING:
    from ..models import SessionMetadata

NARROW = 110
"""On a terminal with fewer characters a line, ids are shortened and tokens left out, so that the purpose has room."""
STATUS_STYLES = {"active": "green", "failed": "red", "abandoned": "yellow"}
COLUMNS = (
    Column("id"),
    Column("status", styles=STATUS_STYLES),
    Column("age", right=True),
    Column("messages", right=True),
    Column("calls", right=True),
    Column("tokens", right=True),
    Column("cost", right=True),
    Column("purpose"),
)


@click.command()
@click.argument("query", nargs=-1)
@click.option(
    "--limit", metavar="N", type=click.IntRange(min=1), default=50, show_default=True, help="List at most N sessions."
)
@click.option("--all", "everything", is_flag=True, help="List all of them.")
@click.option(
    "--order",
    type=click.Choice(["updated", "created", "cost", "calls", "duration"]),
    default="updated",
    show_default=True,
    help="What to sort by, the newest or largest first.",
)
@click.option("--reverse", is_flag=True, help="The oldest or smallest first.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array of session heads, one a line.")
def ls(*, query: tuple[str, ...], limit: int, everything: bool, order: str, reverse: bool, as_json: bool) -> None:
    """List the sessions that QUERY names, or all.

    A query is words, each of which must stand in the id, the purpose or a tag, and terms: status:failed tag:bug
    tool:git_log user:ada errors:yes since:7d until:2026-11-01 created:24h id:ses_x 'cost>0.5'. One argument is read as
    a whole line of this language.

    Age is the time since the last change, tokens are those in and out, and "+3?" after a cost says that the price of
    3 more calls is not known. On a terminal ids may be shortened; all commands take the beginning of an id.
    """
    line = query[0] if len(query) == 1 else " ".join(map(_quoted, query))
    with store() as manager:
        if manager is None:
            parse_query(line, utc_now())
            if as_json:
                click.echo("[]")
            click.echo("There are no sessions yet.", err=True)
            return
        page = 1000 if everything else min(limit, 1000)
        found = heads(manager, manager.as_query(line, order=order, reverse=reverse, limit=page))
        if as_json:
            _print_json(found if everything else islice(found, limit))
            return
        listed = list(found if everything else islice(found, limit))
        if listed:
            _print_table(listed, manager.clock())
        else:
            click.echo("No session matches." if query else "There are no sessions yet.", err=True)
        if next(found, None) is not None:
            click.echo(f"There are more than these {len(listed):,}: --all lists all, --limit more.", err=True)


def _quoted(argument: str) -> str:
    """A shell takes the quotes off `tag:"a bug"`; the query language needs them."""
    return re.sub(r"^([a-z_]+:)([^\"]*\s[^\"]*)$", r'\1"\2"', argument)


def _print_json(found: Iterator[SessionMetadata]) -> None:
    before = "["
    for head in found:
        click.echo(before + json_text(head.to_dict()), nl=False)
        before = ",\n"
    click.echo("]" if before != "[" else "[]")


def _print_table(listed: list[SessionMetadata], now: datetime) -> None:
    rows = [_cells(head, now) for head in listed]
    columns = COLUMNS
    if on_terminal() and terminal_width() < NARROW:
        tokens = [column.name for column in COLUMNS].index("tokens")
        columns = COLUMNS[:tokens] + COLUMNS[tokens + 1 :]
        short = _short_ids([head.session_id for head in listed])
        rows = [(short[row[0]], *row[1:tokens], *row[tokens + 1 :]) for row in rows]
    print_table(columns, rows)


def _cells(head: SessionMetadata, now: datetime) -> tuple[str, ...]:
    usage = head.token_usage
    return (
        head.session_id,
        head.status.value,
        age(head.updated_at, now),
        str(head.message_count),
        str(head.total_invocations),
        amount(usage["input"] + usage["output"]),
        money(head.estimated_cost) + (f"+{head.unpriced_invocations}?" if head.unpriced_invocations else ""),
        shortened(one_line(head.purpose or ""), 200),
    )


def _short_ids(ids: list[str]) -> dict[str, str]:
    """Beginnings of generated ids, of one length, at least 12 characters, by which these are still told apart."""
    from ..models import generated

    length = 12
    while len({one[:length] for one in ids}) < len(set(ids)) and length < max(map(len, ids)):
        length += 1
    return {one: one[:length] if generated(one) else one for one in ids}
