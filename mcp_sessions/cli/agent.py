"""`mcp-sessions agent`: ask an agent about a codebase; the conversation is a session of the store."""

from __future__ import annotations

import math
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from ..drafts import checked_id
from .text import json_text, lines

if TYPE_CHECKING:
    from ..agents.executors.base import OnText
    from ..agents.explore import Operation
    from ..manager import SessionManager
    from ..models import Invocation

OPERATIONS = ("explore", "find-implementation", "analyze-structure", "find-usage", "explain-flow", "decompose")


@click.command()
@click.argument("operation", type=click.Choice(OPERATIONS), metavar="OPERATION")
@click.argument("question")
@click.option(
    "--path",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(),
    help="The codebase. Default: the directory you are in.",
)
@click.option(
    "--executor",
    metavar="NAME",
    help="claude, codex, copilot, or model:PROVIDER:NAME. Default: the first of MCP_SESSIONS_AGENT_EXECUTORS.",
)
@click.option("--model", metavar="NAME", help="The model that a program uses. Default: its own choice.")
@click.option("--session", metavar="ID", help="Go on in this session, which is made if need be. Default: a new one.")
@click.option("--json", "as_json", is_flag=True, help="Print {session_id, operation, result, invocation_id, cost}.")
def agent(
    *,
    operation: str,
    question: str,
    path: Path,
    executor: str | None,
    model: str | None,
    session: str | None,
    as_json: bool,
) -> None:
    """Ask an agent about a codebase. OPERATION is explore, find-implementation, analyze-structure, find-usage,
    explain-flow or decompose.

    It remembers what was said in its session. On a terminal the answer is shown as it comes.
    """
    import anyio

    from ..config import Settings
    from ..default import manager_from
    from .toolbox import reach

    if not question.strip() and operation != "analyze-structure":
        raise click.UsageError(f"QUESTION is empty: say what to {operation.replace('-', ' ')}.")
    settings = Settings()
    session_id = None if session is None else checked_id(session, "--session")
    about = {"model": model, **reach(settings, for_clients=False).settings(executor, str(path))}
    with manager_from(settings) as manager:
        manager.interrupt_dead()
        about["session_id"] = session_id = session_id or manager.make_id("ses")
        shown = _Shown() if not as_json and operation != "decompose" and sys.stdout.isatty() else None
        invocation_id = manager.make_id("inv")
        asking = partial(_asked, manager, operation.replace("-", "_"), question, about, invocation_id, shown)
        answer = anyio.run(asking)
        records = _records(manager, session_id, invocation_id)
    if as_json:
        click.echo(json_text(_told(operation, answer, records)))
        return
    if shown is not None:
        click.echo("" if shown.some else lines(answer))
    else:
        click.echo(answer if isinstance(answer, str) else json_text(answer, indent=2))
    click.echo(_summary(records), err=True)


class _Shown:
    """What comes of an answer, as it comes."""

    some = False

    async def __call__(self, text: str) -> None:
        self.some = True
        sys.stdout.write(lines(text))
        sys.stdout.flush()


async def _asked(
    manager: SessionManager,
    operation: str,
    question: str,
    about: dict[str, Any],
    invocation_id: str,
    on_text: OnText | None,
) -> Any:
    """The answer; Ctrl-C and SIGTERM end what was asked first."""
    from ..agents.waiting import first_error
    from ..server.ending import cancelled_by_signal

    with first_error():
        async with cancelled_by_signal(manager.storage.give_up):
            return await _answer(manager, operation, question, about, invocation_id, on_text)
    raise click.Abort


async def _answer(
    manager: SessionManager,
    operation: str,
    question: str,
    about: dict[str, Any],
    invocation_id: str,
    on_text: OnText | None,
) -> Any:
    from ..agents import AgentConfig, DecomposeAgent, ExploreAgent, ExploreAgentConfig

    how: dict[str, Any] = {"on_text": on_text, "invocation_id": invocation_id}
    if operation == "decompose":
        decomposing = DecomposeAgent(AgentConfig(**about), manager)
        return (await decomposing.decompose(question, **how)).model_dump(mode="json")
    exploring = ExploreAgent(ExploreAgentConfig(**about), manager)
    return await exploring.operate(cast("Operation", operation), question, about["cwd"], **how)


def _records(manager: SessionManager, session_id: str, invocation_id: str) -> list[Invocation]:
    """The records of what was asked: of a question that was taken apart, the one of a second attempt too."""
    from ..agents.decompose import again

    ids = invocation_id, again(invocation_id)
    found = (manager.invocations(session_id, invocation_id=one, limit=1).items for one in ids)
    return [record for items in found for record in items]


def _cost(records: list[Invocation]) -> float | None:
    """What all of it cost; None where nobody knows."""
    costs = [record.cost for record in records if record.cost is not None]
    return math.fsum(costs) if len(costs) == len(records) else None


def _told(operation: str, answer: Any, records: list[Invocation]) -> dict[str, Any]:
    record, cost = records[0], _cost(records)
    told = {"session_id": record.session_id, "operation": operation.replace("-", "_"), "result": answer}
    told["invocation_id"] = record.invocation_id
    return told if cost is None else {**told, "cost": cost}


def _summary(records: list[Invocation]) -> str:
    record, cost = records[0], _cost(records)
    price = "cost unknown" if cost is None else f"{cost:.6g} USD ({record.cost_source})"
    seconds = sum(record.duration_ms or 0 for record in records) / 1000
    return f"Session {record.session_id}: {record.model or record.tool_name}, {seconds:.1f} s, {price}."
