"""`mcp-sessions workflow`: run workflows, and see to their runs; each run is a session."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .exits import Failed, Missing, Misused
from .store import store, store_with
from .table import Column, print_table
from .text import age, duration, json_text, lines, one_line, shortened, when

if TYPE_CHECKING:
    from collections.abc import Awaitable, Generator

    from ..manager import SessionManager
    from ..workflows import Event, WorkflowDefinition, WorkflowEngine, WorkflowExecutionResult

    Going = Callable[[WorkflowEngine, Callable[[Event], object]], Awaitable[WorkflowExecutionResult]]

STYLES = {
    "completed": "green",
    "failed": "red",
    "partial": "yellow",
    "waiting": "yellow",
    "running": "cyan",
    "cancelled": "magenta",
}
MOST_SHOWN = 40
"""Steps, on a terminal: the last ones."""
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def workflow() -> None:
    """Run workflows, and see to their runs.

    A run is a session: `mcp-sessions show ID` shows its conversation, its keys and its calls.
    """


@workflow.command()
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def validate(file: Path, as_json: bool) -> None:
    """Check a workflow without running it. Exit status 2 where it cannot be run, with each line that is to blame."""
    from ..errors import WorkflowDefinitionError
    from ..workflows.definition import named
    from ..workflows.means import Means

    try:
        definition = _definition(file)
        Means().check(definition, with_secrets=False)
        for step in definition.steps.values():
            if step.workflow is not None:
                named(step.workflow, None, definition.base)
    except WorkflowDefinitionError as error:
        if as_json:
            click.echo(json_text({"valid": False, "faults": list(error.faults)}))
        for fault in () if as_json else error.faults:
            click.echo(one_line(fault), err=True)
        sys.exit(2)
    steps = sum(1 for _ in definition.spec.walk())
    if as_json:
        click.echo(json_text({"valid": True, "name": definition.name, "steps": steps, "sha256": definition.sha256}))
    else:
        click.echo(f"{file}: {one_line(definition.name)} is fine: {steps} steps.")


@workflow.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--input", "inputs", multiple=True, metavar="NAME=VALUE", help="An input; what is no text is JSON.")
@click.option(
    "--session-id", metavar="ID", help="Run in this session, or go on with the run there. Default: a new one."
)
@json_option
def run(file: Path, inputs: tuple[str, ...], session_id: str | None, as_json: bool) -> None:
    """Run a workflow to its end, or until it waits for a person. Exit status 0 only where it is completed.

    FILE is a YAML or JSON file, or a name in the directory MCP_SESSIONS_WORKFLOW_DIR.
    """
    from ..drafts import checked_id

    definition = _definition(file)
    given = _inputs(definition, inputs)
    if session_id is not None:
        checked_id(session_id, "--session-id")
    with _runs() as manager:
        session_id = session_id or manager.make_id("ses")
        named = session_id
        _went(
            manager,
            named,
            lambda engine, notify: engine.execute(definition, given or None, named, notify=notify),
            as_json,
        )


@workflow.command()
@click.argument("session")
@json_option
def status(session: str, as_json: bool) -> None:
    """Show how far a run is. SESSION is its id, a beginning of it, or - for the session last updated."""
    with store_with(session, of_workflows=True) as (manager, head):
        result = _engine(manager).status(head.session_id)
    if as_json:
        click.echo(json_text(result.to_dict()))
        return
    _show(result)


@workflow.command()
@click.argument("session")
@click.option("--from", "from_step", metavar="STEP", help="Run this step again, and all that need it.")
@json_option
def resume(session: str, from_step: str | None, as_json: bool) -> None:
    """Go on with a run, by the text that it began with. What failed is run again."""
    with store_with(session, of_workflows=True) as (manager, head):
        session_id = head.session_id
        _went(
            manager,
            session_id,
            lambda engine, notify: engine.resume(session_id, from_step, notify=notify),
            as_json,
        )


@workflow.command()
@click.argument("session")
@click.argument("step")
@click.option("--approve/--reject", "approved", default=None, help="What you say; one of them is needed.")
@click.option("--comment", metavar="TEXT", help="Why; it stands in the step's result.")
@json_option
def respond(session: str, step: str, approved: bool | None, comment: str | None, as_json: bool) -> None:
    """Answer a step that waits, and go on with its run."""
    if approved is None:
        raise click.UsageError("Say --approve or --reject.")
    with store_with(session, of_workflows=True) as (manager, head):
        session_id = head.session_id
        _went(
            manager,
            session_id,
            lambda engine, notify: engine.respond(session_id, step, approved, comment, by="cli", notify=notify),
            as_json,
        )


@workflow.command()
@click.argument("session")
@click.option("--reason", metavar="TEXT", help="Why; it stands in the run.")
@json_option
def cancel(session: str, reason: str | None, as_json: bool) -> None:
    """End a run; what is at work is cancelled."""
    import anyio

    with store_with(session, of_workflows=True) as (manager, head):
        result = anyio.run(_engine(manager).cancel, head.session_id, reason)
    if as_json:
        click.echo(json_text(result.to_dict()))
    else:
        click.echo(f"Session {result.session_id}: {result.status.value}.", err=True)


@workflow.command(name="ls")
@click.option("--workflow", "name", metavar="NAME", help="Of this workflow alone.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@json_option
def list_runs(name: str | None, limit: int, as_json: bool) -> None:
    """List runs, the last changed first."""
    from ..session import utc_now

    with store(of_workflows=True) as manager:
        found = [] if manager is None else _engine(manager).list_runs(name, limit)
    if as_json:
        click.echo(json_text([_listed(one) for one in found]))
        return
    if not found:
        click.echo("There are no runs yet. `mcp-sessions workflow run FILE` makes one.", err=True)
        return
    columns = [Column("SESSION"), Column("STATUS", styles=STYLES), Column("BEGUN", right=True), Column("WORKFLOW")]
    now = utc_now()
    rows = [(one.session_id, one.status.value, age(one.started_at, now), one_line(one.workflow_id)) for one in found]
    print_table(columns, rows)


@workflow.command()
def schema() -> None:
    """Print the JSON Schema of workflows, for editors."""
    from ..workflows.model import json_schema

    click.echo(json_text(json_schema(), indent=2))


def _listed(result: WorkflowExecutionResult) -> dict[str, Any]:
    told = result.to_dict()
    return {name: told[name] for name in told if name != "step_results"}


def _definition(file: Path) -> WorkflowDefinition:
    from ..config import Settings
    from ..workflows import WorkflowDefinition
    from ..workflows.definition import checked_name, named

    if not file.is_file() and checked_name(str(file)):
        directory = Settings().workflow_dir
        if directory is not None:
            return named(str(file), directory, None)
    try:
        return WorkflowDefinition.from_file(file)
    except FileNotFoundError:
        raise Missing(f"{file}: Workflow file not found.") from None


def _inputs(definition: WorkflowDefinition, pairs: tuple[str, ...]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise click.UsageError(f"--input {pair[:80]!r} is no NAME=VALUE.")
        rule = definition.spec.inputs.get(name)
        given[name] = text if rule is None or rule.type == "string" else _value(name, text, rule.type)
    return given


def _value(name: str, text: str, kind: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        if kind == "any":
            return text
        raise Misused(f"--input {name}: {text[:80]!r} is not {kind}. Give it as JSON, as in {name}=3.") from None


@contextmanager
def _runs() -> Generator[SessionManager]:
    from ..config import Settings
    from ..default import manager_from, workflow_storage

    settings = Settings()
    with manager_from(settings, workflow_storage(settings)) as manager:
        manager.interrupt_dead()
        yield manager


def _engine(manager: SessionManager) -> WorkflowEngine:
    from ..config import Settings
    from ..workflows import WorkflowEngine
    from ..workflows.secrets import Secrets
    from .toolbox import reach

    settings = Settings()
    secrets = Secrets.of_environment(settings.workflow_secrets)
    return WorkflowEngine(manager, secrets=secrets, reach=reach(settings, for_clients=False))


def _went(manager: SessionManager, session_id: str, go: Going, as_json: bool) -> None:
    """Go on with a run, show how it goes, and how it went."""
    import anyio

    from ..storage import MemorySessionStorage

    with _shown() as notify:
        engine = _engine(manager)
        result = anyio.run(_until_signal, lambda: go(engine, notify), manager.storage.give_up)
    if result is None:
        raise Failed(f"The run stays where it is. Go on with it: mcp-sessions workflow resume {session_id}")
    if result.status.value == "waiting" and isinstance(manager.storage, MemorySessionStorage):
        raise Failed(
            f"The run waits for a person ({', '.join(result.waiting_for)}), and is gone with this process: its store "
            "is memory. Keep runs elsewhere (WORKFLOW_SESSION_STORAGE, MCP_SESSIONS_STORAGE)."
        )
    click.echo(json_text(result.to_dict()) if as_json else json_text(result.outputs, indent=2))
    _told(result)
    if result.status.value != "completed":
        sys.exit(1)


async def _until_signal(
    go: Callable[[], Awaitable[WorkflowExecutionResult]], give_up: Callable[[], None]
) -> WorkflowExecutionResult | None:
    """Its result; None where Ctrl-C or SIGTERM ended it first."""
    from ..agents.waiting import first_error
    from ..server.ending import cancelled_by_signal

    with first_error():
        async with cancelled_by_signal(give_up):
            return await go()
    return None


def _told(result: WorkflowExecutionResult) -> None:
    click.echo(f"Session {result.session_id}: {result.status.value}.", err=True)
    if result.error is not None:
        click.echo(one_line(result.error), err=True)
    for path, message in result.waiting_for.items():
        click.echo(f"{path} asks: {one_line(message)}", err=True)
        click.echo(f"  mcp-sessions workflow respond {result.session_id} {path} --approve (or --reject)", err=True)


def _show(result: WorkflowExecutionResult) -> None:
    idle = result.status.value == "running" and not result.at_work
    click.echo(f"{one_line(result.workflow_id)}  {result.status.value}  begun {when(result.started_at)}")
    rows = [
        (path, one.status.value, _took(one.started_at, one.completed_at), _about(one.error, one.message))
        for path, one in result.step_results.items()
    ]
    if rows:
        print_table([Column("STEP"), Column("STATUS", styles=STYLES), Column("TIME", right=True), Column("")], rows)
    _told(result)
    if idle:
        click.echo(f"No process goes on with it: mcp-sessions workflow resume {result.session_id}", err=True)


def _took(begin: Any, end: Any) -> str:
    return "-" if begin is None or end is None else duration((end - begin).total_seconds() * 1000)


def _about(error: Any, message: str | None) -> str:
    return shortened(one_line(error.message if error is not None else message or ""), 200)


@contextmanager
def _shown() -> Generator[Callable[[Event], object]]:
    """What shows on stderr how a run goes: a table that changes on a terminal, elsewhere a line for each step."""
    if sys.stderr is None or not sys.stderr.isatty():  # pyright: ignore[reportUnnecessaryComparison] - None where it is closed
        yield _line
        return
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    seen: dict[str, Event] = {}

    def drawn() -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
        for path, event in list(seen.items())[-MOST_SHOWN:]:
            state = event.state
            text = Text(state.status.value, style=STYLES.get(state.status.value, ""))
            about = _about(state.error, state.message)
            table.add_row(
                Text(path), text, _took(state.started_at, state.completed_at), Text(about, overflow="ellipsis")
            )
        return table

    with Live(console=Console(stderr=True), get_renderable=drawn, refresh_per_second=8):

        def heard(event: Event) -> None:
            seen[event.path] = event

        yield heard


def _line(event: Event) -> None:
    state = event.state
    if state.over or state.status.value == "waiting":
        about = _about(state.error, state.message)
        took = _took(state.started_at, state.completed_at)
        click.echo(lines(f"{event.path}  {state.status.value}  {took}  {about}".rstrip(" -")), err=True)
