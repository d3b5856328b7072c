"""Release notes: a workflow that reads a git repository, asks an agent, and waits for a person.

Run it: python examples/release_notes.py REPOSITORY
It ends while it waits; run again with the session that it names, and with yes, it goes on where it was.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import anyio

from mcp_sessions import get_session_manager
from mcp_sessions.agents import Scripted
from mcp_sessions.tools import SESSION_TOOLS, Toolbox
from mcp_sessions.workflows import WorkflowEngine

toolbox = Toolbox(SESSION_TOOLS)


@toolbox.tool(title="Read the log")
def git_log(_call, repo: str, limit: int = 20) -> list[dict[str, str]]:
    """The last commits of a repository, newest first."""
    command = ["git", "-C", repo, "log", f"--max-count={limit}", "--format=%h%x09%s"]
    lines = subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout.splitlines()
    return [dict(zip(("commit", "subject"), line.split("\t", 1), strict=True)) for line in lines]


def script(prompt, _tools):
    """What a model might answer; executor "claude" in the workflow would ask Claude Code."""
    subjects = re.findall(r'"subject":"(.*?)"', prompt)
    return json.dumps({"title": f"{len(subjects)} changes", "body": "\n".join(f"- {subject}" for subject in subjects)})


async def main(repo: str, session_id: str | None = None, approved: str | None = None) -> None:
    manager = get_session_manager()
    engine = WorkflowEngine(manager, toolbox=toolbox, executors={"writer": Scripted(script)})
    if session_id is None:
        result = await engine.execute(Path(__file__).with_suffix(".yaml"), {"repo": repo})
    else:
        result = await engine.respond(session_id, "ok", approved == "yes")
    print(f"{result.session_id}: {result.status.value} {result.outputs}")
    for step, question in result.waiting_for.items():
        print(f"{step}: {question} Answer: release_notes.py {repo} {result.session_id} yes")
    if result.outputs.get("published"):
        print(manager.get_value(result.session_id, "notes")["body"])


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
