"""`mcp-sessions import`: sessions from elsewhere, copied into the store.

Each session goes over whole, in one commit, so an import that was killed goes on where it was when it is run again.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import click

from ..errors import (
    ConflictError,
    InvalidArgumentError,
    SessionExistsError,
    SessionNotFoundError,
    SessionsError,
)
from .exits import Failed, Misused
from .table import Column, print_table
from .text import counted, json_text, one_line

if TYPE_CHECKING:
    from ..models import Invocation, View
    from ..storage import SessionStorage

T = TypeVar("T")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # of one letter is a drive
_SQLITE = b"SQLite format 3\0"
STYLES = {"copied": "green", "diverged": "red", "failed": "red"}
COLUMNS = (Column("outcome", styles=STYLES), Column("session"), Column("detail"))


@dataclass(frozen=True)
class Session:
    """A session of a source: what it is called there, and how it is read."""

    name: str
    read: Callable[[], View]


@dataclass(frozen=True)
class Source:
    """Where sessions come from; `records` are of calls that belong to none of them."""

    count: int
    sessions: Iterable[Session]
    records: Iterable[Invocation] = ()


@dataclass
class Outcome:
    """What became of a session; `copy` is its id where that is another one."""

    session_id: str
    outcome: Literal["copied", "same", "ahead", "diverged", "failed"]
    copy: str | None = None
    error: str | None = None


@dataclass
class Report:
    """What an import did, or would do."""

    dry_run: bool
    sessions: list[Outcome] = field(default_factory=list[Outcome])
    records: int = 0

    def of(self, *outcomes: str) -> list[Outcome]:
        return [one for one in self.sessions if one.outcome in outcomes]


@click.group(name="import")
def importing() -> None:
    """Copy sessions from another place into the store."""


@importing.command()
@click.argument("source", metavar="DIR|URL|FILE")
@click.option("--to", metavar="URL", help="The store to copy into, if not that of the settings.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option(
    "--as-new", is_flag=True, help="Copy a session that differs from the one there beside it, under a new id."
)
@click.option("--json", "as_json", is_flag=True, help="Print {dry_run, sessions, records} as JSON.")
@click.pass_context
def sessions(ctx: click.Context, *, source: str, to: str | None, dry_run: bool, as_new: bool, as_json: bool) -> None:
    """Copy sessions into the store: those in DIR, those of the store URL, or that in FILE.

    DIR has sessions of the old layout in it or below it, or is a store of files. FILE is a SQLite store, or what
    session_export wrote as JSON. A session that is there already, as it is in the source or further on, is passed
    over, so an import may be repeated. Where the source has something that the one there lacks, nothing is copied
    unless --as-new. What cannot be read is named, the rest is copied, and the exit status is 1.
    """
    report = Report(dry_run)
    with _opened(source) as found, _target(to, dry_run=dry_run) as target:
        for session in _watched(found.sessions, found.count):
            report.sessions.append(_outcome(target, session, as_new=as_new, dry_run=dry_run))
        report.records = _copy_records(target, found.records, dry_run=dry_run)
    if as_json:
        given = [{name: value for name, value in asdict(one).items() if value is not None} for one in report.sessions]
        click.echo(json_text({"dry_run": dry_run, "sessions": given, "records": report.records}))
    else:
        _tell(report)
    if report.of("diverged", "failed"):
        ctx.exit(1)


# the two stores


@contextmanager
def _opened(text: str) -> Generator[Source]:
    from ..storage import location

    folder = location(text) if text.startswith("file:") else None
    if folder is None and _URL.match(text):
        place = location(text)
        if place is not None and not place.exists():
            raise Misused(f"{place} is not there, so there is nothing to copy.")
        with _stored(text) as source:
            yield source
        return
    path = folder or Path(text).absolute()
    if path.is_dir():
        with _in_folder(path) as source:
            yield source
    elif not path.exists():
        raise Misused(f"{path} is not there. Give a folder, a file, or the url of a store.")
    elif _begins_as_sqlite(path):
        from ..config import sqlite_url

        with _stored(sqlite_url(path)) as source:
            yield source
    else:
        yield Source(1, [Session(str(path), partial(_exported, path))])


@contextmanager
def _stored(url: str) -> Generator[Source]:
    from ..models import Query
    from ..storage import open_storage
    from ..storage.copying import every_session, loose_records, whole

    with open_storage(url) as storage:
        heads = every_session(storage)
        named = (Session(head.session_id, partial(whole, storage, head.session_id)) for head in heads)
        yield Source(storage.totals(Query())[0].sessions, named, loose_records(storage))


@contextmanager
def _in_folder(path: Path) -> Generator[Source]:
    """What a store of files holds there, if it is one, and the sessions of the old layout.

    It is opened only if it is one: opening makes one of any folder.
    """
    from ..storage.files.folder import is_store
    from ..storage.files.legacy import legacy_sessions, read_legacy

    with _stored(path.as_uri()) if is_store(path) else nullcontext() as store:
        old = [Session(str(directory), partial(read_legacy, directory)) for directory in legacy_sessions(path)]
        if store is not None:
            yield Source(store.count + len(old), chain(store.sessions, old), store.records)
        elif old:
            yield Source(len(old), old)
        else:
            raise Failed(f"There is no session (a folder with metadata.json) in {path} or below it.")


def _begins_as_sqlite(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE


def _exported(path: Path) -> View:
    from ..storage.copying import settled
    from ..tools.exporting import imported

    return settled(imported(path.read_bytes()))


@contextmanager
def _target(url: str | None, *, dry_run: bool) -> Generator[SessionStorage]:
    from ..config import Settings
    from ..default import manager_from
    from ..storage import MemorySessionStorage, location

    settings = Settings()
    if url is not None:
        settings = settings.model_copy(update={"storage": url})
    place = location(settings.storage)
    if dry_run and place is not None and not place.exists():
        settings = settings.model_copy(update={"storage": "memory:"})  # it would be made, with nothing in it
    with manager_from(settings) as manager:
        if isinstance(manager.storage, MemorySessionStorage) and not dry_run:
            raise Misused("A store in memory ends with this command. Give another one: --to sqlite:///abs/path.db.")
        yield manager.storage


# copying


def _outcome(target: SessionStorage, session: Session, *, as_new: bool, dry_run: bool) -> Outcome:
    try:
        view = session.read()
    except (SessionsError, OSError) as error:
        return Outcome(session.name, "failed", error=str(error))
    try:
        return _brought(target, view, as_new=as_new, dry_run=dry_run)
    except (InvalidArgumentError, SessionExistsError, ConflictError) as error:
        return Outcome(view.metadata.session_id, "failed", error=str(error))


def _brought(target: SessionStorage, view: View, *, as_new: bool, dry_run: bool) -> Outcome:
    from ..storage.copying import beside, relation, whole
    from ..storage.restoring import checked

    session_id = view.metadata.session_id
    try:
        there = whole(target, session_id)
    except SessionNotFoundError:
        checked(view)
        if not dry_run:
            target.restore(view)
        return Outcome(session_id, "copied")
    how = relation(there, view)
    if how != "diverged":
        return Outcome(session_id, how)
    if not as_new:
        fact = "It is there already, and the source has what it lacks. Copy it beside with --as-new, or delete one."
        return Outcome(session_id, how, error=fact)
    other = _brought(target, beside(view), as_new=False, dry_run=dry_run)
    return Outcome(session_id, other.outcome, copy=other.session_id, error=other.error)


def _copy_records(target: SessionStorage, records: Iterable[Invocation], *, dry_run: bool) -> int:
    """How many were not there."""
    from ..storage.copying import add_loose, loose_records

    known: set[str] | None = None
    count = 0
    for record in records:
        if known is None:
            known = {one.invocation_id for one in loose_records(target)}
        if record.invocation_id not in known:
            count += 1
            if not dry_run:
                add_loose(target, record)
    return count


# what a person sees


def _watched(items: Iterable[T], count: int) -> Iterator[T]:
    """The items, and on a terminal how far it is."""
    if sys.stderr is None or not sys.stderr.isatty():  # pyright: ignore[reportUnnecessaryComparison] - None where it is closed
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(items, "Copying sessions", total=count, console=Console(stderr=True), transient=True)


def _tell(report: Report) -> None:
    if report.dry_run and report.sessions:
        print_table(COLUMNS, [(one.outcome, one_line(one.session_id), _detail(one)) for one in report.sessions])
    for one in report.of("diverged", "failed") if not report.dry_run else ():
        click.echo(f"{one_line(one.session_id)}: {_detail(one)}", err=True)
    copied = counted(len(report.of("copied")), "session")
    facts = [f"{copied} {'would be ' if report.dry_run else ''}copied"]
    for count, what in (
        (sum(one.outcome == "copied" and one.copy is not None for one in report.sessions), "under a new id"),
        (len(report.of("same")), "there already"),
        (len(report.of("ahead")), "further on there than in the source"),
        (len(report.of("diverged")), "different there"),
        (len(report.of("failed")), "not taken"),
    ):
        facts += [f"{count:,} {what}"] if count else []
    if report.records:
        facts.append(f"{counted(report.records, 'record')} of calls without a session")
    click.echo(", ".join(facts) + ".", err=True)


def _detail(one: Outcome) -> str:
    return one_line(one.error or (f"as {one.copy}" if one.copy else ""))
