"""`mcp-sessions show`: one session on a screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ..models import ConversationMessage, Invocation, SessionMetadata, View, Want
from .store import store_with
from .table import Column, in_colour, print_table
from .text import age, counted, duration, json_text, lines, money, one_line, shortened, when

if TYPE_CHECKING:
    from datetime import datetime

    from ..manager import SessionManager

LAST = 10
ALL = (1 << 53) - 1
DEEPEST = 8
"""As far as calls within calls are set in."""
LONG = 200
CALL_STYLES = {"error": "red", "interrupted": "red", "cancelled": "yellow", "running": "green"}


def _count(_context: click.Context, _option: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    if text != "all" and not (text.isdecimal() and len(text) < 16):
        raise click.BadParameter(f"{text!r} is neither a number nor all.")
    return ALL if text == "all" else int(text)


@click.command()
@click.argument("session", metavar="ID")
@click.option("--messages", metavar="N|all", callback=_count, help="How many of the last messages, if not 10.")
@click.option("--calls", metavar="N|all", callback=_count, help="How many of the last calls, if not 10.")
@click.option("--data", "with_data", is_flag=True, help="The values of the keys too.")
@click.option("--full", is_flag=True, help="Shorten nothing; of calls, arguments and results too.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print {session, data, messages, invocations} as JSON: all of it, unless --messages or --calls say less.",
)
def show(*, session: str, messages: int | None, calls: int | None, with_data: bool, full: bool, as_json: bool) -> None:
    """Show session ID: what it is, its keys, its last messages, its last calls.

    ID is a session's id, the beginning of one, or - for the one last updated. In JSON, data is an object of
    {value, version} by key, messages and invocations are in the order in which they were made.
    """
    few = ALL if as_json else LAST
    with store_with(session) as (manager, head):
        want = Want(
            prefix="" if with_data or as_json else None, names=True, messages=few if messages is None else messages
        )
        view = manager.view(head.session_id, want)
        records = _calls(manager, head.session_id, few if calls is None else calls)
        now = manager.clock()
    said, records = view.messages[::-1], records[::-1]
    if as_json:
        whole = {
            "session": view.metadata.to_dict(),
            "data": {key: value.model_dump(mode="json") for key, value in view.data.items()},
            "messages": [message.to_dict() for message in said],
            "invocations": [record.to_dict() for record in records],
        }
        click.echo(json_text(whole))
        return
    _print_head(view.metadata, now)
    _print_keys(view, with_data, full)
    if said:
        _title(f"Messages {said[0].seq} to {said[-1].seq}")
        for message in said:
            _print_message(message, full)
    if records:
        _title(f"Last {counted(len(records), 'call')}")
        _print_calls(records, full)


def _calls(manager: SessionManager, session_id: str, count: int) -> list[Invocation]:
    """The last calls, newest first."""
    records: list[Invocation] = []
    cursor = None
    while len(records) < count:
        page = manager.invocations(session_id, limit=min(count, 1000), cursor=cursor)
        records += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
    return records[:count]


def _title(text: str) -> None:
    click.echo("\n" + (click.style(text, bold=True) if in_colour() else text))


def _print_head(head: SessionMetadata, now: datetime) -> None:
    _print_facts(
        {
            "session": head.session_id,
            "status": head.status.value,
            "purpose": head.purpose,
            "tags": ", ".join(head.tags),
            "user": head.user_id,
            "parent": head.parent_id,
            "created": f"{when(head.created_at)} ({age(head.created_at, now)} ago)",
            "updated": f"{when(head.updated_at)} ({age(head.updated_at, now)} ago)",
            "ended": head.ended_at and when(head.ended_at),
            "revision": str(head.revision),
            "messages": f"{head.message_count:,}",
            "calls": _work(head),
            "tools": ", ".join(head.tools_used),
            "tokens": _tokens(head),
            "cost": _cost(head),
            "metadata": json_text(head.custom_metadata) if head.custom_metadata else None,
        }
    )
    if head.summary:
        _title("Summary")
        click.echo(lines(head.summary))


def _print_facts(facts: dict[str, str | None]) -> None:
    width = max(map(len, facts)) + 2
    for name, fact in facts.items():
        if fact:
            click.echo(f"{name.ljust(width)}{one_line(fact)}")


def _work(head: SessionMetadata) -> str:
    if not head.total_invocations:
        return "0"
    failed = f", {head.failed_invocations:,} failed" if head.failed_invocations else ""
    return f"{head.total_invocations:,}{failed}, {duration(head.total_duration_ms)} in all"


def _tokens(head: SessionMetadata) -> str | None:
    usage = head.token_usage
    if not any(usage.values()):
        return None
    return (
        f"{usage['input']:,} in ({usage['cache_read']:,} read from the cache, {usage['cache_write']:,} written to it), "
        f"{usage['output']:,} out"
    )


def _cost(head: SessionMetadata) -> str | None:
    if not head.estimated_cost and not head.unpriced_invocations:
        return None
    unknown = head.unpriced_invocations
    return money(head.estimated_cost) + (f" and {counted(unknown, 'call')} of unknown price" if unknown else "")


def _print_keys(view: View, with_data: bool, full: bool) -> None:
    if not view.names:
        return
    _title(counted(len(view.names), "key"))
    if not with_data:
        click.echo(shortened(", ".join(map(one_line, view.names)), ALL if full else 4 * LONG))
        return
    for key, value in view.data.items():
        text = json_text(value.value, indent=2) if full else shortened(json_text(value.value), LONG)
        click.echo(f"{one_line(key)} (version {value.version}): {text}")


def _print_message(message: ConversationMessage, full: bool) -> None:
    who = message.role if message.tool_name is None else f"{message.role} {one_line(message.tool_name)}"
    asked = ", ".join(one_line(call.name) for call in message.tool_calls or ())
    head = f"{message.seq}  {when(message.timestamp)}  {who}" + (f"  calls {asked}" if asked else "")
    if full:
        click.echo(f"{head}\n{lines(message.content)}\n")
        return
    # Cut before it is cleaned, so that a message of a megabyte costs no more than its beginning.
    content = message.content
    short = one_line(content[: 4 * LONG])[:LONG]
    cut = f"… ({len(content):,} characters)" if len(content) > 4 * LONG or len(one_line(content)) > LONG else ""
    click.echo(f"{head}  {short}{cut}")


def _print_calls(records: Sequence[Invocation], full: bool) -> None:
    columns = (
        Column("started"),
        Column("took", right=True),
        Column("status", styles=CALL_STYLES),
        Column("caller"),
        Column("tool"),
        Column("error" if any(record.error for record in records) else ""),
    )
    depth: dict[str | None, int] = {}  # id -> how many calls it was made within, of those shown
    for record in records:
        depth[record.invocation_id] = depth[record.parent_id] + 1 if record.parent_id in depth else 0
    rows = [
        (
            when(record.started_at),
            duration(record.duration_ms),
            record.status.value,
            one_line(record.caller),
            "  " * min(depth[record.invocation_id], DEEPEST) + one_line(record.tool_name),
            shortened(one_line(record.error.message), ALL if full else LONG) if record.error else "",
        )
        for record in records
    ]
    if not full:
        print_table(columns, rows)
        return
    for record, row in zip(records, rows, strict=True):
        click.echo("  ".join(row).rstrip())
        click.echo(json_text(record.to_dict(), indent=2))
