"""Steps that call a tool: one of ours through the one door, or one of another MCP server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...errors import StepError
from ...tools.awaiting import invoke_async
from ..expressions import Template

if TYPE_CHECKING:
    from ..model import Step
    from ..run import Run
    from ..step import Work


def is_short(run: Run, step: Step) -> bool:
    """Whether it is one of ours that is one commit, made once by its id. One that is never to be tried again is on
    record from its beginning, as those are that take long.
    """
    if step.server is not None or step.tool is None or (step.retry is not None and step.retry.never):
        return False
    tool = run.means.toolbox[step.tool]
    return not tool.slow and tool.manager is None


def arguments(run: Run, step: Step, given: Mapping[str, Any]) -> dict[str, Any]:
    """What it is called with: a session that is not named is that of the run."""
    named = dict(given["with"])
    tool = run.means.toolbox[step.tool or ""]
    if "session_id" in tool.annotations and (tool.needs_session or tool.opens is not None):
        named.setdefault("session_id", run.session_id)
    return named


async def call(work: Work) -> Any:
    """What the tool gives."""
    return await (_ours(work) if work.step.server is None else _theirs(work))


async def _ours(work: Work) -> Any:
    run, name = work.run, work.step.tool or ""
    return await invoke_async(
        run.means.toolbox,
        run.manager,
        name,
        arguments(run, work.step, work.given),
        limiter=run.threads,
        caller=run.caller,
        invocation_id=work.key,
        as_user=run.as_user,
        parent_id=work.call.invocation_id,
        within=run.session_id,
    )


async def _theirs(work: Work) -> Any:
    run, step = work.run, work.step
    if run.means.servers is None:
        raise StepError(f"Server '{step.server}' is not there.")
    secrets = run.means.secrets
    arguments = await run.resolve(Template.of(step.given), work.frame, secrets.values())
    tool = (step.tool or "").partition("/")[2]
    try:
        return secrets.scrub(await run.means.servers.call(step.server or "", tool, arguments, work.key))
    except StepError:
        raise
    except Exception as error:  # noqa: BLE001 - what the library of clients raises may tell what it was sent or given
        raise StepError(secrets.scrubbed(f"{step.tool}: {error or type(error).__name__}"), "ToolError") from None
