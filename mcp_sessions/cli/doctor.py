"""`mcp-sessions doctor`: is everything in order, and what to do where it is not."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import click

from ..errors import ConfigError, SchemaChangedError, StorageBusyError, StorageDamagedError, StorageError
from .clients import configured
from .table import in_colour
from .text import counted, json_text, one_line, when, without_password
from .version import version

if TYPE_CHECKING:
    from ..config import Settings
    from ..manager import SessionManager
    from ..models import Finding, Invocation, InvocationQuery

STYLES = {"ok": "green", "warning": "yellow", "fault": "red"}
ANEW = (
    "end every process that uses the store, copy its files somewhere safe, copy the sessions into a new store "
    "(mcp-sessions import sessions FILE --to URL), and report this with this output"
)
SHOWN = 5
COUNTED = 999


@dataclass(frozen=True)
class Line:
    """One thing that was looked at; `next` is what to do about it."""

    level: Literal["ok", "warning", "fault"]
    what: str
    detail: str = ""
    next: str = ""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print {version, ok, findings} as JSON.")
@click.option("--repair", is_flag=True, help="First mend what can be mended without losing anything, and say what was.")
@click.pass_context
def doctor(ctx: click.Context, *, as_json: bool, repair: bool) -> None:
    """Check the settings, the whole store, its calls, and the configurations of MCP clients.

    Each line says ok, warning or fault, what was looked at, and what to do next. Calls whose process has died are
    marked as interrupted. Exit status 1 where there is a fault. In JSON, findings is an array of
    {level, what, detail, next}.
    """
    found: list[Line] = []
    for line in _examine(repair=repair):
        found.append(line)
        if not as_json:
            _print(line)
    faults = sum(line.level == "fault" for line in found)
    if as_json:
        click.echo(json_text({"version": version(), "ok": not faults, "findings": [asdict(line) for line in found]}))
    elif faults:
        click.echo(f"{counted(faults, 'fault')} found.", err=True)
    if faults:
        ctx.exit(1)


def _print(line: Line) -> None:
    level = line.level.ljust(7)
    text = f"{one_line(line.what)}: {one_line(line.detail)}" if line.detail else one_line(line.what)
    click.echo(f"{click.style(level, fg=STYLES[line.level]) if in_colour() else level}  {text}")
    if line.next:
        click.echo(f"         -> {one_line(line.next)}")


def _examine(*, repair: bool) -> Iterator[Line]:
    yield Line("ok", "mcp-sessions", version())
    yield Line("ok", "Python", f"{platform.python_version()} on {platform.platform(terse=True)}")
    settings = None
    try:
        from ..config import Settings

        settings = Settings()
        yield Line("ok", "settings", "every one can be used")
    except ConfigError as error:
        for sentence in str(error).splitlines():
            yield Line("fault", "settings", sentence, "correct it in the environment or in .env")
    if settings is not None:
        yield from _store(settings, repair=repair)
    yield from _clients()


def _store(settings: Settings, *, repair: bool) -> Iterator[Line]:
    from ..default import manager_from
    from ..storage import location

    url = without_password(settings.storage)
    try:
        place = location(settings.storage)
        if place is not None and not place.exists():
            yield Line("ok", "store", f"{url}: not yet created; the first session makes it")
            return
        with manager_from(settings) as manager:
            yield Line("ok", "store", url)
            for done in manager.storage.repair() if repair else ():
                yield _line(done)
            for finding in manager.check():
                yield _line(finding)
            yield from _calls(manager)
    except StorageDamagedError as error:
        yield Line("fault", "store", f"{url}: it is damaged ({error.fact})", ANEW)
    except (ConfigError, StorageError, OSError) as error:
        yield Line("fault", "store", f"{url}: {without_password(str(error))}", _way_out(error))


def _line(finding: Finding) -> Line:
    return Line(finding.level, finding.what, finding.detail, finding.next or (ANEW if finding.level == "fault" else ""))


def _way_out(error: Exception) -> str:
    if isinstance(error, ConfigError):
        return "set MCP_SESSIONS_STORAGE to one of them, or leave it out"
    if isinstance(error, StorageBusyError):
        return "end that process, then run doctor again"
    if isinstance(error, SchemaChangedError):
        return "python -m pip install --upgrade mcp-sessions"
    return "see to what it says, or set MCP_SESSIONS_STORAGE to another place, then run doctor again"


def _calls(manager: SessionManager) -> Iterator[Line]:
    """The calls that run, those whose process died, and the records that came late."""
    from ..models import InvocationQuery, InvocationStatus
    from ..reads import LATE

    for record in manager.interrupt_dead():
        again = "call it again with the same invocation id; it runs as the next attempt"
        yield Line("warning", "interrupted call", f"{_named(record)}: its process died; now marked", again)
    running = _records(manager, InvocationQuery(status=InvocationStatus.RUNNING))
    yield Line("ok", "running calls", _told(running))
    over = _records(manager, InvocationQuery(status=InvocationStatus.INTERRUPTED))
    yield Line("ok", "interrupted calls on record", _told(over))
    late = _records(manager, InvocationQuery(tool=LATE))
    for record in late[:SHOWN]:
        fact = f"{when(record.started_at)}: {record.error.message if record.error else ''}"
        yield Line("warning", "records of reads were written late", fact, "see that the disk has room and is sound")
    if not late:
        yield Line("ok", "records of reads", "no delay is on record")


def _records(manager: SessionManager, query: InvocationQuery) -> list[Invocation]:
    """The newest, one more than are counted."""
    return manager.storage.invocations(query.model_copy(update={"limit": COUNTED + 1})).items


def _told(records: list[Invocation]) -> str:
    """How many, and the newest of them."""
    count = f"more than {COUNTED}" if len(records) > COUNTED else str(len(records))
    return "; ".join([count, *map(_named, records[:SHOWN])])


def _named(record: Invocation) -> str:
    where = f"session {record.session_id}" if record.session_id else "no session"
    return f"{record.tool_name} {record.invocation_id} of {where}, {record.caller}, {when(record.started_at)}"


def _clients() -> Iterator[Line]:
    states = configured()
    for state in states:
        detail = f"{state.path}: {state.detail}"
        if state.state == "broken":
            # Where an entry is to blame, the detail ends with the command that mends it.
            yield Line("fault", state.client, detail, f"mend {state.path}, then: mcp-sessions install {state.client}")
        else:
            yield Line("ok", state.client, detail)
    if not any(state.state in ("configured", "broken") for state in states):
        yield Line("warning", "clients", "none starts mcp-sessions", "mcp-sessions install CLIENT")
